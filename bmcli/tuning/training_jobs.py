"""Trainings of one recipe side by side, for instance of folds: `python -m bmcli.tuning.training_jobs`.

Each worker takes jobs that nobody has taken, and forks a child for each. What a child predicts is kept in files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from bmcli import disk
from bmcli.distribution.launch import allocate_resources, read_last_lines, start_process
from bmcli.errors import BmcliError, Interrupted, RunFailed
from bmcli.messages import write_message
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.render import render_base
from bmcli.run_data import read_data_spec, write_data_spec
from bmcli.runs import Run, acquire_lock, require_regular_files, resolve_latest
from bmcli.specs import DataSpec
from bmcli.training.progress import LineProgress
from bmcli.tuning.trial_process import ForkedProcess, import_training
from bmcli.workflows import session as sessions
from bmcli.workflows.session import Session

if TYPE_CHECKING:
    import subprocess

    import numpy as np

    from bmcli.networks.network import Network
    from bmcli.training.trainer import Trainer, TrainingOutcome

COMMAND = [sys.executable, "-m", "bmcli.tuning.training_jobs"]
POLL_S = 0.1


@dataclass(frozen=True)
class TrainingJob:
    """A training.

    Args:
        name: Of its folder.
        values: Laid over the recipe, by dotted path.
        splits: Whose predictions are kept.
    """

    name: str
    values: Mapping[str, Any]
    splits: tuple[str, ...]


class _JobList(TypedDict):
    jobs: tuple[TrainingJob, ...]


@dataclass(frozen=True)
class FinishedJob:
    """A training that ended well.

    Args:
        metrics: Of the epoch that was kept.
        truth, predictions: By split and target, as `metrics.measure` takes them.
    """

    job: TrainingJob
    spec: DataSpec
    metrics: Mapping[str, float]
    epochs: int
    seconds: float
    truth: Mapping[str, Mapping[str, np.ndarray]]
    predictions: Mapping[str, Mapping[str, np.ndarray]]


JobCallback = Callable[[FinishedJob], None]


@dataclass(frozen=True)
class JobBatch:
    """A folder of trainings."""

    folder: Path

    @property
    def base(self) -> Path:
        """The recipe that jobs are laid over."""
        return self.folder / "base.yaml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def run(self, name: str) -> Run:
        return Run(self.folder / name)

    def jobs(self) -> tuple[TrainingJob, ...]:
        return disk.validate_as(_JobList, disk.read_record(self.folder / "jobs.json"))["jobs"]

    def was_started_with(self, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> bool:
        """Whether it is of the same recipe and jobs."""
        try:
            return self.base.read_text(encoding="utf-8") == render_base(loaded) and self.jobs() == tuple(jobs)
        except (OSError, ValueError, BmcliError):
            return False  # gone or damaged: all is trained in a new folder

    def begin(self, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> None:
        """Writes what is to be trained, and clears away what came to no end."""
        disk.write_atomically(self.base, render_base(loaded).encode(), disk.PRIVATE_MODE)
        disk.write_record(self.folder / "jobs.json", {"jobs": [asdict(job) for job in jobs]})
        for job in jobs:
            if not self.is_done(job):
                disk.try_to_remove(self.run(job.name).folder)

    def is_done(self, job: TrainingJob) -> bool:
        """Whether a job has come to its end, and all that it left is whole."""
        run = self.run(job.name)
        status = run.status()
        if status.get("state") != "done":
            return False
        try:
            _read_result(job, run, status)
        except BmcliError:
            return False
        return True

    def claim(self, job: TrainingJob) -> bool:
        """Whether nobody had taken a job."""
        try:
            self.run(job.name).folder.mkdir()
        except FileExistsError:
            return False
        return True

    def result(self, job: TrainingJob) -> FinishedJob | None:
        """What a job came to; None if it has not ended.

        Raises:
            BmcliError: It failed.
        """
        run = self.run(job.name)
        status = run.status()
        if status.get("state") == "failed":
            raise RunFailed(f"{job.name}: {status.get('reason')}")
        return _read_result(job, run, status) if status.get("state") == "done" else None


def find_unfinished(root: Path, name: str, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> Run | None:
    """The latest batch of a name, if it was begun with the same recipe, jobs and data and has not come to its end.

    Args:
        root: Folder of all runs.
    """
    latest = Run(resolve_latest(root / name / "latest"))
    require_regular_files(latest.folder)
    batch = JobBatch(latest.folder)
    if latest.evaluation.exists() or latest.is_locked() or not batch.was_started_with(loaded, jobs):
        return None
    current = loaded.recipe.data.source.fingerprint()  # type: ignore[attr-defined]
    done = [batch.run(job.name) for job in jobs if batch.is_done(job)]
    return latest if done and all(read_data_spec(run).fingerprint == current for run in done) else None


def describe_resume(root: Path, name: str, loaded: LoadedRecipe) -> str | None:
    """The sentence that tells how to go on with the latest batch of a name; None if it is another, or nothing is kept.

    Args:
        root: Folder of all runs.
    """
    latest = Run((root / name / "latest").resolve())
    batch = JobBatch(latest.folder)
    try:
        kept = batch.base.read_text(encoding="utf-8") == render_base(loaded) and any(map(batch.is_done, batch.jobs()))
    except (OSError, ValueError):
        return None
    return "The same command goes on." if kept and not latest.evaluation.exists() else None


def run_jobs(
    loaded: LoadedRecipe, jobs: Sequence[TrainingJob], folder: Path, workers: int, cache: Path, on_finished: JobCallback
) -> tuple[FinishedJob, ...]:
    """Trains every job that is not done yet, in the order of the jobs.

    The cores that this process may use are divided among the workers, and so are the GPUs that CUDA_VISIBLE_DEVICES
    lists. The kernel ends them when this process ends.

    Args:
        folder: Empty, or `find_unfinished`.
        on_finished: Hears of each training when it has ended.

    Raises:
        BmcliError: The recipe refuses the values of a job, a training failed, or there are fewer GPUs than workers.
        Interrupted: A signal came, and some trainings are done.
    """
    for job in jobs:
        loaded.with_values(job.values)
    batch = JobBatch(folder)
    with acquire_lock(folder, "Wait for it to end."):
        batch.begin(loaded, jobs)
        return _run_workers(batch, jobs, workers, cache, on_finished)


def _run_workers(
    batch: JobBatch, jobs: Sequence[TrainingJob], workers: int, cache: Path, on_finished: JobCallback
) -> tuple[FinishedJob, ...]:
    places = [allocate_resources(os.environ, workers, number) for number in range(workers)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, share in enumerate(places):
            log = batch.logs / f"worker-{number}.log"
            command = [*COMMAND, str(batch.folder), str(cache)]
            processes.append(start_process(command, {**os.environ, **share.variables}, share.cores, log))
        return _wait_for_results(batch, jobs, processes, on_finished)
    except KeyboardInterrupt:
        done = sum(batch.is_done(job) for job in jobs)
        if not done:
            raise
        kept = f"{done} of {len(jobs)} trainings are done and kept in {disk.format_path(batch.folder)}"
        raise Interrupted(f"interrupted; {kept}.", suggestion="The same command goes on.") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait_for_results(
    batch: JobBatch, jobs: Sequence[TrainingJob], processes: Sequence[subprocess.Popen[bytes]], on_finished: JobCallback
) -> tuple[FinishedJob, ...]:
    done: dict[str, FinishedJob] = {}
    while len(done) < len(jobs):
        alive = any(process.poll() is None for process in processes)
        for job in jobs:
            if job.name not in done and (found := batch.result(job)) is not None:
                done[job.name] = found
                on_finished(found)
        if not alive and len(done) < len(jobs):
            raise RunFailed(f"the workers ended before all was trained.{_quote_logs(batch)}")
        time.sleep(POLL_S)
    return tuple(done[job.name] for job in jobs)


def _quote_logs(batch: JobBatch) -> str:
    lines = [f"\n    {line}" for log in sorted(batch.logs.glob("*.log")) for line in read_last_lines(log, 5)]
    if lines:
        return f" Their last lines, from {disk.format_path(batch.logs)}:{''.join(lines)}"
    return (
        f" They left no words; {disk.free_bytes(batch.logs) or 0:,} bytes are free in {disk.format_path(batch.folder)}."
    )


def require_same_classes(finished: Sequence[FinishedJob]) -> DataSpec:
    """What the data of the first training is; refuses others that tell other classes.

    Raises:
        RunFailed: The training rows of one lack a class.
    """
    first = finished[0].spec
    classes = {column.name: column.classes for column in first.targets}
    for each in finished[1:]:
        for column in each.spec.targets:
            if column.classes != classes[column.name]:
                raise RunFailed(
                    f"target {quoted(column.name)}: {each.job.name} has other classes in its training rows than "
                    f"{finished[0].job.name}.",
                    suggestion=f"List them: data.targets.{column.name}.classes.",
                )
    return first


def main(arguments: list[str]) -> None:
    batch, cache = JobBatch(Path(arguments[0])), Path(arguments[1])
    loaded = load_recipe(str(batch.base))
    import_training([loaded.recipe], cache)
    for job in batch.jobs():
        if batch.claim(job):
            child = ForkedProcess(lambda _, job=job: _train_job(batch, loaded, job, cache))  # type: ignore[misc]
            child.submit(job.name)
            if code := child.wait_for_code():
                batch.run(job.name).set_status("failed", reason=f"its process ended with code {code}.")
            child.close()


def _train_job(batch: JobBatch, loaded: LoadedRecipe, job: TrainingJob, cache: Path) -> int:
    """Trains a job in a process of its own."""
    from bmcli.workflows.decisions import calibrate_network

    run = batch.run(job.name)
    try:
        start_at = time.monotonic()
        session = sessions.start_session(_on_one_device(loaded.with_values(job.values)), cache)
        with run.acquire_lock():
            trainer = session.build_trainer(run)
            session.write_run_files(trainer, run)
            run.set_status("running")
            outcome = trainer.train(LineProgress(write_message))
            if outcome.divergence is not None:
                raise RunFailed(f"training stopped: {outcome.divergence}.")
            decided = calibrate_network(
                trainer.recipe, outcome.network, session.prepared, trainer.placement, write_message
            )
            write_data_spec(run, decided.spec)
            files = _write_predictions(run, decided.network, session, trainer, job)
            disk.try_to_remove(run.checkpoints)
            run.set_status(
                "done", **_summarize_outcome(outcome), files=files, seconds=round(time.monotonic() - start_at, 3)
            )
    except BmcliError as error:
        run.set_status("failed", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        run.set_status("failed", reason=f"{type(error).__name__}: {error}")
    return 0


def _on_one_device(loaded: LoadedRecipe) -> LoadedRecipe:
    """Beside other trainings each has one device; what these write for TensorBoard nobody looks at."""
    recipe = loaded.recipe.on_one_device()
    train = recipe.train.model_copy(update={"tensorboard": False})
    return LoadedRecipe(recipe.model_copy(update={"train": train}), loaded.tree, loaded.file, loaded.document)


def _summarize_outcome(outcome: TrainingOutcome) -> dict[str, Any]:
    return {"epochs": outcome.epochs, "selected_epoch": outcome.selected_epoch, "metrics": dict(outcome.metrics)}


def _write_predictions(
    run: Run, network: Network, session: Session, trainer: Trainer, job: TrainingJob
) -> dict[str, str]:
    """Writes predictions beside the truth. Arrays are numbered, never named after columns, whose names are foreign.

    Returns:
        SHA-256 of each file, by its name.
    """
    import numpy as np

    from bmcli.data import targets as target_kinds
    from bmcli.training.predictor import predict

    digests = {}
    for split in job.splits:
        rows = session.prepared.split(split)
        if not len(rows):
            raise BmcliError(f"there are no {split} rows.", path="data.split", suggestion=f"Give {split} a share.")
        found = predict(network, rows, trainer.recipe.runtime, trainer.placement)
        arrays = {}
        for number, column in enumerate(session.prepared.spec.targets):
            kind = target_kinds.kind_of(column)
            arrays[f"truth-{number}"] = kind.decode(rows.targets[column.name], column)
            arrays[f"prediction-{number}"] = found[column.name]
        path = run.folder / f"{split}.npz"
        with disk.convert_write_errors(path, sum(array.nbytes for array in arrays.values())):
            np.savez(path, **arrays)  # type: ignore[arg-type]  # typed as its other options
        digests[path.name] = disk.compute_sha256(path)
    return digests


def _read_result(job: TrainingJob, run: Run, status: Mapping[str, Any]) -> FinishedJob:
    """What a job came to.

    Raises:
        BmcliError: A file of it is gone or damaged.
    """
    spec = read_data_spec(run)
    truth: dict[str, dict[str, np.ndarray]] = {}
    predictions: dict[str, dict[str, np.ndarray]] = {}
    for split in job.splits:
        arrays = _arrays(run.folder / f"{split}.npz", status.get("files", {}).get(f"{split}.npz"))
        names = [column.name for column in spec.targets]
        truth[split] = {name: arrays[f"truth-{number}"] for number, name in enumerate(names)}
        predictions[split] = {name: arrays[f"prediction-{number}"] for number, name in enumerate(names)}
    return FinishedJob(job, spec, status["metrics"], status["epochs"], status["seconds"], truth, predictions)


def _arrays(path: Path, digest: str | None) -> dict[str, np.ndarray]:
    """The arrays of a file whose SHA-256 is known."""
    import numpy as np

    try:
        content = disk.read_file(path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise disk.DamagedFile("changed since it was written, by its SHA-256")
    except (OSError, disk.DamagedFile) as error:
        raise RunFailed(f"{disk.format_path(path)}: damaged ({error}).", suggestion=_TRAIN_ANEW) from None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


_TRAIN_ANEW = "The same command trains that part anew."

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
