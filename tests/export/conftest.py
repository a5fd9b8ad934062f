"""Runs to export: a table with every kind of column, and pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bmcli.commands.export import ExportResult, export
from bmcli.commands.train import train
from bmcli.runs import Run
from bmcli.terminal.console import Console
from bmcli.workflows.training import TrainingContext

TABLE = """\
name: parcels
data:
  source: {kind: csv, path: parcels.csv}
  inputs:
    weight: {kind: number}
    colour: {kind: category}
    fragile: {kind: boolean}
    sent: {kind: date}
    note: {kind: text, tokens: {kind: words, min_count: 1}}
  targets: {arrived: {kind: category}, price: {kind: number}, lost: {kind: category}}
objective: {lost: {kind: classification, calibrate: temperature, threshold: 0.55}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 2, batch_size: 16, tensorboard: false}
"""
PICTURES = """\
name: pictures
data:
  source: {kind: builtin, name: digits}
model: {kind: mlp, hidden: [32]}
train: {epochs: 12, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 3e-3}}
"""


def trained(recipe: str, folder: Path, cache: Path) -> Run:
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    console = Console(verbosity=-1)
    done = train(
        str(folder / "recipe.yaml"), (), TrainingContext(folder / "runs", cache, console.make_progress, console.log)
    )
    assert done.run is not None
    return done.run


def exported(run: Run, cache: Path, formats: str | None, *overrides: str) -> ExportResult:
    return export(str(run.folder), overrides, formats, run.folder.parent.parent, cache, lambda text: None)


def parcels(count: int) -> list[list[str]]:
    """Rows in which some cells are missing."""
    rows = [["weight", "colour", "fragile", "sent", "note", "arrived", "price", "lost"]]
    for number in range(count):
        weight = "" if number % 7 == 0 else str(number * 7 % 13 / 2)
        note = ("handle with care", "To the café, quickly!", "", "twice: TWICE")[number % 4]
        rows.append(
            [
                *(weight, ("red", "blue", "")[number % 3], ("yes", "no")[number % 2], f"2024-0{1 + number % 9}-11"),
                *(note, ("early", "late", "never")[number * 7 % 13 // 5], str(10 + number * 7 % 13)),
                ("no", "no", "yes")[number * 5 % 11 % 3],
            ]
        )
    return rows


@pytest.fixture(scope="package")
def table_run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    folder = tmp_path_factory.mktemp("parcels")
    with (folder / "parcels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(parcels(150))
    return trained(TABLE, folder, cache)


@pytest.fixture(scope="package")
def picture_run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    return trained(PICTURES, tmp_path_factory.mktemp("pictures"), cache)


@pytest.fixture(scope="package")
def of_table(table_run: Run, cache: Path) -> ExportResult:
    return exported(table_run, cache, "saved_model,litert", "export.license=CC-BY-4.0")
