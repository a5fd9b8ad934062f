"""The reference encoder gives the results of data preparation, and needs NumPy alone."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bmcli import encoder, inputs
from bmcli.encoder.category import fingerprint
from bmcli.encoder.image import decode_picture
from bmcli.export import card, runner
from bmcli.inputs import image
from bmcli.raw_columns import FileColumn
from bmcli.recipe.load import load_recipe
from bmcli.specs import DataSpec
from tests.conftest import WriteRecipe
from tests.inputs.test_laws import CASES, Case
from tests.pictures import save, with_orientation


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
    assert [fingerprint(text) % buckets for text in texts] == expected


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


def test_a_photo_is_taken_as_bytes_or_path_with_the_pixels_of_the_training(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), "uint8")  # on which inexact decoders differ
    inks = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 40, 4), "uint8"), "CMYK")
    photos = [save(noise, "JPEG", quality=90), with_orientation(save(noise.swapaxes(0, 1), "JPEG"), 6)]
    photos += [save(noise, "JPEG", progressive=True), save(inks, "JPEG"), save(noise, "WEBP", quality=80)]
    rows = FileColumn(np.arange(len(photos)), lambda row: photos[row])
    fitted = image.fit("x", rows, image.Options())
    column = json.loads(json.dumps(DataSpec((fitted,), (), {}, "", "").to_json()))["inputs"][0]
    expected = image.encode(rows, fitted)
    paths = [tmp_path / f"{position}.jpg" for position in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        path.write_bytes(photo)
    for cells in (photos, paths, [str(path) for path in paths]):
        np.testing.assert_array_equal(encoder.encode(column, cells), expected)
    np.testing.assert_array_equal(encoder.encode(column, paths[0]), expected[:1])
    assert encoder.encode(column, [None, b"", ""]).max() == 0


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_resized_photo_has_the_very_pixels_of_the_training(fit: str) -> None:
    drawn = np.random.default_rng(0)
    sizes = ((24, 40), (70, 31), (9, 8), (200, 320))
    photos = [save(drawn.integers(0, 256, (*size, 3), "uint8"), "JPEG") for size in sizes]
    rows = FileColumn(np.arange(len(photos)), lambda row: photos[row])
    fitted = image.fit("x", rows, image.Options(size=(28, 28), fit=fit))
    column = json.loads(json.dumps(DataSpec((fitted,), (), {}, "", "").to_json()))["inputs"][0]
    np.testing.assert_array_equal(encoder.encode(column, photos), image.encode(rows, fitted))


def test_a_picture_that_pillow_reads_with_fewer_bits_is_refused() -> None:
    import tensorflow as tf

    deep = tf.io.encode_png(np.full((4, 4, 3), 40_000, "uint16")).numpy()
    assert decode_picture(deep).max() == 40_000 >> 8
    with pytest.raises(ValueError, match="give the pixels as an array of uint16"):
        decode_picture(deep, bits=16)
    with pytest.raises(ValueError, match=r"at most 15 pixels, received 4 x 4"):
        decode_picture(deep, max_pixels=15)


ENCODERS = sorted(Path(encoder.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("file", [*ENCODERS, Path(runner.__file__)], ids=lambda file: file.stem)
def test_what_others_run_imports_nothing_of_ours_at_the_top(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert "numpy" in names
    assert names - set(sys.stdlib_module_names) == {"numpy"}


def test_every_built_in_kind_brings_its_encoder() -> None:
    for case in CASES.values():
        column = case.fit()
        assert inputs.get_traits(column).encoder_file == Path(encoder.__file__).with_name(f"{column.kind}.py")
