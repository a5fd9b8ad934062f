"""The model of a recipe: every section with its options, defaults and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.compression import ChannelPruning, find_model_problem
from bmcli.recipe.data import DataOptions
from bmcli.recipe.distill import DistillationOptions, DistillOptions, find_target_problem
from bmcli.recipe.evaluate import EvaluateOptions
from bmcli.recipe.export import ExportOptions
from bmcli.recipe.fields import KerasObject, Kind, Options, fault, fault_at, fault_elsewhere
from bmcli.recipe.model import ModelField
from bmcli.recipe.nodes import format_value, write_scalar
from bmcli.recipe.objective import (
    ObjectiveField,
    ObjectiveOptions,
    learns_from_inputs,
    resolve_objectives,
    resolve_targets,
)
from bmcli.recipe.plugins import PluginOptions, require_plugins
from bmcli.recipe.runtime import STRATEGY_OPTIONS, RuntimeOptions
from bmcli.recipe.search import TuneOptions
from bmcli.recipe.targets import TargetOptions
from bmcli.recipe.train import TrainOptions

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _check_name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        hint = "It becomes the name of a folder: up to 100 letters, digits, dots, dashes and underscores."
        raise fault("name", f"expected a name like digits-cnn, received {format_value(value)}.", hint)
    return value


Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})]


Scalar = str | int | float | bool | None


class Recipe(Options):
    """One experiment, from data to an evaluated model."""

    bmcli: Literal[1] = Field(default=1, description="Version of the recipe language.")
    name: Name = Field(
        description="Name of the recipe, and of the folder of its runs: letters, digits, dot, dash and underscore."
    )
    plugins: Mapping[str, PluginOptions] = Field(
        default={},
        description="Plug-ins of the parts that are not built in, by part. bmcli records them in recipe.lock.yaml; "
        "naming one here loads no code.",
    )
    vars: Mapping[str, Scalar] = Field(
        default={},
        description="Variables that are used elsewhere as ${NAME}, to change a value in one place or on the command "
        "line.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0,
        description="Seed of the initial weights, the order of examples, dropout, and, without `data.seed`, the split.",
    )
    data: DataOptions = Field(description="Data source, splits, and kinds of columns.")
    model: Annotated[Kind, ModelField()] = Field(description="The network.")
    objective: Annotated[Any, ObjectiveField()] = Field(
        default=None,
        validate_default=True,
        description="Learning objective; by default the usual one for the kind of target. With several targets, a "
        "mapping from target to objective. One that learns from inputs needs no target; in a mapping it has a name of "
        "its own.",
    )
    train: TrainOptions = Field(default=TrainOptions(), description="How the network is trained.")
    runtime: RuntimeOptions = Field(default=RuntimeOptions(), description="Devices and execution.")
    evaluate: EvaluateOptions = Field(default=EvaluateOptions(), description="How the trained model is evaluated.")
    tune: TuneOptions | None = Field(default=None, description="Hyperparameter search by `bmcli tune`.")
    distill: DistillOptions | None = Field(
        default=None, description="Distillation by `bmcli distill`: teachers, student and losses."
    )
    distillation: DistillationOptions | None = Field(
        default=None,
        description="Distillation losses of this network, and its trained teachers; `bmcli distill` writes this "
        "section into the recipe of a student.",
    )
    export: ExportOptions = Field(default=ExportOptions(), description="Artefacts that `bmcli export` writes.")

    @property
    def data_seed(self) -> int:
        """Seed of the split and the sample."""
        return self.seed if self.data.seed is None else self.data.seed

    def without_tune(self) -> Recipe:
        """The same recipe without its `tune` section."""
        return self.model_copy(update={"tune": None})

    def for_training(self) -> Recipe:
        """The same recipe without the sections that `bmcli train` does not use."""
        return self.model_copy(update={"tune": None, "distill": None})

    def after_training(self) -> Recipe:
        """The recipe of the trained network: without pruning and rounding, with the widths after channel pruning."""
        pruning = self.train.prune
        model = self.model
        if isinstance(pruning, ChannelPruning):
            model = model.model_copy(update=pruning.resolve_widths(model))
        train = self.train.model_copy(update={"prune": None, "quantize_aware": None})
        return self.model_copy(update={"model": model, "train": train})

    def search_objectives(self) -> tuple[str, ...]:
        """The objectives of `tune`, the leading one first; `auto` is resolved."""
        selected = self.train.select.metric
        # Training metrics would reward overfitting.
        automatic = selected if selected.startswith("validation/") else "validation/loss"
        names = () if self.tune is None else self.tune.objective
        return tuple(dict.fromkeys(automatic if name == "auto" else name for name in names))

    def on_one_device(self) -> Recipe:
        """The same recipe on the first device only."""
        defaults = {option: RuntimeOptions.model_fields[option].default for option in STRATEGY_OPTIONS}
        runtime = self.runtime.model_copy(update={**defaults, "strategy": "one_device"})
        return self.model_copy(update={"runtime": runtime})

    def in_single_precision(self) -> Recipe:
        """The same recipe with a network that computes in float32."""
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": "float32"})})

    def targets(self) -> Mapping[str, TargetOptions]:
        """The options of each target; those of the source if the recipe names no targets."""
        return resolve_targets(self.objective, self.data)

    def objectives(self) -> dict[str, ObjectiveOptions]:
        """The objective of each output: that of the recipe, or the default of the target's kind."""
        return resolve_objectives(self.objective, self.targets())

    def metrics(self) -> dict[str, tuple[KerasObject, ...]]:
        """The metrics of `train.metrics` that suit each target's objective."""
        suitable = {
            target: parts.load("objectives", objective.kind).METRICS for target, objective in self.objectives().items()
        }
        return {
            target: tuple(metric for metric in self.train.metrics if metric.kind in known)
            for target, known in suitable.items()
        }

    def decisions(self) -> dict[str, ObjectiveOptions]:
        """The objectives of targets whose temperature or threshold is set or chosen after training."""
        return {name: options for name, options in self.objectives().items() if options.decides}

    def decides_on_validation(self) -> bool:
        """Whether a temperature or threshold is chosen on validation rows; a threshold in the recipe needs none."""
        return any(options.decides_on_validation for options in self.objectives().values())

    def with_default_objectives(self) -> Recipe:
        """The same recipe with all objectives filled in."""
        objectives = self.objectives()
        is_single = len(objectives) == 1 and not isinstance(self.objective, Mapping)
        return self.model_copy(update={"objective": next(iter(objectives.values())) if is_single else objectives})

    # pydantic validates fields in the order above: `info.data` has the valid fields before the validated one.

    @field_validator("plugins")
    @classmethod
    def _plugins_are_there(cls, value: Mapping[str, PluginOptions]) -> Mapping[str, PluginOptions]:
        require_plugins(value)
        return value

    @field_validator("train")
    @classmethod
    def _metrics_suit_a_target(cls, value: TrainOptions, info: ValidationInfo) -> TrainOptions:
        if "data" not in info.data or "objective" not in info.data:
            return value
        objectives = _resolve_objectives(info)
        suitable = {name for each in objectives.values() for name in parts.load("objectives", each.kind).METRICS}
        for position, metric in enumerate(value.metrics):
            if metric.kind not in suitable:
                kinds = " or ".join(sorted({each.kind for each in objectives.values()}))
                raise fault_at(
                    ("metrics", position),
                    f"{metric.kind} does not suit {kinds}.",
                    parts.did_you_mean(metric.kind, suitable) or f"Suitable: {', '.join(sorted(suitable))}.",
                )
        return value

    @field_validator("train")
    @classmethod
    def _the_network_can_be_pruned(cls, value: TrainOptions, info: ValidationInfo) -> TrainOptions:
        model = info.data.get("model")
        problem = None if model is None else find_model_problem(value.prune, model)
        if problem is not None:
            raise fault_at(*problem.below("prune"))
        return value

    @field_validator("objective")
    @classmethod
    def _objectives_fit_targets(cls, value: Any, info: ValidationInfo) -> Any:
        if "data" not in info.data:
            return value
        data = info.data["data"]
        targets = resolve_targets(value, data)
        if not targets and not _has_own_outputs(value):
            raise fault_elsewhere(
                ("data", "targets"),
                f"a {data.source.kind} source has no default target.",
                "Write targets: {COLUMN: {kind: category}} or {kind: number}.",
            )
        if isinstance(value, Mapping):
            for name, objective in value.items():
                if name not in targets and not learns_from_inputs(objective):
                    raise fault_at((name,), f"no target {quoted(name)}.", parts.did_you_mean(name, targets))
        objectives = resolve_objectives(value, targets)
        for name, target in targets.items():
            kind = objectives[name].kind
            suitable = parts.load("objectives", kind).TARGETS
            if target.kind not in suitable:
                raise fault_at(
                    (name,) if isinstance(value, Mapping) else (),
                    f"{kind} does not suit target {quoted(name)} of kind {target.kind}.",
                    f"It suits targets of kind {' or '.join(suitable)}."
                    if suitable
                    else "It learns from inputs alone: "
                    f"leave out data.targets, or name the objectives: {{{write_scalar(name)}: ..., features: {kind}}}.",
                )
        return value

    @field_validator("distill", "distillation")
    @classmethod
    def _check_distillation_targets(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or "data" not in info.data or "objective" not in info.data:
            return value
        objectives = _resolve_objectives(info)
        problem = find_target_problem(value, {name: options.kind for name, options in objectives.items()})
        if problem is not None:
            raise fault_at(*problem)
        return value


def _resolve_objectives(info: ValidationInfo) -> dict[str, ObjectiveOptions]:
    """Resolve the objectives of a recipe whose data and objective are valid."""
    objective = info.data["objective"]
    return resolve_objectives(objective, resolve_targets(objective, info.data["data"]))


def _has_own_outputs(objective: Any) -> bool:
    """Whether the section `objective` has an objective that learns from inputs alone."""
    each = objective.values() if isinstance(objective, Mapping) else [objective] if objective else []
    return any(map(learns_from_inputs, each))
