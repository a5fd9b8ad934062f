"""Laws of cut networks, and of compared numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bmcli.explanation import graph
from bmcli.explanation.activations import compute_similarity, find_nearest
from bmcli.recipe.load import load_recipe
from bmcli.workflows import session

TABLE = """\
bmcli: 1
name: cut
data:
  source: {{kind: csv, path: cut.csv}}
  inputs:
    number: {{kind: number}}
    city: {{kind: category, encoding: embedding, dimension: 3}}
    sort: {{kind: category}}
    member: {{kind: boolean}}
    words: {{kind: text, encoding: {encoding}}}
  crosses: [{{columns: [city, sort]}}]
  targets: {{label: {{kind: category}}}}
model: {model}
train: {{epochs: 1, batch_size: 16}}
"""
FAMILIES = {
    "mlp": ("tfidf", "{kind: mlp, hidden: [4]}"),
    "wide_deep": ("tfidf", "{kind: wide_deep, hidden: [4]}"),
    "table_resnet": ("tfidf", "{kind: table_resnet, depth: 1, width: 8}"),
    "rnn": ("sequence", "{kind: rnn, units: [4]}"),
    "cnn": ("sequence", "{kind: cnn, filters: [4]}"),
    "transformer": ("sequence", "{kind: transformer, depth: 1, width: 8, heads: 2, pooling: token}"),
}


@pytest.mark.parametrize(
    "family", [name if name in ("mlp", "cnn") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_network_cut_at_its_features_gives_what_it_gave(family: str, tmp_path: Path, cache: Path) -> None:
    dice = np.random.default_rng(0)
    lines = ["number,city,sort,member,words,label"]
    for row in range(60):
        words = " ".join(dice.choice(["red", "round", "old", "new"], 3))
        city, sort = dice.choice(["Ulm", "Rom", "Bonn"]), dice.choice(["x", "y"])
        lines.append(f"{dice.normal():.3f},{city},{sort},{'yes' if row % 3 else 'no'},{words},{'ab'[row % 2]}")
    (tmp_path / "cut.csv").write_text("\n".join(lines) + "\n")
    encoding, model = FAMILIES[family]
    (tmp_path / "recipe.yaml").write_text(TABLE.format(encoding=encoding, model=model))
    begun = session.start_session(load_recipe(str(tmp_path / "recipe.yaml")), cache)
    network = begun.build_trainer(None).network
    places = graph.find_features(network)
    assert {"number", "city", "sort", "member", "words", "city & sort"} <= {place.name for place in places}
    rows = begun.prepared.split("train")
    encoded = {name: tf.constant(np.asarray(cells)) for name, cells in rows.inputs.items()}
    tensors = [place.tensor for place in places]
    inside = graph.build_front(network, tensors)(encoded)
    again = graph.build_back(network, tensors)([inside[str(i)] for i in range(len(tensors))], encoded)
    usual = network.model(encoded)
    assert again["label"].numpy() == pytest.approx(usual["label"].numpy(), abs=1e-5)
    assert graph.find_embedding(network).shape[-1] > 1


def test_layers_that_are_turned_or_stretched_are_alike_and_strangers_are_not() -> None:
    dice = np.random.default_rng(1)
    given = dice.normal(size=(200, 6))
    turned = given @ np.linalg.qr(dice.normal(size=(6, 6)))[0]
    stranger = dice.normal(size=(200, 6))
    constant = np.ones((200, 3))
    found = compute_similarity([given, 3 * turned + 5, stranger, constant])
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] < 0.2
    assert found[0, 3] == 0


def test_similarity_is_that_of_the_paper() -> None:
    """Equation 4 of Kornblith et al. 2019: ||Y'X||^2 / (||X'X|| ||Y'Y||) of centred columns."""
    dice = np.random.default_rng(2)
    one = dice.normal(size=(50, 4))
    other = one[:, :2] @ dice.normal(size=(2, 3)) + dice.normal(size=(50, 3))
    x, y = one - one.mean(axis=0), other - other.mean(axis=0)
    norm = np.linalg.norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert compute_similarity([one, other])[0, 1] == pytest.approx(expected)


def test_the_nearest_by_cosine_is_not_the_longest() -> None:
    places, cosines = find_nearest(np.array([[1.0, 0.1]]), np.array([[0.0, 9.0], [9.0, 9.0], [0.1, 0.01]]), 2)
    assert places.tolist() == [[2, 1]]
    assert cosines[0, 0] == pytest.approx(1)
