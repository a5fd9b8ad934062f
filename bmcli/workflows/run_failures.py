"""Record in a run, a search or a distillation how its work was interrupted or failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from bmcli import disk, runs, stopping
from bmcli.advice import Command
from bmcli.errors import Interrupted, RunFailed
from bmcli.runs import Run


def _discard_if_empty(run: Run) -> None:
    """Remove a run that has neither a checkpoint nor a model, which also frees its part of a full disk."""
    if run.resume_advice is None and not run.model.exists():
        runs.discard(run)


@contextlib.contextmanager
def record_failure(run: Run) -> Iterator[None]:
    """Record in the run how the body failed.

    A status that cannot be written is dropped, since the disk may be the cause of the failure. A run whose status is
    "running" without a process that holds its lock counts as crashed.
    """

    def record_interruption(message: str | None) -> None:
        if run.resume_advice:
            run.set_status("interrupted", reason="interrupted; what was saved is kept.")
        _discard_if_empty(run)

    try:
        with stopping.resumable(lambda: run.resume_advice, record_interruption):
            yield
    except KeyboardInterrupt:
        _discard_if_empty(run)
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            run.set_status("interrupted" if isinstance(error, Interrupted) else "failed", reason=str(error))
        failure = disk.find_write_failure(error)
        if failure is None:
            raise
        write_error = _make_write_error(failure, run)  # before the run and its advice are gone
        _discard_if_empty(run)
        raise write_error from None


def _make_write_error(failure: disk.WriteFailure, run: Run) -> RunFailed:
    """Make an error of a write that the file system refused, with advice how to resume."""
    remedy, advice = disk.suggest_remedy(failure), run.resume_advice
    if advice:
        return RunFailed(str(failure), suggestion=f"Everything written before is intact. {remedy} {advice}")
    return RunFailed(str(failure), suggestion=f"{remedy} Then train again.")


class StatusFolder(Protocol):
    """A folder with a status file: a search or a distillation."""

    def set_status(self, state: str, **details: Any) -> None: ...


@contextlib.contextmanager
def record_end(folder: StatusFolder, resume_command: Command, message: str) -> Iterator[None]:
    """Record in a folder that the body was interrupted or failed; a status that cannot be written is dropped.

    Args:
        resume_command: Command that resumes the work.
        message: Message of the interruption.

    Raises:
        Interrupted: The body was interrupted; with the message, and advice how to resume.
    """
    advice = stopping.format_resume_advice(resume_command)
    try:
        with stopping.resumable(lambda: advice, lambda _: folder.set_status("interrupted")):
            yield
    except Interrupted:
        with contextlib.suppress(OSError):
            folder.set_status("interrupted")
        raise Interrupted(message, suggestion=advice) from None
    except Exception as error:
        with contextlib.suppress(OSError):
            folder.set_status("failed", reason=str(error))
        raise
