"""A distillation: its folder, and what its parts hand to each other, to the report and to the terminal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from bmcli import disk, runs
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.recipe import students
from bmcli.recipe.distill import TeacherOptions, TrainedTeacherOptions
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.render import render_base
from bmcli.redaction import redact_details
from bmcli.runs import Run

Json = dict[str, Any]


class _Begun(TypedDict):
    base: str
    jobs: dict[str, str]


@dataclass(frozen=True)
class Distillation:
    """One distillation and the files it keeps; the networks are ordinary runs beside it."""

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
    def base(self) -> Path:
        """The recipe in one file, with those it extends and with overrides."""
        return self.folder / "base.yaml"

    @property
    def jobs_file(self) -> Path:
        """The run of each network, by what it is for, and the SHA-256 of `base`."""
        return self.folder / "jobs.json"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def status_file(self) -> Path:
        return self.folder / "status.json"

    def jobs(self) -> dict[str, Run]:
        """The runs that were begun, by what they are for, as `student-1-seed-7`.

        They lie beside the distillation, in the same folder of all runs.

        Raises:
            BmcliError: The file that tells is gone or damaged, or leads elsewhere.
        """
        found = self._begun()["jobs"]
        for folder in found.values():
            if len(Path(folder).parts) != 2 or not _PLAIN.fullmatch(folder):
                raise _damaged(self.jobs_file, f"leads to {folder!r}")
        return {name: Run(self.root / folder) for name, folder in found.items()}

    @property
    def root(self) -> Path:
        """Folder of all runs."""
        return self.folder.parent.parent

    def begin(self, job: str, run: Run) -> None:
        """Notes the run of a network before its first step."""
        begun = self._begun()
        jobs = {**begun["jobs"], job: str(run.folder.absolute().relative_to(self.root.absolute()))}
        disk.write_record(self.jobs_file, {**begun, "jobs": jobs})

    def loaded(self) -> LoadedRecipe:
        """The recipe of the distillation.

        Raises:
            BmcliError: It is not the one that was begun with, or cannot be read.
        """
        try:
            digest = hashlib.sha256(disk.read_file(self.base)).hexdigest()
        except (OSError, disk.DamagedFile) as error:
            raise _damaged(self.base, error) from None
        if digest != self._begun()["base"]:
            raise _damaged(self.base, f"not that of {self.jobs_file.name}, by its SHA-256")
        return load_recipe(str(self.base))

    def _begun(self) -> _Begun:
        try:
            return disk.validate_as(_Begun, disk.read_record(self.jobs_file))
        except (OSError, disk.DamagedFile) as error:
            raise _damaged(self.jobs_file, error) from None

    def set_status(self, state: str, **details: Any) -> None:
        disk.write_record(
            self.status_file, disk.to_json_value({"state": state, "at": runs.now(), **redact_details(details)})
        )

    @contextlib.contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Keeps other processes from writing this distillation.

        Raises:
            BmcliError: Another process does.
        """
        with runs.acquire_lock(self.folder, "Wait for it to end, or distill again."):
            yield


def require_file(file: Path) -> None:
    """Refuses the path of a teacher that is no file.

    Raises:
        BmcliError: There is none, or something else, which would be waited for.
    """
    other = disk.what_is_no_file(file)
    if other:
        is_run = (file / "model.keras").is_file()
        hint = f"Write teacher: {{run: {file}}}." if is_run else "Name the file of a saved model, as teacher.keras."
        raise BmcliError(f"teacher {format_path(file)}: is {other}, expected a .keras file.", suggestion=hint)
    if not os.path.exists(file):
        raise BmcliError(f"teacher {format_path(file)}: no such file.")


_PLAIN = re.compile(r"(?!\.)[^/\0]+/(?!\.)[^/\0]+")


def _damaged(path: Path, reason: OSError | disk.DamagedFile | str) -> BmcliError:
    told = reason.strerror if isinstance(reason, OSError) else reason
    return BmcliError(f"{format_path(path)}: damaged ({told}).", suggestion="Distill again.")


def resolve_teacher(teacher: TeacherOptions, run: Run | None) -> TrainedTeacherOptions:
    """A teacher that is trained.

    Args:
        run: Its run; None if it is a file.

    Raises:
        BmcliError: Its file cannot be read, or is not the one that its run kept.
    """
    file = run.kept_model() if run else Path(teacher.file or "").absolute()
    try:
        require_file(file)
        digest = disk.compute_sha256(file)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="distill.teacher") for fault in error.faults)) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BmcliError(f"teacher {format_path(file)}: {reason}.", path="distill.teacher") from None
    return TrainedTeacherOptions(
        model=str(file), run=str(run.folder) if run else None, digest=digest, weight=teacher.weight
    )


