"""Study folders: the files of a search, which its processes share.

The chief puts tasks; workers claim them and put results. They communicate only by the files of a shared folder, so
workers may be on other machines. Every file is complete or missing: it is written under another name and then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from bmcli import disk, records, run_folders, runs
from bmcli.advice import make_command
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.recipe.editing import edit_recipe, make_portable_text
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.nodes import escape_dollars
from bmcli.recipe.render import render_base, render_recipe
from bmcli.recipe.schema import Recipe
from bmcli.redaction import redact_details, redact_text
from bmcli.runs import Run
from bmcli.trials import CandidateValues, Json, SearchObjective, Task, TrialResult

HEARTBEAT_S = 2.0
WORKER_TIMEOUT_S = 20.0  # without heartbeats, after which a worker is dead; a busy file server may delay some


class _StudyRecord(TypedDict):
    objectives: tuple[SearchObjective, ...]


class _Identity(TypedDict):
    id: str
    files: dict[str, str]


_IDENTITY = tuple(_Identity.__annotations__)
_ID = "study_id"
"""Key in all records of a study, by which records of another study are refused."""
_START_NEW_SEARCH = "Start a new search."


@dataclass(frozen=True)
class Study:
    """The folder of one search."""

    folder: Path

    @property
    def display_path(self) -> str:
        """The folder, formatted for messages."""
        return format_path(self.folder)

    @property
    def start_record_file(self) -> Path:
        """The recipe, objectives and data that the search was started with."""
        return self.folder / "study.json"

    @property
    def recipe(self) -> Path:
        """The recipe as it was written."""
        return self.folder / "recipe.yaml"

    @property
    def base(self) -> Path:
        """The base recipe of all candidates in one file, with the recipes it extends and with overrides."""
        return self.folder / "base.yaml"

    @property
    def search(self) -> Path:
        """`base` with the `tune` section that the search was started with, to resume it."""
        return self.folder / "search.yaml"

    @property
    def template(self) -> Path:
        """The recipe as it was written, with overrides and absolute paths, which gets the values of the winner."""
        return self.folder / "template.yaml"

    @property
    def journal(self) -> Path:
        """All tasks and results in their order, one JSON object per line."""
        return self.folder / "journal.jsonl"

    @property
    def best(self) -> Path:
        """The recipe as it was written, with the values of the winner."""
        return self.folder / "best.yaml"

    @property
    def table(self) -> Path:
        return self.folder / "trials.csv"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def status_file(self) -> Path:
        return self.folder / "status.json"

    @property
    def logs(self) -> Path:
        """Folder of the output of workers on this machine."""
        return self.folder / "logs"

    @property
    def _tasks(self) -> Path:
        return self.folder / "tasks"

    @property
    def _claims(self) -> Path:
        return self.folder / "claims"

    @property
    def _results(self) -> Path:
        return self.folder / "results"

    @property
    def _workers(self) -> Path:
        return self.folder / "workers"

    @property
    def _end_marker(self) -> Path:
        return self.folder / "over"

    def run(self, name: str) -> Run:
        """Return the run directory of a trial or of a confirmation."""
        return Run(self.folder / "trials" / name)

    def read_start_record(self) -> Json:
        """Read the value of `describe_search` at the start of the search.

        Raises:
            BmcliError: The file is missing or damaged.
        """
        return {key: value for key, value in self._read_start_file().items() if key not in _IDENTITY}

    def _read_start_file(self) -> Json:
        return self._read_record(self.start_record_file, _START_NEW_SEARCH)

    @cached_property
    def _identity(self) -> _Identity:
        """The id of the study, and the SHA-256 of each file that defines the search."""
        try:
            return records.validate_as(_Identity, self._read_start_file())
        except disk.DamagedFile:
            raise _damage_error(self.start_record_file, _START_NEW_SEARCH) from None

    @property
    def id(self) -> str:
        """Id in all records of the study; copies of the study have the same.

        Raises:
            BmcliError: `study.json` is missing or damaged.
        """
        return self._identity["id"]

    def require_recipes(self) -> None:
        """Refuse a study whose recipe files have changed.

        Raises:
            BmcliError: A recipe file was changed, or cannot be read.
        """
        for name, digest in self._identity["files"].items():
            try:
                current = hashlib.sha256(disk.read_file(self.folder / name)).hexdigest()
            except (OSError, disk.DamagedFile):
                current = ""
            if current != digest:
                raise _damage_error(self.folder / name, _START_NEW_SEARCH)

    def load_base(self) -> LoadedRecipe:
        """Load the base recipe of all candidates.

        Raises:
            BmcliError: A recipe file was changed, or cannot be read.
        """
        self.require_recipes()
        return load_recipe(str(self.base))

    def objectives(self) -> tuple[SearchObjective, ...]:
        """Read the objectives of the search, of which the first decides.

        Raises:
            BmcliError: `study.json` is missing or damaged.
        """
        try:
            return records.validate_as(_StudyRecord, self.read_start_record())["objectives"]
        except disk.DamagedFile:
            raise _damage_error(self.start_record_file, _START_NEW_SEARCH) from None

    def load_candidate(self, values: CandidateValues) -> LoadedRecipe:
        """Load the recipe of a candidate: the base recipe with other values.

        Its epoch is selected by the objective of the search, unless the recipe or the candidate has another metric.

        Raises:
            BmcliError: The recipe refuses the values; each fault names all of them.
        """
        loaded, objective = self.load_base(), find_epoch_objective(self.objectives())
        searches_selection = any(path.startswith("train.select") for path in values)
        if objective is None or searches_selection or loaded.recipe.train.select.metric != "auto":
            return loaded.with_values(values)
        return loaded.with_values({"train.select.metric": objective.name, **values})

    # Methods of the chief.

    def write_best(self, values: CandidateValues, comment: str) -> None:
        """Write the recipe of the winner: its values in the text of the recipe.

        Args:
            values: Of the winner, with the seeds of its run.
            comment: First line of the file.
        """
        candidate = self.load_candidate(values)
        try:
            template = load_recipe(str(self.template))
            before, after = template.make_complete_tree(), candidate.make_base_tree()
            tune = {key: node for key, node in before.value.items() if key == "tune"}
            text = edit_recipe(template.document.text, before, replace(after, value={**after.value, **tune}))
        except BmcliError:  # a recipe that it extends is gone
            text = None
        write_recipe(self.best, text, candidate, comment)

    def put_task(self, task: Task) -> None:
        """Offer a task to the workers."""
        records.write_record(self._tasks / f"{task.name}.json", {**task.to_json(), _ID: self.id})

    def list_offered_tasks(self) -> set[str]:
        """List the names of all tasks."""
        return _list_tasks(self._tasks)

    def list_unfinished_tasks(self) -> list[str]:
        """List the names of the tasks without a result, in order."""
        return sorted(_list_tasks(self._tasks) - _list_tasks(self._results))

    def list_live_workers(self) -> list[str]:
        """List the names of the workers with a recent heartbeat."""
        now = self._time()
        return sorted(path.name for path in _list_files(self._workers) if not _is_dead(path, now))

    def release_dead_claims(self) -> list[str]:
        """Release the tasks that dead workers have claimed, and return their names.

        Only the chief may call this: of two processes, one could release a task that a worker has just claimed again.
        """
        now = self._time()
        unfinished = set(self.list_unfinished_tasks())
        dead = [path for path in _list_files(self._claims) if path.name in unfinished and _is_dead(path, now)]
        for path in dead:
            path.unlink(missing_ok=True)
        for path in _list_files(self._workers):
            if _is_dead(path, now):
                path.unlink(missing_ok=True)
        return sorted(path.name for path in dead)

    def is_claimed(self, name: str) -> bool:
        """Whether a worker has claimed a task."""
        return (self._claims / name).exists()

    def set_status(self, state: str, **details: Any) -> None:
        records.write_record(
            self.status_file, records.to_json_value({"state": state, "at": runs.now(), **redact_details(details)})
        )

    def finish(self) -> None:
        """Mark the search as over, so that the workers leave."""
        self._end_marker.touch()

    def reopen(self) -> None:
        """Remove the mark of a search that was over."""
        self._end_marker.unlink(missing_ok=True)

    @property
    def is_over(self) -> bool:
        return self._end_marker.exists()

    @contextlib.contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Prevent other processes from being the chief of this search while the body runs.

        Raises:
            BmcliError: Another process is.
        """
        with runs.acquire_lock(self.folder, "Wait for it to end, or start a new search."):
            yield

    # Methods of the workers.

    def announce_worker(self) -> str:
        """Register this process as a worker, and return its name."""
        name = f"{socket.gethostname()}-{os.getpid()}"
        records.write_record(self._workers / name, _identify_process())
        return name

    def leave(self, worker: str) -> None:
        """Unregister a worker."""
        (self._workers / worker).unlink(missing_ok=True)

    def list_open_tasks(self) -> list[str]:
        """List the names of the unclaimed tasks without a result, in order."""
        return sorted(
            _list_tasks(self._tasks) - _list_tasks(self._results) - {path.name for path in _list_files(self._claims)}
        )

    def read_task(self, name: str) -> Task:
        """Read a task.

        Raises:
            BmcliError: Its file is missing or damaged.
        """
        path = self._tasks / f"{name}.json"
        try:
            task = Task.from_json(self._read(path))
        except disk.DamagedFile:
            raise _damage_error(path) from None
        if task.name != name:
            raise _damage_error(path)  # its run directory would be that of another task
        return task

    def claim(self, name: str) -> bool:
        """Claim a task; false if another worker was faster, or if it has a result."""
        try:
            disk.write_new(self._claims / name, records.encode_record_line(_identify_process()))
        except FileExistsError:
            return False
        # Checked after the claim: between the list of open tasks and the claim, another worker may have finished it.
        if not self.has_result(name):
            return True
        self.release(name)
        return False

    def send_heartbeat(self, worker: str, claimed: str | None = None) -> bool:
        """Update the heartbeat of a worker; false if its claim was released, since it was silent for too long."""
        _touch(self._workers / worker)
        return claimed is None or (self._is_mine(claimed) and _touch(self._claims / claimed))

    def release(self, name: str) -> None:
        """Release a task of this process without a result, so that it is claimed again."""
        if self._is_mine(name):
            (self._claims / name).unlink(missing_ok=True)

    def put_result(self, result: TrialResult) -> bool:
        """Put a result; false if the task has one already, which stays."""
        result = replace(result, reason=redact_text(result.reason))
        try:
            disk.write_new(
                self._results / f"{result.name}.json",
                records.encode_record_line({**_drop_nonfinite(result), _ID: self.id}),
            )
        except FileExistsError:
            return False
        return True

    def has_result(self, name: str) -> bool:
        return (self._results / f"{name}.json").exists()

    def read_result(self, name: str) -> TrialResult | None:
        """Read the result of a task; None if there is none yet.

        Raises:
            BmcliError: Its file is damaged.
        """
        if not self.has_result(name):
            return None
        path = self._results / f"{name}.json"
        advice = f"Delete {format_path(path)} to train the trial again."
        try:
            result = TrialResult.from_json(self._read(path, advice))
        except disk.DamagedFile:
            raise _damage_error(path, advice) from None
        if result.name != name:
            raise _damage_error(path, advice)
        return result

    def remove_checkpoints(self, name: str) -> None:
        """Remove the checkpoints of a trial, which cannot be continued then."""
        disk.try_to_remove(self.run(name).checkpoints)

    def _is_mine(self, name: str) -> bool:
        """Whether this process has claimed a task."""
        return _read_owner(self._claims / name) == _identify_process()

    def _time(self) -> float:
        """Read the time of the file system, which all machines share; their own clocks may differ."""
        clock = self._workers / ".clock"
        clock.touch()
        return clock.stat().st_mtime

    def _read(self, path: Path, advice: str = "") -> Json:
        """Read a record of this study; refuse one of another study."""
        record = self._read_record(path, advice)
        if record.pop(_ID, None) != self.id:
            raise _damage_error(path, advice)
        return record

    def _read_record(self, path: Path, advice: str) -> Json:
        try:
            return records.read_record(path)
        except (OSError, disk.DamagedFile):
            raise _damage_error(path, advice) from None


