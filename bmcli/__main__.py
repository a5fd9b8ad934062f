"""`python -m bmcli` and the `bmcli` script: one boundary that turns every failure into words and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

import click

from bmcli import garbage
from bmcli.cli import cli
from bmcli.console import Console
from bmcli.errors import BmcliError, Fault, RunFailed

INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits.

    0 done, 1 failed while running, 2 fault in recipe, usage or data, 3 gate missed, 4 artefact rejected,
    75 interrupted and resumable, 130 interrupted before anything was worth keeping.
    """
    garbage.look_rarely()
    _open_standard_streams()
    console = Console(as_json="--json" in sys.argv[1:])
    sys.unraisablehook = _without_torn_archives
    _received.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _as_keyboard_interrupt)
    try:
        code = _run(console)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough; nothing may complain while the interpreter closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    sys.exit(code)


def _open_standard_streams() -> None:
    """Lets what is written to a closed stream vanish; else the next file opened would take its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _without_torn_archives(unraisable: Any) -> None:
    """Python's report of an error it cannot raise, but for archives on a full disk: their fault is told already."""
    if getattr(unraisable.object, "__qualname__", "") != "ZipFile.__del__":
        sys.__unraisablehook__(unraisable)


def _as_keyboard_interrupt(number: int, frame: object) -> None:
    """Lets SIGTERM clean up as Ctrl-C does."""
    _received.append(number)
    raise KeyboardInterrupt


_received: list[int] = []  # signals; a library in C may make another exception of a KeyboardInterrupt


def _run(console: Console) -> int:
    try:
        code = cli.main(prog_name="bmcli", standalone_mode=False, obj=console)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        console.faults(BmcliError(error.format_message(), suggestion=usage))
        return 2
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(console)
    except BmcliError as error:
        console.faults(error)
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        console.faults(_world_failed(error))
        return 1
    except Exception as error:
        if _received:
            return _interrupted(console)
        if console.as_json:
            console.result({"faults": [{"message": f"internal error: {type(error).__name__}: {error}"}]})
        raise


def _interrupted(console: Console) -> int:
    console.faults(RunFailed("interrupted; nothing was worth keeping."))
    return INTERRUPTED


def _world_failed(error: OSError) -> BmcliError:
    """A failure of the machine: disk full, no permission, a file that vanished."""
    where = f"{error.filename}: " if error.filename else ""
    hints = {
        errno.ENOSPC: "Free some space; what was written before is whole.",
        errno.EDQUOT: "Your disk quota is used up; what was written before is whole.",
        errno.EACCES: "Check who owns it, or choose another folder with --runs or BMCLI_CACHE.",
        errno.EROFS: "Choose another folder with --runs or BMCLI_CACHE.",
    }
    return RunFailed(
        Fault(f"{where}{(error.strerror or str(error)).lower()}.", suggestion=hints.get(error.errno or 0, ""))
    )


if __name__ == "__main__":
    main()
