"""Oracles of KerasTuner with better candidates; imports KerasTuner, and so TensorFlow.

KerasTuner's random search is over after 20 draws in a row that it has tried before, although candidates may be left.

KerasTuner's Bayesian oracle minimizes the acquisition function from 50 points with finite differences, which takes
seconds, longer than many a trial. If all parameters are steps or choices, it proposes the same candidate twice. It
predicts the scores of running trials before it has seen any score, and learns nothing from failed ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.hyperparameters import Float, Int
from sklearn import gaussian_process

MAX_LISTED = 10_000  # candidates of a finite space up to which those that are left are listed
MAX_RISK = 0.1  # share of failures from which on a region is left
POINTS = 4096  # random points at which the bound is computed in one call
RADII = (0.1, 0.03, 0.01)  # standard deviations of further points around the best one, in rounds


class _FiniteSpace(keras_tuner.Oracle):
    """An oracle whose random search finds all candidates of a finite space; it can be given a candidate, too."""

    _given_values: dict[str, Any] | None = None

    def add_candidate(self, values: dict[str, Any]) -> Any:
        """Make a running trial of a candidate that was not suggested; it will not be suggested again."""
        self._given_values = values
        return self.create_trial("given")

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the values of the next trial."""
        given, self._given_values = self._given_values, None
        values = given or self._choose_values()
        return {"status": "STOPPED" if values is None else "RUNNING", "values": values}

    def _choose_values(self) -> dict[str, Any] | None:
        """Choose the next candidate; None if nothing is left to try."""
        return self._random_values()

    def _random_values(self) -> dict[str, Any] | None:
        values: dict[str, Any] | None = super()._random_values()
        if values is not None or not self._is_finite():
            return values
        untried = [each for each in self._list_candidates() if not self._duplicate(each)]
        if not untried:
            return None
        self._seed_state += 1
        return untried[np.random.default_rng(self._seed_state).integers(len(untried))]

    def _is_finite(self) -> bool:
        """Whether candidates can be listed: there are few enough, and none of their parameters is continuous."""
        return math.prod(map(_count_values, self.hyperparameters.space)) <= MAX_LISTED

    def _list_candidates(self) -> list[dict[str, Any]]:
        """List all candidates; parents come before the parameters that depend on them."""
        found = [keras_tuner.HyperParameters()]
        for hp in self.hyperparameters.space:
            found = [each for before in found for each in _extend(before, hp)]
        return [candidate.values for candidate in found]


def _extend(candidate: keras_tuner.HyperParameters, hp: Any) -> list[keras_tuner.HyperParameters]:
    """Give a candidate each value of one more parameter; none if the parameter is inactive."""
    candidate.merge([hp])
    if not candidate.is_active(hp):
        return [candidate]
    found = []
    for value in _list_values(hp):
        copy = candidate.copy()
        copy.values[hp.name] = value
        found.append(copy)
    return found


def _count_values(hp: Any) -> float:
    """Count the values of a parameter; infinite for continuous numbers."""
    return math.inf if isinstance(hp, Float) else len(_list_values(hp))


def _list_values(hp: Any) -> Sequence[Any]:
    """List the values of a choice or an integer."""
    # KerasTuner's own list of an integer with a logarithmic scale holds only a sample.
    return range(hp.min_value, hp.max_value + 1) if isinstance(hp, Int) else hp.values


class RandomOracle(_FiniteSpace, keras_tuner.oracles.RandomSearchOracle):
    """Random search that is over when all candidates of a finite space were tried."""


