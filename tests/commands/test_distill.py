"""`bmcli distill` as a user calls it: table, gate, report, interruption, resumption, search, faults."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmcli.training import trainer
from tests.commands.conftest import Bmcli, bmcli, obey

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
bmcli: 1
name: flowers
seed: 3
data: {source: {kind: builtin, name: iris}, split: {train: 0.6, validation: 0.2, test: 0.2}}
model: {kind: mlp, hidden: [16]}
train: {epochs: 20, batch_size: 16, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
runtime: {jit: false}
distill:
  student: {model: {hidden: [3]}}
  losses: [{kind: hard, weight: 0.1}, {kind: soft, weight: 0.9, temperature: 2}]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "flowers.yaml").write_text(RECIPE)
    return tmp_path / "flowers.yaml"


def runs_of(tmp_path: Path, name: str) -> list[Path]:
    return sorted(lock.parent for lock in (tmp_path / "runs" / name).glob("2*/recipe.lock.yaml"))


def folder_of(tmp_path: Path) -> Path:
    return (tmp_path / "runs" / "flowers-distill" / "latest").resolve()


def test_teacher_baseline_and_student_are_reported_side_by_side(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    done = bmcli("distill", recipe, "distill.seeds=2", "--json")
    assert done.code == 0, done.err
    found = done.json()
    for learner in ("teacher", "baseline", "student"):
        assert 0 <= found[learner]["test/accuracy"] <= 1
    gain = found["gain"]
    assert gain["metric"] == "test/accuracy"
    expected = found["student"]["test/accuracy"] - found["baseline"]["test/accuracy"]
    assert gain["mean"] == pytest.approx(expected)
    assert len(gain["by_seed"]) == 2
    assert len(runs_of(tmp_path, "flowers")) == len(runs_of(tmp_path, "flowers-baseline")) == 2
    (teacher,) = runs_of(tmp_path, "flowers-teacher")
    assert "calibration error" in done.err
    assert "computed once" in done.err

    lock = yaml.safe_load((Path(found["runs"]["student"][0]) / "recipe.lock.yaml").read_text())
    assert lock["distillation"]["teachers"][0]["run"] == str(teacher)
    assert lock["model"]["hidden"] == [3]
    assert "distill" not in lock
    first, second = (json.loads((run / "data.json").read_text())["key"] for run in runs_of(tmp_path, "flowers"))
    assert first == second, "another seed moved the rows"
    page = (folder_of(tmp_path) / "report.html").read_text()
    for word in (
        "Agreement with the teacher",
        "train/soft_loss",
        "Calibration",
        "Results by seed",
        "Changes in the confusion matrix",
    ):
        assert word in page, word

    for run in runs_of(tmp_path, "flowers"):
        page = (run / "report.html").read_text()
        assert "A student of the distillation " in page
        assert "Over its baseline, the same network without a teacher, it gains" in page

    again = bmcli("distill", recipe, "distill.baseline=false", "--json")
    assert again.code == 0, again.err
    assert again.json()["baseline"] is None
    assert again.json()["gain"] is None
    assert runs_of(tmp_path, "flowers-teacher") == [teacher], "the teacher was there"


def test_a_student_is_an_ordinary_run(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    assert bmcli("distill", recipe, "distill.baseline=false").code == 0
    measured = bmcli("evaluate", "flowers", "--json")
    assert measured.code == 0, measured.err
    longer = bmcli("train", "--resume", "flowers", "train.epochs=22", "--json")
    assert longer.code == 0, longer.err
    assert longer.json()["epochs"] == 22
    (student,) = runs_of(tmp_path, "flowers")
    assert "train/soft_loss" in json.loads((student / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("distill.teacher_gate={accuracy: '>= 1.1'}", "the teacher missed its gate: validation/accuracy"),
        ("distill.min_gain=0.9", "expected at least 0.9"),
    ],
)
@pytest.mark.slow
def test_a_missed_gate_ends_with_3(setting: str, message: str, bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    done = bmcli("distill", recipe, setting, "train.epochs=2")
    assert done.code == 3, done.err
    assert message in done.err
    assert bool(runs_of(tmp_path, "flowers")) == ("gain" in setting), "no student is trained with a bad teacher"


@pytest.mark.slow
def test_each_generation_teaches_the_next(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    settings = ("distill.generations=2", "distill.baseline=false", "distill.student=null", "train.epochs=3")
    done = bmcli("distill", recipe, *settings, "--json")
    assert done.code == 0, done.err
    first, second = runs_of(tmp_path, "flowers")
    teacher = yaml.safe_load((second / "recipe.lock.yaml").read_text())["distillation"]["teachers"][0]["run"]
    assert teacher == str(first)
    assert done.json()["runs"]["student"] == [str(second.relative_to(tmp_path))]


@pytest.mark.slow
def test_what_was_interrupted_is_gone_on_with(
    bmcli: Bmcli, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption comes during the student's training, after teacher and baseline."""
    whole = bmcli("distill", recipe, "--json")
    assert whole.code == 0, whole.err
    teacher = runs_of(tmp_path, "flowers-teacher")
    finish = trainer.Trainer._finish_epoch

    def interrupted(self: Any, *arguments: Any) -> Any:
        if "soft" in self.components.loss.term_names and self.progress.epoch == 7:
            self._interrupt([15])
        return finish(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "_finish_epoch", interrupted)
        stopped = bmcli("distill", recipe)
    assert stopped.code == 75, stopped.err
    resumed = obey(bmcli, stopped.err, "--json")
    for learner in ("teacher", "baseline", "student"):
        assert resumed.json()[learner] == whole.json()[learner]
    timeless = [_epochs(run) for run in runs_of(tmp_path, "flowers")]
    assert timeless[0] == timeless[1]
    assert runs_of(tmp_path, "flowers-teacher") == teacher
    finished = bmcli("distill", "--resume", "flowers")
    assert finished.code == 2
    assert "is already completed" in finished.err


