"""A network with its objectives: assembled from a recipe, wrapped for raw inputs, saved and loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bmcli import disk, inputs, layers, models, parts
from bmcli.errors import BmcliError
from bmcli.objectives import TargetObjective
from bmcli.recipe.schema import Recipe
from bmcli.specs import DataSpec

MAX_CONFIG_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Network:
    """What is trained: `model` maps encoded inputs to one output a target, `objectives` judge these."""

    model: keras.Model
    objectives: Mapping[str, TargetObjective]

    def predict(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Probabilities, or numbers in the target's own unit, by target."""
        return {name: objective.predict(outputs[name]) for name, objective in self.objectives.items()}


def assemble(recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, np.ndarray]) -> Network:
    """A new network with the recipe's initial weights.

    Raises:
        BmcliError: The family cannot take this data, or a layer does not fit; with the place in the recipe.
    """
    chosen = recipe.objectives()
    kinds = {name: parts.load("objectives", options.kind) for name, options in chosen.items()}
    objectives = {
        name: kind.build(chosen[name], spec.target(name), train_targets[name]) for name, kind in kinds.items()
    }
    model = model_of(recipe, spec)
    if not model.trainable_variables:
        raise BmcliError("no layer has weights to train.", path="model", suggestion="Add one, as {kind: dense, ...}.")
    return Network(model, objectives)


def model_of(recipe: Recipe, spec: DataSpec) -> keras.Model:
    """The recipe's model from encoded inputs to the outputs of each target.

    Raises:
        BmcliError: As `assemble` does.
    """
    chosen = recipe.objectives()
    heads = {
        name: parts.load("objectives", options.kind).width(options, spec.target(name))
        for name, options in chosen.items()
    }
    model: keras.Model = parts.load("models", recipe.model.kind).build(recipe.model, spec, heads)
    return model


def serving_model(network: Network, spec: DataSpec) -> keras.Model:
    """The trained network behind its preprocessing: raw inputs by name to predictions by target."""
    raw, encoded = inputs.serving_inputs(spec)
    return models.network(raw, network.predict(network.model(encoded)))


def save(network: Network, spec: DataSpec, path: Path) -> None:
    """Writes the serving model as a `.keras` file, aside and then in place."""
    aside = path.with_name(f".{path.name}-aside.keras")
    model = serving_model(network, spec)
    with disk.writing(path, sum(weight.numpy().nbytes for weight in model.weights)):
        try:
            model.save(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def load(path: Path, network: Network) -> None:
    """Gives a network the weights of a saved serving model.

    Raises:
        BmcliError: The file is damaged, too large, or not of this network.
    """
    load_weights(path, network.model)


def load_weights(path: Path, model: keras.Model) -> None:
    """The same of a model without objectives."""
    _inspect(path)
    layers.register()  # Keras finds a layer of ours only then
    try:
        with models.columns_as_keys():
            saved = keras.saving.load_model(path, compile=False, safe_mode=True)
        model.set_weights(saved.get_layer(model.name).get_weights())
    except Exception as error:  # a damaged file makes Keras raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BmcliError(f"{path}: not the model of this run ({reason}).") from None


def load_served(path: Path) -> keras.Model:
    """A saved model from raw inputs to predictions, whoever made it.

    Raises:
        BmcliError: The file is damaged, too large, or would run code of its own.
    """
    _inspect(path)
    layers.register()
    try:
        with models.columns_as_keys():
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # as above
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BmcliError(f"{path}: cannot be loaded ({reason}).") from None


def _inspect(path: Path) -> None:
    """Refuses archives that are not what `save` writes, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except FileNotFoundError:
        raise BmcliError(f"{path}: no such file.", suggestion="The run kept no model; see its status.") from None
    except (zipfile.BadZipFile, IsADirectoryError):
        raise BmcliError(f"{path}: damaged, not a Keras archive.") from None
    for member in members:
        limit = MAX_CONFIG_BYTES if member.filename.endswith(".json") else 4 * max(path.stat().st_size, 2**20)
        if ".." in member.filename or member.filename.startswith("/") or member.file_size > limit:
            raise BmcliError(f"{path}: refused, its member {member.filename!r} is unsafe.")
