"""Schemas of an artefact's JSON files, which can come from anyone, so every field is validated before use."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from bmcli import parts
from bmcli.canonical import Spelling
from bmcli.export import Dtype, Precision, Runtime, Signature, Size

_MAX_CELL_NUMBERS = 2**26
"""Maximum number of elements of a cell; a batch of larger cells does not fit into memory."""


class _StrictRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _check_cell_size(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if math.prod(size or 1 for size in shape) > _MAX_CELL_NUMBERS:
        raise ValueError(f"a cell of more than {_MAX_CELL_NUMBERS:,} elements")
    return shape


def _check_relative_path(path: str) -> str:
    """Reject a path outside the artefact's folder, or with another spelling than the canonical one."""
    if not path.isprintable() or "\\" in path or {"", ".", ".."} & set(path.split("/")):
        raise ValueError("not a path inside the folder of the artefact")
    return path


def _check_unique_paths(files: tuple[CardFile, ...]) -> tuple[CardFile, ...]:
    if len({file.path for file in files}) < len(files):
        raise ValueError("a file is listed twice")
    return files


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
RelativePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_relative_path)]
Shape = Annotated[tuple[Size, ...], Field(max_length=8), AfterValidator(_check_cell_size)]
RawShape = Annotated[tuple[Size | None, ...], Field(max_length=8), AfterValidator(_check_cell_size)]


class CardFile(_StrictRecord):
    path: RelativePath
    bytes: Bytes
    sha256: Digest


class CardOptions(_StrictRecord):
    """Options of the format; those that only this format has are never read."""

    model_config = ConfigDict(extra="allow")

    compress: tuple[dict[str, JsonValue], ...]
    quantize: str | None = None
    warm_up: bool = False


class CardTarget(_StrictRecord):
    name: str
    kind: str
    classes: tuple[str, ...]
    decision: str
    state: dict[str, JsonValue]


class CardColumn(_StrictRecord):
    name: str
    kind: str
    meaning: str
    preprocessing: str


class CardModelSize(_StrictRecord):
    parameters: Count
    nonzero_share: Share
    bytes: Bytes
    gzip_bytes: Bytes


class CardModelSizes(_StrictRecord):
    model: CardModelSize
    artefact: CardModelSize


class CardMetric(_StrictRecord):
    """A metric of the model and of the artefact."""

    model: float
    artefact: float


class CardLimits(_StrictRecord):
    agreement: float
    max_difference: float | None
    metric_drop: float | None
    tolerance: float
    allowed_rows: int


class CardVerification(_StrictRecord):
    split: str
    samples: Count
    edge_cases: tuple[str, ...]
    agreement: Share | None
    max_difference: float | None
    metrics: dict[str, CardMetric]
    limits: CardLimits | None
    failures: tuple[str, ...]
    verified: bool


class CardInterval(_StrictRecord):
    low: float | None
    high: float | None
    level: float
    method: str


class CardEvaluation(_StrictRecord):
    count: Count = 0
    metrics: dict[str, float | None] = {}
    intervals: dict[str, CardInterval] = {}


class CardTeacher(_StrictRecord):
    model: str
    sha256: Digest


class CardLineage(_StrictRecord):
    run: str
    recipe: str
    recipe_sha256: Digest
    model_sha256: Digest
    data_fingerprint: str
    rows: dict[str, Count]
    seed: int
    trained_with: dict[str, str | int | tuple[str, ...]]
    teachers: tuple[CardTeacher, ...]


class CardRecord(_StrictRecord):
    """`card.json`."""

    format: str
    kind: str
    options: CardOptions
    precision: Precision
    runtime: Runtime
    model: RelativePath
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1)]
    bmcli_card: Literal[1]
    name: str
    created: str
    license: str | None
    targets: Annotated[tuple[CardTarget, ...], Field(min_length=1)]
    columns: Annotated[tuple[CardColumn, ...], Field(min_length=1)]
    notes: tuple[str, ...]
    weights: CardModelSizes
    verification: CardVerification
    evaluation: dict[str, CardEvaluation]
    lineage: CardLineage
    versions: dict[str, str]
    bytes: Bytes
    gzip_bytes: Bytes
    files: Annotated[tuple[CardFile, ...], Field(min_length=1), AfterValidator(_check_unique_paths)]
    seal: str | None


Numbers = tuple[float, ...]
Curves = tuple[Numbers, ...]


