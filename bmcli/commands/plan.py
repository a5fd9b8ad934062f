"""`bmcli plan`: what a recipe comes to, how fast it trains here, and on more replicas like this one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import machine, training
from bmcli.cost_model.prediction import TRAINING_PASSES
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, PreparedData
from bmcli.workflows import picture_sheet

if TYPE_CHECKING:
    import numpy as np

    from bmcli.cost_model.measurement import CostMeasurement
    from bmcli.cost_model.model_summary import LayerSummary, MemoryEstimate
    from bmcli.cost_model.prediction import StepTime

REPLICAS = (1, 2, 8, 64, 1024)
MAX_LAYERS = 24
MANY_PARAMETERS = 100  # for each training row
FEW_TEST_ROWS = 100
RARE_SHARE = 0.02


@dataclass(frozen=True)
class Plan:
    """What a recipe comes to, and how long it takes.

    Args:
        spec: What the data is.
        device: What was measured: a processor, or an accelerator.
        parameters: Numbers in the network.
        layers: Of the network, in the order of the data flow.
        memory: Of a step on one device.
        cached: What is remembered from earlier, so that a training need not do it again.
        warnings: What in the data or the network may disappoint.
        local_step: A step on this machine with one replica.
        steps: For each number of replicas that was asked for.
        notes: What limits the predictions.
    """

    name: str
    spec: DataSpec
    device: str
    parameters: int
    layers: tuple[LayerSummary, ...]
    memory: MemoryEstimate
    cached: Mapping[str, bool]
    jit: bool
    measured: CostMeasurement
    local_step: StepTime
    steps: tuple[StepTime, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    pictures: Path | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps to the end of the recipe."""
        work = self.measured.work
        return min(work.epochs * -(-work.examples // work.batch), work.steps or 2**62)

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of a forward pass on one example."""
        return self.measured.work.example_flops / TRAINING_PASSES

    @property
    def displayed_layers(self) -> Sequence[LayerSummary]:
        """The layers, those in the middle of a long network as one."""
        from bmcli.cost_model import model_summary

        return model_summary.shorten_layers(self.layers, MAX_LAYERS)


def plan(
    target: str,
    overrides: Sequence[str],
    replicas: Sequence[int],
    cache: Path,
    pictures: Path | None = None,
) -> Plan:
    """Measure a step of a recipe on this machine, and predict it for some numbers of replicas like it.

    Args:
        cache: Where prepared data and measurements of this machine are kept.
        pictures: A PNG file that is not there yet, to be drawn from pictures as the network sees them.

    Raises:
        BmcliError: The recipe is at fault.
    """
    if pictures is not None:
        picture_sheet.check_file(pictures)
    if min(replicas) < 1:
        raise BmcliError(f"expected replicas from 1, received {min(replicas)}.")
    loaded = load_recipe(target, overrides)
    try:
        return _make_plan(loaded, replicas, cache, pictures)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _make_plan(loaded: LoadedRecipe, replicas: Sequence[int], cache: Path, pictures: Path | None) -> Plan:
    from bmcli.cost_model import prediction

    asked = loaded.recipe
    kept = {folder: _list_names(cache / folder) for folder in _CACHE_FOLDERS.values()}
    prepared = training.prepare_data(asked, cache)
    if pictures is not None:
        picture_sheet.draw_sheet(asked, prepared, pictures, cache)
    measured, about = _measure_recipe(asked, prepared, max(replicas) > 1, cache)
    work, cluster = measured.work, measured.cluster
    steps = tuple(prediction.predict_step(work, cluster, count) for count in replicas)
    notes = [*prediction.find_warnings(work, cluster, steps), *_list_limits(measured, replicas)]
    return Plan(
        name=asked.name,
        spec=prepared.spec,
        measured=measured,
        local_step=prediction.predict_step(work, cluster, 1),
        steps=steps,
        notes=tuple(notes),
        warnings=tuple(list_warnings(prepared, about["parameters"])),
        cached={what: _list_names(cache / folder) == kept[folder] for what, folder in _CACHE_FOLDERS.items()},
        pictures=pictures,
        **about,
    )


_CACHE_FOLDERS = {"prepared data": "prepared", "how to compile": "jit"}


def _list_names(folder: Path) -> set[str]:
    """What is in a folder of the cache: if it is the same afterwards, everything needed was there."""
    return {item.name for item in folder.iterdir()} if folder.is_dir() else set()


def _measure_recipe(
    asked: Recipe, prepared: PreparedData, with_network: bool, cache: Path
) -> tuple[CostMeasurement, dict[str, Any]]:
    """What was measured of one replica, and what it was measured on."""
    if asked.runtime.strategy == "tpu":
        raise BmcliError(
            "a TPU is not measured.", path="runtime.strategy", suggestion="Plan with runtime.strategy=auto.",
        )  # fmt: skip
    recipe = asked.on_one_device()
    placement = training.place_on_devices(recipe, cache)
    from bmcli.cost_model import measurement, model_summary  # after the start, which keeps TensorFlow quiet
    from bmcli.workflows.assembly import build_trainer

    link = measurement.measure_network(cache) if with_network else None  # while this process does nothing else
    split = prepared.split("train")
    network = training.build_network(recipe, prepared.spec, split.targets, placement)
    trainer = build_trainer(recipe, network, prepared, placement, None, cache)
    about = {
        "device": machine.read_processor_name() if placement.is_on_cpu else placement.device,
        "parameters": network.model.count_params(),
        "layers": tuple(model_summary.summarize_layers(network.model)),
        "memory": model_summary.estimate_memory(trainer.steps),
        "jit": trainer.steps.compilation.jit,
    }
    return measurement.measure_costs(trainer, split, link), about


def _list_limits(measured: CostMeasurement, replicas: Sequence[int]) -> list[str]:
    """What the predictions rest on."""
    notes = []
    if measured.network is not None:
        notes.append("the network is the loopback of this machine between two processes, each with half of its cores.")
    if max(replicas) > 1:
        notes.append("no other work, no stragglers, no ragged last batch; validation and evaluation come on top.")
    return notes


def list_warnings(prepared: PreparedData, parameters: int) -> Iterator[str]:
    """What in the data or the network may disappoint, though it trains."""
    spec, rows = prepared.spec, prepared.spec.counts["train"]
    if parameters > MANY_PARAMETERS * rows:
        yield (
            f"{parameters:,} parameters for {rows:,} training rows may learn them by heart: try a smaller network, "
            "dropout or weight decay."
        )
    yield from _warn_about_columns(prepared)
    for column in spec.targets:
        yield from _warn_about_classes(column, prepared.split("train").targets[column.name])
    if not spec.counts["validation"]:
        yield "no row validates, so the epoch is chosen by the training loss; give data.split a share for validation."
    if 0 < spec.counts["test"] < FEW_TEST_ROWS:
        margin = 0.98 / math.sqrt(spec.counts["test"])  # 95 %, where half of the rows are right
        yield f"{spec.counts['test']} test rows tell an accuracy within {margin:.0%} only."


def _warn_about_columns(prepared: PreparedData) -> Iterator[str]:
    """Columns that tell rows apart rather than what they are like."""
    import numpy as np

    rows = prepared.spec.counts["train"]
    encoded = prepared.split("train").inputs
    for column in prepared.spec.inputs:
        if rows > 20 and len(column.classes) > 0.5 * rows:
            categories = f"{len(column.classes):,} categories in {rows:,} rows"
            yield f"column {quoted(column.name)} has {categories}: an identifier?"
        if column.kind == "number" and column.shape == (1,) and rows > 20:
            values = np.sort(np.asarray(encoded[column.name][:, 0]))
            if _are_consecutive(np.diff(values)):
                yield f"column {quoted(column.name)} counts the rows: it tells them apart, and nothing else."


def _are_consecutive(gaps: np.ndarray) -> bool:
    """Whether numbers are steps of one size apart, but for those that other splits have."""
    import numpy as np

    if gaps.min() <= 0:
        return False
    steps = gaps / gaps.min()
    return bool((abs(steps - np.rint(steps)) < 0.01 * steps).all() and steps.sum() < 1.5 * len(gaps))


def _warn_about_classes(column: Column, encoded: np.ndarray) -> Iterator[str]:
    """Classes that are rare beside the others."""
    import numpy as np

    if not column.classes or encoded.ndim != 1:
        return
    shares = np.bincount(encoded, minlength=len(column.classes)) / len(encoded)
    rarest = int(np.argmin(shares))
    if shares[rarest] < min(RARE_SHARE, 0.2 / len(column.classes)):
        yield (
            f"target {quoted(column.name)}: {shares[rarest]:.1%} of the training rows are "
            f"{quoted(column.classes[rarest])}, "
            f"{shares.max():.0%} {quoted(column.classes[int(np.argmax(shares))])}: look at f1 beside accuracy, or try "
            "class_weights."
        )
