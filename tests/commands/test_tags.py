"""A label for each word goes through every verb."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

WORDS = {"fly": "O", "to": "O", "from": "O", "Bonn": "B-city", "Rome": "B-city", "now!": "B-time", "soon": "B-time"}


def write_rows(path: Path, count: int) -> list[list[str]]:
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        words = [str(word) for word in draw.choice([*WORDS], int(draw.integers(1, 7)))]
        rows.append([" ".join(words), " ".join(WORDS[word] for word in words)])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "tags"], *rows])
    return rows


def write_recipe(folder: Path, **text: object) -> Path:
    tokens = {"kind": "words", "punctuation": "keep", "min_count": 1}
    recipe = {
        "bmcli": 1,
        "name": "cities",
        "data": {
            "source": {"kind": "csv", "path": "rows.csv"},
            "inputs": {
                "text": {"kind": "text", "encoding": "sequence", "length": 6, "tokens": tokens, "dimension": 8, **text}
            },
            "targets": {"tags": {"kind": "tags", "input": "text", "length": 6}},
        },
        "model": {"kind": "rnn", "cell": "gru", "units": 8, "bidirectional": True},
        "train": {"epochs": 6, "batch_size": 16, "tensorboard": False, "optimizer": {"learning_rate": 0.02}},
        "runtime": {"jit": False},
    }
    path = folder / "cities.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_tags_are_trained_evaluated_predicted_and_exported(bmcli: Bmcli, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", 200)
    write_recipe(tmp_path)
    trained = bmcli("train", "cities.yaml")
    assert trained.code == 0, trained.err
    run = next((tmp_path / "runs" / "cities").iterdir())

    evaluated = bmcli("evaluate", run, "--json")
    assert evaluated.code == 0, evaluated.err
    text = json.dumps(json.loads(evaluated.out))
    assert "span_f1" in text
    assert "macro_f1" in text

    predicted = bmcli("predict", run, "rows.csv", "--output", "found.csv", "--keep", "text")
    assert predicted.code == 0, predicted.err
    with (tmp_path / "found.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["text"] for row in found] == [text for text, _ in rows]
    assert [len(row["tags"].split()) for row in found] == [len(text.split()) for text, _ in rows]
    right = sum(row["tags"] == tags for row, (_, tags) in zip(found, rows, strict=True))
    assert right > 190

    exported = bmcli("export", run, "--formats", "saved_model,litert")
    assert exported.code == 0, exported.err

    with (tmp_path / "rows.csv").open("a") as file:
        file.write("to Bonn,O B-town\n")
    unknown = bmcli("evaluate", run, "--data", "rows.csv")
    assert unknown.code == 2
    assert "rows.csv:202" in unknown.err
    assert "received 'B-town'" in unknown.err


def test_tags_that_do_not_fit_the_words_name_the_row(bmcli: Bmcli, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", 40)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("to Bonn now!,O B-city\n")
    write_recipe(tmp_path)
    done = bmcli("train", "cities.yaml")
    assert done.code == 2
    message = " ".join(done.err.split())
    assert "rows.csv:42" in message
    assert "each of the 3 words, received 2: the word 'now!' has no tag" in message


def test_words_that_are_cut_are_told(bmcli: Bmcli, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", 40)
    write_recipe(tmp_path, length=3)
    done = bmcli("train", "cities.yaml", "data.targets.tags.length=3", "train.epochs=1")
    assert done.code == 0, done.err
    assert re.search(
        r"\d+\.\d\d% of the words of 'text' are behind the first 3 of their rows", " ".join(done.err.split())
    )
    assert "behind the first" not in bmcli("plan", "cities.yaml", "data.inputs.text.length=6").err


def test_a_text_without_words_has_no_tags_and_a_longer_one_is_told(bmcli: Bmcli, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", 60)
    write_recipe(tmp_path)
    assert bmcli("train", "cities.yaml", "train.epochs=1").code == 0
    texts = ["to Bonn", "", "   ", " ".join(["to"] * 9)]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    done = bmcli("predict", "cities", "new.jsonl", "--json", "--output", "tags.jsonl")
    assert done.code == 0, done.err
    found = [json.loads(line)["tags"].split() for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [len(each) for each in found] == [2, 0, 0, 6]
    assert done.json()["notes"] == ["1 of 4 rows are longer than the model reads, so that 'tags' is incomplete."]


@pytest.mark.parametrize("text", [{"tokens": {"kind": "words"}}, {"tokens": "characters"}])
def test_tokens_that_are_not_the_words_are_a_fault(bmcli: Bmcli, tmp_path: Path, text: dict[str, object]) -> None:
    write_rows(tmp_path / "rows.csv", 40)
    write_recipe(tmp_path, **text)
    done = bmcli("train", "cities.yaml")
    assert done.code == 2
    message = " ".join(done.err.split())
    assert "a value for each word of 'text', which is not encoded as the sequence of its words" in message
    assert "punctuation: keep" in message


def test_words_of_a_column_that_is_no_input_are_a_fault(bmcli: Bmcli, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", 40)
    write_recipe(tmp_path)
    done = bmcli("train", "cities.yaml", "data.targets.tags.input=words")
    assert done.code == 2
    assert "data.targets.tags.input" in done.err
    assert "no column 'words'" in done.err
    done = bmcli("train", "cities.yaml", "data.targets.tags.input=tags")
    assert done.code == 2
    assert "a value for each word of 'tags', which is a target and no input" in " ".join(done.err.split())
