"""Faults a user can mend, and the exit code each kind of failure ends with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class FileLocation:
    """A spot in a file: lines and columns count from 1, `text` is the whole line."""

    file: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what to do about it.

    Args:
        message: What came and what was expected, as one or two sentences.
        path: Dotted path in the recipe (`train.optimizer.kind`), empty if the fault is not in the recipe.
        place: Where it stands; filled in from `path` by the recipe that knows its files.
        suggestion: The next step, as a sentence of its own.
        file: Of data, with which the message begins; empty if it names none.
    """

    message: str
    path: str = ""
    place: FileLocation | None = None
    suggestion: str = ""
    file: str = ""

    def at(self, place: FileLocation | None) -> Fault:
        return replace(self, place=self.place or place)

    def of(self, file: str) -> Fault:
        """The same fault, said of a file of data unless it names one already."""
        return self if self.file or not file else replace(self, message=f"{file}: {self.message}", file=file)


class BmcliError(Exception):
    """A user's mistake or a failure of the world: shown without a traceback.

    Raise it with a message, or with every `Fault` found at once.
    """

    exit_code = 2

    def __init__(self, *faults: Fault | str, path: str = "", suggestion: str = "") -> None:
        self.faults = tuple(
            Fault(fault, path=path, suggestion=suggestion) if isinstance(fault, str) else fault for fault in faults
        )
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(fault.message for fault in self.faults)


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Says the faults of data that are raised inside of a file, where they do not name one themselves.

    Args:
        file: Its path as a user knows it, or several; empty if there is none, and nothing is changed.
    """
    try:
        yield
    except BmcliError as error:
        if type(error) is BmcliError:  # failures of other kinds are not of the data
            error.faults = tuple(fault.of(file) for fault in error.faults)
        raise


class RunFailed(BmcliError):
    """Training or evaluation broke down while running."""

    exit_code = 1


class WorkerLost(RunFailed):
    """Another worker of a training was lost before there was anything to go on from."""


class GateMissed(BmcliError):
    """A metric is worse than the recipe allows."""

    exit_code = 3


class ArtefactRejected(BmcliError):
    """An artefact is not what was trained, or not what was written."""

    exit_code = 4


class Interrupted(BmcliError):
    """Stopped by a signal, with the state saved: the run can be resumed."""

    exit_code = 75