UNSTABLE = ("seconds", "examples_per_second", "run_id", "sha256")


def _epochs(run: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`, without times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in UNSTABLE} for row in rows]


TUNE = """\
tune:
  trials: 3
  space:
    distill.losses.1.temperature: {log: [1.0, 10.0]}
    distill.losses.0.weight: {float: [0.0, 1.0]}
  confirm: none
"""


@pytest.mark.slow
def test_a_search_over_temperature_and_weight_trains_students(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE + TUNE)
    done = bmcli("tune", recipe, "train.epochs=5", "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert [trial["state"] for trial in found["trials"]] == ["done"] * 3, found["trials"]
    (teacher,) = runs_of(tmp_path, "flowers-teacher")
    lock = yaml.safe_load((Path(found["best"]["run"]) / "recipe.lock.yaml").read_text())
    assert lock["distillation"]["teachers"][0]["run"] == str(teacher)
    best = yaml.safe_load(bmcli("show", found["best"]["recipe"]).out)
    assert lock["distillation"]["losses"][1]["temperature"] == best["distill"]["losses"][1]["temperature"]
    assert lock["model"]["hidden"] == [3]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("distill.student={modl: {hidden: [3]}}", "distill.student.modl: no such key. Did you mean 'model'?"),
        ("distill.student={model: {hidden: [-3]}}", "distill.student.model.hidden.0: expected"),
        ("distill.student={tune: {}}", "a student cannot override `tune`"),
        ("distill.teacher={run: absent}", "no run 'absent'"),
        ("distill.teacher={file: nothing.keras}", "nothing.keras: no such file"),
        ("distill.teacher=[{run: a, recipe: b}]", "expected one of run, recipe and file"),
        ("distill.losses=[hard]", "the loss `hard` alone does not use the teacher"),
        ("distill.losses=[{kind: soft, temperature: 0}]", "expected a number above 0"),
        ("distill.losses=[{kind: soft, temperature: {start: 0, end: 1}}]", "expected a temperature above 0"),
        ("distill.transfer.excluded_classes={label: [3]}", "no target 'label'"),
        ("distill.min_gain=true distill.baseline=false", "no gain without a baseline"),
        ("runtime.strategy=multi_worker", "which worker processes cannot share"),
        ("distill=null", "the recipe has no section `distill`"),
    ],
)
def test_mistakes_cost_no_training(setting: str, message: str, bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    arguments = setting.split(" distill.") if " distill." in setting else [setting]
    arguments = [arguments[0], *(f"distill.{each}" for each in arguments[1:])]
    done = bmcli("distill", recipe, *arguments)
    assert done.code == 2, done.err
    assert message in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", ["folder", "run", "pipe", "device"])
def test_a_teacher_that_is_no_file_costs_no_training_and_no_time(
    kind: str, bmcli: Bmcli, recipe: Path, tmp_path: Path
) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "teacher.keras"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind != "device":
        path.mkdir()
    if kind == "run":
        (path / "model.keras").touch()
    done = bmcli("distill", recipe, f"distill.teacher={{file: {path}}}")
    assert done.code == 2, done.err
    what = "a folder" if kind in ("folder", "run") else "a device or pipe"
    assert f"{path.name}: is {what}, expected a .keras file." in done.err
    assert (f"Write teacher: {{run: {path}}}" in done.err) == (kind == "run")
    assert not (tmp_path / "runs").exists()


def test_validate_checks_the_student_too(bmcli: Bmcli, recipe: Path) -> None:
    done = bmcli("validate", recipe, "distill.student={modl: {}}")
    assert done.code == 2
    assert "distill.student.modl" in done.err


def test_a_metric_that_is_not_measured_is_a_fault(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    done = bmcli("distill", recipe, "distill.metric=accurcy", "train.epochs=1")
    assert done.code == 2
    assert "Did you mean 'accuracy'?" in done.err
    assert runs_of(tmp_path, "flowers") == []
