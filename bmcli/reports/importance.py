"""Which parameters of a search mattered, by a random forest that must first show that it can tell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.reports import scales
from bmcli.trials import SearchObjective, SearchResult, Trial

if TYPE_CHECKING:
    import numpy as np

FEWEST_TRIALS, FEWEST_FOR_EACH = 20, 3
FOLDS, TREES, REPEATS = 5, 100, 20
EPOCHS, NOISE = "epochs", "noise"


@dataclass(frozen=True)
class ParameterImportance:
    """How much a forest needs a parameter.

    Args:
        drop: By how much R2 falls when the parameter's values are shuffled among trials; the mean of `REPEATS`.
        spread: Standard deviation of that fall.
        significant: Whether it is more than a column of noise reaches.
    """

    path: str
    drop: float
    spread: float
    significant: bool


@dataclass(frozen=True)
class ImportanceAnalysis:
    """What can be said of the parameters' influence on an objective.

    Args:
        trials: How many trials it rests on.
        needed: How many are the fewest to try it with.
        r2: Of the forest on trials that it has not seen; None if there are too few trials.
        weights: The largest first; empty if the forest predicts too badly to be asked.
        epochs: Of the epochs that trials were trained, which the forest is told where they differ.
        noise: What a column of noise reached.
    """

    objective: SearchObjective
    trials: int
    needed: int
    r2: float | None = None
    weights: tuple[ParameterImportance, ...] = ()
    epochs: ParameterImportance | None = None
    noise: float = 0.0


def analyse_importance(search: SearchResult, objective: SearchObjective) -> ImportanceAnalysis:
    """Permutation importance (Breiman 2001) in a random forest, measured on trials that its trees have not seen.

    The forest predicts the rank of a trial, so that neither the scale of the objective nor a few diverged trials
    decide. Trials are dealt to `FOLDS` folds, each predicted by a forest fitted on the others. A parameter that only
    some candidates have is shuffled among those alone, so that it does not take the blame for the choice above it.
    """
    trials = [trial for trial in search.candidates() if trial.measured(objective) is not None]
    needed = max(FEWEST_TRIALS, FEWEST_FOR_EACH * len(search.parameters))
    if len(trials) < needed or not search.parameters:
        return ImportanceAnalysis(objective, len(trials), needed)
    ranks = _compute_ranks([objective.score(trial.objectives[objective.name]) for trial in trials])
    if ranks.std() == 0:
        return ImportanceAnalysis(objective, len(trials), needed, r2=0.0)
    return _measure_importances(ImportanceAnalysis(objective, len(trials), needed), search, trials, ranks)


def _measure_importances(
    base: ImportanceAnalysis, search: SearchResult, trials: Sequence[Trial], ranks: np.ndarray
) -> ImportanceAnalysis:
    import numpy as np

    random = np.random.default_rng(0)
    columns = _encode_parameters(search, trials)
    columns[NOISE] = random.random((len(trials), 1))
    places = np.cumsum([0, *(part.shape[1] for part in columns.values())])
    table = np.concatenate(list(columns.values()), axis=1)
    forests = _fit_forests(table, ranks)
    r2 = _compute_r2(ranks, _predict_out_of_fold(forests, table))
    if r2 < _compute_required_r2(len(trials)):
        return ImportanceAnalysis(base.objective, base.trials, base.needed, r2)
    shuffled = [
        _shuffle_columns(table, np.arange(start, end), random)
        for start, end in itertools.pairwise(places)
        for _ in range(REPEATS)
    ]
    fallen = r2 - np.array(
        [_compute_r2(ranks, predicted) for predicted in _predict_out_of_fold(forests, np.stack(shuffled))]
    )
    drops = {
        name: (float(own.mean()), float(own.std()))
        for name, own in zip(columns, fallen.reshape(-1, REPEATS), strict=True)
    }
    noise = drops.pop(NOISE)
    weights = [_make_importance(name, *drop, noise) for name, drop in drops.items()]
    weights.sort(key=lambda weight: -weight.drop)
    return ImportanceAnalysis(
        base.objective, base.trials, base.needed, r2,
        weights=tuple(weight for weight in weights if weight.path != EPOCHS),
        epochs=next((weight for weight in weights if weight.path == EPOCHS), None),
        noise=max(0.0, noise[0]),
    )  # fmt: skip


def _compute_required_r2(trials: int) -> float:
    """What the forest must explain to be asked; by chance it explains the more, the fewer trials there are."""
    return max(0.2, 1.5 / trials**0.5)


def _shuffle_columns(table: np.ndarray, part: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy with some columns dealt anew among the rows that have them."""
    import numpy as np

    shuffled = table.copy()
    there = np.flatnonzero((table[:, part] != _MISSING).any(axis=1))
    shuffled[np.ix_(there, part)] = table[np.ix_(random.permutation(there), part)]
    return shuffled


def _make_importance(path: str, drop: float, spread: float, noise: tuple[float, float]) -> ParameterImportance:
    return ParameterImportance(path, drop, spread, significant=drop - spread > max(0.01, noise[0] + noise[1]))


_MISSING = -1.0


def _encode_parameters(search: SearchResult, trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """What the forest sees of each parameter, `(trials, columns)`, and the epochs if they differ."""
    import numpy as np

    columns = {
        path: _encode_parameter(scales.make_scale(path, parameter, search.trials), trials)
        for path, parameter in search.parameters.items()
    }
    epochs = np.array([[float(trial.result.epochs if trial.result else 0)] for trial in trials])
    return columns if epochs.std() == 0 else {**columns, EPOCHS: epochs}


def _encode_parameter(scale: scales.ParameterScale, trials: Sequence[Trial]) -> np.ndarray:
    """Where each trial stands on the scale; for choices without an order a column each."""
    import numpy as np

    positions = np.array([[_MISSING if (at := scale.position(trial)) is None else at] for trial in trials])
    if scale.ordered:
        return positions
    chosen = np.round(positions * (len(scale.choices) - 1)) == np.arange(len(scale.choices))
    return np.where(positions == _MISSING, _MISSING, chosen)


def _compute_ranks(scores: Sequence[float]) -> np.ndarray:
    """Ranks between 0 and 1; equal scores share theirs."""
    import numpy as np

    _, places, counts = np.unique(np.array(scores), return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - (counts + 1) / 2
    return middles[places] / max(1, len(scores) - 1)


Forest = tuple[Any, "np.ndarray"]
"""A fitted forest, and the rows that it has not seen."""


def _fit_forests(table: np.ndarray, ranks: np.ndarray) -> list[Forest]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    dealt = KFold(FOLDS, shuffle=True, random_state=0).split(table)
    return [
        (RandomForestRegressor(TREES, random_state=0, max_features=0.5).fit(table[seen], ranks[seen]), unseen)
        for seen, unseen in dealt
    ]


def _predict_out_of_fold(forests: Sequence[Forest], tables: np.ndarray) -> np.ndarray:
    """What each row `(..., rows, columns)` is predicted to be by the forest that has not seen it, `(..., rows)`."""
    import numpy as np

    predicted = np.empty(tables.shape[:-1])
    for forest, unseen in forests:
        rows = tables[..., unseen, :]
        predicted[..., unseen] = forest.predict(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:-1])
    return predicted


def _compute_r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
