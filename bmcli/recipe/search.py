"""Section `tune`: search space, objectives and algorithm of a hyperparameter search."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.fields import ChoiceField, Duration, FieldType, Kind, Options, dump, fault, fault_at, relocate_errors
from bmcli.recipe.nodes import KeyPath, escape_dollars, format_value, write_scalar
from bmcli.recipe.paths import join_steps, split_path

MODEL_COSTS = ("parameters", "size", "latency")
"""Objectives other than metrics: number of weights, their size in bytes, seconds to predict one example."""

_KINDS = ("choice", "int", "float", "log", "bool")
_FORMS = "Write {choice: [A, B]}, {int: [LOW, HIGH]}, {float: [LOW, HIGH]}, {log: [LOW, HIGH]} or bool."

_CHANGES_EVALUATION = "it changes the evaluation, so candidates could not be compared"
_CHANGES_NO_TRAINING = "it does not change the trained network"
_NOT_SEARCHED: Mapping[KeyPath, str] = {
    **dict.fromkeys(
        [
            *(("seed",), ("evaluate",)),
            *(("data", name) for name in ("seed", "split", "source", "targets", "invalid")),
        ],
        _CHANGES_EVALUATION,
    ),
    **dict.fromkeys(
        [
            *((name,) for name in ("bmcli", "name", "extends", "runtime", "tune", "export")),
            *(("train", name) for name in ("metrics", "checkpoint", "tensorboard")),
        ],
        _CHANGES_NO_TRAINING,
    ),
}


@dataclass(frozen=True)
class SearchParameter:
    """One value of the recipe that a search chooses.

    Args:
        values: Values of a choice, as plain YAML values; false and true for a bool.
        low, high: Ends of a range of numbers, both included.
        step: Distance of the values of a range, from `low` on; a factor on a log scale. None allows every value.
        scale: Scale on which the values of a range are evenly spread.
        when: Conditions: values of other parameters, by path, with which this parameter is searched; all must hold.
    """

    kind: Literal["choice", "int", "float", "bool"]
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    scale: Literal["linear", "log"] = "linear"
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def values_to_try(self) -> tuple[Any, ...]:
        """Values with which a recipe is checked: each choice, or the ends and the middle of a range."""
        if self.low is None or self.high is None:
            return self.values
        if self.step is None:
            middle = _compute_middle(self.low, self.high, self.scale == "log")
            return tuple(dict.fromkeys((self.low, self.high, round(middle) if self.kind == "int" else middle)))
        last = self.last_step()
        return tuple(dict.fromkeys((self.value_at(0), self.value_at(last), self.value_at(last // 2))))

    def allows(self, value: Any) -> bool:
        """Whether a search can choose this value."""
        if self.low is None or self.high is None:
            return any(are_same(value, each) for each in self.values)
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "int" else (int, float)):
            return False
        if not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        if self.scale == "log":
            return any(self.value_at(number) == value for number in range(self.last_step() + 1))
        # Fractions, because 0.3 % 0.1 is 0.09999999999999998.
        return (_to_fraction(value) - _to_fraction(self.low)) % _to_fraction(self.step) == 0

    def is_active(self, values: Mapping[str, Any]) -> bool:
        """Whether its conditions hold for these values of the other parameters."""
        return all(
            path in values and any(are_same(values[path], each) for each in some) for path, some in self.when.items()
        )

    def to_entry(self) -> dict[str, Any]:
        """The entry of a recipe that defines it."""
        when = {path: dump(some[0] if len(some) == 1 else some) for path, some in self.when.items()}
        conditions = {"when": when} if when else {}
        if self.kind == "bool":
            return {"bool": True, **conditions}
        if self.kind == "choice":
            return {"choice": dump(self.values), **conditions}
        form = "log" if self.kind == "float" and self.scale == "log" else self.kind
        scale = {"scale": "log"} if self.kind == "int" and self.scale == "log" else {}
        step = {} if self.step is None else {"step": self.step}
        return {form: [self.low, self.high], **scale, **step, **conditions}

    def last_step(self) -> int:
        """Number of steps from the low end to the largest value within the range."""
        low, high, step = _to_fraction(self.low), _to_fraction(self.high), _to_fraction(self.step)
        if self.scale == "linear":
            return int((high - low) // step)
        count = 0
        while low * step ** (count + 1) <= high:
            count += 1
        return count

    def value_at(self, number: int) -> float:
        """The value a number of steps above the low end."""
        # Fractions, because adding floats gives 0.30000000000000004 for 0.3.
        low, step = _to_fraction(self.low), _to_fraction(self.step)
        value = low * step**number if self.scale == "log" else low + number * step
        return int(value) if self.kind == "int" else float(value)


def _to_fraction(number: float | None) -> Fraction:
    """Convert a float to the decimal number that it is written as."""
    assert number is not None, "only ranges with a step come here"
    return Fraction(repr(number))


def _compute_middle(low: float, high: float, by_factors: bool) -> float:
    middle = math.exp((math.log(low) + math.log(high)) / 2) if by_factors else low / 2 + high / 2
    return min(max(float(f"{middle:.12g}"), low), high)  # 10 instead of 10.000000000000002


def are_same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same in YAML; in Python, True == 1 == 1.0."""
    return write_scalar(one) == write_scalar(other)


