"""Encoder of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def encode(column: Mapping[str, Any], cells: Any) -> Any:
    """Encode cells of one column of numbers."""
    state, dtype = column["state"], column["raw_dtype"]
    values = np.array(cells, dtype)
    values = values[:, None] if values.ndim == 1 else values
    fill, offset, scale = (np.array(state[key], dtype) for key in ("fill", "offset", "scale"))
    missing = np.isnan(values)
    if state.get("log"):
        wide = values.astype("float64")
        values = (np.sign(wide) * np.log1p(np.abs(wide))).astype(dtype)
    encoded = ((_apply_curves(np.where(missing, fill, values), state) - offset) / scale).astype("float32")
    if state.get("learned"):
        encoded = np.where(missing, np.float32("nan"), encoded)
    if state["flag"]:
        encoded = np.concatenate([encoded, missing.astype("float32")], axis=-1)
    if state["padded"]:
        encoded = np.where(missing.all(axis=-1, keepdims=True), np.float32("nan"), encoded)
    return encoded


def _apply_curves(values: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Transform values by the piecewise linear curve, or to the bin, of their channel."""
    if "knots" not in state and "edges" not in state:
        return values
    transformed = np.empty_like(values)
    for channel in range(values.shape[-1]):
        x = values[..., channel]
        if "edges" in state:
            transformed[..., channel] = np.searchsorted(np.array(state["edges"][channel], x.dtype), x, side="right")
            continue
        knots, heights = (np.array(state[key][channel], x.dtype) for key in ("knots", "heights"))
        x = np.clip(x, knots[0], knots[-1])
        left = np.searchsorted(knots, x, side="right") - 1
        knots, heights = np.append(knots, x.dtype.type("inf")), np.append(heights, heights[-1])
        weight = (x - knots[left]) / (knots[left + 1] - knots[left])
        transformed[..., channel] = heights[left] + weight * (heights[left + 1] - heights[left])
    return transformed
