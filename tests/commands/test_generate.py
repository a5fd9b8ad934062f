"""A language model from a recipe of a dozen lines: trained, measured, used to write, exported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bmcli.commands.train import train
from bmcli.export.writing import ExpectedWriting
from bmcli.terminal.console import Console
from bmcli.terminal.presenters import training
from bmcli.workflows.training import TrainingContext

from .conftest import Bmcli

RECIPE: dict[str, Any] = {
    "name": "counting",
    "data": {
        "source": {"kind": "text", "window": 24},
        "inputs": {"text": {"kind": "text", "encoding": "written", "end": False}},
        "split": {"time": "position"},
    },
    "model": {"kind": "transformer", "width": 32, "depth": 1, "heads": 2, "positions": "rotary", "dropout": 0.0},
    "objective": {"kind": "causal_language_model", "tied": True},
    "train": {
        # Enough for the check of the first epochs, which needs 200 steps.
        "epochs": 20, "batch_size": 16, "tensorboard": False, "optimizer": {"kind": "adam", "learning_rate": 0.01},
    },
}  # fmt: skip
CYCLE = "one two three four five six "
GREEDY = ("--temperature", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with a document, a recipe, and a run of it."""
    found = tmp_path_factory.mktemp("counting")
    (found / "numbers.txt").write_text(CYCLE * 200)
    source = {**RECIPE["data"]["source"], "path": str(found / "numbers.txt")}
    (found / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "data": {**RECIPE["data"], "source": source}}))
    console = Console(verbosity=-1)
    context = TrainingContext(found / "runs", cache, console.make_progress, console.log)
    trained = train(str(found / "recipe.yaml"), (), context)
    (found / "trained.json").write_text(json.dumps(training.to_json(trained)))
    return found


