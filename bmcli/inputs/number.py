"""Numeric input: numbers, vectors and sequences, with missing values filled and channels scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli.column_records import ColumnRecord, Count, DerivationRecord, Numbers, StrictRecord
from bmcli.errors import BmcliError
from bmcli.inputs import ENCODERS, Feature, Form, Guess, InputTraits, Preprocessing, check_shape, widen_range
from bmcli.notation import NumberNotation, WrittenNumbers, count_markers, list_counts, parse_numbers, write_number
from bmcli.quoting import quoted
from bmcli.raw_columns import ColumnCells, RawColumn, RowFault, is_text_column, suggest_notation, to_numbers
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions, MissingCells
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.numbers import NotationOptions
from bmcli.specs import Column
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import keras
    import numpy as np

# Above this share of a channel's scale, the rounding error of float32 would be learned as noise; float64 is used then.
_MAX_ROUNDING = 1e-4
_MAX_QUANTILES = 1001


class Options(InputOptions, NotationOptions):
    """One number per row, or an array of numbers with the channels last."""

    AUGMENTED_AS: ClassVar[Literal["image", "number"] | None] = "number"

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
    missing_cells: MissingCells = ()

    @model_validator(mode="after")
    def _check_bins(self) -> Options:
        if self.bins is None and self.binning is not None:
            raise fault("binning", "`binning` has no effect without `bins`.")
        if self.bins is not None and self.scale in ("minmax", "quantile"):
            raise fault("scale", f"`scale: {self.scale}` has no effect with `bins`, which are not scaled.")
        if self.bins is not None and self.missing == "learned":
            raise fault(
                "missing",
                "`missing: learned` learns a number, so it cannot be used with `bins`.",
                "Write `flag: true`, or leave `bins` out.",
            )
        return self

    @model_validator(mode="after")
    def _check_missing_cells(self) -> Options:
        if not self.missing_cells:
            return self  # most recipes are then checked without NumPy, whose import takes longer than that
        import numpy as np
        import pyarrow as pa

        numbers, foreign = parse_numbers(pa.array(self.missing_cells, pa.string()), self.notation)
        is_number = ~np.isnan(numbers) & ~foreign
        if is_number.any():
            text = quoted(self.missing_cells[int(np.argmax(is_number))])
            message = f"expected texts that are no numbers, received {text}: a served model would take it for a number."
            raise fault("missing_cells", message, "Write it into `missing` of the source.")
        return self

    @property
    def can_be_crossed(self) -> bool:
        return self.bins is not None


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise arrays, texts that are numbers, and texts of which all but a few cells are numbers."""
    if cells.is_file or cells.has_long_codes:
        return None
    if not cells.is_text:
        why, form = _describe_arrays(cells)
        return Guess("number", 0.5, why, form=form)
    written = cells.written_numbers
    if written is None:
        return None
    options = written.notation.to_options()
    return Guess(
        "number", 0.5, _describe_numbers(written), options, needs_options=bool(options) and not written.obstacle,
        obstacle=written.obstacle, foreign={} if written.obstacle else written.foreign, doubt=written.doubt,
    )  # fmt: skip


def _describe_numbers(written: WrittenNumbers) -> str:
    """Describe numbers, with an example if they are written in an unusual notation, and the cells without one."""
    why = f"numbers such as {quoted(written.example)}" if written.notation.to_options() else "numbers"
    missing = {**written.markers, **written.foreign}
    return f"{why}; missing: {list_counts(missing)}" if missing else why


