"""Runs killed at random moments resume to the same bits, metrics and selected epoch as an uninterrupted run."""

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

import numpy as np
import pytest

from bmcli import runs
from bmcli.training import checkpoint

# All kinds of state: dropout, moving statistics, averages, a schedule, patience, a step in parts.
RECIPE = """\
bmcli: 1
name: killed
seed: 3
data: {source: {kind: builtin, name: iris}}
model: {kind: mlp, hidden: [16, 16], dropout: 0.3, normalization: batch}
train:
  epochs: 150
  batch_size: 16
  gradient_accumulation: 2
  ema: 0.95
  tensorboard: false
  optimizer: {kind: adamw, learning_rate: 1e-3}
  schedule: {kind: cosine, warmup: 0.1}
  stop: {patience: 150}
  select: {metric: validation/accuracy}
  checkpoint: {steps: 1}
runtime: {jit: false}
"""
# The student has more: projections that are learned beside it, and numbers that change over the epochs.
DISTILLED = (
    RECIPE.replace("epochs: 150", "epochs: 3")
    + """\
distill:
  baseline: false
  student: {model: {hidden: [8, 8]}, train: {epochs: 100}}
  losses: [{kind: hard, weight: 0.2}, {kind: soft, temperature: {start: 8, end: 2}}, {kind: feature}]
"""
).replace("  gradient_accumulation: 2\n", "")
# Tokens are drawn by chance, too, where some are hidden, and a batch is measured by its tokens.
TEXT = """\
  source: {kind: text, path: numbers.txt, window: 24}
  inputs: {text: {kind: text, %s}}
  split: {time: position}
model: {kind: transformer, width: 16, depth: 1, heads: 2, dropout: 0.3}
objective: %s
"""
OF_IRIS = RECIPE[RECIPE.index("data:") : RECIPE.index("train:")]
LANGUAGE_MODELS = {
    kind: RECIPE.replace(OF_IRIS, "data:\n" + TEXT % (reading, kind))
    .replace("epochs: 150", "epochs: 60")
    .replace("accuracy", "loss")
    for kind, reading in (
        ("causal_language_model", "encoding: written, end: false"),
        ("masked_language_model", "encoding: sequence, mask: true"),
    )
}
CHECKPOINTS = "killed/*/checkpoints/step-*"
PATIENCE_S = 90.0