def create_study(root: Path, loaded: LoadedRecipe, objectives: Sequence[SearchObjective], fingerprint: str) -> Study:
    """Create a study of a recipe below `root`.

    Args:
        fingerprint: Fingerprint of the data.
    """
    study = Study(runs.create(root, f"{loaded.recipe.name}-tune").folder)
    for folder in (study._tasks, study._claims, study._results, study._workers, study.folder / "trials"):
        folder.mkdir()
    disk.write_atomically(study.recipe, loaded.document.text.encode(), disk.PRIVATE_MODE)
    disk.write_atomically(study.base, render_base(loaded).encode(), disk.PRIVATE_MODE)
    disk.write_atomically(study.search, _render_search_recipe(study, loaded.recipe).encode(), disk.PRIVATE_MODE)
    write_recipe(study.template, make_portable_text(loaded), loaded)
    files = {file.name: disk.compute_sha256(file) for file in (study.base, study.search, study.template)}
    description = describe_search(loaded.recipe, objectives, fingerprint)
    records.write_record(study.start_record_file, {**description, "id": secrets.token_hex(8), "files": files})
    return study


def write_recipe(path: Path, text: str | None, loaded: LoadedRecipe, comment: str = "") -> None:
    """Write a recipe as a text; if loading that does not give the same training, write it with every default.

    Args:
        text: None to write every default.
        comment: First line of the file.
    """
    first_line = f"# {comment}\n" if comment else ""
    if text is not None:
        disk.write_atomically(path, f"{first_line}{text}".encode(), disk.PRIVATE_MODE)
        with contextlib.suppress(BmcliError):
            if load_recipe(str(path)).recipe.without_tune() == loaded.recipe.without_tune():
                return
    complete = render_recipe(loaded.recipe, loaded.tree)
    disk.write_atomically(path, f"{first_line}{complete}".encode(), disk.PRIVATE_MODE)


