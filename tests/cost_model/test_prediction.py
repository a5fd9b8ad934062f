"""The model of a step: its laws, its fits, and the faults of descriptions."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmcli.cost_model import prediction
from bmcli.cost_model.prediction import ClusterModel, Line, Link, Workload, predict_step

MB = 1e6
WORK = Workload(
    examples=60_000, epochs=10, batch=256, example_bytes=788, example_flops=1e7, gradient_bytes=0.85 * MB,
    state_bytes=2.5 * MB, streaming=True, checkpoint_time_s=60.0,
)  # fmt: skip
CLUSTER = ClusterModel(
    Line(1e-3, 2e-4), Link(300 * MB, 1e-3), input=500 * MB, snapshot=1e9, disk=1e8
)  # fmt: skip

works = st.builds(
    replace,
    st.just(WORK),
    batch=st.integers(1, 5000),
    gradient_bytes=st.floats(4, 1e9),
    example_bytes=st.floats(1, 1e6),
    streaming=st.booleans(),
    checkpoint_time_s=st.none() | st.floats(0.001, 1e4),
    checkpoint_steps=st.none() | st.integers(1, 1000),
)
clusters = st.builds(
    replace,
    st.just(CLUSTER),
    compute=st.builds(Line, st.floats(1e-6, 1), st.floats(1e-9, 1e-2)),
    network=st.builds(Link, st.floats(1e3, 1e12), st.floats(0, 1e-2)),
    input=st.floats(1e3, 1e12),
)


@given(works, clusters)
def test_one_replica_is_what_was_measured(work: Workload, cluster: ClusterModel) -> None:
    resident = replace(work, streaming=False, checkpoint_time_s=None, checkpoint_steps=None)
    step = predict_step(resident, cluster, 1)
    assert step.seconds == cluster.compute.at(work.batch)
    assert step.efficiency == 1.0
    assert step.measured


@given(works, clusters, st.integers(1, 2000))
def test_efficiency_is_never_above_1(work: Workload, cluster: ClusterModel, replicas: int) -> None:
    assert 0 < predict_step(work, cluster, replicas).efficiency <= 1 + 1e-9


@given(works, clusters, st.integers(0, 10))
def test_doubling_the_replicas_never_raises_efficiency(work: Workload, cluster: ClusterModel, power: int) -> None:
    fewer, more = (predict_step(work, cluster, 2**p) for p in (power, power + 1))
    assert more.efficiency <= fewer.efficiency * (1 + 1e-9)


@given(works, clusters, st.integers(1, 2000))
def test_parts_add_up_and_the_end_follows_from_them(work: Workload, cluster: ClusterModel, replicas: int) -> None:
    step = predict_step(work, cluster, replicas)
    assert min(step.compute_s, step.exchange_s, step.input_s, step.checkpoint_s) >= 0
    assert step.seconds == pytest.approx(step.compute_s + step.exchange_s + step.input_s + step.checkpoint_s)
    assert step.finish_s == pytest.approx(work.epochs * step.epoch_s)
    assert step.epoch_s == pytest.approx(work.examples / step.examples_per_second)


def test_a_ring_of_one_exchanges_nothing() -> None:
    assert Link(1.0, 1.0).all_reduce_s(1e9, 1) == 0


def test_a_large_ring_sends_the_bytes_twice() -> None:
    assert Link(100 * MB, 0).all_reduce_s(200 * MB, 100_000) == pytest.approx(2 * 200 / 100, rel=1e-4)


def test_two_workers_send_the_bytes_once() -> None:
    assert Link(100 * MB, 0.25).all_reduce_s(200 * MB, 2) == pytest.approx(2 + 2 * 0.25)


def test_small_exchanges_are_all_latency() -> None:
    assert Link(1e12, 1e-3).all_reduce_s(4, 64) == pytest.approx(2 * 63 * 1e-3)


def test_reading_costs_what_computing_does_not_hide() -> None:
    assert predict_step(WORK, CLUSTER, 1).input_s == 0
    slow = predict_step(WORK, replace(CLUSTER, input=1 * MB), 1)
    assert slow.compute_s + slow.input_s == pytest.approx(256 * 788 / MB)
    assert predict_step(replace(WORK, streaming=False), replace(CLUSTER, input=1.0), 1).input_s == 0


def test_a_checkpoint_costs_its_copy_once_a_minute() -> None:
    step = predict_step(WORK, CLUSTER, 1)
    assert step.checkpoint_s / (step.seconds - step.checkpoint_s) == pytest.approx(2.5 * MB / 1e9 / 60)
    by_steps = replace(WORK, checkpoint_time_s=None, checkpoint_steps=10)
    assert predict_step(by_steps, CLUSTER, 1).checkpoint_s == pytest.approx(2.5 * MB / 1e9 / 10)


def test_the_replica_with_most_examples_decides() -> None:
    ten = replace(WORK, batch=10)
    assert predict_step(ten, CLUSTER, 9).compute_s == predict_step(ten, CLUSTER, 5).compute_s == CLUSTER.compute.at(2)


def test_a_batch_is_never_larger_than_the_data() -> None:
    assert predict_step(replace(WORK, batch=10**9), CLUSTER, 1000).batch == WORK.examples


def test_the_limit_of_steps_ends_the_training() -> None:
    step = predict_step(replace(WORK, steps=100), CLUSTER, 1)
    assert step.finish_s == pytest.approx(100 * step.seconds)


lines = st.builds(Line, st.floats(1e-5, 1), st.floats(1e-7, 1e-2))


@given(lines, st.lists(st.integers(1, 10_000), min_size=2, max_size=8, unique=True).map(sorted))
def test_fits_recover_the_line_of_exact_timings(line: Line, sizes: list[int]) -> None:
    seconds = [line.at(size) for size in sizes]
    for found in (prediction.fit_line(sizes, seconds), prediction.fit_line_through_last(sizes, seconds)):
        assert found.fixed == pytest.approx(line.fixed, rel=1e-5, abs=1e-6 * seconds[-1])
        assert found.slope == pytest.approx(line.slope, rel=1e-4, abs=1e-6 * seconds[-1] / sizes[-1])


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-6, 10)), min_size=1, max_size=6, unique_by=lambda p: p[0])
)
def test_no_fit_is_ever_negative(timings: list[tuple[int, float]]) -> None:
    sizes, seconds = zip(*sorted(timings), strict=True)
    for found in (prediction.fit_line(sizes, seconds), prediction.fit_line_through_last(sizes, seconds)):
        assert found.fixed >= 0
        assert found.slope >= 0
    assert found.at(sizes[-1]) == pytest.approx(seconds[-1])


@pytest.mark.parametrize("members", [2, 5])
def test_a_link_is_recovered_from_its_exchanges(members: int) -> None:
    link, sizes = Link(250 * MB, 1.5e-3), [2.0**power for power in (12, 16, 20, 23)]
    found = prediction.fit_link(sizes, [link.all_reduce_s(size, members) for size in sizes], members)
    assert found.bandwidth == pytest.approx(link.bandwidth)
    assert found.latency_s == pytest.approx(link.latency_s)


def test_replicas_without_examples_are_reported() -> None:
    steps = [predict_step(WORK, CLUSTER, replicas) for replicas in (256, 1024)]
    (warning,) = prediction.find_warnings(WORK, CLUSTER, steps)
    assert warning == "1,024 replicas share batches of 256: 768 of them have no example to learn from."


def test_a_disk_that_is_too_slow_is_reported() -> None:
    (warning,) = prediction.find_warnings(WORK, replace(CLUSTER, disk=1e3), [])
    assert "2500 s to write, longer than the 60 s" in warning


def test_no_limit_of_steps_is_infinite() -> None:
    assert WORK.total_steps(256) == 10 * 60_000 / 256
    assert math.isfinite(WORK.total_steps(1))


def test_the_model_needs_no_tensorflow() -> None:
    code = "import sys, bmcli.cost_model.prediction; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
