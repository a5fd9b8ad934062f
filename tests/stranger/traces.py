"""Traces of a seismograph with marks that follow from each reading and its neighbours."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROWS, LONGEST = 400, 8

RECIPE = """\
bmcli: 1
name: quakes
seed: 3
data:
  source: {kind: csv, path: quakes.csv}
  split: {train: 0.6, validation: 0.2, test: 0.2}
  drop: [station]
  inputs: {trace: trace}
  targets: {marks: marks}
  augment: {trace: [{kind: reversal, share: 0.5}]}
model: {kind: filters, width: 16, depth: 2}
train: {epochs: 14, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
evaluate: {slices: [station]}
"""


def mark_readings(readings: Sequence[float]) -> str:
    """Mark each reading by its neighbours: `peak`, `dip` or `slope`."""
    marks = []
    for position, reading in enumerate(readings):
        around = [*readings[max(position - 1, 0) : position], *readings[position + 1 : position + 2]]
        marks.append("peak" if reading > max(around) else "dip" if reading < min(around) else "slope")
    return " ".join(marks)


def write_traces(folder: Path) -> Path:
    """Write `quakes.csv` and `recipe.yaml`; returns the recipe."""
    dice = np.random.default_rng(3)
    with (folder / "quakes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["station", "trace", "marks"])
        for row in range(ROWS):
            readings = dice.normal(size=dice.integers(3, LONGEST + 1)).round(2)
            trace = " ".join(f"{reading:.2f}" for reading in readings)
            writer.writerow([("south", "north")[row % 2], trace, mark_readings(readings)])
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    return recipe
