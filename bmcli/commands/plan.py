"""`bmcli plan`: summarize a recipe, measure its speed on this machine, and predict it for more replicas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli import machine, objectives, training
from bmcli.cost_model.prediction import TRAINING_PASSES
from bmcli.data.checks import find_spellings
from bmcli.data.profiling.groups import find_divided_groups
from bmcli.errors import BmcliError
from bmcli.notation import list_counts
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, PreparedData
from bmcli.windows import EncodedRows
from bmcli.workflows import picture_sheet

if TYPE_CHECKING:
    import numpy as np

    from bmcli.cost_model.measurement import CostMeasurement
    from bmcli.cost_model.model_summary import LayerSummary, MemoryEstimate
    from bmcli.cost_model.prediction import StepTime

REPLICAS = (1, 2, 8, 64, 1024)
MAX_LAYERS = 24
SAMPLE_TEXTS = 3  # training rows of which the tokens are shown
MANY_PARAMETERS = 100  # per training row
FEW_TEST_ROWS = 100
RARE_SHARE = 0.02  # of the training rows, for a class


@dataclass(frozen=True)
class Plan:
    """Size, cost and predicted duration of a recipe.

    Args:
        spec: Description of the data.
        device: Name of the measured processor or accelerator.
        parameters: Number of parameters of the network.
        layers: Layers of the network, in the order of the data flow.
        memory: Memory of a step on one device.
        cached: Whether each cache already has everything that a training needs.
        warnings: Likely problems of the data or the network.
        local_step: Time of a step on this machine with one replica.
        steps: Time of a step for each requested number of replicas.
        notes: Limits of the predictions.
        rates: Some steps, from 0, with the learning rate of each.
        pictures: File of the drawn pictures.
        tokens: How each text input is read, by column.
    """

    name: str
    spec: DataSpec
    device: str
    parameters: int
    layers: tuple[LayerSummary, ...]
    memory: MemoryEstimate
    cached: Mapping[str, bool]
    jit: bool
    measurement: CostMeasurement
    local_step: StepTime
    steps: tuple[StepTime, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    rates: tuple[tuple[int, float], ...]
    pictures: Path | None = None
    tokens: Mapping[str, input_kinds.TokenSummary] = field(default_factory=dict)

    @property
    def total_steps(self) -> int:
        """Optimizer steps to the end of the recipe."""
        work = self.measurement.work
        return min(work.epochs * -(-work.examples // work.batch), work.steps or 2**62)

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of a forward pass on one example."""
        return self.measurement.work.example_flops / TRAINING_PASSES

    @property
    def displayed_layers(self) -> Sequence[LayerSummary]:
        """The layers, with those in the middle of a long network as one."""
        from bmcli.cost_model import model_summary

        return model_summary.shorten_layers(self.layers, MAX_LAYERS)


def plan(
    target: str,
    overrides: Sequence[str],
    replicas: Sequence[int],
    cache: Path,
    pictures: Path | None = None,
) -> Plan:
    """Measure a step of a recipe on this machine, and predict it for numbers of replicas of the same speed.

    Args:
        cache: Folder of prepared data and of measurements of this machine.
        pictures: A new PNG file, in which training pictures are drawn as the network sees them.

    Raises:
        BmcliError: The recipe is at fault.
    """
    if pictures is not None:
        picture_sheet.check_file(pictures)
    if min(replicas) < 1:
        raise BmcliError(f"expected at least 1 replica, received {min(replicas)}.")
    loaded = load_recipe(target, overrides)
    try:
        return _make_plan(loaded, replicas, cache, pictures)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _make_plan(loaded: LoadedRecipe, replicas: Sequence[int], cache: Path, pictures: Path | None) -> Plan:
    from bmcli.cost_model import prediction

    recipe = loaded.recipe
    cached_names = {folder: _list_names(cache / folder) for folder in _CACHE_FOLDERS.values()}
    prepared = training.prepare_data(recipe, cache)
    if pictures is not None:
        picture_sheet.draw_sheet(recipe, prepared, pictures, cache)
    measurement, idle, facts = _measure_recipe(recipe, prepared, max(replicas) > 1, cache)
    work, cluster = measurement.work, measurement.cluster
    steps = tuple(prediction.predict_step(work, cluster, count) for count in replicas)
    warnings = prediction.find_warnings(work, cluster, steps)
    notes = [*prepared.spec.notes, *warnings, *_list_limits(measurement, replicas)]
    return Plan(
        name=recipe.name,
        spec=prepared.spec,
        measurement=measurement,
        local_step=prediction.predict_step(work, cluster, 1),
        steps=steps,
        notes=tuple(notes),
        warnings=(*list_warnings(prepared, facts["parameters"]), *_warn_about_schedule(recipe, idle, steps)),
        # A folder without new entries already had everything.
        cached={name: _list_names(cache / folder) == cached_names[folder] for name, folder in _CACHE_FOLDERS.items()},
        pictures=pictures,
        tokens=_summarize_tokens(prepared),
        **facts,
    )


