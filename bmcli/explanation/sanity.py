"""Sanity checks of explanations: they must change when the weights are random.

Adebayo et al. 2018, section 3: the results of a method for networks of the same shape with random weights are compared
with those for the trained network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmcli.evaluation.explanation_record import PermutationImportance
from bmcli.explanation.gradients import Attribution
from bmcli.metrics.ordinal import spearman
from bmcli.networks.network import Network

LIMIT = 0.5
RANDOM_NETWORKS = 3  # averaged, since with few features attributions correlate by chance
_MIN_RANKED = 4  # contributions of a row, for a rank correlation


RowAttributions = tuple[Attribution, np.ndarray | None]
"""Contributions of some rows, and their Grad-CAM heats if the network has feature maps."""


def shuffle_weights(network: Network, number: int) -> None:
    """Give an untrained network other random weights by shuffling each array; number 0 leaves them as they are."""
    if number == 0:
        return
    generator = np.random.default_rng([0x5A17E, number])
    for weight in network.model.trainable_variables:
        values = weight.numpy()
        weight.assign(generator.permutation(values.ravel()).reshape(values.shape))


def compute_correlations(trained: RowAttributions, random: RowAttributions) -> tuple[float, ...]:
    """Compute the rank correlations of contributions, and of heats if there are any."""
    contributions = compute_rank_correlation(trained[0], random[0])
    if trained[1] is None or random[1] is None:
        return (contributions,)
    return contributions, compute_heat_correlation(trained[1], random[1])


def compute_remaining_share(trained: Sequence[PermutationImportance], random: Sequence[PermutationImportance]) -> float:
    """Compute the total importance for a random network, as a share of that for the trained one; at least 0.

    It is 1, a failed check, if the trained network does not depend on any column.
    """
    total = sum(max(0.0, each.increase) for each in trained)
    return sum(max(0.0, each.increase) for each in random) / total if total > 0 else 1.0


def compute_rank_correlation(trained: Attribution, random: Attribution) -> float:
    """Average Spearman's correlation of signed contributions over rows; 1 if the trained network has none.

    Features that equal the baseline are excluded, since they contribute 0 in any network. If all rows have too few
    other features for a ranking, those of all rows are ranked together.
    """
    pairs = [_pair_contributions(trained, random, row) for row in range(len(trained.completeness_gaps))]
    ranked = [pair for pair in pairs if len(pair[0]) >= _MIN_RANKED]
    if not ranked:
        ranked = [(np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs]))]
    return float(np.mean([_compute_correlation(*pair) for pair in ranked]))


def _pair_contributions(trained: Attribution, random: Attribution, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair the contributions of one row in both networks, without those that are 0 in any network."""
    values, trained_row, random_row = (
        _flatten_row(each, row) for each in (trained.values, trained.contributions, random.contributions)
    )
    is_nonzero = values != 0
    return trained_row[is_nonzero], random_row[is_nonzero]


def compute_heat_correlation(trained: np.ndarray, random: np.ndarray) -> float:
    """Average Spearman's correlation of two heats over rows, `(rows, ...)`."""
    pairs = zip(trained, random, strict=True)
    return float(np.mean([_compute_correlation(one.ravel(), other.ravel()) for one, other in pairs]))


def _compute_correlation(trained: np.ndarray, random: np.ndarray) -> float:
    """Compute Spearman's correlation; 0 where only the random values are constant, 1 where the trained ones are."""
    if not len(trained) or np.ptp(trained) == 0:
        return 1.0
    return spearman(trained, random) or 0.0


def _flatten_row(arrays: Sequence[np.ndarray], row: int) -> np.ndarray:
    return np.concatenate([each[row].ravel() for each in arrays])
