"""The model of a step: its laws, its fits, and the faults of descriptions."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmcli.cost_model import prediction
from bmcli.cost_model.prediction import BUILT_IN, Cluster, Line, Link, Work, predict
from bmcli.errors import BmcliError
from bmcli.recipe import nodes

MB = 1e6
WORK = Work(
    examples=60_000, epochs=10, batch=256, example_bytes=788, example_flops=1e7, gradient_bytes=0.85 * MB,
    state_bytes=2.5 * MB, streaming=True, checkpoint_time_s=60.0,
)  # fmt: skip
CLUSTER = Cluster(
    "test", Line(1e-3, 2e-4), Link(300 * MB, 1e-3), input=500 * MB, snapshot=1e9, disk=1e8, measured=True
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
hosts = st.integers(0, 4).map(lambda power: 2**power)
clusters = st.builds(
    replace,
    st.just(CLUSTER),
    compute=st.builds(Line, st.floats(1e-6, 1), st.floats(1e-9, 1e-2)),
    network=st.builds(Link, st.floats(1e3, 1e12), st.floats(0, 1e-2)),
    inside=st.builds(Link, st.floats(1e3, 1e12), st.floats(0, 1e-2)),
    replicas_per_host=hosts,
    input=st.floats(1e3, 1e12),
)
per_replica = st.none() | st.integers(1, 512)


@given(works, clusters)
def test_one_replica_is_what_was_measured(work: Work, cluster: Cluster) -> None:
    resident = replace(work, streaming=False, checkpoint_time_s=None, checkpoint_steps=None)
    step = predict(resident, cluster, 1)
    assert step.seconds == cluster.compute.at(work.batch)
    assert step.efficiency == 1.0
    assert step.measured


@given(works, clusters, st.integers(1, 2000), per_replica)
def test_efficiency_is_never_above_1(work: Work, cluster: Cluster, replicas: int, each: int | None) -> None:
    assert 0 < predict(work, cluster, replicas, each).efficiency <= 1 + 1e-9


@given(works, clusters, st.integers(0, 10), per_replica)
def test_doubling_the_replicas_never_raises_efficiency(
    work: Work, cluster: Cluster, power: int, each: int | None
) -> None:
    fewer, more = (predict(work, cluster, 2**p, each) for p in (power, power + 1))
    assert more.efficiency <= fewer.efficiency * (1 + 1e-9)


@given(works, clusters, st.integers(1, 2000), per_replica)
def test_parts_add_up_and_the_end_follows_from_them(
    work: Work, cluster: Cluster, replicas: int, each: int | None
) -> None:
    step = predict(work, cluster, replicas, each)
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


def test_a_fast_link_inside_of_hosts_spares_the_network() -> None:
    flat = CLUSTER.exchange_s(100 * MB, 64)
    in_hosts = replace(CLUSTER, replicas_per_host=8, inside=Link(1e11, 1e-6)).exchange_s(100 * MB, 64)
    assert in_hosts < flat
    assert in_hosts > CLUSTER.network.all_reduce_s(100 * MB, 8)


def test_replicas_of_one_host_need_no_network() -> None:
    inside = Link(1e11, 1e-6)
    cluster = replace(CLUSTER, replicas_per_host=8, inside=inside, network=Link(1e-9, 1e9))
    assert cluster.exchange_s(100 * MB, 8) == inside.all_reduce_s(100 * MB, 8)


def test_overlap_hides_no_more_than_the_backward_pass() -> None:
    slow = replace(CLUSTER, network=Link(1 * MB, 0))
    whole = predict(WORK, slow, 2)
    hidden = predict(WORK, replace(slow, overlap=1.0), 2)
    assert whole.exchange_s - hidden.exchange_s == pytest.approx(2 / 3 * whole.compute_s)
    assert predict(WORK, replace(CLUSTER, overlap=1.0), 2).exchange_s == 0


def test_reading_costs_what_computing_does_not_hide() -> None:
    assert predict(WORK, CLUSTER, 1).input_s == 0
    slow = predict(WORK, replace(CLUSTER, input=1 * MB), 1)
    assert slow.compute_s + slow.input_s == pytest.approx(256 * 788 / MB)
    assert predict(replace(WORK, streaming=False), replace(CLUSTER, input=1.0), 1).input_s == 0


def test_a_checkpoint_costs_its_copy_once_a_minute() -> None:
    step = predict(WORK, CLUSTER, 1)
    assert step.checkpoint_s / (step.seconds - step.checkpoint_s) == pytest.approx(2.5 * MB / 1e9 / 60)
    by_steps = replace(WORK, checkpoint_time_s=None, checkpoint_steps=10)
    assert predict(by_steps, CLUSTER, 1).checkpoint_s == pytest.approx(2.5 * MB / 1e9 / 10)


def test_the_replica_with_most_examples_decides() -> None:
    ten = replace(WORK, batch=10)
    assert predict(ten, CLUSTER, 9).compute_s == predict(ten, CLUSTER, 5).compute_s == CLUSTER.compute.at(2)


def test_a_growing_batch_keeps_computing_as_it_is() -> None:
    steps = [predict(WORK, CLUSTER, replicas, 64) for replicas in (1, 4, 16)]
    assert [step.batch for step in steps] == [64, 256, 1024]
    assert len({step.compute_s for step in steps}) == 1


def test_a_batch_is_never_larger_than_the_data() -> None:
    assert predict(WORK, CLUSTER, 1000, 512).batch == WORK.examples


def test_the_limit_of_steps_ends_the_training() -> None:
    step = predict(replace(WORK, steps=100), CLUSTER, 1)
    assert step.finish_s == pytest.approx(100 * step.seconds)


lines = st.builds(Line, st.floats(1e-5, 1), st.floats(1e-7, 1e-2))


@given(lines, st.lists(st.integers(1, 10_000), min_size=2, max_size=8, unique=True).map(sorted))
def test_fits_recover_the_line_of_exact_timings(line: Line, sizes: list[int]) -> None:
    seconds = [line.at(size) for size in sizes]
    for found in (prediction.fit(sizes, seconds), prediction.fit_through_last(sizes, seconds)):
        assert found.fixed == pytest.approx(line.fixed, rel=1e-5, abs=1e-6 * seconds[-1])
        assert found.slope == pytest.approx(line.slope, rel=1e-4, abs=1e-6 * seconds[-1] / sizes[-1])


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-6, 10)), min_size=1, max_size=6, unique_by=lambda p: p[0])
)
def test_no_fit_is_ever_negative(timings: list[tuple[int, float]]) -> None:
    sizes, seconds = zip(*sorted(timings), strict=True)
    for found in (prediction.fit(sizes, seconds), prediction.fit_through_last(sizes, seconds)):
        assert found.fixed >= 0
        assert found.slope >= 0
    assert found.at(sizes[-1]) == pytest.approx(seconds[-1])


@pytest.mark.parametrize("members", [2, 5])
def test_a_link_is_recovered_from_its_exchanges(members: int) -> None:
    link, sizes = Link(250 * MB, 1.5e-3), [2.0**power for power in (12, 16, 20, 23)]
    found = prediction.fit_link(sizes, [link.all_reduce_s(size, members) for size in sizes], members)
    assert found.bandwidth == pytest.approx(link.bandwidth)
    assert found.latency_s == pytest.approx(link.latency_s)


def test_replicas_without_examples_are_told() -> None:
    steps = [predict(WORK, CLUSTER, replicas) for replicas in (256, 1024)]
    (warning,) = prediction.warnings(WORK, CLUSTER, steps)
    assert warning == "1,024 replicas share batches of 256: 768 of them have no example to learn from."


def test_a_disk_that_is_too_slow_is_told() -> None:
    (warning,) = prediction.warnings(WORK, replace(CLUSTER, disk=1e3), [])
    assert "2500 s to write, longer than the 60 s" in warning


def test_a_memory_that_is_too_small_is_told() -> None:
    (warning,) = prediction.warnings(
        replace(WORK, state_bytes=2.0**40), replace(CLUSTER, memory=2.0**35, disk=1e18), []
    )
    assert "need 1024.0 GiB; test has 32.0 GiB" in warning


def test_resident_rows_need_memory() -> None:
    assert replace(WORK, streaming=False).device_bytes - WORK.device_bytes == 60_000 * 788


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_descriptions_are_right(name: str) -> None:
    options = prediction.find_cluster(name)
    assert options is not None
    cluster = prediction.described(name, options, WORK, "mixed_bfloat16", CLUSTER)
    step = predict(WORK, cluster, 8)
    assert 0 < step.seconds < predict(WORK, CLUSTER, 8).seconds
    assert not step.measured


def test_this_is_the_machine_we_are_on() -> None:
    assert prediction.find_cluster("this") is None


def test_float32_has_a_peak_of_its_own() -> None:
    options = prediction.find_cluster("a100")
    assert options is not None
    slow, fast = (prediction.described("", options, WORK, p, CLUSTER) for p in ("float32", "mixed_bfloat16"))
    assert slow.compute.slope == pytest.approx(2 * fast.compute.slope)
    assert fast.compute.slope == pytest.approx(1e7 / (312e12 * 0.4))


def test_what_a_description_leaves_out_is_as_here() -> None:
    options = prediction.read_cluster(nodes.parse("network: {bandwidth: 1GiB, latency: 0.5ms}", "c.yaml", Path()))
    assert prediction.described("c", options, WORK, "float32", CLUSTER) == replace(
        CLUSTER, name="c", network=Link(2.0**30, 0.0005)
    )


NETWORK = "network: {bandwidth: 1GiB, latency: 1ms}"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "c.yaml:1:1", "'network' is missing"),
        ("- 1", "c.yaml:1:1", "a cluster is described by a mapping, received"),
        (f"{NETWORK}\nhost: 3", "c.yaml:2:1", "no such key"),
        ("network: {bandwidth: 1GiB, latency: 1ms, latncy: 1}", "c.yaml:1:42", "no such key"),
        ("network: {bandwidth: 25, latency: 1ms}", "c.yaml:1:22", "expected a size like 512MiB, received 25"),
        ("network: {bandwidth: 1GiB, latency: 1us}", "c.yaml:1:37", "expected a duration like 30m, received '1us'"),
        (f"{NETWORK}\naccelerator: {{flops: 0}}", "c.yaml:2:22", "expected a number above 0, received 0"),
        (f"{NETWORK}\naccelerator: {{flops: 1e12, efficiency: 40}}", "c.yaml:2:40", "expected a number of at most 1"),
        (f"{NETWORK}\noverlap: 2", "c.yaml:2:10", "expected a number of at most 1, received 2"),
        (f"{NETWORK}\nreplicas_per_host: 8", "c.yaml:2:20", "several replicas in a host need a link"),
        (f"{NETWORK}\ninside: {{bandwidth: 1GiB, latency: 1ms}}", "c.yaml:2:9", "`inside` does nothing"),
        ("network: [", "c.yaml:1", ""),
    ],
)
def test_faults_of_descriptions_have_places(tmp_path: Path, text: str, place: str, message: str) -> None:
    with pytest.raises(BmcliError) as caught:
        prediction.read_cluster(nodes.parse(text, "c.yaml", tmp_path))
    assert message in caught.value.faults[0].message
    assert str(caught.value.faults[0].place).startswith(place)


def test_all_faults_of_a_description_are_told(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("network: {bandwidth: 1, latency: 2}\noverlapp: 1\n")
    with pytest.raises(BmcliError) as caught:
        prediction.find_cluster(str(tmp_path / "c.yaml"))
    assert len(caught.value.faults) == 3
    assert caught.value.faults[2].suggestion == "Did you mean 'overlap'?"


def test_an_unknown_cluster_names_the_nearest() -> None:
    with pytest.raises(BmcliError, match="no cluster 'a10'") as caught:
        prediction.find_cluster("a10")
    assert "a100" in caught.value.faults[0].suggestion


def test_no_limit_of_steps_is_infinite() -> None:
    assert WORK.steps_in_all(256) == 10 * 60_000 / 256
    assert math.isfinite(WORK.steps_in_all(1))


def test_the_model_needs_no_tensorflow() -> None:
    code = "import sys, bmcli.cost_model.prediction; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
