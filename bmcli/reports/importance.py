"""Importance of the parameters of a search, by a random forest with sufficient accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.reports import scales
from bmcli.trials import SearchObjective, SearchResult, Trial

if TYPE_CHECKING:
    import numpy as np

MIN_TRIALS, MIN_TRIALS_PER_PARAMETER = 20, 3
FOLDS, TREES, REPEATS = 5, 100, 20
EPOCHS, NOISE = "epochs", "noise"


@dataclass(frozen=True)
class ParameterImportance:
    """Importance of a parameter for the forest.

    Args:
        drop: Decrease in R2 when the parameter's values are shuffled among trials; the mean of `REPEATS` shuffles.
        standard_deviation: Of the decrease, over the shuffles.
        significant: Whether the decrease exceeds that of a column of noise.
    """

    path: str
    drop: float
    standard_deviation: float
    significant: bool


@dataclass(frozen=True)
class ImportanceAnalysis:
    """Importance of the parameters for an objective.

    Args:
        trials: Number of trials with a result.
        min_trials: Number of trials that the analysis needs.
        r2: Of the forest on trials outside its training folds; None if there are too few trials.
        importances: The largest first; empty if the forest's R2 is too low.
        epochs: Importance of the number of trained epochs, an input of the forest where it differs between trials.
        noise: Importance of a column of noise.
    """

    objective: SearchObjective
    trials: int
    min_trials: int
    r2: float | None = None
    importances: tuple[ParameterImportance, ...] = ()
    epochs: ParameterImportance | None = None
    noise: float = 0.0


def analyse_importance(search: SearchResult, objective: SearchObjective) -> ImportanceAnalysis:
    """Compute permutation importance (Breiman 2001) in a random forest, out of fold.

    The forest predicts the rank of a trial, so that neither the scale of the objective nor a few diverged trials
    dominate. Each of `FOLDS` folds is predicted by a forest fitted on the others. A conditional parameter is shuffled
    among the candidates that have it, so that it does not receive the importance of the choice that it depends on.
    """
    trials = [trial for trial in search.candidates() if trial.measured(objective) is not None]
    min_trials = max(MIN_TRIALS, MIN_TRIALS_PER_PARAMETER * len(search.parameters))
    if len(trials) < min_trials or not search.parameters:
        return ImportanceAnalysis(objective, len(trials), min_trials)
    ranks = _compute_ranks([objective.score(trial.objectives[objective.name]) for trial in trials])
    if ranks.std() == 0:
        return ImportanceAnalysis(objective, len(trials), min_trials, r2=0.0)
    return _measure_importances(ImportanceAnalysis(objective, len(trials), min_trials), search, trials, ranks)


def _measure_importances(
    base: ImportanceAnalysis, search: SearchResult, trials: Sequence[Trial], ranks: np.ndarray
) -> ImportanceAnalysis:
    import numpy as np

    generator = np.random.default_rng(0)
    columns = _encode_parameters(search, trials)
    columns[NOISE] = generator.random((len(trials), 1))
    offsets = np.cumsum([0, *(part.shape[1] for part in columns.values())])
    table = np.concatenate(list(columns.values()), axis=1)
    forests = _fit_forests(table, ranks)
    r2 = _compute_r2(ranks, _predict_out_of_fold(forests, table))
    if r2 < _compute_required_r2(len(trials)):
        return ImportanceAnalysis(base.objective, base.trials, base.min_trials, r2)
    shuffled = [
        _shuffle_columns(table, np.arange(start, end), generator)
        for start, end in itertools.pairwise(offsets)
        for _ in range(REPEATS)
    ]
    decreases = r2 - np.array(
        [_compute_r2(ranks, predicted) for predicted in _predict_out_of_fold(forests, np.stack(shuffled))]
    )
    drops = {
        name: (float(of_parameter.mean()), float(of_parameter.std()))
        for name, of_parameter in zip(columns, decreases.reshape(-1, REPEATS), strict=True)
    }
    noise = drops.pop(NOISE)
    importances = [_make_importance(name, *drop, noise) for name, drop in drops.items()]
    importances.sort(key=lambda importance: -importance.drop)
    return ImportanceAnalysis(
        base.objective, base.trials, base.min_trials, r2,
        importances=tuple(importance for importance in importances if importance.path != EPOCHS),
        epochs=next((importance for importance in importances if importance.path == EPOCHS), None),
        noise=max(0.0, noise[0]),
    )  # fmt: skip


def _compute_required_r2(trials: int) -> float:
    """Compute the R2 that the forest must reach; with fewer trials, a higher R2 is possible by chance."""
    return max(0.2, 1.5 / trials**0.5)


def _shuffle_columns(table: np.ndarray, columns: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Copy a table and shuffle some columns among the rows that have values in them."""
    import numpy as np

    shuffled = table.copy()
    has_values = np.flatnonzero((table[:, columns] != _MISSING).any(axis=1))
    shuffled[np.ix_(has_values, columns)] = table[np.ix_(generator.permutation(has_values), columns)]
    return shuffled


def _make_importance(path: str, drop: float, spread: float, noise: tuple[float, float]) -> ParameterImportance:
    return ParameterImportance(path, drop, spread, significant=drop - spread > max(0.01, noise[0] + noise[1]))


_MISSING = -1.0  # below all positions, so that one split of a tree separates candidates without the parameter


def _encode_parameters(search: SearchResult, trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Encode each parameter for the forest, `(trials, columns)`, and the epochs if they differ."""
    import numpy as np

    columns = {
        path: _encode_parameter(scales.make_scale(path, parameter, search.trials), trials)
        for path, parameter in search.parameters.items()
    }
    epochs = np.array([[float(trial.result.epochs if trial.result else 0)] for trial in trials])
    return columns if epochs.std() == 0 else {**columns, EPOCHS: epochs}


def _encode_parameter(scale: scales.ParameterScale, trials: Sequence[Trial]) -> np.ndarray:
    """Encode a parameter as positions on its scale, or unordered choices as one-hot columns."""
    import numpy as np

    positions = np.array([[_MISSING if (position := scale.position(trial)) is None else position] for trial in trials])
    if scale.ordered:
        return positions
    one_hot = np.round(positions * (len(scale.choices) - 1)) == np.arange(len(scale.choices))
    return np.where(positions == _MISSING, _MISSING, one_hot)


def _compute_ranks(scores: Sequence[float]) -> np.ndarray:
    """Compute ranks between 0 and 1; equal scores have their mean rank."""
    import numpy as np

    _, indices, counts = np.unique(np.array(scores), return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - (counts + 1) / 2
    return middles[indices] / max(1, len(scores) - 1)


Forest = tuple[Any, "np.ndarray"]
"""A fitted forest, and its test rows."""


def _fit_forests(table: np.ndarray, ranks: np.ndarray) -> list[Forest]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    folds = KFold(FOLDS, shuffle=True, random_state=0).split(table)
    return [
        (
            RandomForestRegressor(TREES, random_state=0, max_features=0.5).fit(table[train_rows], ranks[train_rows]),
            test_rows,
        )
        for train_rows, test_rows in folds
    ]


def _predict_out_of_fold(forests: Sequence[Forest], tables: np.ndarray) -> np.ndarray:
    """Predict each row of tables `(..., rows, columns)` by the forest that was not fitted on it, `(..., rows)`."""
    import numpy as np

    predicted = np.empty(tables.shape[:-1])
    for forest, test_rows in forests:
        rows = tables[..., test_rows, :]
        predicted[..., test_rows] = forest.predict(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:-1])
    return predicted


def _compute_r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
