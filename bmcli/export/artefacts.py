"""Loading of artefacts, for prediction and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bmcli import parts, trust
from bmcli.answers import Answers, fits_shape
from bmcli.data.derivation import get_derivations
from bmcli.errors import ArtefactRejected
from bmcli.export import Signature, card, operators, runner
from bmcli.export.encoder_files import load_encoder
from bmcli.native_output import drop_native_stderr, hide_native_stderr
from bmcli.objectives import open_answers
from bmcli.quoting import quoted
from bmcli.recipe.fields import convert_lists
from bmcli.specs import DataSpec, OutputSpec

if TYPE_CHECKING:
    import numpy as np

_BATCH_SIZE = 256
_PROGRAM_RUNTIMES = {"tensorflow": "a SavedModel", "keras": "a Keras model", "openvino": "an OpenVINO model"}
"""Runtimes whose models are programs, or are not known to be data alone."""


@dataclass(frozen=True)
class LoadedArtefact:
    """An artefact with verified files.

    Args:
        card: The JSON values of its card.
        source: Options of the source of the training rows, in the form of a recipe.
    """

    folder: Path
    card: Mapping[str, Any]
    spec: DataSpec
    source: Mapping[str, Any]

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """Answers of the outputs, by name."""
        return open_answers(self.spec)

    @property
    def signature(self) -> Signature:
        """The default signature."""
        return card.parse_written_model(self.card).signatures[0]

    def start(self) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """Load the model; returns a function from raw cells by column to predictions by target.

        Raises:
            ArtefactRejected: It cannot be loaded.
        """
        try:
            with hide_native_stderr():
                loaded = runner.ArtefactRunner(self.folder, load_encoder(self.spec.inputs))
        except Exception as error:  # runtimes raise exceptions of any type
            raise ArtefactRejected(f"{self.folder}: cannot be loaded: {_format_reason(error)}") from None
        return lambda raw: self._predict_batches(loaded, raw)

    def _predict_batches(self, loaded: runner.ArtefactRunner, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        count = len(next(iter(raw.values())))
        predictions: dict[str, list[np.ndarray]] = {name: [] for name in self.answers}
        for start in range(0, count, _BATCH_SIZE):
            batch = {name: values[start : start + _BATCH_SIZE] for name, values in raw.items()}
            try:
                with drop_native_stderr():  # of the JPEG library, where the artefact decodes pictures
                    outputs = loaded.predict(batch)
            except Exception as error:  # as above
                raise ArtefactRejected(f"{self.folder}: cannot be run: {_format_reason(error)}") from None
            for name, answers in self.answers.items():
                values = outputs[name, answers.served_prediction]
                predictions[name].append(self._check_values(values, answers.output, min(_BATCH_SIZE, count - start)))
        return {name: np.concatenate(values) for name, values in predictions.items()}

    def _check_values(self, values: np.ndarray, output: OutputSpec, count: int) -> np.ndarray:
        """Reject an array with another shape or type than those of the output."""
        import numpy as np

        expected = (count, *output.shape)
        if not fits_shape(values, expected) or values.dtype.kind != np.dtype(output.dtype).kind:
            raise ArtefactRejected(
                f"{self.folder}: expected {output.dtype} of shape {expected} for {quoted(output.name)}, "
                f"received {values.dtype} of shape {values.shape}."
            )
        return values


def _format_reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def is_artefact(folder: Path) -> bool:
    """Whether a folder has the card of an artefact."""
    return (folder / card.CARD).is_file()


def open_artefact(folder: Path, trust_artefact: bool = False) -> LoadedArtefact:
    """Open an artefact by its folder.

    Args:
        trust_artefact: Open it even if it is a program of another user.

    Raises:
        ArtefactRejected: A file is missing or was changed, or the artefact is a program of another user.
    """
    values = card.read(folder)
    if not (trust_artefact or card.is_sealed_by_user(values)):
        _refuse_program(folder, values)
    preprocessing = card.read_preprocessing(folder)
    source = convert_lists(preprocessing.pop("source"))
    try:
        _check_source(source)
        artefact = LoadedArtefact(folder, values, DataSpec.from_json(preprocessing), source)
        _check_columns(artefact)
    except ValueError as error:
        raise ArtefactRejected(f"{folder / card.PREPROCESSING}: {error}.", suggestion="Export again.") from None
    return artefact


def _refuse_program(folder: Path, values: Mapping[str, Any]) -> None:
    """Reject models that can execute any code; LiteRT and ONNX models can only compute.

    A LiteRT model with custom operators is a program, too: TensorFlow's operators include some that write files.
    """
    program = _PROGRAM_RUNTIMES.get(values["runtime"])
    if values["runtime"] == "litert":
        try:
            custom = operators.find_custom_operators((folder / values["model"]).read_bytes())
        except (OSError, ValueError) as error:
            raise ArtefactRejected(f"{folder / values['model']}: {error}.") from None
        program = f"a LiteRT model with custom operators ({', '.join(custom)[:100]})" if custom else None
    if program:
        raise ArtefactRejected(
            f"{folder}: {program} is a program, which can read, write and send your files. It was not exported by this "
            f"user: the seal in its {card.CARD} is not made with the key {trust.locate_key()}.",
            suggestion="Export it yourself, or add --trust-artefact if you trust its origin.",
        )


def _check_source(source: Mapping[str, Any]) -> None:
    """Raise ValueError for unknown options of a source, and for paths of files, which artefacts never contain."""
    kind = source.get("kind")
    if kind not in parts.names("data.sources"):
        raise ValueError(f"source.kind: no kind {kind!r}")
    if paths := [name for name in card.PATH_OPTIONS if name in source]:
        raise ValueError(f"source.{paths[0]}: no option of an artefact")
    options: Any = parts.load("data.sources", str(kind)).Options
    path = {"path": "-"} if "path" in options.model_fields else {}
    try:
        options.model_validate({**source, **path})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"source.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _check_columns(artefact: LoadedArtefact) -> None:
    """Raise ValueError unless card and preprocessing have the same columns, which a training can make."""
    for columns, key in ((artefact.spec.inputs, "columns"), (artefact.spec.learned, "targets")):
        names = [column.name for column in columns]
        if len(set(names)) < len(names) or names != [each["name"] for each in artefact.card[key]]:
            raise ValueError(f"its columns differ from the {key} of the card")
    inputs, outputs = artefact.signature.inputs, artefact.signature.outputs
    if sorted(each.column for each in inputs) != sorted(column.name for column in artefact.spec.inputs):
        raise ValueError("its inputs differ from the signature of the card")
    if [output.name for output in artefact.spec.outputs] != [column.name for column in artefact.spec.learned]:
        raise ValueError("its outputs differ from its targets")
    get_derivations(artefact.spec)
    roles = {(each.target, each.role) for each in outputs}
    for name, answers in artefact.answers.items():
        answers.check_output()
        if (name, answers.served_prediction) not in roles:
            raise ValueError(f"the signature of the card has no output for the target {name!r}")
