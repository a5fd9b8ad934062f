"""Metrics say of which class and with which weights of rows they are: in the run, on the console, in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from bmcli.runs import Run
from bmcli.workflows.training import TrainingResult
from tests.commands.conftest import Bmcli

RECIPE = """\
name: credit
data:
  source: {kind: csv, path: credit.csv}
  split: {column: part}
  weight: worth
  targets: {status: {kind: category}}
model: {kind: linear}
train:
  {epochs: 3, batch_size: 32, tensorboard: false, metrics: [precision], optimizer: {kind: adam, learning_rate: 0.05}}
evaluate: {fairness: {columns: [home]}, gates: {row_weighted_accuracy: '>= 0.1'}}
"""

Train = Callable[..., TrainingResult]


def write_credit(folder: Path, rows: int = 400) -> Path:
    """Write rows of which a quarter is bad; the weight of a row follows from neither score nor status."""
    dice = np.random.default_rng(1)
    bad = dice.random(rows) < 0.25
    score, worth = dice.normal(size=rows) - bad, dice.uniform(0, 4, rows)
    home, part = dice.choice(["own", "rent"], rows), np.repeat(["train", "validation", "test"], [200, 80, 120])
    lines = [
        f"{s:.4f},{h},{w:.4f},{p},{'bad' if b else 'good'}"
        for s, h, w, p, b in zip(score, home, worth, part, bad, strict=True)
    ]
    (folder / "credit.csv").write_text("\n".join(["score,home,worth,part,status", *lines]) + "\n")
    (folder / "credit.yaml").write_text(RECIPE)
    return folder / "credit.yaml"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Train:
    """Trains the recipe of this module with some overrides."""
    from bmcli.commands.train import train
    from bmcli.terminal.console import Console
    from bmcli.workflows.training import TrainingContext

    folder = tmp_path_factory.mktemp("credit")
    recipe = write_credit(folder)
    context = TrainingContext(folder / "runs", cache, Console(verbosity=-1).make_progress, lambda text, level=0: None)
    return lambda *overrides: train(str(recipe), list(overrides), context)


@pytest.fixture(scope="module")
def trained(train: Train) -> TrainingResult:
    return train()


@pytest.fixture(scope="module")
def of_good(train: Train) -> TrainingResult:
    """The same training with the frequent class as the positive one."""
    return train("objective={kind: classification, positive: good}")


def get_run(result: TrainingResult) -> Run:
    assert result.run is not None
    return result.run


def get_rows(result: TrainingResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities of `bad` and `good`, and weights of the test rows."""
    assert result.evaluation is not None
    predicted = result.evaluation.predicted_rows
    assert predicted.rows.weights is not None
    return predicted.truth["status"], predicted.predictions["status"], np.asarray(predicted.rows.weights)


def test_the_rarer_class_is_positive_and_the_lock_file_says_so(trained: TrainingResult, bmcli: Bmcli) -> None:
    run = get_run(trained)
    lock = run.lock.read_text()
    (line,) = [line for line in lock.splitlines() if "positive:" in line and "#" in line and "auto" in line]
    assert line.split() == ["positive:", "bad", "#", "auto"]
    (output,) = json.loads(run.data.read_text())["outputs"]
    assert output["state"] == {"positive": "bad"}
    kept = run.read_evaluations()["test"]
    assert (kept["positive"], kept["weight"]) == ({"status": "bad"}, "worth")
    assert [each["positive"] for each in kept["fairness"]] == ["bad"]
    shown = bmcli("evaluate", run.folder).out
    assert "Positive class: 'bad'; precision, recall, f1, roc_auc and pr_auc are those of this class." in shown
    assert "Metrics named row_weighted_ count each row with its weight in 'worth'" in shown
    found = bmcli("evaluate", run.folder, "--json").json()
    assert (found["positive"], found["weight"]) == ({"status": "bad"}, "worth")
    report = run.report.read_text(encoding="utf-8")
    assert "Positive class: &#39;bad&#39;;" in report
    assert "Precision and recall of &#39;bad&#39;" in report


