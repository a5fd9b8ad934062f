"""`bmcli evaluate --folds`: every row is tested once, by a network that has not seen it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score

from bmcli.runs import Run
from bmcli.tuning.training_jobs import JobBatch, find_unfinished
from tests.commands.conftest import Bmcli, bmcli
from tests.reports.pages import Page

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
name: houses
data:
  source: {kind: csv, path: houses.csv}
  split: {test: 0.2}
  inputs: {size: {kind: number}, age: {kind: number}, street: {kind: category}}
  targets: {price: {kind: number}}
model: {kind: linear}
train:
  epochs: 100
  batch_size: 32
  optimizer: {kind: adam, learning_rate: 0.1}
  schedule: {kind: cosine}
  select: {metric: last}
"""


CHANGES = ["train.epochs=2", "evaluate.folds=3", "data.split={validation: 0.1, test: 0.1}"]


def write_houses(folder: Path, rows: int = 150) -> np.ndarray:
    """Write prices that are a sum of size and age; one house is the only one in its street."""
    dice = np.random.default_rng(0)
    size, age = dice.normal(100, 30, rows), dice.normal(50, 20, rows)
    price = 3 * size - 2 * age + dice.normal(0, 40, rows)
    street = dice.choice(["a", "b"], rows).astype("<U9")
    street[7] = "own"
    lines = [f"{s:.6f},{a:.6f},{t},{p:.6f}" for s, a, t, p in zip(size, age, street, price, strict=True)]
    (folder / "houses.csv").write_text("\n".join(["size,age,street,price", *lines]) + "\n")
    (folder / "houses.yaml").write_text(RECIPE)
    return np.column_stack([size, age, price])


@pytest.mark.slow
def test_folds_equal_those_of_scikit_learn_for_a_linear_model(bmcli: Bmcli, tmp_path: Path) -> None:
    table = write_houses(tmp_path)
    done = bmcli("evaluate", "houses.yaml", "--folds", 3, "data.inputs.street=null", "--workers", 2, "--json")
    assert done.code == 0, done.err
    found = done.json()
    with (Path(found["run"]) / "predictions.csv").open() as file:
        tested = list(csv.DictReader(file))
    rows, folds = (np.array([int(row[name]) for row in tested]) for name in ("row", "fold"))
    assert len(set(rows)) == len(rows) == 120
    predicted = np.array([float(row["price"]) for row in tested])
    for number in (1, 2, 3):
        inside, outside = rows[folds == number] - 1, rows[folds != number] - 1
        reference = LinearRegression().fit(table[outside, :2], table[outside, 2]).predict(table[inside, :2])
        truth = table[inside, 2]
        assert found["folds"][number - 1]["r2"] == pytest.approx(r2_score(truth, reference), abs=0.01)
        assert found["folds"][number - 1]["mae"] == pytest.approx(mean_absolute_error(truth, reference), rel=0.01)
        assert np.abs(predicted[folds == number] - reference).max() < 0.01 * np.ptp(table[:, 2])
    each = [fold["r2"] for fold in found["folds"]]
    assert found["metrics"]["folds/r2"] == pytest.approx(np.mean(each))
    assert found["standard_deviation"]["folds/r2"] == pytest.approx(np.std(each, ddof=1))
    interval = found["intervals"]["folds/r2"]
    assert interval["low"] < np.mean(each) < interval["high"]
    assert found["pooled"]["r2"] == pytest.approx(r2_score(table[rows - 1, 2], predicted), abs=1e-4)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """Cross-validation with validation rows, for the tests below."""
    from bmcli.commands.folds import cross_validate
    from bmcli.recipe.load import load_recipe
    from bmcli.tuning.retraining import RecipeToRetrain, RetrainingContext

    folder = tmp_path_factory.mktemp("houses")
    write_houses(folder)
    loaded = load_recipe(str(folder / "houses.yaml"), CHANGES)
    return cross_validate(
        RecipeToRetrain(loaded, None), RetrainingContext(folder / "runs", cache, 2, lambda finished: None, print)
    ).run


def test_what_a_fold_prepares_never_saw_the_rows_it_is_tested_on(validated: Run) -> None:
    with (validated.folder / "predictions.csv").open() as file:
        fold_of = {int(row["row"]): int(row["fold"]) for row in csv.DictReader(file)}
    held_out = fold_of[8]
    for number in (1, 2, 3):
        spec = json.loads(Run(validated.folder / f"fold-{number}").data.read_text())
        street = next(column for column in spec["inputs"] if column["name"] == "street")
        if number == held_out:
            assert "own" not in street["classes"]
        assert spec["counts"]["train"] + spec["counts"]["validation"] == sum(n != number for n in fold_of.values())
        assert spec["counts"]["validation"] == pytest.approx(0.11 * len(fold_of) * 2 / 3, abs=1.5)


def test_a_cross_validation_keeps_all_it_found(validated: Run) -> None:
    found = validated.read_evaluations()["folds"]
    assert [fold["number"] for fold in found["folds"]] == [1, 2, 3]
    assert found["splitter"] == "at random"
    assert found["pooled"]["intervals"]["r2"]["method"].startswith("BCa bootstrap")
    assert "Nadeau and Bengio" in found["method"]


def test_a_cross_validation_has_a_page(validated: Run) -> None:
    page = Page(validated.report.read_text(encoding="utf-8"))
    assert "135 rows in 3 folds, split at random." in page.text
    assert page.count("svg") == 3  # of MAE, RMSE and R2
    assert "all out-of-fold predictions" in page.text


