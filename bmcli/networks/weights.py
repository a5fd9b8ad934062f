"""The guarded door: the only way by which the weights of a file get into a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import keras

from bmcli import inputs, parts
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.layers import keras_file
from bmcli.networks import saved_parts
from bmcli.networks.network import Network, build_serving_model, without_optimizer
from bmcli.quoting import quoted
from bmcli.specs import DataSpec

Part = Literal["network", "backbone"] | Sequence[str]
"""The whole network, all of it before its heads, or the weights whose names match one of several patterns."""


@dataclass(frozen=True)
class SavedNetwork:
    """A saved serving model and its description.

    Args:
        path: The `.keras` file.
        spec: Data of the run.
        digest: SHA-256 that the file must have; None for any.
        network: A network as the run describes it, whose own weights are lost; None if the one that takes all of the
            weights is such a network.
    """

    path: Path
    spec: DataSpec
    digest: str | None = None
    network: Network | None = None


@dataclass(frozen=True)
class TakenWeights:
    """What a network took from a file.

    Args:
        digest: SHA-256 of the file.
        taken, left_out: Names of the weights that it took, and of the others in the file.
    """

    digest: str
    taken: tuple[str, ...]
    left_out: tuple[str, ...]


def load_weights(source: SavedNetwork, into: Network, part: Part = "network") -> TakenWeights:
    """Load weights of a saved serving model into a network.

    The file may come from anywhere. Nothing that it describes is built: weights are read into the network that the run
    describes, after the description in the file was compared with that network.

    Raises:
        BmcliError: The file is damaged, too large, of another network, or encodes rows differently than `source.spec`;
            or it does not have all the weights of the part, in their shapes.
    """
    assert source.network is not None or part == "network", "the other weights of the file need a network too"
    holder = into if source.network is None else source.network
    digest = _read_file(source, holder)
    found = {weight.path: weight for weight in _list_weights(holder, part)}
    wanted = _list_weights(into, part)
    for weight in wanted:
        other = found.get(weight.path)
        if other is None or other.shape != weight.shape:
            received = "does not have it" if other is None else f"has {_format_shape(other)}"
            raise BmcliError(
                f"{format_path(source.path)}: {quoted(weight.path)} is {_format_shape(weight)} in this network, and "
                f"the file {received}.",
                suggestion="Give both networks the same family, options and inputs.",
            )
    if holder is not into:
        for weight in wanted:
            weight.assign(found[weight.path].numpy())
    taken = {weight.path: None for weight in wanted}
    left_out = (weight.path for weight in holder.model.weights if weight.path not in taken)
    return TakenWeights(digest, tuple(taken), tuple(left_out))


def _list_weights(network: Network, part: Part) -> list[Any]:
    """List the weights of a part of a network.

    Raises:
        BmcliError: A pattern matches no weight.
    """
    if part == "backbone":
        return list(network.nest().get_layer(inputs.BACKBONE_NAME).weights)
    weights = list(network.model.weights)
    if part == "network":
        return weights
    names = [weight.path for weight in weights]
    for pattern in part:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BmcliError(f"no weight is called {quoted(pattern)}.", suggestion=parts.did_you_mean(pattern, names))
    return [weight for weight in weights if any(fnmatchcase(weight.path, pattern) for pattern in part)]


def _format_shape(weight: Any) -> str:
    return "x".join(map(str, weight.shape)) or "a number"


def _read_file(source: SavedNetwork, network: Network) -> str:
    """Read all weights of a file into a network of the same structure; returns the SHA-256 of the file."""
    path = source.path
    serving = build_serving_model(network, source.spec)
    with keras_file.open_keras_file(path, source.digest) as file:
        if column := saved_parts.find_difference(serving, file.config, compare_outputs=bool(network.objectives)):
            raise BmcliError(
                f"{format_path(path)} and {format_path(path.with_name('data.json'))} do not belong to one training: "
                f"{column} differs.",
                suggestion="Restore both from one copy of the run, or train again.",
            )
        with file.weights() as weights:
            try:
                _require_weight_count(serving, weights)
                with without_optimizer(network.model):
                    serving.load_weights(weights)
            except Exception as error:  # a damaged file makes Keras raise anything
                raise BmcliError(
                    f"{format_path(path)}: not the model of this run ({_first_line(error)}).",
                    suggestion="Restore the file from a copy of the run, or train again.",
                ) from None
    return file.digest


def _require_weight_count(model: keras.Model, weights: Path) -> None:
    """Refuse a file with another number of arrays than the model has weights."""
    # Of more layers than the model has, Keras would load the first without an error.
    count = keras_file.count_weights(weights)
    if count != len(model.weights):
        raise ValueError(f"it has {count} arrays of weights, and the recipe's network {len(model.weights)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
