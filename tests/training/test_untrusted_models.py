"""Models from untrusted sources: attacks are refused, and models of Keras users are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from bmcli.errors import BmcliError
from bmcli.networks import network
from tests.training.hostile import ATTACKS, WEIGHTS, honest_model


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of loading each attack in a separate process."""
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.training.hostile", str(folder)]
    ended = subprocess.run(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, timeout=900, check=False)
    assert ended.returncode == 0
    loaded: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return loaded


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_one_line_without_harm(found: dict[str, Any], attack: str) -> None:
    came = found[attack]
    assert came["code"] == 2
    assert came["fault"]
    assert "\n" not in came["fault"]
    assert came["fault"].split(": ")[1].startswith(("refused", "damaged", "cannot be loaded")), came["fault"]
    assert not came["marker"]
    assert came["grown"] < 300 * 2**20


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("lambda", "keras.layers.Lambda"),
        ("os.system", "'system'"),
        ("StringLookup of a file", "would read a file"),
        ("8 GB of weights", "memory that the size of its weights allows"),
        ("4 TB of weights", "memory that the size of its weights allows"),
        ("a bomb", "more than 16 times"),
        ("a large configuration", "config.json is larger"),
        ("many values", "values, more than"),
        ("100,000 members", "directory is larger"),
        ("an external link", "point elsewhere"),
        ("a claim of 4 TB", "claim 4,398,046,511,128 bytes"),
        ("a folder", "it is a folder"),
        ("HDF5", "HDF5 file"),
    ],
)
def test_the_fault_names_the_problem(found: dict[str, Any], attack: str, message: str) -> None:
    assert message in found[attack]["fault"]


@pytest.mark.parametrize("attack", ["", "8 GB of weights"])
def test_memory_is_limited_where_the_system_does_not_count_it(tmp_path: Path, attack: str) -> None:
    """For instance on macOS, which has no /proc."""
    honest = tmp_path / "honest.keras"
    honest_model(honest)
    file = tmp_path / "file.keras"
    ATTACKS[attack](file, honest, tmp_path / "marker") if attack else shutil.copy(honest, file)
    code = (
        "import pathlib, sys; from bmcli.networks import rehearsal\n"
        "rehearsal._STATUS = pathlib.Path('/nowhere/status')\n"
        f"sys.argv = ['rehearsal', {str(file)!r}, {str(2**29)!r}]\n"
        "rehearsal.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, "memory that the size of its weights allows" in done.stdout) == (
        int(bool(attack)),
        bool(attack),
    )


def test_what_a_keras_user_saved_is_loaded(tmp_path: Path) -> None:
    made = honest_model(tmp_path / "honest.keras")
    loaded = network.load_serving_model(tmp_path / "honest.keras")
    rows = {"numbers": np.linspace(-1, 1, 20, dtype="float32").reshape(5, 4)}
    np.testing.assert_array_equal(loaded(rows)["label"], made(rows)["label"])


def test_vocabularies_nested_models_and_packed_files_are_loaded(tmp_path: Path) -> None:
    """Layers with assets, states and layers inside, in an archive that was compressed again."""
    texts = keras.Input((), dtype="string", name="text")
    words = keras.layers.TextVectorization(max_tokens=50, output_sequence_length=6)
    words.adapt(["a red fox", "the dog"])
    inner = keras.Sequential([keras.layers.Embedding(50, 4), keras.layers.Bidirectional(keras.layers.GRU(3))])
    hidden = keras.layers.BatchNormalization()(inner(words(texts)))
    made = keras.Model({"text": texts}, {"label": keras.layers.Dense(2, activation="softmax")(hidden)})
    made.save(tmp_path / "plain.keras")
    with (
        zipfile.ZipFile(tmp_path / "plain.keras") as plain,
        zipfile.ZipFile(tmp_path / "packed.keras", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        assert any(name.startswith("assets/") for name in plain.namelist())
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    rows = {"text": keras.ops.convert_to_tensor(["the red dog", "fox"])}
    for name in ("plain", "packed"):
        loaded = network.load_serving_model(tmp_path / f"{name}.keras")
        np.testing.assert_allclose(loaded(rows)["label"], made(rows)["label"], atol=1e-6)


def test_another_file_than_was_chosen_is_refused(tmp_path: Path) -> None:
    honest_model(tmp_path / "honest.keras")
    with pytest.raises(BmcliError, match="has changed since it was chosen"):
        network.load_serving_model(tmp_path / "honest.keras", "0" * 64)


def test_weights_of_the_honest_model_are_where_the_attacks_take_them(tmp_path: Path) -> None:
    honest_model(tmp_path / "honest.keras")
    with zipfile.ZipFile(tmp_path / "honest.keras") as archive:
        assert WEIGHTS in archive.namelist()
