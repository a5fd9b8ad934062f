"""Study folders: the only code that knows where an artefact of a search lives, and how its processes share it.

The chief puts tasks, workers claim them and put results; a shared folder is all they have in common, so that workers
on other machines are workers like those on this one. Every file is whole or not there: it is written aside and takes
its name at the end.
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

from bmcli import disk, records, runs
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.nodes import escape_dollars
from bmcli.recipe.render import render_base
from bmcli.recipe.schema import Recipe
from bmcli.redaction import redact_details, redact_text
from bmcli.runs import Run
from bmcli.trials import CandidateValues, Json, SearchObjective, Task, TrialResult

HEARTBEAT_S = 2.0
WORKER_TIMEOUT_S = 20.0  # A worker that was silent for so long is dead; a busy file server may swallow some beats.


class _StudyRecord(TypedDict):
    objectives: tuple[SearchObjective, ...]


class _Identity(TypedDict):
    id: str
    files: dict[str, str]


_IDENTITY = tuple(_Identity.__annotations__)
_ID = "study_id"
"""Key of the records of a study, by which one of another study is told."""
_AGAIN = "Start a new search."


@dataclass(frozen=True)
class Study:
    """One search and the files it keeps."""

    folder: Path

    @property
    def display_path(self) -> str:
        """The folder as a user would write it."""
        return format_path(self.folder)

    @property
    def start_record_file(self) -> Path:
        """What the search was begun with."""
        return self.folder / "study.json"

    @property
    def recipe(self) -> Path:
        """The recipe as it was written."""
        return self.folder / "recipe.yaml"

    @property
    def base(self) -> Path:
        """The recipe that values are laid over, in one file: with those it extends and with overrides."""
        return self.folder / "base.yaml"

    @property
    def search(self) -> Path:
        """`base` with the `tune` section that the search was begun with, to take it up by."""
        return self.folder / "search.yaml"

    @property
    def journal(self) -> Path:
        """Every task and result in their order, one JSON object a line."""
        return self.folder / "journal.jsonl"

    @property
    def best(self) -> Path:
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
        """What workers on this machine say."""
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
        """The run directory of a trial, or of a run that confirms one."""
        return Run(self.folder / "trials" / name)

    def read_start_record(self) -> Json:
        """What the search was begun with, as `describe_search` gave it.

        Raises:
            BmcliError: The file that tells is gone or damaged.
        """
        return {key: value for key, value in self._begun().items() if key not in _IDENTITY}

    def _begun(self) -> Json:
        return self._read_record(self.start_record_file, _AGAIN)

    @cached_property
    def _identity(self) -> _Identity:
        """What a study is known by, and the SHA-256 of each file that says what is searched."""
        try:
            return records.validate_as(_Identity, self._begun())
        except disk.DamagedFile:
            raise _damage_error(self.start_record_file, _AGAIN) from None

    @property
    def id(self) -> str:
        """What all records of the study carry; copies have it too.

        Raises:
            BmcliError: The file that tells is gone or damaged.
        """
        return self._identity["id"]

    def require_recipes(self) -> None:
        """Refuses recipes that are not those that the search was begun with.

        Raises:
            BmcliError: One was changed, or cannot be read.
        """
        for name, digest in self._identity["files"].items():
            try:
                found = hashlib.sha256(disk.read_file(self.folder / name)).hexdigest()
            except (OSError, disk.DamagedFile):
                found = ""
            if found != digest:
                raise _damage_error(self.folder / name, _AGAIN)

    def loaded(self) -> LoadedRecipe:
        """The recipe that values are laid over.

        Raises:
            BmcliError: As `require_recipes` does.
        """
        self.require_recipes()
        return load_recipe(str(self.base))

    def objectives(self) -> tuple[SearchObjective, ...]:
        """What is searched for; the first decides where there has to be one.

        Raises:
            BmcliError: The file that tells is gone or damaged.
        """
        try:
            return records.validate_as(_StudyRecord, self.read_start_record())["objectives"]
        except disk.DamagedFile:
            raise _damage_error(self.start_record_file, _AGAIN) from None

    def load_candidate(self, values: CandidateValues) -> LoadedRecipe:
        """The recipe of a candidate: values laid over the study's recipe.

        Its epochs are selected by what is searched for, unless the recipe says otherwise.

        Raises:
            BmcliError: The recipe refuses them; each fault names them all.
        """
        loaded, judged = self.loaded(), find_epoch_objective(self.objectives())
        searches_selection = any(path.startswith("train.select") for path in values)
        if judged is None or searches_selection or loaded.recipe.train.select.metric != "auto":
            return loaded.with_values(values)
        return loaded.with_values({"train.select.metric": judged.name, **values})

    # The chief's part.

    def put_task(self, task: Task) -> None:
        """Offers a task to the workers."""
        records.write_record(self._tasks / f"{task.name}.json", {**task.to_json(), _ID: self.id})

    def offered(self) -> set[str]:
        """Names of all tasks."""
        return _list_tasks(self._tasks)

    def unfinished(self) -> list[str]:
        """Names of the tasks that have no result, in order."""
        return sorted(_list_tasks(self._tasks) - _list_tasks(self._results))

    def live_workers(self) -> list[str]:
        """The workers that were heard of in the last moments."""
        now = self._time()
        return sorted(path.name for path in _list_files(self._workers) if not _is_dead(path, now))

    def release_dead_claims(self) -> list[str]:
        """Offers the tasks of workers that died anew, and names them.

        The chief alone may ask for it: of two who do, one could take away what a worker claimed just now.
        """
        now = self._time()
        unfinished = set(self.unfinished())
        dead = [path for path in _list_files(self._claims) if path.name in unfinished and _is_dead(path, now)]
        for path in dead:
            path.unlink(missing_ok=True)
        for path in _list_files(self._workers):
            if _is_dead(path, now):
                path.unlink(missing_ok=True)
        return sorted(path.name for path in dead)

    def is_claimed(self, name: str) -> bool:
        """Whether a worker has taken a task."""
        return (self._claims / name).exists()

    def set_status(self, state: str, **details: Any) -> None:
        records.write_record(
            self.status_file, records.to_json_value({"state": state, "at": runs.now(), **redact_details(details)})
        )

    def finish(self) -> None:
        """Tells the workers to leave."""
        self._end_marker.touch()

    def reopen(self) -> None:
        """Takes up a search that was over."""
        self._end_marker.unlink(missing_ok=True)

    @property
    def is_over(self) -> bool:
        return self._end_marker.exists()

    @contextlib.contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Keeps other processes from being the chief of this search.

        Raises:
            BmcliError: Another process is.
        """
        with runs.acquire_lock(self.folder, "Wait for it to end, or start a new search."):
            yield

    # The workers' part.

    def announce_worker(self) -> str:
        """Makes this process known as a worker, and returns its name."""
        name = f"{socket.gethostname()}-{os.getpid()}"
        records.write_record(self._workers / name, _identify_process())
        return name

    def leave(self, worker: str) -> None:
        """Takes a worker's name back."""
        (self._workers / worker).unlink(missing_ok=True)

    def open_tasks(self) -> list[str]:
        """Names of the tasks that nobody has claimed, in order."""
        return sorted(
            _list_tasks(self._tasks) - _list_tasks(self._results) - {path.name for path in _list_files(self._claims)}
        )

    def task(self, name: str) -> Task:
        """A task.

        Raises:
            BmcliError: Its file is gone or damaged.
        """
        path = self._tasks / f"{name}.json"
        try:
            task = Task.from_json(self._read(path))
        except disk.DamagedFile:
            raise _damage_error(path) from None
        if task.name != name:
            raise _damage_error(path)  # its run would lie in a folder of another
        return task

    def claim(self, name: str) -> bool:
        """Takes a task; false if another was faster, or it has a result already."""
        try:
            disk.write_new(self._claims / name, records.encode_record_line(_identify_process()))
        except FileExistsError:
            return False
        if not self.has_result(name):
            return True
        self.release(name)
        return False

    def send_heartbeat(self, worker: str, claimed: str | None = None) -> bool:
        """Shows that a worker is alive; false if its claim was taken away from it, since it was silent for too long."""
        _touch(self._workers / worker)
        return claimed is None or (self._is_mine(claimed) and _touch(self._claims / claimed))

    def release(self, name: str) -> None:
        """Gives a task of this process back without a result, to be taken up again."""
        if self._is_mine(name):
            (self._claims / name).unlink(missing_ok=True)

    def put_result(self, result: TrialResult) -> bool:
        """Hands in a result; false if there is one already, which stays."""
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

    def result(self, name: str) -> TrialResult | None:
        """The result of a task, or None while there is none.

        Raises:
            BmcliError: Its file is damaged.
        """
        if not self.has_result(name):
            return None
        path = self._results / f"{name}.json"
        again = f"Delete {format_path(path)}, and the task is done again."
        try:
            result = TrialResult.from_json(self._read(path, again))
        except disk.DamagedFile:
            raise _damage_error(path, again) from None
        if result.name != name:
            raise _damage_error(path, again)
        return result

    def remove_checkpoints(self, name: str) -> None:
        """Removes what a trial could be gone on with from."""
        disk.try_to_remove(self.run(name).checkpoints)

    def _is_mine(self, name: str) -> bool:
        """Whether this process has claimed a task."""
        return _read_owner(self._claims / name) == _identify_process()

    def _time(self) -> float:
        """Now by the clock of the file system, which other machines share."""
        clock = self._workers / ".clock"
        clock.touch()
        return clock.stat().st_mtime

    def _read(self, path: Path, advice: str = "") -> Json:
        """A record of this study, without the id of that."""
        found = self._read_record(path, advice)
        if found.pop(_ID, None) != self.id:
            raise _damage_error(path, advice)
        return found

    def _read_record(self, path: Path, advice: str) -> Json:
        try:
            return records.read_record(path)
        except (OSError, disk.DamagedFile):
            raise _damage_error(path, advice) from None


