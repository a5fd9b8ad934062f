"""What was encoded comes back, whatever the kind of target."""

from __future__ import annotations

import numpy as np
import pytest

from bmcli import parts
from bmcli.data import targets

ROWS = {"category": np.array([3, 1, 3, 2]), "number": np.array([2.5, -4.0, 1e3, 0.0])}


@pytest.mark.parametrize("kind", parts.names("data.targets"))
def test_decoding_undoes_encoding(kind: str) -> None:
    part = parts.load("data.targets", kind)
    column = part.fit("y", ROWS[kind], part.Options())
    decoded = targets.kind_of(column).decode(part.encode(ROWS[kind], column), column)
    values = [column.classes[i] for i in decoded] if kind == "category" else decoded
    expected = [str(value) for value in ROWS[kind]] if kind == "category" else pytest.approx(ROWS[kind], abs=1e-4)
    assert list(values) == expected
