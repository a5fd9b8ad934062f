"""Launcher of worker processes on this machine, which are started, watched and ended together.

Imports no TensorFlow.
"""

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
from bmcli.advice import Command, make_command
from bmcli.disk import format_path
from bmcli.errors import BmcliError, GateMissed, Interrupted, RunFailed

KNOWN_EXIT_CODES = (0, 1, 2, 3, 4, 75, 130)  # exit codes of bmcli after it has printed its result or an error
INTERRUPTED_EXIT_CODE = stopping.INTERRUPTED
# All workers end with the same of these codes. The chief may be the last: only it writes the checkpoint and evaluates.
_SHARED_EXIT_CODES = (0, GateMissed.exit_code, Interrupted.exit_code)
KILLED_S = 5.0  # for the others to notice the end of a suspended worker; they have waited for it before
SUSPENDED_CHECK_S = 1.0  # interval of checks for suspended workers
LAUNCHED_VARIABLE = "BMCLI_LAUNCHED"  # set for the workers of a launcher
LOST_PEER_EXIT_CODE = 76  # of a worker that ends, without a message, because another one is lost


@dataclass(frozen=True)
class ExitTimeouts:
    """Seconds that workers may take to end, once one of them is lost or the chief has ended."""

    notice_s: float = 10.0  # to notice that a peer is gone, which takes at most `peers.FAULT_GRACE_S` after its message
    kill_s: float = 2.0  # after SIGKILL; only a process stuck in the kernel takes longer


@dataclass(frozen=True)
class LostWorker:
    """The worker whose end was the cause for all others to end.

    Args:
        code: Its exit code, or minus the number of the signal that killed it.
        log: The log of its output; None for worker 0, which writes to the launcher's console.
    """

    worker: int
    code: int
    log: Path | None

    @property
    def exit_description(self) -> str:
        return describe_exit(self.code)

    @property
    def is_resumable(self) -> bool:
        """Whether it was ended from outside, so that starting again may help; otherwise it failed by itself."""
        return self.code not in KNOWN_EXIT_CODES or self.code in (Interrupted.exit_code, INTERRUPTED_EXIT_CODE)

    def read_last_lines(self, count: int = 10) -> list[str]:
        """Read the end of its log."""
        return read_last_lines(self.log, count) if self.log is not None else []

    def to_error(self, resume: Command | None = None) -> BmcliError:
        """Make the error for the user.

        Args:
            resume: The command that resumes from the last checkpoint; None if there is no checkpoint.
        """
        lines = "".join(f"\n    {line}" for line in self.read_last_lines())
        log = f" Its last lines, from {format_path(self.log)}:{lines}\n" if self.log and lines else ""
        kind: type[BmcliError] = {2: BmcliError, 75: Interrupted}.get(self.code, RunFailed)
        if self.is_resumable:
            kind = Interrupted if resume else RunFailed
        restart = "No checkpoint was written yet: train again." if self.is_resumable else ""
        return kind(
            f"worker {self.worker} {self.exit_description}; all other workers were ended.{log}",
            suggestion=stopping.format_resume_advice(resume) if resume else restart,
        )


def describe_exit(code: int) -> str:
    """Describe the end of a process by a predicate, to which its name is the subject.

    Args:
        code: Its exit code, or minus the number of the signal that killed it.
    """
    if code == LOST_PEER_EXIT_CODE:
        return "lost the connection to another worker"
    if code >= 0:
        return f"ended with exit code {code}"
    if -code in (signal.SIGSTOP, signal.SIGTSTP):
        return "was suspended and did not continue"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", as happens when memory runs out" if name == "SIGKILL" else "")