def create_study(root: Path, loaded: LoadedRecipe, objectives: Sequence[SearchObjective], fingerprint: str) -> Study:
    """A new study of a recipe, below `root`.

    Args:
        fingerprint: Of the data.
    """
    study = Study(runs.create(root, f"{loaded.recipe.name}-tune").folder)
    for folder in (study._tasks, study._claims, study._results, study._workers, study.folder / "trials"):
        folder.mkdir()
    disk.write_atomically(study.recipe, loaded.document.text.encode(), disk.PRIVATE_MODE)
    disk.write_atomically(study.base, render_base(loaded).encode(), disk.PRIVATE_MODE)
    disk.write_atomically(study.search, _render_search_recipe(study, loaded.recipe).encode(), disk.PRIVATE_MODE)
    files = {file.name: disk.compute_sha256(file) for file in (study.base, study.search)}
    begun = describe_search(loaded.recipe, objectives, fingerprint)
    records.write_record(study.start_record_file, {**begun, "id": secrets.token_hex(8), "files": files})
    return study


def _render_search_recipe(study: Study, recipe: Recipe) -> str:
    # JSON is YAML, but that a dollar sign would begin a variable.
    section = json.dumps(escape_dollars(dump(recipe.tune)), ensure_ascii=False)
    return f"extends: {study.base.name}\ntune: {section}\n"


