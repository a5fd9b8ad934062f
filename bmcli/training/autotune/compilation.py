"""Choice of the fastest compilation of the steps on this machine, measured once and then cached."""

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
from bmcli.training.step_components import StepComponents
from bmcli.training.train_step import PLAIN, Compilation, CompiledSteps

WORTHWHILE_S = 20.0  # compiling takes 2 to 5 s on a CPU, which a shorter training cannot save
ROUNDS = 4
MIN_SPEEDUP = 1.15  # a compilation that takes longer must gain more than the noise of a measurement
SHORT_STEP_S = 2e-3  # several steps as one program save about 0.3 ms per step, whatever a step computes


def list_compilations(recipe: Recipe, components: StepComponents, full_batches: int) -> list[Compilation]:
    """List the compilations that a recipe allows and that may be fastest, in the order of the time to compile.

    Args:
        full_batches: Number of full batches of an epoch.

    Raises:
        BmcliError: The training cannot be compiled as the recipe requests.
    """
    runtime, model, loss, placement = recipe.runtime, recipe.model, components.loss, components.placement
    is_undivided = placement.replicas == 1 and recipe.train.gradient_accumulation == 1
    # A limit of steps may lie within a program; a resume with a higher limit would then begin in the middle of one.
    allows_programs = is_undivided and full_batches >= STEPS_PER_PROGRAM and recipe.train.stop.steps is None
    plain = Compilation(False, STEPS_PER_PROGRAM) if allows_programs and loss.runs_teachers else PLAIN
    if runtime.jit is False:
        return [plain]
    if runtime.jit == "auto" and placement.is_on_cpu and parts.load("models", model.kind).convolves(model):
        return [plain]  # convolutions compiled by XLA are always slower on CPUs
    compilations = [plain] if runtime.jit == "auto" else []
    if runtime.jit_steps != "auto":
        if runtime.jit_steps > 1 and not is_undivided:
            raise BmcliError(
                "several steps can be one program only on one device and without gradient accumulation.",
                path="runtime.jit_steps", suggestion="Leave it out.",
            )  # fmt: skip
        return [*compilations, Compilation(True, runtime.jit_steps)]
    return [*compilations, Compilation(True), *([Compilation(True, STEPS_PER_PROGRAM)] if allows_programs else [])]


def choose_compilation(
    build_steps: Callable[[Compilation], CompiledSteps],
    candidates: Sequence[Compilation],
    feed: Feed,
    rows: tf.Tensor,
    total_steps: int,
    cache: Path,
) -> CompiledSteps:
    """Compile the steps in the way that is fastest on this machine.

    Args:
        candidates: Compilations to choose from, in the order of the time to compile.
        total_steps: Number of steps of the training, which decides whether compiling pays off.
        cache: Folder below which the choice is cached.
    """
    first = build_steps(candidates[0])
    if len(candidates) == 1:
        return first
    # Each compilation rounds differently: the first choice is cached, so that a recipe gives the same bits again. All
    # workers must make the same choice, that of the chief.
    key = measurement_cache.make_key(first, feed.count, total_steps, candidates)
    cached = measurement_cache.read_value(cache / "jit", key, "way")
    choice = cached if type(cached) is int and 0 <= cached < len(candidates) else -1
    (choice,) = map(int, first.placement.broadcast_from_chief([float(choice)]))
    if choice >= 0:
        return build_steps(candidates[choice]) if choice else first
    best, seconds = _find_fastest(first, build_steps, candidates, feed, rows, total_steps)
    if first.placement.is_chief:
        by_name = {_describe_compilation(compilation): value for compilation, value in seconds.items()}
        measurement_cache.write_values(cache / "jit", key, {"way": candidates.index(best), "seconds_a_step": by_name})
    return first if best == candidates[0] else build_steps(best)  # `first` has been traced by the measurement


def _find_fastest(
    first: CompiledSteps,
    build_steps: Callable[[Compilation], CompiledSteps],
    candidates: Sequence[Compilation],
    feed: Feed,
    rows: tf.Tensor,
    total_steps: int,
) -> tuple[Compilation, dict[Compilation, float]]:
    """Find the fastest compilation; returns it with the seconds per step of those that were measured."""
    best, seconds = candidates[0], dict[Compilation, float]()
    if feed.count < first.batch:
        return best, seconds
    (seconds[best],) = measure_step_seconds([first], feed, rows)
    for candidate in candidates[1:]:
        is_long = seconds[best] * total_steps > WORTHWHILE_S
        can_gain = candidate.steps_per_program == 1 or seconds[best] < SHORT_STEP_S
        (worthwhile,) = first.placement.broadcast_from_chief([float(is_long and can_gain)])
        if not worthwhile:
            break
        # The best so far is measured again, in turn with the candidate: the machine may be busier now.
        pair = [build_steps(best), build_steps(candidate)]
        seconds[best], seconds[candidate] = measure_step_seconds(pair, feed, rows)
        is_faster = seconds[best] > MIN_SPEEDUP * seconds[candidate]
        (faster,) = first.placement.broadcast_from_chief([float(is_faster)])
        best = candidate if faster else best
    return best, seconds


def _describe_compilation(compilation: Compilation) -> str:
    return f"xla_{compilation.steps_per_program}" if compilation.jit else "plain"


def measure_step_seconds(variants: Sequence[CompiledSteps], feed: Feed, rows: tf.Tensor) -> list[float]:
    """Measure the seconds of one compiled step of each variant; the values of all variables are restored."""
    # The variants take turns, and the fastest turn of each counts, so that other work on the machine does not decide.
    before = variants[0].snapshot()
    best = [math.inf] * len(variants)
    try:
        for turn in range(ROUNDS + 1):
            for number, steps in enumerate(variants):
                feed.start_epoch(rows, steps.batch)
                block = feed.read_block(
                    0,
                    min(STEPS_PER_PROGRAM if turn else steps.compilation.steps_per_program, feed.count // steps.batch),
                )
                start = time.perf_counter()
                steps.train_block(block)
                if turn:  # the first one compiles
                    best[number] = min(best[number], (time.perf_counter() - start) / block.count)
    finally:
        variants[0].restore_snapshot(before)
    return best
