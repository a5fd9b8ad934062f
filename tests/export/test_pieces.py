"""A text of pieces is split alike by the network's data, the SavedModel, and the encoder beside other formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bmcli.export import card
from tests.tokens.packages import require_packages

from .conftest import exported, trained

RECIPE = """\
name: reviews
data:
  source: {kind: csv, path: reviews.csv}
  inputs:
    title: {kind: text, tokens: {kind: bpe, size: 300}}
    review: {kind: text, encoding: sequence, tokens: {kind: unigram, size: 300}, length: 12, dimension: 4}
  targets: {label: {kind: category}}
model: {kind: cnn, filters: [4], pool: 1, pooling: max, dense: []}
train: {epochs: 2, batch_size: 16, tensorboard: false}
"""
GOOD, BAD = ("very good tea", "good, Zürich 👍!!!!!", "so good"), ("bad tea", "the worst........ tea", "never again")


@pytest.mark.slow
def test_pieces_are_alike_in_every_format(tmp_path: Path, cache: Path) -> None:
    require_packages("bpe")
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [
            [(GOOD, BAD)[i % 2][i // 2 % 3], f"{(BAD, GOOD)[i % 2][i // 3 % 3]} {i}", "gb"[i % 2]] for i in range(120)
        ]
        csv.writer(file).writerows([["title", "review", "label"], *rows])
    run = trained(RECIPE, tmp_path, cache)
    found = exported(run, cache, "saved_model,litert")
    assert [each.verification.failures for each in found.artefacts] == [(), ()]
    assert all(each.verification.agreement == 1 for each in found.artefacts)
    modules = {each.format_name: card.read(each.path)["modules"] for each in found.artefacts}
    assert modules == {"saved_model": ["tensorflow_text"], "litert": []}
    note = "'title' is split by operations of tensorflow_text, which must be imported before the model is loaded."
    assert note in card.read(run.exports / "saved_model")["notes"]
    state = json.loads((run.exports / "litert" / "preprocessing.json").read_text(encoding="utf-8"))["inputs"][0][
        "state"
    ]
    assert state["tokenizer"]["kind"] == "bpe"


@pytest.mark.parametrize("module", ["os", "tensorflow_text.x", ""])
def test_a_card_does_not_choose_what_is_imported(module: str) -> None:
    from bmcli.export import runner

    with pytest.raises(ValueError, match="no module with operations"):
        runner._import_operations(module)