class BayesianOracle(_FiniteSpace, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian search by the lower confidence bound of a Gaussian process (Srinivas et al. 2010, section 3).

    The process has a Matern kernel (Snoek, Larochelle and Adams 2012, section 3.1). Lower scores are better. A running
    trial counts with the score that the process predicts for it, so that several workers try different candidates
    (Ginsbourger, Le Riche and Carraro 2010, section 4, "kriging believer"). A failed trial counts with the worst score
    of the others; and a second process, of failures, excludes the regions in which trainings probably fail (after
    Gelbart, Snoek and Adams 2014, section 3).
    """

    def _choose_values(self) -> dict[str, Any] | None:
        """Choose the next candidate: at random at first, then by the lowest bound."""
        ended = [trial for trial in self.trials.values() if trial.status in ("COMPLETED", "FAILED")]
        is_measured = any(trial.status == "COMPLETED" for trial in ended)
        if not is_measured or len(ended) < (self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)):
            return self._random_values()
        return self._find_best_candidate(ended) or self._random_values()

    def _find_best_candidate(self, ended: list[Any]) -> dict[str, Any] | None:
        """Find the untried candidate with the lowest bound; None if all points are tried candidates."""
        model, risk = self._fit_process(ended), self._fit_failures(ended)

        def bound(points: np.ndarray) -> np.ndarray:
            mean, deviation = model.predict(points, return_std=True)
            lowest = mean - self.beta * deviation
            if risk is None:
                return lowest
            failing = risk.predict(points)
            # Points that probably fail come last, the safest of them first.
            return np.where(failing > MAX_RISK, lowest.max() + failing, lowest)

        # A bound at thousands of points is one matrix product, far cheaper than following its slope point by point.
        size = len(self.hyperparameters.space)
        points = self._random_state.uniform(size=(POINTS, size))
        for radius in RADII:
            best = points[np.argmin(bound(points))]
            near = best + radius * self._random_state.normal(size=(POINTS // 8, size))
            points = np.concatenate([points, near.clip(0.0, 1.0)])
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for point in points[np.argsort(bound(points), kind="stable")]:
            values = self._from_unit_cube(point)
            if values not in tried:
                return values
        return None

    def _fit_process(self, ended: list[Any]) -> Any:
        """Fit the process to ended trials, then also to its own predictions for running ones."""
        worst = max(trial.score for trial in ended if trial.status == "COMPLETED")
        points = self._to_unit_cube(ended)
        scores = np.array([trial.score if trial.status == "COMPLETED" else worst for trial in ended])
        model = self._fit_regressor(points, scores, normalize=True)
        running = self._to_unit_cube([trial for trial in self.trials.values() if trial.status == "RUNNING"])
        if not len(running):
            return model
        expected = model.predict(running)
        # The kernel stays: predictions are no new evidence about length scales and noise.
        believer = gaussian_process.GaussianProcessRegressor(
            model.kernel_, alpha=self.alpha, normalize_y=True, optimizer=None
        )
        return believer.fit(np.concatenate([points, running]), np.concatenate([scores, expected]))

    def _fit_failures(self, ended: list[Any]) -> Any:
        """Fit a process to 1 for each failed trial and 0 for others; None if none failed. Far from all it is 0."""
        failed = np.array([float(trial.status == "FAILED") for trial in ended])
        return self._fit_regressor(self._to_unit_cube(ended), failed, normalize=False) if failed.any() else None

    def _fit_regressor(self, points: np.ndarray, values: np.ndarray, normalize: bool) -> Any:
        kernels = gaussian_process.kernels
        # One length scale for each parameter, since most of them matter little; and noise, since trials are random.
        kernel = kernels.Matern(np.ones(points.shape[1]), length_scale_bounds=(0.05, 20.0), nu=2.5)
        return gaussian_process.GaussianProcessRegressor(
            kernel + kernels.WhiteKernel(1e-2, (1e-5, 1.0)), alpha=self.alpha, normalize_y=normalize,
            n_restarts_optimizer=1, random_state=self.seed,
        ).fit(points, values)  # fmt: skip

    def _to_unit_cube(self, trials: list[Any]) -> np.ndarray:
        """Map trials to points of the unit cube, `(trials, parameters)`; inactive parameters have their default."""
        space = self.hyperparameters.space
        points = [
            [hp.value_to_prob(trial.hyperparameters.values.get(hp.name, hp.default)) for hp in space]
            for trial in trials
        ]
        return np.array(points).reshape(len(trials), len(space))  # keeps the second axis without trials

    def _from_unit_cube(self, point: np.ndarray) -> dict[str, Any]:
        """Map a point of the unit cube to a candidate."""
        candidate = keras_tuner.HyperParameters()
        # Parents come before their children, whose activity depends on the values that were set before.
        for hp, share in zip(self.hyperparameters.space, point, strict=True):
            candidate.merge([hp])
            if candidate.is_active(hp):
                candidate.values[hp.name] = hp.prob_to_value(share)
        return candidate.values
