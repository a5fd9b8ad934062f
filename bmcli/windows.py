"""Rows that are windows of one array, such as those of a long text or a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

EncodedRows: TypeAlias = "np.ndarray | WindowedArray"
"""Rows as a kind of input or target encodes them, `(rows, ...)`."""

EncodedTarget: TypeAlias = "EncodedRows | Mapping[str, EncodedRows]"
"""Rows of a target, or of the inputs by name that an objective without a target learns from."""


@dataclass(frozen=True, eq=False)
class WindowedArray:
    """Rows that are windows of one array: row i is `base[starts[i] : starts[i] + length]`.

    Windows that overlap share their values, on disk, in memory and on devices. The rows are selected as those of an
    array `(rows, length, ...)`, by a slice, indices or a mask, without a copy of the values; one index gives the window
    itself, and `np.asarray` a copy of all of them.

    Windows may reveal what a split is to hide. The kind that makes them guarantees that a window holds nothing that is
    known only after the answer of its row, and fits scales on `find_used_steps` of the training rows alone. The recipe
    guarantees that rows whose windows overlap are in one split where that matters: by `data.split.time` or `group`.

    Args:
        base: `(steps, ...)`; it may be mapped from a file.
        starts: First step of each row, integers `(rows,)`.
        length: Steps of each row.

    Raises:
        ValueError: A window begins before the base or ends after it.
    """

    base: np.ndarray
    starts: np.ndarray
    length: int

    def __post_init__(self) -> None:
        if len(self.starts) and not 0 <= self.starts.min() <= self.starts.max() <= len(self.base) - self.length:
            raise ValueError(
                f"expected windows of {self.length} steps within {len(self.base)}, received starts from "
                f"{self.starts.min()} to {self.starts.max()}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.starts), self.length, *self.base.shape[1:]

    @property
    def ndim(self) -> int:
        return self.base.ndim + 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.base.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of base and starts, not of the windows."""
        return self.base.nbytes + self.starts.nbytes

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> Any:
        starts = self.starts[rows]
        if starts.ndim:
            return WindowedArray(self.base, starts, self.length)
        return self.base[int(starts) : int(starts) + self.length]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        import numpy as np

        if not len(self):
            return np.zeros(self.shape, dtype or self.dtype)
        # A view of all windows, whose axis of steps is the last one.
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(self.base), self.length, axis=0)
        return np.ascontiguousarray(np.moveaxis(windows, -1, 1)[self.starts], dtype)

    def crop(self) -> WindowedArray:
        """Leave out the steps of the base before the first window and after the last one, without a copy."""
        if not len(self):
            return WindowedArray(self.base[:0], self.starts, self.length)
        first, last = int(self.starts.min()), int(self.starts.max()) + self.length
        return WindowedArray(self.base[first:last], self.starts - first, self.length)

    def find_used_steps(self) -> np.ndarray:
        """Whether each step of the base is in a window, bool `(steps,)`."""
        import numpy as np

        changes = np.bincount(self.starts, minlength=len(self.base) + 1)
        changes -= np.bincount(self.starts + self.length, minlength=len(self.base) + 1)
        return np.cumsum(changes)[:-1] > 0


def concatenate_rows(arrays: Sequence[EncodedRows]) -> EncodedRows:
    """Concatenate rows; windows stay windows, of one base or of all bases one after the other."""
    import numpy as np

    first, *others = arrays
    if not isinstance(first, WindowedArray):
        return np.concatenate([np.asarray(each) for each in arrays])
    windows = [first, *(each for each in others if isinstance(each, WindowedArray))]
    if len(windows) < len(arrays) or len({each.length for each in windows}) > 1:
        raise ValueError(f"expected windows of {first.length} steps, received rows of shapes "
                         f"{[each.shape for each in arrays]}")  # fmt: skip
    bases = list({id(each.base): each.base for each in windows}.values())
    offsets = dict(zip(map(id, bases), np.cumsum([0, *map(len, bases[:-1])]).tolist(), strict=True))
    starts = np.concatenate([each.starts + offsets[id(each.base)] for each in windows])
    return WindowedArray(first.base if len(bases) == 1 else np.concatenate(bases), starts, first.length)


def count_row_bytes(array: Any) -> int:
    """Count the bytes of a row of an array, or of anything that has its `shape` and `dtype`."""
    import numpy as np

    return int(np.prod(array.shape[1:], dtype="int64")) * np.dtype(array.dtype).itemsize
