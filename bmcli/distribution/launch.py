"""Worker processes on this machine: started, watched, and ended together. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bmcli import stopping
from bmcli.disk import format_path
from bmcli.errors import BmcliError, GateMissed, Interrupted, RunFailed

KNOWN_EXIT_CODES = (0, 1, 2, 3, 4, 75, 130)  # what bmcli ends with when it knows why
INTERRUPTED_EXIT_CODE = stopping.INTERRUPTED
# What all workers come to together, the chief last: it evaluates for longer, or is writing the checkpoint.
_SHARED_EXIT_CODES = (0, GateMissed.exit_code, Interrupted.exit_code)
KILLED_S = 5.0  # for the others to see that one is gone which they have waited for already
SUSPENDED_CHECK_S = 1.0  # between looks for workers that are stopped
LAUNCHED_VARIABLE = "BMCLI_LAUNCHED"  # set for the workers of a launcher
LOST_PEER_EXIT_CODE = 76  # what they end with, without a word, once another worker is lost


@dataclass(frozen=True)
class ExitTimeouts:
    """How long workers may take, in seconds, once one of them is lost or the chief is done."""

    notice_s: float = 10.0  # to see by themselves that a peer is gone; they do within `peers.GRACE_OF_FAULT_S`
    kill_s: float = 2.0  # after SIGKILL; only a process stuck in the kernel takes longer


@dataclass(frozen=True)
class LostWorker:
    """The worker whose end made the others end.

    Args:
        code: Its exit code, or minus the number of the signal that killed it.
        log: Where it wrote to; None for worker 0, whose console is ours.
    """

    worker: int
    code: int
    log: Path | None

    @property
    def exit_description(self) -> str:
        return describe_exit(self.code)

    @property
    def is_resumable(self) -> bool:
        """Whether it was taken from outside, so that starting again may well help; else it has failed by itself."""
        return self.code not in KNOWN_EXIT_CODES or self.code in (Interrupted.exit_code, INTERRUPTED_EXIT_CODE)

    def read_last_lines(self, count: int = 10) -> list[str]:
        """The end of its log."""
        return read_last_lines(self.log, count) if self.log is not None else []

    def to_error(self, resume: str = "") -> BmcliError:
        """What to tell the user.

        Args:
            resume: The command that goes on from the last checkpoint, if there is one.
        """
        lines = "".join(f"\n    {line}" for line in self.read_last_lines())
        log = f" Its last lines, from {format_path(self.log)}:{lines}\n" if self.log and lines else ""
        kind: type[BmcliError] = {2: BmcliError, 75: Interrupted}.get(self.code, RunFailed)
        if self.is_resumable:
            kind = Interrupted if resume else RunFailed
        restart = "No checkpoint was written yet: train again." if self.is_resumable else ""
        return kind(
            f"worker {self.worker} {self.exit_description}, so the others were ended.{log}",
            suggestion=stopping.format_resume_advice(resume) if resume else restart,
        )


def describe_exit(code: int) -> str:
    """How a process ended, as what follows its name.

    Args:
        code: Its exit code, or minus the number of the signal that killed it.
    """
    if code == LOST_PEER_EXIT_CODE:
        return "lost the connection to another"
    if code >= 0:
        return f"ended with exit code {code}"
    if -code in (signal.SIGSTOP, signal.SIGTSTP):
        return "was stopped and did not go on"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", as happens when memory runs out" if name == "SIGKILL" else "")


def read_last_lines(log: Path, count: int = 10) -> list[str]:
    """The end of a log; empty if there is none."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        text = file.read().decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()][-count:]


@dataclass(frozen=True)
class LaunchResult:
    """How the workers ended.

    Args:
        code: The exit code of the whole: that of worker 0, or with a `loss` that of its error if there is a checkpoint.
        loss: The worker that was lost; None if worker 0 has said on the console all there is to say.
        interrupted: A signal ended the workers before they could say so.
    """

    code: int
    loss: LostWorker | None = None
    interrupted: bool = False


def launch_workers(
    command: Sequence[str],
    workers: int,
    logs: Path,
    environment: Mapping[str, str] | None = None,
    timeouts: ExitTimeouts = ExitTimeouts(),
) -> LaunchResult:
    """Runs `command` in several worker processes until all have ended.

    Worker 0 has our stdin, stdout and stderr; worker i writes to `logs/worker-<i>.log`, which is made anew. The cores
    that this process may use are divided among them, and so are the GPUs that CUDA_VISIBLE_DEVICES lists. Without
    that variable every worker sees every GPU.

    SIGINT and SIGTERM are handed on once, so that the workers save their state; a second one kills them. Each worker
    has a session of its own: what a terminal sends reaches this process alone.

    Raises:
        BmcliError: There are fewer GPUs than workers.
    """
    given = dict(os.environ if environment is None else environment)
    for log in logs.glob("worker-*.log"):
        log.unlink()
    ports = find_free_ports(workers)
    shares = [allocate_resources(given, workers, i) for i in range(workers)]
    happened: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    with _queue_signals(happened), contextlib.ExitStack() as at_end:
        group = _WorkerGroup(logs, timeouts)
        at_end.callback(group.kill)
        for i, share in enumerate(shares):
            own = {LAUNCHED_VARIABLE: "1", "TF_CONFIG": _build_tf_config(ports, i)}
            group.start(command, {**given, **share.variables, **own}, share.cores)
        group.watch_exits(happened)
        return group.watch(happened)


