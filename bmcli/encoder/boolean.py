"""Encoder of booleans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._cells import ASCII_SPACE, read_cell


def encode(column: Mapping[str, Any], cells: Any) -> Any:
    """Encode cells of one column of booleans."""
    state = column["state"]
    if column["raw_dtype"] == "string":
        words = [read_cell(cell).strip(ASCII_SPACE).lower() for cell in np.asarray(cells, object).reshape(-1)]
        values = np.array([1.0 if w in state["yes"] else 0.0 if w in state["no"] else np.nan for w in words], "float32")
    else:
        values = np.array(cells, "float32")
    values = values.reshape(len(values), -1)
    missing = ~((values == 0) | (values == 1))
    encoded = np.where(missing, np.float32(state["fill"]), values)
    return np.concatenate([encoded, missing.astype("float32")], axis=1) if state["flag"] else encoded
