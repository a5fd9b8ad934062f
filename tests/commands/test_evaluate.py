"""Evaluations: intervals of metrics, slices, fairness, calibration and thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmcli.recipe.evaluate import FairnessOptions
from bmcli.runs import Run
from tests.commands.conftest import Bmcli, bmcli
from tests.evaluation.columns import answers_of, category

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
name: loans
data:
  source: {kind: csv, path: loans.csv}
  split: {train: 0.5, validation: 0.1, test: 0.4}
  inputs: {score: {kind: number}, clinic: {kind: category}}
  targets: {label: {kind: category}}
model: {kind: linear}
train: {epochs: 4, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 0.05}}
"""


def write_loans(folder: Path, rows: int = 600) -> Path:
    """Write rows with a label that follows from a score, but is random for clinic B."""
    dice = np.random.default_rng(0)
    score, clinic = dice.normal(size=rows), dice.choice(list("ABCD"), rows)
    sex, family = dice.choice(["a", "b"], rows), np.repeat(np.arange(rows // 4), 4)
    paid = np.where(clinic == "B", dice.random(rows) < 0.5, score > 0)
    lines = [
        f"{s:.4f},{c},{x},{f},{'paid' if y else 'lost'}"
        for s, c, x, f, y in zip(score, clinic, sex, family, paid, strict=True)
    ]
    (folder / "loans.csv").write_text("\n".join(["score,clinic,sex,family,label", *lines]) + "\n")
    (folder / "loans.yaml").write_text(RECIPE)
    return folder / "loans.yaml"


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """Trained run, which the tests of this module evaluate."""
    from bmcli.commands.train import train
    from bmcli.terminal.console import Console
    from bmcli.workflows.training import TrainingContext

    folder = tmp_path_factory.mktemp("loans")
    recipe = write_loans(folder)
    setting = TrainingContext(folder / "runs", cache, Console(verbosity=-1).make_progress, lambda text, level=0: None)
    trained = train(str(recipe), [], setting)
    assert trained.run is not None
    return trained.run


def test_a_file_of_another_format_is_evaluated_by_its_own(bmcli: Bmcli, loans: Run, tmp_path: Path) -> None:
    """Parquet, JSON lines and CSV with another delimiter give the metrics of the plain table."""
    from pyarrow import csv, parquet

    write_loans(tmp_path, 80)
    table = csv.read_csv(tmp_path / "loans.csv")
    parquet.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    (tmp_path / "rows.txt").write_text((tmp_path / "loans.csv").read_text().replace(",", ";"))
    found = []
    for name in ("loans.csv", "rows.parquet", "rows.jsonl", "rows.txt"):
        done = bmcli("evaluate", loans.folder, "--data", name, "--json")
        assert done.code == 0, done.err
        found.append({metric.partition("/")[2]: value for metric, value in done.json()["metrics"].items()})
    assert found[0]
    assert all(each == found[0] for each in found[1:])


def test_every_metric_comes_with_its_interval(bmcli: Bmcli, loans: Run) -> None:
    found = bmcli("evaluate", loans.folder, "--json").json()
    assert set(found["intervals"]) == set(found["metrics"])
    for name, interval in found["intervals"].items():
        assert interval["low"] <= found["metrics"][name] <= interval["high"]
        assert interval["level"] == 0.95
    kept = loans.read_evaluations()["test"]
    assert kept["intervals"]["accuracy"]["method"] == "Wilson score interval over 240 rows"
    assert kept["calibration"]["label"]["bins"]


def test_the_terminal_shows_intervals_beside_the_figures(bmcli: Bmcli, loans: Run) -> None:
    out = bmcli("evaluate", loans.folder).out
    assert "95 % interval" in out
    assert "expected calibration error" in out


def test_the_baseline_stands_beside_the_figures(bmcli: Bmcli, loans: Run) -> None:
    assert "baseline: always '" in bmcli("evaluate", loans.folder).out
    found = bmcli("evaluate", loans.folder, "--json").json()
    kept = loans.read_evaluations()["test"]["baselines"]
    assert found["baseline"]["test/accuracy"] == kept[0]["metrics"]["accuracy"] >= 0.5


def test_rows_that_belong_together_are_drawn_together(bmcli: Bmcli, loans: Run) -> None:
    found = bmcli("evaluate", loans.folder, "evaluate.intervals={group: family, level: 0.9}", "--json").json()
    interval = found["intervals"]["test/accuracy"]
    assert "groups" in interval["method"]
    assert interval["level"] == 0.9


def test_intervals_of_a_new_file_read_its_groups(bmcli: Bmcli, loans: Run) -> None:
    data = loans.folder.parent.parent.parent / "loans.csv"
    done = bmcli("evaluate", loans.folder, "evaluate.intervals.group=family", "--data", data, "--json")
    assert done.json()["intervals"]["loans.csv/accuracy"]["method"].startswith("BCa bootstrap over 150 groups")


def test_an_unknown_group_is_a_fault_with_the_nearest_name(bmcli: Bmcli, loans: Run) -> None:
    done = bmcli("evaluate", loans.folder, "evaluate.intervals.group=famly", "--json")
    (fault,) = done.json()["faults"]
    assert (done.code, fault["path"]) == (2, "evaluate.intervals.group")
    assert "Did you mean 'family'?" in fault["suggestion"]


def test_a_slice_that_cannot_be_learned_is_found_among_all(bmcli: Bmcli, loans: Run) -> None:
    out = bmcli("evaluate", loans.folder, "evaluate.slices=all").out
    (found,) = loans.read_evaluations()["test"]["slices"]
    assert (found["slices"][0]["slicing"], found["slices"][0]["name"]) == ("clinic", "B")
    assert found["slices"][0]["adjusted_p_value"] < 0.01
    assert {each["slicing"] for each in found["slices"]} >= {"clinic", "sex", "clinic x sex"}
    assert "label by slice, the worst first" in out


def test_named_slices_are_measured_each_by_itself(bmcli: Bmcli, loans: Run) -> None:
    slices = "evaluate.slices=[sex, [clinic, sex], {columns: [score], bins: 2}, label]"
    assert bmcli("evaluate", loans.folder, slices).code == 0
    (found,) = loans.read_evaluations()["test"]["slices"]
    assert {each["slicing"] for each in found["slices"]} == {"sex", "clinic x sex", "score", "label"}
    assert all(each["interval"] and each["metrics"]["log_loss"] > 0 for each in found["slices"])


def test_groups_are_compared_and_gates_hold_them(bmcli: Bmcli, loans: Run) -> None:
    gate = "evaluate.gates.\"fairness/sex/selection_rate_difference\"='<= 0.0001'"
    done = bmcli("evaluate", loans.folder, "evaluate.fairness={columns: [sex], positive: paid}", gate, "--json")
    assert done.code == 3
    assert "test/fairness/sex/selection_rate_difference" in done.json()["intervals"]
    assert "fairness/sex/selection_rate_difference" in done.json()["missed_gates"][0]
    other_spelling = "evaluate.fairness={columns: [sex], positive: ' paid '}"
    assert "'paid' by sex" in bmcli("evaluate", loans.folder, other_spelling).out


@pytest.mark.parametrize(
    ("classes", "positive", "index"),
    [
        (("0", "1"), 0, 0), (("0", "1"), "0.0", 0), (("0", "1"), 1.0, 1), (("0.5", "1.5"), 0.5, 0),
        (("false", "true"), False, 0), (("false", "true"), True, 1), (("0", "1"), None, 1),
    ],
)  # fmt: skip
def test_the_class_of_a_comparison_of_groups_may_be_written_in_any_way(
    classes: tuple[str, ...], positive: object, index: int
) -> None:
    from bmcli.workflows.evaluation import choose_fairness_output

    options = FairnessOptions(columns=("sex",), positive=positive)
    target = replace(category(*classes), state={"spelling": "numbers"})
    chosen, found = choose_fairness_output(options, answers_of(target))
    assert (chosen.name, found) == ("label", index)


def test_what_an_evaluation_will_not_find_is_told_before_training(bmcli: Bmcli, tmp_path: Path) -> None:
    recipe = write_loans(tmp_path)
    done = bmcli(
        "train", recipe, "evaluate.slices=[sexx, [clinic, town]]",
        "evaluate.fairness={columns: [sex], positive: payed}", "evaluate.gates.acuracy='> 0'", "--json",
    )  # fmt: skip
    suggestions = {fault["path"]: fault["suggestion"] for fault in done.json()["faults"]}
    assert done.code == 2
    assert suggestions.keys() == {
        "evaluate.slices.0.0", "evaluate.slices.1.1", "evaluate.fairness.positive", "evaluate.gates.acuracy"
    }  # fmt: skip
    assert "'sex'" in suggestions["evaluate.slices.0.0"]
    assert "'paid'" in suggestions["evaluate.fairness.positive"]
    assert not (tmp_path / "runs").exists()


def test_three_columns_are_no_slice(bmcli: Bmcli, tmp_path: Path) -> None:
    done = bmcli("train", write_loans(tmp_path), "evaluate.slices=[[a, b, c]]", "--json")
    assert done.json()["faults"][0]["path"].startswith("evaluate.slices")


def test_training_warns_of_a_planted_leak_and_of_rows_in_two_splits(bmcli: Bmcli, tmp_path: Path) -> None:
    recipe = write_loans(tmp_path, 200)
    header, *rows = (tmp_path / "loans.csv").read_text().splitlines()
    leaky = [f"{row},{int(row.endswith('paid'))}" for row in rows]
    (tmp_path / "loans.csv").write_text("\n".join([f"{header},fee", *leaky, *leaky[:30]]) + "\n")
    done = bmcli("train", recipe, "data.inputs.fee=number", "train.epochs=1")
    assert done.code == 0
    assert "warning: column 'fee' alone predicts 'label' nearly perfectly (100.0% of the majority class's " in done.err
    assert "possible target leakage" in done.err
    assert "have the same inputs as a training row" in done.err
    found = json.loads(next((tmp_path / "runs" / "loans").glob("*/checks.json")).read_text())["findings"]
    assert {"leak", "duplicates"} <= {each["check"] for each in found}


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """Overconfident run, with a temperature and a threshold of high recall."""
    from bmcli.commands.train import train
    from bmcli.terminal.console import Console
    from bmcli.workflows.training import TrainingContext

    folder = tmp_path_factory.mktemp("decided")
    write_loans(folder)
    setting = TrainingContext(folder / "runs", cache, Console(verbosity=-1).make_progress, lambda text, level=0: None)
    overrides = [
        "objective={kind: classification, positive: paid, calibrate: temperature, "
        "threshold: {goal: cost, false_negative: 20}}",
        "model={kind: mlp, hidden: [64]}", "train.epochs=40", "train.select.metric=last", "data.split.validation=0.3",
        "data.split.test=0.2",
    ]  # fmt: skip
    trained = train(str(folder / "loans.yaml"), overrides, setting)
    assert trained.run is not None
    return trained.run


def _state(run: Run) -> dict[str, float]:
    (output,) = json.loads(run.data.read_text())["outputs"]
    return output["state"]


def test_a_temperature_is_kept_with_the_run_and_improves_probabilities(bmcli: Bmcli, decided: Run) -> None:
    import keras

    from bmcli import layers, models

    assert _state(decided)["temperature"] > 1.1
    layers.register()
    with models.allow_column_names():
        served = keras.saving.load_model(decided.model, compile=False)
    new = decided.folder.parent / "new.csv"
    new.write_text("score,clinic\n2.5,A\n-0.2,B\n")
    out = bmcli("predict", decided.folder, new, "--format", "jsonl").out
    predicted = [json.loads(line) for line in out.splitlines()]
    answers = served({"score": np.array([2.5, -0.2]), "clinic": np.array(["A", "B"])})["label"]
    assert [each["label_probability_paid"] for each in predicted] == pytest.approx(
        np.array(answers)[:, 1].tolist(), abs=1e-4
    )


@pytest.mark.slow
def test_an_artefact_decides_at_the_threshold_and_is_part_of_the_report(bmcli: Bmcli, decided: Run) -> None:
    done = bmcli("export", decided.folder, "--formats", "saved_model", "--json")
    assert done.code == 0, done.err
    (artefact,) = done.json()["artefacts"]
    assert artefact["agreement"] == 1
    card = json.loads((Path(artefact["path"]) / "card.json").read_text())
    assert card["targets"][0]["decision"] == f"'paid' if its probability is at least {_state(decided)['threshold']:.6g}"
    assert "Artefacts" in decided.report.read_text(encoding="utf-8")


def test_a_threshold_decides_what_is_predicted_and_measured(bmcli: Bmcli, decided: Run) -> None:
    threshold = _state(decided)["threshold"]
    assert threshold < 0.4
    data = decided.folder.parent.parent.parent / "loans.csv"
    done = bmcli("predict", decided.folder, data, "--format", "jsonl", "--output", decided.folder / "all.jsonl")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (decided.folder / "all.jsonl").read_text().splitlines()]
    assert any(threshold <= row["label_probability_paid"] < 0.5 for row in rows)
    for row in rows:
        assert (row["label"] == "paid") == (row["label_probability_paid"] >= threshold)
    found = bmcli("evaluate", decided.folder, "--data", data, "--json").json()["metrics"]
    truth = [line.rpartition(",")[2] for line in data.read_text().splitlines()[1:]]
    right = np.mean([row["label"] == label for row, label in zip(rows, truth, strict=True)])
    assert found["loans.csv/accuracy"] == pytest.approx(right)
    kept = decided.read_evaluations()["test"]["metrics"]["accuracy"]
    assert bmcli("evaluate", decided.folder, "--json").json()["metrics"]["test/accuracy"] == pytest.approx(kept)


@pytest.mark.parametrize(
    ("objective", "path", "message"),
    [
        ("{threshold: {goal: recall}}", "objective.threshold", "precision"),
        ("{threshold: {goal: f1, precision: 0.9}}", "objective.threshold", "does nothing with goal f1"),
        ("{threshold: 1.5}", "objective.threshold", ""),
        ("{calibrate: temperature}", "objective", "there are none"),
    ],
)
def test_decisions_that_cannot_be_made_are_faults_before_training(
    bmcli: Bmcli, tmp_path: Path, objective: str, path: str, message: str
) -> None:
    whole = objective.replace("{", "{kind: classification, ", 1)
    done = bmcli(
        "train",
        write_loans(tmp_path),
        f"objective={whole}",
        "data.split={test: 0.2, train: null, validation: null}",
        "--json",
    )
    faults = done.json()["faults"]
    assert done.code == 2
    assert any(fault["path"].startswith(path) and message in fault["message"] for fault in faults), faults
    assert not (tmp_path / "runs").exists()
