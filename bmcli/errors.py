"""Faults that a user can correct, and the exit code of each kind of failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class FileLocation:
    """Location in a file: lines and columns count from 1, `text` is the whole line."""

    file: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Fault:
    """One mistake in a recipe or in data, with a suggestion.

    Args:
        message: What was received and what was expected, in one or two sentences.
        path: Dotted path in the recipe (`train.optimizer.kind`), empty if the fault is not in the recipe.
        place: Location of `path` in a recipe file; filled in when the recipe is loaded.
        suggestion: The next step, as a separate sentence.
        file: The data file that begins the message; empty if the message names no file.
    """

    message: str
    path: str = ""
    place: FileLocation | None = None
    suggestion: str = ""
    file: str = ""

    def at(self, place: FileLocation | None) -> Fault:
        """Return the fault with a location, unless it already has one."""
        return replace(self, place=self.place or place)

    def without_place_in(self, file: str) -> Fault:
        """Return the fault without a location in a certain file."""
        return replace(self, place=None) if self.place is not None and self.place.file == file else self

    def in_file(self, file: str) -> Fault:
        """Return the fault with a data file before its message, unless the message already begins with one."""
        return self if self.file or not file else replace(self, message=f"{file}: {self.message}", file=file)


class BmcliError(Exception):
    """A mistake of the user or a failure of the environment: shown without a traceback.

    Raise it with one message, or with all faults that were found.
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
def prefix_faults(file: str) -> Iterator[None]:
    """Put a data file before the messages of faults that the block raises, where they name no file.

    Args:
        file: Path as the user wrote it, or several paths; with an empty text nothing is changed.
    """
    try:
        yield
    except BmcliError as error:
        # A subclass is another kind of failure, such as a lost worker, which is not a mistake in the file.
        if type(error) is BmcliError:
            error.faults = tuple(fault.in_file(file) for fault in error.faults)
        raise


class RunFailed(BmcliError):
    """Training or evaluation failed while running."""

    exit_code = 1


class WorkerLost(RunFailed):
    """Another worker process was lost before the first checkpoint, so there is nothing to resume."""


class GateMissed(BmcliError):
    """A metric is worse than the recipe allows."""

    exit_code = 3


class ArtefactRejected(BmcliError):
    """An artefact disagrees with the trained model, or was changed after it was written."""

    exit_code = 4


class Interrupted(BmcliError):
    """A signal stopped the command after its state was saved: the run can be resumed."""

    exit_code = 75
