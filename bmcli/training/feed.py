"""Which examples a step sees, and where they come from."""

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

BLOCK_BYTES = 8 * 2**20
BLOCK_STEPS = 256
READ_AHEAD = 2
STEPS_PER_PROGRAM = (
    8  # Of steps as one program 8 trained the most examples; more take longer to compile and gain little.
)


def shuffle_rows(seed: int, epoch: int, count: int) -> tf.Tensor:
    """The rows in the order epoch `epoch` visits them, `(count,)`: a pure function, so that resuming needs no state."""
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int32), seed=(seed, epoch))


@dataclass(frozen=True)
class Block:
    """Some batches, ready for a call of the compiled steps.

    Args:
        data: Arrays of `inputs`, `targets` and perhaps `weights`, `labelled` and `teacher` on this worker's devices.
        rows: Where in `data` each example lies, batch after batch, `(examples,)`; of other workers' examples nothing
            that is used.
        first: The first batch of this call in `rows`.
        count: Batches of this call.
    """

    data: Any
    rows: tf.Tensor
    first: int
    count: int


class Feed(Protocol):
    """A split as batches. The batches of an order are the same whatever feed they come from."""

    count: int

    def start_epoch(self, rows: tf.Tensor, batch: int, first: int = 0) -> None:
        """Begins an epoch that visits `rows` in batches of `batch`, from the batch `first`."""

    def read_block(self, first: int, count: int) -> Block:
        """Up to `count` full batches from the batch `first`, at least one."""

    def read_remainder(self) -> Block:
        """What is left after the last full batch, as one batch, which the end of its rows cuts short."""


def make_feed(
    split: Split, runtime: RuntimeOptions, placement: Placement, whole_batches: bool = False
) -> ResidentFeed | StreamingFeed:
    """The feed that the recipe asks for: resident if the rows fit into the memory it grants.

    Args:
        whole_batches: Every worker needs the rows of whole batches, as for mixing examples.
    """
    arrays = _collect_arrays(split)
    limit = machine.read_memory_bytes() / 4 if runtime.memory == "auto" else runtime.memory
    size = sum(array.nbytes for array in tf.nest.flatten(arrays))
    if runtime.feed == "streaming" or (runtime.feed == "auto" and size > limit):
        return StreamingFeed(split, placement, whole_batches)
    return ResidentFeed(split, placement)