def _summarize_tokens(prepared: PreparedData) -> dict[str, input_kinds.TokenSummary]:
    """Summarise how each text is read, with the tokens of the first training rows."""
    import numpy as np

    encoded = prepared.split("train").inputs
    summaries = {
        column.name: input_kinds.get_traits(column).summarize_tokens(np.asarray(encoded[column.name][:SAMPLE_TEXTS]))
        for column in prepared.spec.inputs
    }
    return {name: summary for name, summary in summaries.items() if summary is not None}


_CACHE_FOLDERS = {"prepared data": "prepared", "compilation": "jit"}


def _list_names(folder: Path) -> set[str]:
    """List the entries of a folder of the cache."""
    return {item.name for item in folder.iterdir()} if folder.is_dir() else set()


def _measure_recipe(
    recipe: Recipe, prepared: PreparedData, with_network: bool, cache: Path
) -> tuple[CostMeasurement, str, dict[str, Any]]:
    """Measure one replica on this machine.

    Args:
        with_network: Measure an all-reduce between two processes, too.

    Returns:
        The measurement, a warning about idle steps, and the fields of `Plan` about its device and network.
    """
    if recipe.runtime.strategy == "tpu":
        raise BmcliError(
            "a TPU cannot be measured.", path="runtime.strategy", suggestion="Plan with runtime.strategy=auto.",
        )  # fmt: skip
    recipe = recipe.on_one_device()
    placement = training.place_on_devices(recipe, cache)
    from bmcli.cost_model import measurement, model_summary  # after the start, which keeps TensorFlow quiet
    from bmcli.training import schedule
    from bmcli.workflows.assembly import build_trainer

    link = measurement.measure_network(cache) if with_network else None  # while this process is idle
    split = prepared.split("train")
    network = training.build_network(recipe, prepared.spec, split.targets, placement)
    trainer = build_trainer(recipe, network, prepared, placement, None, cache)
    rates_of = (trainer.recipe.train, trainer.selection.steps, trainer.steps_per_epoch)
    facts = {
        "device": machine.read_processor_name() if placement.is_on_cpu else placement.device,
        "parameters": network.model.count_params(),
        "layers": tuple(model_summary.summarize_layers(network.model)),
        "memory": model_summary.estimate_memory(trainer.steps),
        "jit": trainer.steps.compilation.jit,
        "rates": schedule.sample_rates(*rates_of),
    }
    return measurement.measure_costs(trainer, split, link), schedule.describe_idle_steps(*rates_of), facts


def _list_limits(measurement: CostMeasurement, replicas: Sequence[int]) -> list[str]:
    """List the assumptions of the predictions."""
    notes = []
    if measurement.network is not None:
        notes.append("the network is the loopback of this machine between two processes, each with half of its cores.")
    if max(replicas) > 1:
        notes.append(
            "predicted without other work, stragglers and partial batches; validation and evaluation come on top."
        )
    return notes


def _warn_about_schedule(recipe: Recipe, idle: str, steps: Sequence[StepTime]) -> Iterator[str]:
    """Warn of a learning-rate schedule that does not get to its end, or gets there too early."""
    from bmcli.training import schedule

    if idle:
        yield idle
    limit_s, needed_s = recipe.train.stop.time, steps[0].finish_s
    if limit_s is not None and limit_s < needed_s and schedule.depends_on_length(recipe.train):
        yield (
            f"train.stop.time will end the training after about {limit_s / needed_s:.0%} of its steps, before the "
            "learning rate reaches the end of its schedule. With train.schedule.span=time it follows the time."
        )
    if limit_s is not None and schedule.spans_time(recipe.train) and needed_s < schedule.MIN_SHARE * limit_s:
        yield (
            f"train.epochs will end the training after about {needed_s / limit_s:.1%} of train.stop.time, before the "
            "learning rate reaches the end of its schedule. Raise train.epochs, or leave `span: time` out."
        )


