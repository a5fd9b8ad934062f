"""An explanation: importance of columns, attributions, and whether the methods pass their sanity checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path

if TYPE_CHECKING:
    from bmcli.commands.explain import ExplanationResult
    from bmcli.evaluation.explanation_record import Explanation, TargetExplanation
    from bmcli.terminal.console import Console

MAX_COLUMNS = 20
MAX_SHARES = 10


def to_json(result: ExplanationResult) -> dict[str, Any]:
    return {"run": str(result.run.folder), "explanation": result.explanation.to_json()}


def print_result(console: Console, result: ExplanationResult) -> None:
    for target in result.explanation.targets:
        _print_importances(console, target, result.explanation)
        console.print_text("")
        if len(target.shares) > 1:
            shares = [[each.feature, f"{100 * each.share:.1f} %"] for each in target.shares[:MAX_SHARES]]
            console.print_table("share of the attributions (integrated gradients)", ["feature", "share"], shares)
            console.print_text("")
        _print_sanity_checks(console, target)
    console.print_text(f"\nwrote {format_path(result.run.explanation)}, {format_path(result.run.report)}")


def _print_importances(console: Console, target: TargetExplanation, explanation: Explanation) -> None:
    shown = target.importances[:MAX_COLUMNS]
    shares = target.compute_importance_shares()
    rows = [
        [each.column, each.increase, f"{100 * share:.1f} %", each.low, each.high,
         "" if each.is_significant else "may be useless"]
        for each, share in zip(shown, shares, strict=False)
    ]  # fmt: skip
    title = f"{target.target}: permutation importance (increase in {target.loss})"
    columns = ["column", "increase", "share", "low", "high", ""]
    console.print_table(f"{title}, {explanation.rows:,} {explanation.split} rows", columns, rows)
    rest = target.importances[MAX_COLUMNS:]
    if rest:
        useless = sum(not each.is_significant for each in rest)
        console.print_text(
            f"{len(rest):,} more columns with a share of {100 * sum(shares[MAX_COLUMNS:]):.1f} %, of which {useless:,} "
            "may be useless; explanation.json lists all."
        )
    if explanation.left_out:
        console.print_text(
            f"The importance of {explanation.left_out:,} more columns was not measured: by integrated "
            "gradients they add less than these."
        )


def _print_sanity_checks(console: Console, target: TargetExplanation) -> None:
    console.print_table(
        "sanity check against random weights (Adebayo et al. 2018)",
        ["method", "figure", "value", "below", ""],
        [[s.method, s.figure, s.value, s.limit, "passed" if s.passed else "FAILED"] for s in target.sanity],
    )
    for each in target.sanity:
        if not each.passed:
            console.log(f"warning: {each.method} failed the sanity check: do not trust this ranking.")