class ResidentFeed:
    """All rows of a split on the device, gathered by index inside the compiled loop."""

    def __init__(self, split: Split, placement: Placement) -> None:
        self.count = len(split)
        self._data = placement.copy_to_devices(_collect_arrays(split))

    def start_epoch(self, rows: tf.Tensor, batch: int, first: int = 0) -> None:
        self._rows, self._batch = rows, batch

    def read_block(self, first: int, count: int) -> Block:
        return Block(self._data, self._rows, first, count)

    def read_remainder(self) -> Block:
        return Block(self._data, self._rows, self.count // self._batch, 1)


class StreamingFeed:
    """Rows read from the memory-mapped arrays by threads, some blocks ahead of the training.

    A worker reads the rows of its own replicas only, unless it needs `whole` batches. A block holds its rows in the
    order of the file, which is the cheapest to read; `Block.rows` leads back to the order of the epoch.
    """

    def __init__(self, split: Split, placement: Placement, whole_batches: bool = False) -> None:
        self.count = len(split)
        self._arrays = _collect_arrays(split)
        self._placement, self._whole_batches = placement, whole_batches
        self._row_bytes = sum(array.nbytes for array in tf.nest.flatten(self._arrays)) // max(self.count, 1)
        self._readers = ThreadPoolExecutor(READ_AHEAD, "bmcli-read")
        self._pending: dict[int, Future[Block]] = {}

    def start_epoch(self, rows: tf.Tensor, batch: int, first: int = 0) -> None:
        for future in self._pending.values():
            future.cancel()
        self._order, self._batch = rows.numpy(), batch
        self._full = self.count // batch
        steps = max(1, min(BLOCK_BYTES // max(1, batch * self._row_bytes), BLOCK_STEPS, self._full))
        # Steps that are one program lie in one block, and at the same batches of the epoch as in a resident feed.
        self._steps = steps // STEPS_PER_PROGRAM * STEPS_PER_PROGRAM or 2 ** (steps.bit_length() - 1)
        self._pending = {}
        self._prefetch(first // self._steps)

    def read_block(self, first: int, count: int) -> Block:
        number = first // self._steps
        for passed in [other for other in self._pending if other < number]:
            del self._pending[passed]
        self._prefetch(number)
        read = self._pending[number].result()
        inside = first - number * self._steps
        return Block(read.data, read.rows, inside, min(count, read.count - inside))

    def read_remainder(self) -> Block:
        return self._read(self._order[self._full * self._batch :], self.count % self._batch, 1)

    def _prefetch(self, number: int) -> None:
        """Has the blocks from `number` on read in the background."""
        for each in range(number, number + 1 + READ_AHEAD):
            start = each * self._steps
            if each not in self._pending and start < self._full:
                steps = min(self._steps, self._full - start)
                rows = self._order[start * self._batch : (start + steps) * self._batch]
                self._pending[each] = self._readers.submit(self._read, rows, self._batch, self._steps)

    def _read(self, rows: np.ndarray, batch: int, room: int) -> Block:
        """The rows of some batches that this worker needs, in arrays with room for `room` batches.

        The room is always the same, so that the compiled steps always meet the same shapes.
        """
        steps = len(rows) // batch
        first, last = self._worker_bounds(batch)
        mine = np.zeros(len(rows), bool).reshape(steps, batch)
        mine[:, first:last] = True
        places = np.flatnonzero(mine)
        by_file = places[np.argsort(rows[places], kind="stable")]
        positions = np.zeros(room * batch, np.int32)
        positions[by_file] = np.arange(len(by_file), dtype=np.int32)
        data = tf.nest.map_structure(
            lambda array: _take_rows(array, rows[by_file], room * (last - first)), self._arrays
        )
        return Block(self._placement.copy_to_devices(data), tf.constant(positions), 0, steps)

    def _worker_bounds(self, batch: int) -> tuple[int, int]:
        """First and last place in a batch that this worker's replicas read."""
        if self._whole_batches:
            return 0, batch
        replicas, local = self._placement.replicas, self._placement.replicas // self._placement.workers
        first = self._placement.rank * local
        return replica_bounds(batch, replicas, first)[0], replica_bounds(batch, replicas, first + local - 1)[1]


def replica_bounds(batch: int, replicas: int, replica: int) -> tuple[int, int]:
    """First and last place in a batch that a replica reads: contiguous, of sizes one apart at most.

    It is never empty: where a batch has fewer examples than there are replicas, some read one that is another's.
    """
    first = batch * replica // replicas
    return first, max(batch * (replica + 1) // replicas, first + 1)


def iterate_batches(
    feed: Feed, batch: int, max_batches: Callable[[], int] | None = None
) -> Iterator[tuple[Block, bool]]:
    """Every row of a feed in its own order, as blocks of full batches, then the rest; true for the rest.

    Args:
        max_batches: Batches of the next block; by default as many as there are.
    """
    feed.start_epoch(tf.range(feed.count, dtype=tf.int32), batch)
    full, done = feed.count // batch, 0
    while done < full:
        block = feed.read_block(done, full - done if max_batches is None else min(max_batches(), full - done))
        yield block, False
        done += block.count
    if feed.count % batch:
        yield feed.read_remainder(), True


class Stack:
    """Many columns of single values as one array `(rows, columns)`, of which only what is asked for is in memory."""

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
        """Writes some rows into `out`, `(rows, columns)`."""
        for place, column in enumerate(self._columns):
            out[:, place] = column[rows]


def stacked(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Encoded inputs as arrays for a device: many columns of single values, alike in dtype and shape, as one.

    A graph with an operation for each of thousands of columns takes minutes to be made. `inputs_of` is the way back.

    Returns:
        `inputs` by column, and `stacks` by a text that tells the columns.
    """
    if len(inputs) < MANY_COLUMNS:
        return {"inputs": dict(inputs)}
    groups: dict[Any, list[str]] = {}
    for name, array in inputs.items():
        if array.shape[1:] in ((), (1,)):
            groups.setdefault((array.dtype.str, array.ndim), []).append(name)
    alike = {json.dumps([ndim, *names]): names for (_, ndim), names in groups.items()}
    found = {name for names in alike.values() for name in names}
    return {
        "inputs": {name: array for name, array in inputs.items() if name not in found},
        "stacks": {key: Stack([inputs[name] for name in names]) for key, names in alike.items()},
    }


def inputs_of(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by column from what `stacked` gave, inside of a graph."""
    inputs = dict(arrays["inputs"])
    for key, stack in arrays.get("stacks", {}).items():
        ndim, *names = json.loads(key)
        columns = tf.unstack(stack, len(names), axis=1) if ndim == 1 else tf.split(stack, len(names), axis=1)
        inputs |= zip(names, columns, strict=True)
    return inputs


def _collect_arrays(split: Split) -> dict[str, Any]:
    arrays: dict[str, Any] = {**stacked(split.inputs), "targets": dict(split.targets)}
    if split.teacher_outputs:
        arrays["teacher"] = {name: dict(values) for name, values in split.teacher_outputs.items()}
    beside = {"weights": split.weights, "labelled": split.label_weights}
    return arrays | {name: array for name, array in beside.items() if array is not None}


def _take_rows(array: np.ndarray | Stack, rows: np.ndarray, room: int) -> np.ndarray:
    """Rows of a memory-mapped array, and room behind them."""
    taken = np.empty((room, *array.shape[1:]), array.dtype)
    if isinstance(array, Stack):
        array.take(rows, taken[: len(rows)])
        return taken
    np.take(array, rows, axis=0, out=taken[: len(rows)], mode="clip")
    return taken


def gather_rows(data: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """Some rows of every array; the inputs among them are opened by `inputs_of`."""
    found: dict[str, Any] = tf.nest.map_structure(lambda array: tf.gather(array, rows), dict(data))
    return found
