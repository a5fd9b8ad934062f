"""Output that C++ libraries write to the file descriptor of standard error, past `sys.stderr`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_hidden: list[int] = []
"""Copies of the descriptor of standard error while it leads elsewhere, the outermost first."""


@contextlib.contextmanager
def hide_native_stderr() -> Iterator[None]:
    """Hide what C++ libraries write to standard error while they start, unless the body fails.

    TensorFlow writes before it reads its log level, so only the file descriptor itself can be redirected.
    """
    import tempfile

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    _hidden.append(kept)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(kept, 2)
            aside.seek(0)
            os.write(2, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            _hidden.remove(kept)
            os.close(kept)


def restore_native_stderr() -> None:
    """Let standard error be seen again, for another thread than the one that hides it."""
    for kept in _hidden[:1]:
        os.dup2(kept, 2)