def resolve_student(loaded: LoadedRecipe) -> LoadedRecipe:
    """What a search trains of a recipe: itself, or its student if it distills and its teachers are trained."""
    options = loaded.recipe.distill
    if options is None:
        return loaded
    assert options.teacher is not None, "teachers are trained before the search"
    teachers = [resolve_teacher(each, Run(Path(each.run)) if each.run else None) for each in options.teacher]
    return students.make_distilled_student(students.make_student(loaded), options, teachers, {})


def create_distillation(root: Path, loaded: LoadedRecipe) -> Distillation:
    """A new distillation of a recipe, below `root`."""
    made = Distillation(runs.create(root, f"{loaded.recipe.name}-distill").folder)
    disk.write_atomically(made.recipe, loaded.document.text.encode(), disk.PRIVATE_MODE)
    base = render_base(loaded).encode()
    disk.write_atomically(made.base, base, disk.PRIVATE_MODE)
    disk.write_record(made.jobs_file, {"base": hashlib.sha256(base).hexdigest(), "jobs": {}})
    return made


def find_distillation(root: Path, text: str) -> Distillation:
    """A distillation by its directory, by the name of its recipe, or its folder's.

    Raises:
        BmcliError: There is none.
    """
    for folder in (Path(text), Path(text) / "latest", root / text / "latest", root / f"{text}-distill" / "latest"):
        if _is_one(folder):
            found = Distillation(runs.resolve_latest(folder))
            runs.require_regular_files(found.folder)
            return found
    raise BmcliError(
        f"no distillation '{text}': neither its directory nor a name in {root}.",
        suggestion="`bmcli distill RECIPE` makes one.",
    )


def _is_one(folder: Path) -> bool:
    """Whether a folder is a distillation's, which it stays where a file of it is gone."""
    holds = {name for name in ("base.yaml", "jobs.json", "study.json", "search.yaml") if os.path.lexists(folder / name)}
    return bool(holds) and not holds & {"study.json", "search.yaml"}


@dataclass(frozen=True)
class ReliabilityCurve:
    """How probabilities of one target compare with what came true.

    Args:
        error: Expected calibration error.
        points: Mean probability, frequency and rows of each bin.
    """

    error: float
    points: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class NetworkResult:
    """A network, or the same network trained with several seeds.

    Args:
        name: teacher, baseline, or student.
        runs: Where its runs are, as a user would write it; empty for a file.
        metrics: Means over the seeds, by name.
        by_seed: The metrics of each seed.
        parameters: Numbers that it consists of; of an ensemble all together.
        size: Bytes of its weights.
        latency_s: Median seconds to predict one example; None if it was not measured.
        calibration: By target with classes or labels, of the first seed.
        confusion: By target with one class a row, of the first seed: rows are the truth, columns the prediction.
    """

    name: str
    runs: tuple[str, ...]
    metrics: Mapping[str, float]
    by_seed: tuple[Mapping[str, float], ...]
    parameters: int
    size: int
    latency_s: float | None
    calibration: Mapping[str, ReliabilityCurve] = field(default_factory=dict)
    confusion: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class DistillationGain:
    """What the teacher was good for.

    Args:
        metric: Its name without the split.
        mean: Of the student less that of the baseline, over the seeds; turned so that more is better.
        interval: Its bounds; None if there are none.
        method: How the interval was made, or why there is none.
        by_seed: The gain with each seed.
        gap_closed: Share of the gap between baseline and teacher; None if the teacher is not better than the baseline.
    """

    metric: str
    direction: Literal["min", "max"]
    mean: float
    interval: tuple[float, float] | None
    method: str
    by_seed: tuple[float, ...]
    gap_closed: float | None


@dataclass(frozen=True)
class ClassAgreement:
    """How often student and baseline say of a class's rows what the teacher says.

    Args:
        name: The class; empty for all rows.
        baseline: None without a baseline.
    """

    name: str
    rows: int
    student: float
    baseline: float | None


@dataclass(frozen=True)
class DistillationComparison:
    """A finished distillation.

    Args:
        name: Of the recipe.
        on: The split that everything was measured on.
        rows: How many rows it has.
        teacher, baseline: None without a baseline.
        students: One a generation, the last being the one to use.
        gain: None without a baseline.
        agreement: By target with one class a row.
        classes: By target, those whose confusion is told.
        curves: For each epoch of the last student its losses by name, as `train/soft_loss`.
        asked: How the teacher told what it says, as a sentence.
    """

    name: str
    on: str
    rows: int
    seeds: tuple[int, ...]
    teacher: NetworkResult
    baseline: NetworkResult | None
    students: tuple[NetworkResult, ...]
    gain: DistillationGain | None
    agreement: Mapping[str, tuple[ClassAgreement, ...]]
    classes: Mapping[str, tuple[str, ...]]
    curves: tuple[Mapping[str, float | None], ...]
    asked: str
    seconds: float

    @property
    def student(self) -> NetworkResult:
        return self.students[-1]

    def to_json(self) -> Json:
        return asdict(self)
