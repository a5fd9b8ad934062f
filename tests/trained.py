"""Runs to be looked into: tiny ones that really train, on data whose names and texts attack who shows them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from bmcli.commands.train import train
from bmcli.runs import Run
from bmcli.terminal.console import Console
from bmcli.workflows.training import TrainingContext

SCRIPT, FORMULA, IMAGE = "<script>alert(1)</script>", "=cmd()", '"><img src=x onerror=alert(2)>'
CLASSES = ("</script><script>alert(3)</script>", "{{ 7 * 7 }}")


def run_of(recipe: str, folder: Path, cache: Path) -> Run:
    """A run of a recipe that is written into a folder."""
    file = folder / "recipe.yaml"
    file.write_text(recipe, encoding="utf-8")
    console = Console(verbosity=-1)
    trained = train(str(file), (), TrainingContext(folder / "runs", cache, console.make_progress, console.log))
    assert trained.run is not None
    return trained.run


def hostile(folder: Path, cache: Path) -> Run:
    """A run on a table whose names, classes, cells and recipe would be markup, code or formulas to a careless page."""
    dice = np.random.default_rng(0)
    with (folder / "<b>hostile<b>.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([SCRIPT, FORMULA, IMAGE, "target & <i>"])
        for row in range(240):
            number, kind = dice.normal(), ("<u>a</u>", IMAGE, "")[row % 3]
            writer.writerow([f"{number:.3f}", kind, f"{SCRIPT} {FORMULA} {row}", CLASSES[int(number > 0)]])
            if row < 40:  # again, so that splits share rows
                writer.writerow([f"{number:.3f}", kind, f"{SCRIPT} {FORMULA} {row}", CLASSES[int(number > 0)]])
    recipe = f"""\
bmcli: 1  # </pre><script>alert(4)</script>
name: hostile
data:
  source: {{kind: csv, path: "<b>hostile<b>.csv"}}
  split: {{train: 0.6, validation: 0.2, test: 0.2}}
  inputs:
    "{SCRIPT}": {{kind: number}}
    "{FORMULA}": {{kind: category}}
    '{IMAGE}': {{kind: text}}
  targets: {{"target & <i>": {{kind: category}}}}
model: {{kind: mlp, hidden: [8]}}
objective: {{kind: classification, calibrate: temperature, threshold: {{goal: f1}}}}
train: {{epochs: 4, batch_size: 16, tensorboard: false, optimizer: {{kind: adam, learning_rate: 2e-2}}}}
evaluate: {{slices: ["{FORMULA}"], fairness: {{columns: ["{FORMULA}"]}}}}
"""
    return run_of(recipe, folder, cache)


DIGITS = """\
bmcli: 1
name: digits
data:
  source: {kind: builtin, name: digits}
  split: {train: 0.7, validation: 0.15, test: 0.15}
model: {kind: cnn, filters: [8, 16], dense: [16]}
train: {epochs: 6, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 5e-3}}
"""

NUMBERS = """\
bmcli: 1
name: sugar
data: {source: {kind: builtin, name: diabetes}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 3, batch_size: 32, tensorboard: false}
"""
