"""A worker completes or releases every task, however the process that runs it ends.

What the children do here is a few lines without TensorFlow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from bmcli import training
from bmcli.trials import Task, TrialResult
from bmcli.tuning.study import Study
from bmcli.tuning.worker import TRIALS_PER_CHILD, list_recipes

from .conftest import MakeStudy, until

PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from bmcli.trials import TrialResult
from bmcli.tuning import worker
from bmcli.tuning.study import Study

worker.HEARTBEAT_S = 0.1
study = Study(Path(sys.argv[1]))

def note(text):
    with open(study.folder / "notes", "a") as file:
        file.write(text + "\\n")

def end_well(task):
    study.put_result(TrialResult(task.name, "done"))
    return 0
"""
Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(study: Study) -> Iterator[Start]:
    """Start a worker whose children run some code with a `task`."""
    processes = []

    def begin(code: str) -> subprocess.Popen[bytes]:
        body = textwrap.indent(textwrap.dedent(code), "    ")
        program = f"{PRELUDE}\ndef do(task):\n{body}\n\nworker.TrialWorker(study, do).work()\n"
        processes.append(subprocess.Popen([sys.executable, "-c", program, str(study.folder)]))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def notes(study: Study) -> list[str]:
    file = study.folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


def put(study: Study, *names: str, limit_s: float | None = None) -> None:
    for name in names:
        study.put_task(Task(name, {}, limit_s=limit_s))


def finished(study: Study, process: subprocess.Popen[bytes], *names: str) -> dict[str, TrialResult]:
    """Wait for the results of tasks, and return them."""
    until(lambda: all(study.has_result(name) for name in names))
    study.finish()
    assert process.wait(60) == 0
    assert study.list_live_workers() == []
    found = {name: study.read_result(name) for name in names}
    return {name: result for name, result in found.items() if result is not None}


ENDS = {
    "abort": ("os.abort()", "its process was killed by SIGABRT."),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", "its process was killed by SIGKILL, as happens when memory runs"),
    "exit": ("os._exit(7)", "its process ended with exit code 7."),
    "error": ("raise ValueError('x')", "its process ended with exit code 1."),
    "nothing": ("return 0", "its process ended with exit code 0."),
    "leaves": ("sys.exit(0)", "its process ended with exit code 1."),
}


def test_however_a_child_ends_its_task_has_a_result_and_the_worker_goes_on(study: Study, start: Start) -> None:
    put(study, *ENDS, "well")
    code = "".join(f"if task.name == {name!r}: {ends}\n" for name, (ends, _) in ENDS.items())
    results = finished(study, start(code + "return end_well(task)"), *ENDS, "well")
    for name, (_, reason) in ENDS.items():
        assert results[name].state == "failed"
        assert results[name].reason.startswith(reason), name
    assert results["well"].state == "done"


def test_a_child_does_a_few_tasks_and_one_that_failed_is_its_last(study: Study, start: Start) -> None:
    names = [f"{number:04}" for number in range(2 * TRIALS_PER_CHILD + 3)]
    put(study, *names)
    code = "note(f'{task.name} {os.getpid()}')\nif task.name == '0001': os.abort()\nreturn end_well(task)"
    finished(study, start(code), *names)
    child_of = dict(note.split() for note in notes(study))
    children = [list(group) for _, group in groupby(names, key=child_of.__getitem__)]
    assert [len(group) for group in children] == [2, TRIALS_PER_CHILD, TRIALS_PER_CHILD, 1]


def test_a_task_that_takes_too_long_is_ended(study: Study, start: Start) -> None:
    put(study, "0001", limit_s=0.4)
    result = finished(study, start("time.sleep(600)"), "0001")["0001"]
    assert (result.state, result.reason) == ("failed", "it took longer than the limit of 0.4 s.")
    assert 0.4 <= result.seconds < 60


def test_a_task_that_was_interrupted_is_taken_up_again(study: Study, start: Start) -> None:
    put(study, "0001")
    code = "note('begun')\nreturn 75 if len((study.folder / 'notes').read_text()) < 12 else end_well(task)"
    assert finished(study, start(code), "0001")["0001"].state == "done"
    assert notes(study) == ["begun", "begun"]


