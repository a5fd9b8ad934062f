"""Roles of columns, guessed from their profiles."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from bmcli.data.profiling.column_profile import ColumnProfile
from bmcli.data.profiling.roles import assign_roles, drop_leaks, pick_target
from bmcli.errors import BmcliError
from bmcli.inputs import Guess

WORDS = Guess("text", 0.1, "words", {"tokens": "characters"}, needs_options=True, is_wide=True)
CATEGORIES = Guess("category", 0.3, "categories", is_categorical=True)
NUMBER = ColumnProfile("n", 100, distinct=90, is_number=True, guesses=(Guess("number", 0.5, "numbers"),))
CLASSES = ColumnProfile("c", 100, distinct=4, top_share=0.4, guesses=(CATEGORIES, WORDS))
SENTENCES = ColumnProfile("s", 100, distinct=98, guesses=(Guess("text", 0.4, "prose", is_wide=True), CATEGORIES))


def named(profile: ColumnProfile, name: str) -> ColumnProfile:
    return replace(profile, name=name)


@pytest.mark.parametrize(
    ("profiles", "target"),
    [
        ((NUMBER, named(CLASSES, "Label"), named(CLASSES, "other")), "Label"),
        ((NUMBER, CLASSES), "c"),
        ((CLASSES, SENTENCES), "c"),
        ((NUMBER, named(NUMBER, "m")), "m"),
        ((named(NUMBER, "x"), named(NUMBER, "y"), named(NUMBER, "z")), "z"),
        ((named(NUMBER, "x"), named(NUMBER, "y")), "y"),
    ],
)
def test_a_clear_target_is_found(profiles: tuple[ColumnProfile, ...], target: str) -> None:
    assert pick_target(profiles, None)[0].name == target


@pytest.mark.parametrize(
    "profiles",
    [
        (CLASSES, named(CLASSES, "d")),
        (CLASSES, NUMBER),
        (named(CLASSES, "label"), named(CLASSES, "class")),
        (named(NUMBER, "a"), CLASSES, named(NUMBER, "b")),
    ],
)
def test_several_candidates_are_a_fault(profiles: tuple[ColumnProfile, ...]) -> None:
    with pytest.raises(BmcliError, match="Candidates") as caught:
        pick_target(profiles, None)
    assert all(profile.name in caught.value.faults[0].message for profile in profiles)


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        (replace(NUMBER, is_integer=True, distinct=2), "category"),
        (replace(NUMBER, is_integer=True, distinct=5, minimum=1, maximum=5), "category"),
        (replace(NUMBER, is_integer=True, distinct=5, minimum=1, maximum=50, mean=50, variance=9), "number"),
        (replace(NUMBER, is_integer=True, distinct=60, minimum=0, maximum=90, mean=9, variance=200), "count"),
        (replace(NUMBER, is_integer=True, distinct=60, minimum=300, maximum=900, mean=500, variance=2000), "number"),
        (NUMBER, "number"),
    ],
)
def test_numbers_are_classes_counts_or_quantities(profile: ColumnProfile, kind: str) -> None:
    target = assign_roles((CLASSES, named(profile, "t")), "t", {})[1]
    assert (target.role, target.kind) == ("target", kind)


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (replace(NUMBER, distinct=1), "the same value"),
        (replace(NUMBER, distinct=0, missing=100), "every cell is missing"),
        (replace(NUMBER, is_row_index=True), "a row number"),
        (replace(NUMBER, name="user_id", distinct=100, is_integer=True), "an identifier"),
        (replace(CLASSES, name="code", distinct=100), "nearly every row has a different value"),
        # Its training rows alone have fewer rows of each value, which training would refuse.
        (replace(CLASSES, name="pressure", distinct=90), "nearly every row has a different value"),
        (replace(NUMBER, distinct=1, missing=80), "every cell has the same value or is empty (80%)"),
        (replace(CLASSES, is_file=True), "its cells are file names"),
    ],
)
def test_columns_without_information_are_dropped_with_the_reason(profile: ColumnProfile, why: str) -> None:
    role = assign_roles((profile, SENTENCES, named(CLASSES, "label")), None, {})[0]
    assert role.role == "dropped"
    assert why in role.why


def test_single_words_are_spared_where_nothing_else_is_left() -> None:
    (role, _) = assign_roles((replace(CLASSES, name="first name", distinct=100), named(CLASSES, "label")), None, {})
    assert (role.role, role.kind, role.options) == ("input", "text", {"tokens": "characters"})


def test_nothing_to_learn_from_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="'k': a row number"):
        assign_roles((replace(NUMBER, name="k", is_row_index=True), named(CLASSES, "label")), None, {})


def test_the_most_certain_kind_is_chosen_with_its_options() -> None:
    hours = Guess("cyclic", 1.0, "hours of a day", {"period": 24.0})
    role = assign_roles((replace(NUMBER, guesses=(hours, *NUMBER.guesses)), named(CLASSES, "label")), None, {})[0]
    assert (role.role, role.kind, role.options, role.why) == ("input", "cyclic", {"period": 24.0}, "hours of a day")


def test_a_column_is_dropped_for_the_obstacle_of_its_kind() -> None:
    dates = Guess("date", 0.8, "dates", obstacle="dates in several formats")
    dated = replace(CLASSES, guesses=(dates, *CLASSES.guesses))
    role = assign_roles((dated, NUMBER, named(CLASSES, "label")), None, {})[0]
    assert (role.role, role.why) == ("dropped", "dates in several formats")


def test_leaks_go_unless_they_are_all_there_is() -> None:
    columns = {
        "folder": pa.chunked_array([["a", "b", "c", "a"] * 25]),
        "label": pa.chunked_array([["x", "y", "y", "x"] * 25]),
    }
    folder, label = replace(CLASSES, name="folder", distinct=3), replace(CLASSES, name="label", distinct=2)
    assigned = assign_roles((NUMBER, folder, label), "label", {})
    assert [role.role for role in drop_leaks(assigned, columns)] == ["input", "dropped", "target"]
    assert [role.role for role in drop_leaks(assigned[1:], columns)] == ["input", "target"]
