"""`bmcli plan` measures a recipe, predicts more replicas, and warns of likely problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmcli.commands.plan import Plan, plan
from bmcli.cost_model import measurement
from bmcli.errors import BmcliError
from bmcli.terminal.presenters import training_plan
from tests.conftest import WriteRecipe

from .conftest import Bmcli

EXCHANGES = {"4096": 0.003, "65536": 0.0035, "8388608": 0.04}
REALLY_EXCHANGE = measurement.measure_exchange_seconds


@pytest.fixture(autouse=True)
def _known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the measurement of the network, for which only the slow test starts workers."""
    monkeypatch.setattr(measurement, "measure_exchange_seconds", lambda: dict(EXCHANGES))


def planned(recipe: Path, cache: Path, *overrides: str, **more: Any) -> Plan:
    return plan(str(recipe), overrides, more.pop("replicas", (1, 2, 1024)), cache, **more)


def test_a_plan_tells_data_network_and_steps(write_recipe: WriteRecipe, cache: Path) -> None:
    found = training_plan.to_json(planned(write_recipe(), cache))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"] == {"train": 120, "validation": 15, "test": 15}
    assert found["targets"] == ["species"]
    assert found["parameters"] == 4 * 8 + 8 + 8 * 3 + 3
    assert [step["replicas"] for step in found["steps"]] == [1, 2, 1024]
    assert set(found["measured"]["step_s_by_batch"]) == {"4", "8", "16"}


def test_the_measured_step_is_the_first_of_the_predictions_here(write_recipe: WriteRecipe, cache: Path) -> None:
    found = planned(write_recipe(), cache)
    assert found.steps[0] == found.local_step
    assert found.local_step.compute_s == pytest.approx(found.measurement.seconds[16])
    assert [step.measured for step in found.steps] == [True, False, False]


def test_one_replica_needs_no_network(write_recipe: WriteRecipe, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "measure_network", lambda _: pytest.fail("measured"))
    found = training_plan.to_json(planned(write_recipe(), cache, replicas=(1,)))
    assert json.loads(json.dumps(found, allow_nan=False))["measured"]["network"] is None


def test_work_follows_from_the_network(write_recipe: WriteRecipe, cache: Path) -> None:
    work = planned(write_recipe(), cache).measurement.work
    parameters = 4 * 8 + 8 + 8 * 3 + 3
    assert work.gradient_bytes == 4 * parameters + 4
    assert work.example_flops == pytest.approx(3 * 2 * (4 * 8 + 8 * 3), rel=0.5)
    assert work.state_bytes >= 3 * 4 * parameters  # adam has two slots for each weight
    assert (work.examples, work.epochs, work.batch, work.streaming) == (120, 3, 16, False)


def test_a_streaming_recipe_is_planned_as_such(write_recipe: WriteRecipe, cache: Path) -> None:
    work = planned(write_recipe(), cache, "runtime.feed=streaming").measurement.work
    assert work.streaming
    assert work.example_bytes == 4 * 4 + 4


def test_replicas_without_examples_are_warned_of(write_recipe: WriteRecipe, cache: Path) -> None:
    found = planned(write_recipe(), cache)
    assert "1,024 replicas share batches of 16: 1,008 of them have no example to learn from." in found.notes