def describe_search(recipe: Recipe, objectives: Sequence[SearchObjective], fingerprint: str) -> Json:
    """What a search is begun with, to be compared with what it is to go on with."""
    found = [asdict(objective) for objective in objectives]
    # As it will be read again: lists for tuples.
    described: Json = json.loads(json.dumps({"recipe": dump(recipe), "objectives": found, "data": fingerprint}))
    return described


def find_epoch_objective(objectives: Sequence[SearchObjective]) -> SearchObjective | None:
    """The objective that every epoch measures, by which a training is selected and stopped; None if there is none."""
    return next((objective for objective in objectives if objective.name.startswith("validation/")), None)


def find_study(root: Path, text: str) -> Study:
    """A study by its directory, by the name of its recipe, or its folder's.

    Raises:
        BmcliError: There is none.
    """
    for folder in (Path(text), Path(text) / "latest", root / text / "latest", root / f"{text}-tune" / "latest"):
        if os.path.lexists(folder / "study.json") or os.path.lexists(folder / "search.yaml"):
            study = Study(runs.resolve_latest(folder))
            runs.require_regular_files(study.folder)
            return study
    raise BmcliError(
        f"no search '{text}': neither its directory nor a name in {root}.", suggestion="`bmcli tune RECIPE` makes one."
    )


def _drop_nonfinite(result: TrialResult) -> Json:
    """A result as JSON: measures that are not finite are left out, as those that nobody took."""
    found = result.to_json()
    for name in ("objectives", "metrics"):
        found[name] = {key: value for key, value in found[name].items() if math.isfinite(value)}
    plain: Json = records.to_json_value(found)
    return plain


def _identify_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _read_owner(path: Path) -> Any:
    """Who a claim or a worker's file is of, or None if that cannot be told."""
    try:
        return records.read_record(path)
    except (OSError, disk.DamagedFile):
        return None


def _is_dead(path: Path, now: float) -> bool:
    """Whether the process behind a claim or a worker's file is gone, as far as can be seen from here."""
    try:
        silent_s = now - path.stat().st_mtime
    except FileNotFoundError:
        return True
    owner = _read_owner(path)
    here = isinstance(owner, dict) and owner.get("host") == socket.gethostname() and isinstance(owner.get("pid"), int)
    return silent_s > WORKER_TIMEOUT_S or (here and not _is_alive(owner["pid"]))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _touch(path: Path) -> bool:
    """Sets a file's time to now; false if it is gone."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _list_files(folder: Path) -> list[Path]:
    """The files of a folder that have their names already."""
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if not entry.name.startswith(".")]


def _list_tasks(folder: Path) -> set[str]:
    """Names of the tasks that a folder holds a JSON file of."""
    return {path.stem for path in _list_files(folder)}


def _damage_error(path: Path, advice: str = "") -> BmcliError:
    return BmcliError(f"{format_path(path)}: missing or damaged.", suggestion=advice)
