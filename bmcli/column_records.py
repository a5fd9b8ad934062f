"""Records of the columns of an artefact, which can come from anyone: every field is validated before use."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

_MAX_CELL_NUMBERS = 2**26
"""Maximum number of elements of a cell; a batch of larger cells does not fit into memory."""


class StrictRecord(BaseModel):
    """A record with these fields alone, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _check_cell_size(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if math.prod(size or 1 for size in shape) > _MAX_CELL_NUMBERS:
        raise ValueError(f"a cell of more than {_MAX_CELL_NUMBERS:,} elements")
    return shape


Dtype = Annotated[str, Field(pattern="^(string|bool|u?int(8|16|32|64)|float(16|32|64))$")]
"""`string`, or a NumPy dtype."""
Size = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Numbers = tuple[float, ...]
Shape = Annotated[tuple[Size, ...], Field(max_length=8), AfterValidator(_check_cell_size)]
RawShape = Annotated[tuple[Size | None, ...], Field(max_length=8), AfterValidator(_check_cell_size)]


class ColumnRecord(StrictRecord):
    """A column of any kind, which alone knows its state."""

    name: str
    kind: str
    shape: Shape
    dtype: Dtype
    raw_shape: RawShape
    raw_dtype: Dtype
    classes: tuple[str, ...]
    class_counts: tuple[Count, ...]
    state: dict[str, JsonValue]


class DerivationRecord(StrictRecord):
    """How the cells of an input are made of other rows; the options are checked when rows are read."""

    options: dict[str, JsonValue]
    time: str | None


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
