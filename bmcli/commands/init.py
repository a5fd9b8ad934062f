"""`bmcli init`: looks at data and writes a recipe that trains on it and explains its choices."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, parts
from bmcli.data.profiling import column_profile, discovery, roles
from bmcli.data.profiling.discovery import DetectedSource
from bmcli.data.profiling.roles import ColumnRole
from bmcli.data.sources import read_rows
from bmcli.data.splitting import splits
from bmcli.errors import BmcliError, naming
from bmcli.recipe.nodes import escape_dollars, write_scalar

if TYPE_CHECKING:
    from bmcli.data.profiling.column_profile import ColumnProfile
    from bmcli.data.sources import SourceRows

_LINE_WIDTH = 118
_COMMENT_COLUMN = 44  # column at which comments begin


@dataclass(frozen=True)
class RowCounts:
    """Rows of the data.

    Args:
        train: Roughly those that will be trained on.
    """

    rows: int
    train: int


@dataclass(frozen=True)
class SectionChoice:
    """Options of a section with the reasons for them."""

    options: Mapping[str, Any]
    why: str = ""


@dataclass(frozen=True)
class DraftResult:
    """A recipe that was written, and how the columns were taken.

    Args:
        notes: What deserves a look before training.
    """

    file: Path
    text: str
    rows: int
    roles: tuple[ColumnRole, ...]
    split: SectionChoice
    model: SectionChoice
    notes: tuple[str, ...]


def init(data: Path, target: str | None, output: Path) -> DraftResult:
    """Writes a recipe for some data.

    Args:
        data: A table, an archive of arrays, or a folder of tables or pictures.
        target: The column to predict; without it the one that is clearly meant.
        output: A file that is not there yet.

    Raises:
        BmcliError: The data cannot be read, its target is not clear, or the file is there.
    """
    if output.exists():
        raise _make_exists_error(output)
    found = discovery.detect_source(data.absolute())
    rows = _read_rows(found)
    with naming(rows.origin):
        looks = column_profile.profile_columns(rows)
    if named := _find_picture_folder(found, looks):
        found = named
        rows = _read_rows(found)
    with naming(rows.origin):
        looks = column_profile.profile_columns(rows) if named else looks
        assigned = roles.drop_leaks(roles.assign_roles(looks, target), rows.columns)
        sizes = RowCounts(len(rows), _count_training_rows(rows, assigned))
        split = _choose_split(rows, assigned, sizes)
    model, train = _choose_model(assigned, sizes), _choose_training(assigned, sizes)
    text = _render_recipe(data, output, found, rows, assigned, split, model, train)
    try:
        disk.write_new(output, text.encode())
    except FileExistsError:
        raise _make_exists_error(output) from None
    return DraftResult(output, text, len(rows), assigned, split, model, tuple(_list_notes(assigned, sizes)))


def _make_exists_error(output: Path) -> BmcliError:
    return BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")


def _read_rows(discovered: DetectedSource) -> SourceRows:
    """All rows; the fault of a source names a file, and there is no recipe to name a place in."""
    source = parts.load("data.sources", discovered.kind)
    try:
        return read_rows(source.Options.model_validate(discovered.to_options()), skip_broken=False)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None


def _find_picture_folder(discovered: DetectedSource, profiles: Sequence[ColumnProfile]) -> DetectedSource | None:
    """The source of pictures that a table names, if they are where it says."""
    if not isinstance(discovered.path, Path) or not discovered.path.is_file():
        return None
    for look in profiles:
        if look.is_picture and (discovered.path.parent / look.example).is_file():
            return DetectedSource(
                "image_folder", discovered.path.parent, {"table": str(discovered.path), "column": look.name}
            )
    return None


def _read_given_splits(rows: SourceRows, assigned: Sequence[ColumnRole]) -> Any:
    """The split of each row if the data tells it, else None."""
    column = next((role.name for role in assigned if role.role == "split"), None)
    return rows.split if column is None or rows.split is not None else splits.read_split_names(rows.columns[column])


def _count_training_rows(rows: SourceRows, assigned: Sequence[ColumnRole]) -> int:
    given = _read_given_splits(rows, assigned)
    return int(0.8 * len(rows)) if given is None else int((given == "train").sum())


def _choose_split(rows: SourceRows, assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """Shares that leave enough rows to validate on, beside what the data tells."""
    given, column = (
        _read_given_splits(rows, assigned),
        next((role.name for role in assigned if role.role == "split"), None),
    )
    share = 0.2 if sizes.train < 500 else 0.15 if sizes.train < 2000 else 0.1
    if given is None or (given == "train").all():
        share = 0.2 if sizes.rows < 1000 else 0.1
        rest = {"train": round(1 - 2 * share, 2), "validation": share, "test": share}
        if time := _find_time_column(assigned):
            return SectionChoice({**rest, "time": time}, f"the oldest rows by {time} train, the newest test")
        return SectionChoice(rest, "rows are drawn; validation chooses the epoch, test is measured once, at the end")
    told = {} if column is None else {"column": column}
    if (given == "validation").any():
        return SectionChoice(told, "the data tells the splits")
    if not (given == "test").any():
        return SectionChoice(told, "")
    return SectionChoice({**told, "validation": share}, "of the training rows, to choose the epoch on")


def _find_time_column(assigned: Sequence[ColumnRole]) -> str | None:
    """A column of dates with about one row each: what comes after must not teach what came before."""
    dates = [
        role
        for role in assigned
        if role.profile.is_iso_date and role.profile.rows_per_value < 1.05 and not role.profile.missing
    ]
    others = [role for role in assigned if role.role == "input" and role not in dates]
    return dates[0].name if len(dates) == 1 and others else None  # alone it is needed as an input


def _choose_model(assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """A family and its size, by the kinds of the inputs and the training rows."""
    inputs = [role for role in assigned if role.role == "input"]
    pictures = [role for role in inputs if role.kind == "image"]
    sequences = [role for role in inputs if role.kind == "number" and len(role.profile.shape) == 2]
    if len(pictures) == 1 and not sequences:
        return _choose_convolutions(pictures[0], sizes)
    if len(sequences) == 1 and not pictures:
        options = {"kind": "rnn", "cell": "gru", "units": 64, "bidirectional": True, "pooling": "mean"}
        return SectionChoice({**options, "dropout": 0.2}, "reads each sequence in both directions, and takes the mean")
    hidden = (32,) if sizes.train < 300 or len(inputs) < 4 else (64, 32) if sizes.train < 2000 else (128, 64)
    hidden = hidden if sizes.train < 20_000 or len(inputs) < 4 else (256, 128)
    why = f"sized for {sizes.train:,} training rows of {len(inputs)} inputs; more units for more of either"
    if any(role.kind == "text" for role in inputs):
        return SectionChoice(
            {"kind": "mlp", "hidden": [64], "dropout": 0.3}, "wide inputs, as those of text, need few units"
        )
    return SectionChoice({"kind": "mlp", "hidden": list(hidden), "dropout": 0.1}, why)


def _choose_convolutions(picture: ColumnRole, sizes: RowCounts) -> SectionChoice:
    height, width = picture.options.get("size", picture.profile.shape[:2])
    filters = [32, 64] if min(height, width) <= 32 else [32, 64, 128]
    filters = filters if min(height, width) >= 4 else [32]
    dense = [64] if sizes.train < 2000 else [128]
    return SectionChoice(
        {"kind": "cnn", "filters": filters, "dense": dense, "dropout": 0.2},
        f"each block of convolutions halves the {height}x{width} pixels",
    )


def _choose_training(assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """Batch and epochs for some thousand steps, with an end where nothing improves any more."""
    inputs = [role for role in assigned if role.role == "input"]
    costly = any(role.kind in ("image", "text") or len(role.profile.shape) > 1 for role in inputs)
    batch = next(batch for limit, batch in _BATCH_SIZES if sizes.train < limit)
    steps = 3000 if costly else 12_000
    epochs = max(8, min(200, round(steps * batch / max(1, sizes.train))))
    return SectionChoice(
        {
            "epochs": epochs,
            "batch_size": batch,
            "optimizer": {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
            "schedule": "cosine",
            "stop": {"patience": max(5, epochs // 4)},
        }
    )


_BATCH_SIZES = ((500, 16), (5_000, 32), (20_000, 64), (100_000, 128), (float("inf"), 512))


def _list_notes(assigned: Sequence[ColumnRole], sizes: RowCounts) -> Iterator[str]:
    target = next(role for role in assigned if role.role == "target")
    if target.profile.missing:
        yield (
            f"{target.profile.missing:,} rows have no {target.name}: training refuses them, so take "
            "them out of the data."
        )
    if sizes.train < 100:
        yield f"{sizes.train} training rows are few: figures will differ from seed to seed."
    if target.kind == "category" and target.profile.top_share > 0.8:
        yield (
            f"{target.profile.top_share:.0%} of the rows are of one class: look at f1 beside accuracy, and try "
            "objective: {kind: classification, class_weights: balanced}."
        )


def _render_recipe(
    data: Path,
    output: Path,
    discovered: DetectedSource,
    rows: SourceRows,
    assigned: Sequence[ColumnRole],
    split: SectionChoice,
    model: SectionChoice,
    train: SectionChoice,
) -> str:
    """The recipe, a comment for each choice."""
    target = next(role for role in assigned if role.role == "target")
    source = _make_source_relative(discovered, output)
    size = f"{len(rows):,} rows, {len(rows.columns)} columns"
    lines = [
        *_render_comment(f"# bmcli train {_make_printable(output.name)}"),
        *_render_comment(f"# made by bmcli init from {_make_printable(data.name)}: {size}"),
        "bmcli: 1",
        f"name: {_make_name(data)}",
        "seed: 0                                     # another seed draws other splits and first weights",
        "data:",
        *_render_value("  ", "source", source),
        *(_render_value("  ", "split", split.options, split.why) if split.options else []),
        *_render_inputs(rows, assigned),
        "  targets:",
        *_render_value("    ", target.name, {"kind": target.kind, **target.options}, target.why),
        *_render_value("", "model", model.options, model.why),
        "train:",
        *_render_value("  ", "epochs", train.options["epochs"], "at most; `stop` ends earlier where nothing improves"),
        *_render_value("  ", "batch_size", train.options["batch_size"]),
        *_render_value("  ", "optimizer", train.options["optimizer"], "the rate is the first thing to tune"),
        *_render_value("  ", "schedule", train.options["schedule"]),
        *_render_value("  ", "stop", train.options["stop"], "epochs without a better validation/loss"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _render_inputs(rows: SourceRows, assigned: Sequence[ColumnRole]) -> Iterator[str]:
    """What the inputs are, and what was dropped and why; kinds are written only where they would not be found."""
    inputs = [role for role in assigned if role.role == "input"]
    by_why: dict[str, list[str]] = {}
    for role in assigned:
        if role.role == "dropped":
            by_why.setdefault(role.why, []).append(role.name)
    for why, names in by_why.items():
        yield from _render_comment(f"  # dropped {', '.join(map(_make_printable, names))}: {why}")
    counts = Counter(role.kind for role in inputs)
    told = "; ".join(f"{count} {kind}" for kind, count in counts.items())
    if all(not role.options and role.profile.likely_kind == role.kind for role in inputs):
        yield f"  # every other column is an input: {told}; name them in `inputs` to change what they are"
        if by_why:
            yield from _render_value("  ", "drop", [name for names in by_why.values() for name in names])
        return
    given = {role.name: {"kind": role.kind, **role.options} if role.options else role.kind for role in inputs}
    yield from _render_value("  ", "inputs", given, told)


def _render_value(indent: str, key: str, value: Any, why: str = "") -> Iterator[str]:
    """A key and its value on one line, with the reason at its end or above it; a long value goes over several lines."""
    written = f"{indent}{write_scalar(key)}: {write_scalar(escape_dollars(_copy_mapping(value)))}"
    why = _make_printable(why)
    if why and max(len(written) + 1, _COMMENT_COLUMN) + len(why) + 2 <= _LINE_WIDTH:
        yield f"{written:<{_COMMENT_COLUMN}} # {why}" if len(written) < _COMMENT_COLUMN else f"{written}  # {why}"
        return
    if why:
        yield from _render_comment(f"{indent}# {why}")
    yield from _fold_line(written, indent)


def _fold_line(line: str, indent: str) -> Iterator[str]:
    """A long flow collection broken after commas, which is where YAML lets it be broken."""
    while len(line) > _LINE_WIDTH and (end := _find_last_break(line)) > len(indent) + 4:
        yield line[:end].rstrip()
        line = f"{indent}    {line[end:].lstrip()}"
    yield line


def _find_last_break(line: str) -> int:
    """The last place before the edge that follows a comma outside of quotes, else 0."""
    place, quoted = 0, False
    for position, character in enumerate(line[:_LINE_WIDTH]):
        if character == '"' and line[position - 1] != "\\":
            quoted = not quoted
        if character == "," and not quoted and line[position + 1 : position + 2] == " ":
            place = position + 1
    return place


def _render_comment(text: str) -> list[str]:
    """A comment over as many lines as it needs."""
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text, _LINE_WIDTH, subsequent_indent=f"{indent}# ", break_on_hyphens=False) or []


def _copy_mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _make_printable(text: str) -> str:
    """Foreign text as part of a comment: one line, printable."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()


def _make_name(data: Path) -> str:
    """A name for the runs after the file or the folder."""
    stem = data.absolute().name.removesuffix(".gz")
    stem = stem if data.is_dir() else stem.rpartition(".")[0] or stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100]
    return write_scalar(plain or "data")


def _make_source_relative(found: DetectedSource, output: Path) -> dict[str, Any]:
    """The source with its paths as seen from the recipe, absolute where that is far."""

    def seen(path: str) -> str:
        near = os.path.relpath(path, output.absolute().parent)
        return path if near.startswith(os.path.join("..", "..")) else near

    source = found.to_options()
    for option in {"path", "table"} & set(source):
        path = source[option]
        source[option] = {split: seen(each) for split, each in path.items()} if isinstance(path, dict) else seen(path)
    return source
