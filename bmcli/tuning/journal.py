"""What happened in a search, in order: the file from which one that was killed goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli import disk, records
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.trials import Json, Task, TrialResult


@dataclass(frozen=True)
class SearchStarted:
    """A process began or took up the search."""


@dataclass(frozen=True)
class CandidateRequested:
    """The oracle was asked for a candidate.

    Args:
        answer: The task that became of it, `wait`, or `over`.
    """

    answer: Task | str


@dataclass(frozen=True)
class ConfirmationStarted:
    """A task that trains one of the best trials again was offered.

    Args:
        trial: Name of the trial.
    """

    trial: str
    task: Task


@dataclass(frozen=True)
class TaskEnded:
    """A task ended."""

    result: TrialResult


JournalEvent = SearchStarted | CandidateRequested | ConfirmationStarted | TaskEnded


_AGAIN = "Start a new search."


class Journal:
    """Events of one search, one JSON object a line, written to the disk before anything follows from them.

    A line that a crash has torn is the last one, and of what nothing followed.

    Args:
        study_id: Of the search, which every line carries.
    """

    def __init__(self, path: Path, study_id: str) -> None:
        self._path, self._study_id = path, study_id

    def events(self) -> list[tuple[float, JournalEvent]]:
        """Everything that happened so far, with its time in seconds since 1970.

        Raises:
            BmcliError: A line other than a torn last one is damaged.
        """
        return list(self._read())

    def add(self, event: JournalEvent) -> None:
        """Appends an event; a torn line before it is cut off."""
        line = records.encode_record_line(
            records.to_json_value({"at": round(time.time(), 3), "study_id": self._study_id, **_event_to_json(event)})
        )
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(self._path, flags, 0o666), "ab+") as file:
            file.truncate(self._count_whole_bytes(file))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _count_whole_bytes(file: Any) -> int:
        """Bytes of the lines that are whole."""
        file.seek(0)
        return file.read().rfind(b"\n") + 1

    def _read(self) -> Iterator[tuple[float, JournalEvent]]:
        try:
            lines = disk.read_file(self._path).split(b"\n")
        except FileNotFoundError:
            return
        except (OSError, disk.DamagedFile) as error:
            raise BmcliError(f"{format_path(self._path)}: damaged ({error}).", suggestion=_AGAIN) from None
        for number, line in enumerate(lines[:-1], start=1):
            try:
                value = records.parse_record(line)
                if value["study_id"] != self._study_id:
                    raise disk.DamagedFile("of another search")
                yield float(value["at"]), _event_from_json(value)
            except (ValueError, KeyError, TypeError):
                raise BmcliError(f"{format_path(self._path)}:{number}: damaged.", suggestion=_AGAIN) from None


def _event_to_json(event: JournalEvent) -> Json:
    match event:
        case SearchStarted():
            return {"event": "begun"}
        case CandidateRequested(answer):
            return {"event": "asked", "answer": answer if isinstance(answer, str) else answer.to_json()}
        case ConfirmationStarted(trial, task):
            return {"event": "confirming", "trial": trial, "task": task.to_json()}
        case TaskEnded(result):
            return {"event": "ended", "result": result.to_json()}


def _event_from_json(value: Json) -> JournalEvent:
    match value["event"]:
        case "begun":
            return SearchStarted()
        case "asked":
            answer = value["answer"]
            return CandidateRequested(answer if isinstance(answer, str) else Task.from_json(answer))
        case "confirming":
            return ConfirmationStarted(value["trial"], Task.from_json(value["task"]))
        case "ended":
            return TaskEnded(TrialResult.from_json(value["result"]))
    raise ValueError(f"no event {value['event']!r}")
