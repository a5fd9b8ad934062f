"""Cells as texts, for all encoders that read texts."""

from __future__ import annotations

from typing import Any

import numpy as np

ASCII_SPACE = " \t\n\v\f\r"
MISSING_INTEGER = -(2**63)  # a missing cell of a category that is an integer


def read_cell(cell: Any) -> str:
    """Convert a cell to text; whole numbers are written without a decimal point."""
    if cell is None or (isinstance(cell, (float, np.floating)) and np.isnan(cell)):
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, (int, np.integer)) and cell == MISSING_INTEGER:
        return ""
    if isinstance(cell, (float, np.floating)) and cell == int(cell):
        return str(int(cell))
    return str(cell)
