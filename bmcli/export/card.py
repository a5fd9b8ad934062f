"""Cards of artefacts: model cards as JSON for programs and as Markdown for people."""

from __future__ import annotations

import gzip
import html
import importlib.metadata
import json
import math
import os
import platform
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bmcli import __version__, disk, records, trust
from bmcli import inputs as input_kinds
from bmcli.answers import Answers
from bmcli.column_records import AnyRecord, validate_record
from bmcli.data import targets
from bmcli.errors import ArtefactRejected, BmcliError
from bmcli.export import (
    CacheTensor,
    FormatOptions,
    Runtime,
    Signature,
    SignatureInput,
    SignatureOutput,
    WritingFunctions,
    WrittenModel,
    example,
    schema,
)
from bmcli.export.verify import Verification
from bmcli.metrics.classification import describe_positive
from bmcli.metrics.weighted_metrics import describe_row_weights
from bmcli.number_texts import write_measure
from bmcli.objectives import open_answers
from bmcli.printable import clean
from bmcli.quoting import shortened
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run, now
from bmcli.specs import Column, DataSpec

CARD, CARD_TEXT, PREPROCESSING, ENCODER = "card.json", "card.md", "preprocessing.json", "encoder"
CARD_VERSION = 1
MODEL_PATHS: Mapping[Runtime, str] = {
    "tensorflow": "1", "litert": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml", "keras": "model.keras",
}  # fmt: skip
"""File or folder that each runtime loads, below the folder of the artefact."""

PATH_OPTIONS = ("path", "table")
"""Options of a source that name files of the user."""

_PACKAGES = ("tensorflow", "keras", "numpy", "onnx", "tf2onnx", "onnxruntime", "openvino", "ai-edge-litert")
# Entries of a run's record; its command and variables describe the user's machine and stay private.
_TRAINED_WITH = (
    "bmcli", "python", "tensorflow", "keras", "numpy", "scikit-learn", "pyarrow", "devices", "processor", "strategy",
    "replicas", "workers",
)  # fmt: skip
_SEAL_PURPOSE = "artefact"
# Limits of JSON files, since parsed they can take thirty times their size in memory; the second has vocabularies.
_MAX_RECORD_BYTES = {CARD: 2**24, PREPROCESSING: 2**26}
_EXPORT_AGAIN = "Export again."


