"""The artefacts of a run, and how each compares with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.terminal.formats import format_bytes

if TYPE_CHECKING:
    from bmcli.commands.export import ExportedArtefact, ExportResult
    from bmcli.terminal.console import Console


def to_json(result: ExportResult) -> dict[str, Any]:
    return {
        "run": str(result.run.folder),
        "artefacts": [_artefact_to_json(each) for each in result.artefacts],
        "failed": [{"format": name, "message": str(error)} for name, error in result.failed.items()],
    }


def _artefact_to_json(artefact: ExportedArtefact) -> dict[str, Any]:
    found = artefact.verification
    return {
        "format": artefact.format_name,
        "path": str(artefact.path),
        "verified": found.verified,
        "agreement": found.agreement,
        "max_difference": found.max_difference,
        "metrics": {name: {"model": m, "artefact": a} for name, (m, a) in found.metrics.items()},
        "failures": list(found.failures),
        "comparison": list(found.summary),
        "bytes": artefact.bytes,
        "gzip_bytes": artefact.gzip_bytes,
    }


def print_result(console: Console, result: ExportResult) -> None:
    names = next((list(each.verification.metrics) for each in result.artefacts if each.verification.metrics), [])
    metric = f"{names[0]} (of the model)" if names else "metric"
    rows = [_make_row(each) for each in result.artefacts]
    rows += [[name, "NOT WRITTEN", *["-"] * 5] for name in result.failed]
    console.print_table("", ["format", "verified", "agreement", "difference", metric, "size", "gzip"], rows)
    for each in result.artefacts:
        sentences = "".join(f"\n  {sentence}" for sentence in each.verification.summary)
        if sentences:
            console.print_text(f"{each.format_name}, compared with the model:{sentences}")
    console.print_text("\n".join(f"wrote {format_path(each.path)}" for each in result.artefacts))


def _make_row(artefact: ExportedArtefact) -> list[str]:
    found = artefact.verification
    metric = next((f"{value:.4f} ({of_model:.4f})" for of_model, value in found.metrics.values()), "-")
    return [
        artefact.format_name,
        "yes" if found.verified else "REJECTED",
        "-" if found.agreement is None else f"{found.agreement:.2%}",
        "-" if found.max_difference is None else f"{found.max_difference:.1e}",
        metric,
        format_bytes(artefact.bytes),
        format_bytes(artefact.gzip_bytes),
    ]
