"""Numbers as texts of a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bmcli.number_texts import write_measure, write_number

if TYPE_CHECKING:
    from bmcli.evaluation.fairness import Rate


class Bounds(Protocol):
    """An interval, or a mean with its interval."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def format_value(value: Any) -> str:
    """Format a value of a recipe briefly."""
    if isinstance(value, float):
        return write_number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_number(value: float | None) -> str:
    """Format a measured number, `-` without one."""
    return write_measure(value)


def format_shape(shape: Sequence[int | None]) -> str:
    """Format a shape as `28x28x1`; a size that varies is `?`, and no dimension `-`."""
    return "x".join("?" if size is None else str(size) for size in shape) or "-"


def format_ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def format_bytes(count: float) -> str:
    """Format bytes in the largest unit of which there is at least one."""
    from rich.filesize import pick_unit_and_suffix

    size, unit = pick_unit_and_suffix(int(count), ["B", "KiB", "MiB", "GiB", "TiB"], 1024)
    return f"{count / size:.{0 if size == 1 else 1}f} {unit}"


def format_interval(interval: Bounds | None) -> str:
    return "" if interval is None else f"{write_measure(interval.low)} to {write_measure(interval.high)}"


def format_rate(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.value:.4f} ({rate.low:.4f} to {rate.high:.4f})"


def format_p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def or_dash(value: float | None) -> float | str:
    return "-" if value is None else value
