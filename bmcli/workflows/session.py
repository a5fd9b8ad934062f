"""Prepare the data and devices of a recipe, build its trainer, and write the first files of its run.

The module imports no TensorFlow, whose environment variables must be set before its import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, training
from bmcli.data.resolution import resolve_options
from bmcli.data.sources import SourceOptions, get_source
from bmcli.errors import BmcliError
from bmcli.models import get_backbone_source
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.model import ModelSource
from bmcli.recipe.paths import join_steps
from bmcli.recipe.plugins import list_used_plugins
from bmcli.recipe.render import render_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import write_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.workflows.backbone_source import open_source

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.training.trainer import Trainer


@dataclass(frozen=True)
class Session:
    """A recipe with its encoded data and its devices.

    Args:
        cache: Folder of prepared data and of measurements of this machine.
    """

    loaded: LoadedRecipe
    prepared: PreparedData
    placement: Placement
    cache: Path

    def build_trainer(self, run: Run | None, profile: bool = False) -> Trainer:
        """Build a trainer of a new network.

        Args:
            run: Run to write into; None on a worker that writes nothing.
            profile: Write a trace of some seconds of training.

        Raises:
            BmcliError: The network or its training options do not fit the data.
        """
        recipe, prepared = self.loaded.recipe, self.prepared
        ensemble = None
        if recipe.distillation is not None:
            from bmcli.distillation.teacher_ensemble import TeacherEnsemble

            ensemble = TeacherEnsemble.load_teachers(recipe, recipe.distillation, prepared, self.placement, self.cache)
        source = open_source(recipe, prepared.spec, self.placement)
        network = training.build_network(recipe, prepared.spec, prepared.split("train").targets, self.placement)
        from bmcli.networks.weights import load_weights
        from bmcli.workflows.assembly import build_trainer

        start = load_weights(source, network, "backbone") if source else None

        loss = ensemble.build_loss(network) if ensemble else None
        # The training rows of a student are those of its transfer set.
        data = ensemble.transfer_set.prepared if ensemble else prepared
        return build_trainer(recipe, network, data, self.placement, run, self.cache, profile, loss, start)

    def write_run_files(self, trainer: Trainer, run: Run) -> None:
        """Write all files of a run that are known before the first step; `data.json` comes last and marks the end."""
        from bmcli.distribution import environment

        disk.write_atomically(run.recipe, self.loaded.document.text.encode(), disk.PRIVATE_MODE)
        self.write_lock(trainer, run)  # first of the records, since it holds the id that the others carry
        run.write(run.environment, environment.describe_environment(self.placement), disk.PRIVATE_MODE)
        if trainer.start is not None:
            run.write(run.start, asdict(trainer.start))
        write_data_spec(run, self.prepared.spec)

    def write_lock(self, trainer: Trainer, run: Run) -> None:
        """Write the resolved recipe of the training: with the values that `auto` became, without its search."""
        recipe, compilation = self.loaded.recipe, trainer.steps.compilation
        requested_and_resolved = {
            "runtime.strategy": (recipe.runtime.strategy, trainer.placement.kind),
            "runtime.jit": (recipe.runtime.jit, compilation.jit),
            "train.batch_size": (recipe.train.batch_size, trainer.batch),
            "train.optimizer.learning_rate": tuple(
                version.train.optimizer.options["learning_rate"] for version in (recipe, trainer.recipe)
            ),
            "train.select.metric": (recipe.train.select.metric, trainer.selection.metric),
        }
        changed = {path: value for path, (requested, value) in requested_and_resolved.items() if requested == "auto"}
        changed |= self._list_resolved_objectives()
        # A resumed run must use the first run's choices: other replicas or another compilation change the last bits.
        if trainer.placement.kind == "mirrored" and recipe.runtime.replicas is None:
            changed["runtime.replicas"] = trainer.placement.replicas
        jit_steps = compilation.steps_per_program if compilation.jit else "auto"
        if jit_steps != recipe.runtime.jit_steps:
            changed["runtime.jit_steps"] = jit_steps
        if trainer.micro_batches != recipe.train.gradient_accumulation:
            changed["train.gradient_accumulation"] = trainer.micro_batches
        plugins = list_used_plugins(recipe.with_default_objectives())
        if plugins:
            changed["plugins"] = plugins
        source = get_backbone_source(recipe.model)
        if source is not None and trainer.start is not None:
            changed["model.from"] = ModelSource(run=source.run, sha256=trainer.start.digest)
        data = resolve_options(recipe.data, recipe.targets(), self.prepared.spec)
        resolved_recipe = (
            recipe.for_training().with_default_objectives().model_copy(update={"data": data, "plugins": plugins})
        )
        run.write_lock(render_recipe(resolved_recipe, self.loaded.tree, changed))

    def _list_resolved_objectives(self) -> dict[str, Any]:
        """List what `auto` became in the objectives, by path in the resolved recipe."""
        recipe, spec = self.loaded.recipe, self.prepared.spec
        is_mapping = isinstance(recipe.with_default_objectives().objective, Mapping)
        return {
            join_steps(("objective", *((name,) if is_mapping else ()), option)): value
            for name, options in recipe.objectives().items()
            for option, value in options.list_resolved(spec.output(name).state).items()
        }


def _accept_any(spec: DataSpec) -> None:
    """Accept all data."""


def start_session(
    loaded: LoadedRecipe,
    cache: Path,
    check_data: Callable[[DataSpec], None] = _accept_any,
    known_spec: DataSpec | None = None,
) -> Session:
    """Prepare the data of a recipe and start TensorFlow on its devices.

    Args:
        cache: Folder of prepared data and of measurements of this machine.
        check_data: Raises BmcliError if the data does not fit the recipe; called before devices are taken.
        known_spec: Spec of the data of a resumed run, which the data must still have.

    Raises:
        BmcliError: The data is at fault, or the machine cannot give the devices.
    """
    recipe = loaded.recipe
    # Devices that the recipe names are taken first, so that a machine without them fails before the data is prepared.
    placement = training.place_on_devices(recipe, cache) if training.needs_specific_devices(recipe.runtime) else None
    prepared = training.prepare_data(recipe, cache) if known_spec is None else prepare_again(recipe, known_spec, cache)
    check_data(prepared.spec)
    return Session(loaded, prepared, placement or training.place_on_devices(recipe, cache), cache)


def prepare_again(recipe: Recipe, known_spec: DataSpec, cache: Path) -> PreparedData:
    """Prepare the data of a run as for its training.

    Raises:
        BmcliError: The data has changed.
    """
    source = get_source(recipe.data)
    try:
        prepared = training.prepare_data(recipe, cache, known_spec)
    except BmcliError:
        # Changed data explains the fault better than the fault itself.
        _require_same_data(known_spec, source.fingerprint(), source)
        raise
    _require_same_data(known_spec, prepared.spec.fingerprint, source)
    return prepared


def _require_same_data(known_spec: DataSpec, fingerprint: str, source: SourceOptions) -> None:
    """Refuse data other than that of the training of a run: its rows may be split differently."""
    if known_spec.fingerprint != fingerprint:
        raise BmcliError(
            f"{source.describe_files()}: the data changed since this run was trained, so its splits have other rows.",
            path="data.source",
            suggestion="Train again, or evaluate on a file with --data.",
        )