class _WorkerGroup:
    """The workers of one launch."""

    def __init__(self, logs: Path, timeouts: ExitTimeouts) -> None:
        self._logs = logs
        self._patience = timeouts
        self._processes: list[subprocess.Popen[bytes]] = []
        self._running: set[int] = set()
        self._suspended: set[int] = set()  # and killed for it
        self._suspended_at: dict[int, float] = {}
        self._interrupted = False
        self._first: int | None = None  # to end otherwise than with 0, or the chief

    def _log(self, worker: int) -> Path | None:
        return self._logs / f"worker-{worker}.log" if worker else None

    def start(self, command: Sequence[str], environment: Mapping[str, str], cores: Sequence[int]) -> None:
        worker = len(self._processes)
        self._processes.append(start_process(command, environment, cores, self._log(worker)))
        self._running.add(worker)

    def watch_exits(self, events: queue.SimpleQueue[tuple[str, int]]) -> None:
        def wait(worker: int, process: subprocess.Popen[bytes]) -> None:
            process.wait()
            events.put(("ended", worker))

        for worker, process in enumerate(self._processes):
            threading.Thread(target=wait, args=(worker, process), daemon=True).start()

    def watch(self, events: queue.SimpleQueue[tuple[str, int]]) -> LaunchResult:
        """Waits for all to end, and hurries those that stay behind."""
        steps: list[tuple[float, Callable[[], None]]] = []
        while self._running:
            due_s = max(0.0, steps[0][0] - time.monotonic()) if steps else SUSPENDED_CHECK_S
            try:
                what, number = events.get(timeout=min(due_s, SUSPENDED_CHECK_S))
            except queue.Empty:
                self._kill_long_suspended()
                if steps and time.monotonic() >= steps[0][0]:
                    steps.pop(0)[1]()
                continue
            if what == "signal":
                self._forward_signal(number)
            elif self._note_exit(number):
                steps = self._schedule_kills(number)
        return self._build_result()

    def _forward_signal(self, number: int) -> None:
        if self._interrupted:
            self.kill()
        else:
            self._send(number)
        self._interrupted = True

    def _note_exit(self, worker: int) -> bool:
        """Notes that a worker ended; whether it is the first after which the others have to end too."""
        self._running.discard(worker)
        code = self._processes[worker].returncode
        if self._first is not None or (worker and code in _SHARED_EXIT_CODES):
            return False
        self._first = worker
        return True

    def _schedule_kills(self, ended: int) -> list[tuple[float, Callable[[], None]]]:
        # For the sake of those that are stopped the others may have ended; they can hear nothing else.
        self._kill_suspended({worker for worker in self._running if is_suspended(self._processes[worker].pid)})
        notice_s = self._patience.notice_s
        kill_at = time.monotonic() + (min(notice_s, KILLED_S) if ended in self._suspended else notice_s)
        return [(kill_at, self.kill), (kill_at + self._patience.kill_s, self._running.clear)]

    def _kill_long_suspended(self) -> None:
        """Kills workers that are stopped for longer than others wait for them."""
        now = time.monotonic()
        stopped = {worker for worker in self._running if is_suspended(self._processes[worker].pid)}
        self._suspended_at = {worker: self._suspended_at.get(worker, now) for worker in stopped}
        self._kill_suspended(
            {each for each, since in self._suspended_at.items() if now - since >= self._patience.notice_s}
        )

    def _kill_suspended(self, workers: set[int]) -> None:
        self._suspended |= workers
        for worker in workers:
            self._processes[worker].kill()

    def _send(self, number: int) -> None:
        for worker in self._running:
            self._processes[worker].send_signal(number)

    def kill(self) -> None:
        """Ends what runs, with all that it has started itself."""
        for worker in self._running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._processes[worker].pid, signal.SIGKILL)

    def _build_result(self) -> LaunchResult:
        codes = [process.poll() for process in self._processes]
        chief = codes[0]
        if self._interrupted:
            told = chief in KNOWN_EXIT_CODES
            return LaunchResult(chief if told and chief is not None else INTERRUPTED_EXIT_CODE, interrupted=not told)
        if self._first is None or (self._first == 0 and chief in KNOWN_EXIT_CODES and not self._suspended):
            return LaunchResult(chief if chief is not None else 1)
        if chief is not None and chief in KNOWN_EXIT_CODES and chief == codes[self._first]:
            return LaunchResult(chief)  # all came to it by themselves, and the chief has told why
        loss = self._find_lost_worker(codes)
        return LaunchResult(loss.to_error(resume="-").exit_code, loss)

    def _find_lost_worker(self, codes: Sequence[int | None]) -> LostWorker:
        """The worker for whose sake the others ended: one that was stopped, or did not end for another's sake."""
        if self._suspended:
            worker = min(self._suspended)
            return LostWorker(worker, -signal.SIGSTOP, self._log(worker))
        assert self._first is not None, "one of them ended first"
        own = [worker for worker, code in enumerate(codes) if code not in (LOST_PEER_EXIT_CODE, 0)]
        worker = self._first if self._first in own or not own else own[0]
        code = codes[worker]
        return LostWorker(worker, 1 if code is None else code, self._log(worker))