def read_last_lines(log: Path, count: int = 10) -> list[str]:
    """Read the end of a log; empty if there is no log."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        text = file.read().decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()][-count:]


@dataclass(frozen=True)
class LaunchResult:
    """Result of a launch.

    Args:
        code: Exit code of worker 0; with a `loss` that of its error, provided that there is a checkpoint.
        loss: The worker that was lost; None if worker 0 has printed the result or the error.
        interrupted: A signal ended the workers before they could print a message.
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
    """Run `command` in several worker processes until all have ended.

    Worker 0 has the stdin, stdout and stderr of this process; worker i writes to a new `logs/worker-<i>.log`. The cores
    that this process may use are divided among them, and so are the GPUs that CUDA_VISIBLE_DEVICES lists. Without that
    variable every worker sees every GPU.

    The first SIGINT or SIGTERM is forwarded, so that the workers save their state; a second one kills them.

    Args:
        environment: Variables of the workers; by default those of this process.

    Raises:
        BmcliError: There are fewer GPUs than workers.
    """
    inherited = dict(os.environ if environment is None else environment)
    for log in logs.glob("worker-*.log"):
        log.unlink()
    ports = find_free_ports(workers)
    shares = [allocate_resources(inherited, workers, i) for i in range(workers)]
    events: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    with _queue_signals(events), contextlib.ExitStack() as at_end:
        group = _WorkerGroup(logs, timeouts)
        at_end.callback(group.kill)
        for i, share in enumerate(shares):
            variables = {LAUNCHED_VARIABLE: "1", "TF_CONFIG": _build_tf_config(ports, i)}
            group.start(command, {**inherited, **share.variables, **variables}, share.cores)
        group.watch_exits(events)
        return group.watch(events)


