"""Workers on this machine are started, replaced and stopped together; one test has real trainings."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bmcli.errors import RunFailed
from bmcli.trials import Task
from bmcli.tuning.pool import WorkerPool
from bmcli.tuning.study import Study

from .conftest import MakeStudy, until

PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from bmcli.trials import TrialResult
from bmcli.tuning.study import Study
from bmcli.tuning.worker import TrialWorker

study = Study(Path(sys.argv[1]))

def do(task):
    time.sleep(0.05)
    study.put_result(TrialResult(task.name, "done", reason=f"{os.getppid()} {sorted(os.sched_getaffinity(0))}"))
    return 0
"""
ENDLESS = "TrialWorker(study, do).work()"


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make pools start some code instead of real workers."""

    def run(code: str) -> None:
        program = f"{PRELUDE}\n{code}\n"
        monkeypatch.setattr("bmcli.tuning.pool.COMMAND", [sys.executable, "-c", program])

    return run


def test_workers_share_the_tasks_and_the_cores(study: Study, cache: Path, working: Callable[[str], None]) -> None:
    working(ENDLESS)
    with WorkerPool(study, 2, cache) as pool:
        until(lambda: len(study.list_live_workers()) == 2)
        for number in range(20):
            study.put_task(Task(f"{number:04}", {}))
        until(lambda: not study.list_unfinished_tasks())
        assert pool.live_count == 2
        study.finish()
        until(lambda: pool.live_count == 0)
        pool.restart_dead_workers()
        assert pool.live_count == 0, "no worker is needed any more"
    reasons = {result.reason for n in range(20) if (result := study.read_result(f"{n:04}"))}
    assert len(reasons) == 2
    shares = [reason.partition(" ")[2] for reason in reasons]
    assert len(set(shares)) == min(2, len(os.sched_getaffinity(0)))


def test_a_worker_that_died_is_replaced(study: Study, cache: Path, working: Callable[[str], None]) -> None:
    working(ENDLESS)
    with WorkerPool(study, 1, cache) as pool:
        until(lambda: study.list_live_workers())
        os.kill(int(study.list_live_workers()[0].rpartition("-")[2]), signal.SIGKILL)
        until(lambda: pool.live_count == 0)
        assert study.list_live_workers() == []
        study.put_task(Task("0001", {}))
        pool.restart_dead_workers()
        until(lambda: study.has_result("0001"))
    assert study.list_live_workers() == [], "they leave when they are ended"


def test_workers_that_die_before_they_come_to_work_are_given_up(
    study: Study, cache: Path, working: Callable[[str], None]
) -> None:
    working("sys.exit('no such module: sunshine')")

    with WorkerPool(study, 1, cache) as pool, pytest.raises(RunFailed, match="exit code 1 3 times in a row") as raised:
        until(lambda: pool.restart_dead_workers())
    assert "no such module: sunshine" in str(raised.value)


def test_a_worker_that_does_not_end_is_killed(
    study: Study, cache: Path, working: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmcli.tuning.pool.STOP_S", 0.2)
    working("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n(study.folder / 'deaf').touch()\ntime.sleep(600)")
    with WorkerPool(study, 1, cache) as pool:
        until((study.folder / "deaf").exists)
        start = time.monotonic()
    assert pool.live_count == 0
    assert time.monotonic() - start < 60


def test_real_trials_survive_the_death_of_a_trial_and_of_a_worker(make_study: MakeStudy, cache: Path) -> None:
    """The child of the first trial is killed, then a worker during the second: one trial fails, one is resumed."""
    study = make_study("train.epochs=100000", "train.checkpoint.steps=1")
    with WorkerPool(study, 1, cache) as pool:
        study.put_task(Task("0001", {}))
        run = study.run("0001")
        until(run.metrics.exists)
        os.kill(int((run.folder / ".lock").read_text()), signal.SIGKILL)
        until(lambda: study.has_result("0001"))
        study.put_task(Task("0002", {}, until=int(1e9)))
        run = study.run("0002")
        until(lambda: any(run.checkpoints.glob("step-*")))
        (worker,) = study.list_live_workers()
        os.kill(int(worker.rpartition("-")[2]), signal.SIGKILL)
        until(lambda: pool.live_count == 0 and not run.is_locked())
        assert study.release_dead_claims() == ["0002"]
        trained = len(run.read_epochs())
        study.put_task(Task("0002", {}, until=trained + 20))
        pool.restart_dead_workers()
        until(lambda: study.has_result("0002"))
        log = (study.logs / "worker-0.log").read_text()
    first, second = study.read_result("0001"), study.read_result("0002")
    assert first is not None
    assert second is not None
    assert (first.state, second.state) == ("failed", "done")
    assert first.reason == "its process was killed by SIGKILL, as happens when memory runs out."
    assert first.epochs > 0
    assert second.epochs == trained + 20
    assert log.count("epoch   1 ") == 2, "once for each trial: the second went on where it was"
