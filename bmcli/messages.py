"""Messages and faults on standard error, as text or as the JSON object of `--json`.

Rooms below the terminal, and processes without one, write with these functions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO

from bmcli.errors import BmcliError, Fault
from bmcli.native_output import restore_native_stderr
from bmcli.printable import clean
from bmcli.quoting import brief
from bmcli.records import to_json_value
from bmcli.redaction import redact_text

MAX_FAULTS = 100
MAX_MESSAGE_LENGTH = 2000
_INDENTED = "\n    "
_SHOW_CURSOR = "\x1b[?25h"


def write_text(text: str, stream: TextIO) -> None:
    """Write a text in the encoding of a stream; characters that it lacks are replaced."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def write_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object on standard output; null stands for numbers that are not finite, which JSON lacks."""
    sys.stdout.write(json.dumps(to_json_value(value), ensure_ascii=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def write_message(text: str, level: int = 0) -> None:
    """Write a line on standard error, without secrets and control characters; details, above level 0, are left out."""
    if level <= 0:
        write_text(clean(redact_text(text)) + "\n", sys.stderr)


def write_faults(error: BmcliError, as_json: bool = False) -> None:
    """Write all faults with their places.

    Args:
        as_json: Write them on standard output too, as one object.
    """
    if as_json:
        write_json({"faults": [fault_to_json(fault) for fault in error.faults]})
    for fault in error.faults[:MAX_FAULTS]:
        write_text(format_fault(fault) + "\n", sys.stderr)
    if len(error.faults) > 1:
        first = f" The first {MAX_FAULTS} are shown." if len(error.faults) > MAX_FAULTS else ""
        write_text(f"{len(error.faults)} faults.{first}\n", sys.stderr)


def uncover_stderr() -> None:
    """Undo what hides standard error, for another thread than the main one that is about to end the process."""
    restore_native_stderr()
    if sys.stderr.isatty():
        write_text(f"{_SHOW_CURSOR}\n", sys.stderr)  # a progress display hides it


def format_fault(fault: Fault) -> str:
    """Join place, path, message and suggestion; below them stands the line of the recipe with a caret."""
    where = f"{fault.place}  " if fault.place else ""
    path = f"{brief(fault.path)}: " if fault.path else ""
    suggestion = f" {_redact_message(fault.suggestion)}" if fault.suggestion else ""
    text = clean(f"{where}{path}{_redact_message(fault.message)}{suggestion}")
    if fault.place is None or not fault.place.text:
        return text
    # A long line is cut around the caret.
    start = max(0, fault.place.column - 60)
    line = clean(_redact_line(fault.place.text)[start : start + 100].replace("\t", " "))
    return f"{text}\n    {line}\n    {' ' * (fault.place.column - 1 - start)}^"


def fault_to_json(fault: Fault) -> dict[str, Any]:
    place = fault.place
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "path": brief(fault.path, MAX_MESSAGE_LENGTH),
        "message": _redact_message(fault.message),
        "suggestion": _redact_message(fault.suggestion),
    }


def format_duration(seconds: float) -> str:
    """Format a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@lru_cache(maxsize=16)  # many faults may stand in one line
def _redact_line(text: str) -> str:
    return redact_text(text)


def _redact_message(text: str) -> str:
    """Hide secrets in a message and cut it; its lines stay, without control characters."""
    text = redact_text(text)
    lines = text[:MAX_MESSAGE_LENGTH].split(_INDENTED)
    return _INDENTED.join(brief(line, MAX_MESSAGE_LENGTH) for line in lines) + (
        "..." if text[MAX_MESSAGE_LENGTH:] else ""
    )
