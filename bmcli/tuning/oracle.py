"""Candidates: KerasTuner's oracles, asked and told without a tuner."""

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


@dataclass(frozen=True)
class Suggestion:
    """What an oracle wants to be tried.

    Args:
        values: By path; those that play no part beside the others are left out.
        until: Epochs to be trained in all, or None for all of the recipe's.
        continues: Number of the candidate, counted from 0, whose training goes on, or None.
    """

    values: CandidateValues
    until: int | None = None
    continues: int | None = None


OracleAnswer = Suggestion | Literal["wait", "over"]
"""A candidate; or `wait`, as it depends on what is not told yet; or `over`, as nothing is left to try."""


class Oracle:
    """One of KerasTuner's oracles over a space of recipe values.

    What it answers is a function of its arguments and of the calls before, so that a search that was killed is taken up
    by asking and telling the same again. Scores are better the lower they are. Candidates are numbered from 0 in the
    order in which they were asked for.

    Args:
        epochs: The most that a candidate is trained.
    """

    def __init__(self, algorithm: Kind, space: Mapping[str, SearchParameter], seed: int, epochs: int) -> None:
        self._space = {path: space[path] for path in _sort_parents_first(space)}
        self._is_hyperband = algorithm.kind == "hyperband"
        with ExitStack() as stack:
            self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bmcli-oracle-"))
            self._oracle = _build_oracle(algorithm, self._space, seed, epochs)
            # It writes its state after every call; what it would read from there the journal of the search tells.
            self._oracle._set_project_dir(self._folder, "oracle")
            self._oracle.verbose = 0
            self._files = stack.pop_all()
        self._numbers: dict[str, int] = {}

    def close(self) -> None:
        """Removes what KerasTuner wrote."""
        self._files.close()

    def ask(self) -> OracleAnswer:
        """The next candidate."""
        with _hide_warnings():
            trial = self._oracle.create_trial(f"tuner-{len(self._numbers)}")
        if trial.status == "STOPPED":
            return "over"
        if trial.status != "RUNNING":
            return "wait"
        self._numbers[trial.trial_id] = len(self._numbers)
        found = trial.hyperparameters.values
        values = {path: _decode_value(each, found[path]) for path, each in self._space.items() if path in found}
        if not self._is_hyperband:
            return Suggestion(values)
        before = found.get("tuner/trial_id")
        return Suggestion(values, found["tuner/epochs"], None if before is None else self._numbers[before])

    def tell(self, number: int, score: float | None) -> None:
        """The score of a candidate, or None if it failed."""
        trial_id = next(trial_id for trial_id, other in self._numbers.items() if other == number)
        finite = score is not None and math.isfinite(score)
        with _hide_warnings():
            trial = self._oracle.get_trial(trial_id)
            # Hyperband waits for as many scores as it gave out candidates: one that failed is the worst of its round.
            # The others leave out what failed, because a Gaussian process would take any number for a measurement.
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
        "seed": seed % 2**31 + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": 2**62,  # that limit is the search's
    }
    if algorithm.kind == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(
            max_epochs=epochs, factor=algorithm.factor, hyperband_iterations=algorithm.iterations, **common
        )
    if algorithm.kind == "bayesian":
        from bmcli.tuning.bayesian import BayesianOracle

        return BayesianOracle(max_trials=None, num_initial_points=algorithm.initial, beta=algorithm.beta, **common)
    oracles = {"random": keras_tuner.oracles.RandomSearchOracle, "grid": keras_tuner.oracles.GridSearchOracle}
    return oracles[algorithm.kind](max_trials=None, **common)


def _build_hyperparameters(space: Mapping[str, SearchParameter]) -> Any:
    """The space in KerasTuner's terms, each parameter below those that it depends on."""
    import keras_tuner

    found = keras_tuner.HyperParameters()
    for path, parameter in space.items():
        with ExitStack() as scopes:
            for other, values in _iterate_conditions(path, space):
                scopes.enter_context(
                    found.conditional_scope(other, [_encode_value(space[other], each) for each in values])
                )
            _add_parameter(found, path, parameter)
    return found


def _add_parameter(found: Any, path: str, parameter: SearchParameter) -> None:
    if parameter.values:
        ordered = all(type(value) in (int, float) for value in parameter.values)
        found.Choice(path, list(range(len(parameter.values))), ordered=ordered)
    elif parameter.step is not None:
        found.Int(path, 0, parameter.last_step())
    else:
        kind = found.Int if parameter.kind == "int" else found.Float
        kind(path, parameter.low, parameter.high, sampling=parameter.scale)


def _decode_value(parameter: SearchParameter, number: Any) -> Any:
    """The value of the recipe for what stands for it in KerasTuner: choices and steps are counted from 0."""
    if parameter.values:
        return parameter.values[number]
    if parameter.step is not None:
        return parameter.value_at(number)
    return int(number) if parameter.kind == "int" else float(number)


def _encode_value(parameter: SearchParameter, value: Any) -> Any:
    if parameter.values:
        return next(number for number, each in enumerate(parameter.values) if are_same(each, value))
    if parameter.step is not None:
        return next(n for n in range(parameter.last_step() + 1) if parameter.value_at(n) == value)
    return value


def _sort_parents_first(space: Mapping[str, SearchParameter]) -> list[str]:
    """Paths in the order of the recipe, but that each comes after those that it depends on."""
    return sorted(space, key=lambda path: len(collect_conditions(path, space)))


def _iterate_conditions(path: str, space: Mapping[str, SearchParameter]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every condition of a parameter, those of the parameters it depends on included."""
    asked = collect_conditions(path, space)
    yield from ((other, asked[other]) for other in space if other in asked)


@contextmanager
def _hide_warnings() -> Iterator[None]:
    """Hides KerasTuner's warnings about its own use of Python, and of scikit-learn about a young Gaussian process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
