"""Benchmark of artefacts: each runs in a separate process, and all take turns."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import inputs
from bmcli.errors import ArtefactRejected
from bmcli.export.encoder_files import write_files
from bmcli.export.worker import ArtefactWorker, WorkerFailed, start_worker
from bmcli.reports.costs import Cost, Latency
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import numpy as np

BATCHES = (1, 32)
_CALLS_PER_TURN = {1: 50, 32: 20}  # of one turn, by batch size
_MAX_TURN_S = 2.0


@dataclass(frozen=True)
class BenchmarkTarget:
    """An artefact to measure.

    Args:
        folder: Of the artefact, with its card.
        uses_int8: Whether it computes in int8.
    """

    name: str
    folder: Path
    spec: DataSpec
    bytes: int
    gzip_bytes: int
    metric: tuple[str, float] | None
    uses_int8: bool = False


def measure_costs(candidates: Sequence[BenchmarkTarget], repeats: int) -> list[Cost]:
    """Measure costs of some artefacts in turns, so that other load of the machine affects all of them equally.

    Raises:
        ArtefactRejected: One cannot be run.
    """
    with contextlib.ExitStack() as stack:
        workers = [(each, _start_worker(each, stack)) for each in candidates]
        seconds_by_call: dict[tuple[str, int], list[float]] = {
            (str(each.folder), batch): [] for each in candidates for batch in BATCHES
        }
        for turn in range(repeats + 1):
            for each, (worker, rows) in workers:
                for batch in BATCHES:
                    seconds_of_turn = _time_calls(worker, each, rows[batch], batch)
                    seconds_by_call[str(each.folder), batch] += (
                        seconds_of_turn if turn else []
                    )  # the first turn warms up
        return [
            _summarize_cost(each, worker, {batch: seconds_by_call[str(each.folder), batch] for batch in BATCHES})
            for each, (worker, _) in workers
        ]


def _start_worker(candidate: BenchmarkTarget, stack: contextlib.ExitStack) -> tuple[ArtefactWorker, dict[int, Path]]:
    try:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bmcli-")))
        worker = stack.enter_context(start_worker(candidate.folder, write_files(candidate.spec.inputs, scratch)))
    except WorkerFailed as error:
        raise ArtefactRejected(f"{candidate.folder}: cannot be loaded: {error}.") from None
    try:
        rows = {batch: make_rows(candidate.spec, batch) for batch in BATCHES}
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise ArtefactRejected(f"{candidate.folder}: no rows fit its preprocessing: {error}.") from None
    return worker, {batch: worker.write_rows(each) for batch, each in rows.items()}


def _time_calls(worker: ArtefactWorker, candidate: BenchmarkTarget, rows: Path, batch: int) -> list[float]:
    try:
        return worker.time_calls(rows, _CALLS_PER_TURN[batch], _MAX_TURN_S)
    except WorkerFailed as error:
        raise ArtefactRejected(f"{candidate.folder}: cannot be run: {error}.") from None


def _summarize_cost(
    candidate: BenchmarkTarget, worker: ArtefactWorker, seconds_by_batch: Mapping[int, Sequence[float]]
) -> Cost:
    import numpy as np

    latencies = []
    for batch, seconds in seconds_by_batch.items():
        median, p95, p99 = np.quantile(seconds, (0.5, 0.95, 0.99)).tolist()
        latencies.append(Latency(batch, median, p95, p99, len(seconds)))
    return Cost(
        candidate.name, candidate.bytes, candidate.gzip_bytes, worker.load_s, tuple(latencies),
        worker.read_state()["peak_bytes"], candidate.metric,
    )  # fmt: skip


def make_rows(spec: DataSpec, count: int) -> dict[str, np.ndarray]:
    """Make random rows that resemble the training rows, from the fitted preprocessing alone, without data."""
    import numpy as np

    generator = np.random.default_rng(0)
    return {column.name: inputs.get_traits(column).make_random_cells(count, generator) for column in spec.inputs}
