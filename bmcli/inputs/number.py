"""Numbers: single ones, vectors and sequences, with missing values filled and channels scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli.errors import BmcliError
from bmcli.inputs import Feature, check_shape
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, to_numbers
from bmcli.recipe.fields import Kind, fault
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

# A rounding error above this share of a channel's scale would be learned as noise.
_ROUNDING = 1e-4
_QUANTILES = 1001


class Options(Kind):
    """One number per row, or an array of numbers with the channels last."""

    kind: Literal["number"] = "number"
    log: bool = Field(
        default=False,
        description="Apply sign(x) * log(1 + |x|) first, for numbers over several orders of magnitude.",
    )
    scale: Literal["standard", "minmax", "quantile", "none"] = Field(
        default="standard",
        description="`standard`: mean 0 and standard deviation 1 on the training rows; `minmax`: from 0 to 1; "
        "`quantile`: ranks mapped to an even distribution with mean 0 and standard deviation 1.",
    )
    bins: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        default=None, description="Number of bins; the network sees the bin index instead of the number."
    )
    binning: Literal["quantile", "uniform"] | None = Field(
        default=None,
        description="`quantile` (default): bins with equal numbers of training rows; `uniform`: bins of equal width.",
    )
    missing: Literal["mean", "median", "zero", "learned", "fault"] = Field(
        default="mean",
        description="Replacement of missing values: mean or median of the training rows, 0, or a learned number; or "
        "an error.",
    )
    flag: bool = Field(default=False, description="Add a channel that is 1 where a value is missing.")

    @model_validator(mode="after")
    def _bins_stand_alone(self) -> Options:
        if self.bins is None and self.binning is not None:
            raise fault("binning", "`binning` goes with `bins`.")
        if self.bins is not None and self.scale in ("minmax", "quantile"):
            raise fault("scale", f"bins are not scaled, so `scale: {self.scale}` would do nothing.")
        if self.bins is not None and self.missing == "learned":
            raise fault("missing", "a bin is not learned.", "Write `flag: true`, or leave `bins` out.")
        return self


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fill value, offset and scale of every channel, from the training rows.

    Sequences `(rows, steps, channels)` of different lengths end in steps that are NaN in all channels.
    """
    values = to_numbers(rows)
    raw_shape = values.shape[1:]
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    if 0 in raw_shape:
        raise BmcliError(f"column {quoted(name)}: its rows hold no numbers.", path=f"data.inputs.{name}")
    channels = values.reshape(-1, values.shape[-1])
    _check_has_values(name, channels)
    channels = _logarithm(channels) if options.log else channels
    fill, offset, scale = _channel_statistics(name, channels, options)
    raw_dtype = _raw_dtype(channels, scale, options)
    padded = values.ndim == 3 and bool(_padding(values).any())
    column = Column(
        name=name,
        kind="number",
        shape=(*values.shape[1:-1], values.shape[-1] * (2 if options.flag else 1)),
        dtype="float32",
        raw_shape=raw_shape,
        raw_dtype=raw_dtype,
        state={
            "fill": fill.tolist(),
            "offset": offset.tolist(),
            "scale": scale.tolist(),
            "flag": options.flag,
            "padded": padded,
            "missing_is_fault": options.missing == "fault",
            **_fit_curves(channels.astype(raw_dtype), options),
            **({"log": True} if options.log else {}),
            **({"learned": True} if options.missing == "learned" else {}),
        },
    )
    _check_missing(values, column.state["missing_is_fault"], column.state["padded"])
    return column


