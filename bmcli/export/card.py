"""What a user has to know of an artefact, as JSON for programs and as Markdown for people."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli import __version__, dates
from bmcli.errors import ArtefactRejected, BmcliError
from bmcli.export import FormatOptions, Input, Output, Signature, Written
from bmcli.export.verify import Verification
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run, now
from bmcli.specs import Column, DataSpec

CARD, CARD_TEXT, PREPROCESSING, ENCODER = "card.json", "card.md", "preprocessing.json", "encoder.py"
FORMAT_OF_CARD = 1
_PACKAGES = ("tensorflow", "keras", "numpy", "onnx", "tf2onnx", "onnxruntime", "openvino", "ai-edge-litert")


@dataclass(frozen=True)
class Card:
    """A card as its JSON has it, with what programs ask it most."""

    values: Mapping[str, Any]

    @property
    def format(self) -> str:
        return str(self.values["format"])

    @property
    def bytes(self) -> int:
        return int(self.values["bytes"])


def made(
    run: Run, recipe: Recipe, spec: DataSpec, options: FormatOptions, written: Written, folder: Path,
    verification: Verification, licence: str | None,
    weights: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The card of an artefact whose files are all written."""
    files = [_file(folder, path) for path in _files(folder)]
    evaluations = run.evaluations()
    needed = [file for file in files if file["path"] != PREPROCESSING or (folder / ENCODER).exists()]
    return {
        **preliminary(options, written),
        "bmcli_card": FORMAT_OF_CARD,
        "name": recipe.name,
        "created": now(),
        "licence": licence,
        "targets": [_target(column, recipe) for column in spec.targets],
        "columns": [_column(column, written) for column in spec.inputs],
        "notes": list(written.notes),
        "weights": dict(weights),
        "verification": verification.to_json(),
        "evaluation": {split: _figures(found) for split, found in evaluations.items()},
        "lineage": _lineage(run, recipe, spec),
        "versions": {"bmcli": __version__, "python": platform.python_version(), **dict(_versions())},
        "bytes": sum(file["bytes"] for file in needed),
        "gzip_bytes": sum(gzip_size(folder / file["path"]) for file in needed),
        "files": files,
    }


def preliminary(options: FormatOptions, written: Written) -> dict[str, Any]:
    """As much of a card as running the artefact takes."""
    return {
        "format": options.name,
        "kind": options.kind,
        "options": {key: value for key, value in options.model_dump().items() if key != "kind"},
        "precision": options.precision,
        "runtime": written.runtime,
        "model": written.model,
        "signatures": [signature.to_json() for signature in written.signatures],
    }


def preprocessing(spec: DataSpec, recipe: Recipe) -> dict[str, Any]:
    """What was fitted on the training rows, as data, and how tables were read; without where they lay."""
    values = json.loads(json.dumps(spec.to_json()))
    for column in values["inputs"]:
        if column["kind"] == "date" and column["raw_dtype"] == "string":
            column["state"]["patterns"] = [_pattern(form) for form in column["state"]["formats"]]
    source = recipe.data.source.model_dump(exclude_unset=True)
    return {**values, "source": {key: value for key, value in source.items() if key not in ("path", "table")}}


def _pattern(form: str) -> list[Any]:
    read = dates.pattern(form)
    return [form, read.regex, list(read.fields)]


def written_from(values: Mapping[str, Any]) -> Written:
    """What a format wrote, from its card."""
    return Written(
        values["model"],
        values["runtime"],
        tuple(
            Signature(
                each["name"],
                tuple(Input(**{**given, "shape": tuple(given["shape"])}) for given in each["inputs"]),
                tuple(Output(**{**given, "shape": tuple(given["shape"])}) for given in each["outputs"]),
            )
            for each in values["signatures"]
        ),
    )