def _describe_arrays(cells: ColumnCells) -> tuple[str, Form]:
    """Describe an array; also return the form of its feature, as far as families differ by it."""
    import numpy as np

    if cells.shape in ((), (1,)):
        return "numbers", "vector"
    if len(cells.shape) != 2:
        return f"arrays of {'x'.join(map(str, cells.shape))}", "vector"
    steps, channels = cells.shape
    rows = np.asarray(cells.rows)
    padded = ", with missing steps" if rows.dtype.kind == "f" and np.isnan(rows).any() else ""
    return f"sequences of {steps} steps of {channels} numbers{padded}", "steps"


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit fill value, offset and scale of every channel.

    Sequences `(rows, steps, channels)` of different lengths are padded by steps that are NaN in all channels.
    """
    import numpy as np

    with suggest_notation(rows, options.notation):
        values = to_numbers(rows, options.notation, options.missing_cells)
    raw_shape = values.shape[1:]
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    if 0 in raw_shape:
        raise BmcliError(
            f"column {quoted(name)}: expected numbers in each row, received arrays of shape {tuple(raw_shape)}.",
            path=f"data.inputs.{name}",
        )
    channels = values.reshape(-1, values.shape[-1])
    _check_has_values(name, channels)
    low, high = (bound(channels, axis=0).astype("float64") for bound in (np.nanmin, np.nanmax))
    channels = _signed_log(channels) if options.log else channels
    fill, offset, scale = _compute_channel_statistics(name, channels, options)
    raw_dtype = _choose_raw_dtype(channels, scale, options)
    padded = values.ndim == 3 and bool(_find_padding(values).any())
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
            "low": low.tolist(),
            "high": high.tolist(),
            "flag": options.flag,
            "padded": padded,
            "missing_is_fault": options.missing == "fault",
            **_fit_curves(channels.astype(raw_dtype), options),
            **({"log": True} if options.log else {}),
            **({"learned": True} if options.missing == "learned" else {}),
            **_describe_reading(rows, values[:, 0] if is_text_column(rows) else values, options),
        },
    )
    _check_missing(values, column.state["missing_is_fault"], column.state["padded"])
    return column


def check(rows: RawColumn, options: Options) -> None:
    """Refuse cells that are not numbers, and missing ones with `missing: fault`."""
    values = to_numbers(rows, options.notation, options.missing_cells)
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    padded = values.ndim == 3 and bool(_find_padding(values).any())
    _check_missing(values, options.missing == "fault", padded)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Fill and scale numbers, float32; padding steps stay NaN if the training rows have such steps.

    With `bins` a number becomes the index of its bin. With `missing: learned` missing numbers stay NaN, too.
    The computation uses the raw dtype and the operations of the layer, in the same order, so that both give the same
    bits.
    """
    import numpy as np

    values = _read_cells(rows, column.state)
    check_shape(values, column)
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    _check_missing(values, column.state["missing_is_fault"], column.state["padded"])
    state = column.state
    fill, offset, scale = (np.array(state[key], column.raw_dtype) for key in ("fill", "offset", "scale"))
    with np.errstate(over="ignore"):  # `_check_finite` reports the infinite results with their row.
        values = values.astype(column.raw_dtype, copy=False)
        missing = np.isnan(values)
        values = _signed_log(values) if state.get("log") else values
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


def _describe_reading(rows: Any, values: np.ndarray, options: Options) -> dict[str, Any]:
    """Describe how cells of text are read, as far as it differs from the usual, and which marked a missing one."""
    import numpy as np
    import pyarrow as pa

    if not is_text_column(rows):
        return {}
    missing, marked = np.isnan(values), {}
    if missing.sum() > rows.null_count:  # Most columns have no marker, and their cells are not looked at again.
        marked = count_markers(rows.filter(pa.array(missing)), options.missing_cells)
    reading = {
        "notation": options.notation.to_options(), "missing_cells": list(options.missing_cells), "marked": marked,
    }  # fmt: skip
    return {name: value for name, value in reading.items() if value}


def _read_cells(rows: RawColumn, state: Mapping[str, Any]) -> np.ndarray:
    """Read cells as those of the training rows were read."""
    return to_numbers(rows, NumberNotation(**state.get("notation", {})), state.get("missing_cells", ()))


def build_encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.number_encoder import NumberEncoder

    state = column.state
    required = [state[key] for key in ("fill", "offset", "scale", "flag", "padded")]
    optional = {key: state[key] for key in ("log", "learned", "knots", "heights", "edges") if key in state}
    return NumberEncoder(*required, dtype=column.raw_dtype, **optional)


def build_stacked_encoder(columns: Sequence[Column]) -> keras.layers.Layer:
    """Build one layer that encodes columns of plain numbers as the channels of one array."""
    from bmcli.layers.number_encoder import NumberEncoder

    fill, offset, scale = ([column.state[key][0] for column in columns] for key in ("fill", "offset", "scale"))
    return NumberEncoder(fill, offset, scale, log=bool(columns[0].state.get("log")), dtype=columns[0].raw_dtype)


def build_feature(column: Column, encoded: Any) -> Feature:
    """Return the numbers, or one-hot vectors of their bins; padding becomes zeros and a mask."""
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


def get_traits(column: Column) -> InputTraits:
    return NumberTraits(column)


class NumberState(StrictRecord):
    """What is fitted to a column of numbers."""

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
    knots: tuple[Numbers, ...] = ()
    heights: tuple[Numbers, ...] = ()
    edges: tuple[Numbers, ...] = ()
    notation: dict[Literal["decimal", "thousands", "unit"], str] = Field(default={})
    missing_cells: tuple[str, ...] = ()
    marked: dict[str, Count] = Field(default={})
    derivation: DerivationRecord | None = None


