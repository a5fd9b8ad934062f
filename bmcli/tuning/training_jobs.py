"""Run several trainings of one recipe at a time, such as those of folds: `python -m bmcli.tuning.training_jobs`.

Each worker claims jobs, and forks a child for each of them. The children keep their predictions in files.
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

from bmcli import disk, machine, records
from bmcli.data.sources import get_source
from bmcli.distribution.launch import allocate_resources, read_last_lines, start_process
from bmcli.errors import BmcliError, Interrupted, RunFailed
from bmcli.messages import write_message
from bmcli.objectives import open_answers
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.render import render_base
from bmcli.run_data import read_data_spec, write_data_spec
from bmcli.run_folders import resolve_latest
from bmcli.runs import Run, acquire_lock, require_regular_files
from bmcli.specs import DataSpec
from bmcli.training.progress import LineProgress
from bmcli.tuning.trial_process import ForkedProcess, import_training
from bmcli.workflows.session import Session, start_session

if TYPE_CHECKING:
    import subprocess

    import numpy as np

    from bmcli.networks.network import Network
    from bmcli.training.trainer import Trainer

COMMAND = machine.make_python_command("bmcli.tuning.training_jobs")
POLL_S = 0.1


@dataclass(frozen=True)
class TrainingJob:
    """One training of a batch.

    Args:
        name: Name of its folder.
        values: Values that replace those of the recipe, by dotted path.
        splits: Splits whose predictions are kept.
    """

    name: str
    values: Mapping[str, Any]
    splits: tuple[str, ...]


class _JobList(TypedDict):
    jobs: tuple[TrainingJob, ...]


@dataclass(frozen=True)
class FinishedJob:
    """A finished training with its predictions.

    Args:
        metrics: Metrics of the selected epoch.
        truth, predictions: By split and target, in the form of `metrics.measure`.
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
    """The folder of several trainings of one recipe."""

    folder: Path

    @property
    def base(self) -> Path:
        """The recipe whose values the jobs replace."""
        return self.folder / "base.yaml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def run(self, name: str) -> Run:
        return Run(self.folder / name)

    def jobs(self) -> tuple[TrainingJob, ...]:
        return records.validate_as(_JobList, records.read_record(self.folder / "jobs.json"))["jobs"]

    def was_started_with(self, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> bool:
        """Whether the batch has this recipe and these jobs."""
        try:
            return self.base.read_text(encoding="utf-8") == render_base(loaded) and self.jobs() == tuple(jobs)
        except (OSError, ValueError, BmcliError):
            return False  # missing or damaged: everything is trained in a new folder

    def begin(self, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> None:
        """Write the recipe and the jobs, and remove unfinished trainings."""
        disk.write_atomically(self.base, render_base(loaded).encode(), disk.PRIVATE_MODE)
        records.write_record(self.folder / "jobs.json", {"jobs": [asdict(job) for job in jobs]})
        for job in jobs:
            if not self.is_done(job):
                disk.try_to_remove(self.run(job.name).folder)

    def is_done(self, job: TrainingJob) -> bool:
        """Whether a job is finished and none of its files is damaged."""
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
        """Claim a job; false if another worker has it."""
        try:
            self.run(job.name).folder.mkdir()
        except FileExistsError:
            return False
        return True

    def read_result(self, job: TrainingJob) -> FinishedJob | None:
        """Read the result of a job; None if it has not ended.

        Raises:
            BmcliError: It failed.
        """
        run = self.run(job.name)
        status = run.status()
        if status.get("state") == "failed":
            raise RunFailed(f"{job.name}: {status.get('reason')}")
        return _read_result(job, run, status) if status.get("state") == "done" else None


def find_unfinished(root: Path, name: str, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> Run | None:
    """Find the latest batch of a name, if it has the same recipe, jobs and data and is not finished.

    Args:
        root: Folder of all runs.
    """
    latest = Run(resolve_latest(root / name / "latest"))
    require_regular_files(latest.folder)
    batch = JobBatch(latest.folder)
    if latest.evaluation.exists() or latest.is_locked() or not batch.was_started_with(loaded, jobs):
        return None
    fingerprint = get_source(loaded.recipe.data).fingerprint()
    done = [batch.run(job.name) for job in jobs if batch.is_done(job)]
    return latest if done and all(read_data_spec(run).fingerprint == fingerprint for run in done) else None


def describe_resume(root: Path, name: str, loaded: LoadedRecipe) -> str | None:
    """Return advice how to resume the latest batch of a name; None if it has another recipe or nothing finished.

    Args:
        root: Folder of all runs.
    """
    latest = Run((root / name / "latest").resolve())
    batch = JobBatch(latest.folder)
    try:
        is_kept = batch.base.read_text(encoding="utf-8") == render_base(loaded) and any(
            map(batch.is_done, batch.jobs())
        )
    except (OSError, ValueError):
        return None
    return _RESUME_ADVICE if is_kept and not latest.evaluation.exists() else None


_RESUME_ADVICE = "To resume, run the same command again."


def run_jobs(
    loaded: LoadedRecipe, jobs: Sequence[TrainingJob], folder: Path, workers: int, cache: Path, on_finished: JobCallback
) -> tuple[FinishedJob, ...]:
    """Train all unfinished jobs in worker processes, and return all results in the order of the jobs.

    The workers share the cores of this process and the GPUs in CUDA_VISIBLE_DEVICES. The kernel kills them when this
    process ends.

    Args:
        folder: An empty folder, or that of an interrupted batch.
        on_finished: Takes each training when it has ended.

    Raises:
        BmcliError: The recipe refuses the values of a job, a training failed, or there are fewer GPUs than workers.
        Interrupted: A signal came, and some trainings are finished.
    """
    for job in jobs:
        loaded.with_values(job.values)  # raises faults before anything is trained
    batch = JobBatch(folder)
    with acquire_lock(folder, "Wait for it to end."):
        batch.begin(loaded, jobs)
        return _run_workers(batch, jobs, workers, cache, on_finished)


def _run_workers(
    batch: JobBatch, jobs: Sequence[TrainingJob], workers: int, cache: Path, on_finished: JobCallback
) -> tuple[FinishedJob, ...]:
    shares = [allocate_resources(os.environ, workers, number) for number in range(workers)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, share in enumerate(shares):
            log = batch.logs / f"worker-{number}.log"
            command = [*COMMAND, str(batch.folder), str(cache)]
            processes.append(start_process(command, {**os.environ, **share.variables}, share.cores, log))
        return _wait_for_results(batch, jobs, processes, on_finished)
    except KeyboardInterrupt:
        done = sum(batch.is_done(job) for job in jobs)
        if not done:
            raise
        kept = f"{done} of {len(jobs)} trainings are finished and kept in {disk.format_path(batch.folder)}"
        raise Interrupted(f"interrupted; {kept}.", suggestion=_RESUME_ADVICE) from None
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
            if job.name not in done and (finished := batch.read_result(job)) is not None:
                done[job.name] = finished
                on_finished(finished)
        # Polled before the results were read: a worker may write its last result and end in between.
        if not alive and len(done) < len(jobs):
            raise RunFailed(f"the workers ended before all trainings were finished. {_quote_logs(batch)}")
        time.sleep(POLL_S)
    return tuple(done[job.name] for job in jobs)


def _quote_logs(batch: JobBatch) -> str:
    lines = [f"\n    {line}" for log in sorted(batch.logs.glob("*.log")) for line in read_last_lines(log, 5)]
    if lines:
        return f"The last lines of {disk.format_path(batch.logs)}:{''.join(lines)}"
    # A full disk also prevents logs.
    free_bytes = disk.free_bytes(batch.logs) or 0
    return f"Their logs are empty; {free_bytes:,} bytes are free in {disk.format_path(batch.folder)}."


def require_same_classes(finished: Sequence[FinishedJob]) -> DataSpec:
    """Return the data spec of the first training; refuse trainings with other classes.

    Raises:
        RunFailed: The training rows of a job lack a class.
    """
    first = finished[0].spec
    classes = {output.name: output.names for output in first.outputs}
    for other in finished[1:]:
        for output in other.spec.outputs:
            if output.names != classes[output.name]:
                raise RunFailed(
                    f"target {quoted(output.name)}: {other.job.name} has other classes in its training rows than "
                    f"{finished[0].job.name}.",
                    suggestion=f"List them: data.targets.{output.name}.classes.",
                )
    return first


def main(arguments: list[str]) -> None:
    batch, cache = JobBatch(Path(arguments[0])), Path(arguments[1])
    loaded = load_recipe(str(batch.base))
    import_training([loaded.recipe], cache)
    jobs = {job.name: job for job in batch.jobs()}
    for job in jobs.values():
        if batch.claim(job):
            # A child for each: what a training leaves in memory is gone with it, and a crash fails one job alone.
            child = ForkedProcess(lambda name: _train_job(batch, loaded, jobs[name], cache))
            child.submit(job.name)
            if code := child.wait_for_code():
                batch.run(job.name).set_status("failed", reason=f"its process ended with code {code}.")
            child.close()


def _train_job(batch: JobBatch, loaded: LoadedRecipe, job: TrainingJob, cache: Path) -> int:
    """Train a job; returns the exit code of its process."""
    from bmcli.workflows.decisions import calibrate_network

    run = batch.run(job.name)
    try:
        start = time.monotonic()
        session = start_session(_on_one_device(loaded.with_values(job.values)), cache)
        with run.acquire_lock():
            trainer = session.build_trainer(run)
            session.write_run_files(trainer, run)
            run.set_status("running")
            outcome = trainer.train(LineProgress(write_message))
            if outcome.divergence is not None:
                raise RunFailed(f"training stopped: {outcome.divergence}.")
            calibrated = calibrate_network(
                trainer.recipe, outcome.network, session.prepared, trainer.placement, write_message
            )
            write_data_spec(run, calibrated.spec)
            files = _write_predictions(run, calibrated.network, session, trainer, job)
            disk.try_to_remove(run.checkpoints)
            run.set_status(
                "done",
                epochs=outcome.epochs,
                selected_epoch=outcome.selected_epoch,
                metrics=dict(outcome.metrics),
                files=files,
                seconds=round(time.monotonic() - start, 3),
            )
    except BmcliError as error:
        run.set_status("failed", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        run.set_status("failed", reason=f"{type(error).__name__}: {error}")
    return 0


def _on_one_device(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return the recipe for one device, since trainings share the machine, and without TensorBoard events."""
    recipe = loaded.recipe.on_one_device()
    train = recipe.train.model_copy(update={"tensorboard": False})
    return LoadedRecipe(recipe.model_copy(update={"train": train}), loaded.tree, loaded.file, loaded.document)


def _write_predictions(
    run: Run, network: Network, session: Session, trainer: Trainer, job: TrainingJob
) -> dict[str, str]:
    """Write the truth and the predictions of the splits of a job.

    Returns:
        SHA-256 of each file, by its name.
    """
    import numpy as np

    from bmcli.training.predictor import predict

    digests = {}
    for split in job.splits:
        rows = session.prepared.split(split)
        if not len(rows):
            raise BmcliError(f"there are no {split} rows.", path="data.split", suggestion=f"Give {split} a share.")
        predictions = predict(network, rows, trainer.recipe.runtime, trainer.placement)
        arrays = {}
        # By number: names of columns are foreign, and could not all be names of files in an archive.
        for number, (name, answers) in enumerate(open_answers(session.prepared.spec).items()):
            arrays[f"truth-{number}"] = answers.read_truth(rows)
            arrays[f"prediction-{number}"] = predictions[name]
        path = run.folder / f"{split}.npz"
        with disk.convert_write_errors(path, sum(array.nbytes for array in arrays.values())):
            np.savez(path, **arrays)  # type: ignore[arg-type]  # mypy matches **arrays with `allow_pickle`, too
        digests[path.name] = disk.compute_sha256(path)
    return digests


def _read_result(job: TrainingJob, run: Run, status: Mapping[str, Any]) -> FinishedJob:
    """Read the result of a finished job.

    Raises:
        BmcliError: One of its files is missing or damaged.
    """
    spec = read_data_spec(run)
    truth: dict[str, dict[str, np.ndarray]] = {}
    predictions: dict[str, dict[str, np.ndarray]] = {}
    for split in job.splits:
        arrays = _read_arrays(run.folder / f"{split}.npz", status.get("files", {}).get(f"{split}.npz"))
        names = [output.name for output in spec.outputs]
        truth[split] = {name: arrays[f"truth-{number}"] for number, name in enumerate(names)}
        predictions[split] = {name: arrays[f"prediction-{number}"] for number, name in enumerate(names)}
    return FinishedJob(job, spec, status["metrics"], status["epochs"], status["seconds"], truth, predictions)


def _read_arrays(path: Path, digest: str | None) -> dict[str, np.ndarray]:
    """Read the arrays of a file, after a check of its SHA-256."""
    import numpy as np

    try:
        content = disk.read_file(path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise disk.DamagedFile("changed since it was written, by its SHA-256")
    except (OSError, disk.DamagedFile) as error:
        raise RunFailed(f"{disk.format_path(path)}: damaged ({error}).", suggestion=_TRAIN_AGAIN) from None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


_TRAIN_AGAIN = "Run the same command again to repeat this training."

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
