"""Report section on exported artefacts: size, agreement with the model, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bmcli.disk import DamagedFile
from bmcli.printable import clean
from bmcli.records import validate_as
from bmcli.reports.costs import Cost
from bmcli.reports.page import Cell, Heading, Row, format_number, make_number_cell

_KIB = 2**10


@dataclass(frozen=True)
class ArtefactSummary:
    """Summary of an artefact's card.

    Args:
        name: Of its folder, which begins with the name of its format.
        agreement: Share of the rows with the same decision as the model's; None if it could not be run.
        difference: Largest difference from the model's outputs; None if it is undefined or not finite.
        samples, split: Number of rows and split of the verification.
        metric: Name, value of the model, value of the artefact; None if there is none.
        failures: Reasons of a rejection.
        comparison: What was compared beside its limits, and what was not, as sentences.
        model_sha256: SHA-256 of the model that it was exported from.
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
    comparison: tuple[str, ...]
    model_sha256: str

    @classmethod
    def from_card(cls, name: str, card: Mapping[str, Any]) -> ArtefactSummary:
        """Make the summary from the JSON of a card.

        Raises:
            DamagedFile: It is not a card.
        """
        try:
            return validate_as(cls, cls._values(name, card))
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedFile(f"not a card: {error}") from None

    @staticmethod
    def _values(name: str, card: Mapping[str, Any]) -> dict[str, Any]:
        verification = card["verification"]
        metric = next(((key, each["model"], each["artefact"]) for key, each in verification["metrics"].items()), None)
        return {
            "name": name, "bytes": card["bytes"], "gzip_bytes": card["gzip_bytes"],
            "difference": verification["max_difference"], "metric": metric,
            **{key: verification[key] for key in ("verified", "agreement", "samples", "split", "failures")},
            "comparison": verification["summary"], "model_sha256": card["lineage"]["model_sha256"],
        }  # fmt: skip


ARTEFACT_HEADINGS = [
    Heading("artefact"), Heading("verification"), Heading("size, KiB", True), Heading("gzip, KiB", True),
    Heading("agreement", True), Heading("largest difference", True), Heading("metric (model's in brackets)", True),
]  # fmt: skip
COST_HEADINGS = [
    Heading("artefact"), Heading("loading, s", True), Heading("median latency of one row, ms", True),
    Heading("95th percentile, ms", True), Heading("rows per second", True), Heading("peak memory, MiB", True),
]  # fmt: skip


def make_artefact_rows(artefacts: Sequence[ArtefactSummary], model_sha256: str) -> list[Row]:
    """Make a row for each artefact.

    Args:
        model_sha256: SHA-256 of the run's current model.
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


def describe_comparisons(artefacts: Sequence[ArtefactSummary]) -> list[tuple[str, list[str]]]:
    """Pair the name of each artefact with the sentences about its comparison."""
    return [(clean(each.name), [clean(text) for text in each.comparison]) for each in artefacts if each.comparison]


def _make_metric_cell(each: ArtefactSummary) -> Cell:
    if each.metric is None:
        return make_number_cell(None)
    name, model_value, artefact_value = each.metric
    return make_number_cell(
        artefact_value, f"{clean(name)} {format_number(artefact_value)} ({format_number(model_value)})"
    )


def _make_verdict_cell(each: ArtefactSummary, model_sha256: str) -> Cell:
    if each.verified:
        return (
            Cell("verified", "done")
            if each.model_sha256 == model_sha256
            else Cell("verified, but of earlier weights", "failed")
        )
    return Cell(clean(f"rejected: {' '.join(each.failures)}"), "failed long")


def make_cost_rows(costs: Sequence[Cost]) -> list[Row]:
    """Make a row with the measured cost of each artefact."""
    return [
        Row((
            Cell(clean(each.name)),
            *(
                make_number_cell(value, format_number(value))
                for value in (
                    each.load_s, 1e3 * each.latencies[0].median_s, 1e3 * each.latencies[0].p95_s, each.rows_per_second,
                )
            ),
            make_number_cell(each.peak_bytes / 2**20, f"{each.peak_bytes / 2**20:,.0f}"),
        ))
        for each in costs
    ]  # fmt: skip