def read(folder: Path) -> dict[str, Any]:
    """The card of an artefact whose files are as they were written.

    Raises:
        BmcliError: There is no card.
        ArtefactRejected: A file is missing, or is not what was written.
    """
    try:
        values = json.loads((folder / CARD).read_bytes())
        files = {str(file["path"]): file["sha256"] for file in values["files"]}
    except FileNotFoundError:
        raise BmcliError(f"{folder}: no artefact, it has no {CARD}.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ArtefactRejected(f"{folder / CARD}: damaged.", suggestion="Export again.") from None
    for path, digest in files.items():
        file = folder / path
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            raise ArtefactRejected(f"{file}: missing, though the card names it.", suggestion="Export again.")
        if _sha256(file) != digest:
            raise ArtefactRejected(f"{file}: not what was written, by its SHA-256.", suggestion="Export again.")
    found: dict[str, Any] = values
    return found


def _target(column: Column, recipe: Recipe) -> dict[str, Any]:
    decision = {
        "category": "the most probable class", "labels": "every label more probable than 0.5",
        "ordered": "the highest class that is reached with a probability above 0.5",
    }.get(column.kind, "the number itself, in its own unit")  # fmt: skip
    found = {key: column.state[key] for key in ("threshold", "temperature") if key in column.state}
    if "threshold" in found:
        decision = f"'{column.classes[1]}' from a probability of {found['threshold']:.6g} on"
    quantiles = {"quantiles": list(recipe.quantiles()[column.name])} if column.name in recipe.quantiles() else {}
    return {
        "name": column.name,
        "kind": column.kind,
        "classes": list(column.classes),
        "decision": decision,
        **found,
        **quantiles,
    }


def _column(column: Column, written: Written) -> dict[str, Any]:
    given = next(each for each in written.signatures[0].inputs if each.column == column.name)
    return {
        "name": column.name,
        "kind": column.kind,
        "meaning": _meaning(column),
        "preprocessing": "inside" if given.form == "raw" else f"outside, by {ENCODER}",
    }


def _meaning(column: Column) -> str:
    empty = '"" is missing' if column.raw_dtype == "string" else "NaN is missing"
    if column.kind == "image":
        size = "x".join(map(str, column.shape))
        what = "the bytes of a JPEG, PNG, BMP or GIF file" if column.raw_dtype == "string" else "pixels"
        span = column.state.get("range")
        return f"{what}; the network sees {size}" + (
            f", trained on values from {span[0]:g} to {span[1]:g}" if span else ""
        )
    if column.kind == "category":
        known = ", ".join(column.classes[:8]) + (", ..." if len(column.classes) > 8 else "")
        return f"one of {len(column.classes)} categories ({known}); {empty}" if known else f"a category; {empty}"
    words = {"number": "a number", "boolean": "yes or no", "date": "a date", "text": "a text"}
    return f"{words.get(column.kind, column.kind)}; {empty}"


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of an evaluation, with intervals where it has them."""
    return {key: found[key] for key in ("count", "metrics", "intervals") if key in found}


def _lineage(run: Run, recipe: Recipe, spec: DataSpec) -> dict[str, Any]:
    recorded = run.recorded()
    return {
        "run": f"{run.name}/{run.folder.name}",
        "recipe": recipe.name,
        "recipe_sha256": _sha256(run.lock),
        "model_sha256": _sha256(run.model),
        "data_fingerprint": spec.fingerprint,
        "rows": dict(spec.counts),
        "seed": recipe.seed,
        "trained_with": recorded.get("versions", {}),
        "teachers": _teachers(recipe),
    }


def _teachers(recipe: Recipe) -> list[dict[str, str]]:
    """What the run learned from beside the labels, if it was distilled: runs or files, with their digests."""
    taught = recipe.taught
    return [
        {"model": "/".join(Path(each.run or each.model).parts[-2:]), "sha256": each.digest}
        for each in (taught.teachers if taught else ())
    ]


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _files(folder: Path) -> Iterable[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name not in (CARD, CARD_TEXT))


def _file(folder: Path, path: Path) -> dict[str, Any]:
    return {"path": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": _sha256(path)}


def gzip_size(path: Path) -> int:
    """Bytes of a file with gzip, where weights that are 0 or repeat weigh little."""
    return len(gzip.compress(path.read_bytes(), 6))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    verification = card["verification"]
    lines = [
        f"# {card['name']}: {card['format']}",
        "",
        f"Licence: {card['licence'] or 'not told'}. {_size(card['bytes'])}, {_size(card['gzip_bytes'])} with gzip.",
        "",
        *_table("Inputs", ("column", "meaning", "preprocessing"),
                [(c["name"], c["meaning"], c["preprocessing"]) for c in card["columns"]]),
        *[line for signature in card["signatures"] for line in _signature(signature)],
        *_table("Targets", ("target", "kind", "decision", "classes"),
                [(t["name"], t["kind"], t["decision"], ", ".join(t["classes"][:20]) or "-") for t in card["targets"]]),
        *_verified(verification),
        *_evaluated(card["evaluation"]),
        *_weights(card["weights"]),
        *_outside(card),
        *_serving(card),
        *(["## Notes", "", *(f"- {note}" for note in card["notes"]), ""] if card["notes"] else []),
        *_table("Lineage", ("what", "which"), [(key, _shown(value)) for key, value in card["lineage"].items()]),
        *_table("Versions", ("package", "version"), list(card["versions"].items())),
        *_table("Files", ("file", "bytes", "SHA-256"),
                [(file["path"], f"{file['bytes']:,}", file["sha256"]) for file in card["files"]]),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _signature(signature: Mapping[str, Any]) -> list[str]:
    rows = [
        (way, each["name"], each.get("column") or each["target"], each.get("form") or each["role"],
         f"{each['dtype']} ({', '.join('?' if size is None else str(size) for size in ('batch', *each['shape']))})")
        for way, tensors in (("in", signature["inputs"]), ("out", signature["outputs"]))
        for each in tensors
    ]  # fmt: skip
    return _table(f"Signature `{signature['name']}`", ("", "tensor", "of", "holds", "type"), rows)


def _verified(verification: Mapping[str, Any]) -> list[str]:
    if verification["agreement"] is None:
        found = ["- It could not be run."]
    else:
        difference = verification["max_difference"]
        found = [
            f"- {verification['samples']:,} rows of the {verification['split']} split, and {len(verification['hard'])} "
            f"awkward ones: {'; '.join(verification['hard'])}.",
            f"- Decided alike in {verification['agreement']:.2%} of them; largest difference "
            + ("not finite" if difference is None else f"{difference:.2g}") + ".",
            *(f"- {name}: {each['model']:.4f} of the model, {each['artefact']:.4f} of the artefact."
              for name, each in verification["metrics"].items()),
        ]  # fmt: skip
    verdict = "passed" if verification["verified"] else "REJECTED"
    return [f"## Verification: {verdict}", "", *found, *(f"- {why}" for why in verification["failures"]), ""]


def _evaluated(evaluation: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            f"{split}/{name}",
            f"{value:.4f}",
            _interval(found.get("intervals", {}).get(name)),
            f"{found.get('count', 0):,}",
        )
        for split, found in evaluation.items()
        for name, value in found.get("metrics", {}).items()
    ]
    return _table("Metrics of the model", ("metric", "value", "interval", "rows"), rows) if rows else []


def _weights(weights: Mapping[str, Any]) -> list[str]:
    rows = [
        (f"of the {whose}", f"{each['parameters']:,}", f"{1 - each['nonzero_share']:.1%}", _size(each["bytes"]),
         _size(each["gzip_bytes"]))
        for whose, each in weights.items()
    ]  # fmt: skip
    return _table("Weights", ("", "parameters", "zero", "bytes", "gzip"), rows)


def _interval(interval: Mapping[str, Any] | None) -> str:
    return "-" if not interval else f"{interval['low']:.4f} to {interval['high']:.4f}"


def _outside(card: Mapping[str, Any]) -> list[str]:
    outside = [column["name"] for column in card["columns"] if column["preprocessing"] != "inside"]
    if not outside:
        return []
    return [
        "## Preprocessing that is outside",
        "",
        f"The format cannot hold the preprocessing of {', '.join(outside)}. What was fitted is in "
        f"`{PREPROCESSING}`, and `{ENCODER}` turns cells into the tensors above; it needs NumPy alone:",
        "",
        "```python",
        "import json",
        "from encoder import encode",
        f'columns = {{each["name"]: each for each in json.load(open("{PREPROCESSING}"))["inputs"]}}',
        f"tensor = encode(columns[{outside[0]!r}], cells)",
        "```",
        "",
    ]


def _serving(card: Mapping[str, Any]) -> list[str]:
    if card["runtime"] != "tensorflow":
        return []
    inputs = card["signatures"][0]["inputs"]
    row = ", ".join(f'"{each["name"]}": ...' for each in inputs)
    return [
        "## TensorFlow Serving",
        "",
        "In this folder:",
        "",
        "```console",
        f'$ docker run -p 8501:8501 -v "$PWD:/models/{card["name"]}" -e MODEL_NAME={card["name"]} tensorflow/serving',
        f"$ curl -d '{{\"instances\": [{{{row}}}]}}' http://localhost:8501/v1/models/{card['name']}:predict",
        "```",
        "",
        'The bytes of files go as {"b64": "..."}.',
        "",
    ]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_shown, value)) or "-"
    return "-" if value is None else str(value)


def _size(count: int) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
