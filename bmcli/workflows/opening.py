"""Find a run, and open it with its data and its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import runs, training
from bmcli.errors import BmcliError
from bmcli.messages import write_message
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.paths import join_steps, parse_steps
from bmcli.recipe.plugins import list_changes
from bmcli.recipe.runtime import STRATEGY_OPTIONS
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.workflows.session import prepare_again

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.networks.network import Network


@dataclass(frozen=True)
class OpenedRun:
    """A run with its network and its prepared data."""

    run: Run
    recipe: Recipe
    prepared: PreparedData
    network: Network
    placement: Placement


def find_run(target: str, root: Path) -> Run:
    """Find a run by its directory, its name, or its recipe, whose latest run is taken."""
    if target.endswith((".yaml", ".yml")) and Path(target).is_file():
        name = load_recipe(target).recipe.name
        return runs.find(root, str(root / name))
    return runs.find(root, target)


def add_device_defaults(overrides: Sequence[str]) -> list[str]:
    """Add overrides that free a recipe of the devices it was trained on, unless the given ones choose devices."""
    defaults = dict.fromkeys(("runtime.strategy", "runtime.jit_steps"), "auto")
    defaults |= {f"runtime.{option}": "null" for option in STRATEGY_OPTIONS}
    chosen = {join_steps(parse_steps(argument)[0]) for argument in overrides}
    return [*overrides, *(f"{path}={value}" for path, value in defaults.items() if not {path, "runtime"} & chosen)]


def load_run_recipe(run: Run, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load the recipe of a run for the devices of this machine; those of its training may be elsewhere."""
    loaded = load_recipe(str(run.lock), add_device_defaults(overrides))
    warn_of_changed_plugins(loaded)
    return loaded


def warn_of_changed_plugins(loaded: LoadedRecipe) -> None:
    """Warn of plug-ins whose code is not the code that the run was made with."""
    for change in list_changes(loaded.recipe.plugins):
        _warn_once(change)


@cache
def _warn_once(change: str) -> None:
    """Write a warning; some commands load the recipe of a run more than once."""
    write_message(f"warning: {change}")


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse changes to the identity of a run: with another seed or split, training rows would count as test rows."""
    for argument in overrides:
        steps, _ = parse_steps(argument)
        if steps and steps[0] not in ("evaluate", "runtime") and steps[:2] != ("data", "source"):
            raise BmcliError(
                f"{join_steps(steps)} cannot change after training.",
                suggestion="Only evaluate, runtime and data.source can.",
            )


def open_run(loaded: LoadedRecipe, run: Run, cache: Path) -> OpenedRun:
    """Open a run with the weights that its training kept.

    Raises:
        BmcliError: It has no model, or its data has changed.
    """
    recipe = loaded.recipe
    spec = read_data_spec(run)
    placement = training.place_on_devices(recipe, cache) if training.needs_specific_devices(recipe.runtime) else None
    model = run.require_model()
    # The spec of the run also holds thresholds and temperatures, which were chosen after training.
    prepared = prepare_again(recipe, spec, cache).with_spec(spec)
    placement = placement or training.place_on_devices(recipe, cache)
    network = training.load_trained_network(recipe, spec, prepared.split("train").targets, model, placement)
    return OpenedRun(run, recipe, prepared, network, placement)


def load_network(recipe: Recipe, spec: DataSpec, run: Run, cache: Path) -> Network:
    """Load the network of a run with its selected weights, on one device and without its data."""
    import numpy as np

    recipe = recipe.on_one_device()
    placement = training.place_on_devices(recipe, cache)
    # Training rows decide weights of losses alone, which are not computed here.
    targets = {column.name: np.zeros((1, *column.shape), column.dtype) for column in spec.targets}
    return training.load_trained_network(recipe, spec, targets, run.require_model(), placement)
