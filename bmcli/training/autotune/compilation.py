"""How the steps of a model are compiled to be fastest here: measured once, then remembered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.recipe.schema import Recipe
from bmcli.training.autotune import measurement_cache
from bmcli.training.feed import STEPS_PER_PROGRAM, Feed
from bmcli.training.train_step import PLAIN, Compilation, CompiledSteps, StepComponents

WORTHWHILE_S = 20.0  # Compiling takes 2 to 5 s on a CPU; a shorter training cannot win it back.
ROUNDS = 4
MIN_SPEEDUP = 1.15  # What is compiled longer must win by more than the noise of a measurement.
SHORT_STEP_S = 2e-3  # What several steps as one program save is some 0.3 ms a step, whatever the step computes.


def list_compilations(recipe: Recipe, components: StepComponents, full_batches: int) -> list[Compilation]:
    """The ways to compile that a recipe allows and that make sense for it, the quickest to compile first.

    Args:
        full_batches: Of an epoch.

    Raises:
        BmcliError: The recipe wants a way that its training cannot be compiled in.
    """
    runtime, model, loss, placement = recipe.runtime, recipe.model, components.loss, components.placement
    alone = placement.replicas == 1 and recipe.train.gradient_accumulation == 1
    # A limit of steps may lie within a program, and a later, higher limit would begin there.
    together = alone and full_batches >= STEPS_PER_PROGRAM and recipe.train.stop.steps is None
    plain = Compilation(False, STEPS_PER_PROGRAM) if together and loss.runs_teachers else PLAIN
    if runtime.jit is False:
        return [plain]
    if loss.compares_examples and placement.replicas > 1:
        if runtime.jit is True:
            raise BmcliError(
                "a loss compares examples of several replicas, whose exchange XLA cannot hold.",
                path="runtime.jit", suggestion="Leave it out.",
            )  # fmt: skip
        return [plain]
    if runtime.jit == "auto" and placement.is_on_cpu and parts.load("models", model.kind).convolves(model):
        return [plain]  # XLA's convolutions are always slower there
    found = [plain] if runtime.jit == "auto" else []
    if runtime.jit_steps != "auto":
        if runtime.jit_steps > 1 and not alone:
            raise BmcliError(
                "several steps are one program on one device alone, and where a batch is computed at once.",
                path="runtime.jit_steps", suggestion="Leave it out.",
            )  # fmt: skip
        return [*found, Compilation(True, runtime.jit_steps)]
    return [*found, Compilation(True), *([Compilation(True, STEPS_PER_PROGRAM)] if together else [])]


def choose_compilation(
    build_steps: Callable[[Compilation], CompiledSteps],
    candidates: Sequence[Compilation],
    feed: Feed,
    rows: tf.Tensor,
    total_steps: int,
    cache: Path,
) -> CompiledSteps:
    """The steps, compiled in whichever way is fastest on this machine.

    The first answer is remembered below `cache`, so that the same recipe gives the same bits again: each way rounds
    differently. On several workers the chief decides.

    Args:
        candidates: What may be chosen, from what compiles fastest to what takes longest.
    """
    first = build_steps(candidates[0])
    if len(candidates) == 1:
        return first
    key = measurement_cache.make_key(first, feed.count, total_steps, candidates)
    remembered = measurement_cache.read_value(cache / "jit", key, "way")
    known = remembered if type(remembered) is int and 0 <= remembered < len(candidates) else -1
    (known,) = map(int, first.placement.broadcast_from_chief([float(known)]))
    if known >= 0:
        return build_steps(candidates[known]) if known else first
    best, seconds = _find_fastest(first, build_steps, candidates, feed, rows, total_steps)
    if first.placement.is_chief:
        named = {_describe_compilation(way): value for way, value in seconds.items()}
        measurement_cache.write_values(cache / "jit", key, {"way": candidates.index(best), "seconds_a_step": named})
    return first if best == candidates[0] else build_steps(best)  # what was measured is traced already


def _find_fastest(
    first: CompiledSteps,
    build_steps: Callable[[Compilation], CompiledSteps],
    candidates: Sequence[Compilation],
    feed: Feed,
    rows: tf.Tensor,
    total_steps: int,
) -> tuple[Compilation, dict[Compilation, float]]:
    """The fastest way, and the seconds of a step of those that could pay."""
    best, seconds = candidates[0], dict[Compilation, float]()
    if feed.count < first.batch:
        return best, seconds
    (seconds[best],) = measure_step_seconds([first], feed, rows)
    for way in candidates[1:]:
        slow = seconds[best] * total_steps > WORTHWHILE_S
        can_gain = way.steps_per_program == 1 or seconds[best] < SHORT_STEP_S
        (worthwhile,) = first.placement.broadcast_from_chief([float(slow and can_gain)])
        if not worthwhile:
            break
        seconds[best], seconds[way] = measure_step_seconds([build_steps(best), build_steps(way)], feed, rows)
        (faster,) = first.placement.broadcast_from_chief([float(seconds[best] > MIN_SPEEDUP * seconds[way])])
        best = way if faster else best
    return best, seconds


def _describe_compilation(compilation: Compilation) -> str:
    return f"xla_{compilation.steps_per_program}" if compilation.jit else "plain"


def measure_step_seconds(variants: Sequence[CompiledSteps], feed: Feed, rows: tf.Tensor) -> list[float]:
    """Seconds of one step of each way once compiled; every variable is as before afterwards.

    The ways take turns and the best of each counts, so that other work on the machine does not decide.
    """
    before = variants[0].snapshot()
    best = [math.inf] * len(variants)
    try:
        for turn in range(ROUNDS + 1):
            for way, steps in enumerate(variants):
                feed.start_epoch(rows, steps.batch)
                block = feed.read_block(
                    0,
                    min(STEPS_PER_PROGRAM if turn else steps.compilation.steps_per_program, feed.count // steps.batch),
                )
                start = time.perf_counter()
                steps.train_block(block)
                if turn:  # the first one compiles
                    best[way] = min(best[way], (time.perf_counter() - start) / block.count)
    finally:
        variants[0].restore_snapshot(before)
    return best
