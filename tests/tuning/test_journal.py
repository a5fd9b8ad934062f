"""Journals return the written events, also after a crash that tore the last line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli.errors import BmcliError
from bmcli.trials import Task, TrialResult
from bmcli.tuning.journal import (
    CandidateRequested,
    ConfirmationStarted,
    Journal,
    JournalEvent,
    RecipeOffered,
    SearchStarted,
    TaskEnded,
)

TASK = Task("0000", {"model.hidden": [32, 16], "train.optimizer.learning_rate": 1e-3}, 3, None, (None, 0.5))
EVENTS: list[JournalEvent] = [
    SearchStarted(),
    RecipeOffered(TASK),
    CandidateRequested(TASK),
    CandidateRequested("wait"),
    TaskEnded(TrialResult("0000", "done", {"validation/loss": 0.25}, (0.5, None), {"train/loss": 0.2}, 3, 1.5)),
    TaskEnded(TrialResult("0001", "failed", reason="ümlaut\nand a line")),
    ConfirmationStarted("0000", TASK),
    CandidateRequested("over"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.jsonl", "id")
    for event in EVENTS:
        journal.add(event)
    return tmp_path / "journal.jsonl"


def read(path: Path) -> list[JournalEvent]:
    return [event for _, event in Journal(path, "id").read_events()]


def test_events_are_read_as_they_were_written(path: Path) -> None:
    assert read(path) == EVENTS
    times = [at for at, _ in Journal(path, "id").read_events()]
    assert times == sorted(times)


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == []


def test_a_torn_last_line_is_left_out_and_written_over(path: Path) -> None:
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert read(path) == EVENTS[:-1]
        Journal(path, "id").add(EVENTS[-1])
        assert read(path) == EVENTS


@pytest.mark.parametrize(
    "damage", [b"{}", b'{"at": 1, "event": "none"}', b"\xff", b"[1]", b'{"at": 1, "event": "candidate"}']
)
def test_a_damaged_line_is_told(path: Path, damage: bytes) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    with pytest.raises(BmcliError, match=r"journal\.jsonl:2: damaged"):
        read(path)