def build(
    run: Run, recipe: Recipe, spec: DataSpec, options: FormatOptions, written: WrittenModel, folder: Path,
    verification: Verification, license_name: str | None,
    weights: Mapping[str, Any], evaluations: Mapping[str, Any], recorded: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Build the card of an artefact after all its files are written.

    Args:
        evaluations, recorded: The run's evaluations and its environment; empty if they are lost.
    """
    files = [_describe_file(folder, path) for path in _list_files(folder)]
    needed = [file for file in files if file["path"] != PREPROCESSING or (folder / ENCODER).exists()]
    model_files = [file for file in files if not _is_preprocessing(file["path"])]
    return {
        **build_minimal(options, written),
        "bmcli_card": CARD_VERSION,
        "name": recipe.name,
        "created": now(),
        "license": license_name,
        "targets": [_describe_output(answers) for answers in open_answers(spec).values()],
        "columns": [_describe_column(column, written) for column in spec.inputs],
        "notes": list(written.notes),
        "example": example.write_program(spec, written),
        "generation": example.write_generation_program(written),
        "request": example.make_request(spec, written) if written.runtime == "tensorflow" else None,
        "weights": dict(weights),
        "verification": verification.to_json(),
        "evaluation": {split: _select_metrics(evaluation) for split, evaluation in evaluations.items()},
        "lineage": _describe_lineage(run, recipe, spec, recorded),
        "versions": {"bmcli": __version__, "python": platform.python_version(), **dict(_list_versions())},
        **_measure_files(folder, needed, ""),
        **_measure_files(folder, model_files, "model_"),
        "files": files,
    }


def _is_preprocessing(path: str) -> bool:
    """Whether a file of an artefact is one of the preprocessing outside of the model."""
    return path == PREPROCESSING or path.startswith(f"{ENCODER}/")


def _measure_files(folder: Path, files: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, int]:
    return {
        f"{prefix}bytes": sum(file["bytes"] for file in files),
        f"{prefix}gzip_bytes": sum(measure_gzip_bytes(folder / file["path"]) for file in files),
    }


def build_minimal(options: FormatOptions, written: WrittenModel) -> dict[str, Any]:
    """Build the part of a card that a runner of the artefact needs."""
    return {
        "format": options.name,
        "kind": options.kind,
        "options": {key: value for key, value in options.model_dump().items() if key != "kind"},
        "precision": options.precision,
        "runtime": written.runtime,
        "model": written.model,
        "modules": list(written.modules),
        "signatures": [signature.to_json() for signature in written.signatures],
        "writing": None if written.writing is None else written.writing.to_json(),
    }


def describe_preprocessing(spec: DataSpec, recipe: Recipe) -> dict[str, Any]:
    """Describe the fitted preprocessing and the options of the source, without paths of the user."""
    values = json.loads(json.dumps(spec.to_json()))
    for fitted, column in zip(spec.inputs, values["inputs"], strict=True):
        column["state"] |= json.loads(json.dumps(input_kinds.get_traits(fitted).derive_state()))
    source = recipe.data.source.model_dump(exclude_unset=True)
    return {**values, "source": {key: value for key, value in source.items() if key not in PATH_OPTIONS}}


def parse_written_model(values: Mapping[str, Any]) -> WrittenModel:
    """Parse the files and signatures of an artefact from its card."""
    return WrittenModel(
        values["model"],
        values["runtime"],
        tuple(
            Signature(
                each["name"],
                tuple(SignatureInput(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in each["inputs"]),
                tuple(SignatureOutput(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in each["outputs"]),
            )
            for each in values["signatures"]
        ),
        modules=tuple(values["modules"]),
        writing=None if values["writing"] is None else _parse_writing(values["writing"]),
    )


def _parse_writing(values: Mapping[str, Any]) -> WritingFunctions:
    caches = values["caches"]
    if caches is not None:
        caches = tuple(CacheTensor(each["name"], tuple(each["shape"]), each["dtype"]) for each in caches)
    return WritingFunctions(values["output"], values["generates"], caches)


def write(folder: Path, values: Mapping[str, Any]) -> bool:
    """Write the card with this user's seal; returns False, and writes it without, where no key can be stored.

    Raises:
        ValueError: A number is not finite.
    """
    seal = trust.seal(_encode_sealed_content(values), _SEAL_PURPOSE)
    records.write_record(folder / CARD, {**values, "seal": seal})
    return seal is not None


def is_sealed_by_user(card: Mapping[str, Any]) -> bool:
    """Whether a process of this user wrote this card, which has the digests of all files."""
    values = {key: value for key, value in card.items() if key != "seal"}
    return trust.is_sealed(_encode_sealed_content(values), _SEAL_PURPOSE, card["seal"])


def _encode_sealed_content(values: Mapping[str, Any]) -> bytes:
    return records.compute_record_digest(values).encode()


def parse(folder: Path) -> dict[str, Any]:
    """Parse and validate the card of an artefact, without its files.

    Raises:
        BmcliError: There is no card.
        ArtefactRejected: It is not a valid card, or has another model path than its runtime.
    """
    values = _read_record(folder / CARD, schema.CardRecord)
    if values["model"] != MODEL_PATHS[values["runtime"]]:
        raise ArtefactRejected(
            f"{folder / CARD}: model: expected '{MODEL_PATHS[values['runtime']]}', received {values['model']!r}.",
            suggestion=_EXPORT_AGAIN,
        )
    return values


def read(folder: Path) -> dict[str, Any]:
    """Read the card of an artefact, and verify the files.

    Raises:
        BmcliError: There is no card.
        ArtefactRejected: A file is missing, not listed, a link, or changed.
    """
    values = parse(folder)
    listed = {file["path"]: file["sha256"] for file in values["files"]}
    needed = [*_list_model_files(folder, folder / values["model"]), PREPROCESSING]
    if unlisted := sorted(set(needed) - set(listed)):
        raise ArtefactRejected(f"{folder / unlisted[0]}: the card does not list it.", suggestion=_EXPORT_AGAIN)
    for path, digest in listed.items():
        _check_file(folder, path, digest)
    return values


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """Read and validate the preprocessing, the result of `describe_preprocessing`.

    Raises:
        ArtefactRejected: It is missing or invalid.
    """
    file = folder / PREPROCESSING
    values = _read_record(file, schema.PreprocessingRecord)
    for room, check in (("inputs", _check_input), ("targets", targets.check_state)):
        for position, column in enumerate(values[room]):
            try:
                check(records.validate_as(Column, column))
            except ValueError as error:
                raise ArtefactRejected(f"{file}: {room}.{position}.{error}.", suggestion=_EXPORT_AGAIN) from None
    return values


def _check_input(column: Column) -> None:
    """Require a column that the kind of an input can fit.

    Raises:
        ValueError: It cannot; the message begins with the path of a value in the column.
    """
    traits = input_kinds.get_traits(column)
    traits.check_state()
    # A forged regular expression of a date could take exponential time on every cell.
    if forged := _find_forged_state(traits):
        raise ValueError(f"state.{forged}: they do not follow from the column")


def _find_forged_state(traits: input_kinds.InputTraits) -> str | None:
    """Find a name in the state of an input whose value does not follow from the rest of the column."""
    try:
        derived = json.loads(json.dumps(traits.derive_state()))
    except ValueError:  # such as no such format
        return next(iter(traits.derived_state))
    missing = object()
    state = json.loads(json.dumps(dict(traits.column.state)))
    names = (name for name in traits.derived_state if state.get(name, missing) != derived.get(name, missing))
    return next(names, None)


def _read_record(file: Path, record_type: type[AnyRecord]) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_RECORD_BYTES[file.name]:
            raise ValueError(f"larger than {_MAX_RECORD_BYTES[file.name]:,} bytes")
        values = records.read_record(file)
        validate_record(record_type, values)
    except FileNotFoundError:
        if file.name == CARD:
            raise BmcliError(f"{file.parent}: not an artefact, it has no {file.name}.") from None
        raise ArtefactRejected(f"{file}: missing.", suggestion=_EXPORT_AGAIN) from None
    except (OSError, ValueError) as error:
        raise ArtefactRejected(f"{file}: {error}.", suggestion=_EXPORT_AGAIN) from None
    return values


def _list_model_files(folder: Path, model: Path) -> Iterator[str]:
    """List all files that loading the model may read."""
    if not model.is_dir() or model.is_symlink():
        yield str(model.relative_to(folder))
        return
    for directory, folders, files in os.walk(model):
        links = [name for name in folders if (Path(directory) / name).is_symlink()]
        yield from (str((Path(directory) / name).relative_to(folder)) for name in (*links, *files))


def _check_file(folder: Path, path: str, digest: str) -> None:
    """Reject a file that is missing, behind a symbolic link, or changed."""
    file = folder
    for part in path.split("/"):
        file = file / part
        if file.is_symlink():
            raise ArtefactRejected(f"{file}: a symbolic link, expected the file itself.", suggestion=_EXPORT_AGAIN)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ArtefactRejected(f"{file}: not a regular file.", suggestion=_EXPORT_AGAIN)
        is_unchanged = disk.compute_sha256(file) == digest
    except FileNotFoundError:
        raise ArtefactRejected(f"{file}: missing, but listed in the card.", suggestion=_EXPORT_AGAIN) from None
    except OSError as error:
        raise ArtefactRejected(f"{file}: {error.strerror}.", suggestion=_EXPORT_AGAIN) from None
    if not is_unchanged:
        raise ArtefactRejected(f"{file}: changed, its SHA-256 differs from the card.", suggestion=_EXPORT_AGAIN)


def _describe_output(answers: Answers) -> dict[str, Any]:
    return {
        "name": answers.name,
        "kind": answers.target.kind,
        "classes": list(answers.output.names),
        "decision": answers.describe_decision(),
        "state": dict(answers.output.state),
    }


def _describe_column(column: Column, written: WrittenModel) -> dict[str, Any]:
    signature_input = next(each for each in written.signatures[0].inputs if each.column == column.name)
    traits, is_inside = input_kinds.get_traits(column), signature_input.form == "raw"
    return {
        "name": column.name,
        "kind": column.kind,
        "meaning": traits.describe_cells() if is_inside else traits.describe_outside_cells(),
        "preprocessing": "inside" if is_inside else f"outside, by {ENCODER}",
    }


def _select_metrics(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Select what a card shows of an evaluation, with null for values that are not finite."""
    shown = ("count", "positive", "weight", "metrics", "intervals")
    return {key: _replace_non_finite(evaluation[key]) for key in shown if key in evaluation}


def _replace_non_finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by null."""
    if isinstance(value, Mapping):
        return {key: _replace_non_finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _describe_lineage(run: Run, recipe: Recipe, spec: DataSpec, recorded: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": f"{run.name}/{run.folder.name}",
        "recipe": recipe.name,
        "recipe_sha256": run.recipe_sha256(),
        "model_sha256": disk.compute_sha256(run.model),
        "data_fingerprint": spec.fingerprint,
        "rows": dict(spec.counts),
        "seed": recipe.seed,
        "trained_with": {
            **{name: recorded[name] for name in _TRAINED_WITH if name in recorded},
            "precision": recipe.train.precision,
        },
        "teachers": _describe_teachers(recipe),
    }


def _describe_teachers(recipe: Recipe) -> list[dict[str, str]]:
    """List the teachers of a distilled run, by run or file, with their digests."""
    distillation = recipe.distillation
    return [
        {"model": "/".join(Path(each.run or each.model).parts[-2:]), "sha256": each.sha256}
        for each in (distillation.teachers if distillation else ())
    ]


def _list_versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _list_files(folder: Path) -> Iterable[Path]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path.name not in (CARD, CARD_TEXT))


def _describe_file(folder: Path, path: Path) -> dict[str, Any]:
    return {"path": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": disk.compute_sha256(path)}


def measure_gzip_bytes(path: Path) -> int:
    """Measure the size of a file with gzip, which shows the effect of zeros and repeated weights."""
    return len(gzip.compress(path.read_bytes(), 6))


def render_markdown(card: Mapping[str, Any]) -> str:
    """Render the card as Markdown, with all names from data escaped."""
    verification = card["verification"]
    lines = [
        f"# {escape_markdown(card['name'])}: {escape_markdown(card['format'])}",
        "",
        f"Licence: {escape_markdown(card['license'] or 'not specified')}.",
        "",
        *_render_example(card),
        *_render_generation(card),
        *_render_table(
            "Inputs",
            ("column", "meaning", "preprocessing"),
            [(c["name"], c["meaning"], c["preprocessing"]) for c in card["columns"]],
        ),
        *[line for signature in card["signatures"] for line in _render_signature(signature)],
        *_render_table(
            "Targets",
            ("target", "kind", "decision", "classes"),
            [(t["name"], t["kind"], t["decision"], ", ".join(t["classes"][:20]) or "-") for t in card["targets"]],
        ),
        *_render_verification(verification),
        *_render_evaluation(card["evaluation"]),
        *_render_sizes(card),
        *_render_outside_preprocessing(card),
        *_render_serving(card),
        *(["## Notes", "", *(f"- {escape_markdown(note)}" for note in card["notes"]), ""] if card["notes"] else []),
        *_render_table(
            "Lineage", ("property", "value"), [(key, _format_value(value)) for key, value in card["lineage"].items()]
        ),
        *_render_table("Versions", ("package", "version"), list(card["versions"].items())),
        *_render_table(
            "Files",
            ("file", "bytes", "SHA-256"),
            [(file["path"], f"{file['bytes']:,}", file["sha256"]) for file in card["files"]],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _render_signature(signature: Mapping[str, Any]) -> list[str]:
    rows = [
        (direction, each["name"], each.get("column") or each["target"], each.get("form") or each["role"],
         f"{each['dtype']} ({', '.join('?' if size is None else str(size) for size in ('batch', *each['shape']))})")
        for direction, tensors in (("input", signature["inputs"]), ("output", signature["outputs"]))
        for each in tensors
    ]  # fmt: skip
    return _render_table(
        f"Signature `{signature['name']}`", ("direction", "tensor", "column or target", "content", "type"), rows
    )


def _render_verification(verification: Mapping[str, Any]) -> list[str]:
    if verification["agreement"] is None:
        results = ["- The artefact could not be run."]
    else:
        results = [
            f"- Compared with the model on {verification['samples']:,} rows of the {verification['split']} split and "
            f"{len(verification['edge_cases'])} edge cases: {escape_markdown('; '.join(verification['edge_cases']))}.",
            *(f"- {escape_markdown(sentence)}" for sentence in verification["summary"]),
        ]
    verdict = "passed" if verification["verified"] else "REJECTED"
    return [
        f"## Verification: {verdict}",
        "",
        *results,
        *(f"- {escape_markdown(failure)}" for failure in verification["failures"]),
        "",
    ]


def _render_evaluation(evaluation: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            f"{split}/{name}",
            _format_metric(value),
            _format_interval(evaluation_of_split.get("intervals", {}).get(name)),
            f"{evaluation_of_split.get('count', 0):,}",
        )
        for split, evaluation_of_split in evaluation.items()
        for name, value in evaluation_of_split.get("metrics", {}).items()
    ]
    if not rows:
        return []
    positive = {name: each for split in evaluation.values() for name, each in split.get("positive", {}).items()}
    weights = {split["weight"] for split in evaluation.values() if split.get("weight") is not None}
    sentences = [*describe_positive(positive), *map(describe_row_weights, weights)]
    meanings = [f"{escape_markdown(sentence)}\n" for sentence in sentences]
    return [*_render_table("Metrics of the model", ("metric", "value", "95 % interval", "rows"), rows), *meanings]


def _render_sizes(card: Mapping[str, Any]) -> list[str]:
    """Render the sizes of the weights as arrays, and of the files; a format may store weights in fewer bits."""
    labels = {"model": "weights of the trained network", "compressed": "weights after compression"}
    rows = [
        (labels[name], f"{size['parameters']:,}", f"{1 - size['nonzero_share']:.1%}", size)
        for name, size in card["weights"].items()
        if size is not None
    ]
    files = {"bytes": card["model_bytes"], "gzip_bytes": card["model_gzip_bytes"]}
    rows.append((f"files of the model: {card['model']}", "-", "-", files))
    if card["bytes"] != card["model_bytes"]:
        rows.append((f"the same with {PREPROCESSING} and {ENCODER}", "-", "-", card))
    return _render_table(
        "Size",
        ("of", "parameters", "zeros", "size", "gzip"),
        [(*cells, _format_bytes(size["bytes"]), _format_bytes(size["gzip_bytes"])) for *cells, size in rows],
    )


def _format_interval(interval: Mapping[str, Any] | None) -> str:
    return "-" if not interval else f"{_format_metric(interval['low'])} to {_format_metric(interval['high'])}"


def _format_metric(value: float | None) -> str:
    return write_measure(value)


def _render_example(card: Mapping[str, Any]) -> list[str]:
    """Render the program that answers one row, first of all that a person wants of a card."""
    return [
        "## Example",
        "",
        "One row and its answer, in the folder of this card:",
        "",
        "```python",
        card["example"].rstrip(),
        "```",
        "",
    ]


def _render_generation(card: Mapping[str, Any]) -> Iterator[str]:
    """Render how texts are written: the program that continues one, and the tensors of a step."""
    if card["writing"] is None:
        return
    yield from ("## Writing texts", "")
    if card["generation"] is not None:
        yield from _render_generate(card["generation"])
    if card["writing"]["caches"] is not None:
        yield from (
            "The function `step` computes one step of a text. It takes `token`, the id of the token at `position` "
            "(int32; a text begins with the token of its begin), and the tensors below, all zeros at first. It "
            "gives `logits` of the next token, and these tensors for the next step.",
            "",
        )
        rows = [
            (c["name"], f"{c['dtype']} ({', '.join(map(str, ('batch', *c['shape'])))})")
            for c in card["writing"]["caches"]
        ]
        yield from _render_table("Tensors of `step`", ("tensor", "type"), rows)


def _render_generate(program: str) -> list[str]:
    return [
        "The signature `generate` continues texts as `bmcli generate` does. It takes all of these tensors: texts as "
        "`prompt`, and numbers for all of them. `tokens` is the largest number of tokens of a text; `temperature` 0 "
        "takes the most probable token, `top_k` 0 and `top_p` 1 draw from all tokens, and `repetition_penalty` 1 is "
        "none. The same prompts with the same seed give the same texts, also those of `bmcli generate`.",
        "",
        "```python",
        program.rstrip(),
        "```",
        "",
    ]


def _render_outside_preprocessing(card: Mapping[str, Any]) -> list[str]:
    outside = [column["name"] for column in card["columns"] if column["preprocessing"] != "inside"]
    if not outside:
        return []
    return [
        "## Preprocessing outside the model",
        "",
        f"The format cannot represent the preprocessing of {escape_markdown(', '.join(outside))}. Its parameters are "
        f"in `{PREPROCESSING}`, and `{ENCODER}` converts cells to the tensors above, as in the example. It needs "
        "NumPy, and Pillow for files of pictures.",
        "",
    ]


def _render_serving(card: Mapping[str, Any]) -> list[str]:
    if card["request"] is None:
        return []
    return [
        "## TensorFlow Serving",
        "",
        "In this folder:",
        "",
        "```console",
        f'$ docker run -p 8501:8501 -v "$PWD:/models/{card["name"]}" -e MODEL_NAME={card["name"]} tensorflow/serving',
        f"$ curl -d '{card['request']}' http://localhost:8501/v1/models/{card['name']}:predict",
        "```",
        "",
        'Bytes of files are sent as {"b64": "..."}.',
        "",
    ]


def _render_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_format_cell(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


_MAX_TEXT_LENGTH = 500  # characters

# Characters with a meaning in Markdown, its tables, or at the start of a line; underscores within words have none.
_MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]|~#!]|(?<![^\W_])_|_(?![^\W_])|^[-+=](?=[-+=\s]|$)|^\d+(?=[.)](?:\s|$)))")


def escape_markdown(text: Any) -> str:
    """Escape foreign text as one line of Markdown, without markup, HTML or control characters."""
    line = shortened(" ".join(clean(str(text)).split()), _MAX_TEXT_LENGTH)
    escaped = _MARKDOWN_SIGNS.sub(lambda sign: f"{sign[1]}\\" if sign[1].isdigit() else f"\\{sign[1]}", line)
    return html.escape(escaped, quote=False)


def _format_cell(text: Any) -> str:
    return "-" if text == "-" else escape_markdown(text)


def _format_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_value(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_format_value, value)) or "-"
    return "-" if value is None else str(value)


def _format_bytes(count: int) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
