"""Journal of the events of a search, from which an interrupted or killed search is resumed."""

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
    """A process started or resumed the search."""


@dataclass(frozen=True)
class RecipeOffered:
    """The task was offered that trains the recipe as it is written."""

    task: Task


@dataclass(frozen=True)
class CandidateRequested:
    """A candidate was requested from the oracle.

    Args:
        answer: The task made of the candidate; `wait` or `over` if there was none.
    """

    answer: Task | str


@dataclass(frozen=True)
class ConfirmationStarted:
    """A task was offered that trains the candidate of one of the best trials again.

    Args:
        trial: Name of the trial.
    """

    trial: str
    task: Task


@dataclass(frozen=True)
class TaskEnded:
    """A task ended."""

    result: TrialResult


JournalEvent = SearchStarted | RecipeOffered | CandidateRequested | ConfirmationStarted | TaskEnded


_START_NEW_SEARCH = "Start a new search."


class Journal:
    """Events of one search, one JSON object per line, on the disk before the search acts on them.

    Only the last line can be torn by a crash, and the search has not acted on it.

    Args:
        study_id: Id of the study, which every line carries.
    """

    def __init__(self, path: Path, study_id: str) -> None:
        self._path, self._study_id = path, study_id

    def read_events(self) -> list[tuple[float, JournalEvent]]:
        """Read all events, with their times in seconds since 1970.

        Raises:
            BmcliError: A line other than a torn last one is damaged.
        """
        return list(self._iterate_events())

    def add(self, event: JournalEvent) -> None:
        """Append an event; a torn line before it is cut off."""
        line = records.encode_record_line(
            records.to_json_value({"at": round(time.time(), 3), "study_id": self._study_id, **_event_to_json(event)})
        )
        # The folder may be shared: a link or a pipe that somebody else left there is not followed or waited for.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(self._path, flags, 0o666), "ab+") as file:
            file.truncate(self._count_whole_bytes(file))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _count_whole_bytes(file: Any) -> int:
        """Count the bytes of complete lines."""
        file.seek(0)
        return file.read().rfind(b"\n") + 1

    def _iterate_events(self) -> Iterator[tuple[float, JournalEvent]]:
        try:
            lines = disk.read_file(self._path).split(b"\n")
        except FileNotFoundError:
            return
        except (OSError, disk.DamagedFile) as error:
            raise BmcliError(f"{format_path(self._path)}: damaged ({error}).", suggestion=_START_NEW_SEARCH) from None
        # Behind the last line break is a torn line, or nothing.
        for number, line in enumerate(lines[:-1], start=1):
            try:
                value = records.parse_record(line)
                if value["study_id"] != self._study_id:
                    raise disk.DamagedFile("of another search")
                yield float(value["at"]), _event_from_json(value)
            except (ValueError, KeyError, TypeError):
                raise BmcliError(
                    f"{format_path(self._path)}:{number}: damaged.", suggestion=_START_NEW_SEARCH
                ) from None


def _event_to_json(event: JournalEvent) -> Json:
    match event:
        case SearchStarted():
            return {"event": "start"}
        case RecipeOffered(task):
            return {"event": "recipe", "task": task.to_json()}
        case CandidateRequested(answer):
            return {"event": "candidate", "answer": answer if isinstance(answer, str) else answer.to_json()}
        case ConfirmationStarted(trial, task):
            return {"event": "confirmation", "trial": trial, "task": task.to_json()}
        case TaskEnded(result):
            return {"event": "end", "result": result.to_json()}


def _event_from_json(value: Json) -> JournalEvent:
    match value["event"]:
        case "start":
            return SearchStarted()
        case "recipe":
            return RecipeOffered(Task.from_json(value["task"]))
        case "candidate":
            answer = value["answer"]
            return CandidateRequested(answer if isinstance(answer, str) else Task.from_json(answer))
        case "confirmation":
            return ConfirmationStarted(value["trial"], Task.from_json(value["task"]))
        case "end":
            return TaskEnded(TrialResult.from_json(value["result"]))
    raise ValueError(f"unknown event {value['event']!r}")