def is_suspended(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP; false where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def start_process(
    command: Sequence[str], environment: Mapping[str, str], cores: Sequence[int], log: Path | None
) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own; the kernel ends it with the thread that started it.

    Args:
        cores: Those it may use.
        log: What it writes is added to this; None gives it our stdin, stdout and stderr.
    """
    arguments = [sys.executable, "-I", "-S", "-c", _CHILD, str(os.getpid()), ",".join(map(str, cores)), *command]
    with contextlib.ExitStack() as files:
        output = None
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = files.enter_context(log.open("ab"))
        return subprocess.Popen(
            arguments, env=dict(environment), start_new_session=True, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL if log else None,
        )  # fmt: skip


# Runs in the new process before the command takes its place; a preexec_fn would be Python between fork and exec, which
# is unsafe beside threads. PR_SET_PDEATHSIG (1) has the kernel kill the worker when the launcher dies, however it does:
# by SIGKILL, because a worker that waits for a peer inside TensorFlow answers to nothing else, and no kill can damage a
# run. Whether the launcher died before that call is seen by the parent's number.
_CHILD = """
import os, signal, sys
launcher, cores, *command = sys.argv[1:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(launcher):
        os._exit(1)
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
try:
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""


def die_with_parent(parent: int) -> None:
    """Has the kernel end this process, a fork of `parent`, when that ends; it may have ended already."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


@contextlib.contextmanager
def _queue_signals(events: queue.SimpleQueue[tuple[str, int]]) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into events, but for those that are ignored, as under nohup."""

    def note(number: int, frame: FrameType | None) -> None:
        events.put(("signal", number))  # a SimpleQueue may be entered again from a handler

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        with stopping.without_watchdog():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on.

    They are let go before the workers take them, so they are drawn at random from below 32768, where the system
    takes none for outgoing connections.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = 20000 + secrets.randbelow(12000)
            with contextlib.suppress(OSError):
                # The wildcard address, as TensorFlow takes it.
                held.enter_context(socket.create_server(("", port)))
                ports.append(port)
        return ports


@dataclass(frozen=True)
class ResourceShare:
    """What one of several workers on this machine may use.

    Args:
        variables: Of the environment: its GPUs, and its threads where they do not follow from its cores.
        cores: Empty if the system does not tell them apart.
    """

    variables: Mapping[str, str]
    cores: Sequence[int]


def allocate_resources(environment: Mapping[str, str], workers: int, worker: int) -> ResourceShare:
    """A worker's share of the cores that this process may use, and of the GPUs that are listed in an environment.

    Raises:
        BmcliError: There are fewer GPUs than workers.
    """
    variables = {**_allocate_gpus(environment, workers, worker), **_allocate_threads(environment, workers)}
    return ResourceShare(variables, divide_cores(list_cores(), workers, worker))


def list_cores() -> list[int]:
    """The cores this process may use, those of one package and one physical core side by side."""
    if sys.platform != "linux":
        return []
    return sorted(os.sched_getaffinity(0), key=lambda core: (*_position(core), core))


def _position(core: int) -> tuple[int, int]:
    """Package and physical core, as far as the system tells."""
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text())
    except (OSError, ValueError):
        return 0, core


def divide_cores(cores: Sequence[int], workers: int, worker: int) -> list[int]:
    """A worker's cores: disjoint and consecutive shares, or one shared core each if there are not enough."""
    if not cores:
        return []
    if workers > len(cores):
        return [cores[worker % len(cores)]]
    return list(cores[len(cores) * worker // workers : len(cores) * (worker + 1) // workers])


def _allocate_threads(environment: Mapping[str, str], workers: int) -> dict[str, str]:
    """Threads for TensorFlow where they do not follow from the cores of a worker; what the user set stays."""
    cores = len(list_cores()) or os.cpu_count() or 1
    if workers <= cores and sys.platform == "linux":
        return {}
    threads = str(max(1, cores // workers))
    return {
        name: threads for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS") if name not in environment
    }  # fmt: skip


def _allocate_gpus(environment: Mapping[str, str], workers: int, worker: int) -> dict[str, str]:
    """An equal share of the listed GPUs, because every worker has to have as many."""
    listed = [gpu.strip() for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    if not listed or listed[0] == "-1":
        return {}
    share = len(listed) // workers
    if not share:
        raise BmcliError(
            f"{workers} workers, but CUDA_VISIBLE_DEVICES lists {len(listed)} GPUs.",
            suggestion=f"Start at most {len(listed)} workers, or set CUDA_VISIBLE_DEVICES=-1 to train on the CPU.",
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(listed[share * worker : share * (worker + 1)])}


def _build_tf_config(ports: Sequence[int], worker: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}})
