"""A trained teacher and students that learn from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmcli import disk, runs
from bmcli.networks.network import save_network
from bmcli.recipe import students
from bmcli.recipe.distill import DistillOptions, TrainedTeacherOptions
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.runs import Run
from bmcli.training.trainer import Trainer
from bmcli.workflows.session import start_session
from tests.trainers import Silent, table

RECIPE = """\
bmcli: 1
name: distilled
seed: 3
data:
  source: {kind: npz, path: FILE}
  inputs: {image: {kind: image}, age: {kind: number}}
  targets: {label: {kind: category}}
model: {kind: cnn, filters: [3], dense: [5]}
train:
  epochs: 3
  batch_size: 8
  tensorboard: false
  select: {metric: last}
  optimizer: {kind: sgd, learning_rate: 0.05, momentum: 0.9}
runtime: {jit: false}
"""
ROWS, VALIDATION = 21, 9
LARGE = ("name=teacher", "model.filters=[6]", "model.dense=[7]")
Losses = Sequence[dict[str, Any]]


def recipe_file(folder: Path) -> Path:
    """The recipe beside its data."""
    data, path = folder / "data.npz", folder / "recipe.yaml"
    splits = {"train": ROWS, "validation": VALIDATION, "test": 12}
    np.savez(data, **{f"{name}_{split}": a for split, count in splits.items() for name, a in table(count).items()})
    path.write_text(RECIPE.replace("FILE", str(data)))
    return path


def trained(path: Path, root: Path, cache: Path, *overrides: str) -> TrainedTeacherOptions:
    """A teacher that is an ordinary run."""
    session = start_session(load_recipe(str(path), [*LARGE, *overrides]), cache)
    run = runs.create(root, session.loaded.recipe.name)
    trainer = session.build_trainer(run)
    session.write_run_files(trainer, run)
    trainer.train(Silent())
    save_network(trainer.network, session.prepared.spec, run.model)
    return TrainedTeacherOptions(model=str(run.model), run=str(run.folder), sha256=disk.compute_sha256(run.model))


def pupil(
    path: Path, teachers: Sequence[TrainedTeacherOptions], losses: Losses, *overrides: str, **more: Any
) -> LoadedRecipe:
    """The recipe of a student.

    Args:
        more: Further options of `distill`.
    """
    options = DistillOptions.model_validate({"losses": tuple(losses), **more})
    return students.make_distilled_student(load_recipe(str(path), overrides), options, teachers, {})


Make = Callable[..., Trainer]


def make_with(root: Path, cache: Path) -> Callable[..., Trainer]:
    """Build the trainer of a recipe, in a new run or one to resume."""

    def make(loaded: LoadedRecipe, run: Run | None = None) -> Trainer:
        session = start_session(loaded, cache)
        return session.build_trainer(run or runs.create(root, loaded.recipe.name))

    return make
