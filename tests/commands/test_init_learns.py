"""The recipe that `bmcli init` writes learns, from small data of every form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Bmcli

Rows = Sequence[Sequence[object]]

_TOPICS = {
    "sports": ("goal", "team", "coach", "match", "league", "score", "player", "season"),
    "food": ("salt", "oven", "taste", "spoon", "butter", "bread", "recipe", "sugar"),
}


def write_csv(file: Path, header: Sequence[str], rows: Rows) -> Path:
    file.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
    return file


def write_wine(folder: Path, rows: int) -> Path:
    """Write the wines of scikit-learn: 13 numbers, 3 classes."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    order = np.random.default_rng(0).permutation(len(wine.target))[:rows]
    header = [*(name.replace("/", " ") for name in wine.feature_names), "kind"]
    return write_csv(folder / "wine.csv", header, [[*wine.data[row], "abc"[wine.target[row]]] for row in order])


def write_waters(folder: Path, rows: int) -> Path:
    """Write a number that follows from three of five others and a category, with noise."""
    draw = np.random.default_rng(0)
    x, place = draw.normal(size=(rows, 5)).round(3), draw.integers(3, size=rows)
    depth = (20 + 4 * x[:, 0] - 3 * abs(x[:, 1]) + x[:, 2] * place + draw.normal(scale=0.5, size=rows)).round(2)
    cells = [[*x[row], ("lake", "river", "sea")[place[row]], depth[row]] for row in range(rows)]
    return write_csv(folder / "waters.csv", ["a", "b", "c", "d", "e", "place", "target"], cells)


