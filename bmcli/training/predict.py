"""Predictions of a trained network."""

from __future__ import annotations

import numpy as np

from bmcli.recipe.schema import RuntimeOptions
from bmcli.specs import Split
from bmcli.training import feed as feeds
from bmcli.training.network import Network
from bmcli.training.step import Pass
from bmcli.training.strategy import Placement

BATCH = 512


def predict(network: Network, rows: Split, runtime: RuntimeOptions, placement: Placement) -> dict[str, np.ndarray]:
    """Probabilities `(rows, classes)` or numbers in their own unit `(rows,)`, by target, in the order of the rows."""
    feed = feeds.make(rows, runtime, placement)
    return Pass(network, feed, min(BATCH, feed.count), placement).predict()
