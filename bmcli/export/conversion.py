"""Converters of other packages: their failures in one line, and all that they write in a log."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from bmcli.disk import format_path
from bmcli.errors import RunFailed
from bmcli.native_output import redirect_native_stderr
from bmcli.printable import clean
from bmcli.quoting import shortened

_MAX_REASON_LENGTH = 300  # characters


@contextlib.contextmanager
def run_converter(name: str, folder: Path) -> Iterator[None]:
    """Run a converter in the body; its output, which may be pages of compiler text, goes to a log.

    The log is beside the folder of the artefact, as `litert-conversion.log`, and is kept only if the converter fails.

    Args:
        name: Of the artefact.
        folder: Into which the artefact is written.

    Raises:
        RunFailed: The converter raised an exception, of any type.
    """
    log = folder.parent / f"{name}-conversion.log"
    with log.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        try:
            with redirect_native_stderr(stream.fileno()):
                yield
        except Exception as error:
            stream.seek(0, os.SEEK_END)  # behind what was written past this stream
            traceback.print_exception(error, file=stream)
            raise RunFailed(
                f"{name} cannot represent this network: {_find_reason(error)} All that the converter wrote is in "
                f"{format_path(log)}.",
                suggestion="Use saved_model.",
            ) from None
    log.unlink()


def _find_reason(error: Exception) -> str:
    """Find the line of a converter's text that names the error, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = next((line for line in lines if "error:" in line), lines[0])
    return shortened(clean(reason).rstrip("."), _MAX_REASON_LENGTH) + "."