class DerivationRecord(_StrictRecord):
    """How the cells of an input are made of other rows; the options are checked when rows are read."""

    options: dict[str, JsonValue]
    time: str | None


class NumberState(_StrictRecord):
    fill: Numbers
    offset: Annotated[Numbers, Field(min_length=1)]
    scale: Annotated[Numbers, Field(min_length=1)]
    low: Annotated[Numbers, Field(min_length=1)]
    high: Annotated[Numbers, Field(min_length=1)]
    flag: bool
    padded: bool
    missing_is_fault: bool
    log: bool = False
    learned: bool = False
    knots: Curves = ()
    heights: Curves = ()
    edges: Curves = ()
    notation: dict[Literal["decimal", "thousands", "unit"], str] = {}
    missing_cells: tuple[str, ...] = ()
    marked: dict[str, Count] = {}
    derivation: DerivationRecord | None = None


class CategoryState(_StrictRecord):
    dimension: Count
    has_missing: bool
    pooled: bool = False
    buckets: Annotated[int, Field(ge=1, lt=2**31)] = 1
    separator: Annotated[str, Field(min_length=1)] = ";"
    spelling: Spelling = "raw"
    spellings: dict[str, tuple[str, ...]] = {}
    unseen_share: Share = 0.0


class BooleanState(_StrictRecord):
    yes: tuple[str, ...]
    no: tuple[str, ...]
    fill: float
    flag: bool
    missing_cells: tuple[str, ...] = ()
    marked: dict[str, Count] = {}


class DateState(_StrictRecord):
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    parts: tuple[Literal["minute", "hour", "weekday", "day", "month", "day_of_year", "trend"], ...]
    offset: float
    scale: float
    low: float
    high: float
    flag: bool
    missing_cells: tuple[str, ...]
    marked: dict[str, Count] = {}
    patterns: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


class TextState(_StrictRecord):
    vocabulary: tuple[str, ...]
    length: Annotated[int, Field(ge=1, lt=2**31)]
    bag: bool
    tokens: Literal["words", "characters"]
    ngrams: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]]
    lowercase: bool
    accents: Literal["keep", "strip"]
    punctuation: Literal["keep", "drop", "split"]
    composed: bool
    weights: Numbers | None
    normalize: bool
    dimension: Count | None
    unseen_share: Share = 0.0


_Byte = Annotated[int, Field(ge=0, le=255)]


class ImageState(_StrictRecord):
    fit: Literal["stretch", "pad", "crop"]
    offset: Numbers
    scale: Numbers
    range: tuple[float, float]
    max_pixels: Count = 0
    sized: bool = True
    background: tuple[_Byte, _Byte, _Byte] = (255, 255, 255)
    bits: Literal[8, 16] = 8
    converted: tuple[str, ...] = ()


class CrossState(_StrictRecord):
    columns: tuple[str, ...]
    sizes: tuple[Size, ...]
    buckets: Count | None
    dimension: Count | None


class TargetState(_StrictRecord):
    mean: float = 0.0
    scale: float = 1.0
    log: bool = False
    separator: str = ";"
    columns: tuple[str, ...] = ()
    notation: dict[Literal["decimal", "thousands", "unit"], str] = {}
    spelling: Spelling = "raw"
    spellings: dict[str, tuple[str, ...]] = {}


class _ColumnRecord(_StrictRecord):
    name: str
    shape: Shape
    raw_shape: RawShape
    classes: tuple[str, ...]


class NumberColumn(_ColumnRecord):
    kind: Literal["number"]
    dtype: Literal["float32"]
    raw_dtype: Literal["float32", "float64"]
    state: NumberState


class CategoryColumn(_ColumnRecord):
    kind: Literal["category"]
    dtype: Literal["int32"]
    raw_shape: tuple[()] | tuple[Literal[1]]
    raw_dtype: Literal["string", "int64"]
    state: CategoryState


class BooleanColumn(_ColumnRecord):
    kind: Literal["boolean"]
    dtype: Literal["float32"]
    raw_dtype: Literal["string", "float32"]
    state: BooleanState


class DateColumn(_ColumnRecord):
    kind: Literal["date"]
    dtype: Literal["float32"]
    raw_dtype: Literal["string", "float64"]
    state: DateState


class TextColumn(_ColumnRecord):
    kind: Literal["text"]
    dtype: Literal["int32"]
    raw_dtype: Literal["string"]
    state: TextState