@pytest.mark.parametrize("name", ["test.npz", "data.json", "status.json", "recipe.lock.yaml"])
def test_a_fold_with_a_damaged_file_is_not_done(validated: Run, tmp_path: Path, name: str) -> None:
    shutil.copytree(validated.folder, tmp_path / "copy")
    batch, (job, *_) = JobBatch(tmp_path / "copy"), JobBatch(validated.folder).jobs()
    assert batch.is_done(job)
    file = batch.run(job.name).folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not batch.is_done(job)


@pytest.mark.slow
def test_one_that_was_interrupted_goes_on_and_keeps_what_is_done(validated: Run, tmp_path: Path, cache: Path) -> None:
    from bmcli.commands.folds import cross_validate
    from bmcli.recipe.load import load_recipe
    from bmcli.tuning.retraining import RecipeToRetrain, RetrainingContext

    expected = validated.read_evaluations()["folds"]
    root = validated.folder.parent.parent
    loaded = load_recipe(str(root.parent / "houses.yaml"), CHANGES)
    validated.evaluation.rename(tmp_path / "evaluation.json")
    Run(validated.folder / "fold-2").set_status("running")  # by a process that is gone
    trained, messages = [], []
    setting = RetrainingContext(root, cache, 1, lambda finished: trained.append(finished.job.name), messages.append)
    before = Run(validated.folder / "fold-1").status()
    found = cross_validate(RecipeToRetrain(loaded, None), setting)
    assert found.run == validated
    assert "which was interrupted; finished trainings are kept" in messages[0]
    assert Run(validated.folder / "fold-1").status() == before
    again = [{**fold, "seconds": 0} for fold in validated.read_evaluations()["folds"]["folds"]]
    assert again == [{**fold, "seconds": 0} for fold in expected["folds"]]
    assert sorted(trained) == ["fold-1", "fold-2", "fold-3"]

    other = find_unfinished(
        root, "houses-folds", load_recipe(str(root.parent / "houses.yaml"), [*CHANGES, "seed=9"]), ()
    )
    assert other is None  # what is done is of another recipe


@pytest.mark.slow
def test_what_folds_found_is_part_of_the_report_of_the_run(bmcli: Bmcli, tmp_path: Path) -> None:
    write_houses(tmp_path)
    assert bmcli("train", "houses.yaml", "train.epochs=2").code == 0
    done = bmcli("evaluate", "houses", "--folds", 2, "--workers", 1)
    assert done.code == 0, done.err
    assert bmcli("evaluate", "houses", "--data", "houses.csv").code == 0
    page = Page((tmp_path / "runs" / "houses" / "latest" / "report.html").read_text(encoding="utf-8"))
    assert "120 rows in 2 folds, split at random." in page.text
    assert "metric test houses.csv" in page.text


def test_a_fold_can_be_trained_by_itself(bmcli: Bmcli, tmp_path: Path, validated: Run) -> None:
    write_houses(tmp_path)
    done = bmcli(
        "train", "houses.yaml", "train.epochs=2", "data.split={validation: 0.1, test: 0.1, fold: {number: 2, of: 3}}",
        "--json",
    )  # fmt: skip
    expected = validated.read_evaluations()["folds"]["folds"][1]["metrics"]["mae"]
    assert done.json()["metrics"]["test/mae"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_gates_hold_the_mean_of_folds_and_recipes_can_ask_for_them(bmcli: Bmcli, tmp_path: Path) -> None:
    write_houses(tmp_path)
    done = bmcli(
        "evaluate", "houses.yaml", "evaluate.folds=2", "train.epochs=1", "evaluate.gates.r2='> 0.999'",
        "evaluate.slices=[street]", 
    )  # fmt: skip
    assert done.code == 3
    assert "gate missed: folds/r2" in done.err
    assert "price by slice" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "200"], "200"),
        (["--folds", "3", "--split", "test"], "exclude --split and --data"),
        (["--folds", "100", "data.split={test: 0.9}"], "100 folds need more than"),
        (["--folds", "3", "model.hidden=[3]"], "hidden"),
        (["--folds", "3", "data.split={group: town}"], "no column 'town'"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_is_trained(
    bmcli: Bmcli, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_houses(tmp_path)
    done = bmcli("evaluate", "houses.yaml", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_learning_curve_says_what_would_help(bmcli: Bmcli, tmp_path: Path) -> None:
    write_houses(tmp_path, 300)
    done = bmcli(
        "evaluate", "houses.yaml", "--learning-curve", "train.epochs=2", "data.split={validation: 0.3, test: 0.2}"
    )
    assert done.code == 0, done.err
    assert "train/mae" in done.out
    assert "more data" in done.out.lower()
    (folder,) = (tmp_path / "runs" / "houses-learning-curve").glob("2*")
    (curve,) = Run(folder).read_evaluations()["learning_curve"]["targets"]
    assert [(point["share"], point["rows"]) for point in curve["points"]] == [(0.4, 60), (0.7, 105), (1.0, 150)]
    assert curve["gain_from_more_rows"]["metric"] == curve["metric"] == "mae"


def test_a_learning_curve_needs_validation_rows(bmcli: Bmcli, tmp_path: Path) -> None:
    write_houses(tmp_path)
    done = bmcli("evaluate", "houses.yaml", "--learning-curve", "--json")
    assert (done.code, done.json()["faults"][0]["path"]) == (2, "data.split")
    assert "exclude each other" in bmcli("evaluate", "houses.yaml", "--learning-curve", "--folds", "2").err
