"""Measured costs of artefacts: size, latency, throughput and memory, and their figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.number_texts import write_number
from bmcli.printable import clean
from bmcli.records import validate_as
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Latency:
    """Duration of a call, from raw rows to arrays."""

    batch: int
    median_s: float
    p95_s: float
    p99_s: float
    calls: int


@dataclass(frozen=True)
class Cost:
    """Measured costs of one artefact.

    Args:
        bytes, gzip_bytes: Of the files that are needed to run it.
        load_s: Seconds to load it, without the import of its runtime.
        peak_bytes: Peak memory of the process that ran it, including the runtime.
        metric: Name and value on rows of the split of the verification; None if there is none.
    """

    name: str
    bytes: int
    gzip_bytes: int
    load_s: float
    latencies: tuple[Latency, ...]
    peak_bytes: int
    metric: tuple[str, float] | None

    @property
    def rows_per_second(self) -> float:
        """Throughput with the largest batch."""
        last = self.latencies[-1]
        return last.batch / last.median_s

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "latencies": [vars(latency) for latency in self.latencies],
            "rows_per_second": self.rows_per_second,
            "metric": None if self.metric is None else {"name": self.metric[0], "value": self.metric[1]},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cost:
        metric = values.get("metric")
        pair = [metric.get("name"), metric.get("value")] if isinstance(metric, Mapping) else metric
        return validate_as(cls, {**values, "metric": pair})


def draw_costs(costs: Sequence[Cost]) -> Markup:
    """Draw size, latency, throughput, memory and metric of each artefact side by side, as SVG."""
    names = [clean(cost.name) for cost in costs]
    first, last = costs[0].latencies[0].batch, costs[0].latencies[-1].batch
    metric = next((cost.metric[0] for cost in costs if cost.metric), "metric")
    panels: list[tuple[str, list[float]]] = [
        ("size, KiB", [cost.bytes / 2**10 for cost in costs]),
        (
            f"latency of {first} row{'' if first == 1 else 's'}, ms (line: p95)",
            [1e3 * cost.latencies[0].median_s for cost in costs],
        ),
        (f"rows per second, batch {last}", [cost.rows_per_second for cost in costs]),
        ("peak memory, MiB", [cost.peak_bytes / 2**20 for cost in costs]),
        (metric, [cost.metric[1] if cost.metric else float("nan") for cost in costs]),
    ]

    def draw(figure: Figure) -> None:
        for index, (axes, (title, values)) in enumerate(zip(figure.subplots(1, len(panels)), panels, strict=True)):
            p95_ms = [1e3 * cost.latencies[0].p95_s for cost in costs] if index == 1 else None
            _draw_bars(axes, title, values, p95_ms)
            axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))

    alt_text = f"size, latency, throughput, memory and metric of {', '.join(names)}"
    return figures.render_svg("costs", alt_text, (11.0, 0.9 + 0.32 * len(costs)), draw)


def render_svg_file(costs: Sequence[Cost]) -> str:
    """Render the figure as a stand-alone SVG file."""
    style = 'style="background: white; font-family: sans-serif; color: black"'
    svg_text = re.sub('style="min-width: [^"]*"', style, str(draw_costs(costs)), count=1)
    return svg_text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _draw_bars(axes: Axes, title: str, values: Sequence[float], line_ends: Sequence[float] | None) -> None:
    """Draw a bar with its value for each artefact, the first one on top, with lines from the bars to `line_ends`."""
    axes.barh(range(len(values)), values, color=BLUE, height=0.62)
    for index, value in enumerate(values):
        if value == value:  # not NaN: artefacts without a metric have no label
            axes.annotate(write_number(value), (value, index), (3, 0),
                          textcoords="offset points", va="center", fontsize=7)  # fmt: skip
    if line_ends is not None:
        axes.hlines(range(len(values)), values, line_ends, color=ORANGE, linewidth=1.2)
    axes.set_title(title)
    axes.margins(x=0.3)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(True, axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(left=False)
