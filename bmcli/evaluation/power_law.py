"""Power laws of learning curves: the error on new rows as `a + b * rows ** -c`, with an asymptote `a` of at least 0.

The law that fits most learning curves (Viering and Loog 2022, section 4). It decreases, and stays above 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EXPONENTS = np.geomspace(0.02, 2.0, 80)
"""Candidates of `c`. Measured ones are between 0.05 and 1 in most cases; with the first, a curve is nearly flat."""
_PARAMETERS = 3
MIN_POINTS = _PARAMETERS + 1
"""Least number of points that leaves one by which the scatter around a law is estimated."""


@dataclass(frozen=True)
class PowerLaws:
    """Power laws over the same numbers of rows, each fitted to errors of its own; all arrays `(laws,)`.

    Args:
        asymptote: Error with infinitely many rows.
        excess: Error above the asymptote with all rows.
        exponent: Positive.
        squared_residual: Sum of the squared residuals.
    """

    asymptote: np.ndarray
    excess: np.ndarray
    exponent: np.ndarray
    squared_residual: np.ndarray

    def compute_reduction(self, factor: float) -> np.ndarray:
        """Compute the share of the error that more rows would remove, from 0 to 1; 0 where there is no error.

        Args:
            factor: Number of rows as a multiple of all rows.
        """
        error = self.asymptote + self.excess
        removed = self.excess * (1 - factor**-self.exponent)
        return np.divide(removed, error, out=np.zeros_like(error), where=error > 0)


def fit_power_laws(rows: np.ndarray, errors: np.ndarray) -> PowerLaws:
    """Fit power laws by least squares, over a grid of exponents.

    Args:
        rows: Number of training rows of each point, ascending, `(points,)`.
        errors: At least 0, `(laws, points)`.
    """
    bases = (rows / rows[-1]) ** -_EXPONENTS[:, None]  # (exponents, points)
    means, centred = bases.mean(axis=1), bases - bases.mean(axis=1, keepdims=True)
    excess = np.maximum(errors @ centred.T / (centred**2).sum(axis=1), 0)  # (laws, exponents)
    asymptote = errors.mean(axis=1, keepdims=True) - excess * means
    below = asymptote < 0
    excess = np.where(below, errors @ bases.T / (bases**2).sum(axis=1), excess)
    asymptote = np.where(below, 0, asymptote)
    fitted = asymptote[..., None] + excess[..., None] * bases
    squared_residuals = ((errors[:, None] - fitted) ** 2).sum(axis=2)
    best = squared_residuals.argmin(axis=1)
    laws = np.arange(len(errors))
    return PowerLaws(asymptote[laws, best], excess[laws, best], _EXPONENTS[best], squared_residuals[laws, best])


@dataclass(frozen=True)
class Reduction:
    """The share of the error with all rows that more rows would remove, from 0 to 1.

    Args:
        draws: From its distribution, `(draws,)`.
        scatter: Standard deviation of the points around their law, as a multiple of the error with all rows.
    """

    value: float
    draws: np.ndarray
    scatter: float


def estimate_reduction(
    rows: np.ndarray, errors: np.ndarray, resampled: np.ndarray, factor: float, seed: int
) -> Reduction:
    """Estimate the share of the error that more rows would remove.

    Each draw fits the errors on other validation rows, scattered like the points around their law: a training on other
    rows, or with another seed, would scatter alike. The scatter is itself uncertain with so few points, which is why
    it is drawn as in the posterior of a normal regression.

    Args:
        rows: Number of training rows of each point, ascending, `(points,)`, at least `MIN_POINTS`.
        errors: On the validation rows, `(points,)`, above 0 with all rows.
        resampled: On resamples of these, `(draws, points)`; each is the same for all points.
        factor: As in `PowerLaws.compute_reduction`.
        seed: Of the draws.
    """
    law, spare = fit_power_laws(rows, errors[None]), len(rows) - _PARAMETERS
    generator = np.random.default_rng(seed)
    deviations = np.sqrt(law.squared_residual / generator.chisquare(spare, len(resampled)))
    scattered = resampled + deviations[:, None] * generator.standard_normal(resampled.shape)
    draws = fit_power_laws(rows, np.maximum(scattered, 0)).compute_reduction(factor)
    scatter = np.sqrt(law.squared_residual[0] / spare) / errors[-1]
    return Reduction(float(law.compute_reduction(factor)[0]), draws, float(scatter))
