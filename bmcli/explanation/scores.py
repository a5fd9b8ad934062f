"""The score that attributions explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.networks.network import Network
from bmcli.specs import Split


class TargetScore:
    """The explained score of an output, such as the log-odds of a class, or a number in the unit of the target."""

    def __init__(self, name: str, network: Network) -> None:
        self.name, self.network = name, network

    def read_rows(self, rows: Split) -> dict[str, Any]:
        """Read encoded rows as the network predicts from them, by column."""
        return self.network.prepare_prediction(
            {name: tf.constant(np.asarray(cells)) for name, cells in rows.inputs.items()}
        )

    def __call__(self, outputs: Mapping[str, Any], encoded: Mapping[str, Any], chosen: Any) -> Any:
        """Compute scores, `(batch,)` float32.

        Args:
            outputs: Of the network, by name.
            encoded: Encoded inputs of the same rows, by column.
            chosen: Index of the score of each row, from `Answers.choose_scores`, `(batch,)`.
        """
        prediction = self.network.predict_output(self.name, outputs[self.name], encoded)
        return self.network.objectives[self.name].explain(prediction, chosen)
