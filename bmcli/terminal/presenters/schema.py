"""The JSON schema of recipes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.terminal.console import Console


def to_json(result: dict[str, Any]) -> dict[str, Any]:
    return result


def print_result(console: Console, result: dict[str, Any]) -> None:
    console.print_text(json.dumps(result, indent=2))
