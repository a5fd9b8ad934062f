"""Teachers given by file: their classes are compared, their faults are shown where the user wrote them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from bmcli.commands.train import train
from bmcli.messages import write_message
from bmcli.training.progress import LineProgress
from bmcli.workflows.training import TrainingContext
from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

DATA = """\
bmcli: 1
name: {name}
data: {{source: {{kind: csv, path: {file}}}, targets: {{label: {target}}}}}
model: {{kind: mlp, hidden: [16]}}
train: {{epochs: {epochs}, batch_size: 32, tensorboard: false, optimizer: {{kind: adam, learning_rate: 2e-2}}}}
runtime: {{jit: false}}
evaluate: {{intervals: {{resamples: 100}}}}
"""
DISTILL = """\
distill:
  baseline: false
  teacher: {file: teacher.keras}
  student: {model: {hidden: [4]}}
"""


def write_table(path: Path, names: tuple[str, ...], rows: int = 240) -> None:
    """Write a table whose label is told by the larger of its columns."""
    draw = random.Random(3)
    lines = ["a,b,c,label"]
    for _ in range(rows):
        cells = [draw.random() for _ in range(3)]
        lines.append(",".join(f"{cell:.3f}" for cell in cells) + f",{names[cells.index(max(cells))]}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of the classes x, y and z, and a file of a model that was trained on it."""
    folder = tmp_path_factory.mktemp("teacher")
    write_table(folder / "xyz.csv", ("x", "y", "z"))
    recipe = folder / "big.yaml"
    recipe.write_text(DATA.format(name="big", file=folder / "xyz.csv", target="category", epochs=15))
    context = TrainingContext(
        folder / "runs", folder / "cache", lambda title: LineProgress(write_message), write_message
    )
    result = train(str(recipe), [], context)
    assert result.run is not None
    assert result.metrics()["test/accuracy"] > 0.8
    shutil.copy(result.run.model, folder / "teacher.keras")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The folder of the test, with the teacher and its table."""
    for name in ("xyz.csv", "teacher.keras"):
        shutil.copy(trained / name, tmp_path / name)
    return tmp_path


def write_recipe(folder: Path, target: str = "category", file: str = "xyz.csv", distill: str = DISTILL) -> None:
    text = DATA.format(name="small", file=file, target=target, epochs=2) + distill
    (folder / "small.yaml").write_text(text)


def test_a_teacher_of_other_classes_is_refused_with_both_lists(bmcli: Bmcli, folder: Path) -> None:
    write_table(folder / "abc.csv", ("a", "b", "c"))
    write_recipe(folder, file="abc.csv")
    done = bmcli("distill", "small.yaml")
    assert done.code == 2, done.err
    assert "small.yaml:10:12  distill.teacher: teacher teacher.keras does not know the class 'a'" in done.err
    assert "it predicts x, y, z, its student a, b, c" in done.err
    assert "taught" not in done.err
    assert not (folder / "runs" / "small").exists(), "no student was trained"


@pytest.mark.slow
def test_classes_in_another_order_are_matched_by_name(bmcli: Bmcli, folder: Path) -> None:
    write_recipe(folder, target="{kind: category, classes: [z, y, x]}")
    done = bmcli("distill", "small.yaml", "--json")
    assert done.code == 0, done.err
    assert "predicts 'label' as x, y, z; its student takes the classes by name, as z, y, x" in done.err
    assert done.json()["teacher"]["test/accuracy"] > 0.8
    assert "no better than" not in done.err


def test_the_number_of_the_faulty_teacher_is_told(bmcli: Bmcli, folder: Path) -> None:
    write_table(folder / "abc.csv", ("a", "b", "c"))
    teachers = "distill:\n  teacher:\n    - {recipe: other.yaml}\n    - {file: teacher.keras}\n"
    write_recipe(folder, file="abc.csv", distill=teachers)
    (folder / "other.yaml").write_text(DATA.format(name="other", file="abc.csv", target="category", epochs=1))
    done = bmcli("distill", "small.yaml")
    assert done.code == 2, done.err
    assert "small.yaml:11:7  distill.teacher.1: teacher teacher.keras does not know" in done.err


def save_foreign(path: Path, classes: int, seed: int = 1) -> None:
    """Save a model of Keras alone, which was not trained."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((), name=name) for name in "abc"}
    joined = keras.ops.stack([inputs["a"], inputs["b"], inputs["c"]], axis=1)
    # A bias that chooses the class that no row has most often.
    bias = keras.initializers.Constant([0.0] * (classes - 1) + [9.0])
    output = keras.layers.Dense(classes, "softmax", bias_initializer=bias)(joined)
    keras.Model(inputs, {"label": output}).save(path)


def test_a_foreign_teacher_with_another_number_of_classes_is_refused(bmcli: Bmcli, folder: Path) -> None:
    save_foreign(folder / "teacher.keras", 4)
    write_recipe(folder)
    done = bmcli("distill", "small.yaml")
    assert done.code == 2, done.err
    assert "small.yaml:10:12  distill.teacher: " in done.err
    assert "predicts 4 classes of 'label', expected 3: x, y, z" in done.err


@pytest.mark.slow
def test_a_teacher_below_the_baseline_is_warned_of_before_the_student_is_trained(bmcli: Bmcli, folder: Path) -> None:
    save_foreign(folder / "teacher.keras", 3)
    write_recipe(folder)
    done = bmcli("distill", "small.yaml")
    assert done.code == 0, done.err
    assert "has no names of the classes of 'label'; they are read in the order x, y, z" in done.err
    warning, training = (done.err.index(text) for text in ("warning: the teacher's accuracy of", "student-1-seed-"))
    assert warning < training
    refused = bmcli("distill", "small.yaml", "distill.teacher_gate={accuracy: '> 0.6'}")
    assert refused.code == 3, "the advice of the warning works"


def test_a_file_of_another_objective_is_refused(bmcli: Bmcli, folder: Path) -> None:
    write_recipe(folder, target="{kind: ordered, classes: [x, y, z]}")
    done = bmcli("distill", "small.yaml", "objective=ordinal")
    assert done.code == 2, done.err
    assert "has the objective classification for 'label', its student ordinal" in done.err


def test_a_fault_of_the_student_points_into_its_section(bmcli: Bmcli, folder: Path) -> None:
    write_recipe(folder, distill=DISTILL.replace("{hidden: [4]}", "{kind: cnn}"))
    done = bmcli("distill", "small.yaml")
    assert done.code == 2, done.err
    assert "small.yaml:11:" in done.err
    assert "distill.student.model" in done.err


def test_a_fault_of_folds_points_to_their_number(bmcli: Bmcli, folder: Path) -> None:
    write_table(folder / "few.csv", ("x", "y", "z"), rows=20)
    write_recipe(folder, file="few.csv", distill="")
    done = bmcli("evaluate", "small.yaml", "--folds", "100")
    assert done.code == 2, done.err
    assert "command line:1:16  evaluate.folds: " in done.err
