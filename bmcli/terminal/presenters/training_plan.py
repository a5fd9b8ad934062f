"""A plan: columns, layers, memory, the measured time of a step, and predictions for more replicas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bmcli import inputs
from bmcli.disk import format_path
from bmcli.messages import format_duration
from bmcli.quoting import quoted
from bmcli.terminal.formats import format_bytes, format_ms, format_shape

if TYPE_CHECKING:
    from bmcli.commands.plan import Plan
    from bmcli.cost_model.prediction import StepTime
    from bmcli.specs import Column, DataSpec
    from bmcli.terminal.console import Console

MAX_COLUMN_ROWS = 24
MAX_SAMPLE_TOKENS = 16
_BARS = " " + "".join(chr(code) for code in range(0x2581, 0x2589))  # from nothing to a full block


def to_json(result: Plan) -> dict[str, Any]:
    """Make one object: `measured` is what was measured and `steps` what was predicted from it, both in seconds."""
    spec, measured = result.spec, result.measurement
    columns = [(role, column) for role, of_role in _group_columns(spec) for column in of_role]
    return {
        "recipe": result.name,
        "rows": dict(spec.counts),
        "inputs": {column.name: list(column.shape) for column in spec.inputs},
        "targets": [column.name for column in spec.targets],
        "columns": [_column_to_json(column, role) for role, column in columns],
        "tokens": {name: asdict(summary) for name, summary in result.tokens.items()},
        "parameters": result.parameters,
        "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in result.layers],
        "flops": {
            "forward_example": result.forward_flops,
            "step": measured.work.example_flops * measured.work.batch,
        },
        "memory": {**asdict(result.memory), "total": result.memory.total},
        "cached": dict(result.cached),
        "total_steps": result.total_steps,
        "work": asdict(measured.work),
        "measured": {
            "device": result.device,
            "jit": result.jit,
            "step_s_by_batch": {str(batch): seconds for batch, seconds in measured.seconds.items()},
            "fixed_s": measured.cluster.compute.fixed,
            "example_s": measured.cluster.compute.slope,
            "input_bytes_per_s": measured.cluster.input,
            "snapshot_s": measured.snapshot_s,
            "write_s": measured.write_s,
            "network": asdict(measured.network) if measured.network else None,
            "step": _step_to_json(result.local_step),
        },
        "steps": [_step_to_json(step) for step in result.steps],
        "learning_rates": [list(point) for point in result.rates],
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "pictures": None if result.pictures is None else str(result.pictures),
    }


def _column_to_json(column: Column, role: str) -> dict[str, Any]:
    return {
        "name": column.name,
        "role": role,
        "kind": column.kind,
        "shape": list(column.shape),
        "dtype": column.dtype,
        "classes": _count_classes(column, role),
    }


def _count_classes(column: Column, role: str) -> int:
    return inputs.get_traits(column).count_categories() if role == "input" else len(column.classes)


def _step_to_json(step: StepTime) -> dict[str, Any]:
    return {**asdict(step), "seconds": step.seconds}


def print_result(console: Console, result: Plan) -> None:
    console.print_text(_format_row_counts(result))
    console.print_table("", ["column", "role", "kind", "shape", "classes"], _tabulate_columns(result.spec))
    for line in _describe_tokens(result):
        console.print_text(line)
    console.print_text("")
    layers = [
        [layer.name, layer.kind, format_shape(layer.shape), layer.parameters] for layer in result.displayed_layers
    ]
    console.print_table("", ["layer", "kind", "output", "parameters"], layers)
    console.print_text("")
    for line in _describe_measurements(result):
        console.print_text(line)
    console.print_text(_draw_rates(result.rates))
    console.print_text("")
    console.print_table(
        "replicas like this one, the recipe's batch divided among them",
        ["replicas", "batch", "step ms", "compute", "exchange", "input wait", "checkpoint", "examples/s",
         "efficiency", "to finish", ""],
        [_make_step_row(step) for step in result.steps],
    )  # fmt: skip
    for note in result.notes:
        console.log(f"note: {note}")
    for warning in result.warnings:
        console.log(f"warning: {warning}")
    if result.pictures is not None:
        console.print_text(f"\nwrote {format_path(result.pictures)}")


def _format_row_counts(plan: Plan) -> str:
    """Join the rows of each split and what the cache holds already."""
    counts = ", ".join(f"{count:,} {split}" for split, count in plan.spec.counts.items() if count)
    cached = ", ".join(name for name, is_cached in plan.cached.items() if is_cached)
    return f"{plan.name}: {counts} rows" + (f"; in the cache already: {cached}" if cached else "")


def _group_columns(spec: DataSpec) -> tuple[tuple[str, tuple[Column, ...]], ...]:
    """Group the columns by role."""
    return ("input", spec.inputs), ("target", spec.targets), ("learned", spec.derived)


def _tabulate_columns(spec: DataSpec) -> list[list[object]]:
    """Make a row for each column; of many the first inputs and all targets."""
    rows: list[list[object]] = [
        [column.name, role, column.kind, format_shape(column.shape), _count_classes(column, role) or "-"]
        for role, columns in _group_columns(spec)
        for column in columns
    ]
    if len(rows) <= MAX_COLUMN_ROWS:
        return rows
    last = len(spec.learned)
    between = len(rows) - (MAX_COLUMN_ROWS - 1)
    return [*rows[: MAX_COLUMN_ROWS - 1 - last], [f"... {between} more", "", "", "", ""], *rows[len(rows) - last :]]


def _describe_tokens(plan: Plan) -> Iterator[str]:
    """Yield lines about how texts are read, with the tokens of some training rows."""
    for name, summary in plan.tokens.items():
        yield (
            f"{quoted(name)}: {summary.tokens}, the first {summary.length:,} of each text; {summary.unknown_share:.2%} "
            f"of those of the training rows are unknown, {summary.cut_share:.2%} are cut off"
        )
        for sample in summary.samples:
            more = " ..." if len(sample) > MAX_SAMPLE_TOKENS else ""
            yield "  " + " | ".join(quoted(token) for token in sample[:MAX_SAMPLE_TOKENS]) + more


def _describe_measurements(plan: Plan) -> Iterator[str]:
    """Yield lines about the network and what was measured on this machine."""
    work, measured, step, memory = plan.measurement.work, plan.measurement, plan.local_step, plan.memory
    feed = f"streaming at {format_bytes(measured.cluster.input)}/s" if work.streaming else "resident"
    compute = measured.cluster.compute
    yield (
        f"{plan.parameters:,} parameters; counted FLOPs: {plan.forward_flops:,.0f} forward for an example, "
        f"{work.example_flops * work.batch:,.0f} a step; {plan.total_steps:,} steps in total"
    )
    yield (
        f"memory of a step: {format_bytes(memory.weights)} weights, {format_bytes(memory.gradients)} gradients, "
        f"{format_bytes(memory.optimizer)} optimizer, {format_bytes(memory.activations)} activations at most; "
        f"{format_bytes(work.gradient_bytes)} exchanged between replicas"
    )
    size = format_bytes(work.example_bytes * work.examples)
    yield f"rows: {feed}, {work.example_bytes:,.0f} bytes each, {size} in all"
    yield (
        f"measured on {plan.device}, XLA {'on' if plan.jit else 'off'}: {format_ms(step.seconds)} a step of "
        f"{step.batch:,} = {format_ms(compute.fixed)} + {1e6 * compute.slope:.2f} us an example; "
        f"{step.examples_per_second:,.0f} examples/s; {format_duration(step.epoch_s)} an epoch, "
        f"{format_duration(step.finish_s)} to the end; a checkpoint is copied in {format_ms(measured.snapshot_s)} and "
        f"written in {format_ms(measured.write_s)}"
    )
    if measured.network:
        yield (
            f"measured between two processes: {format_bytes(measured.network.bandwidth)}/s, "
            f"{format_ms(measured.network.latency_s)} a message"
        )


def _draw_rates(rates: Sequence[tuple[int, float]]) -> str:
    """Draw the learning rate over the training in one line."""
    values = [rate for _, rate in rates]
    highest = max(values)
    if min(values) == highest:
        return f"learning rate {highest:.3g}"
    # A rate of 0 is a blank, so that a part of the training in which nothing is learned is seen.
    bars = "".join(_BARS[math.ceil((len(_BARS) - 1) * rate / highest)] for rate in values)
    return f"learning rate {values[0]:.3g} |{bars}| {values[-1]:.3g}, at most {highest:.3g}"


def _make_step_row(step: StepTime) -> list[object]:
    parts = [step.seconds, step.compute_s, step.exchange_s, step.input_s, step.checkpoint_s]
    return [
        step.replicas, step.batch, *(round(1e3 * part, 4) for part in parts), round(step.examples_per_second),
        step.efficiency, format_duration(step.finish_s), "measured" if step.measured else "predicted",
    ]  # fmt: skip