def check(rows: RawColumn, options: Options) -> None:
    """Refuses what is no number, and a missing one if that is a fault."""
    values = to_numbers(rows)
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    padded = values.ndim == 3 and bool(_padding(values).any())
    _check_missing(values, options.missing == "fault", padded)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Filled and scaled, float32; padding steps stay NaN if the training rows have such steps.

    Of bins it is the number of the bin. What is missing stays NaN, too, if its stand-in is learned.
    Computed in the raw dtype, step by step as the layer does, so that both give the same bits.
    """
    import numpy as np

    values = to_numbers(rows)
    check_shape(values, column)
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    _check_missing(values, column.state["missing_is_fault"], column.state["padded"])
    state = column.state
    fill, offset, scale = (np.array(state[key], column.raw_dtype) for key in ("fill", "offset", "scale"))
    with np.errstate(over="ignore"):
        values = values.astype(column.raw_dtype, copy=False)
        missing = np.isnan(values)
        values = _logarithm(values) if state.get("log") else values
        filled = np.where(missing, fill, values)
        filled = _transform_values(filled, state)
        encoded = ((filled - offset) / scale).astype("float32")
    _check_finite(rows, encoded)
    if state.get("learned"):
        encoded = np.where(missing, np.float32("nan"), encoded)
    if column.state["flag"]:
        encoded = np.concatenate([encoded, missing.astype("float32")], axis=-1)
    if column.state["padded"]:
        encoded = np.where(missing.all(axis=-1, keepdims=True), np.float32("nan"), encoded)
    return encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.number_encoder import NumberEncoder

    state = column.state
    further = {key: state[key] for key in ("log", "learned", "knots", "heights", "edges") if key in state}
    usual = [state[key] for key in ("fill", "offset", "scale", "flag", "padded")]
    return NumberEncoder(*usual, dtype=column.raw_dtype, **further)


def stack_key(column: Column) -> Any:
    """Plain numbers, one a row, of one raw dtype."""
    state = column.state
    special = state["flag"] or state["padded"] or {"learned", "knots", "edges"} & state.keys()
    return None if special or column.raw_shape else (column.raw_dtype, bool(state.get("log")))


def encoder_of(columns: Sequence[Column]) -> keras.layers.Layer:
    """One layer for plain numbers, as the channels of one array."""
    from bmcli.layers.number_encoder import NumberEncoder

    fill, offset, scale = ([column.state[key][0] for column in columns] for key in ("fill", "offset", "scale"))
    return NumberEncoder(fill, offset, scale, log=bool(columns[0].state.get("log")), dtype=columns[0].raw_dtype)


def build_feature(column: Column, encoded: Any) -> Feature:
    """The numbers as they are, or a one-hot vector of the bins; padding becomes zeros and a mask."""
    from bmcli.layers.bins import Bins
    from bmcli.layers.learned_fill import LearnedFill
    from bmcli.layers.unpad import Unpad

    state, mask = column.state, None
    if state.get("learned"):
        encoded = LearnedFill(state["padded"])(encoded)
    if state["padded"]:
        encoded, mask = Unpad()(encoded)
    if "edges" in state:
        encoded = Bins(len(state["edges"]), 1 + max(map(len, state["edges"])))(encoded)
    return Feature(column, encoded, mask)


def _channel_statistics(name: str, channels: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill, offset and scale of `(values, channels)`, float64; a constant channel has scale 1."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (np.asarray(bound(channels, axis=0), "float64") for bound in (np.nanmin, np.nanmax))
        mean = np.nanmean(channels, axis=0, dtype="float64")
        if options.scale == "standard" and options.bins is None:
            offset, scale = mean, np.nanstd(channels, axis=0, dtype="float64")
        elif options.scale == "minmax":
            offset, scale = low, high - low
        else:
            offset, scale = np.zeros_like(mean), np.ones_like(mean)
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise BmcliError(f"column {quoted(name)}: the numbers are too large to be scaled.", path=f"data.inputs.{name}")
    # Compared by bounds: the deviation of equal numbers is not exactly 0.
    scale = np.where((low == high) | (scale == 0), 1.0, scale)
    if options.missing == "median":
        return np.asarray(np.nanmedian(channels, axis=0), "float64"), offset, scale
    return (np.zeros_like(mean) if options.missing == "zero" else mean), offset, scale


def _logarithm(values: np.ndarray) -> np.ndarray:
    """sign(x) * log(1 + |x|) in the dtype of the values, computed in double precision."""
    import numpy as np

    wide = values.astype("float64", copy=False)
    return (np.sign(wide) * np.log1p(np.abs(wide))).astype(values.dtype)


def _fit_curves(channels: np.ndarray, options: Options) -> dict[str, list[list[float]]]:
    """Knots and heights of each channel's ranks, or edges of its bins, as they are in the raw dtype."""
    import numpy as np

    if options.bins is not None:
        return {"edges": [_edges(values[~np.isnan(values)], options).tolist() for values in channels.T]}
    if options.scale != "quantile":
        return {}
    ranks = [_fit_quantiles(values[~np.isnan(values)]) for values in channels.T]
    return {"knots": [knots.tolist() for knots, _ in ranks], "heights": [heights.tolist() for _, heights in ranks]}