def list_warnings(prepared: PreparedData, parameters: int) -> Iterator[str]:
    """List likely problems of the data or the network, which do not prevent training."""
    spec, rows = prepared.spec, prepared.spec.counts["train"]
    if parameters > MANY_PARAMETERS * rows:
        yield (
            f"overfitting is likely: {parameters:,} parameters for {rows:,} training rows; try a smaller network, "
            "dropout or weight decay."
        )
    yield from _warn_about_columns(prepared)
    yield from map(str, find_divided_groups(prepared))
    yield from map(str, find_spellings(spec))
    for column in spec.targets:
        yield from _warn_about_classes(column, prepared.split("train").targets[column.name])
    if not spec.counts["validation"]:
        yield (
            "no validation set: the best epoch is selected by the training loss; give data.split a share for "
            "validation."
        )
    if 0 < spec.counts["test"] < FEW_TEST_ROWS:
        yield from _warn_about_few_test_rows(spec)


def _warn_about_few_test_rows(spec: DataSpec) -> Iterator[str]:
    """Warn of a test set that is too small to compare models by, with the width of the interval of each headline."""
    rows = spec.counts["test"]
    for name, answers in objectives.open_answers(spec).items():
        metric, info = next(iter(answers.list_metrics(top_k=1).items()))
        metric = metric if len(spec.outputs) == 1 else f"{name}/{metric}"
        if (info.low, info.high) == (0, 1):
            margin = f"up to ±{0.98 / math.sqrt(rows):.0%}"  # half of the 95 % interval at a share of 0.5, the widest
        else:
            # The standard error of a root mean square of normal errors; that of other means and errors is larger.
            margin = f"at least ±{1.96 / math.sqrt(2 * rows):.0%} of its value"
        yield f"small test set: with {rows} rows, the 95 % confidence interval of {metric} is {margin}."


def _warn_about_columns(prepared: PreparedData) -> Iterator[str]:
    """Warn of columns that identify rows instead of describing them."""
    import numpy as np

    rows = prepared.spec.counts["train"]
    encoded = prepared.split("train").inputs
    for column in prepared.spec.inputs:
        traits = input_kinds.get_traits(column)
        if traits.marked_cells:
            yield (
                f"column {quoted(column.name)}: {sum(traits.marked_cells.values()):,} training cells are read as "
                f"missing: {list_counts(traits.marked_cells)}."
            )
        if rows > 20 and traits.count_categories() > 0.5 * rows:
            categories = f"{traits.count_categories():,} categories in {rows:,} training rows"
            yield f"high cardinality: column {quoted(column.name)} has {categories}; drop it if it is an identifier."
        if traits.is_number and column.shape == (1,) and rows > 20:
            values = np.sort(np.asarray(encoded[column.name]), axis=None)
            if _are_consecutive(np.diff(values)):
                yield f"column {quoted(column.name)} is a row index; drop it, unless the order of the rows matters."


def _are_consecutive(gaps: np.ndarray) -> bool:
    """Whether sorted numbers have gaps of one size, but for numbers that are in other splits."""
    import numpy as np

    if gaps.min() <= 0:
        return False
    steps = gaps / gaps.min()
    return bool((abs(steps - np.rint(steps)) < 0.01 * steps).all() and steps.sum() < 1.5 * len(gaps))


def _warn_about_classes(column: Column, encoded: EncodedRows) -> Iterator[str]:
    """Warn of class imbalance."""
    import numpy as np

    from bmcli.data import targets as target_kinds

    kind = target_kinds.kind_of(column)
    counts = kind.count_classes(kind.decode(np.asarray(encoded), column), column)
    if counts is None or encoded.ndim != 1:
        return
    shares = counts / len(encoded)
    rarest = int(np.argmin(shares))
    if shares[rarest] < min(RARE_SHARE, 0.2 / len(column.classes)):
        yield (
            f"class imbalance of {quoted(column.name)}: {shares[rarest]:.1%} of the training rows have class "
            f"{quoted(column.classes[rarest])}, {shares.max():.0%} {quoted(column.classes[int(np.argmax(shares))])}; "
            "read f1 beside accuracy, or try class_weights."
        )
