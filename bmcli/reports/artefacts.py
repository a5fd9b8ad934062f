"""The part of a report that tells what was exported: size, agreement with the model, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bmcli.disk import DamagedFile, validate_as
from bmcli.printable import clean
from bmcli.reports.costs import Cost
from bmcli.reports.page import Cell, Heading, Row, format_number, make_number_cell

_KIB = 2**10


@dataclass(frozen=True)
class ArtefactSummary:
    """An artefact as its card tells it.

    Args:
        name: Of its folder, which begins with that of its format.
        agreement: Share of the rows that it decides as the model does; None if it could not be run.
        difference: The largest from the model; None if it is not finite, or there is none.
        samples, split: What it was compared on.
        metric: Name, value of the model, value of the artefact; None if it has none.
        failures: Why it was rejected.
        model: SHA-256 of the model that it was made from.
    """

    name: str
    bytes: int
    gzip_bytes: int
    verified: bool
    agreement: float | None
    difference: float | None
    samples: int
    split: str
    metric: tuple[str, float, float] | None
    failures: tuple[str, ...]
    model: str

    @classmethod
    def from_card(cls, name: str, card: Mapping[str, Any]) -> ArtefactSummary:
        """From the JSON of a card.

        Raises:
            Damaged: It is not what a card is.
        """
        try:
            return validate_as(cls, cls._values(name, card))
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedFile(f"not a card: {error}") from None

    @staticmethod
    def _values(name: str, card: Mapping[str, Any]) -> dict[str, Any]:
        found = card["verification"]
        metric = next(((key, each["model"], each["artefact"]) for key, each in found["metrics"].items()), None)
        return {
            "name": name, "bytes": card["bytes"], "gzip_bytes": card["gzip_bytes"], "verified": found["verified"],
            "agreement": found["agreement"], "difference": found["max_difference"], "samples": found["samples"],
            "split": found["split"], "metric": metric, "failures": found["failures"],
            "model": card["lineage"]["model_sha256"],
        }  # fmt: skip


ARTEFACT_HEADINGS = [
    Heading("artefact"), Heading("verdict"), Heading("KiB", True), Heading("as gzip", True),
    Heading("agreement", True), Heading("largest difference", True), Heading("metric (of the model)", True),
]  # fmt: skip
COST_HEADINGS = [
    Heading("artefact"), Heading("load, s", True), Heading("one row, ms", True), Heading("95 % below, ms", True),
    Heading("rows a second", True), Heading("peak memory, MiB", True),
]  # fmt: skip


def make_artefact_rows(artefacts: Sequence[ArtefactSummary], model_sha256: str) -> list[Row]:
    """A row for each artefact.

    Args:
        model_sha256: SHA-256 of the run's model as it is now.
    """
    return [
        Row((
            Cell(clean(each.name)),
            _make_verdict_cell(each, model_sha256),
            make_number_cell(each.bytes / _KIB, f"{each.bytes / _KIB:,.1f}"),
            make_number_cell(each.gzip_bytes / _KIB, f"{each.gzip_bytes / _KIB:,.1f}"),
            make_number_cell(each.agreement, None if each.agreement is None else f"{100 * each.agreement:.2f} %"),
            make_number_cell(each.difference),
            _make_metric_cell(each),
        ))
        for each in artefacts
    ]  # fmt: skip


def _make_metric_cell(each: ArtefactSummary) -> Cell:
    if each.metric is None:
        return make_number_cell(None)
    name, of_model, own = each.metric
    return make_number_cell(own, f"{clean(name)} {format_number(own)} ({format_number(of_model)})")


def _make_verdict_cell(each: ArtefactSummary, model: str) -> Cell:
    if each.verified:
        return Cell("verified", "done") if each.model == model else Cell("verified, of earlier weights", "failed")
    return Cell(clean(f"rejected: {' '.join(each.failures)}"), "failed long")


def make_cost_rows(found: Sequence[Cost]) -> list[Row]:
    """What each artefact costs to run."""
    return [
        Row((
            Cell(clean(each.name)), make_number_cell(each.load_s), make_number_cell(1e3 * each.latencies[0].median_s),
            make_number_cell(1e3 * each.latencies[0].p95_s), make_number_cell(each.rows_per_second),
            make_number_cell(each.peak_bytes / 2**20, f"{each.peak_bytes / 2**20:,.0f}"),
        ))
        for each in found
    ]  # fmt: skip
