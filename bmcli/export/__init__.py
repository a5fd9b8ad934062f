"""Artefacts: trained networks in formats for other runtimes, with a description of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from bmcli import parts
from bmcli.column_records import Dtype, Size
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.recipe.compression import MethodOptions
from bmcli.recipe.fields import Kind, PartField
from bmcli.specs import Column, DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers
    from bmcli.inputs import Preprocessing
    from bmcli.networks.network import Network
    from bmcli.windows import EncodedTarget

InputForm = Literal["raw", "encoded", "encoded_image"]
"""Form of a column at the input of an artefact: raw cells, preprocessed values, or the bytes of a picture file."""

Precision = Literal["float32", "float16", "int8", "reduced"]
"""Numerical precision of an artefact, which determines the limits of its verification."""

Runtime = Literal["tensorflow", "litert", "onnx", "openvino", "keras"]
"""Library that loads an artefact."""


class FormatOptions(Kind):
    """Options of every format."""

    EXTRA: ClassVar[tuple[str, ...]] = ()
    """Modules that the format needs beyond the dependencies of bmcli."""

    compress: tuple[Annotated[MethodOptions, PartField("compression.methods")], ...] = Field(
        default=(),
        description="Compression steps before writing, in this order, such as [{kind: low_rank, energy: 0.9}, "
        "cluster].",
    )

    @property
    def name(self) -> str:
        """Folder of the artefact: the kind, its compressions and its quantisation."""
        methods = [method.label for method in self.compress]
        return "-".join([self.kind, *methods, *([self.quantized] if self.quantized else [])])

    @property
    def quantized(self) -> str | None:
        """Type of the quantised weights; None if they are not quantised."""
        return None

    @property
    def precision(self) -> Precision:
        if self.compress or self.quantized not in (None, "float16", "int8"):
            return "reduced"
        return self.quantized or "float32"  # type: ignore[return-value]  # only "float16" and "int8" are left, both a Precision

    def list_compressions(self) -> tuple[Kind, ...]:
        """List the compressions of the network before it is written."""
        return self.compress


class KerasOptions(FormatOptions):
    """Options of formats for networks that Keras can quantise."""

    quantize: Literal["int8", "int4", "float8"] | None = Field(
        default=None, description="Quantisation by Keras of dense, attention and embedding layers."
    )

    @property
    def quantized(self) -> str | None:
        return self.quantize

    def list_compressions(self) -> tuple[Kind, ...]:
        if self.quantize is None:
            return self.compress
        return (*self.compress, PartField("compression.methods").check({"kind": "quantize", "to": self.quantize}))


@dataclass(frozen=True)
class SignatureInput:
    """One input tensor of an artefact.

    Args:
        name: Of the tensor.
        column: The column of its cells.
        shape: Without the batch axis; None is any size.
    """

    name: str
    column: str
    form: InputForm
    shape: tuple[Size | None, ...]
    dtype: Dtype

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class SignatureOutput:
    """One output tensor of an artefact; fields as in `SignatureInput`, `role` as in `answers.ServedAnswer`."""

    name: str
    target: str
    role: str
    shape: tuple[Size | None, ...]
    dtype: Dtype

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """A function of an artefact; the default one has the name `serving_default`."""

    name: str
    inputs: tuple[SignatureInput, ...]
    outputs: tuple[SignatureOutput, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "inputs": [each.to_json() for each in self.inputs],
            "outputs": [each.to_json() for each in self.outputs],
        }


@dataclass(frozen=True)
class CacheTensor:
    """What a step keeps of those before, all zeros before the first one; `shape` is without the batch axis."""

    name: str
    shape: tuple[Size, ...]
    dtype: Dtype

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class WritingFunctions:
    """Functions of an artefact whose network writes texts, beside those that predict.

    Args:
        output: Output of the network.
        generates: Whether it has `generate`, from raw texts to raw texts.
        caches: Tensors that its function `step` takes and gives; None without that function.
    """

    output: str
    generates: bool
    caches: tuple[CacheTensor, ...] | None

    def to_json(self) -> dict[str, Any]:
        caches = None if self.caches is None else [each.to_json() for each in self.caches]
        return {**vars(self), "caches": caches}


@dataclass(frozen=True)
class WrittenModel:
    """The files and signatures that a format wrote.

    Args:
        model: The file or folder to load, below the artefact's folder.
        runtime: Library that loads it.
        signatures: The default one first.
        notes: Sentences for its card.
        modules: Python modules with operations of the model, which are imported before it is loaded.
        writing: Functions that write texts; None if it writes none.
    """

    model: str
    runtime: Runtime
    signatures: tuple[Signature, ...]
    notes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    writing: WritingFunctions | None = None


@dataclass(frozen=True)
class ExportRows:
    """Rows of a split in each input form, by column.

    Args:
        positions: Of the rows in the split.
        raw: Inputs of a served model: text and bytes in object arrays, other arrays with NaN for missing values.
        encoded: Inputs of the network.
        truth: Encoded targets by output, as `Split.read_target` reads them.
    """

    positions: np.ndarray
    raw: Mapping[str, np.ndarray]
    encoded: Mapping[str, np.ndarray]
    truth: Mapping[str, EncodedTarget]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class ExportableModel:
    """The network to export, with its data.

    Args:
        examples: Training rows, for the calibration of quantisation and for warm-up requests.
        serving_name: Name of the model on a server.
    """

    network: Network
    spec: DataSpec
    examples: ExportRows
    serving_name: str

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """Answers of the outputs, by name."""
        from bmcli.objectives import open_answers  # not at the top: recipes read the options of formats alone

        return open_answers(self.spec)

    def get_column(self, name: str) -> Column:
        return self.spec.input(name)


class Format(Protocol):
    """Interface of a module of `formats`."""

    Options: type[FormatOptions]

    def export(self, exportable: ExportableModel, options: Any, folder: Path) -> WrittenModel:
        """Write the artefact's model into an empty folder.

        Raises:
            BmcliError: The format cannot represent this network.
        """


def choose_form(column: Column, supported: Collection[Preprocessing]) -> InputForm:
    """Choose raw cells for a format that can hold the preprocessing of a column, and encoded ones for another.

    Args:
        supported: Preprocessing that the format can hold.

    Raises:
        BmcliError: The format cannot hold it, and nothing encodes the cells outside of the model.
    """
    from bmcli import inputs  # as above

    traits = inputs.get_traits(column)
    if traits.preprocessing in supported:
        return "raw"
    if traits.encoder_file is None:
        raise BmcliError(
            f"the format cannot hold the preprocessing of {quoted(column.name)}, and its kind {column.kind} has none "
            "outside of TensorFlow.",
            suggestion="Use saved_model.",
        )
    return "encoded"


def require_installed(options: FormatOptions) -> None:
    """Reject a format with missing modules.

    Raises:
        BmcliError: A module is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in options.EXTRA if find_spec(name) is None]
    if missing:
        # Only formats of this package have an extra of it; a plug-in names modules.
        is_built_in = options.kind in parts.list_built_in("export.formats")
        packages = f"'bmcli[{options.kind}]'" if is_built_in else " ".join(missing)
        raise BmcliError(
            f"{options.kind} needs packages that are not installed: {', '.join(missing)}.",
            suggestion=f"Install it: pip install {packages}.",
        )
