"""Pre-training without labels from a recipe of a dozen lines: trained, measured, used to fill texts, built upon."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bmcli.commands.train import train
from bmcli.recipe.load import load_recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.terminal.console import Console
from bmcli.terminal.presenters import training
from bmcli.workflows.session import start_session
from bmcli.workflows.training import TrainingContext

from .conftest import Bmcli

WORDS = ("one", "two", "three", "four", "five", "six")
TEXT = {"kind": "text", "encoding": "sequence", "mask": True, "tokens": {"kind": "words", "min_count": 1}, "length": 12}
TRAIN = {"batch_size": 16, "tensorboard": False, "optimizer": {"kind": "adam", "learning_rate": 0.01}}
FIRST: dict[str, Any] = {
    "name": "first",
    "data": {"source": {"kind": "csv", "path": "texts.csv"}, "inputs": {"text": TEXT}},
    "model": {"kind": "cnn", "filters": [24], "kernel_size": 5, "pool": 1, "pooling": "max", "dense": []},
    "objective": {"kind": "masked_language_model", "rate": 0.2},
    "train": {**TRAIN, "epochs": 25},
    "runtime": {"jit": False},
}
SECOND: dict[str, Any] = {
    "name": "second",
    "data": {
        "source": {"kind": "csv", "path": "texts.csv"}, "targets": {"label": {"kind": "category"}}, "sample": 12,
    },
    "model": {"from": "first"},
    "train": {**TRAIN, "epochs": 2},
    "runtime": {"jit": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with texts in which every word follows from its neighbours, two recipes, and a run of the first."""
    found = tmp_path_factory.mktemp("hidden")
    draw = np.random.default_rng(0)
    with (found / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(200):
            first, count = draw.integers(6), draw.integers(6, 13)
            writer.writerow([" ".join(WORDS[(first + each) % 6] for each in range(count)), "ab"[first % 2]])
    for recipe in (FIRST, SECOND):
        (found / f"{recipe['name']}.yaml").write_text(yaml.safe_dump(recipe))
    console = Console(verbosity=-1)
    context = TrainingContext(found / "runs", cache, console.make_progress, console.log)
    trained = train(str(found / "first.yaml"), (), context)
    (found / "trained.json").write_text(json.dumps(training.to_json(trained)))
    return found


@pytest.fixture
def call(bmcli: Bmcli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bmcli:
    """Calls bmcli with the runs of the module."""
    monkeypatch.setenv("BMCLI_RUNS", str(folder / "runs"))
    return bmcli


def test_it_learns_hidden_words_and_is_measured_alike_twice(call: Bmcli, folder: Path) -> None:
    trained = json.loads((folder / "trained.json").read_text())
    assert trained["metrics"]["test/token_accuracy"] > 0.9
    assert trained["metrics"]["test/bits_per_token"] < 0.6
    measured = call("evaluate", "first", "--json").json()["metrics"]
    for name in ("bits_per_token", "perplexity", "token_accuracy"):
        assert measured[f"test/{name}"] == pytest.approx(trained["metrics"][f"test/{name}"], rel=1e-5)
    assert "Accuracy by the frequency of the token" in (Path(trained["run"]) / "report.html").read_text()


def test_the_loss_of_the_validation_rows_is_that_of_the_evaluation(call: Bmcli, folder: Path) -> None:
    run = Run(Path(json.loads((folder / "trained.json").read_text())["run"]))
    best = min(float(epoch["validation/loss"]) for epoch in run.read_epochs())
    measured = call("evaluate", "first", "--split", "validation", "--json").json()["metrics"]
    assert measured["validation/bits_per_token"] == pytest.approx(best / np.log(2), rel=1e-4)


def test_a_prediction_is_the_filled_text(call: Bmcli, folder: Path, tmp_path: Path) -> None:
    text = "two three four five six one two three four five"
    (tmp_path / "new.csv").write_text(f"text\n{text}\n")
    done = call("predict", "first", tmp_path / "new.csv", "--output", tmp_path / "filled.jsonl")
    assert done.code == 0, done.err
    (row,) = [json.loads(line) for line in (tmp_path / "filled.jsonl").read_text().splitlines()]
    assert row["masked_language_model_filled"] == text
    assert 0 < row["masked_language_model_bits_per_token"] < 1


def test_an_export_fills_the_same_texts(call: Bmcli) -> None:
    done = call("export", "first", "--formats", "saved_model,litert", "--json")
    assert done.code == 0, done.err
    assert [each["verified"] for each in done.json()["artefacts"]] == [True, True]


def test_a_training_with_few_labels_takes_the_network_and_its_words(call: Bmcli, folder: Path, cache: Path) -> None:
    first = Run(Path(json.loads((folder / "trained.json").read_text())["run"]))
    session = start_session(load_recipe(str(folder / "second.yaml")), cache)
    assert session.prepared.spec.inputs == read_data_spec(first).inputs, "words of 200 rows, not of 12"
    trainer = session.build_trainer(None)
    assert trainer.start is not None
    assert "embedding/embeddings" in trainer.start.taken
    done = call("train", folder / "second.yaml", "--json")
    assert done.code == 0, done.err
    assert 0 <= done.json()["metrics"]["test/accuracy"] <= 1


def test_a_text_without_a_mask_names_the_option(call: Bmcli, folder: Path) -> None:
    done = call("train", folder / "first.yaml", "data.inputs.text.mask=false")
    assert done.code == 2
    assert "learns from a text with a mask token, and no input is one" in done.err
    assert "{kind: text, encoding: sequence, mask: true}" in done.err


@pytest.mark.parametrize(
    "model",
    [
        "{kind: transformer, width: 8, depth: 1, heads: 2}",
        pytest.param("{kind: rnn, cell: gru, units: 4, bidirectional: true, pooling: mean}", marks=pytest.mark.slow),
    ],
)
def test_other_families_learn_and_are_built_upon(call: Bmcli, folder: Path, model: str) -> None:
    few = ("train.epochs=1", "train.stop.steps=2")
    first = call("train", folder / "first.yaml", f"model={model}", "name=other", *few, "--json")
    assert first.code == 0, first.err
    second = call("train", folder / "second.yaml", f"model.from={first.json()['run']}", *few, "--json")
    assert second.code == 0, second.err


def test_it_is_explained(call: Bmcli) -> None:
    done = call("explain", "first", "--json")
    assert done.code == 0, done.err


def test_it_is_the_only_objective(call: Bmcli, folder: Path) -> None:
    both = {"label": "classification", "hidden": "masked_language_model"}
    data = {**FIRST["data"], "targets": {"label": {"kind": "category"}}}
    (folder / "both.yaml").write_text(yaml.safe_dump({**FIRST, "name": "both", "data": data, "objective": both}))
    done = call("train", folder / "both.yaml")
    assert done.code == 2, done.err
    assert "'hidden' hides parts of each example, so it must be the only one; the network has 2" in done.err


def test_it_has_no_teacher(call: Bmcli, folder: Path) -> None:
    teacher = "distill={teacher: {run: first}, student: {model: {filters: [4]}}}"
    done = call("distill", folder / "first.yaml", teacher)
    assert done.code == 2, done.err
    assert "hides parts of each example, which a teacher sees as a whole" in done.err
