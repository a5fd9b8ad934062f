"""Trace input: the readings of a row in one cell, such as `0.4 -1.2 3.0`, as many as there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from bmcli.errors import BmcliError
from bmcli.inputs import EdgeCell, Feature, Guess, InputTraits, make_object_array
from bmcli.raw_columns import RowFault, to_texts
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras
    import numpy as np

_SAMPLE = 200


class Options(InputOptions):
    """Readings of a seismograph, separated by blanks; an empty cell has none."""

    AUGMENTED_AS: ClassVar[str] = "trace"

    kind: Literal["trace"] = "trace"
    steps: int | None = Field(
        default=None, ge=1, description="Readings that are kept; by default those of the longest training row."
    )


def guess(cells: Any) -> Guess | None:
    """Recognise texts of several numbers."""
    if not cells.is_text or cells.is_numeric:
        return None
    try:
        rows = [_read_row(text) for text in cells.present.slice(0, _SAMPLE).to_pylist()]
    except ValueError:
        return None
    if not rows or max(map(len, rows)) < 2:
        return None
    return Guess("trace", 0.95, "readings in one cell", form="steps")


def fit(name: str, rows: Any, options: Options) -> Column:
    """Fit the number of steps, and the mean and the scale of the readings."""
    import numpy as np

    readings = _read_rows(rows)
    values = np.array([value for row in readings for value in row], "float32")
    if not values.size:
        raise BmcliError(f"column '{name}': the training rows have no reading.", path=f"data.inputs.{name}")
    steps = options.steps or max(map(len, readings))
    state = {"mean": float(values.mean()), "scale": float(values.std()) or 1.0}
    return Column(name, "trace", (steps, 2), "float32", raw_dtype="string", state=state)


def check(rows: Any, options: Options) -> None:
    """Refuse a cell with anything but numbers."""
    _read_rows(rows)


def encode(rows: Any, column: Column) -> np.ndarray:
    """Encode rows as scaled readings and 1, or two zeros where there is none, float32 `(rows, steps, 2)`."""
    import numpy as np

    readings, steps = _read_rows(rows), column.shape[0]
    encoded = np.zeros((len(readings), *column.shape), "float32")
    for row, values in zip(encoded, readings, strict=True):
        kept = np.array(values[:steps], "float32")
        row[: len(kept), 0] = (kept - np.float32(column.state["mean"])) / np.float32(column.state["scale"])
        row[: len(kept), 1] = 1
    return encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    from seismology.trace_encoder import TraceEncoder

    return TraceEncoder(column.shape[0], column.state["mean"], column.state["scale"])


def build_feature(column: Column, encoded: Any) -> Feature:
    return Feature(column, encoded, mask=encoded[..., 1] > 0.5)


def get_traits(column: Column) -> InputTraits:
    return TraceTraits(column)


class TraceTraits(InputTraits):
    """Traits of a trace."""

    noun = "readings separated by blanks"
    baseline = "zero_cell"
    encoder_file = Path(__file__).with_name("trace_numpy.py")

    def check_state(self) -> None:
        if not all(isinstance(self.column.state.get(key), float) for key in ("mean", "scale")):
            raise ValueError(f"state: the trace {self.column.name!r} has no mean and scale")

    def summarize(self) -> str:
        return f"up to {self.column.shape[0]} readings around {self.column.state['mean']:.3g}"

    def make_edge_cells(self, cell: Any) -> Iterator[EdgeCell]:
        yield EdgeCell("a trace of one reading", make_object_array(["0.5"]))
        yield EdgeCell("a trace that is too long", make_object_array([" ".join(["0.25"] * (self.column.shape[0] + 3))]))

    def make_random_cells(self, count: int, generator: Any) -> np.ndarray:
        readings = generator.normal(
            self.column.state["mean"], self.column.state["scale"], (count, self.column.shape[0])
        )
        return make_object_array([" ".join(f"{value:.2f}" for value in row) for row in readings])


def _read_rows(rows: Any) -> list[list[float]]:
    readings = []
    for position, text in enumerate(to_texts(rows).to_pylist()):
        try:
            readings.append(_read_row(text or ""))
        except ValueError:
            raise RowFault(position, f"expected numbers separated by blanks, received '{text[:40]}'.") from None
    return readings


def _read_row(text: str) -> list[float]:
    return [float(word) for word in text.split()]
