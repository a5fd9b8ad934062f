"""Decoding inverts encoding, for every kind of target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli import parts
from bmcli.data import targets
from tests.evaluation.columns import answers_of

NUMBERS = np.array([2.5, -0.5, 1e3, 0.0])
TAGGED = pa.chunked_array([[{"y": "A B B", "text": "all big bears"}, {"y": "B", "text": "big"}]])
CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "category": (np.array([3, 1, 3, 2]), {}, [2, 0, 2, 1]),
    "ordered": (np.array([3, 1, 3, 2]), {"classes": (3, 2, 1)}, [0, 2, 0, 1]),
    "labels": (np.array([[1, 0], [0, 0], [1, 1]]), {}, [[1, 0], [0, 0], [1, 1]]),
    "count": (np.array([3, 0, 2]), {}, [3, 0, 2]),
    "number": (NUMBERS, {}, NUMBERS),
    "tags": (TAGGED, {"input": "text"}, [[0, 1, 1], [1, -1, -1]]),
    "number, log": (NUMBERS, {"scale": "log"}, NUMBERS),
    "number, none": (NUMBERS, {"scale": "none"}, NUMBERS),
}


def kind_of(case: str) -> str:
    return case.split(",")[0]


def test_every_kind_is_among_the_cases() -> None:
    assert {kind_of(case) for case in CASES} == set(parts.names("data.targets"))


@pytest.mark.parametrize("case", CASES)
def test_decoding_undoes_encoding(case: str) -> None:
    rows, options, expected = CASES[case]
    part = parts.load("data.targets", kind_of(case))
    column = part.fit("y", rows, part.Options(**options))
    encoded = part.encode(rows, column)
    assert (encoded.shape[1:], str(encoded.dtype)) == (column.shape, column.dtype)
    np.testing.assert_allclose(targets.kind_of(column).decode(encoded, column), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_sure_predictions_come_to_the_truth(case: str) -> None:
    """The point prediction of perfect predictions equals the decoded rows."""
    rows, options, _ = CASES[case]
    part = parts.load("data.targets", kind_of(case))
    column = part.fit("y", rows, part.Options(**options))
    truth = part.decode(part.encode(rows, column), column)
    (answers,) = answers_of(column).values()
    # The last name of tags is that of no word, whose index is -1.
    has_probabilities = (column.classes and truth.ndim == 1) or answers.output.activation == "softmax"
    sure = np.eye(len(answers.output.names))[truth] if has_probabilities else truth.astype("float64")
    np.testing.assert_array_equal(answers.predict_points(sure), truth)
