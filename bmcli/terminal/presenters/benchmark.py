"""The cost of artefacts: size, latency, throughput and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.number_texts import write_measure
from bmcli.terminal.formats import format_bytes, format_ms

if TYPE_CHECKING:
    from bmcli.commands.benchmark import BenchmarkResult
    from bmcli.reports.costs import Cost
    from bmcli.terminal.console import Console


def to_json(result: BenchmarkResult) -> dict[str, Any]:
    return {
        "figure": str(result.figure),
        "repeats": result.repeats,
        "artefacts": [cost.to_json() for cost in result.costs],
        "notes": list(result.notes),
    }


def print_result(console: Console, result: BenchmarkResult) -> None:
    names = [cost.metric[0] for cost in result.costs if cost.metric]
    batches = [str(latency.batch) for latency in result.costs[0].latencies]
    timed = [f"{figure} of {batch}" for batch in batches for figure in ("ms", "p95", "p99")]
    columns = ["format", "size", "gzip", "load", *timed, "rows/s", "memory", names[0] if names else "metric"]
    console.print_table("", columns, [_make_row(cost) for cost in result.costs])
    for note in result.notes:
        console.print_text(note)
    console.print_text(f"wrote {format_path(result.figure)}")


def _make_row(cost: Cost) -> list[str]:
    timed = [
        f"{1e3 * seconds:.3g}"
        for latency in cost.latencies
        for seconds in (latency.median_s, latency.p95_s, latency.p99_s)
    ]
    return [
        cost.name,
        format_bytes(cost.bytes),
        format_bytes(cost.gzip_bytes),
        format_ms(cost.load_s),
        *timed,
        f"{cost.rows_per_second:,.0f}",
        format_bytes(cost.peak_bytes),
        "-" if cost.metric is None else write_measure(cost.metric[1]),
    ]
