"""Commands that messages advise are run: obeying leads on. `tests/test_advice.py` lists which test obeys which."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bmcli import disk
from bmcli.commands.train import train
from bmcli.messages import write_message
from bmcli.runs import Run
from bmcli.training.progress import LineProgress
from bmcli.workflows.training import TrainingContext
from tests.commands.conftest import Bmcli, bmcli, obey, read_advised_commands, read_advised_overrides, try_advice

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
bmcli: 1
name: small
data: {source: {kind: csv, path: my table.csv}, targets: {label: category}}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 32, tensorboard: false}
runtime: {jit: false, strategy: one_device}
evaluate: {intervals: {resamples: 100}}
"""
TUNE = """\
tune:
  trials: 2
  workers: 1
  confirm: none
  space: {model.hidden: {choice: [[2], [3], [4], [5]]}}
"""
DISTILL = """\
distill: {baseline: false, student: {model: {hidden: [2]}}}
"""


def write_table(path: Path, rows: int = 120) -> None:
    draw = random.Random(5)
    cells = [[draw.random() for _ in range(3)] for _ in range(rows)]
    lines = [",".join(f"{cell:.3f}" for cell in row) + f",{'xyz'[row.index(max(row))]}" for row in cells]
    path.write_text("\n".join(["a,b,c,label", *lines]) + "\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run, in a folder whose name a shell would take apart."""
    folder = tmp_path_factory.mktemp("obeyed")
    write_table(folder / "my table.csv")
    (folder / "small.yaml").write_text(RECIPE)
    context = TrainingContext(
        folder / "my runs", folder / "cache", lambda title: LineProgress(write_message), write_message
    )
    train(str(folder / "small.yaml"), [], context)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_table(tmp_path / "my table.csv")
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path / "small.yaml"


@pytest.fixture
def run(trained: Path, recipe: Path, tmp_path: Path) -> Run:
    """A copy of the trained run."""
    shutil.copytree(trained / "my runs", tmp_path / "my runs", symlinks=True)
    (folder,) = (tmp_path / "my runs" / "small").glob("2*")
    return Run(folder)


def test_who_has_no_run_is_led_to_one(bmcli: Bmcli, recipe: Path) -> None:
    faulty = bmcli("evaluate", "small")
    assert faulty.code == 2
    assert "no run 'small'" in faulty.err
    other = bmcli("validate", recipe, "model={from: small}")
    assert other.code == 2
    assert read_advised_commands(other.err) == read_advised_commands(faulty.err)
    obey(bmcli, faulty.err, RECIPE=recipe)
    assert bmcli("evaluate", "small").code == 0
    assert bmcli("validate", recipe, "model={from: small}", "name=other").code == 0


def test_an_empty_list_of_runs_leads_to_a_run(bmcli: Bmcli, tmp_path: Path) -> None:
    empty = bmcli("runs")
    assert empty.code == 0
    obey(bmcli, empty.err, "train.epochs=1")
    assert "digits" in bmcli("runs").out


def test_who_names_no_recipe_is_led_to_the_built_in_ones(bmcli: Bmcli) -> None:
    faulty = bmcli("validate", "qqqqqq")
    assert faulty.code == 2
    assert "digits" in obey(bmcli, faulty.err).out


def test_an_empty_recipe_leads_to_the_built_in_ones(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    faulty = bmcli("validate", "empty.yaml")
    assert faulty.code == 2
    assert "`bmcli init DATA`" in faulty.err
    assert "digits" in obey(bmcli, faulty.err.replace("`bmcli init DATA`", "")).out


def test_a_foreign_base_leads_to_its_faults(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "my base.yaml").write_text("seed: 1\nsecret: x\n")
    recipe.write_text(RECIPE + "extends: my base.yaml\n")
    faulty = bmcli("validate", recipe)
    assert faulty.code == 2
    shown = try_advice(bmcli, faulty.err)
    assert "secret: no such key" in shown.err
    assert "secret: no such key" not in faulty.err


def test_a_draft_is_trained_by_its_own_words(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    drafted = bmcli("init", "my table.csv")
    assert drafted.code == 0, drafted.err
    (written,) = set(tmp_path.glob("*.yaml")) - {recipe}
    first_line = written.read_text().splitlines()[0]
    assert f"`{first_line.removeprefix('# ')}`" in drafted.out, "the recipe begins with the same command"
    obey(bmcli, drafted.out, "train.epochs=1")


@pytest.mark.slow
def test_pictures_that_look_alike_lead_to_a_sheet(bmcli: Bmcli, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "recipe.yaml").write_text(
        "bmcli: 1\nname: black\ndata: {source: {kind: image_folder, path: pictures}, "
        "inputs: {image: {kind: image, size: [16, 16]}}, targets: {label: category}}\n"
        "model: {kind: cnn, filters: [2]}\ntrain: {epochs: 1, batch_size: 8, tensorboard: false}\n"
    )
    trained = bmcli("train", "recipe.yaml")
    assert "every picture" in trained.err or "`bmcli plan" in trained.err, trained.err
    (found,) = [line for line in trained.err.splitlines() if "bmcli plan" in line]
    obey(bmcli, found, RECIPE="recipe.yaml", FILE="sheet.png")
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    "name",
    [
        "status.json",
        "explanation.json",
        *(pytest.param(f"{name}.json", marks=pytest.mark.slow) for name in ("evaluation", "benchmark")),
    ],
)
def test_a_damaged_file_of_a_run_is_written_again(bmcli: Bmcli, run: Run, name: str) -> None:
    if name == "explanation.json":
        assert bmcli("explain", run.folder).code == 0
    if name == "benchmark.json":
        assert bmcli("export", run.folder, "--formats", "keras").code == 0
        assert bmcli("benchmark", run.folder).code == 0
    file = next(run.folder.rglob(name))
    file.write_text("{")
    reader = ("export", run.folder, "--formats", "keras") if name == "evaluation.json" else ("report", run.folder)
    shown = next(line for line in bmcli(*reader).err.splitlines() if f"{name}: damaged" in line and "`bmcli" in line)
    if "Delete it" in shown:
        file.unlink()
    obey(bmcli, shown)
    again = bmcli(*reader)
    assert again.code == 0
    assert name not in again.err


def test_a_model_of_a_killed_training_is_written_again(bmcli: Bmcli, run: Run) -> None:
    run.model.write_bytes(run.model.read_bytes() + b" ")
    run.set_status("running")
    faulty = bmcli("evaluate", run.folder)
    assert faulty.code == 2
    obey(bmcli, faulty.err)
    assert bmcli("evaluate", run.folder).code == 0


@pytest.mark.slow
def test_a_report_that_was_not_written_is_written_by_the_advised_command(
    bmcli: Bmcli, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = disk.write_atomically

    def refuse(path: Path, *arguments: object) -> None:
        if path.name == "report.html":
            raise OSError(30, "Read-only file system")
        write(path, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(disk, "write_atomically", refuse)
        done = bmcli("train", recipe, "--runs", "my runs")
        assert done.code == 1, done.err
    (page,) = (path.with_name("report.html") for path in tmp_path.glob("my runs/small/2*/model.keras"))
    assert not page.exists()
    obey(bmcli, done.err)
    assert page.exists()
    with monkeypatch.context() as patched:
        patched.setattr(disk, "write_atomically", refuse)
        exported = bmcli("export", page.parent, "--formats", "keras")
        assert "the report was not updated" in exported.err
    before = page.read_text()
    obey(bmcli, exported.err)
    assert page.read_text() != before


def test_batches_that_are_too_large_fit_in_the_advised_number_of_parts(
    bmcli: Bmcli, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from bmcli.training.trainer import Trainer

    fitting = Trainer._train

    def train_in_little_memory(self: Trainer, *arguments: Any) -> None:
        if self.micro_batches < 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")
        fitting(self, *arguments)

    monkeypatch.setattr(Trainer, "_train", train_in_little_memory)
    faulty = bmcli("train", recipe)
    assert faulty.code == 1
    assert "out of memory" in faulty.err
    done = bmcli("train", recipe, *read_advised_overrides(faulty.err))
    assert done.code == 0, done.err


def test_what_cannot_be_planned_is_planned_as_advised(bmcli: Bmcli, recipe: Path) -> None:
    faulty = bmcli("plan", recipe, "runtime.strategy=tpu")
    assert faulty.code == 2
    assert bmcli("plan", recipe, *read_advised_overrides(faulty.err)).code == 0


@pytest.mark.slow
def test_a_curve_that_draws_its_own_samples_is_measured_without_another(bmcli: Bmcli, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("targets:", "sample: 0.9, targets:"))
    faulty = bmcli("evaluate", recipe, "--learning-curve")
    assert faulty.code == 2
    done = bmcli("evaluate", recipe, "--learning-curve", *read_advised_overrides(faulty.err))
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_machine_without_gpus_mirrors_as_advised(tmp_path: Path, recipe: Path) -> None:
    """In a process of its own: TensorFlow makes its devices once."""
    command = [sys.executable, "-m", "bmcli", "train", recipe, "runtime.strategy=mirrored"]
    faulty = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert faulty.returncode == 2
    done = subprocess.run([*command, *read_advised_overrides(faulty.stderr)], cwd=tmp_path, check=False)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_run_without_artefacts_is_led_to_one(bmcli: Bmcli, run: Run) -> None:
    faulty = bmcli("compare", run.folder, run.exports / "nothing")
    assert faulty.code == 2
    faulty = bmcli("benchmark", run.folder)
    obey(bmcli, faulty.err)
    assert bmcli("benchmark", run.folder).code == 0


@pytest.mark.slow
def test_a_search_is_led_from_nothing_to_its_end_and_beyond(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE + TUNE)
    nothing = bmcli("tune", "--resume", "small")
    assert "no search 'small'" in nothing.err
    obey(bmcli, nothing.err, "--runs", "my runs", RECIPE=recipe)
    (study,) = tmp_path.glob("my runs/small-tune/2*")
    over = bmcli("tune", "--join", study)
    assert over.code == 2
    finished = try_advice(bmcli, over.err)
    assert "is already completed" in finished.err
    longer = obey(bmcli, finished.err, "--json")
    assert len(longer.json()["trials"]) == 4


@pytest.mark.slow
def test_a_distillation_is_led_from_nothing_to_its_end(bmcli: Bmcli, recipe: Path) -> None:
    recipe.write_text(RECIPE + DISTILL)
    nothing = bmcli("distill", "--resume", "small")
    assert "no distillation 'small'" in nothing.err
    obey(bmcli, nothing.err, RECIPE=recipe)
    assert "is already completed" in bmcli("distill", "--resume", "small").err


@pytest.mark.slow
def test_workers_that_know_no_others_are_led_to_two_on_this_machine(bmcli: Bmcli, recipe: Path) -> None:
    faulty = bmcli("train", recipe, "--strategy", "multi_worker")
    assert faulty.code == 2
    obey(bmcli, faulty.err, RECIPE=recipe)