def test_a_damaged_task_is_a_failed_trial_and_the_worker_goes_on(study: Study, start: Start) -> None:
    put(study, "0001", "0002")
    (study.folder / "tasks" / "0001.json").write_text('{"name": "00')
    results = finished(study, start("return end_well(task)"), "0001", "0002")
    assert results["0001"].state == "failed"
    assert "0001.json: missing or damaged" in results["0001"].reason
    assert results["0002"].state == "done"


def test_two_workers_share_tasks_and_double_none(study: Study, start: Start) -> None:
    names = [f"{number:04}" for number in range(30)]
    workers = [start("note(task.name)\nreturn end_well(task)") for _ in range(2)]
    until(lambda: len(study.list_live_workers()) == 2)
    put(study, *names)
    until(lambda: not study.list_unfinished_tasks())
    study.finish()
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(notes(study)) == names


SAVING = """
def save(number, frame):
    note("saved")
    os._exit(75)
signal.signal(signal.SIGTERM, save)
note("begun")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_child_save_and_gives_its_task_back(
    study: Study, start: Start, number: signal.Signals
) -> None:
    put(study, "0001")
    worker = start(SAVING)
    until(lambda: notes(study) == ["begun"])
    worker.send_signal(number)
    assert worker.wait(60) == 0
    assert notes(study) == ["begun", "saved"]
    assert study.list_open_tasks() == ["0001"]
    assert not study.has_result("0001")
    assert study.list_live_workers() == []


def test_a_second_signal_ends_a_child_that_does_not(study: Study, start: Start) -> None:
    put(study, "0001")
    worker = start("signal.signal(signal.SIGTERM, lambda *_: note('received'))\nnote('begun')\ntime.sleep(600)")
    until(lambda: notes(study) == ["begun"])
    worker.send_signal(signal.SIGTERM)
    until(lambda: notes(study) == ["begun", "received"])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert study.list_open_tasks() == ["0001"]


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


def test_a_worker_that_is_killed_takes_its_child_along_and_its_task_is_offered_anew(study: Study, start: Start) -> None:
    put(study, "0001")
    worker = start("note(str(os.getpid()))\ntime.sleep(600)")
    until(lambda: notes(study))
    worker.kill()
    worker.wait()
    until(lambda: not lives(int(notes(study)[0])))
    assert study.release_dead_claims() == ["0001"]
    assert study.list_live_workers() == []
    assert finished(study, start("return end_well(task)"), "0001")["0001"].state == "done"


def test_a_worker_whose_task_was_given_to_another_ends_its_child_without_a_result(study: Study, start: Start) -> None:
    put(study, "0001")
    start("note(str(os.getpid()))\ntime.sleep(600)")
    until(lambda: notes(study))
    (study.folder / "claims" / "0001").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    until(lambda: not lives(int(notes(study)[0])))
    assert not study.has_result("0001")
    assert study.list_open_tasks() == [], "it is the other's"


def test_a_worker_leaves_when_its_parent_is_gone(study: Study, tmp_path: Path) -> None:
    program = f"{PRELUDE}\nworker.TrialWorker(study, end_well).work()\n"
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {program!r}, {str(study.folder)!r}])\ntime.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    until(lambda: study.list_live_workers())
    process.kill()
    process.wait()
    until(lambda: not study.list_live_workers())


def test_the_variables_of_a_search_are_those_of_every_network_it_can_choose(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    def list_variables(space: str) -> set[str]:
        study = make_study(f"tune.space={space}")
        return {name for recipe in list_recipes(study) for name in training.environment_variables(recipe, tmp_path)}

    assert "TF_ENABLE_ONEDNN_OPTS" not in list_variables("{model.dropout: {float: [0, 0.5]}}")
    assert "TF_ENABLE_ONEDNN_OPTS" in list_variables("{model.kind: {choice: [mlp, cnn]}}")
    assert "TF_ENABLE_ONEDNN_OPTS" in list_variables("{model.kind: {choice: [cnn]}, train.epochs: {int: [1, 3]}}")