def test_the_network_is_remembered(write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measurement.measure_network(tmp_path)
    monkeypatch.setattr(measurement, "measure_exchange_seconds", lambda: pytest.fail("measured again"))
    assert measurement.measure_network(tmp_path) == first
    assert first.bandwidth == pytest.approx(8388608 / 0.037, rel=0.1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": []}'])
def test_a_damaged_memory_of_the_network_is_measured_again(tmp_path: Path, content: str) -> None:
    first = measurement.measure_network(tmp_path)
    (memory,) = (tmp_path / "network").iterdir()
    memory.write_text(content)
    assert measurement.measure_network(tmp_path) == first


def test_recurrent_layers_count_every_step(write_recipe: WriteRecipe, cache: Path) -> None:
    lstm = planned(
        write_recipe(), cache, "data.source.name=digits", "model.kind=rnn", "model.cell=lstm", "model.units=16",
        replicas=(1,),
    ).measurement  # fmt: skip
    assert lstm.work.example_flops > 3 * 8 * 2 * 16 * 4 * 16  # 8 steps of a matrix with 4 gates


def test_measuring_changes_no_weight(write_recipe: WriteRecipe, cache: Path) -> None:
    first, second = (planned(write_recipe(), cache, replicas=(1,)).measurement.work for _ in range(2))
    assert first == second


def test_faults_of_the_recipe_have_places(write_recipe: WriteRecipe, cache: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        planned(write_recipe(), cache, "runtime.strategy=tpu")
    assert caught.value.faults[0].place is not None
    assert caught.value.faults[0].suggestion == "Plan with runtime.strategy=auto."


def test_less_than_one_replica_is_refused(write_recipe: WriteRecipe, cache: Path) -> None:
    with pytest.raises(BmcliError, match="expected at least 1 replica, received 0"):
        planned(write_recipe(), cache, replicas=(2, 0))


def test_a_plan_lists_columns_and_layers(write_recipe: WriteRecipe, cache: Path) -> None:
    found = training_plan.to_json(planned(write_recipe(), cache, replicas=(1,)))
    assert len(found["columns"]) == 5
    assert found["columns"][-1] == {
        "name": "species", "role": "target", "kind": "category", "shape": [], "dtype": "int32", "classes": 3,
    }  # fmt: skip
    dense = [layer for layer in found["layers"] if layer["kind"] == "Dense"]
    assert [(layer["shape"], layer["parameters"]) for layer in dense] == [([8], 40), ([3], 27)]
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]


def test_memory_and_operations_follow_from_the_network(write_recipe: WriteRecipe, cache: Path) -> None:
    found = training_plan.to_json(planned(write_recipe(), cache, replicas=(1,)))
    parameters = 4 * 8 + 8 + 8 * 3 + 3
    memory = found["memory"]
    assert memory["gradients"] == 4 * parameters
    assert memory["weights"] >= 4 * parameters  # and the state of dropout
    assert memory["optimizer"] >= 2 * 4 * parameters  # two slots of adam
    assert memory["activations"] >= 16 * 4 * (8 + 8 + 3)
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")
    assert found["flops"]["step"] == 16 * 3 * found["flops"]["forward_example"]
    assert found["total_steps"] == 3 * 8


def test_a_plan_tells_what_is_remembered(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    first, second = (planned(write_recipe(), tmp_path / "own", replicas=(1,)).cached for _ in range(2))
    assert first["prepared data"] is False
    assert second["prepared data"] is True


@pytest.mark.slow
def test_long_lists_are_shortened_on_the_terminal(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("plan", write_recipe(), f"model.hidden={[4] * 30}", "train.batch_size=64", "--replicas", "1")
    assert done.code == 0, done.err
    assert "more" in done.out
    assert len(done.out.splitlines()) < 60


LOPSIDED = """\
name: lopsided
data:
  source: {kind: csv, path: table.csv}
  split: {train: 0.9, test: 0.1}
  inputs: {place: number, name: category}
  targets: {label: {kind: category}}
model: {kind: mlp, hidden: [400]}
train: {epochs: 1}
"""


def test_warnings_tell_what_may_disappoint(write_recipe: WriteRecipe, cache: Path, tmp_path: Path) -> None:
    lines = [f"{row},name{row},{'rare' if row < 2 else 'usual'}" for row in range(200)]
    (tmp_path / "table.csv").write_text("\n".join(["place,name,label", *lines]))
    found = " ".join(planned(write_recipe(LOPSIDED), cache, replicas=(1,)).warnings)
    assert "overfitting is likely: " in found
    assert "parameters for 180 training rows" in found
    assert "high cardinality: column 'name' has 180 categories in 180 training rows" in found
    assert "column 'place' is a row index" in found
    assert "of the training rows have class 'rare'" in found
    assert "no validation set" in found
    assert "with 20 rows, the 95 % confidence interval of accuracy is up to ±22%" in found


def test_a_small_test_set_of_numbers_is_not_measured_by_accuracy(
    write_recipe: WriteRecipe, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text(
        "\n".join(["place,name,label", *(f"{row % 7},a,{row / 9}" for row in range(200))])
    )
    text = LOPSIDED.replace("{kind: category}", "{kind: number}").replace(", name: category", "")
    found = " ".join(planned(write_recipe(text), cache, replicas=(1,)).warnings)
    assert "with 20 rows, the 95 % confidence interval of mae is at least ±31% of its value" in found
    assert "accuracy" not in found


def test_an_ordinary_recipe_has_no_such_warnings(write_recipe: WriteRecipe, cache: Path) -> None:
    assert planned(write_recipe(), cache, replicas=(1,)).warnings == (
        "small test set: with 15 rows, the 95 % confidence interval of accuracy is up to ±25%.",
    )


def test_pictures_are_drawn_as_the_network_sees_them(write_recipe: WriteRecipe, cache: Path, tmp_path: Path) -> None:
    digits = ("data.source.name=digits", "model.kind=cnn", "model.filters=[4]")
    file = tmp_path / "seen.png"
    planned(write_recipe(), cache, *digits, replicas=(1,), pictures=file)
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BmcliError, match="exists already"):
        planned(write_recipe(), cache, *digits, replicas=(1,), pictures=file)


def test_without_pictures_there_is_nothing_to_draw(write_recipe: WriteRecipe, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BmcliError, match="nothing to draw"):
        planned(write_recipe(), cache, pictures=tmp_path / "seen.png")
    assert not (tmp_path / "seen.png").exists()
    with pytest.raises(BmcliError, match=r"ending in \.png"):
        planned(write_recipe(), cache, pictures=tmp_path / "seen.jpg")


@pytest.mark.slow
def test_two_workers_exchange_within_a_second() -> None:
    seconds = REALLY_EXCHANGE()
    assert len(seconds) >= 3
    assert all(0 < value < 1 for value in seconds.values())
