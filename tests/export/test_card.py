"""Cards show names of columns and classes as text, and list the versions that the run was trained with."""

from __future__ import annotations

import copy
import html.parser
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bmcli.commands.export import ExportResult
from bmcli.export import card
from bmcli.printable import clean

PAGE = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = (
    "<script>alert(1)</script>\x1b]0;title\x07 | `code` ![i](http://a.b/c) [l](javascript:1) **b** </td>\n# h\u202e"
)


class Shown(html.parser.HTMLParser):
    """The text that a browser shows of a page, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


SIGNS = st.text(st.sampled_from("ab1 _*`[]()<>|\\~#!&;:-+=.\"'/\n\t\x1b\u202e"), max_size=30)


@pytest.mark.parametrize("frame", ["word {} word", "- {}", "- {} word"])
@given(text=SIGNS | st.text(max_size=30))
def test_markdown_shows_just_the_text(frame: str, text: str) -> None:
    shown = Shown(PAGE.render(frame.format(card.escape_markdown(text))))
    assert set(shown.tags) <= {"p", "ul", "li"}
    expected = frame.removeprefix("- ").format(" ".join(clean(text).split()))
    assert " ".join(shown.text.split()) == " ".join(expected.split())


@given(text=SIGNS | st.text(max_size=30))
def test_a_cell_of_a_table_shows_just_the_text(text: str) -> None:
    table = "\n".join(card._render_table("Title", ("a", "b"), [(text, "last")]))
    shown = Shown(PAGE.render(table))
    assert shown.tags == ["h2", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert shown.text.split()[-1] == "last"
    assert shown.text.split()[3:-1] == clean(text).split()


def _poisoned(values: Any) -> Any:
    """JSON values with hostile text instead of every text that a run's data or recipe may have chosen."""
    if isinstance(values, dict):
        free = {
            "column",
            "target",
            "meaning",
            "license",
            "edge_cases",
            "notes",
            "failures",
            "decision",
            "classes",
            "name",
        }
        return {
            (HOSTILE if "/" in key else key): _texts(value) if key in free else _poisoned(value)
            for key, value in values.items()
        }
    return [_poisoned(each) for each in values] if isinstance(values, list) else values


def _texts(value: Any) -> Any:
    return [HOSTILE] * max(1, len(value)) if isinstance(value, list) else HOSTILE


def test_names_that_attack_are_text_in_a_card(of_table: ExportResult) -> None:
    for format in ("litert", "saved_model"):
        values = copy.deepcopy(card.read(of_table.run.exports / format))
        values["signatures"] = values["signatures"][:1]
        signature = values["signatures"][0]
        poisoned = {**_poisoned(values), "name": values["name"]}
        for tensors in ("inputs", "outputs"):  # their names are made for servers, and the signature's is fixed
            for each, known in zip(poisoned["signatures"][0][tensors], signature[tensors], strict=True):
                each["name"] = known["name"]
        poisoned["signatures"][0]["name"] = "serving_default"
        text = card.render_markdown(poisoned)
        assert "<script" not in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        shown = Shown(PAGE.render(text))
        assert set(shown.tags) <= {
            "h1",
            "h2",
            "p",
            "ul",
            "li",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "pre",
            "code",
        }
        assert text.count("\n# ") == 0, "one title"
        assert "alert(1)" in shown.text


def test_a_card_has_the_size_of_its_file(of_table: ExportResult) -> None:
    folder = of_table.run.exports / "litert"
    described = card.read(folder)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert described["model_bytes"] == sizes["model.tflite"]
    encoders = sum(file.stat().st_size for file in (folder / card.ENCODER).glob("*.py"))
    assert described["bytes"] == sizes["model.tflite"] + sizes[card.PREPROCESSING] + encoders
    assert described["weights"]["compressed"] is None, "the format alone knows in how many bits it stores them"
    text = (folder / card.CARD_TEXT).read_text()
    assert f"| files of the model: model.tflite | - | - | {card._format_bytes(sizes['model.tflite'])} |" in text


def test_a_card_shows_limits_and_what_was_not_compared(of_table: ExportResult) -> None:
    text = (of_table.run.exports / "litert" / card.CARD_TEXT).read_text()
    for words in (
        "rows have the same answer, 100.00%; at least 100.00%.",
        "'arrived': the same answer is the same class.",
        "in a probability, at most 0.0001 (1e-05 of the largest output,",
        "'price': R2 with the model's predictions as truth is 1.00000, at least 0.9999.",
        "at most 0.001 below the model's.",
    ):
        assert words in text


def test_a_card_lists_the_versions_of_the_training(of_table: ExportResult) -> None:
    trained_with = card.read(of_table.run.exports / "litert")["lineage"]["trained_with"]
    recorded = of_table.run.read_environment()
    assert trained_with["keras"] == importlib.metadata.version("keras")
    assert trained_with["precision"] == "float32"
    assert {name: recorded[name] for name in trained_with if name != "precision"} == {
        name: value for name, value in trained_with.items() if name != "precision"
    }
    assert not {"command", "variables"} & set(trained_with), "they describe the user's machine"
    text = (of_table.run.exports / "litert" / card.CARD_TEXT).read_text()
    assert f"keras {trained_with['keras']}" in text


def test_each_runtime_loads_the_file_that_its_format_writes() -> None:
    from bmcli.export.formats import keras, litert, onnx, openvino, saved_model

    assert card.MODEL_PATHS == {
        "tensorflow": saved_model.VERSION,
        "litert": litert.MODEL,
        "onnx": onnx.MODEL,
        "openvino": openvino.MODEL,
        "keras": keras.MODEL,
    }


def test_figures_that_are_not_finite_are_null() -> None:
    found = card._select_metrics({"count": 3, "metrics": {"r2": float("nan"), "mae": 1.0}, "intervals": {}, "more": 1})
    assert found == {"count": 3, "metrics": {"r2": None, "mae": 1.0}, "intervals": {}}
    rows = card._render_evaluation({"test": found})
    assert "| test/r2 | - | - | 3 |" in rows


def test_the_folder_of_a_card_is_named_in_its_faults(tmp_path: Path) -> None:
    from bmcli.errors import BmcliError

    with pytest.raises(BmcliError, match=r"not an artefact, it has no card\.json"):
        card.read(tmp_path)
