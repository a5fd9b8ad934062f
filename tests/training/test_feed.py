"""Feeds: the same batches in the same order, wherever the rows come from and whoever reads them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import machine
from bmcli.distribution.strategy import to_tensor
from bmcli.recipe.runtime import RuntimeOptions
from bmcli.specs import MANY_COLUMNS, Split
from bmcli.training.feed import (
    READ_AHEAD,
    Block,
    ResidentFeed,
    StreamingFeed,
    _collect_arrays,
    _take_rows,
    gather_rows,
    iterate_batches,
    make_feed,
    replica_bounds,
    shuffle_rows,
    stack_inputs,
    unstack_inputs,
)
from bmcli.windows import WindowedArray
from tests.trainers import same


@dataclass(frozen=True)
class Fake:
    """A placement that only counts."""

    replicas: int = 1
    workers: int = 1
    rank: int = 0

    def copy_to_devices(self, arrays: Any) -> Any:
        return tf.nest.map_structure(tf.constant, arrays)


ROW_BYTES = 3 * 4 + 2 + 8 + 4  # of the split below


def split_of(count: int) -> Split:
    """Rows that differ in every array."""
    rows = np.arange(count)
    return Split(
        inputs={
            "x": (rows[:, None] * 10 + np.arange(3)).astype(np.float32),
            "image": np.stack([rows % 251, rows // 251], axis=1).astype(np.uint8)[:, :, None],
        },
        targets={"y": rows.astype(np.int64)},
        weights=(rows / 7).astype(np.float32),
    )


def flat(examples: Any) -> list[np.ndarray]:
    return [np.asarray(array) for array in tf.nest.flatten(examples)]


def each_batch(feed: Any, block: Block, batch: int) -> Iterator[list[np.ndarray]]:
    """The examples of every batch of a block, in the order of the epoch."""
    assert block.count >= 1
    for number in range(block.first, block.first + block.count):
        yield flat(gather_rows(block.data, block.rows[number * batch : (number + 1) * batch]))


def epoch_of(feed: Any, rows: tf.Tensor, batch: int, first: int = 0, count: int = 3) -> list[list[np.ndarray]]:
    """All batches from `first` on, `count` at a time, and the rest."""
    feed.start_epoch(rows, batch, first)
    found, full = [], feed.count // batch
    while first < full:
        block = feed.read_block(first, min(count, full - first))
        assert block.count <= count
        found += each_batch(feed, block, batch)
        first += block.count
    if feed.count % batch:
        rest = feed.read_remainder()
        found.append(flat(gather_rows(rest.data, rest.rows[rest.first * batch :])))
    return found


@pytest.fixture
def blocks_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the number of batches in blocks of streaming feeds."""

    def limit(steps: int, batch: int) -> None:
        monkeypatch.setattr("bmcli.training.feed.BLOCK_BYTES", steps * batch * ROW_BYTES)

    return limit


