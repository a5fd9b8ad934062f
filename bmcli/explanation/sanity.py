"""Whether an explanation tells anything of the network: it has to be another one if the weights are random.

Adebayo et al. 2018, section 3. Contributions of a network with random weights of the same shape are compared with
those of the trained one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmcli.evaluation.explanation_record import PermutationImportance
from bmcli.evaluation.ordinal import spearman
from bmcli.explanation.gradients import Attribution
from bmcli.networks.network import Network

LIMIT = 0.5
RANDOM_NETWORKS = 3
"""With random weights: few features correlate by chance."""
_MIN_RANKED = 4  # contributions of a row, at least


RowAttributions = tuple[Attribution, np.ndarray | None]
"""Contributions of some rows, and their heats if there are any."""


def shuffle_weights(network: Network, number: int) -> None:
    """Gives an untrained network other random weights: those of each array change their places, but for number 0."""
    if number == 0:
        return
    dice = np.random.default_rng([0x5A17E, number])
    for weight in network.model.trainable_variables:
        values = weight.numpy()
        weight.assign(dice.permutation(values.ravel()).reshape(values.shape))


def compute_correlations(trained: RowAttributions, random: RowAttributions) -> tuple[float, ...]:
    """How alike contributions are, and then heats, if there are any."""
    contributions = rank_correlation(trained[0], random[0])
    if trained[1] is None or random[1] is None:
        return (contributions,)
    return contributions, heat_correlation(trained[1], random[1])


def compute_remaining_share(trained: Sequence[PermutationImportance], random: Sequence[PermutationImportance]) -> float:
    """The importance of all columns to a random network, as a share of what it is to the trained one; at least 0.

    1 if the trained network needs no column either, so that its importances tell nothing.
    """
    total = sum(max(0.0, each.increase) for each in trained)
    return sum(max(0.0, each.increase) for each in random) / total if total > 0 else 1.0


def rank_correlation(trained: Attribution, random: Attribution) -> float:
    """Mean over rows of Spearman's correlation of signed contributions; 1 if the trained network has none.

    Numbers that are as in the baseline are left out: they contribute nothing whatever the network. Where rows have
    too few others to be ranked, those of all rows are ranked together.
    """
    pairs = [_pair_contributions(trained, random, row) for row in range(len(trained.completeness_gaps))]
    ranked = [pair for pair in pairs if len(pair[0]) >= _MIN_RANKED]
    if not ranked:
        ranked = [(np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs]))]
    return float(np.mean([_correlation(*pair) for pair in ranked]))


def _pair_contributions(trained: Attribution, random: Attribution, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of one row in both networks, those that can differ from 0."""
    values, one, other = (
        _flatten_row(each, row) for each in (trained.values, trained.contributions, random.contributions)
    )
    there = values != 0
    return one[there], other[there]


def heat_correlation(trained: np.ndarray, random: np.ndarray) -> float:
    """Mean over rows of Spearman's correlation of two heats, `(rows, ...)`."""
    pairs = zip(trained, random, strict=True)
    return float(np.mean([_correlation(one.ravel(), other.ravel()) for one, other in pairs]))


def _correlation(trained: np.ndarray, random: np.ndarray) -> float:
    """0 where only the random network tells nothing, 1 where the trained one does not."""
    if not len(trained) or np.ptp(trained) == 0:
        return 1.0
    return spearman(trained, random) or 0.0


def _flatten_row(arrays: Sequence[np.ndarray], row: int) -> np.ndarray:
    return np.concatenate([each[row].ravel() for each in arrays])
