from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bmcli.cells import Raw
from bmcli.data import columns


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.chunked_array([["1", " 2.5", None]]), "number"),
        (pa.chunked_array([["1", "two"]]), "category"),
        (np.zeros(3), "number"),
        (np.zeros(3, "uint8"), "number"),
        (np.zeros((3, 4), "uint8"), "number"),
        (np.zeros((3, 4, 5), "uint8"), "image"),
        (np.zeros((3, 4, 5, 2), "uint8"), "image"),
        (np.zeros((3, 4, 5)), "number"),
        (np.zeros((3, 4, 5, 1)), "image"),
        (np.zeros((3, 4, 5, 3), "float32"), "image"),
        (np.zeros((3, 4, 5, 6)), "number"),
    ],
)
def test_a_column_is_what_it_looks_like(column: Raw, kind: str) -> None:
    assert columns.likely_kind(column) == kind
