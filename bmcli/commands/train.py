"""`bmcli train`: train a recipe in a new run, or resume one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bmcli import machine, runs
from bmcli.errors import BmcliError, Interrupted
from bmcli.recipe.load import load_recipe
from bmcli.recipe.paths import join_steps, parse_steps
from bmcli.stopping import format_resume_advice
from bmcli.workflows.training import TrainingContext, TrainingResult, resume_run, train_recipe

# How long and on which devices a run trains may change when it is resumed; data, network and loss may not.
CHANGEABLE = (
    "train.epochs", "train.stop", "train.schedule.span", "train.checkpoint", "train.tensorboard", "runtime", "evaluate"
)  # fmt: skip


def train(target: str, overrides: Sequence[str], context: TrainingContext) -> TrainingResult:
    """Train a recipe in a new run.

    Raises:
        RunFailed: The loss or the weights became infinite; the last good weights are kept.
        Interrupted: A signal came; the run can be resumed.
    """
    loaded = load_recipe(target, overrides)
    try:
        return train_recipe(loaded, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(target: str, overrides: Sequence[str], context: TrainingContext) -> TrainingResult:
    """Resume an interrupted run from its last checkpoint, or a finished one that may train longer now.

    Args:
        target: A run directory, or the name of a recipe, whose latest run is taken.
        overrides: Changes to its recipe, of `CHANGEABLE` paths.
    """
    run = runs.find(context.root, target)
    _check_changes(overrides)
    return resume_run(run, overrides, context)


def train_in_workers(
    recipe: str | None,
    resumed: str | None,
    overrides: Sequence[str],
    workers: int,
    root: Path,
    arguments: Sequence[str],
) -> int:
    """Train in worker processes on this machine.

    Args:
        arguments: Command line of each worker, without the options about workers.

    Returns:
        The exit code.

    Raises:
        BmcliError: The recipe is at fault, or a worker was lost.
    """
    from bmcli.distribution.launch import launch_workers

    if resumed is not None:
        run, into = runs.find(root, resumed), []
        _check_changes(overrides)
    else:
        run = runs.create(root, load_recipe(recipe or "", [*overrides, "runtime.strategy=multi_worker"]).recipe.name)
        into = ["--into", str(run.folder)]
    command = [*machine.make_python_command("bmcli"), *arguments, "--strategy", "multi_worker", *into]
    try:
        end = launch_workers(command, workers, run.logs)
        # The lock has the changes of a resumed run only after its chief has begun: they are given again.
        resume_command = run.resume_command.with_arguments(*(overrides if resumed is not None else ()))
        is_resumable = run.resume_advice is not None
        if end.interrupted and is_resumable:
            raise Interrupted("interrupted; what was saved is kept.", suggestion=format_resume_advice(resume_command))
        if end.loss is None:
            return end.code
        raise end.loss.to_error(resume_command if is_resumable else None)
    finally:
        if not run.lock.exists():
            runs.discard(run)  # nothing was trained


def _check_changes(overrides: Sequence[str]) -> None:
    """Refuse changes that would make it another training."""
    for argument in overrides:
        steps, _ = parse_steps(argument)
        path = join_steps(steps)
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in CHANGEABLE):
            raise BmcliError(
                f"{path} cannot change when a run is resumed: it would be another training.",
                suggestion=f"These can change: {', '.join(CHANGEABLE)}. For other changes, train a new run.",
            )
