"""Numbers: single ones, vectors and sequences, with missing values filled and channels scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli.cells import Raw, RowFault, numbers
from bmcli.errors import BmcliError
from bmcli.inputs import Feature, check_shape
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

# A rounding error above this share of a channel's scale would be learned as noise.
_ROUNDING = 1e-4


class Options(Kind):
    """A number a row, or an array of numbers with the channels last."""

    kind: Literal["number"] = "number"
    scale: Literal["standard", "minmax", "none"] = Field(
        default="standard",
        description="`standard`: the training rows have mean 0 and deviation 1; `minmax`: from 0 to 1.",
    )
    missing: Literal["mean", "median", "zero", "fault"] = Field(
        default="mean",
        description="What stands in for a missing value: training mean or median, or 0; or it is a fault.",
    )
    flag: bool = Field(default=False, description="Add a channel that is 1 where a value is missing.")


def fit(name: str, rows: Raw, options: Options) -> Column:
    """Fill value, offset and scale of every channel, from the training rows.

    Sequences `(rows, steps, channels)` of different lengths end in steps that are NaN in all channels.
    """
    values = numbers(rows)
    raw_shape = values.shape[1:]
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    if 0 in raw_shape:
        raise BmcliError(f"column '{name}': its rows hold no numbers.", path=f"data.inputs.{name}")
    channels = values.reshape(-1, values.shape[-1])
    _check_has_values(name, channels)
    fill, offset, scale = _channel_statistics(name, channels, options)
    padded = values.ndim == 3 and bool(_padding(values).any())
    column = Column(
        name=name,
        kind="number",
        shape=(*values.shape[1:-1], values.shape[-1] * (2 if options.flag else 1)),
        dtype="float32",
        raw_shape=raw_shape,
        raw_dtype=_raw_dtype(channels, scale),
        state={
            "fill": fill.tolist(),
            "offset": offset.tolist(),
            "scale": scale.tolist(),
            "flag": options.flag,
            "padded": padded,
            "missing_is_fault": options.missing == "fault",
        },
    )
    _check_missing(values, column)
    return column


def encode(rows: Raw, column: Column) -> np.ndarray:
    """Filled and scaled, float32; padding steps stay NaN if the training rows have such steps.

    Computed in the raw dtype, step by step as the layer does, so that both give the same bits.
    """
    import numpy as np

    values = numbers(rows)
    check_shape(values, column)
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    _check_missing(values, column)
    fill, offset, scale = (np.array(column.state[key], column.raw_dtype) for key in ("fill", "offset", "scale"))
    with np.errstate(over="ignore"):
        values = values.astype(column.raw_dtype, copy=False)
        missing = np.isnan(values)
        encoded = ((np.where(missing, fill, values) - offset) / scale).astype("float32")
    _check_finite(rows, encoded)
    if column.state["flag"]:
        encoded = np.concatenate([encoded, missing.astype("float32")], axis=-1)
    if column.state["padded"]:
        encoded = np.where(missing.all(axis=-1, keepdims=True), np.float32("nan"), encoded)
    return encoded


def encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.number_encoder import NumberEncoder

    state = column.state
    return NumberEncoder(
        state["fill"], state["offset"], state["scale"], state["flag"], state["padded"], dtype=column.raw_dtype
    )


def feature(column: Column, encoded: Any) -> Feature:
    """The numbers as they are; padding becomes zeros and a mask."""
    if not column.state["padded"]:
        return Feature(column, encoded)
    from bmcli.layers.unpad import Unpad

    tensor, mask = Unpad()(encoded)
    return Feature(column, tensor, mask)


def _channel_statistics(name: str, channels: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill, offset and scale of `(values, channels)`, float64; a constant channel has scale 1."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (np.asarray(bound(channels, axis=0), "float64") for bound in (np.nanmin, np.nanmax))
        mean = np.nanmean(channels, axis=0, dtype="float64")
        if options.scale == "standard":
            offset, scale = mean, np.nanstd(channels, axis=0, dtype="float64")
        elif options.scale == "minmax":
            offset, scale = low, high - low
        else:
            offset, scale = np.zeros_like(mean), np.ones_like(mean)
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise BmcliError(f"column '{name}': the numbers are too large to be scaled.", path=f"data.inputs.{name}")
    # Compared by bounds: the deviation of equal numbers is not exactly 0.
    scale = np.where((low == high) | (scale == 0), 1.0, scale)
    if options.missing == "median":
        return np.asarray(np.nanmedian(channels, axis=0), "float64"), offset, scale
    return (np.zeros_like(mean) if options.missing == "zero" else mean), offset, scale


def _raw_dtype(channels: np.ndarray, scale: np.ndarray) -> str:
    """float32 where it is fine enough for differences between rows, as it is not for seconds since 1970."""
    import numpy as np

    if channels.dtype == np.float32:
        return "float32"
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(channels - channels.astype("float32"))
        fine = np.nanmax(np.where(np.isnan(channels), 0, error / scale)) <= _ROUNDING
    return "float32" if fine else "float64"


def _padding(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.isnan(values).all(axis=-1)


def _check_has_values(name: str, channels: np.ndarray) -> None:
    import numpy as np

    empty = np.isnan(channels).all(axis=0)
    if empty.any():
        part = "" if channels.shape[-1] == 1 else f" in channel {int(np.argmax(empty))}"
        raise BmcliError(
            f"column '{name}': the training rows have no value{part}.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{name}]`.",
        )


def _check_missing(values: np.ndarray, column: Column) -> None:
    import numpy as np

    if not column.state["missing_is_fault"]:
        return
    missing = np.isnan(values).any(axis=-1)
    if column.state["padded"]:
        missing &= ~_padding(values)
    if missing.any():
        row = int(np.argwhere(missing)[0][0])
        raise RowFault(row, "expected a number, received nothing.", "Write `missing: mean` to fill it in.")


def _check_finite(rows: Raw, encoded: np.ndarray) -> None:
    import numpy as np

    if not np.isfinite(encoded).all():
        row = int(np.argwhere(~np.isfinite(encoded))[0][0])
        raise RowFault(row, "the number is too large beside those of the training rows.")
