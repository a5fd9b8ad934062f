"""Predictions of a trained network."""

from __future__ import annotations

import numpy as np

from bmcli.specs import Split
from bmcli.training.feed import ResidentFeed
from bmcli.training.network import Network
from bmcli.training.step import Pass

BATCH = 512


def predict(network: Network, rows: Split) -> dict[str, np.ndarray]:
    """Probabilities `(rows, classes)` or numbers in their own unit `(rows,)`, by target, in the order of the rows."""
    feed = ResidentFeed(rows)
    return Pass(network, feed, min(BATCH, feed.count)).predict()