class _WorkerGroup:
    """The workers of one launch."""

    def __init__(self, logs: Path, timeouts: ExitTimeouts) -> None:
        self._logs = logs
        self._timeouts = timeouts
        self._processes: list[subprocess.Popen[bytes]] = []
        self._running: set[int] = set()
        self._suspended: set[int] = set()  # workers that were killed because they were suspended
        self._suspended_at: dict[int, float] = {}
        self._interrupted = False
        self._first: int | None = None  # the first worker whose end lets all others end: see `_record_exit`

    def _log(self, worker: int) -> Path | None:
        return self._logs / f"worker-{worker}.log" if worker else None

    def start(self, command: Sequence[str], environment: Mapping[str, str], cores: Sequence[int]) -> None:
        worker = len(self._processes)
        self._processes.append(start_process(command, environment, cores, self._log(worker)))
        self._running.add(worker)

    def watch_exits(self, events: queue.SimpleQueue[tuple[str, int]]) -> None:
        # `Popen.wait` blocks, so that each worker has a thread that waits for it.
        def wait(worker: int, process: subprocess.Popen[bytes]) -> None:
            process.wait()
            events.put(("ended", worker))

        for worker, process in enumerate(self._processes):
            threading.Thread(target=wait, args=(worker, process), daemon=True).start()

    def watch(self, events: queue.SimpleQueue[tuple[str, int]]) -> LaunchResult:
        """Wait for all workers to end; kill those that do not end in time after the first."""
        actions: list[tuple[float, Callable[[], None]]] = []
        while self._running:
            due_s = max(0.0, actions[0][0] - time.monotonic()) if actions else SUSPENDED_CHECK_S
            try:
                kind, number = events.get(timeout=min(due_s, SUSPENDED_CHECK_S))
            except queue.Empty:
                self._kill_long_suspended()
                if actions and time.monotonic() >= actions[0][0]:
                    actions.pop(0)[1]()
                continue
            if kind == "signal":
                self._forward_signal(number)
            elif self._record_exit(number):
                actions = self._schedule_kills(number)
        return self._build_result()

    def _forward_signal(self, number: int) -> None:
        if self._interrupted:
            self.kill()
        else:
            self._send(number)
        self._interrupted = True

    def _record_exit(self, worker: int) -> bool:
        """Record that a worker ended; returns whether it is the first after which all others must end."""
        self._running.discard(worker)
        code = self._processes[worker].returncode
        if self._first is not None or (worker and code in _SHARED_EXIT_CODES):
            return False  # the chief may still write or evaluate
        self._first = worker
        return True

    def _schedule_kills(self, ended: int) -> list[tuple[float, Callable[[], None]]]:
        # A suspended worker may be the reason why this one ended; it reacts to no signal but SIGKILL.
        self._kill_suspended({worker for worker in self._running if is_suspended(self._processes[worker].pid)})
        notice_s = self._timeouts.notice_s
        kill_at = time.monotonic() + (min(notice_s, KILLED_S) if ended in self._suspended else notice_s)
        # Workers that survive SIGKILL are stuck in the kernel: the launcher ends without them.
        return [(kill_at, self.kill), (kill_at + self._timeouts.kill_s, self._running.clear)]

    def _kill_long_suspended(self) -> None:
        """Kill workers that are suspended for longer than others wait for them."""
        now = time.monotonic()
        suspended = {worker for worker in self._running if is_suspended(self._processes[worker].pid)}
        self._suspended_at = {worker: self._suspended_at.get(worker, now) for worker in suspended}
        self._kill_suspended(
            {each for each, since in self._suspended_at.items() if now - since >= self._timeouts.notice_s}
        )

    def _kill_suspended(self, workers: set[int]) -> None:
        self._suspended |= workers
        for worker in workers:
            self._processes[worker].kill()

    def _send(self, number: int) -> None:
        for worker in self._running:
            self._processes[worker].send_signal(number)

    def kill(self) -> None:
        """Kill the running workers, with all processes that they have started."""
        for worker in self._running:
            # Each worker leads a process group, which may have ended already.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._processes[worker].pid, signal.SIGKILL)

    def _build_result(self) -> LaunchResult:
        codes = [process.poll() for process in self._processes]
        chief = codes[0]
        if self._interrupted:
            has_message = chief in KNOWN_EXIT_CODES
            code = chief if has_message and chief is not None else INTERRUPTED_EXIT_CODE
            return LaunchResult(code, interrupted=not has_message)
        if self._first is None or (self._first == 0 and chief in KNOWN_EXIT_CODES and not self._suspended):
            return LaunchResult(chief if chief is not None else 1)
        if chief is not None and chief in KNOWN_EXIT_CODES and chief == codes[self._first]:
            return LaunchResult(chief)  # all workers failed for one reason, which the chief has printed
        loss = self._find_lost_worker(codes)
        return LaunchResult(loss.to_error(resume=make_command("train", "--resume", "RUN")).exit_code, loss)

    def _find_lost_worker(self, codes: Sequence[int | None]) -> LostWorker:
        """Find the worker that caused the others to end: a suspended one, or one that ended independently."""
        if self._suspended:
            worker = min(self._suspended)
            return LostWorker(worker, -signal.SIGSTOP, self._log(worker))
        assert self._first is not None, "one of them ended first"
        # The first to end may itself have ended because of another, whose exit was noticed only later.
        causes = [worker for worker, code in enumerate(codes) if code not in (LOST_PEER_EXIT_CODE, 0)]
        worker = self._first if self._first in causes or not causes else causes[0]
        code = codes[worker]
        return LostWorker(worker, 1 if code is None else code, self._log(worker))


def is_suspended(pid: int) -> bool:
    """Whether a process is suspended, for instance by SIGSTOP; false where the system has no `/proc`."""
    try:
        # The name of the program, in parentheses before the state, may itself contain spaces and parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def start_process(
    command: Sequence[str], environment: Mapping[str, str], cores: Sequence[int], log: Path | None
) -> subprocess.Popen[bytes]:
    """Start a command in a new session; the kernel kills it when the thread that started it ends.

    Args:
        cores: Numbers of the cores that it may use; empty for all.
        log: File to which its output is appended; None to inherit stdin, stdout and stderr.
    """
    # A new session, so that Ctrl-C in a terminal reaches the launcher alone, which forwards it once. -I and -S let the
    # small program before the command start without the environment's Python settings and packages.
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