class NumberRecord(ColumnRecord):
    """A column of numbers."""

    kind: Literal["number"]
    dtype: Literal["float32"]
    raw_dtype: Literal["float32", "float64"]
    state: NumberState  # type: ignore[assignment]  # of this kind


class NumberTraits(InputTraits):
    """Traits of a column of numbers."""

    noun = "a number"
    record = NumberRecord
    encoder_file = ENCODERS / "number.py"

    @property
    def is_number(self) -> bool:
        return "edges" not in self.column.state

    @property
    def flags(self) -> int:
        return self.column.shape[-1] // 2 if self.column.state["flag"] else 0

    @property
    def passes_missing(self) -> bool:
        return bool(self.column.state.get("learned") or self.column.state["padded"])

    @property
    def stack_key(self) -> Any:
        # Plain numbers, one a row. Channels of one array share the code of the layer, so only fill, offset and scale
        # may differ between them.
        column, state = self.column, self.column.state
        special = state["flag"] or state["padded"] or {"learned", "knots", "edges"} & state.keys()
        return None if special or column.raw_shape else (column.raw_dtype, bool(state.get("log")))

    @property
    def preprocessing(self) -> Preprocessing:
        is_plain = not {"log", "knots", "edges"} & self.column.state.keys()  # only filled, scaled and flagged
        return "arithmetic" if is_plain and self.column.raw_dtype == "float32" else "tensorflow"

    @property
    def reading_options(self) -> Mapping[str, Any]:
        named = self.column.state.get("missing_cells")
        return {**self.column.state.get("notation", {}), **({"missing_cells": tuple(named)} if named else {})}

    @property
    def example(self) -> str:
        return write_number("1234.5", NumberNotation(**self.column.state.get("notation", {})))

    def read_array(self, rows: RawColumn) -> np.ndarray:
        return _read_cells(rows, self.column.state)

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        import numpy as np

        state, dtype = self.column.state, self.column.raw_dtype
        with np.errstate(over="ignore"):  # the double of a large range may be infinite
            limits = np.array(widen_range(np.array(state["low"]), np.array(state["high"])), dtype)
        if encoded is None or "knots" in state or "edges" in state:
            values = self.read_array(rows).astype(dtype, copy=False)
        else:
            # Compared on the scale of the encoded numbers, so that texts are not parsed again.
            values = np.asarray(encoded)[..., : len(state["low"])]
            limits = _signed_log(limits) if state.get("log") else limits
            limits = ((limits - np.array(state["offset"], dtype)) / np.array(state["scale"], dtype)).astype("float32")
        values = values.reshape(len(values), -1, len(state["low"]))
        outside = (values < limits[0]) | (values > limits[1])  # false for NaN, a missing number
        return int(np.count_nonzero(outside.any(axis=(1, 2))))

    def count_positions(self) -> int | None:
        return None if self.is_number else 1 + len(self.column.state["edges"][0])

    def make_missing_cell(self, cell: np.ndarray) -> np.ndarray | None:
        return None if self.column.state["missing_is_fault"] else super().make_missing_cell(cell)

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        column, state = self.column, self.column.state
        shape = (count, *(size or 1 for size in column.raw_shape))
        return (state["offset"][0] + state["scale"][0] * generator.normal(size=shape)).astype(column.raw_dtype)

    def make_example_cell(self) -> Any:
        """Make the usual number, which also replaces missing ones, within the range of the training rows."""
        import numpy as np

        state = self.column.state
        fill = np.array(state["fill"], "float64")
        usual = np.sign(fill) * np.expm1(np.abs(fill)) if state.get("log") else fill
        usual = np.clip(usual, state["low"], state["high"])
        rounded = np.array([float(f"{value:.4g}") for value in usual])
        shape = tuple(size or 1 for size in self.column.raw_shape)
        return np.broadcast_to(rounded if shape else rounded[0], shape)


