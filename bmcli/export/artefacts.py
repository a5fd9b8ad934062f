"""Artefacts that are opened again: to predict with them, and to measure them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bmcli import parts, trust
from bmcli.console import native_noise_hidden
from bmcli.errors import ArtefactRejected
from bmcli.export import Signature, card, encoder, operators, rows, runner
from bmcli.export.verify import predicted
from bmcli.quoting import quoted
from bmcli.specs import Column, DataSpec

if TYPE_CHECKING:
    import numpy as np

_BATCH = 256
_PROGRAMS = {"tensorflow": "a SavedModel", "keras": "a Keras model", "openvino": "an OpenVINO model"}
"""Runtimes whose models are programs, or are not known to be mere data."""


@dataclass(frozen=True)
class Opened:
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
        return card.written_from(self.card).signatures[0]

    def start(self) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """Loads it; a function from raw cells by column to predictions by target.

        Raises:
            ArtefactRejected: It cannot be loaded.
        """
        try:
            with native_noise_hidden():
                loaded = runner.Artefact(self.folder, encoder)
        except Exception as error:  # a runtime raises anything
            raise ArtefactRejected(f"{self.folder}: cannot be loaded: {_reason(error)}") from None
        return lambda raw: self._say(loaded, raw)

    def _say(self, loaded: runner.Artefact, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        count = len(next(iter(raw.values())))
        found: dict[str, list[np.ndarray]] = {target.name: [] for target in self.spec.targets}
        for start in range(0, count, _BATCH):
            some = {name: values[start : start + _BATCH] for name, values in raw.items()}
            cells = rows.opened(some, self.signature, self.spec)
            try:
                given = loaded.predict(cells)
            except Exception as error:  # as above
                raise ArtefactRejected(f"{self.folder}: cannot be run: {_reason(error)}") from None
            for target in self.spec.targets:
                values = self._checked(predicted(given, target), target, min(_BATCH, count - start))
                found[target.name].append(values)
        return {name: np.concatenate(values) for name, values in found.items()}

    def _checked(self, values: np.ndarray, target: Column, count: int) -> np.ndarray:
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


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def is_one(folder: Path) -> bool:
    """Whether a folder is that of an artefact."""
    return (folder / card.CARD).is_file()


def opened(folder: Path, trusted: bool = False) -> Opened:
    """An artefact by its folder.

    Args:
        trusted: Open it even if it is a program that somebody else made.

    Raises:
        ArtefactRejected: A file is missing or is not what was written, or the artefact is a program of somebody else.
    """
    values = card.read(folder)
    if not (trusted or card.is_own(values)):
        _refuse_program(folder, values)
    described = card.read_preprocessing(folder)
    source = _tupled(described.pop("source"))
    try:
        _check_source(source)
        found = Opened(folder, values, DataSpec.from_json(described), source)
        _check_columns(found)
    except ValueError as error:
        raise ArtefactRejected(f"{folder / card.PREPROCESSING}: {error}.", suggestion="Export again.") from None
    return found


def _refuse_program(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuse what could do anything on being loaded and run; LiteRT and ONNX models can but compute.

    A LiteRT model is one as well if it holds operators of its maker, or of TensorFlow, which has some that write files.
    """
    what = _PROGRAMS.get(values["runtime"])
    if values["runtime"] == "litert":
        try:
            further = operators.of_others((folder / values["model"]).read_bytes())
        except (OSError, ValueError) as error:
            raise ArtefactRejected(f"{folder / values['model']}: {error}.") from None
        what = f"a LiteRT model with operators of its own ({', '.join(further)[:100]})" if further else None
    if what:
        raise ArtefactRejected(
            f"{folder}: {what} is a program: it can read, write and send files as you. No export of this user made it, "
            f"by the seal in its {card.CARD} and the key {trust.key_file()}.",
            suggestion="Export it yourself, or add --trust-artefact if you trust whoever made it.",
        )


def _check_source(source: Mapping[str, Any]) -> None:
    """Raises ValueError for options that no source has, and for those that name files: artefacts tell of none."""
    kind = source.get("kind")
    if kind not in parts.names("data.sources"):
        raise ValueError(f"source.kind: no kind {kind!r}")
    if named := [name for name in card.PLACES if name in source]:
        raise ValueError(f"source.{named[0]}: no option of an artefact")
    options: Any = parts.load("data.sources", str(kind)).Options
    place = {"path": "-"} if "path" in options.model_fields else {}
    try:
        options.model_validate({**source, **place})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"source.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _check_columns(found: Opened) -> None:
    """Raises ValueError unless card and preprocessing tell of the same columns."""
    for columns, told in ((found.spec.inputs, "columns"), (found.spec.targets, "targets")):
        names = [column.name for column in columns]
        if len(set(names)) < len(names) or names != [each["name"] for each in found.card[told]]:
            raise ValueError(f"other columns than the {told} of the card")
    taken, given = found.signature.inputs, found.signature.outputs
    if sorted(each.column for each in taken) != sorted(column.name for column in found.spec.inputs):
        raise ValueError("other inputs than the signature of the card")
    numbers = {each.target for each in given if each.role in ("probabilities", "quantiles", "number")}
    if lacking := [column.name for column in found.spec.targets if column.name not in numbers]:
        raise ValueError(f"the signature of the card gives nothing for the target {lacking[0]!r}")


def _tupled(value: Any) -> Any:
    """JSON with tuples in the place of lists, as options take them."""
    if isinstance(value, dict):
        return {key: _tupled(each) for key, each in value.items()}
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value
