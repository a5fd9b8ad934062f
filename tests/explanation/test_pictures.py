"""Explanations of pictures in which the informative place is known, and of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmcli.explanation import gradcam
from bmcli.explanation.explain import take_rows
from bmcli.explanation.gradcam import GradCam
from bmcli.explanation.gradients import IntegratedGradients
from bmcli.explanation.scores import TargetScore
from bmcli.networks.network import Network
from bmcli.specs import Split
from bmcli.workflows.opening import OpenedRun
from tests.explanation import planted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> OpenedRun:
    found = planted.pictures(tmp_path_factory.mktemp("patches"), cache)
    assert found.run.read_evaluations()["test"]["metrics"]["accuracy"] > 0.95
    return found


@pytest.fixture(scope="module")
def rows(run: OpenedRun) -> Split:
    return take_rows(run.prepared.split("validation"), np.arange(32))


def classes(rows: Split) -> np.ndarray:
    return np.asarray(rows.targets["label"])


def share_inside(values: np.ndarray, rows: Split) -> float:
    """Mean share of what is positive that lies in the pattern, which is found by its bright pixels."""
    shares = []
    for heat, image in zip(np.maximum(values, 0), rows.inputs["image"][..., 0], strict=True):
        bright = np.argwhere(image > 200)
        (top, left), (bottom, right) = bright.min(axis=0) - 1, bright.max(axis=0) + 2
        inside = heat[max(top, 0) : bottom, max(left, 0) : right].sum()
        shares.append(inside / max(heat.sum(), 1e-9))
    return float(np.mean(shares))


def heat_of(network: Network, run: OpenedRun, rows: Split) -> np.ndarray:
    score = TargetScore("label", network)
    maps = gradcam.find_maps(network)
    assert maps is not None
    return GradCam(network, score, maps)(rows, classes(rows))


def test_heat_lies_where_the_class_is_visible_once_trained(run: OpenedRun, rows: Split) -> None:
    trained = share_inside(heat_of(run.network, run, rows), rows)
    random = np.mean([share_inside(heat_of(planted.random_network(run, i), run, rows), rows) for i in range(3)])
    assert (trained > 0.45, random < trained / 1.5) == (True, True), (trained, random)


def test_contributions_lie_where_the_class_is_visible(run: OpenedRun, rows: Split) -> None:
    spec = run.prepared.spec
    method = IntegratedGradients(run.network, spec, TargetScore("label", run.network), rows)
    found = method(rows, classes(rows))
    pixels = found.select_column("image")
    assert pixels is not None
    assert pixels.shape == (32, 16, 16, 1)
    assert share_inside(pixels.sum(axis=-1), rows) > 0.6
    assert float(np.median(found.completeness_gaps)) < 0.05


def test_the_maps_are_those_of_the_last_convolution_behind_its_activation(run: OpenedRun) -> None:
    maps = gradcam.find_maps(run.network)
    assert maps is not None
    assert tuple(maps.shape) == (None, 16, 16, 8)
    assert type(maps._keras_history.operation).__name__ == "Activation"


SEQUENCES = """\
bmcli: 1
name: words
data:
  source: {kind: csv, path: words.csv}
  split: {train: 0.7, validation: 0.15, test: 0.15}
  inputs: {text: {kind: text, encoding: sequence, dimension: 8}}
  targets: {label: {kind: category}}
model: {kind: cnn, filters: [8], dense: []}
train: {epochs: 10, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> OpenedRun:
    """Texts of common words, among which one word determines the class."""
    folder, dice = tmp_path_factory.mktemp("words"), np.random.default_rng(6)
    common = ["the", "a", "of", "in", "on", "sea", "hill", "road"]
    lines = ["text,label"]
    for _ in range(400):
        label = dice.choice(["bad", "good"])
        text = list(dice.choice(common, dice.integers(4, 9)))
        text.insert(int(dice.integers(len(text))), "awful" if label == "bad" else "lovely")
        lines.append(f"{' '.join(text)},{label}")
    (folder / "words.csv").write_text("\n".join(lines) + "\n")
    return planted.opened(SEQUENCES, folder, cache)


def test_the_informative_word_adds_most_to_an_answer(words: OpenedRun) -> None:
    from bmcli.explanation.explain import explain_network

    found = explain_network(planted.make_context(words), planted.predict(words), 60, 1, 5)
    answers = found.targets[0].least_confident
    assert len(answers) == 5
    for each in answers:
        assert max(each.words, key=lambda word: word[1])[0] in ("awful", "lovely")
        assert len(each.grad_cam) == 1
    assert "?" not in [word for each in answers for word, _ in each.words]