def _render_search_recipe(study: Study, recipe: Recipe) -> str:
    # JSON is valid YAML; only a dollar sign would begin a variable of the recipe.
    section = json.dumps(escape_dollars(dump(recipe.tune)), ensure_ascii=False)
    return f"extends: {study.base.name}\ntune: {section}\n"


def describe_search(recipe: Recipe, objectives: Sequence[SearchObjective], fingerprint: str) -> Json:
    """Describe recipe, objectives and data of a search, to compare its start with a resumption."""
    description = {
        "recipe": dump(recipe),
        "objectives": [asdict(objective) for objective in objectives],
        "data": fingerprint,
    }
    # Through JSON, so that it equals what is read from a file: lists instead of tuples.
    plain: Json = json.loads(json.dumps(description))
    return plain


def find_epoch_objective(objectives: Sequence[SearchObjective]) -> SearchObjective | None:
    """Find the objective that every epoch measures, for the selection of epochs and for early stopping."""
    return next((objective for objective in objectives if objective.name.startswith("validation/")), None)


def find_study(root: Path, text: str) -> Study:
    """Find a study by its directory, the name of its folder, or the name of its recipe.

    Raises:
        BmcliError: There is none.
    """
    for folder in (Path(text), Path(text) / "latest", root / text / "latest", root / f"{text}-tune" / "latest"):
        if os.path.lexists(folder / "study.json") or os.path.lexists(folder / "search.yaml"):
            study = Study(run_folders.resolve_latest(folder))
            runs.require_regular_files(study.folder)
            return study
    raise BmcliError(
        f"no search '{text}': neither a directory nor a name in {root}.",
        suggestion=f"{make_command('tune', 'RECIPE')} starts one.",
    )