def _fit_quantiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles, rising, and what each becomes: evenly spread, equal quantiles at the middle of theirs."""
    import numpy as np

    shares = np.linspace(0, 1, min(_QUANTILES, max(2, len(values))))
    knots, places = np.unique(np.quantile(values, shares).astype(values.dtype), return_inverse=True)
    heights = np.bincount(places, weights=shares) / np.bincount(places)
    return knots, (heights - 0.5) * np.sqrt(12)


def _edges(values: np.ndarray, options: Options) -> np.ndarray:
    """Where one bin ends and the next begins; fewer than asked for where many values are equal."""
    import numpy as np

    inner = np.linspace(0, 1, options.bins + 1)[1:-1] if options.bins else np.zeros(0)
    low, high = values.min(), values.max()
    uniform = options.binning == "uniform"
    edges = low + inner * (high - low) if uniform else np.quantile(values, inner)
    edges = np.unique(edges.astype(values.dtype))
    return edges[edges > low]


def _transform_values(values: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Values `(..., channels)` by their ranks or bins, or as they are if the column has neither."""
    import numpy as np

    if "knots" not in state and "edges" not in state:
        return values
    bent = np.empty_like(values)
    for channel in range(values.shape[-1]):
        x = values[..., channel]
        if "edges" in state:
            bent[..., channel] = np.searchsorted(np.array(state["edges"][channel], x.dtype), x, side="right")
            continue
        knots, heights = (np.array(state[key][channel], x.dtype) for key in ("knots", "heights"))
        x = np.clip(x, knots[0], knots[-1])
        left = np.searchsorted(knots, x, side="right") - 1
        knots, heights = np.append(knots, x.dtype.type("inf")), np.append(heights, heights[-1])
        share = (x - knots[left]) / (knots[left + 1] - knots[left])
        bent[..., channel] = heights[left] + share * (heights[left + 1] - heights[left])
    return bent


def _raw_dtype(channels: np.ndarray, scale: np.ndarray, options: Options) -> str:
    """float32 where it is fine enough for differences between rows, as it is not for seconds since 1970."""
    import numpy as np

    if channels.dtype == np.float32:
        return "float32"
    if options.log or options.scale == "quantile" or options.bins is not None:
        return "float64"
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
            f"column {quoted(name)}: the training rows have no value{part}.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )


def _check_missing(values: np.ndarray, is_fault: bool, padded: bool) -> None:
    import numpy as np

    if not is_fault:
        return
    missing = np.isnan(values).any(axis=-1)
    if padded:
        missing &= ~_padding(values)
    if missing.any():
        row = int(np.argwhere(missing)[0][0])
        raise RowFault(row, "expected a number, received nothing.", "Write `missing: mean` to fill it in.")


def _check_finite(rows: RawColumn, encoded: np.ndarray) -> None:
    import numpy as np

    if not np.isfinite(encoded).all():
        row = int(np.argwhere(~np.isfinite(encoded))[0][0])
        raise RowFault(row, "the number is too large beside those of the training rows.")