class Killed:
    """A training that is started repeatedly.

    Args:
        workers: Options that start it, e.g. `--workers 2`.
        recipe: A distillation has its student watched.
    """

    def __init__(self, folder: Path, *workers: str, recipe: str = RECIPE) -> None:
        self.folder, self.workers = folder, workers
        distills = "distill:" in recipe
        self.command, self.begun = ("distill", "killed-distill/2*/jobs.json") if distills else ("train", CHECKPOINTS)
        folder.mkdir()
        (folder / "recipe.yaml").write_text(recipe)
        (folder / "numbers.txt").write_text("one two three four five six seven " * 100)

    def start(self) -> subprocess.Popen[bytes]:
        known = any((self.folder / "runs").glob(self.begun))
        target = ("--resume", "killed") if known else ("recipe.yaml",)
        command = [sys.executable, "-m", "bmcli", self.command, *target, "-q", *self.workers, "--runs", "runs"]
        with (self.folder / "err.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    @property
    def run(self) -> runs.Run:
        return runs.find(self.folder / "runs", "killed")

    def newest(self) -> str:
        """Return the name of the newest checkpoint."""
        return max((path.name for path in (self.folder / "runs").glob(CHECKPOINTS)), default="")

    def until_it_trains(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for a newer checkpoint; false if the training ended before."""
        before, start = self.newest(), time.monotonic()
        while self.newest() <= before and process.poll() is None:
            assert time.monotonic() - start < PATIENCE_S, (self.folder / "err.txt").read_text()
            time.sleep(0.005)
        return process.poll() is None

    def to_the_end(self) -> None:
        assert self.start().wait(10 * PATIENCE_S) == 0, (self.folder / "err.txt").read_text()

    def result(self) -> tuple[list[bytes], list[Any], Any]:
        """Return variables, meters and selected weights, the metrics of all epochs, and those of the selected one."""
        state, _ = checkpoint.restore(self.run.checkpoints)
        bits = [np.asarray(array).tobytes() for group in sorted(state.groups) for array in state.groups[group]]
        rows = [{k: v for k, v in row.items() if "/" in k or k in ("epoch", "step")} for row in self.run.read_epochs()]
        status = json.loads(self.run.status_file.read_text())
        return bits, rows, (status["selected_epoch"], status["stop_reason"], status["metrics"])

    def measured(self) -> list[dict[str, float]]:
        """Metrics of the teacher and of the students of a distillation."""
        (result,) = (self.folder / "runs").glob("killed-distill/2*/result.json")
        record = json.loads(result.read_bytes())
        return [learner["metrics"] for learner in (record["teacher"], *record["students"])]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    whole = Killed(tmp_path_factory.mktemp("whole") / "run")
    whole.to_the_end()
    return whole


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_with_the_same_bits(tmp_path: Path, uninterrupted: Killed) -> None:
    chance = random.Random(20)
    killed, kills = Killed(tmp_path / "run"), 0
    while kills < 20:
        process = killed.start()
        # Some die while they start, before anything is restored or written.
        if kills % 5 == 4:
            time.sleep(chance.uniform(0, 6))
        else:
            assert killed.until_it_trains(process), f"it ended after {kills} kills: make the training longer"
            time.sleep(chance.uniform(0, 0.25))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
    killed.to_the_end()
    assert killed.result() == uninterrupted.result()


@pytest.mark.slow
@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_language_model_killed_three_times_ends_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole, killed = (Killed(tmp_path / name, recipe=LANGUAGE_MODELS[kind]) for name in ("whole", "killed"))
    whole.to_the_end()
    chance = random.Random(7)
    for kill in range(3):
        process = killed.start()
        assert killed.until_it_trains(process), f"it ended after {kill} kills: make the training longer"
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    killed.to_the_end()
    assert killed.result() == whole.result()


@pytest.mark.slow
def test_a_distillation_killed_while_its_student_learns_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, killed = (Killed(tmp_path / name, recipe=DISTILLED) for name in ("whole", "killed"))
    whole.to_the_end()
    chance = random.Random(3)
    for kill in range(3):
        process = killed.start()
        assert killed.until_it_trains(process), f"it ended after {kill} kills: make the training longer"
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    killed.to_the_end()
    assert killed.result() == whole.result()
    assert killed.measured() == whole.measured()


@pytest.mark.slow
def test_a_job_of_two_workers_that_loses_one_five_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, killed = Killed(tmp_path / "whole", "--workers", "2"), Killed(tmp_path / "killed", "--workers", "2")
    whole.to_the_end()
    chance = random.Random(5)
    for kill in range(5):
        launcher = killed.start()
        assert killed.until_it_trains(launcher), f"it ended after {kill} kills: make the training longer"
        time.sleep(chance.uniform(0, 0.5))
        workers = _children(launcher.pid)
        assert len(workers) == 2
        os.kill(chance.choice(workers), signal.SIGKILL)
        lost_at = time.monotonic()
        assert launcher.wait(60) == 75, (killed.folder / "err.txt").read_text()
        assert time.monotonic() - lost_at < 20
        assert not any(_alive(worker) for worker in workers)
    killed.to_the_end()
    assert killed.result() == whole.result()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pre_empted_job_of_two_workers_saves_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    whole, stopped = Killed(tmp_path / "whole", "--workers", "2"), Killed(tmp_path / "stopped", "--workers", "2")
    whole.to_the_end()
    launcher = stopped.start()
    assert stopped.until_it_trains(launcher)
    launcher.send_signal(number)
    start = time.monotonic()
    assert launcher.wait(60) == 75, (stopped.folder / "err.txt").read_text()
    assert time.monotonic() - start < 10
    stopped.to_the_end()
    assert stopped.result() == whole.result()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
