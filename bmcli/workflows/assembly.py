"""Build a trainer from a recipe, with every collaborator in the order in which they need each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from bmcli import training
from bmcli.compression import channel_pruning, pruning
from bmcli.compression.quantization_aware import QuantizationAware
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError
from bmcli.networks.network import Network
from bmcli.networks.weights import TakenWeights
from bmcli.recipe.compression import ChannelPruning
from bmcli.recipe.schema import Recipe
from bmcli.recipe.train import MOMENTUM_OPTIONS, ScheduleOptions, TrainOptions
from bmcli.runs import Run
from bmcli.specs import PreparedData
from bmcli.training import augmentation, checkpoint, early_check, feed, optimizers
from bmcli.training.autotune import batch_size, compilation, learning_rate
from bmcli.training.averaging import (
    ExponentialMovingAverage,
    ScheduleFree,
    StatisticsContext,
    StochasticWeightAverage,
    WeightAverage,
)
from bmcli.training.batch_normalization import StatisticsEstimator
from bmcli.training.callbacks import Directions, KerasCallbacks
from bmcli.training.early_check import EarlyCheck
from bmcli.training.evaluator import Evaluator
from bmcli.training.feed import Feed
from bmcli.training.hooks import LayerRates, StepHook
from bmcli.training.loss import LossProvider
from bmcli.training.meters import Meters
from bmcli.training.profile import Profiler
from bmcli.training.sampler import Sampler
from bmcli.training.schedule import TrainingClock, count_schedule_steps, spans_time
from bmcli.training.selection import Selection
from bmcli.training.step_components import StepComponents
from bmcli.training.train_step import PLAIN, Compilation, CompiledSteps
from bmcli.training.trainer import Trainer

EVALUATION_BATCH_SIZE = 512

_MANY_STEPS = 10**6  # length of a schedule whose end no measurement reaches


def build_trainer(
    recipe: Recipe,
    network: Network,
    prepared: PreparedData,
    placement: Placement,
    run: Run | None,
    cache: Path,
    profile: bool = False,
    loss: LossProvider | None = None,
    start: TakenWeights | None = None,
) -> Trainer:
    """Build a trainer that is ready for its first step; measure what the recipe leaves to `auto`.

    Args:
        run: Run to write into; None on a worker that writes nothing.
        cache: Folder of the measurements of this machine.
        profile: Write a trace of some seconds of training for TensorBoard.
        loss: Computes the loss of each example; by default from the labels.
        start: Weights that the network took from another run.

    Raises:
        BmcliError: The recipe's options do not fit the network or the data.
    """
    loss = loss or LossProvider(network, recipe.seed)
    augment = augmentation.build_augmenter(recipe, prepared.spec)
    mixes = augment is not None and augment.mixes
    rows = feed.make_feed(prepared.split("train"), recipe.runtime, placement, whole_batches=mixes)
    sampler = Sampler(recipe, prepared)
    meters = Meters(network, recipe.metrics(), placement, loss.term_names, prepared.spec.weight is not None)
    evaluator = _build_evaluator(network, prepared, recipe, placement)
    directions = _collect_directions(meters, evaluator)
    # Built only for its checks: a fault of the recipe must come before the measurements, which take minutes.
    Selection.of(recipe.train, directions, 0)

    clock = _build_clock(recipe.train, placement)

    # Each measurement changes its optimizer, so each gets a new one.
    def build_components(train: TrainOptions, steps: int, *hooks: StepHook) -> StepComponents:
        optimizer = _build_optimizer(train, steps, clock, network, loss, placement)
        return StepComponents(network, optimizer, meters, placement, loss, augment, hooks)

    rates = _build_layer_rates(recipe.train, network, loss)
    recipe, batch = _resolve_auto(recipe, build_components, rates, rows, sampler.epoch_order(0), cache)
    train, steps_per_epoch = recipe.train, math.ceil(rows.count / batch)
    loss.steps_per_epoch = steps_per_epoch
    steps = min(train.epochs * steps_per_epoch, train.stop.steps or 2**62)

    def build_final_network() -> Network:
        return training.build_network(
            recipe.after_training(), prepared.spec, prepared.split("train").targets, placement
        )

    plain = build_components(train, count_schedule_steps(train, steps, steps_per_epoch))
    statistics = _build_statistics_context(train, plain, rows, batch, sampler)
    average = _build_average(train, plain, steps, steps_per_epoch, statistics)
    masks = _build_masks(train, network, placement, steps, average, build_final_network)
    quantization = _build_quantization(train, plain, steps)
    # The masks also set pruned weights to 0 in the copies of an average, so its hook comes before theirs.
    hooks = (*([clock] if clock else []), *rates, *([average] if average else []), *masks, *quantization)

    def finish_network() -> Network:
        if not any(hook.replaces_network for hook in hooks):
            return network
        kept = build_final_network()
        channel_pruning.copy_weights(network.model, kept.model)
        for hook in hooks:
            hook.finish(kept.model)
        return kept

    output = run if placement.is_chief else None
    events = str(output.events) if output else None
    return Trainer(
        recipe=recipe,
        steps=_compile_steps(recipe, replace(plain, hooks=hooks), batch, rows, sampler.epoch_order(0), steps, cache),
        feed=rows,
        sampler=sampler,
        evaluator=evaluator,
        selection=Selection.of(train, directions, steps),
        callbacks=KerasCallbacks(train, network.model, plain.optimizer, events, directions),
        finish_network=finish_network,
        run=run,
        output=output,
        writer=checkpoint.CheckpointWriter(output.checkpoints) if output else None,
        profile=Profiler(events) if events and profile else None,
        cache=cache,
        start=start,
        early_check=_build_early_check(recipe, loss, prepared, steps, steps_per_epoch),
    )


def _build_early_check(
    recipe: Recipe, loss: LossProvider, prepared: PreparedData, steps: int, steps_per_epoch: int
) -> EarlyCheck:
    def compute_baselines() -> dict[str, float] | None:
        train = prepared.split("train")
        splits = [name for name in ("train", "validation") if prepared.spec.counts.get(name)]
        losses = {f"{name}/loss": loss.compute_constant_loss(train, prepared.split(name)) for name in splits}
        known = {name: value for name, value in losses.items() if value is not None}
        return known if len(known) == len(losses) else None

    epoch = early_check.choose_epoch(recipe.train, steps, steps_per_epoch)
    return EarlyCheck(epoch, compute_baselines, early_check.make_suggestion(recipe.train, recipe.model))


ComponentsBuilder = Callable[..., StepComponents]
"""Build components with a new optimizer, from training options, steps of the whole training, and hooks."""


def _resolve_auto(
    recipe: Recipe, build_components: ComponentsBuilder, rates: Sequence[StepHook], rows: Feed, order: Any, cache: Path
) -> tuple[Recipe, int]:
    """Measure a batch size and a learning rate where the recipe has `auto`.

    Returns:
        The recipe with its learning rate, and the batch size, which no split of fewer rows exceeds.
    """
    train, parts = recipe.train, recipe.train.gradient_accumulation
    if train.batch_size == "auto":
        compiled, trial = Compilation(recipe.runtime.jit is True), build_components(train, _MANY_STEPS)
        batch = batch_size.choose_batch_size(
            lambda size: CompiledSteps(trial, size, compiled, parts), rows, order, cache
        )
    else:
        batch = min(train.batch_size, rows.count)
    if train.optimizer.options["learning_rate"] != "auto":
        return recipe, batch
    lowest = optimizers.replace_learning_rate(train, learning_rate.LOWEST, ScheduleOptions(kind="constant"))
    steps = CompiledSteps(build_components(lowest, _MANY_STEPS, *rates), batch, PLAIN, parts)
    train = optimizers.replace_learning_rate(train, learning_rate.find_learning_rate(steps, rows, order))
    return recipe.model_copy(update={"train": train}), batch


def _compile_steps(
    recipe: Recipe, components: StepComponents, batch: int, rows: Feed, order: Any, steps: int, cache: Path
) -> CompiledSteps:
    """Compile the steps with the fastest compilation on this machine, among those that the recipe allows."""
    parts = recipe.train.gradient_accumulation
    compilations = compilation.list_compilations(recipe, components, rows.count // batch)
    return compilation.choose_compilation(
        lambda chosen: CompiledSteps(components, batch, chosen, parts), compilations, rows, order, steps, cache
    )  # fmt: skip


def _build_clock(train: TrainOptions, placement: Placement) -> TrainingClock | None:
    """Build the clock of a schedule over time; None if the recipe has another schedule."""
    limit_s = train.stop.time
    if limit_s is None or not spans_time(train):
        return None
    with placement.strategy.scope():
        return TrainingClock(limit_s)


def _build_optimizer(
    train: TrainOptions,
    steps: int,
    clock: TrainingClock | None,
    network: Network,
    loss: LossProvider,
    placement: Placement,
) -> keras.Optimizer:
    # `optimizer.build` creates the slot variables, which a strategy mirrors only inside its scope.
    with placement.strategy.scope():
        try:
            optimizer = optimizers.build_optimizer(train, steps, clock)
        except (ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise BmcliError(f"Keras refuses these options: {reason}", path="train.optimizer") from None
        optimizer.build([*network.model.trainable_variables, *loss.extra_weights])
    return optimizer


def _build_layer_rates(train: TrainOptions, network: Network, loss: LossProvider) -> list[LayerRates]:
    weights = network.model.trainable_variables
    factors = optimizers.resolve_layer_rates(train.layer_rates, [weight.path for weight in weights])
    return [LayerRates([*weights, *loss.extra_weights], factors)] if factors else []


def _build_statistics_context(
    train: TrainOptions, components: StepComponents, rows: Feed, batch: int, sampler: Sampler
) -> StatisticsContext | None:
    """Return a context with estimated moving statistics of averaged weights; None if those of the weights are used."""
    # An exponential average follows the weights closely, so that their moving statistics fit it.
    if train.swa is None and not train.schedule_free:
        return None
    estimator = StatisticsEstimator(components.network.model, rows, batch, components.placement)
    return lambda epoch, stops: estimator.use_estimates(sampler.shuffled_order(epoch - 1), stops)


def _build_average(
    train: TrainOptions,
    components: StepComponents,
    steps: int,
    steps_per_epoch: int,
    statistics: StatisticsContext | None,
) -> WeightAverage | None:
    weights = components.weights
    with components.placement.strategy.scope():
        if train.ema is not None:
            return ExponentialMovingAverage(weights, train.ema)
        if train.schedule_free:
            _require_no_constraints(weights)
            options = train.optimizer.options
            beta = options[MOMENTUM_OPTIONS[train.optimizer.kind]]
            return ScheduleFree(weights, components.optimizer, beta, options.get("beta_2", 0.0), statistics)
        if train.swa is None:
            return None
        epochs = math.ceil(steps / steps_per_epoch)
        # Rounded first: 0.29 * 100 epochs is 28.999... in floating point, and must count as 29.
        first_epoch = math.floor(round(train.swa.start * epochs, 6)) + 1
        return StochasticWeightAverage(weights, first_epoch, statistics)


def _build_masks(
    train: TrainOptions,
    network: Network,
    placement: Placement,
    steps: int,
    average: WeightAverage | None,
    build_final_network: Callable[[], Network],
) -> list[StepHook]:
    if train.prune is None:
        return []
    kept = build_final_network().model if isinstance(train.prune, ChannelPruning) else None
    # The scope must not hold the building of another network, which starts a new Keras session.
    with placement.strategy.scope():
        return [pruning.build_masks(train.prune, network.model, kept, steps, average.copies if average else [])]


def _build_quantization(train: TrainOptions, components: StepComponents, steps: int) -> list[StepHook]:
    options = train.rounding
    if options is None:
        return []
    first = round(options.start * steps)
    with components.placement.strategy.scope():
        return [QuantizationAware(components.network.model, options, first, components.optimizer.iterations)]


def _build_evaluator(
    network: Network, prepared: PreparedData, recipe: Recipe, placement: Placement
) -> Evaluator | None:
    """Build an evaluator of the validation rows; None if there are none."""
    if not prepared.spec.counts.get("validation"):
        return None
    rows = feed.make_feed(prepared.split("validation"), recipe.runtime, placement)
    meters = Meters(network, recipe.metrics(), placement, has_row_weights=prepared.spec.weight is not None)
    return Evaluator(network, rows, min(EVALUATION_BATCH_SIZE, rows.count), placement, meters, recipe.seed)


def _collect_directions(meters: Meters, evaluator: Evaluator | None) -> Directions:
    """Collect the direction of each metric, by full name."""
    meters_by_split = {"train": meters} if evaluator is None else {"train": meters, "validation": evaluator.meters}
    return {
        f"{split}/{name}": direction
        for split, split_meters in meters_by_split.items()
        if split_meters
        for name, direction in split_meters.directions().items()
    }


def _require_no_constraints(weights: Sequence[Any]) -> None:
    """Refuse weights with constraints, which the mean of schedule-free steps would not keep."""
    constrained = [weight.path for weight in weights if weight.constraint is not None]
    if constrained:
        raise BmcliError(
            f"weight '{constrained[0]}' has a constraint, which the mean of schedule-free steps would not keep.",
            path="train.schedule_free", suggestion="Leave out train.schedule_free or the constraint.",
        )  # fmt: skip
