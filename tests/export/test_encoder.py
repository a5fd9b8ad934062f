"""The reference encoder gives the results of data preparation, and needs NumPy alone."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bmcli import inputs
from bmcli.export import Signature, SignatureInput, card, encoder, rows
from bmcli.raw_columns import is_file_column
from bmcli.recipe.load import load_recipe
from bmcli.specs import DataSpec
from tests.conftest import WriteRecipe
from tests.inputs.test_laws import CASES, Case


def described(case: Case, recipe: object) -> tuple[DataSpec, dict[str, object]]:
    spec = DataSpec((case.fit(),), (), {}, "", "")
    return spec, json.loads(json.dumps(card.describe_preprocessing(spec, recipe)))["inputs"][0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_it_encodes_as_preparing_does(name: str, write_recipe: WriteRecipe) -> None:
    case, recipe = CASES[name], load_recipe(str(write_recipe())).recipe
    spec, column = described(case, recipe)
    fitted = spec.inputs[0]
    for raw in (case.rows, case.more):
        cells = inputs.to_serving_array(raw, fitted)
        if is_file_column(raw):
            taken = Signature("", (SignatureInput("x", "x", "encoded", (), "uint8"),), ())
            cells = rows.decode_files({"x": cells}, taken, spec)["x"]
        found, expected = encoder.encode(column, cells), inputs.kind_of(fitted).encode(raw, fitted)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        # Rounding of a resized pixel may fall to either side.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1 if fitted.kind == "image" else 1e-6)


def test_texts_of_every_length_fall_into_the_buckets_of_tensorflow() -> None:
    import tensorflow as tf

    drawn = np.random.default_rng(0)
    texts = [drawn.integers(0, 256, size, "uint8").tobytes() for size in [*range(200), 1000, 4096, 5001]]
    buckets = 10_000_000
    expected = tf.strings.to_hash_bucket_fast(texts, buckets).numpy().tolist()
    assert [encoder.fingerprint(text) % buckets for text in texts] == expected


def test_it_takes_the_cells_of_a_list() -> None:
    spec = DataSpec((CASES["number of text"].fit(),), (), {}, "", "")
    column = json.loads(json.dumps(spec.to_json()))["inputs"][0]
    first, second = encoder.encode(column, [5.0, None])[:, 0]
    assert first != second
    assert np.isfinite(second)


def test_a_picture_of_another_size_is_fitted() -> None:
    spec = DataSpec((CASES["image, resized"].fit(),), (), {}, "", "")
    column = json.loads(json.dumps(spec.to_json()))["inputs"][0]
    assert encoder.encode(column, [np.zeros((9, 9, 3), "uint8"), np.zeros((4, 20, 3), "uint8")]).shape == (2, 5, 7, 1)


@pytest.mark.parametrize("module", ["encoder", "runner"])
def test_what_others_run_imports_nothing_of_ours_at_the_top(module: str) -> None:
    tree = ast.parse((Path(card.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    names = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert "numpy" in names
    assert names - set(sys.stdlib_module_names) == {"numpy"}
