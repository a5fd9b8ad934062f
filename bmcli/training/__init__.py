"""The training engine: a loop of our own; Keras keeps layers, losses, optimizers, metrics and callbacks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bmcli import parts
from bmcli.native_output import hide_native_stderr
from bmcli.recipe.fields import dump
from bmcli.training import compilation_cache

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from bmcli.distribution.strategy import Placement
    from bmcli.networks.network import Network
    from bmcli.recipe.runtime import RuntimeOptions
    from bmcli.recipe.schema import Recipe
    from bmcli.specs import DataSpec, PreparedData


def place_on_devices(recipe: Recipe, cache: Path) -> Placement:
    """Starts TensorFlow, without its noise, on the devices that the recipe asks for.

    Args:
        cache: Where XLA may keep what it compiles.

    Raises:
        BmcliError: The machine cannot give them.
    """
    set_environment_variables(recipe, cache)
    with hide_native_stderr():
        from bmcli.distribution import strategy
    parts_of_all = (recipe.seed, recipe.data.augment, recipe.model, recipe.objective, recipe.train)
    return strategy.create_placement(recipe.runtime, json.dumps([dump(part) for part in parts_of_all]))


def prepare_data(recipe: Recipe, cache: Path) -> PreparedData:
    """The encoded splits of a recipe's data, TensorFlow being told before how to start."""
    from bmcli.data.preparation import prepare

    set_environment_variables(recipe, cache)
    return prepare(recipe.data, recipe.targets(), recipe.data_seed, cache / "prepared")


def set_environment_variables(recipe: Recipe, cache: Path) -> None:
    """Tells TensorFlow by the environment how to start, before preparing pictures may start it."""
    for name, value in environment_variables(recipe, cache).items():
        os.environ.setdefault(name, value)


def environment_variables(recipe: Recipe, cache: Path) -> dict[str, str]:
    """What TensorFlow is told by the environment when it is imported, unless the user says otherwise."""
    kept = compilation_cache.cache_folder(cache)
    found = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if compilation_cache.is_usable(kept):
        found["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={kept} --tf_xla_persistent_cache_prefix=bmcli"
    if parts.load("models", recipe.model.kind).convolves(recipe.model):
        # Off by default on some processors, where gradients of convolutions are 2 times faster with it.
        found["TF_ENABLE_ONEDNN_OPTS"] = "1"
    return found


def needs_specific_devices(runtime: RuntimeOptions) -> bool:
    """Whether a machine may be unable to give these devices, so that asking comes before reading data."""
    return runtime.strategy not in ("auto", "one_device") or runtime.cluster != "auto" or runtime.tpu is not None


def build_network(
    recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, np.ndarray], placement: Placement
) -> Network:
    """The recipe's network with its first weights.

    Raises:
        BmcliError: As `network.assemble` does.
    """
    from bmcli.distribution import strategy
    from bmcli.networks.network import assemble_network

    strategy.set_random_state(recipe.seed, recipe.train.precision)
    with placement.strategy.scope():
        network = assemble_network(recipe, spec, train_targets)
    if placement.replicas > 1:
        strategy.offset_replica_seeds(network.model)
    return network


def load_trained_network(
    recipe: Recipe, spec: DataSpec, targets: Mapping[str, np.ndarray], model: Path, placement: Placement
) -> Network:
    """The network that a training of the recipe left, with its weights.

    Args:
        targets: Encoded rows, which decide weights of losses alone.
        model: Where the run keeps it.

    Raises:
        BmcliError: The file is damaged, or not of this recipe and data.
    """
    network = build_network(recipe.after_training(), spec, targets, placement)
    from bmcli.networks import network as networks

    networks.load_network(model, network, spec)
    return network
