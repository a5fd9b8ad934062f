"""A network with its objectives: assembled from a recipe, wrapped for raw inputs, and saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from bmcli import disk, inputs, models, parts
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.layers import keras_file
from bmcli.layers.described_output import DescribedOutput
from bmcli.models import Backbone, FeatureRequest, Features, ModelFamily
from bmcli.networks import rehearsal
from bmcli.networks.nesting import Boundary, find_boundaries, nest_network
from bmcli.objectives import ObjectiveKind, TargetObjective
from bmcli.quoting import quoted
from bmcli.recipe.fields import Kind
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec
from bmcli.windows import EncodedRows


@dataclass(frozen=True)
class Network:
    """A model to train, and how its outputs are interpreted.

    Args:
        model: Maps encoded inputs to one output per target, as a single graph of all layers.
        objectives: Loss, metrics and predictions of each target; empty for a network that is not trained.
        boundaries: Where the head of each target begins in the graph.
        unlabelled: Inputs that the objectives without a target learn from, by output.
    """

    model: keras.Model
    objectives: Mapping[str, TargetObjective]
    boundaries: Mapping[str, Boundary]
    unlabelled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def run_prediction(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute the outputs of which `predict` makes predictions.

        Args:
            inputs: Encoded inputs by column.
        """
        # Explicit, since Keras would otherwise use the training flag of an outer call.
        outputs: dict[str, Any] = self.model(self.prepare_prediction(inputs), training=False)
        return outputs

    def prepare_prediction(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Change encoded inputs as objectives without a target want it before the network predicts from them."""
        prepared = dict(inputs)
        for name, columns in self.unlabelled.items():
            if name in self.objectives:
                prepared |= self.objectives[name].prepare_prediction({column: inputs[column] for column in columns})
        return prepared

    def predict(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Convert outputs to predictions by target: probabilities, or numbers in the target's unit.

        Args:
            inputs: Encoded inputs by column, of which objectives without a target may read those that they learn from,
                as they were before `prepare_prediction`.
        """
        return {name: self.predict_output(name, outputs[name], inputs) for name in self.objectives}

    def predict_output(self, name: str, output: Any, inputs: Mapping[str, Any]) -> Any:
        """Convert one output to predictions, as `predict` does."""
        objective, learned = self.objectives[name], self.unlabelled.get(name)
        if learned is None:
            return objective.predict(output)
        return objective.predict_inputs(output, {column: inputs[column] for column in learned})

    def nest(self) -> keras.Model:
        """Build the model of the same layers whose backbone and heads are models of their own."""
        return nest_network(self.model, self.boundaries)


def assemble_network(recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, EncodedRows]) -> Network:
    """Build a new network with initial weights.

    Args:
        train_targets: Encoded training rows by target, from which class weights are computed.

    Raises:
        BmcliError: The model family does not accept this data, or a layer does not fit.
    """
    options = recipe.objectives()
    kinds = {name: parts.load("objectives", each.kind) for name, each in options.items()}
    objectives = {
        name: kind.build(options[name], spec.output(name), spec.target(name), train_targets.get(name))
        for name, kind in kinds.items()
    }
    network = build_network(recipe, spec)
    if not network.model.trainable_variables:
        raise BmcliError(
            "no layer has weights to train.", path="model", suggestion="Add one, such as {kind: dense, units: 32}."
        )
    unlabelled = {output.name: output.inputs for output in spec.outputs if output.inputs}
    return replace(network, objectives=objectives, unlabelled=unlabelled)


def build_network(recipe: Recipe, spec: DataSpec) -> Network:
    """Build the recipe's backbone and heads, without objectives.

    Raises:
        BmcliError: The model family does not accept this data, does not give the features that a head needs, or a layer
            does not fit.
    """
    options = recipe.objectives()
    kinds: dict[str, ObjectiveKind] = {name: parts.load("objectives", each.kind) for name, each in options.items()}
    requests = {name: kind.REQUEST for name, kind in kinds.items()}
    backbone: Backbone = parts.load("models", recipe.model.kind).build(recipe.model, spec, set(requests.values()))
    features = {name: _require_features(backbone, name, recipe, spec) for name in requests}
    outputs = {
        name: _build_head(kind, options[name], spec.target(name), features[name]) for name, kind in kinds.items()
    }
    model = models.create_keras_model(backbone.inputs, outputs)
    names = {name: name if name in backbone.by_target else request.form for name, request in requests.items()}
    return Network(model, {}, find_boundaries(model, features, names))


