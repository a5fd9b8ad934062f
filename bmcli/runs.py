"""Run directories: the only module that knows the paths and records of a run.

Every record of a run has its id and a checksum, so that damaged files and files of other runs are detected.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import TypedDict

from bmcli import disk, parts, records, run_folders, stopping, trust
from bmcli.advice import Command, make_command
from bmcli.disk import DamagedFile, convert_write_errors, format_path, write_atomically
from bmcli.errors import BmcliError
from bmcli.redaction import redact_details

_Record = TypeVar("_Record")

_LOCK_ID = "# Run: "
_LOCK_DIGEST_PREFIX = "# SHA-256 of the lines above, which belong to this run: "
_ID = "run_id"
"""Key of the id in every record of a run, by which records of other runs are detected."""


class _Status(TypedDict, total=False):
    state: str
    at: str
    reason: str | None
    epochs: int
    selected_epoch: int | None
    stop_reason: str
    seconds: float
    metrics: dict[str, float | None]
    model_size: dict[str, Any]
    files: dict[str, str]


class _Environment(TypedDict, total=False):
    # A TypedDict has no class variables for mypy and ruff, but pydantic reads this one.
    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012

    command: list[str]
    variables: dict[str, str]


class _Finding(TypedDict, total=False):
    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012  # as above

    check: str
    message: str
    suggestion: str


class _Checks(TypedDict):
    findings: list[_Finding]


class _RunOrigin(TypedDict):
    sentences: list[str]


class _Digests(TypedDict):
    recipe: str
    model: str | None


_EVENTS = "events"
_NAME_OF_A_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")  # as `create` makes it
_RECIPE_ADVICE = "Only the report lacks it; all commands use recipe.lock.yaml."
_MODEL_ADVICE = "Its metrics are still in evaluation.json and report.html; train again to make a new run."


@dataclass(frozen=True)
class Run:
    """One training run and the files it keeps."""

    folder: Path

    @property
    def display_path(self) -> str:
        """The folder, relative to the working directory if possible."""
        return format_path(self.folder)

    @property
    def recipe(self) -> Path:
        """The recipe as the user wrote it."""
        return self.folder / "recipe.yaml"

    @property
    def lock(self) -> Path:
        """The resolved recipe; a training with it gives the same weights."""
        return self.folder / run_folders.LOCK

    @property
    def environment(self) -> Path:
        return self.folder / "environment.json"

    @property
    def data(self) -> Path:
        return self.folder / "data.json"

    @property
    def start(self) -> Path:
        """The weights that the network took from another run."""
        return self.folder / "start.json"

    @property
    def metrics(self) -> Path:
        """Metrics of the epochs, one JSON object per line."""
        return self.folder / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """Event files of TensorBoard, outside of the run: it follows links, and would show `latest` as well."""
        for top in (self.folder, *self.folder.parents):
            if _NAME_OF_A_RUN.fullmatch(top.name):
                return top.parent / _EVENTS / self.folder.relative_to(top.parent)
        return self.folder / _EVENTS  # moved to a folder of the user's choice

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
        """Record of the choice of temperatures and thresholds."""
        return self.folder / "decisions.json"

    @property
    def validation(self) -> Path:
        """Results of cross-validation and learning curve of its recipe."""
        return self.folder / "validation.json"

    @property
    def origin(self) -> Path:
        """The search or the distillation that the run comes from."""
        return self.folder / "origin.json"

    @property
    def explanation(self) -> Path:
        """Results of `bmcli explain`."""
        return self.folder / "explanation.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def checks(self) -> Path:
        """Findings of the data checks before training, and of the check of its first epochs."""
        return self.folder / "checks.json"

    @property
    def exports(self) -> Path:
        """Folder of artefacts, one folder each; `rejected` contains those that failed verification."""
        return self.folder / "exports"

    @property
    def benchmark(self) -> Path:
        """Latest measurements of the artefacts."""
        return self.exports / "benchmark.json"

    @property
    def logs(self) -> Path:
        """Output of the workers other than the chief."""
        return self.folder / "logs"

    @property
    def status_file(self) -> Path:
        return self.folder / "status.json"

    @property
    def resume_command(self) -> Command:
        """The command that resumes the run, with the number of workers of its last start."""
        workers = sum(1 for _ in self.logs.glob("worker-*.log")) + 1
        command = make_command("train", "--resume", self.display_path)
        return command.with_arguments("--workers", str(workers)) if workers > 1 else command

    @property
    def resume_advice(self) -> str | None:
        """The advice how to resume the run; None before its first checkpoint."""
        return stopping.format_resume_advice(self.resume_command) if any(self.checkpoints.glob("step-*")) else None

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def id(self) -> str:
        """The id in all records of the run, which copies of the run share; empty before the lock is written.

        Raises:
            BmcliError: The lock was changed or cannot be read.
        """
        return self._locked_id() if os.path.lexists(self.lock) else ""

    def record(self, path: Path, record_type: type[_Record]) -> _Record | None:
        """Read one of the run's JSON files; None if it does not exist.

        Raises:
            BmcliError: The content is not what was written; the suggestion lists what works without the file.
        """
        try:
            return records.validate_as(record_type, _remove_id(records.read_record(path), self.id))
        except FileNotFoundError:
            return None
        except _ForeignRecord as error:
            raise BmcliError(f"{format_path(path)}: {error}.", suggestion=_RESTORE_ADVICE) from None
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            advice = _advise_repair(path.name, self.display_path)
            raise BmcliError(f"{format_path(path)}: damaged ({reason}).", suggestion=advice) from None

    def write(self, path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
        """Write one of the run's JSON files; numbers that are not finite become null."""
        records.write_record(path, records.to_json_value({**value, _ID: self.id}), mode)

    def status(self) -> dict[str, Any]:
        """Read the status: `state` with its details.

        The state is running, done, failed or interrupted; `crashed` if the process died, and `damaged` with the reason
        if the file cannot be read.
        """
        try:
            status: dict[str, Any] = {**(self.record(self.status_file, _Status) or {})}
        except BmcliError as error:
            return {"state": "damaged", "reason": f"{error} {error.faults[0].suggestion}"}
        # A run with metrics or a model had a status: the file was deleted.
        if not status and (self.metrics.exists() or self.model.exists()):
            advice = _advise_repair(self.status_file.name, self.display_path)
            return {"state": "damaged", "reason": f"{format_path(self.status_file)}: missing. {advice}"}
        if status.get("state") == "running" and not self.is_locked():
            status["state"] = "crashed"
        return status

    def read_environment(self) -> dict[str, Any]:
        """Read the command, versions and machine of the run; empty if the file is missing. Raises as `record` does."""
        return {**(self.record(self.environment, _Environment) or {})}

    def read_evaluations(self) -> dict[str, dict[str, Any]]:
        """Read the evaluations by split or file; empty if there are none. Raises as `record` does."""
        return self.record(self.evaluation, dict[str, dict[str, Any]]) or {}

    def read_origin(self) -> list[str]:
        """Read the origin of the run as sentences; empty for an ordinary training. Raises as `record` does."""
        origin = self.record(self.origin, _RunOrigin)
        return origin["sentences"] if origin else []

    def read_recipe(self) -> str:
        """Read the recipe as the user wrote it.

        Raises:
            BmcliError: The file is missing or was changed.
        """
        shown = format_path(self.recipe)
        try:
            content = disk.read_file(self.recipe)
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BmcliError(f"{shown}: damaged ({reason}).", suggestion=_RECIPE_ADVICE) from None
        if hashlib.sha256(content).hexdigest() != self.read_data(_Digests)["recipe"]:
            message = f"{shown}: changed since the run was started, by its SHA-256."
            raise BmcliError(message, suggestion=_RECIPE_ADVICE)
        return content.decode(errors="replace")

    def require_model(self) -> Path:
        """Check that the model is the one that the training wrote; returns its file.

        Raises:
            BmcliError: The file is missing or was changed.
        """
        shown = format_path(self.model)
        if not os.path.lexists(self.model):
            state = self.status().get("state", "unknown")
            raise BmcliError(
                f"{self.display_path} has no {self.model.name}; its state is {state}.",
                suggestion="Train again, or resume the run.",
            )
        try:
            if self.model.is_symlink() or not self.model.is_file():
                raise DamagedFile("not a regular file")  # reading a pipe would block
            actual = disk.compute_sha256(self.model)
        except (OSError, DamagedFile) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BmcliError(f"{shown}: damaged ({reason}).", suggestion=_MODEL_ADVICE) from None
        if actual != self.read_data(_Digests)["model"]:
            raise BmcliError(
                f"{shown}: not the model that the training wrote, by its SHA-256.",
                suggestion=f"If the training was killed, {self.resume_command} writes it again. {_MODEL_ADVICE}",
            )
        return self.model

    def read_data(self, kind: type[_Record]) -> _Record:
        """Read `data.json`.

        Raises:
            BmcliError: The file is missing or damaged.
        """
        data = self.record(self.data, kind)
        if data is None:
            raise BmcliError(f"{format_path(self.data)}: missing.", suggestion="Train again to make a new run.")
        return data

    def read_findings(self) -> list[_Finding]:
        """Read the findings of the checks. Raises as `record` does."""
        checks = self.record(self.checks, _Checks)
        return checks["findings"] if checks else []

    def add_finding(self, finding: Mapping[str, Any]) -> None:
        """Add a finding, which replaces an earlier one of the same check."""
        try:
            findings = self.read_findings()
        except BmcliError:
            findings = []  # the report lacks those of a damaged file in any case
        others = [each for each in findings if each.get("check") != finding["check"]]
        self.write(self.checks, {"findings": [*others, finding]})

    def set_status(self, state: str, **details: Any) -> None:
        self.write(self.status_file, {"state": state, "at": now(), **redact_details(details)})

    def write_lock(self, recipe: str) -> None:
        """Write the resolved recipe, with the id of the run and a checksum by which changes are detected."""
        content = f"{recipe}{_LOCK_ID}{self.id or secrets.token_hex(8)}\n".encode()
        write_atomically(
            self.lock,
            content + f"{_LOCK_DIGEST_PREFIX}{hashlib.sha256(content).hexdigest()}\n".encode(),
            disk.PRIVATE_MODE,
        )

    def require_lock(self) -> None:
        """Check that the resolved recipe is the one that the run was started with.

        Raises:
            BmcliError: It was changed, cannot be read, or belongs to another run than `data.json`.
        """
        run_id = self._locked_id()
        with contextlib.suppress(OSError, DamagedFile):  # reported by the commands that need the data
            if records.read_record(self.data).get(_ID) != run_id:
                raise BmcliError(
                    f"{format_path(self.lock)}: from another run than {self.data.name} beside it.",
                    suggestion="Restore the original of the file that was replaced.",
                )

    def recipe_sha256(self) -> str:
        """Compute the SHA-256 of the resolved recipe without the id, which is equal for all runs of one recipe.

        Raises:
            BmcliError: The lock file was changed, or cannot be read.
        """
        return hashlib.sha256(self._read_lock()[0]).hexdigest()

    def _locked_id(self) -> str:
        return self._read_lock()[1]

    def _read_lock(self) -> tuple[bytes, str]:
        """Read the resolved recipe and the id of its run."""
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
                f"{format_path(self.lock)}: changed since the run was started, by its SHA-256.",
                suggestion="To train with the changes, copy it out of the run as a new recipe; to evaluate, predict or "
                "resume, restore the original.",
            )
        resolved, _, run_id = recipe.rpartition(_LOCK_ID.encode())
        return resolved, run_id.strip().decode(errors="replace")

    def read_epochs(self) -> list[dict[str, Any]]:
        """Read the epochs of `metrics.jsonl`; incomplete and damaged lines are left out."""
        return self.read_epochs_checked()[0]

    def read_epochs_checked(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Read the epochs of `metrics.jsonl`; returns them, and a sentence for each damaged line, which is left out.

        An incomplete last line is ignored: the process was killed while writing it, and the epoch is trained again.
        """
        try:
            lines, run_id = disk.read_file(self.metrics).split(b"\n"), self.id
        except FileNotFoundError:
            lines, run_id = [], ""
        except (OSError, DamagedFile, BmcliError) as error:
            return [], [f"{format_path(self.metrics)}: damaged ({error}); its epochs are left out."]
        rows, faults = [], []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                row = _remove_id(records.parse_record(line), run_id)
                records.validate_as(dict[str, float | None], row)
                if not isinstance(row.get("epoch"), int):
                    raise DamagedFile("epoch: missing, or no whole number")
                rows.append(row)
            except DamagedFile as error:
                faults.append(f"{format_path(self.metrics)}:{number}: damaged ({error}); its epoch is left out.")
        expected = self.status().get("epochs", 0)  # set when a training ends
        if len(rows) < expected and not faults:
            faults = [f"{format_path(self.metrics)}: damaged (it holds {len(rows)} of {expected} epochs)."]
        return rows, faults

    def append_epoch(self, row: Mapping[str, Any]) -> None:
        records.write_record_line(self.metrics, records.to_json_value({**row, _ID: self.id}))

    def truncate_epochs(self, epochs: int) -> None:
        """Drop the rows after an epoch; a resumed training writes them again."""
        run_id = self.id
        rows = [{**row, _ID: run_id} for row in self.read_epochs() if row["epoch"] <= epochs]
        write_atomically(self.metrics, b"".join(map(records.encode_record_line, rows)))

    @contextlib.contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Lock this run against writing by other processes.

        Raises:
            BmcliError: Another process has locked it.
        """
        with acquire_lock(self.folder, "Wait for it to end, or train again to make another run."):
            yield

    def is_locked(self) -> bool:
        """Whether a process has locked this run."""
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
    """A record of another run, which is not damaged itself."""


def _remove_id(record: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Remove the id from a record of a run.

    Raises:
        _ForeignRecord: It is not the id of this run.
    """
    if record.pop(_ID, None) != run_id:
        raise _ForeignRecord("from another run than recipe.lock.yaml beside it")
    return record


_RESTORE_ADVICE = "Restore the original file. If all other files do not fit, restore recipe.lock.yaml instead."


def _advise_repair(name: str, run: str) -> str:
    """Describe what still works without a file of a run, and how to write it again.

    Args:
        run: Path of the run.
    """
    only_report = "Delete it: only the report lacks it"
    evaluate = make_command("evaluate", run)
    advice = {
        "status.json": f"{make_command('train', '--resume', run)} writes it again.",
        "environment.json": "Delete it: the run works without it, but changes of the machine are no longer detected.",
        "evaluation.json": f"Delete it, and {evaluate} writes it again.",
        "decisions.json": "Delete it: thresholds and temperatures are also in data.json, but how they were chosen is "
        "lost.",
        "validation.json": f"{only_report}; {evaluate} with --folds or --learning-curve writes it again.",
        "explanation.json": f"{only_report}; {make_command('explain', run)} writes it again.",
        "checks.json": f"{only_report}.",
        "origin.json": f"{only_report}.",
        "benchmark.json": f"{only_report}; {make_command('benchmark', run)} writes it again.",
        "data.json": "The metrics of the run can still be read; to predict, evaluate or resume, train again.",
    }
    return advice.get(name, "Train again to make a new run.")


def require_regular_files(folder: Path) -> None:
    """Check that a folder contains only regular files and folders, at any depth.

    A run can come from someone else: a link in it could make bmcli overwrite or publish other files of the user. The
    folder itself may be a link, for example to another disk.

    Raises:
        BmcliError: It contains a link, pipe or device.
    """
    entry = disk.find_irregular_entry(folder)
    if entry is not None:
        raise BmcliError(
            f"{format_path(entry[0])}: {entry[1]}, which is not allowed in a run directory.",
            suggestion="Remove it, or replace it by a copy of the file.",
        )


@contextlib.contextmanager
def acquire_lock(folder: Path, advice: str) -> Iterator[None]:
    """Lock a folder against writing by other processes.

    Args:
        advice: Suggestion if another process has locked it.

    Raises:
        BmcliError: Another process has locked the folder, or it contains a link, pipe or device.
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
            # Unbuffered: on a full disk a buffered write would fail again when the file is closed.
            os.write(file.fileno(), str(os.getpid()).encode())
        # The kernel releases the lock when the process ends, even after SIGKILL.
        yield


def _open_lock(path: Path) -> int:
    """Open a lock file that is no link of either sort: writing the process number must not change another file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _make_lock_error(path) from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise _make_lock_error(path)
    return descriptor


def _make_lock_error(path: Path) -> BmcliError:
    return BmcliError(f"{format_path(path)}: a link or no regular file, expected a lock file.", suggestion="Remove it.")


def create(root: Path, name: str) -> Run:
    """Create a run directory below `root/name`, which becomes the latest one of that name."""
    link = root.absolute() / name / "latest"
    if link.exists() and not link.is_symlink():
        raise BmcliError(f"{format_path(link)}: expected a symbolic link.", suggestion="Rename it.")
    folder = link.parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with convert_write_errors(folder):
        folder.mkdir(parents=True)
        _replace_link(link, folder.name)
    return Run(folder)


def discard(run: Run) -> None:
    """Remove a run without a trained epoch."""
    disk.try_to_remove(run.folder)
    disk.try_to_remove(run.events)
    if not run.folder.parent.is_dir():
        return  # another worker was faster
    others = sorted(folder for folder in run.folder.parent.iterdir() if _NAME_OF_A_RUN.fullmatch(folder.name))
    link = run.folder.parent / "latest"
    if others:
        _replace_link(link, others[-1].name)
    else:
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder may contain other files
            run.events.parent.rmdir()
        with contextlib.suppress(OSError):
            run.folder.parent.rmdir()


def make_cache_folder() -> Path:
    """Create, if needed, the folder of prepared data, compiled programs and measurements of this machine.

    Raises:
        BmcliError: Other users can change its content, and with it the training data and the programs that are run.
    """
    folder = locate_cache()
    require_private(folder)
    with contextlib.suppress(OSError):  # reported by the first write to it
        disk.make_private_folder(folder)
    require_private(folder)  # again: another user may have created it in between
    return folder


def require_private(folder: Path) -> None:
    """Raise BmcliError if other users can change the content of a folder of the cache."""
    try:
        reason = trust.explain_foreign_write_access(folder)
    except OSError as error:
        reason = f"{error.filename}: {(error.strerror or str(error)).lower()}"
    if reason:
        raise BmcliError(
            f"the cache {folder} is not private: {reason}.",
            suggestion="Users who can write there can change your data and run programs as you. Remove their "
            "permission (chmod go-w), or set BMCLI_CACHE to a folder that only you can write.",
        )


def locate_cache() -> Path:
    """The path of the cache: `BMCLI_CACHE`, or `bmcli` in the user's cache folder."""
    path = os.environ.get("BMCLI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(path) if path else Path(base) / "bmcli"


def _replace_link(link: Path, target: str) -> None:
    """Create or replace a symbolic link in one step, so that it always exists."""
    temporary = link.with_name(f".latest-{secrets.token_hex(4)}")
    temporary.symlink_to(target)
    try:
        os.replace(temporary, link)
    finally:
        temporary.unlink(missing_ok=True)


def find(root: Path, target: str) -> Run:
    """Find a run by its directory, or the latest run of a name.

    Raises:
        BmcliError: There is no such run, or it contains links, or its lock was changed.
    """
    folder = run_folders.find_folder(root, target)
    if folder is not None:
        run = Run(run_folders.resolve_latest(folder))
        require_regular_files(run.folder)
        run.require_lock()
        return run
    names = sorted({run.name for run in list_runs(root)})
    near = parts.did_you_mean(target, names)
    raise BmcliError(
        f"no run '{target}': neither a run directory nor a name in {root}.",
        suggestion=near or f"{make_command('train', 'RECIPE')} makes one.",
    )


def list_runs(root: Path) -> list[Run]:
    """List all runs below a folder, oldest first."""
    folders = sorted(root.absolute().glob("*/*"), key=lambda folder: folder.name)
    return [Run(folder) for folder in folders if not folder.is_symlink() and run_folders.is_run(folder)]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
