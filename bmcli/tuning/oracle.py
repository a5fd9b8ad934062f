"""Oracles of KerasTuner, used without a tuner: they suggest candidates and take their scores."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from bmcli.native_output import hide_native_stderr
from bmcli.recipe.fields import Kind
from bmcli.recipe.search import SearchParameter, are_same, collect_conditions
from bmcli.trials import CandidateValues

_SCORE = "score"
_DIGITS = 4  # significant ones of a number from a range


@dataclass(frozen=True)
class Suggestion:
    """A candidate that an oracle suggests.

    Args:
        values: By path, without those whose conditions do not hold.
        until: Total epochs to train; None for those of the recipe.
        continues: Number of the candidate, from 0, whose training is continued; None to start a new training.
    """

    values: CandidateValues
    until: int | None = None
    continues: int | None = None


OracleAnswer = Suggestion | Literal["wait", "over"]
"""A candidate; `wait` if the next one depends on missing scores; `over` if nothing is left to try."""


class Oracle:
    """An oracle of KerasTuner over a space of recipe values.

    An answer is a function of the arguments and of the earlier calls, so a search is resumed by repeating the same
    calls. Lower scores are better. Candidates are numbered from 0 in the order of their suggestion.

    Args:
        epochs: Largest number of epochs of a candidate.
        tried: Candidate of the space that is tried without a suggestion. It is not suggested, except by Hyperband,
            whose candidates are trained for fewer epochs; Bayesian search learns from it.
    """

    def __init__(
        self,
        algorithm: Kind,
        space: Mapping[str, SearchParameter],
        seed: int,
        epochs: int,
        tried: CandidateValues | None = None,
    ) -> None:
        self._space = {path: space[path] for path in _sort_parents_first(space)}
        self._is_hyperband = algorithm.kind == "hyperband"
        with ExitStack() as stack:
            self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bmcli-oracle-"))
            self._oracle = _build_oracle(algorithm, self._space, seed, epochs)
            # The oracle writes its state after every call, and needs a folder for it. Nothing reads that state: a
            # search is resumed from its journal.
            self._oracle._set_project_dir(self._folder, "oracle")
            self._oracle.verbose = 0
            self._files = stack.pop_all()
        self._numbers: dict[str, int] = {}
        self._skipped = tried if algorithm.kind == "grid" else None
        self._tried_id = self._add_tried(tried) if tried and algorithm.kind in ("random", "bayesian") else None

    def _add_tried(self, values: CandidateValues) -> str:
        """Add the candidate that is tried without a suggestion; returns the id of its trial."""
        encoded = {path: _encode_value(self._space[path], value) for path, value in values.items()}
        with _hide_warnings():
            trial_id: str = self._oracle.add_candidate(encoded).trial_id
        return trial_id

    def close(self) -> None:
        """Remove the files of KerasTuner."""
        self._files.close()

    def suggest(self) -> OracleAnswer:
        """Suggest the next candidate."""
        with _hide_warnings():
            trial = self._oracle.create_trial(f"tuner-{len(self._numbers)}")
        if trial.status == "STOPPED":
            return "over"
        if trial.status != "RUNNING":
            return "wait"
        raw = trial.hyperparameters.values
        values = {path: _decode_value(each, raw[path]) for path, each in self._space.items() if path in raw}
        if values == self._skipped:  # the grid continues from it; its score does not matter
            self._end_trial(trial.trial_id, 0.0)
            return self.suggest()
        self._numbers[trial.trial_id] = len(self._numbers)
        if not self._is_hyperband:
            return Suggestion(values)
        # Hyperband passes epochs and the continued trial as parameters of its own, with these names.
        continued = raw.get("tuner/trial_id")
        return Suggestion(values, raw["tuner/epochs"], None if continued is None else self._numbers[continued])

    def report_score(self, number: int, score: float | None) -> None:
        """Report the score of a candidate; None if it failed."""
        self._end_trial(next(trial_id for trial_id, other in self._numbers.items() if other == number), score)

    def report_tried_score(self, score: float | None) -> None:
        """Report the score of the candidate that is tried without a suggestion; None if it failed."""
        if self._tried_id is not None:
            self._end_trial(self._tried_id, score)

    def _end_trial(self, trial_id: str, score: float | None) -> None:
        finite = score is not None and math.isfinite(score)
        with _hide_warnings():
            trial = self._oracle.get_trial(trial_id)
            # Hyperband waits for the scores of all candidates of a round, so a failed one counts as the worst.
            if finite or self._is_hyperband:
                self._oracle.update_trial(trial_id, {_SCORE: score if finite else math.inf})
                trial.status = "COMPLETED"
            else:
                trial.status = "FAILED"
            self._oracle.end_trial(trial)


def _build_oracle(algorithm: Any, space: Mapping[str, SearchParameter], seed: int, epochs: int) -> Any:
    with hide_native_stderr(), _hide_warnings():
        import keras_tuner

    common = {
        "objective": keras_tuner.Objective(_SCORE, "min"),
        "hyperparameters": _build_hyperparameters(space),
        "seed": seed % 2**31 + 1,  # KerasTuner replaces 0 by a random seed
        "max_consecutive_failed_trials": 2**62,  # the search has its own limit
    }
    if algorithm.kind == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(
            max_epochs=epochs, factor=algorithm.factor, hyperband_iterations=algorithm.iterations, **common
        )
    from bmcli.tuning import keras_tuner_oracles

    if algorithm.kind == "bayesian":
        return keras_tuner_oracles.BayesianOracle(
            max_trials=None, num_initial_points=algorithm.initial, beta=algorithm.beta, **common
        )
    oracles = {"random": keras_tuner_oracles.RandomOracle, "grid": keras_tuner.oracles.GridSearchOracle}
    return oracles[algorithm.kind](max_trials=None, **common)


def _build_hyperparameters(space: Mapping[str, SearchParameter]) -> Any:
    """Build the space for KerasTuner, each parameter within the scopes of its conditions."""
    import keras_tuner

    hyperparameters = keras_tuner.HyperParameters()
    for path, parameter in space.items():
        with ExitStack() as scopes:
            for other, values in _iterate_conditions(path, space):
                encoded = [_encode_value(space[other], value) for value in values]
                scopes.enter_context(hyperparameters.conditional_scope(other, encoded))
            _add_parameter(hyperparameters, path, parameter)
    return hyperparameters


def _add_parameter(hyperparameters: Any, path: str, parameter: SearchParameter) -> None:
    if parameter.values:
        # By index, since KerasTuner takes no lists and mappings as choices.
        ordered = all(type(value) in (int, float) for value in parameter.values)
        hyperparameters.Choice(path, list(range(len(parameter.values))), ordered=ordered)
    elif parameter.step is not None:
        hyperparameters.Int(path, 0, parameter.last_step())
    else:
        add = hyperparameters.Int if parameter.kind == "int" else hyperparameters.Float
        add(path, parameter.low, parameter.high, sampling=parameter.scale)


def _decode_value(parameter: SearchParameter, number: Any) -> Any:
    """Convert a number of KerasTuner to the value of the recipe; choices and steps are counted from 0."""
    if parameter.values:
        return parameter.values[number]
    if parameter.step is not None:
        return parameter.value_at(number)
    if parameter.kind == "int":
        return int(number)
    # As many digits as a person would write: the recipe of the winner has the value that was trained.
    rounded = float(f"{number:.{_DIGITS}g}")
    return rounded if parameter.allows(rounded) else float(number)


def _encode_value(parameter: SearchParameter, value: Any) -> Any:
    """Convert a value of the recipe to that of KerasTuner."""
    if parameter.values:
        return next(number for number, choice in enumerate(parameter.values) if are_same(choice, value))
    if parameter.step is not None:
        return next(step for step in range(parameter.last_step() + 1) if parameter.value_at(step) == value)
    return value


def _sort_parents_first(space: Mapping[str, SearchParameter]) -> list[str]:
    """Sort paths so that each comes after those it depends on, otherwise in the order of the recipe."""
    return sorted(space, key=lambda path: len(collect_conditions(path, space)))


def _iterate_conditions(path: str, space: Mapping[str, SearchParameter]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield all conditions of a parameter, with those of its parents, parents first."""
    conditions = collect_conditions(path, space)
    yield from ((other, conditions[other]) for other in space if other in conditions)


@contextmanager
def _hide_warnings() -> Iterator[None]:
    """Hide warnings in the body.

    KerasTuner warns of its own deprecated calls, and scikit-learn of a Gaussian process with few points.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
