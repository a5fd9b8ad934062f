"""The score that attributions explain."""

from __future__ import annotations

from typing import Any

from bmcli.objectives import TargetObjective


class TargetScore:
    """The explained score of an output, such as the log-odds of a class, or a number in the unit of the target."""

    def __init__(self, name: str, objective: TargetObjective) -> None:
        self.name, self.objective = name, objective

    def __call__(self, outputs: Any, chosen: Any) -> Any:
        """Compute scores, `(batch,)` float32.

        Args:
            outputs: Of the network, by name.
            chosen: Index of the score of each row, from `Answers.choose_scores`, `(batch,)`.
        """
        return self.objective.explain(self.objective.predict(outputs[self.name]), chosen)
