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
    """What is trained: `model` maps encoded inputs to one output a target, `objectives` judge these."""

    model: keras.Model
    objectives: Mapping[str, TargetObjective]

    def predict(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Probabilities, or numbers in the target's own unit, by target."""
        return {name: objective.predict(outputs[name]) for name, objective in self.objectives.items()}


def assemble_network(recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, np.ndarray]) -> Network:
    """A new network with the recipe's initial weights.

    Raises:
        BmcliError: The family cannot take this data, or a layer does not fit; with the place in the recipe.
    """
    chosen = recipe.objectives()
    kinds = {name: parts.load("objectives", options.kind) for name, options in chosen.items()}
    objectives = {
        name: kind.build(chosen[name], spec.target(name), train_targets[name]) for name, kind in kinds.items()
    }
    model = build_model(recipe, spec)
    if not model.trainable_variables:
        raise BmcliError("no layer has weights to train.", path="model", suggestion="Add one, as {kind: dense, ...}.")
    return Network(model, objectives)


def build_model(recipe: Recipe, spec: DataSpec) -> keras.Model:
    """The recipe's model from encoded inputs to the outputs of each target.

    Raises:
        BmcliError: As `assemble_network` does.
    """
    chosen = recipe.objectives()
    heads = {
        name: parts.load("objectives", options.kind).width(options, spec.target(name))
        for name, options in chosen.items()
    }
    model: keras.Model = parts.load("models", recipe.model.kind).build(recipe.model, spec, heads)
    return model


def build_serving_model(network: Network, spec: DataSpec) -> keras.Model:
    """The trained network behind its preprocessing: raw inputs by name to predictions by target."""
    raw, encoded = inputs.build_serving_inputs(spec)
    return models.create_keras_model(raw, network.predict(network.model(encoded)))


def save_network(network: Network, spec: DataSpec, path: Path) -> None:
    """Writes the serving model as a `.keras` file, aside and then in place."""
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
    """Keeps Keras from writing or reading the state of the optimizer, which checkpoints hold, beside the weights."""
    optimizer = getattr(model, "optimizer", None)
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer


def load_network(path: Path, network: Network, spec: DataSpec) -> None:
    """Gives a network the weights of a saved serving model.

    Raises:
        BmcliError: The file is damaged, too large, not of this network, or encodes rows otherwise than `spec`.
    """
    load_model_weights(path, network.model, spec, network.predict)


def load_model_weights(
    path: Path,
    model: keras.Model,
    spec: DataSpec,
    predict: Callable[[Any], Any] = dict,
    digest: str | None = None,
) -> None:
    """The same of a model without objectives.

    Nothing that the file describes is built: its weights are read into what the recipe describes.

    Args:
        predict: From the outputs of the model to what is served; without it that part is not compared.
        digest: SHA-256 that the file must have.
    """
    raw, encoded = inputs.build_serving_inputs(spec)
    with models.allow_column_names():
        serving = models.create_keras_model(raw, predict(model(encoded)))
    with keras_file.open_keras_file(path, digest) as file:
        if column := saved_parts.find_difference(serving, file.config, compare_outputs=predict is not dict):
            raise BmcliError(
                f"{format_path(path)} and {format_path(path.with_name('data.json'))} are not of one "
                "training: they treat "
                f"{column} differently.",
                suggestion="Restore both from one copy of the run, or train again.",
            )
        with file.weights() as weights:
            try:
                _require_weight_count(serving, weights)
                with _without_optimizer(model):
                    serving.load_weights(weights)
            except Exception as error:  # a damaged file makes Keras raise anything
                raise BmcliError(f"{format_path(path)}: not the model of this run ({_first_line(error)}).") from None


def _require_weight_count(model: keras.Model, weights: Path) -> None:
    """Refuses weights of more layers than a model has, of which Keras would take the first."""
    held = keras_file.count_weights(weights)
    if held != len(model.weights):
        raise ValueError(f"it has {held} arrays of weights, and the recipe's network {len(model.weights)}")


def load_serving_model(path: Path, digest: str | None = None) -> keras.Model:
    """A saved model from raw inputs to predictions, whoever made it.

    It is loaded first in a process of its own, whose memory is limited by the size of the file.

    Raises:
        BmcliError: The file is damaged, too large, or would run code of its own.
    """
    with keras_file.open_keras_file(path, digest) as file:
        file.require_known_classes()
        with file.weights() as weights:
            size = weights.stat().st_size
        rehearsal.require_loadable(file.private_copy, path, size)
        try:
            with models.allow_column_names():
                return keras.saving.load_model(file.private_copy, compile=False, safe_mode=True)
        except Exception as error:  # as above
            raise BmcliError(f"{format_path(path)}: cannot be loaded ({_first_line(error)}).") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
