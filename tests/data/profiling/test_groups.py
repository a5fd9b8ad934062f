"""Columns that identify what several rows belong to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bmcli.data.profiling.column_profile import ColumnProfile
from bmcli.data.profiling.groups import is_group
from bmcli.data.profiling.roles import assign_roles, pick_target
from bmcli.inputs import Guess

NUMBERS = (Guess("number", 0.5, "numbers"),)
PATIENTS = ColumnProfile(
    "patient_id", 600, distinct=60, is_number=True, is_integer=True, top_share=0.02, guesses=NUMBERS
)
VISITS = replace(PATIENTS, name="visit_id", distinct=300)
AGE = ColumnProfile("age", 600, distinct=50, is_number=True, is_integer=True, guesses=NUMBERS)
ILL = ColumnProfile("ill", 600, distinct=2, top_share=0.6, guesses=(Guess("category", 0.3, "2", is_categorical=True),))


@pytest.mark.parametrize(
    "name",
    [
        "patient_id",
        "PatientID",
        "patientid",
        "user id",
        "customer_no",
        "Session.Id",
        "subject",
        "User",
        "device_uuid",
        "id",
    ],
)
def test_repeated_identifiers_are_groups(name: str) -> None:
    assert is_group(name, rows=600, distinct=60, top_share=0.02, example="1017")
    assert is_group(name, rows=600, distinct=60, top_share=0.02, example="P-017")


@pytest.mark.parametrize(
    "name",
    [
        "age",
        "year",
        "zip_code",
        "price",
        "rooms",
        "type_id",
        "product_id",
        "country_id",
        "hour",
        "visitors",
        "paid",
        "x",
    ],
)
def test_counts_years_codes_and_prices_are_no_groups(name: str) -> None:
    assert not is_group(name, rows=600, distinct=60, top_share=0.02, example="1017")


def test_groups_are_many_and_none_has_most_of_the_rows() -> None:
    assert not is_group("patient_id", rows=600, distinct=3, top_share=0.3, example="1")
    assert not is_group("patient_id", rows=600, distinct=60, top_share=0.6, example="1")
    assert not is_group("patient_id", rows=600, distinct=600, top_share=0.01, example="1")
    assert not is_group("subject", rows=600, distinct=12, top_share=0.1, example="history")


def test_the_group_of_rows_is_no_input_and_no_target() -> None:
    roles = {role.name: role for role in assign_roles((PATIENTS, AGE, ILL), "ill", {})}
    assert roles["patient_id"].role == "group"
    assert roles["patient_id"].why == "identifies rows that belong together: 60 values, 10 rows of each on average"
    assert roles["age"].role == "input"
    assert pick_target((AGE, PATIENTS), None)[0].name == "age"


def test_rows_are_split_by_the_coarsest_of_several_groups() -> None:
    roles = {role.name: role.role for role in assign_roles((VISITS, PATIENTS, AGE, ILL), "ill", {})}
    assert roles == {"visit_id": "dropped", "patient_id": "group", "age": "input", "ill": "target"}
    some = replace(PATIENTS, missing=10)
    roles = {role.name: role.role for role in assign_roles((VISITS, some, AGE, ILL), "ill", {})}
    assert roles["visit_id"] == "group"  # a row without a group cannot be split by it


def test_the_only_input_stays_one() -> None:
    assert assign_roles((PATIENTS, ILL), "ill", {})[0].role == "input"