def _drop_nonfinite(result: TrialResult) -> Json:
    """Convert a result to JSON without the objectives and metrics that are not finite."""
    values = result.to_json()
    for name in ("objectives", "metrics"):
        values[name] = {key: value for key, value in values[name].items() if math.isfinite(value)}
    plain: Json = records.to_json_value(values)
    return plain


def _identify_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _read_owner(path: Path) -> Any:
    """Read the process that a claim or a worker's file belongs to; None if it is damaged or missing."""
    try:
        return records.read_record(path)
    except (OSError, disk.DamagedFile):
        return None


def _is_dead(path: Path, now: float) -> bool:
    """Whether the process of a claim or of a worker's file is dead; on another machine only its silence shows that."""
    try:
        silent_s = now - path.stat().st_mtime
    except FileNotFoundError:
        return True
    owner = _read_owner(path)
    is_local = (
        isinstance(owner, dict) and owner.get("host") == socket.gethostname() and isinstance(owner.get("pid"), int)
    )
    return silent_s > WORKER_TIMEOUT_S or (is_local and not _is_alive(owner["pid"]))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # a process of another user
    return True


def _touch(path: Path) -> bool:
    """Set the modification time of a file to now; false if it is missing."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _list_files(folder: Path) -> list[Path]:
    """List the complete files of a folder; those that are being written have names with a dot."""
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if not entry.name.startswith(".")]


def _list_tasks(folder: Path) -> set[str]:
    """List the names of the tasks with a JSON file in a folder."""
    return {path.stem for path in _list_files(folder)}


def _damage_error(path: Path, advice: str = "") -> BmcliError:
    return BmcliError(f"{format_path(path)}: missing or damaged.", suggestion=advice)
