"""`python -m bmcli` and the `bmcli` script: the one place that turns every failure into a message and an exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from bmcli import stopping

if TYPE_CHECKING:
    from bmcli.errors import BmcliError
    from bmcli.terminal.console import Console


def start() -> None:
    """Run `main` with a watchdog, which ends the process in time after a signal."""
    stopping.start_watchdog()
    try:
        main()
    except SystemExit as error:
        if error.code in stopping.EXIT_CODES:
            # A normal exit would delete TensorFlow's functions one by one, which takes seconds.
            stopping.end_process(error.code)
        raise


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 failed while running, 2 mistake in recipe, usage or data, 3 gate missed, 4 artefact rejected,
    75 interrupted and resumable, 130 interrupted before anything was saved.
    """
    stopping.install_handlers()  # before the other imports, which take a while
    from bmcli import garbage_collection, native_output
    from bmcli.terminal.console import Console

    garbage_collection.reduce_collections()
    native_output.quiet_import("tensorflow")
    _open_standard_streams()
    console = Console(as_json="--json" in sys.argv[1:])
    sys.unraisablehook = _handle_unraisable
    try:
        code = _run_command(console)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of stdout, such as `head`, has closed it; the flush when the interpreter exits must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    stopping.set_exit_code(code)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open standard streams that are closed as /dev/null; otherwise the next opened file would get their descriptor."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _handle_unraisable(unraisable: Any) -> None:
    """Report an error that Python cannot raise, except for interruptions, which are sent again.

    Objects whose construction was interrupted, and archives on a full disk, whose error was reported already, are
    ignored.
    """
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        stopping.resend_signal()
    elif not stopping.was_interrupted() and getattr(unraisable.object, "__qualname__", "") != "ZipFile.__del__":
        sys.__unraisablehook__(unraisable)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _run_command(console: Console) -> int:
    import click

    from bmcli import disk
    from bmcli.cli import cli
    from bmcli.errors import BmcliError

    try:
        code = cli.main(prog_name="bmcli", standalone_mode=False, obj=console)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        console.print_faults(BmcliError(_one_line(error.format_message()), suggestion=_one_line(usage)))
        return 2
    except (KeyboardInterrupt, click.Abort):
        return _report_interruption(console)
    except BmcliError as error:
        stopping.set_exit_code(error.exit_code)
        console.print_faults(error)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if stopping.was_interrupted():
            return _report_interruption(console)
        failure = disk.find_write_failure(error) or (error if isinstance(error, OSError) else None)
        if failure is not None:
            console.print_faults(_make_system_error(failure))
            return 1
        if console.as_json:
            console.print_json({"faults": [{"message": f"internal error: {type(error).__name__}: {error}"}]})
        raise


def _report_interruption(console: Console) -> int:
    from bmcli.errors import RunFailed

    stopping.set_exit_code(stopping.INTERRUPTED)
    console.print_faults(RunFailed("interrupted; nothing was saved."))
    return stopping.INTERRUPTED


def _make_system_error(error: OSError) -> BmcliError:
    """Make the error of a system failure: disk full, no permission, a file that disappeared."""
    from bmcli import disk
    from bmcli.errors import Fault, RunFailed

    if isinstance(error, disk.WriteFailure):
        return RunFailed(
            Fault(str(error), suggestion=f"{disk.suggest_remedy(error)} Files written before are complete.")
        )
    where = f"{error.filename}: " if error.filename else ""
    return RunFailed(Fault(f"{where}{(error.strerror or str(error)).lower()}."))


if __name__ == "__main__":
    start()
