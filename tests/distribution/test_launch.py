"""Worker processes are started, watched and ended together; the commands here are small scripts without TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bmcli.advice import make_command
from bmcli.distribution import launch
from bmcli.distribution.launch import (
    LOST_PEER_EXIT_CODE,
    ExitTimeouts,
    LaunchResult,
    LostWorker,
    divide_cores,
    find_free_ports,
    launch_workers,
)
from bmcli.errors import BmcliError, Interrupted, RunFailed

HURRIED = ExitTimeouts(notice_s=0.5, kill_s=5.0)
PRELUDE = "import json, os, signal, sys, time\nrank = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


def script(code: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]


def run(code: str, logs: Path, workers: int = 2, **variables: str) -> LaunchResult:
    return launch_workers(script(code), workers, logs, {**os.environ, **variables}, HURRIED)


def test_workers_that_all_succeed_give_exit_code_0(tmp_path: Path) -> None:
    assert run("", tmp_path, workers=3) == LaunchResult(0)


def test_every_worker_knows_all_addresses_and_its_own_rank(tmp_path: Path) -> None:
    run(f"open(f'{tmp_path}/{{rank}}.json', 'w').write(os.environ['TF_CONFIG'])", tmp_path, workers=3)
    configs = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": rank} for rank in range(3)]
    addresses = configs[0]["cluster"]["worker"]
    assert all(config["cluster"] == {"worker": addresses} for config in configs)
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_only_worker_0_writes_to_the_console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("print('out', rank); print('err', rank, file=sys.stderr)", tmp_path / "logs")
    assert capfd.readouterr() == ("out 0\n", "err 0\n")
    assert sorted((tmp_path / "logs" / "worker-1.log").read_text().splitlines()) == ["err 1", "out 1"]


def test_cores_are_divided(tmp_path: Path) -> None:
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(json.dumps(sorted(os.sched_getaffinity(0))))"
    own = os.sched_getaffinity(0)
    run(code, tmp_path)
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert {*first, *second} == own
    assert len(own) == 1 or not {*first} & {*second}
    assert os.sched_getaffinity(0) == own


@pytest.mark.parametrize(
    ("cores", "workers", "shares"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([3, 5, 7], 2, [[3], [5, 7]]),
        ([0, 1], 3, [[0], [1], [0]]),
        ([], 2, [[], []]),
    ],
)
def test_shares_of_cores(cores: list[int], workers: int, shares: list[list[int]]) -> None:
    assert [divide_cores(cores, workers, worker) for worker in range(workers)] == shares


def test_more_workers_than_cores_take_one_thread_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "list_cores", lambda: [min(os.sched_getaffinity(0))])
    code = "open(f'%s/{rank}', 'w').write(os.environ['TF_NUM_INTRAOP_THREADS'] + os.environ['TF_NUM_INTEROP_THREADS'])"
    run(code % tmp_path, tmp_path, TF_NUM_INTEROP_THREADS="5")
    assert (tmp_path / "1").read_text() == "15"


def test_listed_gpus_are_divided(tmp_path: Path) -> None:
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    run(code, tmp_path, CUDA_VISIBLE_DEVICES="4,5,6,GPU-7")
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["4,5", "6,GPU-7"]


def test_fewer_gpus_than_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BmcliError, match="2 workers, but CUDA_VISIBLE_DEVICES lists 1 GPUs"):
        run("", tmp_path, CUDA_VISIBLE_DEVICES="0")


def test_a_killed_worker_ends_the_others_and_can_be_resumed(tmp_path: Path) -> None:
    ended = run("print('so far', flush=True)\nif rank: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)", tmp_path)
    assert ended == LaunchResult(75, LostWorker(1, -signal.SIGKILL, tmp_path / "worker-1.log"))
    assert ended.loss
    error = ended.loss.to_error(make_command("train", "--resume", "tiny"))
    assert isinstance(error, Interrupted)
    assert "worker 1 was killed by SIGKILL" in str(error)
    assert "so far" in str(error)
    assert error.faults[0].suggestion == "Continue with `bmcli train --resume tiny`."


def test_a_loss_before_the_first_checkpoint_is_a_failure(tmp_path: Path) -> None:
    assert type(LostWorker(0, -9, None).to_error()) is RunFailed
    assert LostWorker(0, -9, None).to_error().exit_code == 1


@pytest.mark.parametrize(("code", "exit_code"), [(1, 1), (2, 2), (75, 75), (-11, 75), (137, 75)])
def test_the_kind_of_error_follows_from_how_the_worker_ended(code: int, exit_code: int) -> None:
    assert LostWorker(1, code, None).to_error(make_command("train", "--resume", "tiny")).exit_code == exit_code


def test_a_worker_that_does_not_notice_a_loss_is_killed(tmp_path: Path) -> None:
    ended = run("if rank: sys.exit(9)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)", tmp_path)
    assert ended.loss
    assert ended.loss.exit_description == "ended with exit code 9"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 130])
def test_the_exit_code_of_worker_0_stands_without_a_second_error(tmp_path: Path, code: int) -> None:
    assert run(f"time.sleep(60) if rank else sys.exit({code})", tmp_path) == LaunchResult(code)


def test_workers_that_fail_alike_leave_the_message_to_worker_0(tmp_path: Path) -> None:
    assert run("time.sleep(0 if rank else 0.3); sys.exit(2)", tmp_path) == LaunchResult(2)


def test_worker_0_may_continue_when_the_others_are_done(tmp_path: Path) -> None:
    assert run("if not rank: time.sleep(2)", tmp_path) == LaunchResult(0)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_stays_suspended_is_the_lost_one(tmp_path: Path, lost: int) -> None:
    ended = run(f"if rank == {lost}: os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(60)", tmp_path)
    assert ended.loss
    assert (ended.code, ended.loss.worker, ended.loss.exit_description) == (
        75,
        lost,
        "was suspended and did not continue",
    )


def test_workers_that_have_waited_for_a_suspended_one_have_less_time_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "KILLED_S", 0.2)
    code = f"""
        if rank:
            open('{tmp_path}/pid', 'w').write(str(os.getpid()))
            os.rename('{tmp_path}/pid', '{tmp_path}/stopped')
            os.kill(os.getpid(), signal.SIGSTOP)
        while not os.path.exists('{tmp_path}/stopped'):
            time.sleep(0.05)
        stopped = int(open('{tmp_path}/stopped').read())
        while os.path.exists(f'/proc/{{stopped}}'):
            time.sleep(0.05)
        time.sleep(2.5)
        open('{tmp_path}/late', 'w').close()
    """
    ended = launch_workers(script(code), 2, tmp_path / "logs", dict(os.environ), ExitTimeouts(notice_s=4.0, kill_s=5.0))
    assert ended.loss
    assert ended.loss.worker == 1
    assert not (tmp_path / "late").exists()


def test_workers_that_ended_because_of_another_are_not_the_lost_one(tmp_path: Path) -> None:
    ended = run(f"sys.exit({LOST_PEER_EXIT_CODE}) if rank == 0 else time.sleep(0.3); sys.exit(9)", tmp_path)
    assert ended.loss
    assert (ended.loss.worker, ended.loss.code) == (1, 9)


def test_a_command_that_does_not_exist_is_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert launch_workers(["/no/such/program"], 2, tmp_path, timeouts=HURRIED) == LaunchResult(1)
    assert "/no/such/program: No such file" in capfd.readouterr().err


def test_free_ports_differ() -> None:
    ports = find_free_ports(50)
    assert len(set(ports)) == 50
    assert all(1024 < port < 32768 for port in ports)


Launcher = Callable[..., "subprocess.Popen[str]"]
READY = "open(f'%s/{rank}', 'w').write(str(os.getpid()))"


@pytest.fixture
def start_launcher(tmp_path: Path) -> Iterator[Launcher]:
    """A launcher of two workers in a separate process, both of which have run their script as far as READY."""
    started: list[subprocess.Popen[str]] = []

    def start(before: str, after: str) -> subprocess.Popen[str]:
        (tmp_path / "worker.py").write_text(PRELUDE + before + "\n" + READY % tmp_path + "\n" + textwrap.dedent(after))
        code = (
            "import sys; from pathlib import Path; from bmcli.distribution.launch import launch_workers\n"
            f"ended = launch_workers([sys.executable, '{tmp_path}/worker.py'], 2, Path('{tmp_path}'))\n"
            "assert 'tensorflow' not in sys.modules; sys.exit(ended.code)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        wait_until(lambda: all((tmp_path / str(rank)).exists() and read(tmp_path / str(rank)) for rank in range(2)))
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read(path: Path) -> str:
    return path.read_text()


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pids(folder: Path) -> list[int]:
    return [int(read(folder / str(rank))) for rank in range(2)]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


SAVES = "signal.signal(signal.{0}, lambda *_: (time.sleep(0.2), print(rank, '{0}', flush=True), os._exit(75)))"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_forwarded_and_the_workers_save(start_launcher: Launcher, tmp_path: Path, name: str) -> None:
    process = start_launcher(SAVES.format(name), "time.sleep(60)")
    process.send_signal(signal.Signals[name])
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (75, f"0 {name}\n")
    assert read(tmp_path / "worker-1.log") == f"1 {name}\n"


def test_after_a_signal_the_chief_may_take_its_time_to_save(tmp_path: Path) -> None:
    code = """
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0 if rank else 2), os._exit(75)))
        if not rank:
            time.sleep(0.5)
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
    """
    assert run(code, tmp_path) == LaunchResult(75)  # the timeout of the others ends after 1 s


def test_a_second_signal_kills(start_launcher: Launcher, tmp_path: Path) -> None:
    handler = f"signal.signal(signal.SIGINT, lambda *_: open(f'{tmp_path}/received{{rank}}', 'w'))"
    process = start_launcher(handler, "while True: time.sleep(1)")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: all((tmp_path / f"received{rank}").exists() for rank in range(2)))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert all(is_gone(pid) for pid in pids(tmp_path))


def test_workers_are_out_of_reach_of_the_terminal(start_launcher: Launcher, tmp_path: Path) -> None:
    process = start_launcher("", "time.sleep(60)")
    sessions = {os.getsid(pid) for pid in pids(tmp_path)}
    assert len(sessions) == 2
    assert os.getsid(process.pid) not in sessions


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a process of the death of its parent")
def test_workers_do_not_outlive_a_killed_launcher(start_launcher: Launcher, tmp_path: Path) -> None:
    process = start_launcher("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "time.sleep(60)")
    workers = pids(tmp_path)
    process.kill()
    wait_until(lambda: all(is_gone(pid) for pid in workers))


def test_handlers_of_signals_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run("", tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
