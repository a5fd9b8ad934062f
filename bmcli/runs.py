"""Run directories: the only code that knows where an artefact of a run lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli import disk, parts, stopping, trust
from bmcli.disk import shown_path, write_atomically, write_json, writing
from bmcli.errors import BmcliError


@dataclass(frozen=True)
class Run:
    """One training run and the files it keeps."""

    folder: Path

    @property
    def shown(self) -> str:
        """The folder as a user would write it."""
        return shown_path(self.folder)

    @property
    def recipe(self) -> Path:
        """The recipe as it was written."""
        return self.folder / "recipe.yaml"

    @property
    def lock(self) -> Path:
        """The recipe with everything resolved; trains again to the same weights."""
        return self.folder / "recipe.lock.yaml"

    @property
    def environment(self) -> Path:
        return self.folder / "environment.json"

    @property
    def data(self) -> Path:
        return self.folder / "data.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line for each epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.folder / "events"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        return self.folder / "model.keras"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def decisions(self) -> Path:
        """What temperatures and thresholds were chosen by."""
        return self.folder / "decisions.json"

    @property
    def validation(self) -> Path:
        """What cross-validation and a learning curve of its recipe found."""
        return self.folder / "validation.json"

    @property
    def origin(self) -> Path:
        """The search or the distillation that the run comes from."""
        return self.folder / "origin.json"

    @property
    def explanation(self) -> Path:
        """What `bmcli explain` found."""
        return self.folder / "explanation.json"

    @property
    def report(self) -> Path:
        """A page that shows the run to a person."""
        return self.folder / "report.html"

    @property
    def checks(self) -> Path:
        """What was suspicious about the data before training."""
        return self.folder / "checks.json"

    @property
    def exports(self) -> Path:
        """A folder for each artefact; `rejected` holds those that are not what was trained."""
        return self.folder / "exports"

    @property
    def benchmark(self) -> Path:
        """What the artefacts cost when they were measured last."""
        return self.exports / "benchmark.json"

    @property
    def logs(self) -> Path:
        """What workers other than the chief say."""
        return self.folder / "logs"

    @property
    def status_file(self) -> Path:
        return self.folder / "status.json"

    @property
    def to_resume(self) -> str:
        """The command that goes on with the run, in as many workers as were started together last."""
        workers = sum(1 for _ in self.logs.glob("worker-*.log")) + 1
        return f"bmcli train --resume {self.shown}" + (f" --workers {workers}" if workers > 1 else "")

    @property
    def how_to_go_on(self) -> str | None:
        """The sentence that tells how to go on with the run; None before its first checkpoint."""
        return stopping.going_on(self.to_resume) if any(self.checkpoints.glob("step-*")) else None

    @property
    def name(self) -> str:
        return self.folder.parent.name

    def status(self) -> dict[str, Any]:
        """`state` (running, done, failed, interrupted) and what goes with it; `crashed` if its process died."""
        status: dict[str, Any] = _read_object(self.status_file)
        if status.get("state") == "running" and not self.held():
            status["state"] = "crashed"
        return status

    def recorded(self) -> dict[str, Any]:
        """What the run was begun with and on; empty if that is gone or damaged."""
        return _read_object(self.environment)

    def evaluations(self) -> dict[str, Any]:
        """What was measured, by split or file; empty if there is nothing or it is damaged."""
        return _read_object(self.evaluation)

    def validated(self) -> dict[str, Any]:
        """What `validation.json` holds; empty if there is nothing or it is damaged."""
        return _read_object(self.validation)

    def comes_from(self) -> list[str]:
        """Where the run comes from, as sentences; none if it was trained by itself, or the file is damaged."""
        told = _read_object(self.origin).get("told")
        return [str(each) for each in told] if isinstance(told, list) else []

    def decided(self) -> dict[str, Any]:
        """What `decisions.json` holds; empty if there is nothing or it is damaged."""
        return _read_object(self.decisions)

    def benchmarked(self) -> dict[str, Any]:
        """What `benchmark.json` holds; empty if there is nothing or it is damaged."""
        return _read_object(self.benchmark)

    def explained(self) -> dict[str, Any]:
        """What was found out about its answers; empty if there is nothing or it is damaged."""
        return _read_object(self.explanation)

    def findings(self) -> list[dict[str, Any]]:
        """What was suspicious about the data; empty if nothing was or the file is damaged."""
        found = _read_object(self.checks).get("findings")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def set_status(self, state: str, **details: Any) -> None:
        write_json(self.status_file, {"state": state, "at": now(), **details})

    def rows(self) -> list[dict[str, Any]]:
        """The epochs in `metrics.jsonl`; torn and damaged lines are left out."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("epoch"), int)]

    def append_row(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row) + "\n"
        with writing(self.metrics, len(line)), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line)

    def keep_rows(self, epochs: int) -> None:
        """Drops the rows after an epoch, which a resumed run will write again."""
        rows = [row for row in self.rows() if row["epoch"] <= epochs]
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other processes from writing this run.

        Raises:
            BmcliError: Another process holds it.
        """
        with hold(self.folder, "Wait for it to end, or train again to make another run."):
            yield

    def held(self) -> bool:
        """Whether a process is writing this run."""
        try:
            with (self.folder / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


@contextlib.contextmanager
def hold(folder: Path, advice: str) -> Iterator[None]:
    """Keeps other processes from writing a folder.

    Args:
        advice: What to do while another process holds it.

    Raises:
        BmcliError: Another process holds it.
    """
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BmcliError(
                f"{shown_path(folder)} is being written by process {file.read().strip() or 'unknown'}.",
                suggestion=advice,
            ) from None
        with writing(Path(file.name)):
            file.seek(0)
            file.truncate()
            os.write(file.fileno(), str(os.getpid()).encode())  # unbuffered: closing would try, and fail, again
        # The kernel frees the lock when the process ends, however it ends.
        yield


def create(root: Path, name: str) -> Run:
    """A new run directory below `root/name`, which becomes the latest of that name."""
    folder = root.absolute() / name / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with writing(folder):
        folder.mkdir(parents=True)
        _point(folder.parent / "latest", folder.name)
    return Run(folder)


def discard(run: Run) -> None:
    """Removes a run in which nothing was trained."""
    shutil.rmtree(run.folder, ignore_errors=True)
    if not run.folder.parent.is_dir():
        return  # another worker was faster
    left = sorted(folder for folder in run.folder.parent.iterdir() if folder.is_dir() and not folder.is_symlink())
    link = run.folder.parent / "latest"
    if left:
        _point(link, left[-1].name)
    else:
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else may lie there
            run.folder.parent.rmdir()


def cache_folder() -> Path:
    """The folder of prepared data, compiled programs and measurements of this machine, made if it is not there.

    Raises:
        BmcliError: Others than this user could change what it holds: what is trained, or programs that are run.
    """
    folder = cache_place()
    require_private(folder)
    with contextlib.suppress(OSError):  # whoever writes there tells that it cannot be
        disk.make_private(folder)
    require_private(folder)  # somebody else may have been faster
    return folder


def require_private(folder: Path) -> None:
    """Raises BmcliError if others than this user could change what a folder of the cache holds."""
    try:
        reason = trust.writable_by_others(folder)
    except OSError as error:
        reason = f"{error.filename}: {(error.strerror or str(error)).lower()}"
    if reason:
        raise BmcliError(
            f"the cache {folder} is not yours alone: {reason}.",
            suggestion="Whoever writes there can change your data and run programs as you. Take the right to write "
            "from others (chmod go-w), or set BMCLI_CACHE to a folder that only you can write.",
        )


def cache_place() -> Path:
    """Where the cache lies: `BMCLI_CACHE`, or `bmcli` in the user's cache folder."""
    named = os.environ.get("BMCLI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "bmcli"


def _point(link: Path, target: str) -> None:
    """A symbolic link made or moved in one step."""
    aside = link.with_name(f".latest-{secrets.token_hex(4)}")
    aside.symlink_to(target)
    try:
        os.replace(aside, link)
    finally:
        aside.unlink(missing_ok=True)


def find(root: Path, text: str) -> Run:
    """A run by its directory, or the latest run of a name.

    Raises:
        BmcliError: There is no such run; the nearest name is suggested.
    """
    for folder in (Path(text), Path(text) / "latest", root / text, root / text / "latest"):
        if os.path.isfile(folder / "recipe.lock.yaml"):  # unlike pathlib's, false where the system refuses a name
            return Run(folder.resolve())
    names = sorted({run.name for run in every(root)})
    near = parts.did_you_mean(text, names)
    raise BmcliError(
        f"no run '{text}': neither a run directory nor a name in {root}.",
        suggestion=near or "`bmcli train RECIPE` makes one.",
    )


def every(root: Path) -> list[Run]:
    """All runs below a folder, oldest first."""
    locks = sorted(root.absolute().glob("*/*/recipe.lock.yaml"), key=lambda lock: lock.parent.name)
    return [Run(lock.parent) for lock in locks if not lock.parent.is_symlink()]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
