"""`bmcli init`: profile data, and write a recipe for it with a comment on each choice."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bmcli import disk, parts
from bmcli.advice import make_command
from bmcli.data import targets
from bmcli.data.profiling import column_profile, discovery, roles, time_order
from bmcli.data.profiling.discovery import DetectedSource
from bmcli.data.profiling.roles import ColumnRole
from bmcli.data.sources import describe_left_out, read_rows
from bmcli.data.splitting import splits
from bmcli.errors import BmcliError, prefix_faults
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, to_texts
from bmcli.recipe.nodes import escape_dollars, write_scalar

if TYPE_CHECKING:
    from bmcli.data.profiling.column_profile import ColumnProfile
    from bmcli.data.sources import SourceRows

_LINE_WIDTH = 118
_COMMENT_COLUMN = 44  # first column of comments
_MAX_FOLDERS = 3  # above the data, whose names may be that of the runs
# Words of names of files and folders that every project has; a name of these alone would join the runs of projects.
_GENERAL_WORDS = (
    "all", "archive", "bmcli", "clean", "complete", "copy", "csv", "data", "database", "dataset", "datasets",
    "desktop", "dev", "documents", "download", "downloads", "export", "file", "files", "final", "full", "gz",
    "home", "images", "input", "inputs", "json", "jsonl", "main", "new", "parquet", "photos", "pictures",
    "processed", "raw", "rows", "sample", "samples", "table", "tables", "temp", "test", "tests", "tmp", "train",
    "training", "users", "val", "valid", "validation", "work",
)  # fmt: skip
_IMBALANCED_SHARE = 0.8  # of the largest class
_UNKNOWN_SIDE = 96  # height and width of pictures of which neither is known
_MAX_BLOCKS = 4  # of convolutions
_MAX_MAP_SIDE = 8  # of pixels of the last map: blocks halve the pictures until they are smaller
_CENTRED_SIDE = 40  # pixels of pictures, such as digits, whose objects fill them, so that the place of a pixel matters
_FEW_PICTURES = 1000  # training rows below which a network is narrower
_MANY_PICTURES = 20_000  # training rows from which on augmentation is worth less than its time
_UNKNOWN_STEPS = 100  # of series whose length is not known
_LONG_SERIES = 1000  # steps from which on blocks pool more of them
_MAX_SERIES_BLOCKS = 3  # of convolutions over the steps of a series
_WORD_MODEL = {"kind": "rnn", "cell": "gru", "units": 64, "bidirectional": True, "dropout": 0.3}


@dataclass(frozen=True)
class RowCounts:
    """Row counts of the data.

    Args:
        train: Approximate number of training rows.
    """

    rows: int
    train: int


@dataclass(frozen=True)
class SectionChoice:
    """Options of a section of the recipe, and the reason for them."""

    options: Mapping[str, Any]
    why: str = ""


@dataclass(frozen=True)
class DraftResult:
    """A written recipe, with the roles of the columns and the choices.

    Args:
        notes: Advice to read before training.
    """

    file: Path
    text: str
    rows: int
    roles: tuple[ColumnRole, ...]
    split: SectionChoice
    model: SectionChoice
    notes: tuple[str, ...]


def init(data: Path, target: str | None, output: Path, encoding: str | None = None) -> DraftResult:
    """Write a recipe for some data.

    Args:
        data: A table, an archive of arrays, or a folder of tables or pictures.
        target: The column to predict; None to detect it.
        output: A new file.
        encoding: Text encoding of a table; None to detect it.

    Raises:
        BmcliError: The data cannot be read, its target is ambiguous, or the file exists.
    """
    if output.exists():
        raise _make_exists_error(output)
    source = _set_encoding(discovery.detect_source(data.absolute()), encoding)
    rows = _read_rows(source)
    with prefix_faults(rows.origin):
        profiles = column_profile.profile_columns(rows)
    # A table may list files of pictures; the rows are then read again, with pixels instead of file names.
    if picture_folder := _find_picture_folder(source, profiles):
        source = _set_encoding(picture_folder, encoding)
        rows = _read_rows(source)
    with prefix_faults(rows.origin):
        profiles = column_profile.profile_columns(rows) if picture_folder else profiles
        assigned = roles.drop_leaks(roles.assign_roles(profiles, target, rows.columns), rows.columns)
        split = _choose_split(rows, assigned)
        assigned = _take_time_out(assigned, split)
        sizes = RowCounts(len(rows), _count_training_rows(rows, assigned, split))
        invalid = _choose_invalid(assigned)
    model, train = _choose_model(assigned, sizes), _choose_training(assigned, sizes)
    augment = _choose_augmentation(assigned, sizes)
    text = _render_recipe(data, output, source, rows, assigned, split, invalid, model, train, augment)
    try:
        disk.write_new(output, text.encode())
    except FileExistsError:
        raise _make_exists_error(output) from None
    notes = (*rows.notes, *_list_notes(rows, assigned, sizes))
    return DraftResult(output, text, len(rows), assigned, split, model, notes)


def _set_encoding(source: DetectedSource, encoding: str | None) -> DetectedSource:
    """Add a text encoding to the options of a source.

    Raises:
        BmcliError: The source has no such option, or there is no such encoding.
    """
    if encoding is None:
        return source
    options = parts.load("data.sources", source.kind).Options
    if "encoding" not in options.model_fields:
        raise BmcliError(
            f"--encoding has no effect: data of the kind {source.kind} has no other encoding.",
            suggestion="Leave it out.",
        )
    source = replace(source, options={**source.options, "encoding": encoding})
    try:
        options.model_validate(source.to_options())
    except ValidationError as error:
        first = error.errors()[0]
        raise BmcliError(f"--encoding: {first['msg']}", suggestion=first.get("ctx", {}).get("suggestion", "")) from None
    return source


def _make_exists_error(output: Path) -> BmcliError:
    return BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")


def _read_rows(discovered: DetectedSource) -> SourceRows:
    """Read all rows; faults lose their recipe path, since there is no recipe yet."""
    source = parts.load("data.sources", discovered.kind)
    try:
        return read_rows(source.Options.model_validate(discovered.to_options()), skip_malformed=False)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None


def _find_picture_folder(discovered: DetectedSource, profiles: Sequence[ColumnProfile]) -> DetectedSource | None:
    """Return the source of the pictures that a column of a table names; None if there are none."""
    if not isinstance(discovered.path, Path) or not discovered.path.is_file():
        return None
    for profile in profiles:
        if profile.is_picture and (discovered.path.parent / profile.example).is_file():
            return DetectedSource(
                "image_folder", discovered.path.parent, {"table": str(discovered.path), "column": profile.name}
            )
    return None


def _find_split_column(assigned: Sequence[ColumnRole]) -> str | None:
    return next((role.name for role in assigned if role.role == "split"), None)


def _read_split_names(rows: SourceRows, assigned: Sequence[ColumnRole]) -> Any:
    """Return the split of each row; None if the data has no splits."""
    column = _find_split_column(assigned)
    return rows.split if column is None or rows.split is not None else splits.read_split_names(rows.columns[column])


def _count_training_rows(rows: SourceRows, assigned: Sequence[ColumnRole], split: SectionChoice) -> int:
    """Count, up to rounding, the rows of which a split leaves none for validation and test."""
    if "train" in split.options:
        return int(split.options["train"] * len(rows))
    split_names = _read_split_names(rows, assigned)
    return int((split_names == "train").sum() * (1 - split.options.get("validation", 0)))


def _choose_split(rows: SourceRows, assigned: Sequence[ColumnRole]) -> SectionChoice:
    """Choose shares with enough validation rows; splits of the data are kept."""
    split_names, column = _read_split_names(rows, assigned), _find_split_column(assigned)
    if split_names is None or (split_names == "train").all():
        share = 0.2 if len(rows) < 1000 else 0.1
        shares = {"train": round(1 - 2 * share, 2), "validation": share, "test": share}
        if group := _find_group(assigned):
            why = f"{group.name} {group.why}; if they were divided, the test would be of known ones"
            return SectionChoice({**shares, "group": group.name}, why)
        if found := _find_time_column(rows, assigned, share):
            time, why = found
            formats = time.profile.guesses[0].time_formats
            written = {"time_format": formats[0] if len(formats) == 1 else list(formats)} if formats != ("iso",) else {}
            return SectionChoice({**shares, "time": time.name, **written}, why)
        return SectionChoice(shares, "random rows; validation selects the epoch, test is evaluated once, at the end")
    options = {} if column is None else {"column": column}
    if (split_names == "validation").any():
        return SectionChoice(options, "the data defines the splits")
    if not (split_names == "test").any():
        return SectionChoice(options, "")
    known = int((split_names == "train").sum())
    share = 0.2 if known < 500 else 0.15 if known < 2000 else 0.1
    return SectionChoice({**options, "validation": share}, "share of the training rows, to select the epoch")


def _find_group(assigned: Sequence[ColumnRole]) -> ColumnRole | None:
    return next((role for role in assigned if role.role == "group"), None)


def _find_time_column(rows: SourceRows, assigned: Sequence[ColumnRole], share: float) -> tuple[ColumnRole, str] | None:
    """Find the column of dates by which later rows must not be in the training set, with the reason.

    Args:
        share: Of the newest rows, for the test.
    """
    dates = [
        role
        for role in assigned
        if role.role in ("input", "dropped")
        and any(guess.time_formats for guess in role.profile.guesses[:1])
        and not role.profile.missing
        and not time_order.is_birth(role.name)
    ]
    orders = {
        role.name: time_order.describe_order(rows.columns[role.name], role.profile.guesses[0].time_formats)
        for role in dates
    }
    time = next((role for role in dates if orders[role.name]), None)
    others = [role for role in assigned if role.role == "input" and role not in dates]
    if time is None and len(dates) == 1 and others and dates[0].profile.rows_per_value < 1.05:
        time = dates[0]
    if time is None:
        return None
    target = next(role for role in assigned if role.role == "target")
    if parts.load("data.targets", target.kind).ONE_CLASS and time_order.divides_classes(
        rows.columns[time.name], time.profile.guesses[0].time_formats, rows.columns[target.name], share
    ):
        return None
    why = f"since {orders[time.name]}" if orders[time.name] else "which differs in nearly every row"
    why = f"by {time.name}, {why}: oldest rows for training, newest for test"
    return time, "; ".join([why, *_explain_format(time)])


def _explain_format(date: ColumnRole) -> list[str]:
    """Return why a column of dates is read in its format, as clauses."""
    return date.profile.guesses[0].why.split("; ")[1:]  # without the kind


def _take_time_out(assigned: Sequence[ColumnRole], split: SectionChoice) -> tuple[ColumnRole, ...]:
    """Take the column of the times by which rows are split out of the inputs, unless it is the only one."""
    time = split.options.get("time")
    if not any(role.role == "input" and role.name != time for role in assigned):
        return tuple(assigned)
    return tuple(
        ColumnRole(role.profile, "time", why="rows are split by it") if role.name == time else role for role in assigned
    )


def _choose_invalid(assigned: Sequence[ColumnRole]) -> SectionChoice:
    """Choose to leave out rows without an answer, if there are any that the kind of the target refuses."""
    target = next(role for role in assigned if role.role == "target")
    if not _refuses_missing(target):
        return SectionChoice({})
    why = f"{_count_rows_without(target):,} rows without {target.name} are left out; every other cell can be read"
    return SectionChoice({"invalid": "skip"}, why)


def _refuses_missing(target: ColumnRole) -> bool:
    """Whether the target has missing cells, and its kind refuses them."""
    import pyarrow as pa

    part = parts.load("data.targets", target.kind)
    options = part.Options.model_validate({"kind": target.kind, **target.options})
    try:
        part.check(pa.chunked_array([pa.nulls(min(1, _count_rows_without(target)), pa.string())]), options)
    except RowFault:
        return True
    return False


def _choose_model(assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """Choose a model family and its size, by the form of the inputs and the number of training rows."""
    inputs = [role.guess for role in assigned if role.guess is not None]
    pictures = [role for role in assigned if role.guess is not None and role.guess.form == "map"]
    series = [role for role in assigned if role.guess is not None and role.guess.form == "steps"]
    if len(pictures) == 1 and not series:
        return _choose_convolutions(pictures[0], sizes)
    if len(series) == 1 and not pictures:
        if series[0].profile.dtype == "text":
            return SectionChoice(_WORD_MODEL, "reads the words before and after each")
        return _choose_series_model(series[0], assigned, sizes)
    hidden = (32,) if sizes.train < 300 or len(inputs) < 4 else (64, 32) if sizes.train < 2000 else (128, 64)
    hidden = hidden if sizes.train < 20_000 or len(inputs) < 4 else (256, 128)
    count = "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
    why = f"size for {sizes.train:,} training rows with {count}; use more units for more of either"
    if any(guess.is_wide for guess in inputs):
        return SectionChoice(
            {"kind": "mlp", "hidden": [64], "dropout": 0.3}, "wide inputs, such as text, need few units"
        )
    return SectionChoice({"kind": "mlp", "hidden": list(hidden), "dropout": 0.1}, why)


def _choose_series_model(series: ColumnRole, assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """Choose convolutions over the steps with batch normalization, after Wang, Yan and Oates 2017.

    They learn from 50 rows in some hundred steps; a recurrent network often stays at the shares of the classes there.
    """
    steps = series.profile.shape[0] if series.profile.shape else _UNKNOWN_STEPS
    width = 64 if sizes.train < 5_000 else 128
    filters = [64, *[width] * (min(_MAX_SERIES_BLOCKS, max(1, steps.bit_length() - 2)) - 1)]
    options = {"kind": "cnn", "filters": filters, "kernel_size": 8, "normalization": "batch", "pooling": "average"}
    if _needs_every_step(assigned) or steps < 2:
        options["pool"] = 1
    elif steps > _LONG_SERIES:
        options["pool"] = 4
    return SectionChoice({**options, "dense": [], "dropout": 0.2}, "finds patterns anywhere in a series")


def _needs_every_step(assigned: Sequence[ColumnRole]) -> bool:
    """Whether the answer to the target has a part for each step, so that no step may be pooled away."""
    target = next(role for role in assigned if role.role == "target")
    objective = parts.load("objectives", parts.load("data.targets", target.kind).OBJECTIVE)
    needs_steps: bool = objective.REQUEST.form == "steps"
    return needs_steps


def _choose_convolutions(picture: ColumnRole, sizes: RowCounts) -> SectionChoice:
    """Choose blocks by the size of the pictures, and their width by the number of training rows."""
    height, width = picture.options.get("size") or picture.profile.shape[:2] or (_UNKNOWN_SIDE, _UNKNOWN_SIDE)
    side = min(height, width)
    blocks = 1
    while blocks < _MAX_BLOCKS and side >> blocks >= _MAX_MAP_SIDE:
        blocks += 1
    first = 16 if sizes.train < _FEW_PICTURES else 32
    filters = [first * min(4, 2**block) for block in range(blocks)]
    # A vector of maxima does not depend on where something is, and has few weights behind it.
    pooling = {} if side < _CENTRED_SIDE else {"pooling": "max"}
    dense = [64] if sizes.train < 2000 else [128]
    options = {"kind": "cnn", "filters": filters, "normalization": "batch", **pooling, "dense": dense, "dropout": 0.2}
    return SectionChoice(options, f"each block halves the {height}x{width} pixels; width for {sizes.train:,} rows")


def _choose_augmentation(assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """Choose small movements of few pictures of classes; none where the target may depend on the place."""
    pictures = [role for role in assigned if role.guess is not None and role.guess.form == "map"]
    target = next(role for role in assigned if role.role == "target")
    if len(pictures) != 1 or sizes.train >= _MANY_PICTURES or not parts.load("data.targets", target.kind).ONE_CLASS:
        return SectionChoice({})
    kinds = {"translate": 0.1, "zoom": 0.1, "rotate": 0.03}
    changes = [{"kind": kind, "factor": factor, "fill_mode": "nearest"} for kind, factor in kinds.items()]
    return SectionChoice({pictures[0].name: changes}, "few pictures; add flip if a mirrored picture has the same class")


def _choose_training(assigned: Sequence[ColumnRole], sizes: RowCounts) -> SectionChoice:
    """Choose batch size and epochs for some thousand steps, with early stopping."""
    costly = any(
        role.guess.form != "vector" or role.guess.is_wide or len(role.profile.shape) > 1
        for role in assigned
        if role.guess is not None
    )
    batch = next(batch for limit, batch in _BATCH_SIZES if sizes.train < limit)
    steps = 3000 if costly else 12_000
    epochs = max(8, min(200, round(steps * batch / max(1, sizes.train))))
    return SectionChoice(
        {
            "epochs": epochs,
            "batch_size": batch,
            "optimizer": {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
            "schedule": {"kind": "cosine", "warmup": 0.02} if _has_series(assigned) else "cosine",
            "stop": {"patience": max(5, epochs // 4)},
        }
    )


def _has_series(assigned: Sequence[ColumnRole]) -> bool:
    return any(role.guess is not None and role.guess.form == "steps" for role in assigned)


_BATCH_SIZES = ((500, 16), (5_000, 32), (20_000, 64), (100_000, 128), (float("inf"), 512))


def _list_notes(rows: SourceRows, assigned: Sequence[ColumnRole], sizes: RowCounts) -> Iterator[str]:
    if rows.left_out:
        yield describe_left_out(rows.left_out)
    for role in assigned:
        if role.guess is not None and role.guess.warning:
            yield f"{quoted(role.name)}: {role.guess.warning}"
    yield from _describe_spellings(rows, assigned)
    target = next(role for role in assigned if role.role == "target")
    if target.doubt:
        yield f"target {target.name}, {target.why.rpartition('; ')[2]}: {target.doubt}."
    if _refuses_missing(target):
        yield (
            f"missing labels: {_count_rows_without(target):,} of {len(rows):,} rows have no {target.name}; `invalid: "
            "skip` leaves them out of training and evaluation."
        )
    for role in assigned:
        doubts = [guess.doubt for guess in role.profile.guesses] if role.role in ("input", "time") else []
        if role is target and target.profile.written is not None:
            doubts = [target.profile.written.doubt]
        yield from (f"{role.name}: {doubt}." for doubt in doubts if doubt)
    if sizes.train < 100:
        yield f"small training set: {sizes.train} rows; metrics will vary with the seed."
    if not parts.load("data.targets", target.kind).ONE_CLASS:
        return
    if target.profile.top_share > _IMBALANCED_SHARE:
        yield (
            f"class imbalance: {target.profile.top_share:.0%} of the rows have the same class; read f1 beside "
            "accuracy, and try objective: {kind: classification, class_weights: balanced}."
        )
    if single := _count_single_rows(rows.columns[target.name]):
        yield (
            f"{single:,} of {target.profile.distinct:,} classes have one row: these rows go to training, so no metric "
            "measures their classes; merge rare classes, or collect more rows."
        )


def _count_single_rows(column: RawColumn) -> int:
    """Count the classes of one row."""
    import pyarrow.compute as pc

    counts = pc.value_counts(to_texts(column, fractions=True).drop_null()).field("counts")
    return int(pc.sum(pc.equal(counts, 1)).as_py() or 0)


def _count_rows_without(target: ColumnRole) -> int:
    """Count the rows without a target. Words that mark a missing number are classes of a target of classes."""
    written = target.profile.written
    if written is None or not parts.load("data.targets", target.kind).ONE_CLASS:
        return target.profile.missing
    return target.profile.missing - sum(written.markers.values()) - sum(written.foreign.values())


def _describe_spellings(rows: SourceRows, assigned: Sequence[ColumnRole]) -> Iterator[str]:
    """Describe categories and classes that are written in several ways, or that differ only by case."""
    for role in assigned:
        sentences: tuple[str, ...] = ()
        if role.guess is not None and role.role == "input" and role.guess.is_categorical:
            kind = parts.load("inputs", role.kind)
            column = kind.fit(role.name, rows.columns[role.name], kind.Options(**role.options))
            sentences = kind.get_traits(column).describe_spellings()
        elif role.role == "target" and parts.load("data.targets", role.kind).ONE_CLASS:
            sentences = targets.describe_cells(rows.columns[role.name])
        if sentences:
            yield f"column {quoted(role.name)}: {' '.join(sentences)}"


def _render_recipe(
    data: Path,
    output: Path,
    discovered: DetectedSource,
    rows: SourceRows,
    assigned: Sequence[ColumnRole],
    split: SectionChoice,
    invalid: SectionChoice,
    model: SectionChoice,
    train: SectionChoice,
    augment: SectionChoice,
) -> str:
    """Render the recipe, with a comment on each choice."""
    target = next(role for role in assigned if role.role == "target")
    source = {**_make_source_relative(discovered, output), **_list_unusual_options(rows)}
    size = f"{len(rows):,} rows, {len(rows.columns)} columns"
    lines = [
        *_render_comment(f"# {make_command('train', _make_printable(output.name)).line}"),
        *_render_comment(f"# written by bmcli init from {_make_printable(data.name)}: {size}"),
        "bmcli: 1",
        f"name: {_make_name(data)}",
        "seed: 0                                     # of the splits and the initial weights",
        "data:",
        *(line for note in rows.notes for line in _render_comment(f"  # {_make_printable(note)}")),
        *_render_value("  ", "source", source),
        *(_render_value("  ", "split", split.options, split.why) if split.options else []),
        *(line for key, value in invalid.options.items() for line in _render_value("  ", key, value, invalid.why)),
        *_render_inputs([role for role in assigned if role.name != split.options.get("group")], target, split),
        *(_render_value("  ", "augment", augment.options, augment.why) if augment.options else []),
        "  targets:",
        *_render_value(
            "    ",
            target.name,
            {"kind": target.kind, **target.options},
            "; ".join(each for each in (target.why, target.doubt) if each),
        ),
        *_render_value("", "model", model.options, model.why),
        "train:",
        *_render_value("  ", "epochs", train.options["epochs"], "at most; `stop` ends earlier without improvement"),
        *_render_value("  ", "batch_size", train.options["batch_size"]),
        *_render_value("  ", "optimizer", train.options["optimizer"], "the rate is the first value to tune"),
        *_render_value("  ", "schedule", train.options["schedule"]),
        *_render_value("  ", "stop", train.options["stop"], "epochs without a better validation/loss"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _render_inputs(assigned: Sequence[ColumnRole], target: ColumnRole, split: SectionChoice) -> Iterator[str]:
    """Render inputs and dropped columns, with reasons; kinds are written only if they differ from the detected ones."""
    inputs = [role for role in assigned if role.role == "input"]
    dropped: dict[str, list[str]] = {}  # names by reason
    for role in assigned:
        if role.role in ("dropped", "group"):
            dropped.setdefault(role.why, []).append(role.name)
    for why, names in dropped.items():
        yield from _render_comment(f"  # dropped {', '.join(map(_make_printable, names))}: {why}")
    counts = Counter(role.kind for role in inputs)
    kinds = "; ".join(f"{count} {kind}" for kind, count in counts.items())
    # The time of the split is an input only if it is listed.
    by_time = [role for role in inputs if role.name == split.options.get("time")]
    if by_time and target.profile.is_number:
        lags = f"{{kind: lags, of: {write_scalar(target.name)}, steps: [1]}}"
        hint = f"past values may predict better than dates; add an input of them, {_make_printable(lags)}"
        yield from _render_comment(f"  # {hint}")
    if not by_time and all(not role.options and role.profile.detected == role.kind for role in inputs):
        yield f"  # every other column is an input: {kinds}; to change their kinds, list them in `inputs`"
        if dropped:
            yield from _render_value("  ", "drop", [name for names in dropped.values() for name in names])
        return
    for role in inputs:
        if role.options:
            yield from _render_comment(f"  # {_make_printable(role.name)}: {_make_printable(role.why)}")
    options = {role.name: {"kind": role.kind, **role.options} if role.options else role.kind for role in inputs}
    yield from _render_value("  ", "inputs", options, kinds)


def _render_value(indent: str, key: str, value: Any, why: str = "") -> Iterator[str]:
    """Render a key and its value, with the reason at the end of the line or above it; long values are folded."""
    line = f"{indent}{write_scalar(key)}: {write_scalar(escape_dollars(_copy_mapping(value)))}"
    why = _make_printable(why)
    if why and max(len(line) + 1, _COMMENT_COLUMN) + len(why) + 2 <= _LINE_WIDTH:
        yield f"{line:<{_COMMENT_COLUMN}} # {why}" if len(line) < _COMMENT_COLUMN else f"{line}  # {why}"
        return
    if why:
        yield from _render_comment(f"{indent}# {why}")
    yield from _fold_line(line, indent)


def _fold_line(line: str, indent: str) -> Iterator[str]:
    """Fold a long flow collection after commas, where YAML allows a line break."""
    while len(line) > _LINE_WIDTH and (end := _find_last_break(line)) > len(indent) + 4:
        yield line[:end].rstrip()
        line = f"{indent}    {line[end:].lstrip()}"
    yield line


def _find_last_break(line: str) -> int:
    """Find the last position within the line width that follows a comma outside of quotes; 0 if there is none."""
    last, is_quoted = 0, False
    for position, character in enumerate(line[:_LINE_WIDTH]):
        if character == '"' and line[position - 1] != "\\":
            is_quoted = not is_quoted
        if character == "," and not is_quoted and line[position + 1 : position + 2] == " ":
            last = position + 1
    return last


def _render_comment(text: str) -> list[str]:
    """Wrap a comment into lines."""
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text, _LINE_WIDTH, subsequent_indent=f"{indent}# ", break_on_hyphens=False) or []


def _copy_mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _make_printable(text: str) -> str:
    """Make foreign text safe for a comment: one line of printable characters."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()