def test_the_positive_class_changes_metrics_and_no_weights(trained: TrainingResult, of_good: TrainingResult) -> None:
    ours, others = (each.outcome.network.model.get_weights() for each in (trained, of_good))
    assert all(np.array_equal(one, other) for one, other in zip(ours, others, strict=True))
    truth, predictions, _ = get_rows(trained)
    for result, index in ((trained, 0), (of_good, 1)):
        assert result.evaluation is not None
        found = result.evaluation.evaluation.metrics
        is_positive, is_predicted = truth == index, predictions.argmax(1) == index
        area = reference.average_precision_score(is_positive, predictions[:, index])
        assert found["pr_auc"] == pytest.approx(area)
        assert found["recall"] == pytest.approx(reference.recall_score(is_positive, is_predicted))


def test_metrics_of_epochs_are_those_of_the_positive_class(trained: TrainingResult, of_good: TrainingResult) -> None:
    values = [each.outcome.metrics["validation/precision"] for each in (trained, of_good)]
    assert values[0] != values[1]
    assert trained.outcome.metrics["validation/accuracy"] == of_good.outcome.metrics["validation/accuracy"]


def test_metrics_with_and_without_the_weights_of_rows_have_two_names(trained: TrainingResult) -> None:
    assert trained.evaluation is not None
    evaluation = trained.evaluation.evaluation
    truth, predictions, weights = get_rows(trained)
    right = predictions.argmax(1) == truth
    assert evaluation.metrics["accuracy"] == pytest.approx(right.mean())
    assert evaluation.metrics["row_weighted_accuracy"] == pytest.approx(np.average(right, weights=weights))
    area = reference.average_precision_score(truth == 0, predictions[:, 0], sample_weight=weights)
    assert evaluation.metrics["row_weighted_pr_auc"] == pytest.approx(area)
    low, high = (getattr(evaluation.intervals["row_weighted_accuracy"], end) for end in ("low", "high"))
    assert low < evaluation.metrics["row_weighted_accuracy"] < high
    epochs = get_run(trained).read_epochs()
    assert all(row["validation/accuracy"] != row["validation/row_weighted_accuracy"] for row in epochs)


def test_a_file_without_weights_has_plain_metrics_alone(trained: TrainingResult, bmcli: Bmcli, tmp_path: Path) -> None:
    write_credit(tmp_path, 400)
    lines = [line.split(",") for line in (tmp_path / "credit.csv").read_text().splitlines()]
    (tmp_path / "plain.csv").write_text("\n".join(",".join((row[0], row[1], row[4])) for row in lines) + "\n")
    run = get_run(trained)
    files = (tmp_path / "credit.csv", tmp_path / "plain.csv")
    with_weights, without = (bmcli("evaluate", run.folder, "--data", file, "--json").json() for file in files)
    assert with_weights["weight"] == "worth"
    assert "credit.csv/row_weighted_accuracy" in with_weights["metrics"]
    assert "weight" not in without
    assert not any("row_weighted" in name for name in without["metrics"])
    assert without["metrics"]["plain.csv/accuracy"] == with_weights["metrics"]["credit.csv/accuracy"]


def test_runs_with_different_positive_classes_are_compared_by_that_of_the_first(
    trained: TrainingResult, of_good: TrainingResult, bmcli: Bmcli
) -> None:
    found = bmcli("compare", get_run(trained).folder, get_run(of_good).folder, "--json").json()
    assert found["positive"] == {"status": "bad"}
    first, second = (run["metrics"] for run in found["runs"])
    # The networks are the same, so that only another class could give other values.
    assert second == first
    assert first["pr_auc"] == get_run(trained).read_evaluations()["test"]["metrics"]["pr_auc"]
