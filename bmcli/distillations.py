"""Distillations: their folders and results, for command, report and terminal."""

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

from bmcli import disk, records, run_folders, runs
from bmcli.advice import make_command
from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.recipe import students
from bmcli.recipe.distill import TeacherOptions, TrainedTeacherOptions
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.render import render_base
from bmcli.redaction import redact_details
from bmcli.runs import Run

Json = dict[str, Any]


class _JobsRecord(TypedDict):
    base: str
    jobs: dict[str, str]


@dataclass(frozen=True)
class Distillation:
    """One distillation and the files it keeps; the networks are ordinary runs beside it."""

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
    def base(self) -> Path:
        """The recipe in one file, merged with those it extends and with overrides."""
        return self.folder / "base.yaml"

    @property
    def jobs_file(self) -> Path:
        """The runs of the networks by role, and the SHA-256 of `base`."""
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
        """Read the runs that were started, by role, such as `student-1-seed-7`.

        They are in the same folder of runs as the distillation.

        Raises:
            BmcliError: The file is missing or damaged, or names a folder elsewhere.
        """
        jobs = self._read_jobs_record()["jobs"]
        for folder in jobs.values():
            # A foreign distillation must not make bmcli write outside of the folder of runs.
            if len(Path(folder).parts) != 2 or not _RUN_PATH.fullmatch(folder):
                raise _make_damage_error(self.jobs_file, f"contains the path {folder!r}")
        return {name: Run(self.root / folder) for name, folder in jobs.items()}

    @property
    def root(self) -> Path:
        """Folder of all runs."""
        return self.folder.parent.parent

    def add_job(self, job: str, run: Run) -> None:
        """Record the run of a network before its first step."""
        record = self._read_jobs_record()
        jobs = {**record["jobs"], job: str(run.folder.absolute().relative_to(self.root.absolute()))}
        records.write_record(self.jobs_file, {**record, "jobs": jobs})

    def load_base(self) -> LoadedRecipe:
        """Load the recipe of the distillation.

        Raises:
            BmcliError: It was changed since the start, or cannot be read.
        """
        try:
            digest = hashlib.sha256(disk.read_file(self.base)).hexdigest()
        except (OSError, disk.DamagedFile) as error:
            raise _make_damage_error(self.base, error) from None
        if digest != self._read_jobs_record()["base"]:
            raise _make_damage_error(self.base, f"not that of {self.jobs_file.name}, by its SHA-256")
        return load_recipe(str(self.base))

    def _read_jobs_record(self) -> _JobsRecord:
        try:
            return records.validate_as(_JobsRecord, records.read_record(self.jobs_file))
        except (OSError, disk.DamagedFile) as error:
            raise _make_damage_error(self.jobs_file, error) from None

    def set_status(self, state: str, **details: Any) -> None:
        records.write_record(
            self.status_file, records.to_json_value({"state": state, "at": runs.now(), **redact_details(details)})
        )

    @contextlib.contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Lock this distillation against writing by other processes.

        Raises:
            BmcliError: Another process has locked it.
        """
        with runs.acquire_lock(self.folder, "Wait for it to end, or distill again."):
            yield


def require_file(file: Path) -> None:
    """Check that the path of a teacher is a file.

    Raises:
        BmcliError: It does not exist, or is a folder, device or pipe, whose opening could block.
    """
    other = disk.describe_non_file(file)
    if other:
        is_run = (file / "model.keras").is_file()
        hint = f"Write teacher: {{run: {file}}}." if is_run else "Name the file of a saved model, like teacher.keras."
        raise BmcliError(f"teacher {format_path(file)}: is {other}, expected a .keras file.", suggestion=hint)
    if not os.path.exists(file):
        raise BmcliError(f"teacher {format_path(file)}: no such file.")


_RUN_PATH = re.compile(r"(?!\.)[^/\0]+/(?!\.)[^/\0]+")


def _make_damage_error(path: Path, reason: OSError | disk.DamagedFile | str) -> BmcliError:
    text = reason.strerror if isinstance(reason, OSError) else reason
    return BmcliError(f"{format_path(path)}: damaged ({text}).", suggestion="Distill again.")


def resolve_teacher(teacher: TeacherOptions, run: Run | None) -> TrainedTeacherOptions:
    """Resolve the model file of a trained teacher and its SHA-256.

    Args:
        run: Its run; None if it is a file.

    Raises:
        BmcliError: The file cannot be read, or is not the one that its run wrote.
    """
    file = run.require_model() if run else Path(teacher.file or "").absolute()
    try:
        require_file(file)
        digest = disk.compute_sha256(file)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="distill.teacher") for fault in error.faults)) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BmcliError(f"teacher {format_path(file)}: {reason}.", path="distill.teacher") from None
    return TrainedTeacherOptions(
        model=str(file), run=str(run.folder) if run else None, sha256=digest, weight=teacher.weight
    )


def resolve_student(loaded: LoadedRecipe) -> LoadedRecipe:
    """Make the recipe that a search trains: the recipe itself, or its student if it has a section `distill`."""
    options = loaded.recipe.distill
    if options is None:
        return loaded
    assert options.teacher is not None, "teachers are trained before the search"
    teachers = [resolve_teacher(each, Run(Path(each.run)) if each.run else None) for each in options.teacher]
    return students.make_distilled_student(students.make_student(loaded), options, teachers, {})


def create_distillation(root: Path, loaded: LoadedRecipe) -> Distillation:
    """Create a distillation of a recipe below `root`."""
    distillation = Distillation(runs.create(root, f"{loaded.recipe.name}-distill").folder)
    disk.write_atomically(distillation.recipe, loaded.document.text.encode(), disk.PRIVATE_MODE)
    base = render_base(loaded).encode()
    disk.write_atomically(distillation.base, base, disk.PRIVATE_MODE)
    records.write_record(distillation.jobs_file, {"base": hashlib.sha256(base).hexdigest(), "jobs": {}})
    return distillation


def find_distillation(root: Path, text: str) -> Distillation:
    """Find a distillation by its directory, the name of its recipe, or the name of its folder.

    Raises:
        BmcliError: There is none.
    """
    for folder in (Path(text), Path(text) / "latest", root / text / "latest", root / f"{text}-distill" / "latest"):
        if _is_distillation(folder):
            distillation = Distillation(run_folders.resolve_latest(folder))
            runs.require_regular_files(distillation.folder)
            return distillation
    raise BmcliError(
        f"no distillation '{text}': neither its directory nor a name in {root}.",
        suggestion=f"{make_command('distill', 'RECIPE')} makes one.",
    )


def _is_distillation(folder: Path) -> bool:
    """Whether a folder is that of a distillation; also if one of its files is missing, which is reported later."""
    # Searches have `base.yaml` too.
    files = {name for name in ("base.yaml", "jobs.json", "study.json", "search.yaml") if os.path.lexists(folder / name)}
    return bool(files) and not files & {"study.json", "search.yaml"}


@dataclass(frozen=True)
class ReliabilityCurve:
    """Reliability diagram of the probabilities of one target.

    Args:
        error: Expected calibration error.
        points: Mean probability, observed frequency and number of rows of each bin.
    """

    error: float
    points: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class NetworkResult:
    """Results of a network, or of one network trained with several seeds.

    Args:
        name: teacher, baseline, or student.
        runs: Paths of its runs; empty for a file.
        metrics: Means over the seeds, by name.
        by_seed: Metrics of each seed.
        parameters: Number of its weights; for an ensemble the sum.
        size: Size of its weights in bytes.
        latency_s: Median time to predict one example, in seconds; None if not measured.
        calibration: Reliability of the first seed, for targets with classes or labels.
        confusion: Confusion matrix of the first seed, for targets with one class per row: rows are the true classes,
            columns the predicted ones.
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
    """Gain of the student over the baseline.

    Args:
        metric: Name of the metric without the split.
        mean: Mean difference of student and baseline over the seeds; positive if the student is better.
        interval: Bounds of its confidence interval, or None.
        method: Method of the interval, or why there is none.
        by_seed: Gain with each seed.
        gap_closed: Fraction of the gap between baseline and teacher; None if the teacher is no better than the
            baseline.
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
    """Fractions of the rows of a class for which student and baseline predict the class that the teacher predicts.

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
    """Results of a finished distillation.

    Args:
        name: Name of the recipe.
        on: Evaluated split.
        rows: Number of its rows.
        teacher, baseline: Results of these networks; the baseline is None if the recipe has none.
        students: Results of each generation; the last one is the result of the distillation.
        gain: None without a baseline.
        agreement: Agreement with the teacher, for targets with one class per row.
        classes: Classes of the confusion matrices, by target.
        positive: The positive class of each target that has one.
        curves: Losses of each epoch of the last student, by name, such as `train/soft_loss`.
        teacher_note: How the outputs of the teacher were computed, as a sentence.
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
    positive: Mapping[str, str]
    curves: tuple[Mapping[str, float | None], ...]
    teacher_note: str
    seconds: float

    @property
    def student(self) -> NetworkResult:
        return self.students[-1]

    def to_json(self) -> Json:
        return asdict(self)
