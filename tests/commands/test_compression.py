"""Runs whose network was compressed during training: trained, measured, resumed, and used like others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import WriteRecipe

from .conftest import Bmcli
from .test_train import load_model, weights

CHANNELS = "train.prune={kind: channels, sparsity: 0.5, end: 0.5}"


def test_a_run_with_pruned_channels_keeps_a_narrower_network(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("train", write_recipe(), CHANNELS, "--json")
    assert done.code == 0, done.err
    run, metrics = done.json()["run"], done.json()["metrics"]
    assert [weight.shape for weight in weights(run)[-4:]] == [(4, 4), (4,), (4, 3), (3,)]
    assert "kept 35 of 67 parameters, " in done.err
    weight = json.loads((Path(run) / "status.json").read_text())["model_size"]
    assert (weight["parameters"], weight["bytes"]) == (35, 140)
    again = bmcli("evaluate", run, "--json")
    assert again.code == 0, again.err
    assert again.json()["metrics"]["test/accuracy"] == metrics["test/accuracy"]
    raw = load_model(run)({name: np.full((1, 1), 2.0, "float32") for name in load_model(run).input})
    assert next(iter(raw.values())).shape == (1, 3)


@pytest.mark.slow
def test_it_predicts_and_goes_on(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    run = bmcli("train", write_recipe(), CHANNELS, "--json").json()["run"]
    columns = list(load_model(run).input)
    (tmp_path / "new.csv").write_text(",".join(f'"{name}"' for name in columns) + "\n5.1,3.5,1.4,0.2\n")
    done = bmcli("predict", run, "new.csv")
    assert done.code == 0, done.err
    done = bmcli("train", "--resume", run, "train.epochs=5", "--json")
    assert done.code == 0, done.err
    assert weights(run)[-4].shape == (4, 4)


@pytest.mark.slow
def test_the_recipe_of_a_run_trains_to_the_same_bits(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    options = ("train.prune={sparsity: 0.5}", "train.quantize_aware=int4")
    first = bmcli("train", write_recipe(), *options, "--json").json()["run"]
    second = bmcli("train", Path(first) / "recipe.lock.yaml", "--json").json()["run"]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights(first), weights(second), strict=True))
    assert np.mean([(w == 0).mean() for w in weights(first) if w.ndim == 2 and w.size > 4]) == pytest.approx(
        0.5, abs=0.1
    )
