"""A Bayesian oracle of KerasTuner with a faster search for the next candidate; imports KerasTuner, and so TensorFlow.

KerasTuner's own oracle minimizes the acquisition function from 50 points with finite differences, which takes seconds,
longer than many a trial. If all parameters are steps or choices, it proposes the same candidate twice. It also predicts
the scores of running trials before it has seen any score.
"""

from __future__ import annotations

from typing import Any

import keras_tuner
import numpy as np
from sklearn import gaussian_process

POINTS = 4096  # random points at which the bound is computed in one call
RADII = (0.1, 0.03, 0.01)  # standard deviations of further points around the best one, in rounds


class BayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian search by the lower confidence bound of a Gaussian process (Srinivas et al. 2010, section 3).

    The process has a Matern kernel (Snoek, Larochelle and Adams 2012, section 3.1). Lower scores are better. A running
    trial counts with the score that the process predicts for it, so that several workers try different candidates
    (Ginsbourger, Le Riche and Carraro 2010, section 4, "kriging believer").
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the next candidate: at random at first, then by the lowest bound."""
        done = [trial for trial in self.trials.values() if trial.status == "COMPLETED"]
        if len(done) < (self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)):
            values = self._random_values()
        else:
            values = self._find_best_candidate(done) or self._random_values()
        return {"status": "STOPPED" if values is None else "RUNNING", "values": values}

    def _find_best_candidate(self, done: list[Any]) -> dict[str, Any] | None:
        """Find the untried candidate with the lowest bound; None if all points are tried candidates."""
        model = self._fit_process(done)

        def bound(points: np.ndarray) -> np.ndarray:
            mean, deviation = model.predict(points, return_std=True)
            return mean - self.beta * deviation

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

    def _fit_process(self, done: list[Any]) -> Any:
        """Fit the process to finished trials, then also to its own predictions for running ones."""
        points, scores = self._to_unit_cube(done), np.array([trial.score for trial in done])
        kernels = gaussian_process.kernels
        # One length scale for each parameter, since most of them matter little; and noise, since trials are random.
        kernel = kernels.Matern(np.ones(points.shape[1]), length_scale_bounds=(0.05, 20.0), nu=2.5)
        model = gaussian_process.GaussianProcessRegressor(
            kernel + kernels.WhiteKernel(1e-2, (1e-5, 1.0)), alpha=self.alpha, normalize_y=True,
            n_restarts_optimizer=1, random_state=self.seed,
        )  # fmt: skip
        model.fit(points, scores)
        running = self._to_unit_cube([trial for trial in self.trials.values() if trial.status == "RUNNING"])
        if not len(running):
            return model
        expected = model.predict(running)
        # The kernel stays: predictions are no new evidence about length scales and noise.
        believer = gaussian_process.GaussianProcessRegressor(
            model.kernel_, alpha=self.alpha, normalize_y=True, optimizer=None
        )
        return believer.fit(np.concatenate([points, running]), np.concatenate([scores, expected]))

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
