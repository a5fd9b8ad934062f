"""The training engine: a loop of our own; Keras keeps layers, losses, optimizers, metrics and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bmcli.console import native_noise_hidden

if TYPE_CHECKING:
    import numpy as np

    from bmcli.recipe.schema import Recipe
    from bmcli.specs import DataSpec
    from bmcli.training.network import Network


def started(recipe: Recipe, spec: DataSpec, train_targets: Mapping[str, np.ndarray]) -> Network:
    """Starts TensorFlow, without its noise, and builds the recipe's network with its first weights.

    Raises:
        BmcliError: As `network.assemble` does.
    """
    with native_noise_hidden():
        from bmcli.training import strategy
        from bmcli.training.network import assemble
    strategy.prepare_runtime(recipe.seed, recipe.train.precision)
    return assemble(recipe, spec, train_targets)
