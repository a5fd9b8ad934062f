"""Teachers of a distillation: which runs may have seen test rows of the student."""

from __future__ import annotations

import pytest

from bmcli.recipe.load import load_recipe
from bmcli.workflows.teachers import have_same_split


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], True),
        (["seed=1", "data.seed=0"], True),
        (["seed=1"], False),
        (["data.split=null"], False),  # the default shares are others than those of the teacher
        (["data.split.train=0.6", "data.split.test=0.25"], False),
        (["data.split.stratify=none"], False),
    ],
)
def test_a_teacher_has_the_split_of_its_student_only_if_shares_and_seed_are_equal(
    overrides: list[str], expected: bool
) -> None:
    teacher = load_recipe("digits", ["data.split.stratify=label"]).recipe
    assert have_same_split(load_recipe("digits", overrides).recipe, teacher) is expected
