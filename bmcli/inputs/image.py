"""Pictures that come as arrays: grey `(rows, height, width)` or `(rows, height, width, channels)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bmcli.cells import Raw, RowFault, is_text
from bmcli.errors import BmcliError
from bmcli.inputs import Feature, check_shape
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

_Side = Annotated[int, Field(ge=1, le=8192)]
_BATCH = 1024


class Options(Kind):
    """A picture a row."""

    kind: Literal["image"] = "image"
    size: tuple[_Side, _Side] | None = Field(
        default=None, description="Height and width the network sees; by default those of the data."
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="1 for grey, 3 for colour; by default those of the data."
    )
    scale: Literal["unit", "standard", "none"] = Field(
        default="unit",
        description="`unit`: training pixels from 0 to 1; `standard`: mean 0 and deviation 1 per channel.",
    )


def fit(name: str, rows: Raw, options: Options) -> Column:
    """Sizes, and the range or moments of the training pixels after resizing."""
    if is_text(rows) or rows.ndim not in (3, 4) or 0 in rows.shape[1:]:
        received = "text" if is_text(rows) else f"rows of shape {tuple(rows.shape[1:])}"
        raise BmcliError(
            f"column '{name}': expected (height, width) or (height, width, channels), received {received}.",
            path=f"data.inputs.{name}",
        )
    height, width, channels = rows.shape[1:] if rows.ndim == 4 else (*rows.shape[1:], 1)
    if options.channels not in (None, channels) and channels not in (1, 3):
        raise BmcliError(
            f"column '{name}': {channels} channels cannot become {options.channels}.",
            path=f"data.inputs.{name}",
        )
    dtype = "uint8" if rows.dtype.name == "uint8" else "float32"
    column = Column(
        name=name,
        kind="image",
        shape=(*(options.size or (height, width)), options.channels or channels),
        dtype=dtype,
        raw_shape=tuple(rows.shape[1:]),
        raw_dtype=dtype,
    )
    offset, scale = _pixel_statistics(encode(rows, column), options.scale)
    return Column(**{**vars(column), "state": {"offset": offset, "scale": scale}})


def encode(rows: Raw, column: Column) -> np.ndarray:
    """Pixels `(rows, height, width, channels)` of the size the network sees, unscaled."""
    import numpy as np

    check_shape(rows, column)
    for start, batch in _batches(rows):
        if not np.isfinite(batch).all():
            row = start + int(np.argwhere(~np.isfinite(batch))[0][0])
            raise RowFault(row, "expected finite pixels, received infinite ones or NaN.")
    if _is_as_it_was(column):
        return np.ascontiguousarray(rows, column.dtype).reshape(-1, *column.shape)
    layer = encoder(column)
    encoded = np.empty((len(rows), *column.shape), column.dtype)
    for start, batch in _batches(rows):
        encoded[start : start + len(batch)] = layer(batch.astype(column.raw_dtype)).numpy()
    return encoded


def encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.image_encoder import ImageEncoder

    return ImageEncoder(column.shape[:2], column.shape[2], dtype=column.dtype)


def feature(column: Column, encoded: Any) -> Feature:
    """Pixels scaled by what was fitted on the training rows."""
    from bmcli.layers.scale import Scale

    return Feature(column, Scale(column.state["offset"], column.state["scale"])(encoded))


def _is_as_it_was(column: Column) -> bool:
    return column.raw_shape in (column.shape, column.shape[:2] if column.shape[2] == 1 else None)


def _pixel_statistics(pixels: np.ndarray, scale: str) -> tuple[list[float], list[float]]:
    """Offset and scale of every channel; batch by batch, since float64 copies of all pixels may not fit."""
    import numpy as np

    channels = pixels.shape[-1]
    if scale == "none":
        return [0.0] * channels, [1.0] * channels
    low, high = float(pixels.min()), float(pixels.max())
    if scale == "unit" or low == high:
        return [low] * channels, [high - low or 1.0] * channels
    count = pixels[..., 0].size
    mean = sum(batch.sum(axis=(0, 1, 2), dtype="float64") for _, batch in _batches(pixels)) / count
    squares = sum(np.square(batch - mean).sum(axis=(0, 1, 2)) for _, batch in _batches(pixels)) / count
    constant = (pixels.min(axis=(0, 1, 2)) == pixels.max(axis=(0, 1, 2))) | (squares == 0)
    return mean.tolist(), np.where(constant, 1.0, np.sqrt(squares)).tolist()


def _batches(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), _BATCH):
        yield start, rows[start : start + _BATCH]
