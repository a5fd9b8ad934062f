"""The training engine: a custom training loop around Keras' layers, losses, optimizers, metrics and callbacks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.native_output import hide_native_stderr
from bmcli.recipe.fields import dump
from bmcli.training import compilation_cache

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.networks.network import Network
    from bmcli.recipe.model import ModelSource
    from bmcli.recipe.runtime import RuntimeOptions
    from bmcli.recipe.schema import Recipe
    from bmcli.runs import Run
    from bmcli.specs import Column, DataSpec, PreparedData
    from bmcli.windows import EncodedRows


def place_on_devices(recipe: Recipe, cache: Path) -> Placement:
    """Start TensorFlow, without its log lines, on the devices that the recipe requests.

    Args:
        cache: Folder below which XLA may keep compiled programs.

    Raises:
        BmcliError: The machine does not have these devices.
    """
    set_environment_variables(recipe, cache)
    # TensorFlow writes lines from C++ while it is imported, before TF_CPP_MIN_LOG_LEVEL has an effect.
    with hide_native_stderr():
        from bmcli.distribution import strategy
    # Workers compare these parts when they meet: different ones would train different networks, or wait for each other.
    shared_parts = (recipe.seed, recipe.data.augment, recipe.model, recipe.objective, recipe.train)
    return strategy.create_placement(recipe.runtime, json.dumps([dump(part) for part in shared_parts]))


def prepare_data(recipe: Recipe, cache: Path, known_spec: DataSpec | None = None) -> PreparedData:
    """Prepare the encoded splits of a recipe's data.

    Args:
        known_spec: Spec of the data of a run of the recipe.
    """
    from bmcli import objectives  # not at the top: a recipe with faults is refused before they are needed
    from bmcli.data.preparation import prepare
    from bmcli.models import get_backbone_source
    from bmcli.run_data import read_data_spec

    # TensorFlow reads them when it is imported, and preparing pictures may import it.
    set_environment_variables(recipe, cache)
    fitted: tuple[Column, ...] = ()
    if source := get_backbone_source(recipe.model):
        # The backbone understands only inputs that are encoded as in the run that it comes from.
        fitted = (known_spec or read_data_spec(get_backbone_run(source))).inputs
    prepared = prepare(recipe.data, recipe.targets(), recipe.data_seed, cache / "prepared", fitted)
    return replace(prepared, spec=objectives.describe_outputs(recipe.objectives(), prepared.spec))


def get_backbone_run(source: ModelSource) -> Run:
    """Get the run that a backbone comes from.

    Raises:
        BmcliError: It is missing.
    """
    from bmcli.runs import Run

    run = Run(Path(source.run))
    if not run.folder.is_dir():
        raise BmcliError(
            f"the run {run.display_path} is missing; this training starts from its weights.",
            path="model.from",
            suggestion="Move it back to where it was.",
        )
    return run


def set_environment_variables(recipe: Recipe, cache: Path) -> None:
    """Set the environment variables that TensorFlow reads when it is imported; those of the user stay."""
    for name, value in environment_variables(recipe, cache).items():
        os.environ.setdefault(name, value)


def environment_variables(recipe: Recipe, cache: Path) -> dict[str, str]:
    """Environment variables that suit a recipe, for TensorFlow to read when it is imported."""
    programs = compilation_cache.cache_folder(cache)
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if compilation_cache.is_usable(programs):
        # A later process loads a compiled step in about a fifth of the time that compiling it takes.
        variables["TF_XLA_FLAGS"] = (
            f"--tf_xla_persistent_cache_directory={programs} --tf_xla_persistent_cache_prefix=bmcli"
        )
    if parts.load("models", recipe.model.kind).convolves(recipe.model):
        # Off by default on some processors, where gradients of convolutions are 2 times faster with it.
        variables["TF_ENABLE_ONEDNN_OPTS"] = "1"
    return variables


def needs_specific_devices(runtime: RuntimeOptions) -> bool:
    """Whether a machine may lack these devices, so that they should be requested before any data is read."""
    return runtime.strategy not in ("auto", "one_device") or runtime.cluster != "auto" or runtime.tpu is not None


def build_network(
    recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, EncodedRows], placement: Placement
) -> Network:
    """Build the recipe's network with its initial weights.

    Raises:
        BmcliError: The model family does not accept this data, or a layer does not fit.
    """
    from bmcli.distribution import strategy
    from bmcli.networks.network import assemble_network

    strategy.set_random_state(recipe.seed, recipe.train.precision)
    # Variables made inside the scope are mirrored: one copy on each replica.
    with placement.strategy.scope():
        network = assemble_network(recipe, spec, train_targets)
    if placement.replicas > 1:
        strategy.offset_replica_seeds(network.model)
    return network


def load_trained_network(
    recipe: Recipe, spec: DataSpec, targets: Mapping[str, EncodedRows], model: Path, placement: Placement
) -> Network:
    """Load the network that a training of the recipe left.

    Args:
        targets: Encoded rows; they decide nothing but class weights of the loss.
        model: The `.keras` file of the run.

    Raises:
        BmcliError: The file is damaged, or belongs to another recipe or other data.
    """
    network = build_network(recipe.after_training(), spec, targets, placement)
    from bmcli.networks.weights import SavedNetwork, load_weights

    load_weights(SavedNetwork(model, spec), network)
    return network
