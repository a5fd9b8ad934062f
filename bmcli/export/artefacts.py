"""Artefacts that are opened again: to predict with them, and to measure them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bmcli import parts, trust
from bmcli.errors import ArtefactRejected
from bmcli.export import Signature, card, encoder, operators, rows, runner
from bmcli.export.verify import get_prediction
from bmcli.native_output import hide_native_stderr
from bmcli.quoting import quoted
from bmcli.specs import Column, DataSpec

if TYPE_CHECKING:
    import numpy as np

_BATCH_SIZE = 256
_PROGRAM_RUNTIMES = {"tensorflow": "a SavedModel", "keras": "a Keras model", "openvino": "an OpenVINO model"}
"""Runtimes whose models are programs, or are not known to be mere data."""


@dataclass(frozen=True)
class LoadedArtefact:
    """An artefact whose files are as they were written.

    Args:
        card: As its JSON has it.
        source: How the source of the training rows was read, as a recipe writes it.
    """

    folder: Path
    card: Mapping[str, Any]
    spec: DataSpec
    source: Mapping[str, Any]

    @property
    def quantiles(self) -> dict[str, Sequence[float]]:
        """Of each target whose quantiles are predicted, which they are."""
        return {target["name"]: target["quantiles"] for target in self.card["targets"] if "quantiles" in target}

    @property
    def signature(self) -> Signature:
        """The usual one."""
        return card.parse_written_model(self.card).signatures[0]

    def start(self) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """Loads it; a function from raw cells by column to predictions by target.

        Raises:
            ArtefactRejected: It cannot be loaded.
        """
        try:
            with hide_native_stderr():
                loaded = runner.ArtefactRunner(self.folder, encoder)
        except Exception as error:  # a runtime raises anything
            raise ArtefactRejected(f"{self.folder}: cannot be loaded: {_format_reason(error)}") from None
        return lambda raw: self._predict_batches(loaded, raw)

    def _predict_batches(self, loaded: runner.ArtefactRunner, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        count = len(next(iter(raw.values())))
        found: dict[str, list[np.ndarray]] = {target.name: [] for target in self.spec.targets}
        for start in range(0, count, _BATCH_SIZE):
            some = {name: values[start : start + _BATCH_SIZE] for name, values in raw.items()}
            cells = rows.decode_picture_files(some, self.signature, self.spec)
            try:
                given = loaded.predict(cells)
            except Exception as error:  # as above
                raise ArtefactRejected(f"{self.folder}: cannot be run: {_format_reason(error)}") from None
            for target in self.spec.targets:
                values = self._check_values(get_prediction(given, target), target, min(_BATCH_SIZE, count - start))
                found[target.name].append(values)
        return {name: np.concatenate(values) for name, values in found.items()}

    def _check_values(self, values: np.ndarray, target: Column, count: int) -> np.ndarray:
        """Refuse an array that is not what the card tells of a target."""
        width = len(target.classes) or len(self.quantiles.get(target.name, ()))
        expected = (count, width) if width else (count,)
        if values.shape != expected or values.dtype.kind != "f":
            raise ArtefactRejected(
                f"{self.folder}: expected floats of shape {expected} for {quoted(target.name)}, "
                f"received {values.dtype} of "
                f"shape {values.shape}."
            )
        return values


def _format_reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def is_artefact(folder: Path) -> bool:
    """Whether a folder is that of an artefact."""
    return (folder / card.CARD).is_file()


def open_artefact(folder: Path, trust_artefact: bool = False) -> LoadedArtefact:
    """An artefact by its folder.

    Args:
        trust_artefact: Open it even if it is a program that somebody else made.

    Raises:
        ArtefactRejected: A file is missing or is not what was written, or the artefact is a program of somebody else.
    """
    values = card.read(folder)
    if not (trust_artefact or card.is_sealed_by_user(values)):
        _refuse_program(folder, values)
    described = card.read_preprocessing(folder)
    source = _convert_lists(described.pop("source"))
    try:
        _check_source(source)
        found = LoadedArtefact(folder, values, DataSpec.from_json(described), source)
        _check_columns(found)
    except ValueError as error:
        raise ArtefactRejected(f"{folder / card.PREPROCESSING}: {error}.", suggestion="Export again.") from None
    return found


def _refuse_program(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuse what could do anything on being loaded and run; LiteRT and ONNX models can but compute.

    A LiteRT model is one as well if it holds operators of its maker, or of TensorFlow, which has some that write files.
    """
    what = _PROGRAM_RUNTIMES.get(values["runtime"])
    if values["runtime"] == "litert":
        try:
            further = operators.find_custom_operators((folder / values["model"]).read_bytes())
        except (OSError, ValueError) as error:
            raise ArtefactRejected(f"{folder / values['model']}: {error}.") from None
        what = f"a LiteRT model with operators of its own ({', '.join(further)[:100]})" if further else None
    if what:
        raise ArtefactRejected(
            f"{folder}: {what} is a program: it can read, write and send files as you. No export of this user made it, "
            f"by the seal in its {card.CARD} and the key {trust.locate_key()}.",
            suggestion="Export it yourself, or add --trust-artefact if you trust whoever made it.",
        )


def _check_source(source: Mapping[str, Any]) -> None:
    """Raises ValueError for options that no source has, and for those that name files: artefacts tell of none."""
    kind = source.get("kind")
    if kind not in parts.names("data.sources"):
        raise ValueError(f"source.kind: no kind {kind!r}")
    if named := [name for name in card.PATH_OPTIONS if name in source]:
        raise ValueError(f"source.{named[0]}: no option of an artefact")
    options: Any = parts.load("data.sources", str(kind)).Options
    place = {"path": "-"} if "path" in options.model_fields else {}
    try:
        options.model_validate({**source, **place})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"source.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _check_columns(artefact: LoadedArtefact) -> None:
    """Raises ValueError unless card and preprocessing tell of the same columns."""
    for columns, told in ((artefact.spec.inputs, "columns"), (artefact.spec.targets, "targets")):
        names = [column.name for column in columns]
        if len(set(names)) < len(names) or names != [each["name"] for each in artefact.card[told]]:
            raise ValueError(f"other columns than the {told} of the card")
    taken, given = artefact.signature.inputs, artefact.signature.outputs
    if sorted(each.column for each in taken) != sorted(column.name for column in artefact.spec.inputs):
        raise ValueError("other inputs than the signature of the card")
    numbers = {each.target for each in given if each.role in ("probabilities", "quantiles", "number")}
    if lacking := [column.name for column in artefact.spec.targets if column.name not in numbers]:
        raise ValueError(f"the signature of the card gives nothing for the target {lacking[0]!r}")


def _convert_lists(value: Any) -> Any:
    """JSON with tuples in the place of lists, as options take them."""
    if isinstance(value, dict):
        return {key: _convert_lists(each) for key, each in value.items()}
    return tuple(_convert_lists(each) for each in value) if isinstance(value, list) else value