def read_space(entries: Mapping[str, Any]) -> tuple[dict[str, SearchParameter], list[InitErrorDetails]]:
    """Parse the entries of a space; returns the valid parameters by path, and the errors of the other entries."""
    space: dict[str, SearchParameter] = {}
    problems: list[InitErrorDetails] = []
    for path, entry in entries.items():
        try:
            _check_path(path, entries)
            space[path] = _read_parameter(entry)
        except (PydanticCustomError, ValidationError) as error:
            problems += relocate_errors((path,), error, entry)
    for path in list(space):
        try:
            space[path] = replace(space[path], when=_read_conditions(path, space, entries))
        except (PydanticCustomError, ValidationError) as error:
            problems += relocate_errors((path,), error, entries[path])
            del space[path]
    parsed = dict(space)
    for path in parsed:
        try:
            _check_conditions(path, parsed)
        except ValidationError as error:
            problems += relocate_errors((path,), error, entries[path])
            del space[path]
    return _drop_dangling(space), problems


def _drop_dangling(space: Mapping[str, SearchParameter]) -> dict[str, SearchParameter]:
    """Drop parameters that depend on missing ones."""
    kept = {path: each for path, each in space.items() if all(other in space for other in each.when)}
    return kept if len(kept) == len(space) else _drop_dangling(kept)  # others may have depended on the dropped ones


def _check_path(path: str, entries: Iterable[str]) -> None:
    """Raise an error for a path that is not valid, or whose value cannot be searched."""
    steps = split_path(path)
    if join_steps(steps) != path:
        hint = (
            f"Write {join_steps(steps)}."
            if "" not in steps
            else "Write it with dots, like train.optimizer.learning_rate."
        )
        raise fault("unknown_key", "expected the path of a value.", hint)
    for fixed, reason in _NOT_SEARCHED.items():
        if steps[: len(fixed)] == fixed:
            hint = "`confirm` trains the best candidates again with other seeds." if path == "seed" else ""
            raise fault("unknown_key", f"this cannot be searched: {reason}.", hint or "Leave it out.")
    for other in entries:
        above = split_path(other)
        if len(above) < len(steps) and steps[: len(above)] == above:
            hint = f"Search {other}.kind instead of {other}."
            raise fault("unknown_key", f"this is a part of {other}, which is searched too.", hint)


def _read_parameter(entry: Any) -> SearchParameter:
    """Parse an entry without its `when`."""
    if entry == "bool":
        return SearchParameter("bool", (False, True))
    if not isinstance(entry, Mapping):
        raise fault("entry", f"expected values to choose from, received {format_value(entry)}.", _FORMS)
    for key in entry:
        if key not in (*_KINDS, "step", "scale", "when"):
            hint = parts.did_you_mean(key, [*_KINDS, "step", "scale", "when"])
            raise _make_key_fault(key, "no such key.", hint)
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        message = f"`{kinds[0]}` and `{kinds[1]}` both set its values." if kinds else "its values are missing."
        raise fault_at(tuple(kinds[1:2]), message, "Leave one of them out." if kinds else _FORMS)
    kind = kinds[0]
    for key in ("step", "scale"):
        if key in entry and (kind in ("choice", "bool") or (kind == "log" and key == "scale")):
            raise _make_key_fault(key, f"`{key}` does nothing with `{kind}`.", "Leave it out.")
    if kind == "choice":
        return SearchParameter("choice", _read_choices(entry["choice"]))
    if kind == "bool":
        if entry["bool"] is not True:
            raise fault_at(
                ("bool",), f"expected true, received {format_value(entry['bool'])}.", "It searches true and false."
            )
        return SearchParameter("bool", (False, True))
    return _read_range(kind, entry)