@pytest.fixture
def lm(bmcli: Bmcli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bmcli:
    """Calls bmcli with the runs of the module."""
    monkeypatch.setenv("BMCLI_RUNS", str(folder / "runs"))
    return bmcli


def test_it_learns_the_text_and_is_measured_in_bits(lm: Bmcli, folder: Path) -> None:
    trained = json.loads((folder / "trained.json").read_text())
    assert trained["metrics"]["test/bits_per_character"] < 0.5
    assert trained["metrics"]["test/perplexity"] < 1.5
    measured = lm("evaluate", "counting", "--json").json()
    assert measured["metrics"]["test/bits_per_character"] == pytest.approx(
        trained["metrics"]["test/bits_per_character"], rel=1e-5
    )
    page = (Path(trained["run"]) / "report.html").read_text()
    assert "Bits per token by its place in the text" in page


def test_it_goes_on_where_a_prompt_ends(lm: Bmcli) -> None:
    done = lm("generate", "counting", "one two three ", "--tokens", "40", *GREEDY)
    assert done.code == 0, done.err
    assert done.out == "one two three four five six one two three four five si\n"
    assert "1 text of 40 tokens" in done.err


def test_the_cache_and_the_batch_change_nothing(lm: Bmcli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text('one \nfive six\n{"prompt": "two"}\n')
    options = (
        "--prompts",
        tmp_path / "prompts.txt",
        "--tokens",
        "60",
        "--seed",
        "4",
        "--count",
        "2",
        "--temperature",
        "3",
    )
    assert lm("generate", "counting", *options, "--output", tmp_path / "texts.jsonl").code == 0
    texts = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert [text["prompt"] for text in texts] == ["one ", "one ", "five six", "five six", "two", "two"]
    assert texts[0]["text"] != texts[1]["text"]
    plain = lm("generate", "counting", *options, "--no-cache", "--json").json()
    assert plain["cached"] is False
    assert plain["texts"] == texts


def test_a_beam_search_finds_a_likely_text(lm: Bmcli) -> None:
    found = lm("generate", "counting", "one ", "--tokens", "9", "--beams", "3", "--json").json()
    assert found["texts"] == [{"prompt": "one ", "text": "two three", "tokens": 9, "ending": "length"}]


def test_a_text_stops_where_it_is_told_to(lm: Bmcli) -> None:
    found = lm("generate", "counting", "one ", "--stop", " four", "--json", *GREEDY).json()
    assert [(text["text"], text["ending"]) for text in found["texts"]] == [("two three", "stop")]


def test_new_texts_are_predicted_by_how_expected_they_are(lm: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("two three four five six eerht owt eno xis evif ruof")
    done = lm("predict", "counting", tmp_path / "new.txt", "--output", tmp_path / "bits.jsonl", "--json")
    assert done.code == 0, done.err
    bits = [json.loads(line) for line in (tmp_path / "bits.jsonl").read_text().splitlines()]
    each = [row["causal_language_model_bits_per_token"] for row in bits]
    assert each[0] < 1 < each[1]


def test_artefacts_give_the_same_log_probabilities(lm: Bmcli, folder: Path, tmp_path: Path) -> None:
    done = lm("export", "counting", "--formats", "saved_model,litert", "--json")
    assert done.code == 0, done.err
    for artefact in done.json()["artefacts"]:
        summary = json.loads((Path(artefact["path"]) / "card.json").read_text())["verification"]["summary"]
        assert any(
            each.startswith("`step`, one id after the other, gives logits with a largest difference of")
            for each in summary
        )
        assert "| cache_0 | float32 (batch, 2, 25, 16) |" in (Path(artefact["path"]) / "card.md").read_text()
    run = json.loads((folder / "trained.json").read_text())["run"]
    (tmp_path / "new.txt").write_text(CYCLE)
    tables = []
    for model in (run, f"{run}/exports/saved_model"):
        output = tmp_path / f"{len(tables)}.jsonl"
        assert lm("predict", model, tmp_path / "new.txt", "--output", output).code == 0
        tables.append([list(json.loads(line).values()) for line in output.read_text().splitlines()])
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru", "simple"])
def test_steps_of_a_recurrent_network_are_exported(lm: Bmcli, folder: Path, cell: str) -> None:
    model = f"model={{kind: rnn, cell: {cell}, units: [16, 16]}}"
    run = lm("train", folder / "recipe.yaml", model, "train.epochs=2", "--json").json()["run"]
    done = lm("export", run, "--formats", "saved_model,litert,litert:float16,litert:dynamic", "--json")
    assert done.code == 0, done.err
    for artefact in done.json()["artefacts"]:
        card = json.loads((Path(artefact["path"]) / "card.json").read_text())
        assert len(card["writing"]["caches"]) == (4 if cell == "lstm" else 2)


def test_the_program_of_a_card_writes_the_same_text_without_bmcli(lm: Bmcli, folder: Path) -> None:
    done = lm("export", "counting", "--formats", "saved_model", "--json")
    (artefact,) = done.json()["artefacts"]
    card = json.loads((Path(artefact["path"]) / "card.json").read_text())
    assert (
        "12 texts of `generate` compared with those of the model: all are the same." in card["verification"]["summary"]
    )
    assert card["generation"] in (Path(artefact["path"]) / "card.md").read_text()
    hidden = "import sys; sys.modules['bmcli'] = None\n"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", hidden + card["generation"]], cwd=artefact["path"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    written = lm("generate", "counting", "The ", "--tokens", "40", "--temperature", "0.8", "--seed", "0", "--json")
    assert ran.stdout == written.json()["texts"][0]["text"] + "\n"


def test_an_artefact_that_writes_other_texts_is_rejected(lm: Bmcli, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, logits = np.full((1, 3), 2, "int32"), np.zeros((1, 3, 1), "float32")
    expected = ExpectedWriting(("one",), ((" something else",), (" something else",)), ids, logits)
    monkeypatch.setattr("bmcli.commands.export.write_expected", lambda *_: expected)
    done = lm("export", "counting", "--formats", "saved_model")
    assert done.code == 4
    assert "After 'one', with temperature 0.8, `generate` writes" in done.err
    assert "`step`, one id after the other, gives logits with a largest difference of" in done.err


def test_attributions_are_those_of_the_text(lm: Bmcli) -> None:
    done = lm("explain", "counting", "--rows", "10", "--json")
    assert done.code == 0, done.err


def test_a_prompt_longer_than_the_window_is_told(lm: Bmcli) -> None:
    done = lm("generate", "counting", CYCLE * 2, "--tokens", "5", *GREEDY)
    assert done.code == 0, done.err
    assert "a prompt is longer than the 23 tokens that the network reads; the last ones count." in done.err
    assert done.out == f"{CYCLE * 2}one t\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompts", "none.txt"), "no such file"),
        (("--prompts", "empty.txt"), "holds no prompt"),
        (("--prompts", "latin.txt"), "byte 2 is not UTF-8"),
        (("--prompts", "wrong.txt"), "wrong.txt:2  expected a text as `prompt`"),
        (("--output", "empty.txt"), "exists already"),
        (("--output", "none/texts.jsonl"), "no such folder"),
        (("--beams", "2", "--seed", "3"), "--seed has no effect with --beams"),
        (("--length-power", "2"), "--length-power has no effect without --beams"),
        (("--temperature", "0", "--top-k", "3"), "--top-k has no effect with --temperature 0"),
        (("--stop", ""), "must not be empty"),
        (("--top-p", "0"), "0<x<=1"),
        (("--seed", str(2**31)), "0<=x<=2147483647"),
        (("--tokens", "1000001"), "1<=x<=1000000"),
        (("--temperature", "nan"), "expected a finite number, received nan"),
        (("--repetition-penalty", "inf"), "expected a finite number, received inf"),
    ],
)
def test_bad_requests_are_faults(lm: Bmcli, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"Z\xfcrich\n")
    (tmp_path / "wrong.txt").write_text('one\n{"text": "two"}\n')
    done = lm("generate", "counting", *arguments)
    assert done.code == 2
    assert message in done.err


def test_what_a_prompt_has_that_the_model_does_not_know_is_told(lm: Bmcli) -> None:
    done = lm("generate", "counting", "one \N{SNOWMAN}", "\N{SNOWMAN}", "--tokens", "3", "--top-k", "1000", "--json")
    assert done.json()["notes"] == ["2 tokens of the prompts are unknown to the model."]


def test_a_model_that_writes_no_texts_is_named(bmcli: Bmcli) -> None:
    assert bmcli("train", "penguins", "train.epochs=1", "train.stop=null", "evaluate.gates={}", "-q").code == 0
    done = bmcli("generate", "penguins")
    assert done.code == 2
    assert "writes no texts; it learned classification" in done.err


def test_prompts_come_from_standard_input(lm: Bmcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts").write_text("one two")
    with (tmp_path / "prompts").open() as prompts:
        monkeypatch.setattr(sys, "stdin", prompts)
        done = lm("generate", "counting", "--prompts", "-", "--tokens", "6", *GREEDY, "--json")
    assert [text["text"] for text in done.json()["texts"]] == [" three"]
