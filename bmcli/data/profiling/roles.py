"""Roles of columns, guessed from their profiles: input, target, split, or dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bmcli import parts
from bmcli.canonical import canonicalize, choose_spelling
from bmcli.data import targets
from bmcli.data.columns import MANY_DISTINCT
from bmcli.data.profiling import groups
from bmcli.data.profiling.column_profile import ColumnProfile
from bmcli.data.targets import TargetGuess
from bmcli.errors import BmcliError
from bmcli.inputs import Guess
from bmcli.quoting import MAX_SHOWN, brief, quoted
from bmcli.raw_columns import RawColumn, to_numbers, to_texts

if TYPE_CHECKING:
    import numpy as np

TARGET_NAMES = ("target", "label", "labels", "class", "y", "outcome", "response")
# Words of names of targets, and of columns that describe a row and are rarely predicted.
_TARGET_WORDS = (
    *TARGET_NAMES,
    "approved", "category", "churn", "churned", "classes", "converted", "default", "defaulted", "diagnosis",
    "exited", "fraud", "grade", "income", "kind", "outcomes", "price", "quality", "rating", "result", "revenue",
    "salary", "sales", "score", "sentiment", "species", "status", "success", "survived", "type", "value",
    "yield",
)  # fmt: skip
_ATTRIBUTE_WORDS = (
    "age", "city", "code", "country", "date", "day", "email", "gender", "hour", "id", "index", "lat",
    "latitude", "lng", "lon", "long", "longitude", "minute", "month", "name", "number", "phone", "region",
    "row", "sex", "state", "street", "time", "week", "weekday", "year", "zip", "zipcode",
)  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_IDENTIFIERS = ("id", "rownames", "rowname", "row", "index", "uuid", "guid", "key", "no", "number", "unnamed: 0")
_MAX_NAMED, _MAX_CANDIDATES = 5, 6  # columns in a message
_LEAK_CERTAINTY, _MIN_ROWS_OF_LEAK = 0.999, 5  # accuracy of the classes; rows of each value
_DOMINANT_SHARE = 0.95  # share of one class, from which on high certainty is no sign of a leak


@dataclass(frozen=True)
class ColumnRole:
    """The role of a column, with the reason.

    Args:
        role: `group` for the column whose rows of one value belong together, `time` for that of their times.
        kind: Kind of an input or target; empty for other roles.
        why: Reason for the role, for the user.
        options: Options of the kind that differ from the defaults.
        guess: Of an input, the guess that it follows.
        doubt: Of a target, what else its cells may be, and what to write then; empty if it is clear.
    """

    profile: ColumnProfile
    role: Literal["input", "target", "split", "group", "time", "dropped"]
    kind: str = ""
    why: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    guess: Guess | None = None
    doubt: str = ""

    @property
    def name(self) -> str:
        return self.profile.name


def assign_roles(
    profiles: Sequence[ColumnProfile], target: str | None, columns: Mapping[str, RawColumn]
) -> tuple[ColumnRole, ...]:
    """Assign a role to every column, in their order.

    Args:
        columns: Cells of all columns, by name.
        target: Name of the target; None to guess it.

    Raises:
        BmcliError: The target is unclear, or no column is left as an input.
    """
    split = next((profile for profile in profiles if profile.splits and profile.name != target), None)
    rest = [profile for profile in profiles if profile is not split]
    chosen, why = pick_target(rest, target)
    target_guess = _guess_target(chosen, columns)
    roles = {chosen.name: _make_target_role(chosen, target_guess, why)}
    if split is not None:
        roles[split.name] = ColumnRole(split, "split", why="its cells are names of splits")
    others = [profile for profile in rest if profile is not chosen]
    roles |= {profile.name: _make_input_role(profile) for profile in others}
    roles |= {each.name: _follow_guess(each, guess) for each in others if (guess := target_guess.inputs.get(each.name))}
    if not any(role.role == "input" for role in roles.values()):
        roles |= _keep_word_columns(others)
    roles |= _separate_groups(roles)
    return tuple(roles[profile.name] for profile in profiles)


def drop_leaks(assigned: Sequence[ColumnRole], columns: Mapping[str, RawColumn]) -> tuple[ColumnRole, ...]:
    """Drop inputs that are copies of the target, and those of few categories that determine its class.

    Such a column was mostly recorded after the target was known. No column is dropped if none would be left.
    """
    target = next(role for role in assigned if role.role == "target")
    has_classes = _has_one_class(target) and target.profile.top_share <= _DOMINANT_SHARE
    leaks = {
        role.name: why
        for role in assigned
        if role.role == "input"
        and (why := _find_leak(role, target, columns) if has_classes else _find_copy(role, target, columns))
    }
    if all(role.name in leaks or role.role != "input" for role in assigned):
        return tuple(assigned)
    return tuple(
        _make_dropped_role(role.profile, leaks[role.name]) if role.name in leaks else role for role in assigned
    )


def _find_leak(role: ColumnRole, target: ColumnRole, columns: Mapping[str, RawColumn]) -> str:
    """Return the reason for which an input leaks the class of a target; empty if it does not."""
    profile = role.profile
    is_category = role.guess is not None and role.guess.is_categorical
    # Numbers determine classes by thresholds, too: only those with one number for each class are copies of them.
    is_coded = profile.is_number and not profile.is_array and profile.distinct == target.profile.distinct
    if profile.rows_per_value < _MIN_ROWS_OF_LEAK or not (is_category or is_coded):
        return ""
    if _compute_certainty(columns[role.name], columns[target.name]) <= _LEAK_CERTAINTY:
        return ""
    return f"possible target leakage: each value occurs with one class of {target.name} only; is it known before?"


def _find_copy(role: ColumnRole, target: ColumnRole, columns: Mapping[str, RawColumn]) -> str:
    """Return the reason for which an input is a copy of a target of numbers; empty if it is not."""
    import numpy as np

    ours, theirs = role.profile, target.profile
    facts = [(each.is_number, each.shape, each.distinct, each.minimum, each.maximum) for each in (ours, theirs)]
    if not ours.is_number or facts[0] != facts[1]:
        return ""
    mine, others = (_read_numbers(each.profile, columns[each.name]) for each in (role, target))
    return f"a copy of {target.name}" if np.array_equal(mine, others, equal_nan=True) else ""


def _read_numbers(profile: ColumnProfile, column: RawColumn) -> np.ndarray:
    written = profile.written
    return to_numbers(column) if written is None else to_numbers(column, written.notation, tuple(written.foreign))


def _has_one_class(target: ColumnRole) -> bool:
    one_class: bool = parts.load("data.targets", target.kind).ONE_CLASS
    return one_class


def _compute_certainty(column: RawColumn, target: RawColumn) -> float:
    """Compute the accuracy of predicting the most frequent class of each category."""
    import pyarrow as pa

    texts = (to_texts(each, fractions=True) for each in (column, target))
    cells, classes = (canonicalize(each, choose_spelling(each, normalize=True)) for each in texts)
    pairs = pa.table({"cell": cells, "class": classes}).group_by(["cell", "class"])
    counts = pairs.aggregate([([], "count_all")]).group_by("cell").aggregate([("count_all", "max")])
    correct: int = counts["count_all_max"].to_numpy().sum()
    return correct / len(column)


def pick_target(profiles: Sequence[ColumnProfile], requested: str | None) -> tuple[ColumnProfile, str]:
    """Pick the column to predict; also return the reason.

    Raises:
        BmcliError: There is no column of the requested name, or several columns could be the target.
    """
    if requested is not None:
        named = next((profile for profile in profiles if profile.name == requested), None)
        if named is None:
            names = [profile.name for profile in profiles]
            raise BmcliError(f"no column {quoted(requested)}.", suggestion=parts.did_you_mean(requested, names))
        return named, "by --target"
    candidates = [profile for profile in profiles if _may_be_target(profile)]
    names = [profile.name.lower() for profile in profiles]
    known = [name for name in TARGET_NAMES if name != "y" or "z" not in names]  # x, y and z are coordinates.
    by_name = [profile for profile in candidates if profile.name.lower() in known]
    if len(by_name) == 1:
        return by_name[0], "by its name"
    picked = None if by_name else _pick_by_profile(candidates)
    if picked is None:
        raise _unclear_target_error(by_name or candidates)
    return picked


def _may_be_target(profile: ColumnProfile) -> bool:
    single = not (profile.is_array or profile.is_encoded or profile.is_date or profile.is_file or profile.obstacle)
    return single and profile.distinct > 1 and not _is_identifier(profile) and not _is_group(profile)


def _pick_by_profile(candidates: Sequence[ColumnProfile]) -> tuple[ColumnProfile, str] | None:
    """Pick the only column that looks like a target; None if there are several."""
    classes = [profile for profile in candidates if _is_class(profile)]
    if len(candidates) == 1:
        return candidates[0], "the only column that can be predicted"
    if len(classes) == 1 and (classes[0] is candidates[-1] or not any(profile.is_number for profile in candidates)):
        return classes[0], "the only column of a few classes"
    if candidates and not classes and all(profile.is_number for profile in candidates):
        return candidates[-1], "the last of columns that are all numbers"
    return None


def _is_class(profile: ColumnProfile) -> bool:
    """Whether a column of text has few distinct values, each of them many times."""
    return profile.is_boolean or (not profile.is_number and profile.distinct <= 100 and profile.rows_per_value >= 5)


def _unclear_target_error(candidates: Sequence[ColumnProfile]) -> BmcliError:
    if not candidates:
        return BmcliError(
            "no column can be predicted: all are constant, dates, files, identifiers or texts that do not repeat.",
            suggestion="Name one with --target, or write a recipe with an objective that needs no target, such as "
            "`causal_language_model`.",
        )
    ranked = sorted(candidates, key=lambda profile: -_score_target(profile, candidates))[:_MAX_CANDIDATES]
    described = [
        f"{brief(profile.name, MAX_SHOWN)} "
        f"({'number' if profile.is_number and profile.distinct > 2 else f'{profile.distinct:,} values'})"
        for profile in ranked
    ]
    return BmcliError(
        f"it is not clear which column is the target. Candidates: {', '.join(described)}.",
        suggestion=f"Name it, for example --target {brief(ranked[0].name, MAX_SHOWN)}.",
    )


def _score_target(profile: ColumnProfile, candidates: Sequence[ColumnProfile]) -> float:
    """Score how much a column looks like the target: by its name, its place, and how few values it has."""
    words = {word.lower() for word in _WORD.findall(profile.name)}
    score = 0.0 if words.isdisjoint(_TARGET_WORDS) else 3.0
    score -= 0.0 if words.isdisjoint(_ATTRIBUTE_WORDS) else 4.0
    # Targets are mostly the last or the first column.
    score += 2.0 if profile is candidates[-1] else 0.5 if profile is candidates[0] else 0.0
    is_binary = profile.distinct == 2
    return score + (1.5 if is_binary else 1.0 if _is_class(profile) else 0.0)


def _guess_target(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess:
    """Choose the kind of the target.

    Raises:
        BmcliError: No kind of target can predict the column.
    """
    if profile.obstacle:
        raise BmcliError(
            f"column {quoted(profile.name)}: {profile.obstacle}.", suggestion="Name another column with --target."
        )
    guess = targets.guess_kind(profile, columns)
    if (profile.is_array or profile.is_encoded) and guess is None:
        raise BmcliError(
            f"column {quoted(profile.name)}: expected one value a row, received "
            f"{'files' if profile.dtype == 'file' else 'arrays'}.",
            suggestion="Name another column with --target.",
        )
    if profile.distinct < 2:
        raise BmcliError(
            f"column {quoted(profile.name)}: every row has {'the same' if profile.distinct else 'no'} value, so there "
            "is nothing to learn.",
            suggestion="Name another column with --target.",
        )
    if guess is None or guess.obstacle:
        raise BmcliError(
            f"column {quoted(profile.name)}{f' {guess.obstacle}' if guess else ': no kind of target fits it.'}",
            suggestion="Name another column with --target.",
        )
    return guess


def _make_target_role(profile: ColumnProfile, guess: TargetGuess, why: str) -> ColumnRole:
    return ColumnRole(profile, "target", guess.kind, f"{why}; {guess.why}", guess.options, doubt=guess.doubt)


def _is_identifier(profile: ColumnProfile) -> bool:
    """Whether a column only identifies rows."""
    name = profile.name.lower()
    by_name = name in _IDENTIFIERS or name.endswith(("_id", " id", ".id", "-id"))
    mostly_unique = profile.rows > 1 and profile.rows_per_value < 1.05
    return profile.is_row_index or (by_name and mostly_unique and (profile.is_integer or not profile.is_number))


def _is_group(profile: ColumnProfile) -> bool:
    """Whether a column identifies what several rows belong to."""
    if profile.is_array or profile.is_encoded or (profile.is_number and not profile.is_integer):
        return False
    example = "1" if profile.is_number else profile.example
    return groups.is_group(profile.name, profile.present, profile.distinct, profile.top_share, example)


def _separate_groups(roles: Mapping[str, ColumnRole]) -> dict[str, ColumnRole]:
    """Take identifiers of groups out of the inputs, unless there are no others; the rows are split by the coarsest.

    A finer one, such as that of the visits of a patient, mostly divides the coarsest.
    """
    found = [role for role in roles.values() if role.role == "input" and _is_group(role.profile)]
    if all(role in found or role.role != "input" for role in roles.values()):
        return {}
    complete = [role for role in found if not role.profile.missing]
    coarsest = min(complete, key=lambda role: role.profile.distinct, default=None)
    return {role.name: _make_group_role(role.profile, role is coarsest) for role in found}


def _make_group_role(profile: ColumnProfile, is_chosen: bool) -> ColumnRole:
    why = (
        f"identifies rows that belong together: {profile.distinct:,} values, {profile.rows_per_value:.2g} rows of "
        "each on average"
    )
    return ColumnRole(profile, "group", why=why) if is_chosen else _make_dropped_role(profile, why)


def _make_input_role(profile: ColumnProfile) -> ColumnRole:
    """Give a column the kind that is most certain of it, or drop the column with a reason."""
    if profile.obstacle:
        return _make_dropped_role(profile, profile.obstacle)
    if not profile.distinct:
        return _make_dropped_role(profile, "every cell is missing")
    if profile.distinct == 1:
        empty = f" or is empty ({profile.missing / profile.rows:.0%})" if profile.missing else ""
        return _make_dropped_role(profile, f"every cell has the same value{empty}")
    is_single = not (profile.is_array or profile.is_encoded)
    if is_single and _is_identifier(profile):
        return _make_dropped_role(profile, "a row number" if profile.is_row_index else "an identifier of the row")
    if profile.is_picture:
        return _make_dropped_role(profile, "its cells are file names of pictures that do not exist beside the table")
    if profile.is_file:
        return _make_dropped_role(profile, "its cells are file names, which this source does not open")
    guess = profile.guesses[0]
    if guess.obstacle:
        return _make_dropped_role(profile, guess.obstacle)
    has_few_rows_per_value = profile.rows_per_value < 1.05 and profile.rows > 20
    # The training rows, of which a recipe without inputs is read, have fewer rows of each value than all rows.
    is_refused = profile.distinct >= MANY_DISTINCT and profile.rows_per_value < 1.15
    if guess.is_categorical and (has_few_rows_per_value or is_refused):
        return _make_dropped_role(profile, "nearly every row has a different value")
    return _follow_guess(profile, guess)


def _follow_guess(profile: ColumnProfile, guess: Guess) -> ColumnRole:
    named = {"missing_cells": tuple(guess.foreign)} if guess.foreign else {}
    return ColumnRole(profile, "input", guess.kind, guess.why, {**guess.options, **named}, guess)


def _make_dropped_role(profile: ColumnProfile, why: str) -> ColumnRole:
    return ColumnRole(profile, "dropped", why=why)


def _keep_word_columns(profiles: Sequence[ColumnProfile]) -> dict[str, ColumnRole]:
    """Keep columns of words that differ in nearly every row, such as names, if there is no other input.

    Raises:
        BmcliError: There is no such column.
    """
    words = [each for each in profiles if each.distinct > 1 and not (each.is_number or each.is_date or each.is_file)]
    roles = [
        _follow_guess(each, guess)
        for each in words
        for guess in [guess for guess in each.guesses if not (guess.is_categorical or guess.obstacle)][:1]
    ]
    if not roles:
        dropped = "; ".join(f"{quoted(each.name)}: {_make_input_role(each).why}" for each in profiles[:_MAX_NAMED])
        dropped += f"; and {len(profiles) - _MAX_NAMED} more" if len(profiles) > _MAX_NAMED else ""
        raise BmcliError(f"no column is left as an input. {dropped or 'The target is the only column'}.")
    return {role.name: role for role in roles}
