"""KerasTuner's Bayesian oracle with another search for the next candidate. Imports KerasTuner, and so TensorFlow.

KerasTuner follows the acquisition function from 50 places by finite differences, which takes seconds for a candidate,
longer than many a trial; it proposes the same candidate twice where all values are steps or choices, and guesses what
running trials will score before it has seen any score.
"""

from __future__ import annotations

from typing import Any

import keras_tuner
import numpy as np
from sklearn import gaussian_process

POINTS = 4096  # where the bound is computed, in one call
RADII = (0.1, 0.03, 0.01)  # around the best of them, one after the other, within which some more lie


class BayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """The lower confidence bound of a Gaussian process with a Matern kernel (Srinivas et al. 2010, section 3; the
    kernel as in Snoek, Larochelle and Adams 2012, section 3.1).

    Scores count as they are, better the lower; running trials count as what the process expects of them, so that
    several workers try different candidates (Ginsbourger, Le Riche and Carraro 2010, section 4, "kriging believer").
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next candidate: by chance at first, then where the bound is lowest."""
        done = [trial for trial in self.trials.values() if trial.status == "COMPLETED"]
        if len(done) < (self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)):
            values = self._random_values()
        else:
            values = self._find_best_candidate(done) or self._random_values()
        return {"status": "STOPPED" if values is None else "RUNNING", "values": values}

    def _find_best_candidate(self, done: list[Any]) -> dict[str, Any] | None:
        """The candidate with the lowest bound that was not tried yet; None if none of many was new."""
        model = self._fit_process(done)

        def bound(points: np.ndarray) -> np.ndarray:
            mean, deviation = model.predict(points, return_std=True)
            return mean - self.beta * deviation

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
        """The process fitted to the trials that are done, then to what it expects of those that run."""
        places, scores = self._to_unit_cube(done), np.array([trial.score for trial in done])
        kernels = gaussian_process.kernels
        # A length for each parameter, since most of them matter little; and noise, since trials depend on chance.
        smooth = kernels.Matern(np.ones(places.shape[1]), length_scale_bounds=(0.05, 20.0), nu=2.5)
        model = gaussian_process.GaussianProcessRegressor(
            smooth + kernels.WhiteKernel(1e-2, (1e-5, 1.0)), alpha=self.alpha, normalize_y=True,
            n_restarts_optimizer=1, random_state=self.seed,
        )  # fmt: skip
        model.fit(places, scores)
        running = self._to_unit_cube([trial for trial in self.trials.values() if trial.status == "RUNNING"])
        if not len(running):
            return model
        expected = model.predict(running)
        believer = gaussian_process.GaussianProcessRegressor(
            model.kernel_, alpha=self.alpha, normalize_y=True, optimizer=None
        )
        return believer.fit(np.concatenate([places, running]), np.concatenate([scores, expected]))

    def _to_unit_cube(self, trials: list[Any]) -> np.ndarray:
        """Trials as points of the unit cube, `(trials, parameters)`; a parameter that plays no part has its default."""
        space = self.hyperparameters.space
        found = [
            [hp.value_to_prob(trial.hyperparameters.values.get(hp.name, hp.default)) for hp in space]
            for trial in trials
        ]
        return np.array(found).reshape(len(trials), len(space))

    def _from_unit_cube(self, point: np.ndarray) -> dict[str, Any]:
        """The candidate at a point of the unit cube."""
        found = keras_tuner.HyperParameters()
        for hp, share in zip(self.hyperparameters.space, point, strict=True):
            found.merge([hp])
            if found.is_active(hp):
                found.values[hp.name] = hp.prob_to_value(share)
        return found.values
