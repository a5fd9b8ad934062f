"""Conversion of the student's encoded inputs, augmented or not, to those of a teacher, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from bmcli import inputs as input_kinds
from bmcli.distillation.teachers import TeacherNetwork
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.specs import Column, DataSpec

InputAdapter = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From encoded inputs of the student to those of a teacher, by column."""


def build_adapter(teacher: TeacherNetwork, spec: DataSpec) -> InputAdapter:
    """Build the input adapter of a teacher.

    Args:
        spec: Of the student's data.

    Raises:
        BmcliError: The teacher has an input that the student lacks, or encodes one differently.
    """
    if teacher.spec is None:
        raise BmcliError(
            f"teacher {teacher.display_path} takes raw rows, which cannot be augmented.", path="data.augment",
            suggestion="Give the teacher's run instead of its file, or remove data.augment.",
        )  # fmt: skip
    student_columns = {column.name: column for column in spec.inputs}
    for column in teacher.spec.inputs:
        if column.name not in student_columns:
            raise BmcliError(
                f"teacher {teacher.display_path} has the input {quoted(column.name)}, which its student lacks, so it "
                "cannot be augmented.", path="data.augment", suggestion="Add it to the student's data.inputs.",
            )  # fmt: skip
    conversions = {
        column.name: _build_conversion(student_columns[column.name], column, teacher.display_path)
        for column in teacher.spec.inputs
    }
    return lambda inputs: {name: convert(inputs[name]) for name, convert in conversions.items()}


def _build_conversion(student_column: Column, teacher_column: Column, display_path: str) -> Callable[[Any], Any]:
    if student_column == teacher_column:
        return tf.identity
    conversion = input_kinds.get_traits(student_column).build_conversion(teacher_column)
    if conversion is not None:
        return conversion
    raise BmcliError(
        f"teacher {display_path} encodes the input {quoted(student_column.name)} differently from its student, so the "
        "augmented input cannot be converted.", path="data.augment",
        suggestion="Give both the same kind of input and the same training rows, or remove data.augment.",
    )  # fmt: skip
