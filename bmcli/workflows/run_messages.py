"""Messages about a training: its data, devices and damaged files, and what differs after a resumption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.models import get_backbone_source
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.train import TrainOptions
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.workflows.callbacks import LogCallback, ReportCallback
from bmcli.workflows.run_evaluation import drop_damaged_evaluations

if TYPE_CHECKING:
    from bmcli.training.train_step import Compilation
    from bmcli.training.trainer import Trainer

_MAX_NAMED_COLUMNS = 10


def check_data(prepared: PreparedData, run: Run, log: ReportCallback) -> None:
    """Warn of suspicious data, such as duplicates across splits, and record the findings in the run."""
    from bmcli.data.checks import check_prepared

    findings = check_prepared(prepared)
    run.write(run.checks, {"findings": [finding.to_json() for finding in findings]})
    for finding in findings:
        log(f"warning: {finding}")


def describe_data(spec: DataSpec) -> str:
    """Describe the rows of each split and the kinds of the columns."""
    counts = ", ".join(f"{count:,} {split}" for split, count in spec.counts.items() if count)
    kinds = Counter(column.kind for column in spec.inputs)
    inputs = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    targets, derived = (", ".join(column.name for column in columns) for columns in (spec.targets, spec.derived))
    learned = [f"target: {targets}"] if targets else []
    learned += [f"without a target: {derived}"] if derived else []
    return f"{counts} rows; inputs: {inputs}; {'; '.join(learned)}{_describe_moved(spec)}{_describe_invalid(spec)}"


def _describe_moved(spec: DataSpec) -> str:
    """Describe rows that were moved to training for their classes."""
    if not spec.moved_rows:
        return ""
    return f"; {spec.moved_rows:,} rows moved to training, since no training row had their class or label"


def _describe_invalid(spec: DataSpec) -> str:
    """Describe records and cells that could not be read, and the rows skipped for them."""
    broken = f"; malformed records left out: {spec.malformed_records:,}" if spec.malformed_records else ""
    if not spec.invalid_cells:
        return broken
    cells = ", ".join(
        f"{count:,} of {quoted(name)}" for name, count in islice(spec.invalid_cells.items(), _MAX_NAMED_COLUMNS)
    )
    cells += ", ..." if len(spec.invalid_cells) > _MAX_NAMED_COLUMNS else ""
    return f"{broken}; cells that cannot be read: {cells}; rows left out for them: {spec.skipped_rows:,}"


def report_damage(run: Run, old_status: Mapping[str, Any], log: ReportCallback) -> None:
    """Warn of damaged files that a resumed run does not need, and remove evaluations that cannot be read."""
    for fault in run.read_epochs_checked()[1]:
        log(f"warning: {fault}")
    if old_status.get("state") == "damaged":
        log(f"warning: {old_status['reason']}")
    drop_damaged_evaluations(run, log)


def find_differences(run: Run, trainer: Trainer, loaded: LoadedRecipe) -> list[str]:
    """List differences to the start of a resumed run that may change its result.

    Such as another version of TensorFlow, or a learning-rate schedule over other epochs.
    """
    from bmcli.distribution import environment

    messages = []
    try:
        recorded = run.read_environment()
    except BmcliError as error:
        messages.append(f"warning: {error} {error.faults[0].suggestion}")
        recorded = {}
    changed = environment.compare_environments(recorded, environment.describe_environment(trainer.placement))
    if changed:
        messages.append(f"not bit-identical to an uninterrupted run, since these differ now: {', '.join(changed)}.")
    return [*messages, *_describe_changed_schedule(load_recipe(str(run.lock)).recipe.train, trainer)]


def _describe_changed_schedule(before: TrainOptions, trainer: Trainer) -> Iterator[str]:
    """Report that a schedule over all steps runs over other ones now."""
    from bmcli.training import schedule

    train, step = trainer.recipe.train, trainer.progress.step
    if not schedule.depends_on_length(train):
        return
    old, new = (min(each.epochs * trainer.steps_per_epoch, each.stop.steps or 2**62) for each in (before, train))
    if old != new:
        (then,), (now,) = (
            schedule.compute_rates(schedule.build_learning_rate(train, steps), [step]) for steps in (old, new)
        )
        advice = f" To keep to the old schedule, set train.schedule.span={before.epochs}."
        yield (
            f"the learning rate follows its schedule over all {new:,} steps now, instead of {old:,}: at this step it "
            f"is {now:.3g}, instead of {then:.3g}."
        ) + (advice if old == before.epochs * trainer.steps_per_epoch else "")


def describe_trainer(trainer: Trainer, prepared: PreparedData, log: LogCallback) -> None:
    """Log devices, compilation, size of the network and steps per epoch."""
    placement = trainer.placement
    log(f"prepared data: {prepared.folder}", level=1)
    log(
        f"{placement.kind}, {placement.replicas} replicas on {placement.workers} workers, first device "
        f"{placement.device}, XLA: {_describe_xla(trainer.steps.compilation)}",
        level=1,
    )
    if trainer.start is not None and (source := get_backbone_source(trainer.recipe.model)):
        log(
            f"backbone of {format_path(Path(source.run))}: {len(trainer.start.taken)} weights taken, "
            f"{len(trainer.start.left_out)} of its heads left out"
        )
        log(f"taken: {', '.join(trainer.start.taken)}; left out: {', '.join(trainer.start.left_out)}", level=1)
    if trainer.components.loss.note:
        log(trainer.components.loss.note)
    log(
        f"{trainer.network.model.count_params():,} parameters; {trainer.steps_per_epoch:,} steps of {trainer.batch} "
        f"examples per epoch; selected by {trainer.selection.metric}",
        level=1,
    )


def describe_rates(trainer: Trainer, log: LogCallback) -> None:
    """Warn of steps that a learning rate of 0 makes useless."""
    from bmcli.training import schedule

    idle = schedule.describe_idle_steps(trainer.recipe.train, trainer.selection.steps, trainer.steps_per_epoch)
    if idle:
        log(f"warning: {idle}")


def describe_unfinished_schedule(trainer: Trainer, log: LogCallback) -> None:
    """Report that a training ended before its learning-rate schedule."""
    from bmcli.training import schedule

    progress, steps = trainer.progress, trainer.selection.steps
    rate = progress.last.get("learning_rate")
    if rate is None or progress.stop_reason == "divergence":  # no epoch ended well, which is a failure of its own
        return
    if progress.stop_reason == "time" and schedule.depends_on_length(trainer.recipe.train):
        log(
            f"train.stop.time ended the training at a learning rate of {rate:.4g}, after {progress.step:,} of the "
            f"{steps:,} steps of its schedule. With train.schedule.span=time it follows the time."
        )
    limit_s = trainer.recipe.train.stop.time
    if limit_s and schedule.spans_time(trainer.recipe.train) and progress.train_s < schedule.MIN_SHARE * limit_s:
        log(
            f"the training ended after {progress.train_s / limit_s:.1%} of train.stop.time, at a learning rate of "
            f"{rate:.4g}, before the end of its schedule over time. Raise train.epochs, or leave `span: time` out."
        )


def _describe_xla(compilation: Compilation) -> str:
    if not compilation.jit:
        return "off"
    return f"{compilation.steps_per_program} steps per program" if compilation.steps_per_program > 1 else "on"
