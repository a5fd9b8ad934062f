"""Data with known causes of the target, and networks trained on it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from bmcli.evaluation.predictions import Predictions
from bmcli.explanation.explain import ExplanationContext
from bmcli.networks.network import Network
from bmcli.training import build_network
from bmcli.workflows.opening import OpenedRun, load_run_recipe, open_run
from bmcli.workflows.run_evaluation import predict_rows
from tests.trained import run_of

INFORMATIVE, USELESS = ("height", "colour"), ("noise", "shape")
TABLE = """\
bmcli: 1
name: planted
data:
  source: {kind: csv, path: planted.csv}
  split: {train: 0.6, validation: 0.2, test: 0.2}
  targets: {label: {kind: category}}
model: {kind: mlp, hidden: [16]}
train: {epochs: 12, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
"""
PICTURES = """\
bmcli: 1
name: patches
data:
  source: {kind: npz, path: patches.npz}
  split: {train: 0.7, validation: 0.15, test: 0.15}
  inputs: {image: {kind: image}}
  targets: {label: {kind: category}}
model: {kind: cnn, filters: [8, 8], pool: 1, pooling: average, dense: []}
train: {epochs: 8, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
"""
PATCH = 4  # pixels a side


def table(folder: Path, cache: Path) -> OpenedRun:
    """The label follows from a number and a category; another of each have no information."""
    dice = np.random.default_rng(3)
    with (folder / "planted.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["height", "noise", "colour", "shape", "label"])
        for _ in range(900):
            height, noise = dice.normal(size=2)
            colour, shape = dice.choice(["red", "blue"]), dice.choice(["round", "flat", "long"])
            answer = "yes" if height + (1.5 if colour == "red" else -1.5) > 0 else "no"
            writer.writerow([f"{height:.4f}", f"{noise:.4f}", colour, shape, answer])
    return opened(TABLE, folder, cache)


def pictures(folder: Path, cache: Path) -> OpenedRun:
    """A pattern of stripes somewhere in noise determines the class: upright or level."""
    dice = np.random.default_rng(4)
    images = dice.integers(0, 60, (500, 16, 16), "uint8")
    labels = dice.integers(0, 2, 500)
    for image, label, (row, column) in zip(images, labels, places(), strict=True):
        stripes = np.zeros((PATCH, PATCH), "uint8")
        stripes[::2] = 255
        image[row : row + PATCH, column : column + PATCH] = stripes if label else stripes.T
    np.savez(folder / "patches.npz", image=images, label=labels, place=np.array(places()))
    return opened(PICTURES.replace("inputs:", "drop: [place]\n  inputs:"), folder, cache)


def places() -> list[tuple[int, int]]:
    """Row and column of the pattern's corner in each picture."""
    return [(row, column) for row, column in np.random.default_rng(5).integers(0, 16 - PATCH, (500, 2)).tolist()]


def opened(recipe: str, folder: Path, cache: Path) -> OpenedRun:
    run = run_of(recipe, folder, cache)
    return open_run(load_run_recipe(run), run, cache)


def random_network(run: OpenedRun, number: int) -> Network:
    recipe = run.recipe.model_copy(update={"seed": 100 + number})
    return build_network(recipe, run.prepared.spec, run.prepared.split("train").targets, run.placement)


def make_context(run: OpenedRun, network: Network | None = None) -> ExplanationContext:
    """Make the context of a run, or of another network with its data."""
    train = run.prepared.split("train")
    chosen = network or run.network
    return ExplanationContext(chosen, lambda: random_network(run, 0), run.prepared.spec, train)


def predict(run: OpenedRun, network: Network | None = None) -> Predictions:
    rows = run.prepared.split("validation")
    return predict_rows(run.recipe, network or run.network, run.prepared.spec, rows, "validation", run.placement)