def _make_key_fault(key: str, message: str, suggestion: str) -> ValidationError:
    """Make an error that is shown at a key instead of its value."""
    detail = InitErrorDetails(type=fault("unknown_key", message, suggestion), loc=(key,), input=None)
    return ValidationError.from_exception_data("entry", [detail])


def _read_choices(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)):
        raise fault_at(("choice",), f"expected a list of values, received {format_value(values)}.")
    if not values:
        raise fault_at(("choice",), "expected at least one value, received [].")
    texts = [write_scalar(value) for value in values]
    for position, text in enumerate(texts):
        if text in texts[:position]:
            raise fault_at(("choice", position), f"{format_value(values[position])} is there twice.", "List it once.")
    return tuple(dump(value) for value in values)


def _read_range(kind: str, entry: Mapping[str, Any]) -> SearchParameter:
    ends, whole = entry[kind], kind == "int"
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        raise fault_at((kind,), f"expected [LOW, HIGH], received {format_value(ends)}.")
    for position, end in enumerate(ends):
        _check_number(end, whole, (kind, position))
    low, high = ends if whole else map(float, ends)
    scale: Any = "log" if kind == "log" else entry.get("scale", "linear")
    if scale not in ("linear", "log"):
        hint = parts.did_you_mean(str(scale), ["linear", "log"])
        raise fault_at(("scale",), f"expected linear or log, received {format_value(scale)}.", hint)
    if low >= high:
        raise fault_at(
            (kind,), f"the low end {format_value(ends[0])} is not below the high end {format_value(ends[1])}."
        )
    if scale == "log" and low <= 0:
        raise fault_at((kind, 0), f"a logarithmic range must begin above 0, received {format_value(ends[0])}.")
    step = _read_step(entry["step"], low, high, whole, scale == "log") if "step" in entry else None
    return SearchParameter("int" if whole else "float", low=low, high=high, step=step, scale=scale)


def _read_step(step: Any, low: float, high: float, whole: bool, by_factors: bool) -> float:
    """Check the step of a range against its ends."""
    if by_factors and not whole:
        hint = "Write {choice: [1e-4, 1e-3, 1e-2]} for these values only."
        raise _make_key_fault("step", "a logarithmic range of floats has no steps.", hint)
    _check_number(step, whole, ("step",))
    if by_factors:
        if step < 2:
            raise fault_at(("step",), f"expected a factor of at least 2 on a logarithmic scale, received {step}.")
        if low * step > high:
            raise fault_at(("step",), f"{low} times {step} is above the high end {high}.")
    elif step <= 0:
        raise fault_at(("step",), f"expected a step above 0, received {format_value(step)}.")
    elif _to_fraction(step) > _to_fraction(high) - _to_fraction(low):
        raise fault_at(("step",), f"a step of {format_value(step)} is larger than the range.")
    return step if whole else float(step)


