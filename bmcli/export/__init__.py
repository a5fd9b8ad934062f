"""Artefacts: each format writes a trained network so that others can run it, and tells how it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind, PartField
from bmcli.specs import Column, DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

InputForm = Literal["raw", "encoded", "encoded_image"]
"""What an artefact takes of a column: its raw cells, what preprocessing makes of them, or the bytes of a file."""

OutputRole = Literal["decision", "classes", "probabilities", "number", "quantiles"]

Precision = Literal["float32", "float16", "int8", "reduced"]
"""How exactly an artefact computes, which decides how far it may be from the model."""

Runtime = Literal["tensorflow", "litert", "onnx", "openvino", "keras"]
"""What loads an artefact."""

Dtype = Annotated[str, Field(pattern="^(string|bool|u?int(8|16|32|64)|float(16|32|64))$")]
"""Type of the values of a tensor: `string`, or a numpy dtype."""

Size = Annotated[int, Field(ge=0, lt=2**31)]


class FormatOptions(Kind):
    """Options of every format."""

    EXTRA: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs beyond those that come with bmcli."""

    compress: tuple[Annotated[Kind, PartField("compression.methods")], ...] = Field(
        default=(),
        description="Compression steps before writing, in this order, such as [{kind: low_rank, energy: 0.9}, "
        "cluster].",
    )

    @property
    def name(self) -> str:
        """Folder of the artefact: the kind, and what else tells it from others of its kind."""
        ways = [getattr(way, "to", way.kind) for way in self.compress]
        return "-".join([self.kind, *ways, *([self.quantized] if self.quantized else [])])

    @property
    def quantized(self) -> str | None:
        """Smaller numbers than those that were trained."""
        return getattr(self, "quantize", None)

    @property
    def precision(self) -> Precision:
        if self.compress or self.quantized not in (None, "float16", "int8"):
            return "reduced"
        return self.quantized or "float32"  # type: ignore[return-value]

    def list_compressions(self) -> tuple[Kind, ...]:
        """What is done to the network before it is written."""
        return self.compress


class KerasOptions(FormatOptions):
    """Options of formats that hold networks which Keras quantised."""

    quantize: Literal["int8", "int4", "float8"] | None = Field(
        default=None, description="Quantisation by Keras of dense, attention and embedding layers."
    )

    def list_compressions(self) -> tuple[Kind, ...]:
        if self.quantize is None:
            return self.compress
        return (*self.compress, PartField("compression.methods").check({"kind": "quantize", "to": self.quantize}))


@dataclass(frozen=True)
class SignatureInput:
    """One tensor that an artefact takes.

    Args:
        name: Of the tensor.
        column: Whose cells it takes.
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
    """One tensor that an artefact gives; as `SignatureInput`."""

    name: str
    target: str
    role: OutputRole
    shape: tuple[Size | None, ...]
    dtype: Dtype

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """A function of an artefact: its usual one is called `serving_default`."""

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
class WrittenModel:
    """What a format wrote.

    Args:
        model: The file or folder to load, below the artefact's folder.
        runtime: What loads it.
        signatures: The usual one first.
        notes: Sentences for its card.
    """

    model: str
    runtime: Runtime
    signatures: tuple[Signature, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportRows:
    """Rows of a split in each of their forms, by column.

    Args:
        positions: Of the rows in the split.
        raw: As a served model takes them: text and bytes in object arrays, else arrays in which NaN is missing.
        encoded: As the network takes them.
        truth: Encoded targets.
    """

    positions: np.ndarray
    raw: Mapping[str, np.ndarray]
    encoded: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class ExportableModel:
    """What is exported.

    Args:
        quantiles: Of each target whose quantiles are predicted, which they are.
        examples: Training rows, to measure ranges of numbers by and to warm up with.
        serving_name: What a server may call it.
    """

    network: Network
    spec: DataSpec
    quantiles: Mapping[str, Sequence[float]]
    examples: ExportRows
    serving_name: str

    def column(self, name: str) -> Column:
        return self.spec.input(name)


class Format(Protocol):
    """What a module of `formats` offers."""

    Options: type[FormatOptions]

    def export(self, exportable: ExportableModel, options: Any, folder: Path) -> WrittenModel:
        """Writes the artefact's model into an empty folder.

        Raises:
            BmcliError: The format cannot hold this network.
        """


def is_plain_number(column: Column) -> bool:
    """Whether a column is filled, scaled and flagged in float32 alone, which every format can do."""
    bent = {"log", "knots", "edges"} & set(column.state)
    return column.kind in ("number", "boolean") and column.raw_dtype == "float32" and not bent


def require_installed(options: FormatOptions, path: str = "") -> None:
    """Refuses a format that needs what is not installed.

    Args:
        path: Of the format in the recipe.

    Raises:
        BmcliError: Naming what to install.
    """
    from importlib.util import find_spec

    lacking = [name for name in options.EXTRA if find_spec(name) is None]
    if lacking:
        raise BmcliError(
            f"{options.kind} needs {' and '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not here.",
            path=path,
            suggestion=f"Install it: pip install 'bmcli[{options.kind}]'.",
        )
