"""Texts that were generated; messages go to standard error, since the texts may be on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path

if TYPE_CHECKING:
    from bmcli.commands.generate import GenerationResult
    from bmcli.terminal.console import Console


def to_json(result: GenerationResult) -> dict[str, Any]:
    return {
        "run": str(result.run),
        "output": None if result.output is None else str(result.output),
        "texts": [text.to_json() for text in result.texts],
        "count": result.count,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
        "cached": result.is_cached,
        "notes": list(result.notes),
    }


def print_result(console: Console, result: GenerationResult) -> None:
    if not result.is_shown:
        for number, text in enumerate(result.texts):
            console.print_text(("\n" if number else "") + text.prompt + text.written.text)
    for note in result.notes:
        console.log(f"note: {note}")
    where = "" if result.output is None else f" to {format_path(result.output)}"
    texts = "1 text" if result.count == 1 else f"{result.count:,} texts"
    speed = result.tokens / max(result.seconds, 1e-9)
    console.log(f"{texts} of {result.tokens:,} tokens{where}; {result.seconds:.1f} s, {speed:,.0f} tokens/s")