def write_texts(folder: Path, rows: int, words: int, share: float) -> Path:
    """Write texts of common words among which a share is of one of two topics."""
    draw = np.random.default_rng(0)
    common = [f"{first}{second}" for first in ("ba", "lo", "mi", "ru", "te") for second in ("n", "sa", "vel", "dor")]
    cells = []
    for row in range(rows):
        topic = ("sports", "food")[row % 2]
        length = int(draw.integers(words // 2, words + 1))
        is_of_topic = draw.random(length) < share
        is_of_topic[int(draw.integers(length))] = True
        terms = np.where(is_of_topic, draw.choice(_TOPICS[topic], length), draw.choice(common, length))
        cells.append([" ".join(terms), topic])
    return write_csv(folder / "texts.csv", ["text", "topic"], cells)


def write_waves(folder: Path, rows: int) -> Path:
    """Write noisy sine, square and saw-tooth waves of any phase, one channel of 60 steps."""
    draw = np.random.default_rng(0)
    shape = np.arange(rows) % 3
    phase = (np.arange(60) / draw.uniform(12, 20, (rows, 1)) + draw.uniform(size=(rows, 1))) % 1
    waves = np.stack([np.sin(2 * np.pi * phase), np.sign(phase - 0.5), 2 * phase - 1])[shape, np.arange(rows)]
    x = waves / waves.std(axis=1, keepdims=True) + draw.normal(scale=0.3, size=waves.shape)
    np.savez(folder / "waves.npz", x=x[..., np.newaxis].astype("float32"), y=np.array(["sine", "square", "saw"])[shape])
    return folder / "waves.npz"


def write_windows(folder: Path, rows: int) -> Path:
    """Write windows of 20 steps of a series, and the step after each."""
    draw = np.random.default_rng(0)
    series = np.sin(np.arange(rows + 20) / 5) + 0.02 * np.cumsum(draw.normal(size=rows + 20))
    x = np.stack([series[row : row + 20] for row in range(rows)])[..., np.newaxis]
    np.savez(folder / "windows.npz", x=x.astype("float32"), y=(10 * series[20:]).astype("float32"))
    return folder / "windows.npz"


def write_tags(folder: Path, rows: int) -> Path:
    """Write orders with a tag for each word; `book` is a verb as the first word, and a noun as another one."""
    draw = np.random.default_rng(0)
    words = {"VERB": ("book", "read", "take"), "DET": ("the", "a"), "ADJ": ("long", "new"), "NOUN": ("book", "train")}
    cells = []
    for _ in range(rows):
        tags = ["VERB", "DET", *["ADJ"] * int(draw.integers(3)), "NOUN"]
        cells.append([" ".join(str(draw.choice(words[tag])) for tag in tags), " ".join(tags)])
    return write_csv(folder / "orders.csv", ["order", "label"], cells)


Write = Callable[[Path], Path]


def train_untouched(bmcli: Bmcli, data: Path, *overrides: str) -> Any:
    """Let `init` write a recipe and train it; returns the result."""
    assert bmcli("init", data.name).code == 0
    done = bmcli("train", "recipe.yaml", "train.tensorboard=false", *overrides, "--json")
    assert done.code == 0, done.err
    assert "The network learns nothing." not in done.err
    assert "no better than that of the baseline" not in done.err
    return done.json()


@pytest.mark.parametrize(
    ("write", "epochs", "metric", "least"),
    [
        pytest.param(lambda folder: write_wine(folder, 60), 60, "accuracy", 0.8, id="50 rows of numbers"),
        pytest.param(lambda folder: write_waters(folder, 300), 60, "r2", 0.75, id="numbers and categories"),
        pytest.param(lambda folder: write_texts(folder, 120, 12, 0.2), 25, "accuracy", 0.85, id="short texts"),
        pytest.param(lambda folder: write_texts(folder, 120, 400, 0.03), 25, "accuracy", 0.9, id="long texts"),
        pytest.param(lambda folder: write_waves(folder, 90), 60, "accuracy", 0.75, id="short series"),
        pytest.param(lambda folder: write_windows(folder, 300), 25, "r2", 0.8, id="windows of a series"),
        pytest.param(lambda folder: write_tags(folder, 150), 15, "token_accuracy", 0.95, id="tags of words"),
    ],
)
def test_a_recipe_of_init_is_well_above_the_baseline_within_some_epochs(
    bmcli: Bmcli, tmp_path: Path, write: Write, epochs: int, metric: str, least: float
) -> None:
    found = train_untouched(bmcli, write(tmp_path), f"train.epochs={epochs}")
    assert found["metrics"][f"test/{metric}"] > least
    assert found["baseline"][f"test/{metric}"] < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "metric", "least"),
    [
        pytest.param(lambda folder: write_wine(folder, 178), "accuracy", 0.94, id="178 rows of numbers"),
        pytest.param(lambda folder: write_waters(folder, 5000), "r2", 0.97, id="5,000 rows of a table"),
        pytest.param(lambda folder: write_texts(folder, 3000, 400, 0.01), "accuracy", 0.93, id="3,000 long texts"),
        pytest.param(lambda folder: write_waves(folder, 60), "accuracy", 0.75, id="60 series"),
        pytest.param(lambda folder: write_waves(folder, 2000), "accuracy", 0.97, id="2,000 series"),
        pytest.param(lambda folder: write_windows(folder, 2000), "r2", 0.95, id="2,000 windows of a series"),
    ],
)
def test_an_untouched_recipe_of_init_learns_all_there_is(
    bmcli: Bmcli, tmp_path: Path, write: Write, metric: str, least: float
) -> None:
    assert train_untouched(bmcli, write(tmp_path))["metrics"][f"test/{metric}"] > least


def write_patients(folder: Path) -> Path:
    """Write eight visits of each of 150 patients, who are alike at every visit and ill by chance."""
    draw = np.random.default_rng(0)
    patients, visits = 150, 8
    usual, is_ill = draw.normal(size=(patients, 6)), draw.integers(2, size=patients)
    cells = [
        [1000 + patient, *(usual[patient] + draw.normal(scale=0.05, size=6)).round(3), is_ill[patient]]
        for patient in np.repeat(np.arange(patients), visits)
    ]
    return write_csv(folder / "patients.csv", ["patient_id", *"abcdef", "ill"], cells)


def test_rows_of_a_patient_in_several_splits_would_flatter_the_figure(bmcli: Bmcli, tmp_path: Path) -> None:
    """Nothing can be learned of a new patient, only who has been seen before."""
    assert bmcli("init", write_patients(tmp_path).name, "--target", "ill").code == 0
    assert "group: patient_id" in (tmp_path / "recipe.yaml").read_text()

    def measure(*overrides: str) -> float:
        shares = ("data.split.train=0.5", "data.split.test=0.4")
        done = bmcli("train", "recipe.yaml", "train.epochs=40", *shares, *overrides, "--json")
        assert done.code == 0, done.err
        return float(done.json()["metrics"]["test/accuracy"])

    of_new_patients = measure()
    assert of_new_patients < 0.65
    assert measure("data.split.group=null", "data.drop=[patient_id]") > of_new_patients + 0.1
