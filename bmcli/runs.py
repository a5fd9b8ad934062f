"""Run directories: the only code that knows where an artefact of a run lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import TypedDict

from bmcli import disk, parts, records, stopping, trust
from bmcli.disk import DamagedFile, convert_write_errors, format_path, write_atomically
from bmcli.errors import BmcliError
from bmcli.redaction import redact_details

_Record = TypeVar("_Record")

_LOCK_ID = "# Run: "
_LOCK_DIGEST_PREFIX = "# SHA-256 of the lines above, which belong to this run: "
_ID = "run_id"
"""Key of every record of a run, by which one of another run is told."""


class _Status(TypedDict, total=False):
    state: str
    at: str
    reason: str | None
    epochs: int
    selected_epoch: int | None
    ended_by: str
    seconds: float
    metrics: dict[str, float | None]
    weight: dict[str, Any]
    files: dict[str, str]


class _Environment(TypedDict, total=False):
    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012  # as pydantic reads it

    command: list[str]
    variables: dict[str, str]


class _Finding(TypedDict, total=False):
    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012  # as pydantic reads it

    message: str
    suggestion: str


class _Checks(TypedDict):
    findings: list[_Finding]


class _RunOrigin(TypedDict):
    told: list[str]


class _Digests(TypedDict):
    recipe: str
    model: str | None


_ONLY_SHOWN = "Only the report lacks it: recipe.lock.yaml is what counts."
_WITHOUT_MODEL = "What was measured is still in evaluation.json and report.html; train again to make a new run."


@dataclass(frozen=True)
class Run:
    """One training run and the files it keeps."""

    folder: Path

    @property
    def display_path(self) -> str:
        """The folder as a user would write it."""
        return format_path(self.folder)

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
    def resume_command(self) -> str:
        """The command that goes on with the run, in as many workers as were started together last."""
        workers = sum(1 for _ in self.logs.glob("worker-*.log")) + 1
        return f"bmcli train --resume {self.display_path}" + (f" --workers {workers}" if workers > 1 else "")

    @property
    def resume_advice(self) -> str | None:
        """The sentence that tells how to go on with the run; None before its first checkpoint."""
        return stopping.format_resume_advice(self.resume_command) if any(self.checkpoints.glob("step-*")) else None

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def id(self) -> str:
        """What all records of the run carry, kept in its lock: copies have it too. Empty before the lock is written.

        Raises:
            BmcliError: As `require_lock` does.
        """
        return self._locked_id() if os.path.lexists(self.lock) else ""

    def record(self, path: Path, record_type: type[_Record]) -> _Record | None:
        """What one of the run's JSON files holds; None if it is not there.

        Raises:
            BmcliError: It is not what was written; the fault says what still works without it.
        """
        try:
            return records.validate_as(record_type, _remove_id(records.read_record(path), self.id))
        except FileNotFoundError:
            return None
        except _ForeignRecord as error:
            raise BmcliError(f"{format_path(path)}: {error}.", suggestion=_PUT_BACK) from None
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            advice = _REPAIR_ADVICE.get(path.name, "Train again to make a new run.").format(run=self.display_path)
            raise BmcliError(f"{format_path(path)}: damaged ({reason}).", suggestion=advice) from None

    def write(self, path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
        """Writes one of the run's JSON files; numbers that are not finite become null."""
        records.write_record(path, records.to_json_value({**value, _ID: self.id}), mode)

    def status(self) -> dict[str, Any]:
        """`state` and what goes with it.

        It is running, done, failed or interrupted; `crashed` if its process died, and `damaged` if the file cannot
        be read, with the reason.
        """
        try:
            status: dict[str, Any] = {**(self.record(self.status_file, _Status) or {})}
        except BmcliError as error:
            return {"state": "damaged", "reason": f"{error} {error.faults[0].suggestion}"}
        if not status and (self.metrics.exists() or self.model.exists()):
            advice = _REPAIR_ADVICE[self.status_file.name].format(run=self.display_path)
            return {"state": "damaged", "reason": f"{format_path(self.status_file)}: missing. {advice}"}
        if status.get("state") == "running" and not self.is_locked():
            status["state"] = "crashed"
        return status

    def read_environment(self) -> dict[str, Any]:
        """What the run was begun with and on; empty if that is gone. Raises as `record` does."""
        return {**(self.record(self.environment, _Environment) or {})}

    def read_evaluations(self) -> dict[str, dict[str, Any]]:
        """What was measured, by split or file; empty if there is nothing. Raises as `record` does."""
        return self.record(self.evaluation, dict[str, dict[str, Any]]) or {}

    def read_origin(self) -> list[str]:
        """Where the run comes from, as sentences; none if it was trained by itself. Raises as `record` does."""
        origin = self.record(self.origin, _RunOrigin)
        return origin["told"] if origin else []

    def read_recipe(self) -> str:
        """The recipe as it was written.

        Raises:
            BmcliError: The file is gone or changed.
        """
        shown = format_path(self.recipe)
        try:
            content = disk.read_file(self.recipe)
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BmcliError(f"{shown}: damaged ({reason}).", suggestion=_ONLY_SHOWN) from None
        if hashlib.sha256(content).hexdigest() != self.read_data(_Digests)["recipe"]:
            raise BmcliError(f"{shown}: changed since the run was begun, by its SHA-256.", suggestion=_ONLY_SHOWN)
        return content.decode(errors="replace")

    def require_model(self) -> Path:
        """The model that the training of the run kept.

        Raises:
            BmcliError: There is none, or it is not the one that was written.
        """
        shown = format_path(self.model)
        if not os.path.lexists(self.model):
            state = self.status().get("state", "unknown")
            raise BmcliError(
                f"{self.display_path} has no {self.model.name}; its state is {state}.",
                suggestion="Train again, or resume it.",
            )
        try:
            if self.model.is_symlink() or not self.model.is_file():
                raise DamagedFile("not a regular file")  # a pipe would be waited for
            found = disk.compute_sha256(self.model)
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BmcliError(f"{shown}: damaged ({reason}).", suggestion=_WITHOUT_MODEL) from None
        if found != self.read_data(_Digests)["model"]:
            raise BmcliError(
                f"{shown}: not the model that the training kept, by its SHA-256.",
                suggestion=f"If the training was killed, `{self.resume_command}` keeps it anew. {_WITHOUT_MODEL}",
            )
        return self.model

    def read_data(self, kind: type[_Record]) -> _Record:
        """What `data.json` holds.

        Raises:
            BmcliError: It is gone or damaged.
        """
        found = self.record(self.data, kind)
        if found is None:
            raise BmcliError(f"{format_path(self.data)}: missing.", suggestion="Train again to make a new run.")
        return found

    def read_findings(self) -> list[_Finding]:
        """What was suspicious about the data; empty if nothing was. Raises as `record` does."""
        checks = self.record(self.checks, _Checks)
        return checks["findings"] if checks else []

    def set_status(self, state: str, **details: Any) -> None:
        self.write(self.status_file, {"state": state, "at": now(), **redact_details(details)})

    def write_lock(self, recipe: str) -> None:
        """Writes the resolved recipe of the run, with its id and a digest by which a change is noticed."""
        content = f"{recipe}{_LOCK_ID}{self.id or secrets.token_hex(8)}\n".encode()
        write_atomically(
            self.lock,
            content + f"{_LOCK_DIGEST_PREFIX}{hashlib.sha256(content).hexdigest()}\n".encode(),
            disk.PRIVATE_MODE,
        )

    def require_lock(self) -> None:
        """Refuses a resolved recipe that is not the one that the run was begun with.

        Raises:
            BmcliError: It was changed, cannot be read, or is that of another run than `data.json`.
        """
        own = self._locked_id()
        with contextlib.suppress(OSError, DamagedFile):  # whoever needs the data tells of it
            if records.read_record(self.data).get(_ID) != own:
                raise BmcliError(
                    f"{format_path(self.lock)}: not of the run that {self.data.name} beside it is of.",
                    suggestion="Put back the one of the two that was here.",
                )

    def recipe_sha256(self) -> str:
        """SHA-256 of the resolved recipe alone: runs of one recipe have the same.

        Raises:
            BmcliError: The lock file was changed, or cannot be read.
        """
        return hashlib.sha256(self._read_lock()[0]).hexdigest()

    def _locked_id(self) -> str:
        return self._read_lock()[1]

    def _read_lock(self) -> tuple[bytes, str]:
        """The resolved recipe, and the id of the run that it was written for."""
        try:
            content = disk.read_file(self.lock)
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BmcliError(
                f"{format_path(self.lock)}: damaged ({reason}).", suggestion="Train again to make a new run."
            ) from None
        recipe, _, digest = content.rpartition(_LOCK_DIGEST_PREFIX.encode())
        if digest.strip() != hashlib.sha256(recipe).hexdigest().encode():
            raise BmcliError(
                f"{format_path(self.lock)}: changed since the run was begun, by its SHA-256.",
                suggestion="Train a copy of it elsewhere as a recipe of its own; to measure, predict or go on, the "
                "run needs the one it was written with.",
            )
        resolved, _, run_id = recipe.rpartition(_LOCK_ID.encode())
        return resolved, run_id.strip().decode(errors="replace")

    def read_epochs(self) -> list[dict[str, Any]]:
        """The epochs in `metrics.jsonl`; lines that are torn or damaged are left out."""
        return self.read_epochs_checked()[0]

    def read_epochs_checked(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The epochs in `metrics.jsonl`, and a sentence for each line that is damaged, and left out.

        A last line that a kill has torn is no fault: its epoch is trained again.
        """
        try:
            lines, own = disk.read_file(self.metrics).split(b"\n"), self.id
        except FileNotFoundError:
            lines, own = [], ""
        except (OSError, DamagedFile, BmcliError) as error:
            return [], [f"{format_path(self.metrics)}: damaged ({error}); its epochs are left out."]
        rows, faults = [], []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                row = _remove_id(records.parse_record(line), own)
                records.validate_as(dict[str, float | None], row)
                if not isinstance(row.get("epoch"), int):
                    raise DamagedFile("epoch: missing, or no whole number")
                rows.append(row)
            except DamagedFile as error:
                faults.append(f"{format_path(self.metrics)}:{number}: damaged ({error}); its epoch is left out.")
        wanted = self.status().get("epochs", 0)  # known of a training that has ended
        if len(rows) < wanted and not faults:
            faults = [f"{format_path(self.metrics)}: damaged (it holds {len(rows)} of {wanted} epochs)."]
        return rows, faults

    def append_epoch(self, row: Mapping[str, Any]) -> None:
        records.write_record_line(self.metrics, records.to_json_value({**row, _ID: self.id}))

    def truncate_epochs(self, epochs: int) -> None:
        """Drops the rows after an epoch, which a resumed run will write again."""
        own = self.id
        rows = [{**row, _ID: own} for row in self.read_epochs() if row["epoch"] <= epochs]
        write_atomically(self.metrics, b"".join(map(records.encode_record_line, rows)))

    @contextlib.contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Keeps other processes from writing this run.

        Raises:
            BmcliError: Another process holds it.
        """
        with acquire_lock(self.folder, "Wait for it to end, or train again to make another run."):
            yield

    def is_locked(self) -> bool:
        """Whether a process is writing this run."""
        try:
            descriptor = os.open(self.folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        with os.fdopen(descriptor, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


class _ForeignRecord(DamagedFile):
    """A record is whole, but of another run."""


def _remove_id(record: dict[str, Any], own: str) -> dict[str, Any]:
    """A record of a run without the id of that, which must be its own."""
    if record.pop(_ID, None) != own:
        raise _ForeignRecord("not of the run that recipe.lock.yaml beside it is of")
    return record


_PUT_BACK = "Put back the file that was here. If none of the run's files fits, recipe.lock.yaml is the one to put back."
_REPAIR_ADVICE = {
    "status.json": "`bmcli train --resume {run}` writes it anew.",
    "environment.json": "Delete it: the run works without, but differences of the machine are not noticed any more.",
    "evaluation.json": "Delete it, and `bmcli evaluate {run}` measures again.",
    "decisions.json": "Delete it: thresholds and temperatures are also in data.json, but how they were chosen is lost.",
    "validation.json": "Delete it: only the report lacks it; `bmcli evaluate {run}` with --folds or --learning-curve "
    "makes it anew.",
    "explanation.json": "Delete it: only the report lacks it; `bmcli explain {run}` makes it anew.",
    "checks.json": "Delete it: only the report lacks it.",
    "origin.json": "Delete it: only the report lacks it.",
    "benchmark.json": "Delete it: only the report lacks it; `bmcli benchmark {run}` measures again.",
    "data.json": "The run's metrics can still be read; train again to predict, measure or go on.",
}
"""What still works without a file of a run, and how it is made anew."""


def require_regular_files(folder: Path) -> None:
    """Refuses a folder that holds links, pipes or devices, at any depth: nothing in it may lead out of it.

    The folder itself may be a link of the user's, as to another disk.

    Raises:
        BmcliError: It holds one, which is named.
    """
    found = disk.find_irregular_entry(folder)
    if found is not None:
        raise BmcliError(
            f"{format_path(found[0])}: {found[1]}, which a run directory must not hold.",
            suggestion="Nothing in it is followed out of it. Remove it, or put a copy of the file in its place.",
        )


@contextlib.contextmanager
def acquire_lock(folder: Path, advice: str) -> Iterator[None]:
    """Keeps other processes from writing a folder.

    Args:
        advice: What to do while another process holds it.

    Raises:
        BmcliError: Another process holds it, or it holds something that leads out of it.
    """
    require_regular_files(folder)
    with os.fdopen(_open_lock(folder / ".lock"), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BmcliError(
                f"{format_path(folder)} is being written by process {file.read(32).strip() or 'unknown'}.",
                suggestion=advice,
            ) from None
        with convert_write_errors(folder / ".lock"):
            file.seek(0)
            file.truncate()
            os.write(file.fileno(), str(os.getpid()).encode())  # unbuffered: closing would try, and fail, again
        # The kernel frees the lock when the process ends, however it ends.
        yield


def _open_lock(path: Path) -> int:
    """A descriptor of a lock file, which is a file of its own: what is written into it must not destroy another."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _make_lock_error(path) from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise _make_lock_error(path)
    return descriptor


def _make_lock_error(path: Path) -> BmcliError:
    return BmcliError(f"{format_path(path)}: not a file of its own, as a lock has to be.", suggestion="Remove it.")


def create(root: Path, name: str) -> Run:
    """A new run directory below `root/name`, which becomes the latest of that name."""
    link = root.absolute() / name / "latest"
    if link.exists() and not link.is_symlink():
        raise BmcliError(f"{format_path(link)}: not the link that it has to be.", suggestion="Rename it.")
    folder = link.parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with convert_write_errors(folder):
        folder.mkdir(parents=True)
        _replace_link(link, folder.name)
    return Run(folder)


def discard(run: Run) -> None:
    """Removes a run in which nothing was trained."""
    disk.try_to_remove(run.folder)
    if not run.folder.parent.is_dir():
        return  # another worker was faster
    left = sorted(folder for folder in run.folder.parent.iterdir() if folder.is_dir() and not folder.is_symlink())
    link = run.folder.parent / "latest"
    if left:
        _replace_link(link, left[-1].name)
    else:
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else may lie there
            run.folder.parent.rmdir()


def make_cache_folder() -> Path:
    """The folder of prepared data, compiled programs and measurements of this machine, made if it is not there.

    Raises:
        BmcliError: Others than this user could change what it holds: what is trained, or programs that are run.
    """
    folder = locate_cache()
    require_private(folder)
    with contextlib.suppress(OSError):  # whoever writes there tells that it cannot be
        disk.make_private_folder(folder)
    require_private(folder)  # somebody else may have been faster
    return folder


def require_private(folder: Path) -> None:
    """Raises BmcliError if others than this user could change what a folder of the cache holds."""
    try:
        reason = trust.explain_foreign_write_access(folder)
    except OSError as error:
        reason = f"{error.filename}: {(error.strerror or str(error)).lower()}"
    if reason:
        raise BmcliError(
            f"the cache {folder} is not yours alone: {reason}.",
            suggestion="Whoever writes there can change your data and run programs as you. Take the right to write "
            "from others (chmod go-w), or set BMCLI_CACHE to a folder that only you can write.",
        )


def locate_cache() -> Path:
    """Where the cache lies: `BMCLI_CACHE`, or `bmcli` in the user's cache folder."""
    named = os.environ.get("BMCLI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "bmcli"


def _replace_link(link: Path, target: str) -> None:
    """A symbolic link made or moved in one step."""
    aside = link.with_name(f".latest-{secrets.token_hex(4)}")
    aside.symlink_to(target)
    try:
        os.replace(aside, link)
    finally:
        aside.unlink(missing_ok=True)


def find(root: Path, target: str) -> Run:
    """A run by its directory, or the latest run of a name.

    Raises:
        BmcliError: There is no such run, and the nearest name is suggested; or it holds links, or a changed lock.
    """
    folder = find_folder(root, target)
    if folder is not None:
        run = Run(resolve_latest(folder))
        require_regular_files(run.folder)
        run.require_lock()
        return run
    names = sorted({run.name for run in list_runs(root)})
    near = parts.did_you_mean(target, names)
    raise BmcliError(
        f"no run '{target}': neither a run directory nor a name in {root}.",
        suggestion=near or "`bmcli train RECIPE` makes one.",
    )


def find_folder(root: Path, target: str) -> Path | None:
    """The directory that a text means as a run, whatever it holds; None if there is none."""
    for folder in (Path(target), Path(target) / "latest", root / target, root / target / "latest"):
        if _is_run(folder):
            return folder
    return None


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's, which it stays where its lock is gone."""

    def holds(name: str) -> bool:
        return os.path.lexists(folder / name)  # unlike pathlib's, false where the system refuses a name

    return holds("recipe.lock.yaml") or (holds("recipe.yaml") and holds("data.json"))


def resolve_latest(folder: Path) -> Path:
    """The folder itself where it is a link, as `latest` is.

    Raises:
        BmcliError: It is a `latest` that leads elsewhere than to a folder beside it.
    """
    if folder.name == "latest" and folder.is_symlink():
        target = os.readlink(folder)
        beside = folder.parent / target
        if target != Path(target).name or target == ".." or beside.is_symlink():
            raise BmcliError(
                f"{format_path(folder)}: leads to {target}, where only a run beside it may be.",
                suggestion="Remove the link, or name the run's directory.",
            )
    return folder.resolve()


def list_runs(root: Path) -> list[Run]:
    """All runs below a folder, oldest first."""
    folders = sorted(root.absolute().glob("*/*"), key=lambda folder: folder.name)
    return [Run(folder) for folder in folders if not folder.is_symlink() and _is_run(folder)]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
