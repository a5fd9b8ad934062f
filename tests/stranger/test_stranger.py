"""A stranger's package brings parts of every sort, and all verbs work with them, without a line of bmcli for it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

import bmcli as package
from bmcli import plugins
from bmcli.errors import BmcliError
from bmcli.networks.network import load_serving_model
from bmcli.runs import Run
from tests.commands.conftest import Bmcli
from tests.commands.test_kill import Killed
from tests.export.forging import forge_preprocessing
from tests.export.test_examples import run_program
from tests.stranger.traces import RECIPE, ROWS, mark_readings

PARTS = {
    "augmentations.reversal", "data.targets.marks", "distillation.losses.softened_marks", "export.formats.archive",
    "inputs.trace", "layers.seismology", "models.filters", "objectives.marking",
}  # fmt: skip
METRICS = {"mark_accuracy", "row_accuracy", "log_loss"}
SHORT = RECIPE.replace("epochs: 14", "epochs: 3")


def weights_of(run: Path) -> list[np.ndarray]:
    return [weight.numpy() for weight in load_serving_model(run / "model.keras").weights]


def predict_file(model: keras.Model, traces: list[str]) -> np.ndarray:
    return np.asarray(model({"trace": keras.ops.convert_to_tensor(traces)})["marks"])


def test_the_package_has_a_part_of_every_sort_and_bmcli_knows_none_of_them() -> None:
    assert {each.part for each in plugins.list_plugins()} == PARTS
    words = ("seismology", "softened_marks", "TraceEncoder")
    files = list(Path(package.__file__).parent.rglob("*.py"))
    assert len(files) > 300
    assert not [file for file in files if any(word in file.read_text() for word in words)]


def test_a_recipe_with_them_is_written_checked_and_described(bmcli: Bmcli, recipe: Path) -> None:
    written = bmcli("init", "quakes.csv", "--target", "station", "--output", "written.yaml")
    assert written.code == 0, written.err
    inputs = yaml.safe_load(Path("written.yaml").read_text())["data"]["inputs"]
    assert inputs["trace"] == "trace"
    marked = bmcli("init", "quakes.csv", "--target", "marks", "--output", "marked.yaml")
    assert marked.code == 0, marked.err
    assert yaml.safe_load(Path("marked.yaml").read_text())["data"]["targets"] == {"marks": {"kind": "marks"}}
    assert bmcli("validate", recipe).code == 0
    faulty = bmcli("validate", recipe, "model={kind: filters, widht: 3}")
    assert faulty.code == 2
    assert "Did you mean 'width'?" in faulty.err
    wrong = bmcli("validate", recipe, "objective=classification")
    assert "classification does not suit target 'marks' of kind marks." in wrong.err
    wrong = bmcli("validate", recipe, "data.augment={trace: [flip]}")
    assert "flip changes inputs of kind image, not trace. Suitable for trace: reversal." in wrong.err
    assert "Channels of each convolution." in bmcli("schema").out
    checks = {check["name"] for check in bmcli("doctor", "--json").json()["checks"]}
    assert {f"plug-in {part}" for part in PARTS} <= checks


def test_plan_shows_columns_and_layers(bmcli: Bmcli, recipe: Path) -> None:
    planned = bmcli("plan", recipe)
    assert planned.code == 0, planned.err
    assert "8x2" in planned.out
    assert "947 parameters" in planned.out


def test_it_learns_while_marks_move_with_traces(run: Run, kept: dict[str, Any]) -> None:
    assert kept["json"]["metrics"]["validation/mark_accuracy"] > 0.93
    recorded = yaml.safe_load(run.lock.read_text())["plugins"]
    assert set(recorded) == PARTS - {
        "layers.seismology",
        "distillation.losses.softened_marks",
        "export.formats.archive",
    }


def test_evaluate_has_intervals_and_slices(bmcli: Bmcli, run: Run) -> None:
    done = bmcli("evaluate", run.folder, "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert {f"test/{name}" for name in METRICS} == set(result["metrics"])
    assert result["metrics"]["test/mark_accuracy"] > 0.93
    record = json.loads((run.folder / "evaluation.json").read_text())["test"]
    assert set(record["intervals"]) == METRICS
    for name, interval in record["intervals"].items():
        assert interval["low"] < record["metrics"][name] < interval["high"]
    text = json.dumps(record)
    assert "south" in text
    assert "north" in text


def test_predict_writes_texts_in_any_format(bmcli: Bmcli, run: Run) -> None:
    done = bmcli("predict", run.folder, "quakes.csv", "--output", "predicted.csv")
    assert done.code == 0, done.err
    with open("predicted.csv", newline="") as file:
        predicted = list(csv.DictReader(file))
    with open("quakes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(predicted) == len(rows) == ROWS
    assert all(0 < float(row["marks_confidence"]) <= 1 for row in predicted)
    found, truth = ([row["marks"].split() for row in table] for table in (predicted, rows))
    assert [*map(len, found)] == [*map(len, truth)]
    right = [a == b for one, other in zip(found, truth, strict=True) for a, b in zip(one, other, strict=True)]
    assert np.mean(right) > 0.93


def test_explain_ranks_the_input_and_shows_examples(bmcli: Bmcli, run: Run) -> None:
    done = bmcli("explain", run.folder, "--json")
    assert done.code == 0, done.err
    explained = json.loads((run.folder / "explanation.json").read_text())
    assert "trace" in json.dumps(explained)
    assert "log-probability of marks" in (run.folder / "report.html").read_text()


def test_artefacts_of_its_format_and_of_bmcli_are_verified(bmcli: Bmcli, run: Run) -> None:
    done = bmcli("export", run.folder, "--formats", "archive,saved_model", "--json")
    assert done.code == 0, done.err
    exports = run.folder / "exports"
    for name in ("archive", "saved_model"):
        verification = json.loads((exports / name / "card.json").read_text())["verification"]
        assert verification["verified"]
        assert "a trace that is too long in 'trace'" in verification["edge_cases"]
    names = json.loads((exports / "archive" / "weights.json").read_text())
    with np.load(exports / "archive" / "weights.npz") as archive:
        sizes = [archive[str(index)].size for index in range(len(names))]
    assert sum(sizes) == 947
    for name in ("archive", "saved_model"):
        (answer,) = run_program(exports / name).values()
        assert set(answer.split()) <= {"peak", "dip", "slope"}
    assert bmcli("report", run.folder).code == 0
    assert "archive" in (run.folder / "report.html").read_text()


def test_a_format_without_texts_has_the_encoder_of_the_package_beside_it(bmcli: Bmcli, run: Run) -> None:
    done = bmcli("export", run.folder, "--formats", "litert", "--json")
    assert done.code == 0, done.err
    folder = run.folder / "exports" / "litert"
    verification = json.loads((folder / "card.json").read_text())["verification"]
    assert verification["verified"], verification
    assert "a trace that is too long in 'trace'" in verification["edge_cases"]
    assert np.shape(run_program(folder)["marks"]) == (8, 4)
    code = (
        "import json; from encoder import encode\n"
        "(column,) = [each for each in json.load(open('preprocessing.json'))['inputs'] if each['kind'] == 'trace']\n"
        "print(encode(column, ['1 2', '']).shape)\n"
    )
    encoded = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert encoded.stdout.strip() == "(2, 8, 2)"
    confidences = []
    for name, predictor in (("first.csv", run.folder), ("second.csv", folder)):
        assert bmcli("predict", predictor, "quakes.csv", "--output", name).code == 0
        with open(name, newline="") as file:
            confidences.append([float(row["marks_confidence"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*confidences, atol=1e-4)
    forge_preprocessing(folder, lambda values: values["inputs"][0]["state"].update(mean="much"))
    rejected = bmcli("predict", folder, "quakes.csv", "--trust-artefact")
    assert rejected.code == 4
    assert "the trace 'trace' has no mean and scale" in rejected.err


@pytest.mark.slow
def test_a_student_learns_from_a_file_because_its_objective_knows_how(bmcli: Bmcli, run: Run, recipe: Path) -> None:
    options = f"{{teacher: {{file: {run.model}}}, student: {{model: {{width: 8}}}}, losses: [soft], baseline: false}}"
    done = bmcli("distill", recipe, "train.epochs=4", "data.augment=null", f"distill={options}", "--json")
    assert done.code == 0, done.err
    assert done.json()["student"]["test/mark_accuracy"] > 0.65


@pytest.mark.slow
def test_a_served_model_answers_with_a_text(bmcli: Bmcli, run: Run) -> None:
    assert bmcli("export", run.folder, "--formats", "archive").code == 0
    code = (
        "import sys, tensorflow as tf\n"
        "served = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "print(served(trace=tf.constant(['-3 3 -3', '']))['marks'].numpy().tolist())\n"
    )
    folder = run.folder / "exports" / "archive" / "1"
    served = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert served.stdout.strip() == str([b"dip peak dip", b""])


def test_two_trials_are_compared(bmcli: Bmcli, recipe: Path) -> None:
    space = "{space: {model.width: {choice: [4, 16]}}, trials: 2, confirm: {seeds: 1}}"
    done = bmcli("tune", recipe, "train.epochs=2", f"tune={space}", "--json")
    assert done.code == 0, done.err
    assert [trial["state"] for trial in done.json()["trials"]] == ["done", "done"]


@pytest.mark.parametrize("losses", ["[hard, softened_marks]", "null"])
def test_a_student_learns_from_one_teacher(bmcli: Bmcli, run: Run, recipe: Path, losses: str) -> None:
    options = f"{{teacher: {{run: {run.folder}}}, student: {{model: {{width: 8}}}}, losses: {losses}, baseline: false}}"
    done = bmcli("distill", recipe, "train.epochs=4", "data.augment={}", f"distill={options}", "--json")
    assert done.code == 0, done.err
    assert done.json()["student"]["test/mark_accuracy"] > 0.65


def test_teachers_of_steps_are_merged(bmcli: Bmcli, run: Run, recipe: Path) -> None:
    teachers = f"[{{run: {run.folder}}}, {{run: {run.folder}, weight: 2.0}}]"
    options = f"{{teacher: {teachers}, losses: [softened_marks], baseline: false}}"
    done = bmcli("distill", recipe, "train.epochs=4", f"distill={options}", "--json")
    assert done.code == 0, done.err
    assert done.json()["teacher"]["test/mark_accuracy"] > 0.93


def test_its_runs_are_compared(bmcli: Bmcli, run: Run, recipe: Path) -> None:
    other = bmcli("train", recipe, "train.epochs=2", "model.width=4", "--json").json()["run"]
    compared = bmcli("compare", run.folder, other, "--json")
    assert compared.code == 0, compared.err
    assert compared.json()["recommended"] == "quakes copy"


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path, recipe: Path) -> None:
    text = SHORT.replace("quakes\n", "killed\n").replace("path: quakes.csv", f"path: {tmp_path / 'quakes.csv'}")
    text = text.replace("epochs: 3", "epochs: 40, checkpoint: {steps: 1}")
    whole, killed = (Killed(tmp_path / name, recipe=text) for name in ("whole", "killed"))
    whole.to_the_end()
    process = killed.start()
    assert killed.until_it_trains(process)
    process.kill()
    process.wait()
    killed.to_the_end()
    assert killed.result() == whole.result()


@pytest.mark.slow
def test_two_replicas_learn_what_one_device_learns(bmcli: Bmcli, tmp_path: Path, recipe: Path) -> None:
    one = Path(bmcli("train", recipe, "train.epochs=3", "--json").json()["run"])
    command = [sys.executable, "-m", "bmcli", "train", recipe, "train.epochs=3", "--strategy", "mirrored"]
    done = subprocess.run(
        [*command, "--replicas", "2", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for first, second in zip(weights_of(one), weights_of(Path(json.loads(done.stdout)["run"])), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.slow
def test_a_saved_network_is_loaded_with_its_layers(bmcli: Bmcli, run: Run) -> None:
    assert bmcli("export", run.folder, "--formats", "keras").code == 0
    model = load_serving_model(run.model)
    probabilities = predict_file(model, ["0.1 2.0 -1.0"])
    assert probabilities.shape == (1, 8, 4)
    assert mark_readings([0.1, 2.0, -1.0]) == "dip peak dip"
    assert probabilities[0, :, 3].round(3).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_layer_that_no_plug_in_lists_is_not_loaded_from_a_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "list_kinds", lambda room: ())
    with pytest.raises(BmcliError, match="registered as 'seismology>TraceEncoder', which bmcli does not know"):
        load_serving_model(run.model)
