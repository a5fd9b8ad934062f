"""Feeds: the examples of each step, from memory or from disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from bmcli import machine
from bmcli.distribution.strategy import Placement
from bmcli.recipe.runtime import RuntimeOptions
from bmcli.specs import MANY_COLUMNS, Split
from bmcli.windows import EncodedRows, WindowedArray, count_row_bytes

BLOCK_BYTES = 8 * 2**20
BLOCK_STEPS = 256
READ_AHEAD = 2
# Steps compiled as one program: of the numbers tried 8 was fastest; more take longer to compile and gain little.
STEPS_PER_PROGRAM = 8


def shuffle_rows(seed: int, epoch: int, count: int) -> tf.Tensor:
    """Shuffle the rows for an epoch, `(count,)`."""
    # A pure function of its arguments: resuming needs no state, and every worker computes the same order by itself.
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int32), seed=(seed, epoch))


@dataclass(frozen=True)
class Block:
    """Some batches, ready for a call of the compiled steps.

    Args:
        data: Arrays of `inputs`, `targets` and perhaps `windows`, `weights`, `labelled` and `teacher` on this worker's
            devices.
        rows: Row in `data` of each example, batch after batch, `(examples,)`; entries of other workers' examples are
            not used.
        first: The first batch of this call in `rows`.
        count: Number of batches of this call.
    """

    data: Any
    rows: tf.Tensor
    first: int
    count: int


class Feed(Protocol):
    """A split in batches. Every feed gives the same batches for the same order of rows."""

    count: int

    def start_epoch(self, rows: tf.Tensor, batch: int, first: int = 0) -> None:
        """Start an epoch that visits `rows` in batches of `batch` examples, from the batch `first` on."""

    def read_block(self, first: int, count: int) -> Block:
        """Read at least one and at most `count` full batches, from the batch `first` on."""

    def read_remainder(self) -> Block:
        """Read the ragged last batch: the rows after the last full batch."""


def make_feed(
    split: Split, runtime: RuntimeOptions, placement: Placement, whole_batches: bool = False
) -> ResidentFeed | StreamingFeed:
    """Make the feed that the recipe requests; with `auto` a resident one if the rows fit into its memory limit.

    Args:
        whole_batches: Every worker needs the rows of whole batches, for instance to mix examples.
    """
    arrays = _collect_arrays(split)
    limit = machine.read_memory_bytes() / 4 if runtime.memory == "auto" else runtime.memory
    size = sum(array.nbytes for array in tf.nest.flatten(arrays))
    if runtime.feed == "streaming" or (runtime.feed == "auto" and size > limit):
        return StreamingFeed(split, placement, whole_batches)
    return ResidentFeed(split, placement)


class ResidentFeed:
    """All rows of a split in the device's memory, gathered by index inside the compiled loop."""

    def __init__(self, split: Split, placement: Placement) -> None:
        self.count = len(split)
        self._data = placement.copy_to_devices(separate_windows(_collect_arrays(split)))

    def start_epoch(self, rows: tf.Tensor, batch: int, first: int = 0) -> None:
        self._rows, self._batch = rows, batch

    def read_block(self, first: int, count: int) -> Block:
        return Block(self._data, self._rows, first, count)

    def read_remainder(self) -> Block:
        return Block(self._data, self._rows, self.count // self._batch, 1)


class StreamingFeed:
    """Rows that threads read from memory-mapped arrays, some blocks ahead of the training.

    A worker reads only the rows of its replicas, unless it needs whole batches. A block holds its rows in the order
    of the file, which is the fastest to read; `Block.rows` maps the order of the epoch to it.
    """

    def __init__(self, split: Split, placement: Placement, whole_batches: bool = False) -> None:
        self.count = len(split)
        self._arrays = _collect_arrays(split)
        self._placement, self._whole_batches = placement, whole_batches
        self._row_bytes = sum(map(count_row_bytes, tf.nest.flatten(self._arrays)))
        self._readers = ThreadPoolExecutor(READ_AHEAD, "bmcli-read")
        self._pending: dict[int, Future[Block]] = {}

    def start_epoch(self, rows: tf.Tensor, batch: int, first: int = 0) -> None:
        for future in self._pending.values():
            future.cancel()
        self._order, self._batch = rows.numpy(), batch
        self._full = self.count // batch
        steps = max(1, min(BLOCK_BYTES // max(1, batch * self._row_bytes), BLOCK_STEPS, self._full))
        # Steps of one program must lie in one block, and at the same batches of the epoch as in a resident feed: which
        # steps are compiled together changes the last bits. Smaller blocks have a power of two of steps.
        self._steps = steps // STEPS_PER_PROGRAM * STEPS_PER_PROGRAM or 2 ** (steps.bit_length() - 1)
        self._pending = {}
        self._prefetch(first // self._steps)

    def read_block(self, first: int, count: int) -> Block:
        number = first // self._steps
        for passed in [other for other in self._pending if other < number]:
            del self._pending[passed]
        self._prefetch(number)
        block = self._pending[number].result()
        offset = first - number * self._steps
        return Block(block.data, block.rows, offset, min(count, block.count - offset))

    def read_remainder(self) -> Block:
        return self._read(self._order[self._full * self._batch :], self.count % self._batch, 1)

    def _prefetch(self, number: int) -> None:
        """Start to read the blocks from `number` on in the background."""
        for each in range(number, number + 1 + READ_AHEAD):
            start = each * self._steps
            if each not in self._pending and start < self._full:
                steps = min(self._steps, self._full - start)
                rows = self._order[start * self._batch : (start + steps) * self._batch]
                self._pending[each] = self._readers.submit(self._read, rows, self._batch, self._steps)

    def _read(self, rows: np.ndarray, batch: int, capacity: int) -> Block:
        """Read the rows of some batches that this worker needs, into arrays that hold `capacity` batches."""
        # The capacity is the same for all blocks, even a shorter last one: other shapes would trace the steps again.
        steps = len(rows) // batch
        first, last = self._worker_bounds(batch)
        is_read = np.zeros(len(rows), bool).reshape(steps, batch)
        is_read[:, first:last] = True
        places = np.flatnonzero(is_read)
        by_file = places[np.argsort(rows[places], kind="stable")]
        positions = np.zeros(capacity * batch, np.int32)
        positions[by_file] = np.arange(len(by_file), dtype=np.int32)
        data = tf.nest.map_structure(
            lambda array: _take_rows(array, rows[by_file], capacity * (last - first)), self._arrays
        )
        return Block(self._placement.copy_to_devices(data), tf.constant(positions), 0, steps)

    def _worker_bounds(self, batch: int) -> tuple[int, int]:
        """Start and end, exclusive, of the positions in a batch that this worker's replicas read."""
        if self._whole_batches:
            return 0, batch
        replicas, local = self._placement.replicas, self._placement.replicas // self._placement.workers
        first = self._placement.rank * local
        return replica_bounds(batch, replicas, first)[0], replica_bounds(batch, replicas, first + local - 1)[1]


def replica_bounds(batch: int, replicas: int, replica: int) -> tuple[int, int]:
    """Start and end, exclusive, of the positions in a batch that a replica reads; sizes differ by one at most."""
    # Never empty: in a batch with fewer examples than replicas, some read an example of another replica, and
    # `replica_share` lets it count 0 there.
    first = batch * replica // replicas
    return first, max(batch * (replica + 1) // replicas, first + 1)


def iterate_batches(
    feed: Feed, batch: int, max_batches: Callable[[], int] | None = None
) -> Iterator[tuple[Block, bool]]:
    """Yield every row of a feed in the order of the split: blocks of full batches, then the ragged last batch.

    Args:
        max_batches: Returns the largest number of batches of the next block; by default all.

    Yields:
        A block, and whether it is the ragged last batch.
    """
    feed.start_epoch(tf.range(feed.count, dtype=tf.int32), batch)
    full, done = feed.count // batch, 0
    while done < full:
        block = feed.read_block(done, full - done if max_batches is None else min(max_batches(), full - done))
        yield block, False
        done += block.count
    if feed.count % batch:
        yield feed.read_remainder(), True


class StackedColumns:
    """Many columns of single values as one array `(rows, columns)`, copied into memory only where it is read."""

    def __init__(self, columns: Sequence[np.ndarray]) -> None:
        self._columns = [column.reshape(len(column)) for column in columns]
        self.dtype, self.shape = columns[0].dtype, (len(columns[0]), len(columns))
        self.nbytes = sum(column.nbytes for column in columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([column[rows] for column in self._columns], axis=1)

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Write some rows into `out`, `(rows, columns)`."""
        for place, column in enumerate(self._columns):
            out[:, place] = column[rows]


def stack_inputs(inputs: Mapping[str, EncodedRows]) -> dict[str, Any]:
    """Arrange encoded inputs for a device; where there are many columns, those of one dtype and shape are stacked.

    `unstack_inputs` is the inverse.

    Returns:
        `inputs` by column, and `stacks` by a key that lists the columns.
    """
    # A graph with several operations for each of thousands of columns takes minutes to trace.
    if len(inputs) < MANY_COLUMNS:
        return {"inputs": dict(inputs)}
    groups: dict[Any, list[str]] = {}
    for name, array in inputs.items():
        if array.shape[1:] in ((), (1,)) and not isinstance(array, WindowedArray):
            groups.setdefault((array.dtype.str, array.ndim), []).append(name)
    # The key carries the names, because a nested structure of arrays is all that TensorFlow passes into a graph.
    by_key = {json.dumps([ndim, *names]): names for (_, ndim), names in groups.items()}
    stacked = {name for names in by_key.values() for name in names}
    return {
        "inputs": {name: array for name, array in inputs.items() if name not in stacked},
        "stacks": {key: StackedColumns([np.asarray(inputs[name]) for name in names]) for key, names in by_key.items()},
    }


def unstack_inputs(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `stack_inputs` inside a graph: one tensor per column."""
    inputs = dict(arrays["inputs"])
    for key, stack in arrays.get("stacks", {}).items():
        ndim, *names = json.loads(key)
        columns = tf.unstack(stack, len(names), axis=1) if ndim == 1 else tf.split(stack, len(names), axis=1)
        inputs |= zip(names, columns, strict=True)
    return inputs


def separate_columns(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Replace stacked inputs by one tensor per column."""
    return {**{name: value for name, value in arrays.items() if name != "stacks"}, "inputs": unstack_inputs(arrays)}


def separate_windows(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange the arrays of a split for a device: instead of windows, `windows` has their base and their starts.

    `gather_rows` joins them inside a graph. The key of each lists the role of the column, its name and the length.
    """
    separated, windows = dict(arrays), {}
    for role in ("inputs", "targets"):
        separated[role] = {name: each for name, each in arrays[role].items() if not isinstance(each, WindowedArray)}
        for name, each in arrays[role].items():
            if isinstance(each, WindowedArray):
                used = each.crop()  # the windows of a split may be a part of the series
                windows[json.dumps([role, name, each.length])] = {"base": used.base, "starts": used.starts}
    return {**separated, "windows": windows} if windows else separated


def _collect_arrays(split: Split) -> dict[str, Any]:
    arrays: dict[str, Any] = {**stack_inputs(split.inputs), "targets": dict(split.targets)}
    if split.teacher_outputs:
        arrays["teacher"] = {name: dict(values) for name, values in split.teacher_outputs.items()}
    optional = {"weights": split.weights, "labelled": split.label_weights}
    return arrays | {name: array for name, array in optional.items() if array is not None}


def _take_rows(array: EncodedRows | StackedColumns, rows: np.ndarray, capacity: int) -> np.ndarray:
    """Copy rows of a memory-mapped array into one of `capacity` rows, whose end stays undefined."""
    taken = np.empty((capacity, *array.shape[1:]), array.dtype)
    if isinstance(array, WindowedArray):
        taken[: len(rows)] = array[rows]
        return taken
    if isinstance(array, StackedColumns):
        array.take(rows, taken[: len(rows)])
        return taken
    # With the default mode NumPy buffers the output, to leave it unchanged should an index be wrong.
    np.take(array, rows, axis=0, out=taken[: len(rows)], mode="clip")
    return taken


def gather_rows(data: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """Gather some rows of every array, windows from their base; stacked inputs stay stacked."""
    gathered: dict[str, Any] = tf.nest.map_structure(
        lambda array: tf.gather(array, rows), {name: each for name, each in data.items() if name != "windows"}
    )
    for key, each in data.get("windows", {}).items():
        role, name, length = json.loads(key)
        # In 64 bits, because GPUs add integers of 32 bits on the CPU.
        first = tf.cast(tf.gather(each["starts"], rows), tf.int64)
        windows = tf.gather(each["base"], first[:, tf.newaxis] + tf.range(length, dtype=tf.int64))
        gathered[role] = {**gathered[role], name: windows}
    return gathered
