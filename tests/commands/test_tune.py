"""`bmcli tune` as a user calls it: a recipe, a run, a report; killed, joined, refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from difflib import ndiff
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from bmcli.commands.tune import SearchContext, compare_with_recipe
from bmcli.trials import SearchObjective, SearchResult, Task, Trial, TrialResult
from bmcli.tuning.search import SearchWinner
from bmcli.tuning.study import Study
from tests.commands.conftest import Bmcli, bmcli, read_advised_commands

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
# Which iris is it?
bmcli: 1
name: flowers   # of Fisher
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
    assert found["trials"][0]["values"] == {"train.optimizer.learning_rate": 0.001, "model.hidden": [8]}
    assert found["best"]["metrics"]["test/accuracy"] > 0.6
    assert {trial["objectives"]["parameters"] for trial in found["trials"]} <= {
        4 * 5 + 5 * 3, 8 * 5 + 9 * 3, 16 * 5 + 17 * 3,
    }  # fmt: skip

    study = study_of(tmp_path)
    winner = json.loads((study / "status.json").read_text())["winner"]
    assert winner != "0000", "a learning rate that is searched beats the default in four epochs"
    values = next(trial["values"] for trial in found["trials"] if trial["name"] == winner)
    check_best_recipe(Path(found["best"]["recipe"]), values)
    check_improvement(bmcli, study, found, winner)

    assert bmcli("evaluate", "flowers", "--json").json()["metrics"] == found["best"]["metrics"]
    rows = (study_of(tmp_path) / "trials.csv").read_text().splitlines()
    assert len(rows) == 5
    assert "<html" in (study_of(tmp_path) / "report.html").read_text()
    page = (tmp_path / "runs" / "flowers" / "latest" / "report.html").read_text()
    for word in ('"origin">Origin<', "The winner of the search", "4 trials of ", "model.hidden = ["):
        assert word in page, word
    again = bmcli("train", found["best"]["recipe"], "--json").json()
    assert read_weights(Path(again["run"])) == read_weights(tmp_path / "runs" / "flowers" / run_of_winner(found))


def run_of_winner(found: Any) -> str:
    return Path(found["best"]["run"]).name


def read_weights(run: Path) -> dict[str, bytes]:
    """Read the weights of a run by their names."""
    weights: dict[str, bytes] = {}

    def read(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            weights[name] = item[()].tobytes()

    with (
        zipfile.ZipFile(run / "model.keras") as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        file.visititems(read)
    assert weights
    return weights


def check_best_recipe(path: Path, values: dict[str, Any]) -> None:
    """Check that the recipe is that of the user with the values of the winner and the seeds of its run."""
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# Trial ")
    changed = [line for line in ndiff(RECIPE.splitlines(), lines) if line[0] in "+-"]
    best = yaml.safe_load(path.read_text())
    rate = values["train.optimizer.learning_rate"]
    assert best["seed"] in (4, 5), "of the seeds of the confirmation the better one"
    assert changed == [
        "- seed: 3",
        f"+ seed: {best['seed']}",
        "- data: {source: {kind: builtin, name: iris}, split: {train: 0.6, validation: 0.2, test: 0.2}}",
        "+ data: {source: {kind: builtin, name: iris}, split: {train: 0.6, validation: 0.2, test: 0.2}, seed: 3}",
        "- model: {kind: mlp, hidden: [8]}",
        f"+ model: {{kind: mlp, hidden: {values['model.hidden']}}}",
        "- train: {epochs: 4, batch_size: 16, tensorboard: false, checkpoint: {steps: 1}}",
        "+ train: {epochs: 4, batch_size: 16, tensorboard: false, checkpoint: {steps: 1}, "
        f"select: {{metric: validation/accuracy}}, optimizer: {{learning_rate: {rate}}}}}",
    ]


def check_improvement(bmcli: Bmcli, study: Path, found: Any, winner: str) -> None:
    """Check that the winner is compared with the recipe as it is written, as trained with the same seeds."""
    results = [json.loads(path.read_text()) for path in sorted(study.glob("results/confirm-0000-seed-*.json"))]
    assert [result["name"] for result in results] == ["confirm-0000-seed-4", "confirm-0000-seed-5"]
    best = max(results, key=lambda result: result["objectives"]["validation/accuracy"])["name"]
    written = bmcli("evaluate", study / "trials" / best, "--json").json()["metrics"]
    improvement = found["improvement"]
    assert (improvement["split"], improvement["rows"]) == ("test", 30)
    for metric, difference in improvement["differences"].items():
        assert difference["first"] == pytest.approx(written[f"test/{metric}"], rel=1e-9), metric
        assert difference["second"] == pytest.approx(found["best"]["metrics"][f"test/{metric}"], rel=1e-9), metric
    log_loss = improvement["differences"]["log_loss"]
    assert log_loss["interval"]["low"] < log_loss["difference"] < log_loss["interval"]["high"]
    assert found["verdict"][0].startswith("On the 30 test rows the winner is ")
    page = (study / "report.html").read_text()
    assert "What the search was worth" in page
    assert found["verdict"][0][:60] in page


@pytest.mark.parametrize(
    ("winner", "result", "words"),
    [
        (
            "0000",
            TrialResult("0000", "done"),
            "No trial was better than the recipe as it is written, which is the winner",
        ),
        (
            "0001",
            TrialResult("0000", "diverged", reason="the loss is NaN."),
            "The winner cannot be compared with the recipe as it is written, whose training diverged: the loss is NaN.",
        ),
        (
            "0001",
            TrialResult("0000", "done"),
            "The winner cannot be compared with the recipe as it is written, whose training with other seeds failed.",
        ),
    ],
)
def test_a_search_without_a_comparison_says_why(tmp_path: Path, winner: str, result: TrialResult, words: str) -> None:
    trials = (Trial(Task("0000", {}), result), Trial(Task("0001", {}), TrialResult("0001", "done")))
    searched = SearchResult("flowers", "random", (SearchObjective("validation/loss", "min"),), {}, trials)
    chosen = SearchWinner(searched.trial(winner), Task("confirm", {}), None)
    context = SearchContext(tmp_path, tmp_path, lambda *_: contextlib.nullcontext(), print)  # type: ignore[arg-type]
    improvement, verdict = compare_with_recipe(Study(tmp_path), searched, chosen, context)
    assert improvement is None
    assert " ".join(verdict).startswith(words)


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
    assert bmcli("tune", recipe, "-q", "tune.confirm=none", "tune.trials=2").code == 0
    done = bmcli("tune", recipe, "--resume", "flowers", "model.dropout=0.2", "tune.confirm=none")
    assert done.code == 2
    assert "recipe.model.dropout: 0.0, now 0.2" in done.err
    done = bmcli("tune", "--resume", "flowers", "tune.confirm=none", "tune.trials=2")
    assert done.code == 2
    assert "is already completed" in done.err
    done = bmcli("tune", "--resume", "flowers", "tune.trials=3", "--json")
    assert done.code == 0, done.err
    assert len(done.json()["trials"]) == 3


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

    def interrupt(self, *options: str) -> list[str]:
        """Start, and interrupt once something was trained; the arguments after `tune` of the advised command."""
        before = self.progress()
        process = self.start(*options)
        end = time.monotonic() + 300
        while self.progress() == before:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 75
        advised = read_advised_commands((self.folder / "log.txt").read_text())[-1]
        assert advised.startswith("bmcli tune --resume runs/flowers-tune/")
        return shlex.split(advised)[2:]

    def to_the_end(self, *options: str) -> tuple[Any, Any]:
        """Values and results of all trials, and the best."""
        process = self.start(*options)
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


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    search = Killed(tmp_path / "stopped")
    advised = search.interrupt("flowers.yaml", "tune.confirm=none")
    trials, _ = search.to_the_end(*advised)
    assert len(trials) == 4


@pytest.mark.slow
def test_the_advice_to_go_on_repeats_what_was_changed(tmp_path: Path) -> None:
    """The folder of a search has the values that it was started with, and not those it is resumed with."""
    search = Killed(tmp_path / "longer")
    assert len(search.to_the_end("flowers.yaml", "tune.confirm=none")[0]) == 4
    advised = search.interrupt("--resume", "flowers", "tune.trials=6")
    assert len(search.to_the_end(*advised)[0]) == 6


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
