"""A network with its objectives: assembled from a recipe, wrapped for raw inputs, saved and loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bmcli import disk, inputs, models, parts
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.layers import keras_file
from bmcli.networks import rehearsal, saved_parts
from bmcli.objectives import TargetObjective
from bmcli.recipe.schema import Recipe
from bmcli.specs import DataSpec


@dataclass(frozen=True)
class Network:
    """A model to train, and how its outputs are interpreted.

    Args:
        model: Maps encoded inputs to one output per target.
        objectives: Loss, metrics and predictions of each target.
    """

    model: keras.Model
    objectives: Mapping[str, TargetObjective]

    def predict(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Convert outputs to predictions by target: probabilities, or numbers in the target's unit."""
        return {name: objective.predict(outputs[name]) for name, objective in self.objectives.items()}


def assemble_network(recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, np.ndarray]) -> Network:
    """Build a new network with initial weights.

    Args:
        train_targets: Encoded training rows by target, from which class weights are computed.

    Raises:
        BmcliError: The model family does not accept this data, or a layer does not fit.
    """
    options = recipe.objectives()
    kinds = {name: parts.load("objectives", each.kind) for name, each in options.items()}
    objectives = {
        name: kind.build(options[name], spec.output(name), spec.target(name), train_targets[name])
        for name, kind in kinds.items()
    }
    model = build_model(recipe, spec)
    if not model.trainable_variables:
        raise BmcliError(
            "no layer has weights to train.", path="model", suggestion="Add one, such as {kind: dense, units: 32}."
        )
    return Network(model, objectives)


def build_model(recipe: Recipe, spec: DataSpec) -> keras.Model:
    """Build the recipe's model, from encoded inputs to the outputs of each target.

    Raises:
        BmcliError: The model family does not accept this data, or a layer does not fit.
    """
    heads = {
        name: parts.load("objectives", options.kind).width(options, spec.target(name))
        for name, options in recipe.objectives().items()
    }
    model: keras.Model = parts.load("models", recipe.model.kind).build(recipe.model, spec, heads)
    return model


def build_serving_model(network: Network, spec: DataSpec) -> keras.Model:
    """Build a model of preprocessing and network, from raw inputs by name to predictions by target."""
    raw, encoded = inputs.build_serving_inputs(spec)
    return models.create_keras_model(raw, network.predict(network.model(encoded)))


def save_network(network: Network, spec: DataSpec, path: Path) -> None:
    """Write the serving model as a `.keras` file."""
    # Renamed only when it is complete: a process that is killed while Keras overwrites a file leaves a damaged one.
    aside = path.with_name(f".{path.name}-aside.keras")
    model = build_serving_model(network, spec)
    with disk.convert_write_errors(path, sum(weight.numpy().nbytes for weight in model.weights)):
        try:
            with _without_optimizer(network.model):
                model.save(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _without_optimizer(model: keras.Model) -> Iterator[None]:
    """Keep Keras from writing or reading the optimizer's state with the weights; checkpoints hold it."""
    optimizer = getattr(model, "optimizer", None)
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer


def load_network(path: Path, network: Network, spec: DataSpec) -> None:
    """Load the weights of a saved serving model into a network.

    Raises:
        BmcliError: The file is damaged, too large, of another network, or encodes rows differently than `spec`.
    """
    load_model_weights(path, network.model, spec, network.predict)


def load_model_weights(
    path: Path,
    model: keras.Model,
    spec: DataSpec,
    predict: Callable[[Any], Any] = dict,
    digest: str | None = None,
) -> None:
    """Load the weights of a saved serving model into a model.

    Args:
        predict: Converts the outputs of the model to those of the serving model; by default that part is not compared.
        digest: SHA-256 that the file must have.

    Raises:
        BmcliError: The file is damaged, too large, of another network, or encodes rows differently than `spec`.
    """
    # The file may come from anywhere. Nothing that it describes is built: weights are read into the model that the
    # recipe describes, after its description was compared with that model.
    raw, encoded = inputs.build_serving_inputs(spec)
    with models.allow_column_names():
        serving = models.create_keras_model(raw, predict(model(encoded)))
    with keras_file.open_keras_file(path, digest) as file:
        if column := saved_parts.find_difference(serving, file.config, compare_outputs=predict is not dict):
            raise BmcliError(
                f"{format_path(path)} and {format_path(path.with_name('data.json'))} do not belong to one training: "
                f"{column} differs.",
                suggestion="Restore both from one copy of the run, or train again.",
            )
        with file.weights() as weights:
            try:
                _require_weight_count(serving, weights)
                with _without_optimizer(model):
                    serving.load_weights(weights)
            except Exception as error:  # a damaged file makes Keras raise anything
                raise BmcliError(
                    f"{format_path(path)}: not the model of this run ({_first_line(error)}).",
                    suggestion="Restore the file from a copy of the run, or train again.",
                ) from None


def _require_weight_count(model: keras.Model, weights: Path) -> None:
    """Refuse a file with another number of arrays than the model has weights."""
    # Of more layers than the model has, Keras would load the first without an error.
    count = keras_file.count_weights(weights)
    if count != len(model.weights):
        raise ValueError(f"it has {count} arrays of weights, and the recipe's network {len(model.weights)}")


def load_serving_model(path: Path, digest: str | None = None) -> keras.Model:
    """Load a saved model from raw inputs to predictions, which may come from an untrusted source.

    Raises:
        BmcliError: The file is damaged, too large, or contains code.
    """
    # Here the model that the file describes is built: first its classes are checked, then it is loaded in a separate
    # process with limited memory, because a small file may describe very large layers.
    with keras_file.open_keras_file(path, digest) as file:
        file.require_known_classes()
        with file.weights() as weights:
            size = weights.stat().st_size
        rehearsal.require_loadable(file.private_copy, path, size)
        try:
            with models.allow_column_names():
                return keras.saving.load_model(file.private_copy, compile=False, safe_mode=True)
        except Exception as error:  # a damaged file makes Keras raise anything
            raise BmcliError(f"{format_path(path)}: cannot be loaded ({_first_line(error)}).") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