@pytest.mark.parametrize("count", [1, 5, 24, 29, 101])
@pytest.mark.parametrize("steps", [1, 3, 100])
@pytest.mark.parametrize("batch", [1, 4, 24])
def test_streamed_batches_are_the_resident_ones(blocks_of: Any, count: int, steps: int, batch: int) -> None:
    batch = min(batch, count)
    blocks_of(steps, batch)
    split, rows = split_of(count), shuffle_rows(3, 1, count)
    streamed, resident = (epoch_of(kind(split, Fake()), rows, batch) for kind in (StreamingFeed, ResidentFeed))
    assert len(streamed) == len(resident) == -(-count // batch)
    assert all(same(a, b) for a, b in zip(streamed, resident, strict=True))
    assert sorted(np.concatenate([examples[2] for examples in streamed])) == list(range(count))


@pytest.mark.parametrize("first", range(13))
def test_reading_may_begin_in_the_middle_of_an_epoch(blocks_of: Any, first: int) -> None:
    blocks_of(5, 8)
    split, rows = split_of(101), shuffle_rows(3, 1, 101)
    whole = epoch_of(ResidentFeed(split, Fake()), rows, 8)
    streamed = epoch_of(StreamingFeed(split, Fake()), rows, 8, min(first, 101 // 8 - 1), count=4)
    assert all(same(a, b) for a, b in zip(streamed, whole[min(first, 101 // 8 - 1) :], strict=True))


def test_an_epoch_may_be_left_for_another_before_its_end(blocks_of: Any) -> None:
    blocks_of(2, 8)
    split = split_of(101)
    feed, resident = StreamingFeed(split, Fake()), ResidentFeed(split, Fake())
    feed.start_epoch(shuffle_rows(3, 0, 101), 8)
    feed.read_block(0, 2)
    for epoch, batch in ((1, 8), (2, 16), (3, 4)):
        rows = shuffle_rows(3, epoch, 101)
        found, expected = epoch_of(feed, rows, batch), epoch_of(resident, rows, batch)
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_the_same_block_may_be_read_again(blocks_of: Any) -> None:
    """Measuring trains on the first batches over and over."""
    blocks_of(3, 8)
    feed = StreamingFeed(split_of(101), Fake())
    feed.start_epoch(shuffle_rows(3, 0, 101), 8)
    first, again = feed.read_block(0, 1), feed.read_block(0, 2)
    assert (first.count, again.count) == (1, 2)
    assert same(next(each_batch(feed, first, 8)), next(each_batch(feed, again, 8)))


def test_all_blocks_of_an_epoch_have_the_same_shapes(blocks_of: Any) -> None:
    blocks_of(5, 8)
    feed, number, shapes = StreamingFeed(split_of(101), Fake()), 0, set()
    feed.start_epoch(shuffle_rows(3, 0, 101), 8)
    while number < 12:
        block = feed.read_block(number, 12)
        shapes.add((*(tuple(array.shape) for array in tf.nest.flatten(block.data)), tuple(block.rows.shape)))
        number += block.count
    assert len(shapes) == 1


def test_some_blocks_are_read_ahead_and_no_more(blocks_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks_of(1, 8)
    feed = StreamingFeed(split_of(101), Fake())
    feed.start_epoch(shuffle_rows(3, 0, 101), 8, 4)
    assert sorted(feed._pending) == [4, 5, 6][: 1 + READ_AHEAD]
    feed.read_block(6, 1)
    assert sorted(feed._pending) == [6, 7, 8][: 1 + READ_AHEAD]
    feed.read_block(11, 1)
    assert sorted(feed._pending) == [11]


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("batch", [1, 2, 3, 8, 15, 16, 17, 1000])
def test_shares_cover_a_batch_evenly_and_are_never_empty(batch: int, replicas: int) -> None:
    shares = [replica_bounds(batch, replicas, replica) for replica in range(replicas)]
    sizes = [last - first for first, last in shares]
    assert min(sizes) >= 1
    assert all(0 <= first < last <= batch for first, last in shares)
    assert {place for first, last in shares for place in range(first, last)} == set(range(batch))
    assert max(sizes) - min(sizes) <= 1
    if batch >= replicas:
        assert sum(sizes) == batch, "no place twice"
        assert shares == sorted(shares)


def places_of(placement: Fake, batch: int) -> list[int]:
    """The places in a batch that the replicas of a worker read."""
    local = placement.replicas // placement.workers
    mine = range(placement.rank * local, (placement.rank + 1) * local)
    return sorted({place for replica in mine for place in range(*replica_bounds(batch, placement.replicas, replica))})


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("count", [40, 41, 43])
def test_a_worker_reads_its_own_rows_alone(
    blocks_of: Any, monkeypatch: pytest.MonkeyPatch, replicas: int, count: int
) -> None:
    blocks_of(2, 8)
    split, rows, read = split_of(count), shuffle_rows(3, 1, count), []
    monkeypatch.setattr(
        "bmcli.training.feed._take_rows", lambda array, rows, room: read.extend(rows) or _take_rows(array, rows, room)
    )
    whole = epoch_of(ResidentFeed(split, Fake()), rows, 8)
    by_worker = []
    for rank in range(2):
        placement = Fake(replicas, 2, rank)
        read.clear()
        found = epoch_of(StreamingFeed(split, placement), rows, 8)
        by_worker.append(set(map(int, read)))
        for number, (ours, all_rows) in enumerate(zip(found, whole, strict=True)):
            here = places_of(placement, len(all_rows[2]))
            assert same([array[here] for array in ours], [array[here] for array in all_rows])
            assert set(map(int, all_rows[2][here])) <= by_worker[rank], number
    rest = set(map(int, whole[-1][2])) if count % 8 else set()
    assert by_worker[0] | by_worker[1] == set(range(count))
    assert by_worker[0] & by_worker[1] <= rest, "only a rest of fewer rows than replicas is read twice"
    assert max(map(len, by_worker)) < count * 0.6


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"feed": "streaming"}, StreamingFeed),
        ({"feed": "resident"}, ResidentFeed),
        ({"feed": "auto", "memory": "1KiB"}, StreamingFeed),
        ({"feed": "auto", "memory": "1MiB"}, ResidentFeed),
        ({}, ResidentFeed),
    ],
)
def test_the_recipe_chooses_the_feed(options: dict[str, Any], kind: type) -> None:
    assert type(make_feed(split_of(100), RuntimeOptions(**options), Fake())) is kind


def test_a_quarter_of_the_machine_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    split, size = split_of(100), 100 * ROW_BYTES
    resident, streaming = RuntimeOptions(feed="resident"), RuntimeOptions(feed="streaming")
    monkeypatch.setattr(machine, "read_memory_bytes", lambda: 4 * size)
    assert isinstance(make_feed(split, RuntimeOptions(), Fake()), ResidentFeed)
    assert isinstance(make_feed(split, streaming, Fake()), StreamingFeed)
    monkeypatch.setattr(machine, "read_memory_bytes", lambda: 4 * size - 4)
    assert isinstance(make_feed(split, RuntimeOptions(), Fake()), StreamingFeed)
    assert isinstance(make_feed(split, resident, Fake()), ResidentFeed)


@pytest.mark.parametrize("kind", [ResidentFeed, StreamingFeed])
@pytest.mark.parametrize(("count", "batch"), [(29, 8), (24, 8), (5, 5), (7, 6), (1, 1)])
def test_batches_are_every_row_in_its_own_order(blocks_of: Any, kind: type, count: int, batch: int) -> None:
    blocks_of(2, batch)
    split, feed = split_of(count), kind(split_of(count), Fake())
    found, rests = [], []
    for block, is_rest in iterate_batches(feed, batch):
        rests.append(is_rest)
        found += each_batch(feed, block, batch)
    together = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
    assert same(together, flat(_collect_arrays(split)))
    assert rests[-1] is bool(count % batch)
    assert not any(rests[:-1])


def test_rows_may_lie_on_a_disk(tmp_path: Any, blocks_of: Any) -> None:
    blocks_of(2, 8)
    np.save(tmp_path / "x.npy", split_of(50).inputs["x"])
    split = Split(inputs={"x": np.load(tmp_path / "x.npy", mmap_mode="r")}, targets={"y": np.arange(50)}, weights=None)
    rows = shuffle_rows(3, 1, 50)
    streamed, resident = (epoch_of(kind(split, Fake()), rows, 8) for kind in (StreamingFeed, ResidentFeed))
    assert all(same(a, b) for a, b in zip(streamed, resident, strict=True))
    assert len(streamed[0]) == 2, "no weights where there are none"


def windows_of(count: int, folder: Path) -> tuple[Split, Split]:
    """Rows that overlap in a series and in its next values, and the same rows as arrays."""
    series = np.random.default_rng(0).normal(size=(count + 12, 2)).astype("float32")
    np.save(folder / "series.npy", series)
    base, starts = np.load(folder / "series.npy", mmap_mode="r"), np.random.default_rng(1).permutation(count)
    before, after = WindowedArray(base, starts + 1, 8), WindowedArray(base[:, 0], (starts + 9).astype("int32"), 3)
    number = np.arange(count, dtype="float32")
    return (
        Split({"before": before, "number": number}, {"after": after, "y": number}, number),
        Split({"before": np.asarray(before), "number": number}, {"after": np.asarray(after), "y": number}, number),
    )


@pytest.mark.parametrize("kind", [ResidentFeed, StreamingFeed])
@pytest.mark.parametrize(("count", "batch"), [(50, 8), (1, 1), (24, 8)])
def test_windows_give_the_batches_of_their_rows(
    tmp_path: Path, blocks_of: Any, kind: Any, count: int, batch: int
) -> None:
    blocks_of(8, batch)
    windows, plain = windows_of(count, tmp_path)
    rows = shuffle_rows(3, 1, count)
    found, expected = (epoch_of(feed, rows, batch) for feed in (kind(windows, Fake()), ResidentFeed(plain, Fake())))
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_a_device_holds_the_part_of_a_series_that_a_split_uses_once(tmp_path: Path) -> None:
    windows, _ = windows_of(500, tmp_path)
    held: Any = []

    class Holding(Fake):
        def copy_to_devices(self, arrays: Any) -> Any:
            held.extend(tf.nest.flatten(arrays))
            return super().copy_to_devices(arrays)

    some = Split(
        {name: rows[:20] for name, rows in windows.inputs.items()},
        {name: rows[:20] for name, rows in windows.targets.items()},
    )
    for split, steps in ((windows, 500 + 7), (some, int(np.ptp(np.asarray(some.inputs["before"].starts))) + 8)):
        held.clear()
        ResidentFeed(split, Holding())
        assert max(held, key=lambda array: array.nbytes).shape == (steps, 2)
        assert sum(array.nbytes for array in held) < 2 * steps * 2 * 4 + 24 * len(split)


def test_the_feed_of_windows_is_chosen_by_the_size_of_their_base(tmp_path: Path) -> None:
    windows, plain = windows_of(500, tmp_path)
    options = RuntimeOptions(feed="auto", memory="20KiB")
    assert isinstance(make_feed(windows, options, Fake()), ResidentFeed)
    assert isinstance(make_feed(plain, options, Fake()), StreamingFeed)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "bool"])
@pytest.mark.parametrize("shape", [(11, 4, 3), (1, 40), (13,), (0, 3)])
def test_a_tensor_is_its_array_whatever_pieces_fill_it(
    dtype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmcli.distribution.strategy.CHUNK_BYTES", 10)
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    tensor = to_tensor(array)
    assert (tensor.shape, tensor.dtype) == (shape, dtype)
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.slow
def test_making_a_tensor_takes_the_memory_of_one_copy(tmp_path: Path) -> None:
    size = 512 * 2**20
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "uint8", (size // 1024, 1024)).flush()
    script = f"""
import numpy as np, tensorflow as tf, threading
from pathlib import Path
from bmcli.distribution.strategy import to_tensor
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
to_tensor(np.zeros((64, 1024), "uint8"))
before, peaks, over = anonymous(), [0], threading.Event()
def watch():
    while not over.wait(0.001):
        peaks.append(anonymous())
watching = threading.Thread(target=watch)
watching.start()
tensor = to_tensor(np.load({str(tmp_path / "x.npy")!r}, mmap_mode="r"))
over.set()
watching.join()
print((max(peaks) - before) / {size})
"""
    found = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert 0.5 < float(found.stdout) < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ResidentFeed", "StreamingFeed"])
def test_windows_take_the_memory_of_their_series(tmp_path: Path, kind: str) -> None:
    """A million steps of 4 bytes, and as many windows of 256 steps: 976 MiB as an array."""
    np.save(tmp_path / "series.npy", np.ones(1_000_000, "float32"))
    script = f"""
import numpy as np, tensorflow as tf, threading
from pathlib import Path
from bmcli.distribution.strategy import Placement
from bmcli.specs import Split
from bmcli.training.feed import {kind}, gather_rows, shuffle_rows
from bmcli.training.graph_ops import full_batches, graph_function, repeat
from bmcli.windows import WindowedArray
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
def count_steps(data, rows, first, count):
    def add(done, total):
        examples = gather_rows(data, full_batches(rows, first + done, 256))
        return done + 1, total + tf.reduce_sum(tf.cast(examples["inputs"]["x"], tf.int64))
    return repeat(count, add, tf.constant(0, tf.int64))
count_steps = graph_function(count_steps)
tf.random.experimental.stateless_shuffle(tf.range(9), seed=(0, 0))
before, peaks, over = anonymous(), [0], threading.Event()
def watch():
    while not over.wait(0.002):
        peaks.append(anonymous())
watching = threading.Thread(target=watch, daemon=True)
watching.start()
series = np.load({str(tmp_path / "series.npy")!r}, mmap_mode="r")
windows = WindowedArray(series, np.arange(len(series) - 255, dtype="int32"), 256)
split = Split({{"x": windows}}, {{"y": np.zeros(len(windows), "float32")}})
feed = {kind}(split, Placement("one_device", tf.distribute.get_strategy()))
feed.start_epoch(shuffle_rows(0, 0, len(windows)), 256)
done, total, full = 0, 0, len(windows) // 256
while done < full:
    block = feed.read_block(done, min(500, full - done))
    total += int(count_steps(block.data, block.rows, tf.constant(block.first), tf.constant(block.count))[0])
    done += block.count
over.set()
watching.join()
assert total == done * 256 * 256
print((max(peaks) - before) / 2**20)
"""
    found = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert float(found.stdout) < 150


def test_many_columns_of_single_values_are_one_array_on_the_device() -> None:
    dice = np.random.default_rng(0)
    shapes = [("float32", (7, 1)), ("int32", (7,)), ("float32", (7, 2)), ("int32", (7, 1))]
    inputs = {
        f'c "{n}"': dice.integers(0, 99, shapes[n % 4][1]).astype(shapes[n % 4][0]) for n in range(MANY_COLUMNS + 4)
    }
    arrays = stack_inputs(inputs)
    assert len(arrays["stacks"]) == 3
    assert len(arrays["inputs"]) == len(inputs) / 4  # those of two values
    opened = unstack_inputs(tf.nest.map_structure(tf.constant, arrays))
    assert set(opened) == set(inputs)
    for name, array in inputs.items():
        np.testing.assert_array_equal(opened[name], array)
        assert opened[name].dtype == array.dtype
    few = dict(list(inputs.items())[:10])
    assert stack_inputs(few) == {"inputs": few}


@pytest.mark.parametrize("kind", [ResidentFeed, StreamingFeed])
def test_a_feed_of_many_columns_gives_the_rows_that_are_requested(kind: Any) -> None:
    rows = np.arange(20)
    split = Split({f"c{n}": (rows[:, None] * 1000 + n).astype("float32") for n in range(MANY_COLUMNS)}, {"y": rows})
    feed = kind(split, Fake())
    feed.start_epoch(tf.constant(rows[::-1].astype("int32")), 6)
    for block in (feed.read_block(1, 1), feed.read_remainder()):
        chosen = block.rows[block.first * 6 : (block.first + 1) * 6]
        some = gather_rows(block.data, chosen)
        assert len(some["stacks"]) == 1
        opened = unstack_inputs(some)
        for n in (0, 9, MANY_COLUMNS - 1):
            assert opened[f"c{n}"].numpy()[:, 0].tolist() == [1000 * y + n for y in some["targets"]["y"].numpy()]
