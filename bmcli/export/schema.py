"""Schemas of an artefact's JSON files, which can come from anyone, so every field is validated before use."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, field_validator

from bmcli import parts
from bmcli.column_records import ColumnRecord, Count, Dtype, Fraction, RawShape, Shape, Size, StrictRecord
from bmcli.export import Precision, Runtime, Signature


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
RelativePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_relative_path)]


class CardFile(StrictRecord):
    path: RelativePath
    bytes: Bytes
    sha256: Digest


class CardOptions(StrictRecord):
    """Options of the format; those that only this format has are never read."""

    model_config = ConfigDict(extra="allow")

    compress: tuple[dict[str, JsonValue], ...]
    quantize: str | None = None
    warm_up: bool = False


class CardTarget(StrictRecord):
    name: str
    kind: str
    classes: tuple[str, ...]
    decision: str
    state: dict[str, JsonValue]


class CardColumn(StrictRecord):
    name: str
    kind: str
    meaning: str
    preprocessing: str


class CardModelSize(StrictRecord):
    parameters: Count
    nonzero_share: Fraction
    bytes: Bytes
    gzip_bytes: Bytes


class CardModelSizes(StrictRecord):
    model: CardModelSize
    compressed: CardModelSize | None


class CardMetric(StrictRecord):
    """A metric of the model and of the artefact."""

    model: float
    artefact: float


class CardRounding(StrictRecord):
    relative: float
    least: float
    most: float


class CardLimits(StrictRecord):
    agreement: float
    rounding: CardRounding | None
    max_difference: float | None
    model_r2: float | None
    metric_drop: float | None
    tolerance: float
    allowed_rows: int


class CardComparison(StrictRecord):
    """The predictions of one target beside the model's."""

    same: str
    unit: str
    difference: float | None
    scale: float
    limit: float | None
    r2: float | None


class CardVerification(StrictRecord):
    split: str
    samples: Count
    edge_cases: tuple[str, ...]
    agreement: Fraction | None
    max_difference: float | None
    metrics: dict[str, CardMetric]
    outputs: dict[str, CardComparison]
    limits: CardLimits | None
    failures: tuple[str, ...]
    summary: tuple[str, ...]
    verified: bool


class CardInterval(StrictRecord):
    low: float | None
    high: float | None
    level: float
    method: str


class CardEvaluation(StrictRecord):
    count: Count = 0
    positive: dict[str, str] = Field(default={})
    weight: str | None = None
    metrics: dict[str, float | None] = Field(default={})
    intervals: dict[str, CardInterval] = Field(default={})


class CardTeacher(StrictRecord):
    model: str
    sha256: Digest


class CardLineage(StrictRecord):
    run: str
    recipe: str
    recipe_sha256: Digest
    model_sha256: Digest
    data_fingerprint: str
    rows: dict[str, Count]
    seed: int
    trained_with: dict[str, str | int | tuple[str, ...]]
    teachers: tuple[CardTeacher, ...]


class CardCache(StrictRecord):
    name: str
    shape: Shape
    dtype: Dtype


class CardWriting(StrictRecord):
    output: str
    generates: bool
    caches: tuple[CardCache, ...] | None


class CardRecord(StrictRecord):
    """`card.json`."""

    format: str
    kind: str
    options: CardOptions
    precision: Precision
    runtime: Runtime
    model: RelativePath
    modules: tuple[Literal["tensorflow_text"], ...]
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1)]
    writing: CardWriting | None
    bmcli_card: Literal[1]
    name: str
    created: str
    license: str | None
    targets: Annotated[tuple[CardTarget, ...], Field(min_length=1)]
    columns: Annotated[tuple[CardColumn, ...], Field(min_length=1)]
    notes: tuple[str, ...]
    example: str
    generation: str | None
    request: str | None
    weights: CardModelSizes
    verification: CardVerification
    evaluation: dict[str, CardEvaluation]
    lineage: CardLineage
    versions: dict[str, str]
    bytes: Bytes
    gzip_bytes: Bytes
    model_bytes: Bytes
    model_gzip_bytes: Bytes
    files: Annotated[tuple[CardFile, ...], Field(min_length=1), AfterValidator(_check_unique_paths)]
    seal: str | None


class CrossState(StrictRecord):
    columns: tuple[str, ...]
    sizes: tuple[Size, ...]
    buckets: Count | None
    dimension: Count | None


class CrossColumn(ColumnRecord):
    kind: Literal["cross"]
    state: CrossState  # type: ignore[assignment]  # of crosses


class OutputRecord(StrictRecord):
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


def _check_kind(room: str, column: ColumnRecord) -> ColumnRecord:
    if column.kind not in parts.names(room):
        raise ValueError(f"{room} has no kind {column.kind!r}")
    return column


InputColumn = Annotated[ColumnRecord, AfterValidator(partial(_check_kind, "inputs"))]
TargetColumn = Annotated[ColumnRecord, AfterValidator(partial(_check_kind, "data.targets"))]


class PreprocessingRecord(StrictRecord):
    """`preprocessing.json`.

    The kinds of inputs and targets check the states of their columns. That of what an objective learns without a target
    is not read: artefacts predict, and have no truth to decode.
    """

    inputs: Annotated[tuple[InputColumn, ...], Field(min_length=1)]
    targets: tuple[TargetColumn, ...]
    crosses: tuple[CrossColumn, ...]
    outputs: Annotated[tuple[OutputRecord, ...], Field(min_length=1)]
    derived: tuple[ColumnRecord, ...]
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
