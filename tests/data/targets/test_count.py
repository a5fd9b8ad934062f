from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data.targets import count
from bmcli.errors import BmcliError
from bmcli.raw_columns import RowFault


def fit(rows: Any) -> Any:
    return count.fit("visits", rows, count.Options())


def test_counts_stay_as_they_are_and_their_mean_is_kept() -> None:
    rows = pa.chunked_array([["0", "12", " 3 ", "1.0"]])
    column = fit(rows)
    encoded = count.encode(rows, column)
    assert (encoded.tolist(), encoded.dtype) == ([0, 12, 3, 1], np.float32)
    assert column.state == {"mean": 4.0}
    assert count.decode(encoded, column).tolist() == [0, 12, 3, 1]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("-1", "expected a whole number of at least 0, received -1"),
        ("1.5", "expected a whole number of at least 0, received 1.5"),
        (None, "expected a number, received nothing"),
        ("many", "expected a number, received 'many'"),
        ("1e39", "expected a count of at most 3.4e\\+38, received 1e\\+39"),
    ],
)
def test_what_is_no_count_is_a_fault(cell: str | None, message: str) -> None:
    with pytest.raises(RowFault, match=message) as caught:
        fit(pa.chunked_array([pa.array(["1", "2", cell])]))
    assert caught.value.row == 2


def test_a_constant_count_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="every training row has the value 3"):
        fit(np.full(4, 3))