class ImageColumn(_ColumnRecord):
    kind: Literal["image"]
    shape: Annotated[Shape, Field(min_length=3, max_length=3)]
    dtype: Literal["uint8", "float32"]
    raw_dtype: Literal["string", "uint8", "float32"]
    state: ImageState

    @model_validator(mode="after")
    def _check_raw_shape(self) -> Self:
        if len(self.raw_shape) not in ((0,) if self.raw_dtype == "string" else (2, 3)):
            raise ValueError(f"raw_shape does not fit pictures in {self.raw_dtype}")
        return self


class OtherColumn(_ColumnRecord):
    """A column of a kind that is not built in.

    The traits of an input check its state. That of a target is not read: artefacts predict, and have no truth to
    decode; nor is that of what an objective learns without a target.
    """

    kind: str
    dtype: Dtype
    raw_dtype: Dtype
    state: dict[str, JsonValue]


class CrossColumn(_ColumnRecord):
    kind: Literal["cross"]
    dtype: Dtype
    raw_dtype: Dtype
    state: CrossState


class TargetColumn(_ColumnRecord):
    """A target of a built-in kind; the answers of its output check its classes."""

    kind: str
    dtype: Dtype
    raw_dtype: Dtype
    state: TargetState


class OutputRecord(_StrictRecord):
    """An output; its objective checks its state."""

    name: str
    objective: str
    shape: RawShape
    dtype: Dtype
    names: tuple[str, ...]
    activation: Literal["softmax", "sigmoid", "linear"]
    state: dict[str, JsonValue]
    inputs: tuple[str, ...]

    @field_validator("objective")
    @classmethod
    def _check_objective(cls, value: str) -> str:
        if value not in parts.names("objectives"):
            raise ValueError(f"no objective {value!r}")
        return value


def _get_input_tag(values: Any) -> str:
    return _find_built_in("inputs", values) or "plugin"


def _get_target_tag(values: Any) -> str:
    return "built-in" if _find_built_in("data.targets", values) else "plugin"


def _check_kind(room: str, column: OtherColumn) -> OtherColumn:
    if column.kind not in parts.names(room):
        raise ValueError(f"{room} has no kind {column.kind!r}")
    return column


def _find_built_in(room: str, values: Any) -> str:
    """Return the kind of a column if it is built in, else an empty text."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    return kind if isinstance(kind, str) and kind in parts.list_built_in(room) else ""


InputColumn = Annotated[
    Annotated[NumberColumn, Tag("number")]
    | Annotated[CategoryColumn, Tag("category")]
    | Annotated[BooleanColumn, Tag("boolean")]
    | Annotated[DateColumn, Tag("date")]
    | Annotated[TextColumn, Tag("text")]
    | Annotated[ImageColumn, Tag("image")]
    | Annotated[OtherColumn, AfterValidator(partial(_check_kind, "inputs")), Tag("plugin")],
    Discriminator(_get_input_tag),
]


AnyTargetColumn = Annotated[
    Annotated[TargetColumn, Tag("built-in")]
    | Annotated[OtherColumn, AfterValidator(partial(_check_kind, "data.targets")), Tag("plugin")],
    Discriminator(_get_target_tag),
]


class PreprocessingRecord(_StrictRecord):
    """`preprocessing.json`."""

    inputs: Annotated[tuple[InputColumn, ...], Field(min_length=1)]
    targets: tuple[AnyTargetColumn, ...]
    crosses: tuple[CrossColumn, ...]
    outputs: Annotated[tuple[OutputRecord, ...], Field(min_length=1)]
    derived: tuple[OtherColumn, ...]
    counts: dict[str, Count]
    fingerprint: str
    key: str
    stratified_by: str | None
    groups: dict[str, Count]
    moved_rows: Count
    weight: str | None
    invalid_cells: dict[str, Count]
    skipped_rows: Count
    malformed_records: Count
    notes: tuple[str, ...]
    source: dict[str, JsonValue]


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def validate_record(record_type: type[AnyRecord], values: Mapping[str, Any]) -> AnyRecord:
    """Validate JSON values as a typed record.

    Raises:
        ValueError: A field is missing, unknown or of another type; the message has its path, such as `targets.0.name`.
    """
    try:
        # As JSON text, since only there the strict mode of pydantic accepts lists as tuples.
        return record_type.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from None
