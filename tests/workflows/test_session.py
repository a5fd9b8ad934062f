"""Sessions refuse faults before they take devices, and describe a training in the files of its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli import runs, training
from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows.session import prepare_again, start_session
from tests.conftest import WriteRecipe


def accept(spec: DataSpec) -> None:
    assert spec.counts["train"] > 0


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return runs.create(tmp_path / "runs", "tiny")


def test_data_that_is_refused_takes_no_devices(
    write_recipe: WriteRecipe, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: DataSpec) -> None:
        raise BmcliError(f"{spec.counts['train']} rows are too few.")

    monkeypatch.setattr(training, "place_on_devices", lambda *_: pytest.fail("devices were taken"))
    with pytest.raises(BmcliError, match="120 rows are too few"):
        start_session(load_recipe(str(write_recipe())), cache, refuse)


def test_devices_that_are_not_there_are_told_before_data_is_read(
    write_recipe: WriteRecipe, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "prepare_data", lambda *_: pytest.fail("data was read"))
    loaded = load_recipe(str(write_recipe()), ["runtime.strategy=tpu"])
    with pytest.raises(BmcliError, match="there is no TPU"):
        start_session(loaded, cache, accept)


def test_a_run_is_described_before_its_first_step(write_recipe: WriteRecipe, cache: Path, run: Run) -> None:
    session = start_session(load_recipe(str(write_recipe())), cache, accept)
    trainer = session.build_trainer(run)
    session.write_run_files(trainer, run)
    assert {path.name for path in run.folder.iterdir()} == {
        "recipe.yaml", "recipe.lock.yaml", "data.json", "environment.json",
    }  # fmt: skip
    assert read_data_spec(run) == session.prepared.spec
    locked = load_recipe(str(run.lock)).recipe
    assert (locked.runtime.jit, locked.train.select.metric) == (trainer.steps.compilation.jit, trainer.selection.metric)
    assert locked.train.epochs == session.loaded.recipe.train.epochs


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_run_whose_data_cannot_be_told_is_a_fault(run: Run, content: str | None) -> None:
    if content is not None:
        run.data.write_text(content)
    with pytest.raises(BmcliError, match=r"missing|damaged"):
        read_data_spec(run)


def test_other_data_is_refused(write_recipe: WriteRecipe, cache: Path) -> None:
    loaded = load_recipe(str(write_recipe()))
    spec = start_session(loaded, cache, accept).prepared.spec
    assert prepare_again(loaded.recipe, spec, cache).spec == spec
    other = DataSpec.from_json({**spec.to_json(), "inputs": [], "targets": [], "crosses": [], "fingerprint": "0"})
    with pytest.raises(BmcliError, match="the data changed"):
        start_session(loaded, cache, known_spec=other)
