"""`bmcli tune` as a user calls it: a recipe, a run, a report; killed, joined, refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
bmcli: 1
name: flowers
seed: 3
data: {source: {kind: builtin, name: iris}, split: {train: 0.6, validation: 0.2, test: 0.2}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 4, batch_size: 16, tensorboard: false, checkpoint: {steps: 1}}
runtime: {jit: false}
tune:
  objective: [validation/accuracy, parameters]
  trials: 4
  space:
    train.optimizer.learning_rate: {log: [1e-3, 1e-1]}
    model.hidden: {choice: [[4], [16]]}
  confirm: {top: 2, seeds: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "flowers.yaml").write_text(RECIPE)
    return tmp_path / "flowers.yaml"


def study_of(tmp_path: Path) -> Path:
    return (tmp_path / "runs" / "flowers-tune" / "latest").resolve()


def test_a_search_hands_back_a_recipe_a_run_and_a_report(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    done = bmcli("tune", recipe, "--json")
    assert done.code == 0, done.err
    measured = list(tmp_path.rglob("evaluation.json"))
    assert [path.parent.parent.name for path in measured] == ["flowers"], "the test rows are measured once alone"

    found = done.json()
    assert [trial["state"] for trial in found["trials"]] == ["done"] * 4
    assert found["best"]["metrics"]["test/accuracy"] > 0.6
    assert {trial["objectives"]["parameters"] for trial in found["trials"]} <= {4 * 5 + 5 * 3, 16 * 5 + 17 * 3}

    best = yaml.safe_load(Path(found["best"]["recipe"]).read_text())
    winner = json.loads((study_of(tmp_path) / "status.json").read_text())["winner"]
    values = next(trial["values"] for trial in found["trials"] if trial["name"] == winner)
    assert "tune" not in best
    assert best["model"]["hidden"] == values["model.hidden"]
    assert best["seed"] == 3

    assert bmcli("evaluate", "flowers", "--json").json()["metrics"] == found["best"]["metrics"]
    rows = (study_of(tmp_path) / "trials.csv").read_text().splitlines()
    assert len(rows) == 5
    assert "<html" in (study_of(tmp_path) / "report.html").read_text()
    page = (tmp_path / "runs" / "flowers" / "latest" / "report.html").read_text()
    for word in ('"origin">Origin<', "The winner of the search", "4 trials of ", "model.hidden = ["):
        assert word in page, word
    assert bmcli("train", found["best"]["recipe"], "--json").code == 0


def test_what_a_search_cannot_be_is_refused_before_it_costs_anything(
    bmcli: Bmcli, recipe: Path, tmp_path: Path
) -> None:
    wrong = [
        ("tune.objective=validation/acuracy", "'validation/acuracy' is not measured during training"),
        ("tune.space={model.hiden: {choice: [[4]]}}", "Did you mean 'hidden'?"),
        ("data.split={train: 0.8, validation: null, test: 0.2}", "share for validation"),
        ("data.source.name=irs", "Did you mean 'iris'?"),
    ]
    for override, message in wrong:
        done = bmcli("tune", recipe, override)
        assert done.code == 2, override
        assert message in done.err
    recipe.write_text(RECIPE.split("tune:")[0])
    done = bmcli("tune", recipe)
    assert done.code == 2
    assert "there is nothing to search" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_changed_recipe_is_refused_with_the_difference(bmcli: Bmcli, recipe: Path) -> None:
    assert bmcli("tune", recipe, "-q", "tune.confirm=none", "tune.trials=1").code == 0
    done = bmcli("tune", recipe, "--resume", "flowers", "model.dropout=0.2", "tune.confirm=none")
    assert done.code == 2
    assert "recipe.model.dropout: 0.0, now 0.2" in done.err
    done = bmcli("tune", "--resume", "flowers", "tune.confirm=none", "tune.trials=1")
    assert done.code == 2
    assert "is already completed" in done.err
    done = bmcli("tune", "--resume", "flowers", "tune.trials=2", "--json")
    assert done.code == 0, done.err
    assert len(done.json()["trials"]) == 2


class Killed:
    """A search that is started repeatedly, in a separate folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "flowers.yaml").write_text(RECIPE)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        begun = any((self.folder / "runs").glob("flowers-tune/*/study.json"))
        target = options or (("--resume", "flowers") if begun else ("flowers.yaml",))
        command = [sys.executable, "-m", "bmcli", "tune", *target, "--json", "--runs", "runs"]
        with (self.folder / "log.txt").open("ab") as log, (self.folder / "found.json").open("wb") as found:
            return subprocess.Popen(command, cwd=self.folder, stdout=found, stderr=log)

    @property
    def study(self) -> Path:
        return (self.folder / "runs/flowers-tune/latest").resolve()

    def progress(self) -> int:
        """Count the rows of epochs and the results so far."""
        rows = sum(len(path.read_bytes().splitlines()) for path in self.folder.glob("runs/*/*/trials/*/metrics.jsonl"))
        return rows + len(list(self.folder.glob("runs/*/*/results/*.json")))

    def to_the_end(self) -> tuple[Any, Any]:
        """Values and results of all trials, and the best."""
        process = self.start()
        assert process.wait(300) == 0, (self.folder / "log.txt").read_text()
        found = json.loads((self.folder / "found.json").read_text())
        trials = [{k: v for k, v in trial.items() if k != "seconds"} for trial in found["trials"]]
        best = yaml.safe_load(Path(self.folder / found["best"]["recipe"]).read_text())
        return trials, (best, found["best"]["metrics"])


@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_as_one_that_was_not(tmp_path: Path) -> None:
    expected = Killed(tmp_path / "whole").to_the_end()
    killed, chance = Killed(tmp_path / "killed"), random.Random(7)
    for _ in range(5):
        before = killed.progress()
        process = killed.start()
        end = time.monotonic() + 120
        while killed.progress() <= before + chance.randrange(3) and process.poll() is None:
            assert time.monotonic() < end, (killed.folder / "log.txt").read_text()
            time.sleep(0.01)
        time.sleep(chance.random() * 0.5)
        process.kill()
        process.wait()
    assert killed.to_the_end() == expected


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    search = Killed(tmp_path / "stopped")
    process = search.start("flowers.yaml", "tune.confirm=none")
    end = time.monotonic() + 120
    while not search.progress():
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75
    assert "bmcli tune --resume runs/flowers-tune/" in (search.folder / "log.txt").read_text()
    trials, _ = search.to_the_end()
    assert len(trials) == 4


@pytest.mark.slow
def test_workers_of_another_process_join(tmp_path: Path) -> None:
    search = Killed(tmp_path / "joined")
    chief = search.start("flowers.yaml", "tune.trials=8")
    end = time.monotonic() + 120
    while not any((search.folder / "runs").glob("flowers-tune/*/workers/*")):
        assert time.monotonic() < end
        time.sleep(0.05)
    with (search.folder / "joined.txt").open("wb") as log:
        command = [sys.executable, "-m", "bmcli", "tune", "--join", "flowers", "--runs", "runs"]
        joined = subprocess.Popen(command, cwd=search.folder, stderr=log, stdout=log, env={**os.environ})
    assert chief.wait(300) == 0, (search.folder / "log.txt").read_text()
    assert joined.wait(60) == 0, (search.folder / "joined.txt").read_text()
    found = json.loads((search.folder / "found.json").read_text())
    assert [trial["name"] for trial in found["trials"]] == [f"{number:04d}" for number in range(8)]
    claimed = {json.loads(path.read_text())["pid"] for path in search.study.glob("claims/*")}
    assert len(claimed) == 2, "both did some of it"
