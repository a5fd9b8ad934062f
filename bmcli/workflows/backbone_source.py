"""The run whose backbone a training starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmcli import training
from bmcli.errors import BmcliError
from bmcli.models import get_backbone_source
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.networks.weights import SavedNetwork


def open_source(recipe: Recipe, spec: DataSpec, placement: Placement) -> SavedNetwork | None:
    """Open the saved network of `model.from`; None if the recipe takes no backbone.

    It must be opened before the network that takes the weights is built: building a network sets the random state.

    Raises:
        BmcliError: The run is missing or not complete, or has other inputs.
    """
    source = get_backbone_source(recipe.model)
    if source is None:
        return None
    from bmcli.distribution import strategy
    from bmcli.networks.network import build_saved_network
    from bmcli.networks.weights import SavedNetwork

    run = training.get_backbone_run(source)
    run.require_lock()
    path, source_spec = run.require_model(), read_data_spec(run)
    if (spec.inputs, spec.crosses) != (source_spec.inputs, source_spec.crosses):
        raise BmcliError(
            f"the inputs or crosses are not those of {run.display_path}.",
            path="model.from",
            suggestion="Leave data.inputs and data.crosses out; they come from the run.",
        )
    source_recipe = load_recipe(str(run.lock)).recipe.after_training()
    strategy.set_random_state(source_recipe.seed, source_recipe.train.precision)
    with placement.strategy.scope():
        network = build_saved_network(source_recipe, source_spec)
    return SavedNetwork(path, source_spec, source.sha256, network)