def build_saved_network(recipe: Recipe, spec: DataSpec) -> Network:
    """Build a network into which `load_weights` reads the file of a run; raises as `build_network` does.

    It has no objectives of targets. One without a target may hide parts of the inputs, so that it belongs to the model
    in the file.
    """
    return build_network(recipe, spec) if spec.targets else assemble_network(recipe, spec, {})


def _build_head(kind: ObjectiveKind, options: Kind, target: Column, features: Features) -> Any:
    output = kind.build_head(options, target, features)
    # A head of its own, also where the features are the output.
    return keras.layers.Identity()(output) if output is features.tensor else output


_RANKS = {"steps": 3, "map": 4}  # of tensors, including the batch axis


def _require_features(backbone: Backbone, target: str, recipe: Recipe, spec: DataSpec) -> Features:
    """Find the features that the head of a target needs."""
    objective = recipe.objectives()[target].kind
    request: FeatureRequest = parts.load("objectives", objective).REQUEST
    features = backbone.find_features(target, request)
    rank = _RANKS.get(request.form)
    if features is not None and (rank is None or len(features.tensor.shape) == rank):
        return features
    families = [kind for kind in _list_families(request, spec) if kind != recipe.model.kind]
    raise BmcliError(
        f"{recipe.model.kind} does not give features as {request} for these inputs, which {objective} of "
        f"{quoted(target)} needs.",
        path="model.kind",
        suggestion=f"For these inputs {', '.join(families)} give them." if families else "No family gives them.",
    )


def _list_families(request: FeatureRequest, spec: DataSpec) -> list[str]:
    """List the families that give some features for these inputs, with their default options."""
    families = []
    for kind in parts.names("models"):
        family: ModelFamily = parts.load("models", kind)
        # One with required options, such as a list of layers, may give anything.
        if all(not field.is_required() for field in family.Options.model_fields.values()):
            families += [kind] if request in family.forms(family.Options.model_validate({"kind": kind}), spec) else []
    return families


def build_serving_model(network: Network, spec: DataSpec) -> keras.Model:
    """Build a model of preprocessing and network, from raw inputs by name to predictions by target."""
    raw, encoded = inputs.build_serving_inputs(spec)
    outputs = network.nest()(network.prepare_prediction(encoded))
    predictions = _serve_outputs(network, spec, outputs, encoded) if network.objectives else outputs
    return models.create_keras_model(raw, predictions)


def _serve_outputs(
    network: Network, spec: DataSpec, outputs: Mapping[str, Any], encoded: Mapping[str, Any]
) -> dict[str, Any]:
    """Convert outputs to predictions, each with a record of what it means."""
    predictions, described = network.predict(outputs, encoded), {output.name: output for output in spec.outputs}
    return {
        name: DescribedOutput(name, described[name].objective, described[name].names, dtype="float32")(tensor)
        for name, tensor in predictions.items()
    }


def save_network(network: Network, spec: DataSpec, path: Path) -> None:
    """Write the serving model as a `.keras` file."""
    # Renamed only when it is complete: a process that is killed while Keras overwrites a file leaves a damaged one.
    aside = path.with_name(f".{path.name}-aside.keras")
    model = build_serving_model(network, spec)
    with disk.convert_write_errors(path, sum(weight.numpy().nbytes for weight in model.weights)):
        try:
            with without_optimizer(network.model):
                model.save(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def without_optimizer(model: keras.Model) -> Iterator[None]:
    """Keep Keras from writing or reading the optimizer's state with the weights; checkpoints hold it."""
    optimizer = getattr(model, "optimizer", None)
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer


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