def _make_name(data: Path) -> str:
    """Make a name of runs from the file, or from the nearest folder above it that has a specific name."""
    path = data.absolute()
    stem = path.name.removesuffix(".gz")
    stem = stem if data.is_dir() else stem.rpartition(".")[0] or stem
    names = [stem, *(folder.name for folder in path.parents[:_MAX_FOLDERS])]
    plain = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] for name in names]
    specific = [name for name in plain if name and not set(re.findall("[a-z]+", name.lower())).issubset(_GENERAL_WORDS)]
    return write_scalar(next(iter(specific), plain[0] or "data"))


def _list_unusual_options(rows: SourceRows) -> dict[str, Any]:
    """List the detected options of the source that differ from those of most files."""
    return {name: value for name, value in rows.detected_options.items() if value != _USUAL_OPTIONS.get(name)}


_USUAL_OPTIONS = {"encoding": "utf-8", "delimiter": ",", "quote": '"', "skip_lines": 0, "header": True}


def _make_source_relative(discovered: DetectedSource, output: Path) -> dict[str, Any]:
    """Return the options of a source with paths relative to the recipe, unless they lead up two folders or more."""

    def shorten(path: str) -> str:
        relative = os.path.relpath(path, output.absolute().parent)
        return path if relative.startswith(os.path.join("..", "..")) else relative

    options = discovered.to_options()
    for option in {"path", "table"} & set(options):
        paths = options[option]
        if isinstance(paths, dict):
            options[option] = {split: shorten(path) for split, path in paths.items()}
        else:
            options[option] = shorten(paths)
    return options
