"""`bmcli plan`: what was measured, what was predicted, and what is told about both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmcli.commands.plan import Plan, plan
from bmcli.errors import BmcliError
from bmcli.training import measure
from tests.conftest import WriteRecipe

EXCHANGES = {"4096": 0.003, "65536": 0.0035, "8388608": 0.04}
REALLY_EXCHANGE = measure.exchange_seconds


@pytest.fixture(autouse=True)
def _known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started once, in the slow test alone."""
    monkeypatch.setattr(measure, "exchange_seconds", lambda: dict(EXCHANGES))


def planned(recipe: Path, cache: Path, *overrides: str, on: str = "this", **more: Any) -> Plan:
    return plan(str(recipe), overrides, more.pop("replicas", (1, 2, 1024)), on, more.pop("each", None), cache)


def test_a_plan_tells_data_network_and_steps(write_recipe: WriteRecipe, cache: Path) -> None:
    found = planned(write_recipe(), cache).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"] == {"train": 120, "validation": 15, "test": 15}
    assert found["targets"] == ["species"]
    assert found["parameters"] == 4 * 8 + 8 + 8 * 3 + 3
    assert [step["replicas"] for step in found["steps"]] == [1, 2, 1024]
    assert set(found["measured"]["step_s_by_batch"]) == {"4", "8", "16"}


def test_the_measured_step_is_the_first_of_the_predictions_here(write_recipe: WriteRecipe, cache: Path) -> None:
    found = planned(write_recipe(), cache)
    assert found.steps[0] == found.here
    assert found.here.compute_s == pytest.approx(found.measured.seconds[16])
    assert [step.measured for step in found.steps] == [True, False, False]


def test_one_replica_needs_no_network(write_recipe: WriteRecipe, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "network", lambda _: pytest.fail("measured"))
    found = planned(write_recipe(), cache, replicas=(1,)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False))["on"]["network"] is None


def test_work_follows_from_the_network(write_recipe: WriteRecipe, cache: Path) -> None:
    work = planned(write_recipe(), cache).measured.work
    parameters = 4 * 8 + 8 + 8 * 3 + 3
    assert work.gradient_bytes == 4 * parameters + 4
    assert work.example_flops == pytest.approx(3 * 2 * (4 * 8 + 8 * 3), rel=0.5)
    assert work.state_bytes >= 3 * 4 * parameters  # adam has two slots for each weight
    assert (work.examples, work.epochs, work.batch, work.streaming) == (120, 3, 16, False)


def test_a_streaming_recipe_is_planned_as_such(write_recipe: WriteRecipe, cache: Path) -> None:
    work = planned(write_recipe(), cache, "runtime.feed=streaming").measured.work
    assert work.streaming
    assert work.example_bytes == 4 * 4 + 4


def test_replicas_without_examples_are_warned_of(write_recipe: WriteRecipe, cache: Path) -> None:
    found = planned(write_recipe(), cache)
    assert "1,024 replicas share batches of 16: 1,008 of them have no example to learn from." in found.notes


def test_a_batch_can_grow_with_the_replicas(write_recipe: WriteRecipe, cache: Path) -> None:
    found = planned(write_recipe(), cache, replicas=(1, 2, 4), each=8)
    assert [step.batch for step in found.steps] == [8, 16, 32]
    assert found.here.batch == 16


def test_an_accelerator_is_predicted_and_needs_no_network(
    write_recipe: WriteRecipe, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "network", lambda _: pytest.fail("measured"))
    found = planned(write_recipe(), cache, on="h100")
    assert not any(step.measured for step in found.steps)
    assert found.measured.network is None
    assert any("assumptions" in note for note in found.notes)


def test_the_network_is_remembered(write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure.network(tmp_path)
    monkeypatch.setattr(measure, "exchange_seconds", lambda: pytest.fail("measured again"))
    assert measure.network(tmp_path) == first
    assert first.bandwidth == pytest.approx(8388608 / 0.037, rel=0.1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": []}'])
def test_a_damaged_memory_of_the_network_is_measured_again(tmp_path: Path, content: str) -> None:
    first = measure.network(tmp_path)
    (memory,) = (tmp_path / "network").iterdir()
    memory.write_text(content)
    assert measure.network(tmp_path) == first


def test_recurrent_layers_count_every_step(write_recipe: WriteRecipe, cache: Path) -> None:
    lstm = planned(
        write_recipe(), cache, "data.source.name=digits", "model.kind=rnn", "model.cell=lstm", "model.units=16",
        replicas=(1,),
    ).measured  # fmt: skip
    assert not lstm.loops
    assert lstm.work.example_flops > 3 * 8 * 2 * 16 * 4 * 16  # 8 steps of a matrix with 4 gates


def test_measuring_changes_no_weight(write_recipe: WriteRecipe, cache: Path) -> None:
    first, second = (planned(write_recipe(), cache, replicas=(1,)).measured.work for _ in range(2))
    assert first == second


def test_faults_of_the_recipe_have_places(write_recipe: WriteRecipe, cache: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        planned(write_recipe(), cache, "runtime.strategy=tpu")
    assert caught.value.faults[0].place is not None
    assert "--on tpu-v4" in caught.value.faults[0].suggestion


def test_less_than_one_replica_is_refused(write_recipe: WriteRecipe, cache: Path) -> None:
    with pytest.raises(BmcliError, match="expected replicas from 1, received 0"):
        planned(write_recipe(), cache, replicas=(2, 0))


@pytest.mark.slow
def test_two_workers_exchange_within_a_second() -> None:
    seconds = REALLY_EXCHANGE()
    assert len(seconds) >= 3
    assert all(0 < value < 1 for value in seconds.values())
