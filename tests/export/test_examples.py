"""The example of a card runs as it stands, without bmcli, and gives the answer of the run's model."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from markdown_it import MarkdownIt

from bmcli import encoder, inputs, layers, parts
from bmcli.answers.classes import CategoryAnswers, LabelAnswers, OrderedAnswers
from bmcli.answers.numbers import CountAnswers, NumberAnswers, QuantileAnswers
from bmcli.commands.export import ExportResult
from bmcli.export import Signature, SignatureInput, SignatureOutput, WrittenModel, card, example
from bmcli.models import allow_column_names
from bmcli.objectives import open_answers
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec, OutputSpec
from tests.inputs.test_laws import CASES
from tests.pictures import pixels, write

from .conftest import exported, trained

FILES = """\
name: photos
data:
  source: {kind: image_folder, path: photos}
  inputs: {image: {kind: image, size: [10, 12]}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 1, batch_size: 16, tensorboard: false}
"""
WITHOUT_BMCLI = "import sys\nsys.modules['bmcli'] = None\n"  # its import fails


def read_program(folder: Path) -> str:
    """The only Python code of a card."""
    tokens = MarkdownIt("commonmark").parse((folder / card.CARD_TEXT).read_text(encoding="utf-8"))
    (program,) = (token.content for token in tokens if token.type == "fence" and token.info == "python")
    return program


def run_program(folder: Path, before: str = WITHOUT_BMCLI) -> dict[str, Any]:
    """Run the code of a card in the folder of the artefact, and read what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or not before}
    done = subprocess.run(
        [sys.executable, "-c", before + read_program(folder)],
        cwd=folder, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def read_row(folder: Path) -> dict[str, Any]:
    """The row of the example."""
    tree = ast.parse(read_program(folder))
    (value,) = (each.value for each in tree.body if isinstance(each, ast.Assign) and each.targets[0].id == "row")
    return eval(ast.unparse(value), {"np": np, "base64": base64})


def answer_by_model(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of the run's own model to one row of raw cells, as `predict` writes them."""
    spec = read_data_spec(run)
    tensors = {each.name: np.array([row[each.name]], object if each.raw_dtype == "string" else each.raw_dtype)
               for each in spec.inputs}  # fmt: skip
    layers.register()
    with allow_column_names():
        model = keras.saving.load_model(run.model, compile=False)
    predicted = model(
        {name: keras.ops.convert_to_tensor(cells.tolist()) for name, cells in tensors.items()}, training=False
    )
    return {
        name: next(iter(answers.make_columns(np.asarray(predicted[name])).columns.values())).to_pylist()[0]
        for name, answers in open_answers(spec).items()
    }


def require_alike(run: Run, folder: Path, before: str = WITHOUT_BMCLI) -> None:
    found, expected = run_program(folder, before), answer_by_model(run, read_row(folder))
    assert set(found) == set(expected)
    for name, answer in expected.items():
        assert found[name] == (pytest.approx(answer, rel=1e-4) if isinstance(answer, float) else answer), name


@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_the_example_of_a_table_answers_as_the_model(of_table: ExportResult, format: str) -> None:
    folder = of_table.run.exports / format
    require_alike(of_table.run, folder)
    row = read_row(folder)
    assert row["colour"] in ("red", "blue")
    assert row["fragile"] in ("yes", "no")
    assert re.fullmatch("2024-0[1-9]-[0-9]{2}", row["sent"])
    assert 0 < row["weight"] < 6


@pytest.mark.slow
def test_the_example_of_a_keras_file_needs_bmcli_and_says_so(table_run: Run, cache: Path) -> None:
    (found,) = exported(table_run, cache, "keras").artefacts
    assert "from bmcli import layers" in read_program(found.path)
    assert "layers of bmcli" in (found.path / card.CARD_TEXT).read_text()
    require_alike(table_run, found.path, before="")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_example_of_a_format_of_an_extra_answers_as_the_model(table_run: Run, cache: Path, format: str) -> None:
    for module in parts.load("export.formats", format).Options.EXTRA:
        pytest.importorskip(module, reason=f"needs pip install 'bmcli[{format}]'", exc_type=ImportError)
    (found,) = exported(table_run, cache, format).artefacts
    require_alike(table_run, found.path)


@pytest.mark.parametrize("format", ["saved_model", "litert:int8"])
def test_the_example_of_arrays_of_pixels_answers_as_the_model(picture_run: Run, cache: Path, format: str) -> None:
    (found,) = exported(picture_run, cache, format).artefacts
    require_alike(picture_run, found.path)


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> ExportResult:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        kind = ("cat", "dog")[number % 2]
        write(folder / "photos" / kind / f"{number}.jpg", pixels(20 + number % 3, 24, seed=number))
    return exported(trained(FILES, folder, cache), cache, "saved_model,litert")


@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_the_example_of_files_answers_as_the_model(of_photos: ExportResult, format: str) -> None:
    folder = of_photos.run.exports / format
    require_alike(of_photos.run, folder)
    meaning = "the bytes or the path of a" if format == "litert" else "the bytes of a JPEG, PNG, BMP or GIF file"
    assert meaning in (folder / card.CARD_TEXT).read_text()


def test_an_artefact_beside_an_encoder_is_verified_on_files_as_people_have_them(of_photos: ExportResult) -> None:
    for artefact in of_photos.artefacts:
        assert artefact.verification.failures == ()
        assert artefact.verification.max_difference < 1e-5
        assert "a missing value in 'image'" in artefact.verification.edge_cases


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_input_writes_a_cell_that_it_reads(name: str) -> None:
    column = CASES[name].fit()
    cell = eval(example._write_cell(inputs.get_traits(column).make_example_cell()), {"np": np, "base64": base64})
    dtype = object if column.raw_dtype == "string" else column.raw_dtype
    raw = np.array([cell], dtype)
    expected = inputs.kind_of(column).build_encoder(column)(keras.ops.convert_to_tensor(raw.tolist(), column.raw_dtype))
    described = {**json.loads(json.dumps(DataSpec((column,), (), {}, "", "").to_json()))["inputs"][0]}
    described["state"] |= json.loads(json.dumps(inputs.get_traits(column).derive_state()))
    found = encoder.encode(described, [cell])
    atol = 1 if column.kind == "image" else 1e-5  # rounding of a resized pixel may fall to either side
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=atol)
    if missing := _encode_missing(column, described, raw):
        assert not np.array_equal(found, missing[0], equal_nan=True), "the cell is read, and not taken as missing"


def _encode_missing(column: Column, described: Mapping[str, Any], raw: np.ndarray) -> list[np.ndarray]:
    """The encoded missing cell of kinds that tell it from all others."""
    cell = inputs.get_traits(column).make_missing_cell(raw) if column.kind in ("category", "date", "text") else None
    return [] if cell is None else [encoder.encode(described, cell)]


NAMES = ("never", "it's", '"late"\n```')
ANSWERS = {
    "classes": (CategoryAnswers, (3,), NAMES, {}),
    "threshold": (CategoryAnswers, (2,), NAMES[:2], {"threshold": 0.3}),
    "order": (OrderedAnswers, (3,), NAMES, {}),
    "labels": (LabelAnswers, (3,), NAMES, {"separator": ";"}),
    "number": (NumberAnswers, (), (), {}),
    "count": (CountAnswers, (), (), {}),
    "quantiles": (QuantileAnswers, (3,), (), {"quantiles": [0.1, 0.5, 0.9]}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_is_written_as_it_is_decided(name: str) -> None:
    make, shape, names, state = ANSWERS[name]
    column = Column("y", "category" if names else "number", (), "int32", classes=names)
    answers = make(OutputSpec("y", "x", shape, names=names, state=state), column)
    drawn = np.random.default_rng(0).random((60, *shape)).astype("float32")
    predictions = drawn / drawn.sum(axis=1, keepdims=True) if name in ("classes", "threshold", "order") else drawn
    code = compile(answers.write_answer("predictions[row]", "names"), "card", "eval")
    found = [eval(code, {"predictions": predictions, "names": list(names), "row": row}) for row in range(60)]
    table = answers.make_columns(predictions).columns
    if name == "quantiles":
        expected = [dict(zip(state["quantiles"], row, strict=True)) for row in predictions.tolist()]
    elif name == "labels":
        expected = [[part for part in names if part in cell] for cell in table["y"].to_pylist()]
    else:
        expected = table["y"].to_pylist()
    assert found == expected


HOSTILE = "<script>alert(1)</script>' \"```\n# h\u202e\\"


@pytest.mark.parametrize("form", ["raw", "encoded"])
def test_an_example_is_code_whatever_a_column_is_called(form: Any) -> None:
    fitted = CASES["category"].fit(HOSTILE)
    target = Column(HOSTILE, "category", (), "int32", classes=(HOSTILE, "b"))
    output = OutputSpec(HOSTILE, "classification", (2,), names=target.classes, activation="softmax")
    spec = DataSpec((fitted,), (target,), {}, "", "", outputs=(output,))
    dtype = "string" if form == "raw" else "int32"
    signature = Signature(
        "serving_default", (SignatureInput("x", HOSTILE, form, (), dtype),),
        (SignatureOutput("y", HOSTILE, "probabilities", (2,), "float32"),),
    )  # fmt: skip
    for runtime, model in card.MODEL_PATHS.items():
        program = example.write_program(spec, WrittenModel(model, runtime, (signature,)))
        compile(program, "card", "exec")
        assert "<" not in program
        assert "\u202e" not in program
        fenced = "\n".join(card._render_example({"example": program}))
        (fence,) = (each for each in MarkdownIt("commonmark").parse(fenced) if each.type == "fence")
        assert fence.content == program
    request = example.make_request(spec, WrittenModel("1", "tensorflow", (signature,)))
    assert json.loads(request)["instances"][0]["x"] in fitted.classes
    assert not set("<'\n") & set(request)