# Runs in the new process before `exec` replaces it by the command; a preexec_fn would run Python between fork and exec,
# which is unsafe while other threads exist. PR_SET_PDEATHSIG (1) lets the kernel kill the worker when the launcher ends
# in any way: by SIGKILL, because a worker that waits for a peer inside TensorFlow reacts to no other signal. A kill
# cannot damage a run. If the launcher ended before that call, the parent has another process id.
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
    """Let the kernel kill this process, a fork of `parent`, when that one ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


@contextlib.contextmanager
def _queue_signals(events: queue.SimpleQueue[tuple[str, int]]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into events."""

    def enqueue(number: int, frame: FrameType | None) -> None:
        events.put(("signal", number))  # only a SimpleQueue is reentrant: the handler may interrupt a `get` or `put`

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # ignored by the user, for instance with nohup
            signal.signal(number, enqueue)
    try:
        with stopping.without_watchdog():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_free_ports(count: int) -> list[int]:
    """Find ports of this machine on which no process listens."""
    # They are closed before the workers open them. Meanwhile other launchers and outgoing connections might take them:
    # they are drawn at random, and below 32768, from where on systems use ports for outgoing connections.
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = 20000 + secrets.randbelow(12000)
            with contextlib.suppress(OSError):
                # On the wildcard address, because TensorFlow's servers listen on it.
                held.enter_context(socket.create_server(("", port)))
                ports.append(port)
        return ports


@dataclass(frozen=True)
class ResourceShare:
    """Resources that one of several workers on this machine may use.

    Args:
        variables: Environment variables for its GPUs, and for its threads where these do not follow from its cores.
        cores: Numbers of its cores; empty where a process cannot be bound to cores.
    """

    variables: Mapping[str, str]
    cores: Sequence[int]


def allocate_resources(environment: Mapping[str, str], workers: int, worker: int) -> ResourceShare:
    """Allocate to a worker its share of this process's cores, and of the GPUs that an environment lists.

    Raises:
        BmcliError: There are fewer GPUs than workers.
    """
    variables = {**_allocate_gpus(environment, workers, worker), **_allocate_threads(environment, workers)}
    return ResourceShare(variables, divide_cores(list_cores(), workers, worker))


def list_cores() -> list[int]:
    """List the cores that this process may use, sorted by package and physical core."""
    if sys.platform != "linux":
        return []
    # Logical cores of one physical core share its units and caches: sorted like this, a worker gets both of them.
    return sorted(os.sched_getaffinity(0), key=lambda core: (*_position(core), core))


def _position(core: int) -> tuple[int, int]:
    """Package and physical core of a logical core, as far as the system knows."""
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text())
    except (OSError, ValueError):
        return 0, core


def divide_cores(cores: Sequence[int], workers: int, worker: int) -> list[int]:
    """Divide cores into disjoint, consecutive shares; workers share single cores if there are not enough."""
    if not cores:
        return []
    if workers > len(cores):
        return [cores[worker % len(cores)]]
    return list(cores[len(cores) * worker // workers : len(cores) * (worker + 1) // workers])


def _allocate_threads(environment: Mapping[str, str], workers: int) -> dict[str, str]:
    """Numbers of threads for TensorFlow where the cores do not determine them; the settings of the user stay."""
    cores = len(list_cores()) or os.cpu_count() or 1
    if workers <= cores and sys.platform == "linux":
        return {}  # TensorFlow starts a thread for each core that the worker may use
    threads = str(max(1, cores // workers))
    return {
        name: threads for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS") if name not in environment
    }  # fmt: skip


def _allocate_gpus(environment: Mapping[str, str], workers: int, worker: int) -> dict[str, str]:
    """Allocate equal shares of the listed GPUs: strategies need the same number on every worker."""
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