def _compute_channel_statistics(
    name: str, channels: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute fill value, offset and scale of `(values, channels)`, float64; a constant channel has scale 1."""
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
    # A constant channel is found by its bounds: rounding makes the deviation of equal numbers differ from 0.
    scale = np.where((low == high) | (scale == 0), 1.0, scale)
    if options.missing == "median":
        return np.asarray(np.nanmedian(channels, axis=0), "float64"), offset, scale
    return (np.zeros_like(mean) if options.missing == "zero" else mean), offset, scale


def _signed_log(values: np.ndarray) -> np.ndarray:
    """Compute sign(x) * log(1 + |x|) in double precision; return the dtype of the values."""
    import numpy as np

    wide = values.astype("float64", copy=False)
    return (np.sign(wide) * np.log1p(np.abs(wide))).astype(values.dtype)


def _fit_curves(channels: np.ndarray, options: Options) -> dict[str, list[list[float]]]:
    """Fit the knots and heights of each channel's quantile transform, or the edges of its bins, in the raw dtype."""
    import numpy as np

    if options.bins is not None:
        return {"edges": [_compute_bin_edges(values[~np.isnan(values)], options).tolist() for values in channels.T]}
    if options.scale != "quantile":
        return {}
    ranks = [_fit_quantiles(values[~np.isnan(values)]) for values in channels.T]
    return {"knots": [knots.tolist() for knots, _ in ranks], "heights": [heights.tolist() for _, heights in ranks]}


def _fit_quantiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a piecewise linear map from values to ranks.

    Returns:
        Distinct quantiles, ascending; and the rank of each, in an even distribution with mean 0 and standard
        deviation 1. Equal quantiles get the mean of their ranks.
    """
    import numpy as np

    shares = np.linspace(0, 1, min(_MAX_QUANTILES, max(2, len(values))))
    # In the raw dtype before equal ones are joined: rounding may make different quantiles equal.
    knots, places = np.unique(np.quantile(values, shares).astype(values.dtype), return_inverse=True)
    heights = np.bincount(places, weights=shares) / np.bincount(places)
    return knots, (heights - 0.5) * np.sqrt(12)  # The deviation of the even distribution on [0, 1] is 1 / sqrt(12).


def _compute_bin_edges(values: np.ndarray, options: Options) -> np.ndarray:
    """Compute the edges between bins; there are fewer bins than configured if many values are equal."""
    import numpy as np

    inner = np.linspace(0, 1, options.bins + 1)[1:-1] if options.bins else np.zeros(0)
    low, high = values.min(), values.max()
    uniform = options.binning == "uniform"
    edges = low + inner * (high - low) if uniform else np.quantile(values, inner)
    edges = np.unique(edges.astype(values.dtype))
    return edges[edges > low]  # No training row is below the lowest value, so a bin there would be empty.


def _transform_values(values: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Replace values `(..., channels)` by their ranks or bins; return them unchanged if the column has neither."""
    import numpy as np

    if "knots" not in state and "edges" not in state:
        return values
    transformed = np.empty_like(values)
    for channel in range(values.shape[-1]):
        x = values[..., channel]
        if "edges" in state:
            transformed[..., channel] = np.searchsorted(np.array(state["edges"][channel], x.dtype), x, side="right")
            continue
        knots, heights = (np.array(state[key][channel], x.dtype) for key in ("knots", "heights"))
        x = np.clip(x, knots[0], knots[-1])
        left = np.searchsorted(knots, x, side="right") - 1
        # An infinite knot behind the last one makes the share 0 there, so that no value needs a special case.
        knots, heights = np.append(knots, x.dtype.type("inf")), np.append(heights, heights[-1])
        share = (x - knots[left]) / (knots[left + 1] - knots[left])
        transformed[..., channel] = heights[left] + share * (heights[left + 1] - heights[left])
    return transformed


def _choose_raw_dtype(channels: np.ndarray, scale: np.ndarray, options: Options) -> str:
    """Choose float32 if it is precise enough for differences between rows; it is not for seconds since 1970."""
    import numpy as np

    if channels.dtype == np.float32:
        return "float32"
    if options.log or options.scale == "quantile" or options.bins is not None:
        return "float64"
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(channels - channels.astype("float32"))
        is_precise = np.nanmax(np.where(np.isnan(channels), 0, error / scale)) <= _MAX_ROUNDING
    return "float32" if is_precise else "float64"


def _find_padding(values: np.ndarray) -> np.ndarray:
    """Find the steps that are missing in all channels, `(rows, steps)`."""
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
        missing &= ~_find_padding(values)
    if missing.any():
        row = int(np.argwhere(missing)[0][0])
        raise RowFault(row, "expected a number, received nothing.", option="Write `missing: mean` to fill it in.")


def _check_finite(rows: RawColumn, encoded: np.ndarray) -> None:
    import numpy as np

    if not np.isfinite(encoded).all():
        row = int(np.argwhere(~np.isfinite(encoded))[0][0])
        raise RowFault(row, "the number is too large for the scale of the training rows.")
