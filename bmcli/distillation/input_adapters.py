"""How a teacher sees the inputs of its student, augmented or not, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from bmcli.distillation.teachers import TeacherNetwork
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.specs import Column, DataSpec

InputAdapter = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From encoded inputs of the student to those of a teacher, by column."""


def build_adapter(teacher: TeacherNetwork, spec: DataSpec) -> InputAdapter:
    """The view of a teacher.

    Args:
        spec: Of the student's data.

    Raises:
        BmcliError: It reads a column that the student lacks, or reads one otherwise.
    """
    if teacher.spec is None:
        raise BmcliError(
            f"teacher {teacher.display_path} takes raw rows, and would not see them augmented.", path="data.augment",
            suggestion="Name the teacher's run, or leave data.augment out.",
        )  # fmt: skip
    mine = {column.name: column for column in spec.inputs}
    for column in teacher.spec.inputs:
        if column.name not in mine:
            raise BmcliError(
                f"teacher {teacher.display_path} reads column {quoted(column.name)}, which its student does "
                "not have, and so cannot "
                "see it augmented.", path="data.augment", suggestion="Add it to the student's data.inputs.",
            )  # fmt: skip
    changes = {
        column.name: _build_conversion(mine[column.name], column, teacher.display_path)
        for column in teacher.spec.inputs
    }
    return lambda inputs: {name: change(inputs[name]) for name, change in changes.items()}


def _build_conversion(mine: Column, its: Column, shown: str) -> Callable[[Any], Any]:
    if mine == its:
        return tf.identity
    if mine.kind == its.kind == "image" and mine.shape[-1] == its.shape[-1]:
        return lambda pictures: _convert_pictures(pictures, mine, its)
    raise BmcliError(
        f"teacher {shown} reads column {quoted(mine.name)} otherwise than its student, and so cannot see it augmented.",
        path="data.augment", suggestion="Give both the same kind of input and the same training rows, or leave it out.",
    )  # fmt: skip


def _convert_pictures(pictures: Any, mine: Column, its: Column) -> Any:
    """Encoded pictures at another size and in another range of pixels."""
    (low, high), (its_low, its_high) = mine.state["range"], its.state["range"]
    values = (tf.cast(pictures, tf.float32) - low) / ((high - low) or 1.0)
    if mine.shape != its.shape:
        values = tf.image.resize(values, its.shape[:2])
    values = values * ((its_high - its_low) or 1.0) + its_low
    return tf.saturate_cast(tf.round(values), tf.uint8) if its.dtype == "uint8" else values