def _check_number(value: Any, whole: bool, loc: tuple[str | int, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise fault_at(loc, f"expected a {'whole ' if whole else ''}number, received {format_value(value)}.")


def _read_conditions(
    path: str, space: Mapping[str, SearchParameter], entries: Mapping[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """Parse the `when` of an entry: the required values of each parameter that it names."""
    entry = entries[path]
    when = entry.get("when", {}) if isinstance(entry, Mapping) else {}
    if not isinstance(when, Mapping):
        hint = "Write when: {model.kind: cnn}."
        raise fault_at(("when",), f"expected values of other entries, received {format_value(when)}.", hint)
    conditions = {}
    for other, required in when.items():
        if other not in entries or other == path:
            hint = parts.did_you_mean(other, [each for each in entries if each != path])
            object_name = "itself" if other == path else f"{quoted(other)}, which is no entry of the space"
            raise fault_at(("when", other), f"this depends on {object_name}.", hint)
        # The possible values of an entry with an error are unknown: the condition is not checked.
        conditions[other] = _read_condition_values(required, space[other], other) if other in space else ()
    return conditions


def _read_condition_values(required: Any, parameter: SearchParameter, path: str) -> tuple[Any, ...]:
    """Parse one or several required values of a parameter; a list is one value if the parameter can be that list."""
    if parameter.allows(required):
        return (dump(required),)
    values = required if isinstance(required, (list, tuple)) else (required,)
    for value in values:
        if not parameter.allows(value):
            known = ", ".join(write_scalar(each) for each in parameter.values) or "a value of its range"
            raise fault_at(("when", path), f"{path} can never be {format_value(value)}.", f"It can be: {known}.")
    if not values:
        raise fault_at(("when", path), "expected a value or a list of values, received [].")
    return tuple(dump(value) for value in values)


def _check_conditions(path: str, space: Mapping[str, SearchParameter]) -> None:
    """Raise an error for an entry that depends on itself, or on conditions that contradict each other."""
    pending, seen = list(space[path].when), set()
    while pending:
        other = pending.pop()
        if other == path:
            raise fault_at(("when",), "this depends on itself in a circle.", "Leave one of the conditions out.")
        if other in space and other not in seen:
            seen.add(other)
            pending += space[other].when
    for other, values in collect_conditions(path, space).items():
        if not values and other in space:
            raise fault_at(("when",), f"no value of {other} meets all conditions of this entry.")


def collect_conditions(path: str, space: Mapping[str, SearchParameter]) -> dict[str, tuple[Any, ...]]:
    """Collect the values of other parameters that a parameter requires, directly or through others."""
    conditions: dict[str, tuple[Any, ...]] = {}
    pending, seen = [path], set()
    while pending:
        current = pending.pop()
        seen.add(current)
        for other, values in space[current].when.items():
            known = conditions.get(other, values)
            conditions[other] = tuple(value for value in values if any(are_same(value, each) for each in known))
            if other in space and other not in seen:
                pending.append(other)
    return conditions


@dataclass(frozen=True)
class SearchSpaceField(FieldType):
    """Search space: paths of the recipe with their possible values."""

    def check(self, value: Any) -> Mapping[str, SearchParameter]:
        if not isinstance(value, Mapping):
            hint = "Write {train.optimizer.learning_rate: {log: [1e-4, 1e-2]}}."
            raise fault("space", f"expected paths with the values to search, received {format_value(value)}.", hint)
        if not value:
            raise fault("space", "expected at least one entry, received {}.", "Add a value to search.")
        if all(isinstance(each, SearchParameter) for each in value.values()):
            return value
        space, problems = read_space(value)
        if problems:
            raise ValidationError.from_exception_data("space", problems)
        return space

    def dump(self, value: Any) -> Any:
        return {path: parameter.to_entry() for path, parameter in value.items()}

    def json_schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [{"enum": ["bool"]}, *map(_make_entry_schema, _KINDS)]},
        }


def _make_entry_schema(kind: str) -> dict[str, Any]:
    """Make the JSON schema of an entry of one kind."""
    number = {"type": "integer" if kind == "int" else "number"}
    ends = {"type": "array", "items": number, "prefixItems": [number, number], "minItems": 2, "maxItems": 2}
    described: Mapping[str, tuple[dict[str, Any], str]] = {
        "choice": ({"type": "array", "items": {}, "minItems": 1}, "List of values."),
        "int": (ends, "Lowest and highest integer."),
        "float": (ends, "Lowest and highest number."),
        "log": (ends, "Lowest and highest number, sampled on a logarithmic scale."),
        "bool": ({"const": True}, "False and true."),
    }
    schema, meaning = described[kind]
    properties: dict[str, Any] = {kind: {**schema, "description": meaning}}
    if kind in ("int", "float"):
        step = "Step between values, from the lowest on; a factor on a logarithmic scale."
        scale = "Scale of sampling: linear or logarithmic."
        properties["step"] = {**number, "exclusiveMinimum": 0, "description": step}
        properties["scale"] = {"enum": ["linear", "log"], "default": "linear", "description": scale}
    when = "Conditions: other entries with the value, or list of values, for which this one is searched."
    properties["when"] = {"type": "object", "additionalProperties": {}, "description": when}
    return {"type": "object", "properties": properties, "required": [kind], "additionalProperties": False}


class RandomSearch(Kind):
    """Random search (Bergstra and Bengio 2012)."""

    kind: Literal["random"] = Field(default="random", description="Random candidates.")


class BayesianSearch(Kind):
    """Bayesian optimisation with a Gaussian process (Snoek, Larochelle and Adams 2012)."""

    kind: Literal["bayesian"] = Field(default="bayesian", description="Candidates by a model of the trials so far.")
    initial: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Number of random trials before the model is used; by default three per entry of the space.",
    )
    beta: Annotated[float, Field(ge=0)] = Field(
        default=2.6, description="Exploration: larger values prefer uncertain regions over known good ones."
    )


class HyperbandSearch(Kind):
    """Hyperband: many short trials, of which the best continue, each time longer by a `factor` (Li et al. 2018)."""

    kind: Literal["hyperband"] = Field(default="hyperband", description="Short trials, of which the best continue.")
    factor: Annotated[int, Field(ge=2)] = Field(
        default=3, description="One in `factor` trials continues, with `factor` times the epochs, up to train.epochs."
    )
    iterations: Annotated[int, Field(ge=1)] = Field(default=1, description="Number of passes over all brackets.")


class GridSearch(Kind):
    """Grid search: every combination in order."""

    kind: Literal["grid"] = Field(default="grid", description="Every combination, in order.")


_ALGORITHMS = ChoiceField((RandomSearch, BayesianSearch, GridSearch, HyperbandSearch))


@dataclass(frozen=True)
class SearchObjectivesField(FieldType):
    """A metric of validation rows, or several objectives of which such a metric is the first."""

    def check(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            return (_check_objective(value, ()),)
        if not isinstance(value, (list, tuple)):
            hint = "Write validation/accuracy, or [validation/accuracy, parameters]."
            raise fault(
                "objective", f"expected a metric, or a list of objectives, received {format_value(value)}.", hint
            )
        if not value:
            raise fault("objective", "expected at least one objective, received [].")
        for position, name in enumerate(value):
            _check_objective(name, (position,))
            if name in value[:position]:
                raise fault_at((position,), f"{quoted(name)} is there twice.", "List it once.")
        if value[0] in MODEL_COSTS:
            raise fault_at((0,), f"{value[0]} cannot be the first objective.", "Put a validation metric before it.")
        return tuple(value)

    def dump(self, value: Any) -> Any:
        return value[0] if len(value) == 1 else list(value)

    def json_schema(self) -> dict[str, Any]:
        metric = {"type": "string", "pattern": "^(auto|validation/.+)$"}
        each = {"type": "string", "pattern": f"^(auto|validation/.+|{'|'.join(MODEL_COSTS)})$"}
        several = {"type": "array", "prefixItems": [metric], "items": each, "minItems": 1}
        return {"anyOf": [metric, several]}


def _check_objective(name: Any, loc: tuple[int, ...]) -> str:
    """Check the name of an objective: a metric, or in a list also a cost.

    Args:
        loc: Position in the list; empty for a single objective.
    """
    known = ["auto", *MODEL_COSTS] if loc else ["auto"]
    if isinstance(name, str) and (name in known or (name.startswith("validation/") and name != "validation/")):
        return name
    expected = f"a metric like validation/accuracy{' or ' + ', '.join(MODEL_COSTS) if loc else ''}"
    hint = "Write a list with a metric: [validation/loss, ...]." if name in MODEL_COSTS else ""
    if isinstance(name, str) and not hint:
        split, _, metric = name.rpartition("/")
        near = parts.nearest(name, known)
        hint = f"Did you mean '{near or f'validation/{metric}'}'?" if near or metric else ""
        hint = "The test rows are for the final evaluation." if split == "test" else hint
    raise fault_at(loc, f"expected {expected}, received {format_value(name)}.", hint)


class SearchStopOptions(Options):
    """Conditions that end a search before its last trial."""

    time: Duration | None = Field(default=None, description="Maximum time of the whole search, such as 2h.")
    trial_time: Duration | None = Field(
        default=None, description="Maximum time of one trial, such as 10m; longer trials count as failed."
    )
    failures: Annotated[int, Field(ge=1)] = Field(
        default=5,
        description="Number of consecutive failed trials that end the search; trials that diverge are not failed.",
    )


class ConfirmOptions(Options):
    """Retrain the best trials with other seeds, to rule out luck."""

    top: Annotated[int, Field(ge=1)] = Field(default=3, description="Number of best trials to retrain.")
    seeds: Annotated[int, Field(ge=1)] = Field(default=3, description="Number of seeds for each of them.")


@dataclass(frozen=True)
class ConfirmField(FieldType):
    """Confirmation of the best trials; None, written `none`, if there is none."""

    def check(self, value: Any) -> ConfirmOptions | None:
        if value is None or value == "none":
            return None
        return ConfirmOptions.model_validate(value)

    def dump(self, value: Any) -> Any:
        return "none" if value is None else dump(value)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [ConfirmOptions.model_json_schema(), {"enum": ["none"]}, {"type": "null"}]}


class TuneOptions(Options):
    """Hyperparameter search by `bmcli tune`."""

    algorithm: Annotated[Kind, _ALGORITHMS] = Field(
        default=RandomSearch(), description="Search algorithm: random, bayesian, hyperband or grid."
    )
    objective: Annotated[tuple[str, ...], SearchObjectivesField()] = Field(
        default=("auto",),
        description="Metric of validation rows that candidates are compared by, such as validation/accuracy. "
        "`auto`: train.select.metric if it is one, or validation/loss. Several (metrics, parameters, size in bytes, "
        "latency in seconds) form a Pareto front; the first leads the search.",
    )
    trials: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Maximum number of trials, of which the first trains the recipe as it is written; by default 20, "
        "and with hyperband all of its brackets.",
    )
    workers: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Number of trials to train in parallel; they share the cores or GPUs."
    )
    space: Annotated[Mapping[str, SearchParameter], SearchSpaceField()] = Field(
        description="Search space by dotted keys of this recipe: {train.optimizer.learning_rate: {log: [1e-4, "
        "1e-2]}, model.filters: {choice: [[16, 32], [32, 64]], when: {model.kind: cnn}}}."
    )
    pruning: Literal["auto", "median", "none"] = Field(
        default="auto",
        description="`median` stops a trial whose best value so far is worse than the median of the others at that "
        "epoch. `auto`: median, but none for hyperband, which stops trials itself.",
    )
    stop: SearchStopOptions = Field(
        default=SearchStopOptions(), description="Conditions that end the search before its last trial."
    )
    confirm: Annotated[ConfirmOptions | None, ConfirmField()] = Field(
        default=ConfirmOptions(),
        description="Retrain the best few trials with other seeds; the best on average wins. `none`: the best trial "
        "of the search wins, and is retrained with its own seed.",
    )

    @property
    def max_trials(self) -> int | None:
        """Maximum number of trials; None if the algorithm ends by itself."""
        return self.trials or (None if self.algorithm.kind == "hyperband" else 20)

    @property
    def uses_median_pruning(self) -> bool:
        """Whether the median rule stops trials."""
        return self.pruning == "median" or (self.pruning == "auto" and self.algorithm.kind != "hyperband")

    # A check of several fields is a validator of the last of them: `info.data` has the valid fields above it.

    @field_validator("space")
    @classmethod
    def _epochs_are_left_to_hyperband(
        cls, value: Mapping[str, SearchParameter], info: Any
    ) -> Mapping[str, SearchParameter]:
        algorithm = info.data.get("algorithm")
        if "train.epochs" in value and algorithm is not None and algorithm.kind == "hyperband":
            raise _make_key_fault(
                "train.epochs", "hyperband sets the epochs of each trial.",
                "Leave it out: train.epochs is the maximum of every trial.",
            )  # fmt: skip
        return value

    @field_validator("pruning")
    @classmethod
    def _hyperband_prunes_itself(cls, value: str, info: Any) -> str:
        algorithm = info.data.get("algorithm")
        if value == "median" and algorithm is not None and algorithm.kind == "hyperband":
            raise fault("pruning", "hyperband stops trials itself.", "Leave `pruning` out.")
        return value


def format_overrides(values: Mapping[str, Any]) -> list[str]:
    """Format a candidate as `key=value` arguments, from which `load` gets the same values; null deletes.

    Args:
        values: Plain YAML values by dotted path.
    """
    # Through JSON, because NumPy's float64 is a float, but its `repr` is `np.float64(0.1)`.
    plain = json.loads(json.dumps(dict(values)))
    return [f"{path}={write_scalar(escape_dollars(value))}" for path, value in plain.items()]
