"""From a loaded recipe to a trainer that is ready for its first step, and what a run holds before it.

Imports no TensorFlow, which has to be told how to start before it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import disk, training
from bmcli.data.resolution import resolve_options
from bmcli.data.sources import SourceOptions
from bmcli.errors import BmcliError
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.plugins import list_used_plugins
from bmcli.recipe.render import render_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import write_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.training.trainer import Trainer


@dataclass(frozen=True)
class Session:
    """A recipe with its encoded data and its devices.

    Args:
        cache: Where measurements of this machine are remembered.
    """

    loaded: LoadedRecipe
    prepared: PreparedData
    placement: Placement
    cache: Path

    def build_trainer(self, run: Run | None, profile: bool = False) -> Trainer:
        """A trainer of a new network.

        Args:
            run: Where it writes; None on a worker that has nothing to write.
            profile: Write a trace of some seconds of training.

        Raises:
            BmcliError: The network, or how it is to be trained, does not fit the data.
        """
        recipe, prepared = self.loaded.recipe, self.prepared
        school = None
        if recipe.taught is not None:
            from bmcli.distillation.teacher_ensemble import (
                TeacherEnsemble,  # after the start, which keeps TensorFlow quiet
            )

            school = TeacherEnsemble.load_teachers(recipe, recipe.taught, prepared, self.placement, self.cache)
        network = training.build_network(recipe, prepared.spec, prepared.split("train").targets, self.placement)
        from bmcli.workflows.assembly import build_trainer  # as above

        loss = school.build_loss(network) if school else None
        learned = school.known.prepared if school else prepared
        return build_trainer(recipe, network, learned, self.placement, run, self.cache, profile, loss)

    def write_run_files(self, trainer: Trainer, run: Run) -> None:
        """Writes every file of a run that is known before the first step; `data.json`, the last, tells that it is."""
        from bmcli.distribution import environment

        disk.write_atomically(run.recipe, self.loaded.document.text.encode(), disk.PRIVATE_MODE)
        self.write_lock(trainer, run)  # with the id that the others carry
        run.write(run.environment, environment.describe_environment(self.placement), disk.PRIVATE_MODE)
        write_data_spec(run, self.prepared.spec)

    def write_lock(self, trainer: Trainer, run: Run) -> None:
        """The recipe as it is trained, with what `auto` became; what it would search is not of the training."""
        recipe, compilation = self.loaded.recipe, trainer.steps.compilation
        asked = {
            "runtime.strategy": (recipe.runtime.strategy, trainer.placement.kind),
            "runtime.jit": (recipe.runtime.jit, compilation.jit),
            "train.batch_size": (recipe.train.batch_size, trainer.batch),
            "train.optimizer.learning_rate": tuple(
                each.train.optimizer.options["learning_rate"] for each in (recipe, trainer.recipe)
            ),
            "train.select.metric": (recipe.train.select.metric, trainer.selection.metric),
        }
        found = {path: became for path, (given, became) in asked.items() if given == "auto"}
        if trainer.placement.kind == "mirrored" and recipe.runtime.replicas is None:
            found["runtime.replicas"] = trainer.placement.replicas
        together = compilation.steps_per_program if compilation.jit else "auto"
        if together != recipe.runtime.jit_steps:
            found["runtime.jit_steps"] = together
        if trainer.micro_batches != recipe.train.gradient_accumulation:
            found["train.gradient_accumulation"] = trainer.micro_batches
        plugins = list_used_plugins(recipe)
        if plugins:
            found["plugins"] = plugins
        data = resolve_options(recipe.data, recipe.targets(), self.prepared.spec)
        resolved_recipe = (
            recipe.for_training().with_default_objectives().model_copy(update={"data": data, "plugins": plugins})
        )
        run.write_lock(render_recipe(resolved_recipe, self.loaded.tree, found))


def _accept_any(spec: DataSpec) -> None:
    """Accepts whatever the data is."""


def start_session(
    loaded: LoadedRecipe,
    cache: Path,
    check_data: Callable[[DataSpec], None] = _accept_any,
    known_spec: DataSpec | None = None,
) -> Session:
    """Prepares the data of a recipe and starts TensorFlow on its devices.

    Args:
        cache: Prepared data and measurements of this machine.
        check_data: Raises what is wrong with the data, before devices are taken.
        known_spec: What the data has to be, that of a run that goes on.

    Raises:
        BmcliError: The data is at fault, or the machine cannot give the devices.
    """
    recipe = loaded.recipe
    placement = training.place_on_devices(recipe, cache) if training.needs_specific_devices(recipe.runtime) else None
    prepared = training.prepare_data(recipe, cache) if known_spec is None else prepare_again(recipe, known_spec, cache)
    check_data(prepared.spec)
    return Session(loaded, prepared, placement or training.place_on_devices(recipe, cache), cache)


def prepare_again(recipe: Recipe, known_spec: DataSpec, cache: Path) -> PreparedData:
    """The data of a run as it was prepared for its training.

    Raises:
        BmcliError: It is not what it was.
    """
    source: SourceOptions = recipe.data.source  # type: ignore[assignment]
    try:
        prepared = training.prepare_data(recipe, cache)
    except BmcliError:
        _require_same_data(known_spec, source.fingerprint(), source)
        raise
    _require_same_data(known_spec, prepared.spec.fingerprint, source)
    return prepared


def _require_same_data(known_spec: DataSpec, fingerprint: str, source: SourceOptions) -> None:
    """Refuses data that is not what a run was trained on: its rows may have been split otherwise."""
    if known_spec.fingerprint != fingerprint:
        raise BmcliError(
            f"{source.shown()}: the data changed since this run was trained, so its splits are not the same rows.",
            path="data.source",
            suggestion="Train again, or measure on a file with --data.",
        )
