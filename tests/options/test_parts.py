"""Another value of an option of a part that can be used by itself changes what it computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bmcli import parts, tokens
from bmcli.distillation.losses import LossInputs
from bmcli.layers.keras_objects import make_keras_object
from bmcli.normalization import Normalization
from bmcli.recipe import catalogue
from bmcli.recipe.distill import EpochSchedule, expand_over_epochs
from bmcli.recipe.fields import KerasObject, KerasObjectField, Kind, PartField, convert_lists
from bmcli.recipe.train import TrainOptions
from tests.augmentations.test_all import applied
from tests.distillation.test_laws import given
from tests.options.law import Change, Subject, find_idle_options
from tests.options.options import list_other_values, list_owners
from tests.options.sights import digest
from tests.tokens.packages import require_packages


def load_part(room: str) -> Callable[[Mapping[str, Any], Path], Kind]:
    return lambda values, folder: PartField(room).check(convert_lists(dict(values)))


def see_augmentation(options: Kind) -> str:
    return digest(applied(options.kind, options.model_dump(exclude={"kind"}))[1])


_OF_AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop": {"scale": [0.2, 0.3], "ratio": [0.4, 0.5]},
    "erasing": {"scale": Change([0.4, 0.5], {"probability": 1.0}), "ratio": Change([0.2, 0.3], {"probability": 1.0})},
}


@pytest.mark.parametrize("kind", parts.names("augmentations"))
def test_no_option_of_an_augmentation_is_idle(kind: str, tmp_path: Path) -> None:
    recipe = {"kind": kind}
    if "factor" in list_owners()[f"augmentations.{kind}"]:
        recipe["factor"] = 0.3
    if kind == "column_dropout":
        recipe["rate"] = 0.7
    changes = _OF_AUGMENTATIONS.get(kind, {})
    subject = Subject(
        f"augmentations.{kind}", "", recipe, (see_augmentation,), changes, load=load_part("augmentations")
    )
    assert find_idle_options(subject, tmp_path) == []


def see_loss(options: Kind) -> str:
    inputs: LossInputs = given(teachers=2)
    return digest(np.asarray(parts.load("distillation.losses", options.kind).loss(options, inputs)))


# Of the losses between a student and its teachers.
ELSEWHERE = {
    "weight": "tests/distillation/test_student_loss.py::"
    "test_the_loss_is_the_weighted_sum_of_its_terms_and_the_regularisers",
    "pairs": "tests/distillation/test_student_loss.py::test_layers_that_cannot_be_compared_are_faults",
    "targets": "tests/commands/test_distill.py::test_mistakes_cost_no_training",
}


@pytest.mark.parametrize("kind", [kind for kind in parts.names("distillation.losses") if kind != "hard"])
def test_no_option_of_a_distillation_loss_is_idle(kind: str, tmp_path: Path) -> None:
    owner = f"distillation.losses.{kind}"
    known = {name: test for name, test in ELSEWHERE.items() if name in list_owners()[owner]}
    recipe: dict[str, Any] = {"kind": kind, **({"targets": ["label"]} if "targets" in list_owners()[owner] else {})}
    subject = Subject(owner, "", recipe, (see_loss,), {}, known, load_part("distillation.losses"))
    assert find_idle_options(subject, tmp_path) == []


def test_no_option_of_a_schedule_over_epochs_is_idle(tmp_path: Path) -> None:
    subject = Subject(
        "EpochSchedule", "", {"start": 4.0, "end": 1.0}, (lambda each: digest(expand_over_epochs(each, 8)),),
        load=lambda values, folder: EpochSchedule.model_validate(values),
    )  # fmt: skip
    assert find_idle_options(subject, tmp_path) == []


def see_tokens(options: Kind) -> str:
    """Digest the tokens of some texts in their order, as a sequence reads them."""
    words = ("soft tea", "a  tea,  soft", "soft tea and soft bread", "tea?", "bread and  tea")
    tokenizer = tokens.fit(options, Normalization(True, False, "keep"), words, "bag")
    ids, starts = tokenizer.encode_flat(words)
    return digest([starts.tolist(), [tokenizer.get_token(number) for number in ids.tolist()]])


@pytest.mark.parametrize("kind", [kind for kind in parts.names("tokens") if list_owners().get(f"tokens.{kind}")])
def test_no_option_of_tokens_is_idle(kind: str, tmp_path: Path) -> None:
    require_packages(kind)
    changes = {"ngrams": [1, 3], "spaces": "keep"} if kind in ("words", "characters") else {"size": 275}
    known = {name: value for name, value in changes.items() if name in list_owners()[f"tokens.{kind}"]}
    subject = Subject(f"tokens.{kind}", "", {"kind": kind}, (see_tokens,), known, load=load_part("tokens"))
    assert find_idle_options(subject, tmp_path) == []


def see_compressed(options: Kind) -> str:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(16), keras.layers.Dense(12)])
    compressed = parts.load("compression.methods", options.kind).apply(options, model, {})
    return digest([np.asarray(keras.ops.convert_to_numpy(weight.value)) for weight in compressed.weights])


@pytest.mark.parametrize("kind", parts.names("compression.methods"))
def test_no_option_of_a_compression_is_idle(kind: str, tmp_path: Path) -> None:
    recipe = {"kind": kind, **({"energy": 0.6} if kind == "low_rank" else {})}
    subject = Subject(
        f"compression.methods.{kind}", "", recipe, (see_compressed,), load=load_part("compression.methods")
    )
    assert find_idle_options(subject, tmp_path) == []


# Values of Keras' required options, and values that differ from a default of None, by their names.
REQUIRED = {
    "activation": "relu", "axes": 1, "boundaries": [2, 4], "decay_rate": 0.5, "decay_steps": 4, "dims": [2, 1],
    "equation": "ab,bc->ac", "factor": 0.2, "filters": 2, "first_decay_steps": 3, "head_dim": 2, "height": 4,
    "height_factor": 0.2, "input_dim": 5, "kernel_size": 3, "key_dim": 2, "layer": {"kind": "dense", "units": 2},
    "n": 2, "num_classes": 2, "num_heads": 2, "num_key_value_heads": 1, "num_query_heads": 2, "output_dim": 3,
    "output_shape": 4, "output_size": 2, "pool_size": 2, "precision": 0.5, "rate": 0.3, "recall": 0.5, "scale": 0.5,
    "sensitivity": 0.5, "specificity": 0.5, "stddev": 0.3, "target_class_ids": [0], "target_shape": [2, 3], "units": 3,
    "values": [0.1, 0.2, 0.3], "width": 4, "width_factor": 0.2,
}  # fmt: skip


def describe(family: str, kind: str) -> dict[str, Any]:
    options = {name: REQUIRED[name] for name in catalogue.get_entry(family, kind)["required"]}
    if kind == "random_posterization":
        options["factor"] = 3
    if kind == "category_encoding":
        options["num_tokens"] = 5
    if kind in ("bidirectional", "time_distributed"):
        options["layer"] = {"kind": "lstm", "units": 2, "return_sequences": True}
    return {"kind": kind, **options}


def load_keras(family: str) -> Callable[[Mapping[str, Any], Path], KerasObject]:
    return lambda values, folder: KerasObjectField(family).check(convert_lists(dict(values)))


def see_steps(optimizer: KerasObject) -> str:
    """Digest weights after some updates: a kernel, an embedding and a vector."""
    keras.utils.set_random_seed(1)
    built = make_keras_object("optimizers", optimizer)
    draw = np.random.default_rng(2)
    weights = [keras.Variable(draw.normal(size=(4, 3)).astype("float32"), name="kernel"),
               keras.Variable(draw.normal(size=(5, 3)).astype("float32"), name="embedding"),
               keras.Variable(draw.normal(size=3).astype("float32"), name="bias")]  # fmt: skip
    built.build(weights)
    # Of different sizes, so that clipping them matters to optimizers that use their signs.
    for size in (3, 0.2, 9, 0.5, 0.1, 4):
        built.apply([tf.constant(size * draw.normal(size=weight.shape), tf.float32) for weight in weights])
    return digest([weight.numpy() for weight in weights])


OF_OPTIMIZERS: dict[str, Any] = {
    "clipnorm": 0.1, "clipvalue": 0.1, "global_clipnorm": 0.1, "weight_decay": 0.2, "epsilon": 0.5, "epsilon_1": 0.9,
    "warmup_steps": 3, "relative_step": False, "learning_rate": 0.3, "muon_a": 1.0, "muon_b": 1.0,
    "muon_c": 1.0, "adam_lr_ratio": 0.5,
    "rms_rate": 0.5, "adam_weight_decay": 0.3, "exclude_layers": ["kernel"], "amsgrad": True, "nesterov": True,
    "beta": 0.5, "learning_rate_power": -0.9, "l1_regularization_strength": 0.2, "l2_regularization_strength": 0.2,
    "l2_shrinkage_regularization_strength": 0.2, "beta_2_decay": -0.3, "clip_threshold": 0.2,
    "initial_accumulator_value": 0.9,
}  # fmt: skip


def load_optimizer(values: Mapping[str, Any], folder: Path) -> KerasObject:
    return TrainOptions.model_validate({"optimizer": convert_lists(dict(values))}).optimizer


# Refused as a whole.
UNUSABLE = "schedule_free_adamw"


def test_an_optimizer_that_is_refused_is_refused_with_any_option() -> None:
    for name in list_owners()[f"keras.optimizers.{UNUSABLE}"]:
        with pytest.raises(ValidationError, match=UNUSABLE):
            load_optimizer({"kind": UNUSABLE, name: OF_OPTIMIZERS.get(name, 0.5)}, Path())


@pytest.mark.parametrize("kind", [kind for kind in catalogue.list_kinds("optimizers") if kind != UNUSABLE])
def test_no_option_of_an_optimizer_is_idle(kind: str, tmp_path: Path) -> None:
    known = {name: value for name, value in OF_OPTIMIZERS.items() if name in list_owners()[f"keras.optimizers.{kind}"]}
    if "nesterov" in known and kind == "sgd":
        known["nesterov"] = Change(True, {"momentum": 0.5})
    if kind == "muon":
        known["nesterov"] = False  # it is true by default
    recipe = {"kind": kind, "learning_rate": 0.1}
    subject = Subject(f"keras.optimizers.{kind}", "", recipe, (see_steps,), known, load=load_optimizer)
    assert find_idle_options(subject, tmp_path) == []


def see_rates(schedule: KerasObject) -> str:
    first = {} if schedule.kind == "piecewise_constant_decay" else {"initial_learning_rate": 0.1}
    built = make_keras_object("schedules", schedule, **first)
    return digest([float(built(step)) for step in range(12)])


OF_SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine_decay": {"decay_steps": 9, "alpha": 0.3, "warmup_steps": Change(3, {"warmup_target": 0.5}),
                     "warmup_target": Change(0.5, {"warmup_steps": 3})},
    "cosine_decay_restarts": {"first_decay_steps": 5, "alpha": 0.3, "m_mul": 0.5, "t_mul": 1.0},
    "exponential_decay": {"decay_steps": 9, "decay_rate": 0.2, "staircase": True},
    "inverse_time_decay": {"decay_steps": 9, "decay_rate": 0.2, "staircase": True},
    "piecewise_constant_decay": {"boundaries": [3, 7], "values": [0.3, 0.2, 0.1]},
    "polynomial_decay": {"decay_steps": 9, "end_learning_rate": 0.05, "power": 2.0, "cycle": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", catalogue.list_kinds("schedules"))
def test_no_option_of_a_keras_schedule_is_idle(kind: str, tmp_path: Path) -> None:
    recipe, changes = describe("schedules", kind), OF_SCHEDULES[kind]
    for owner in (f"schedules.{kind}", f"keras.schedules.{kind}"):
        if owner in list_owners():
            subject = Subject(owner, "", recipe, (see_rates,), changes, load=load_keras("schedules"))
            assert find_idle_options(subject, tmp_path) == []


def see_object(family: str, described: KerasObject) -> str:
    """Digest what Keras says of an object, and what it computes; what an option of a layer does is Keras' own."""
    keras.utils.set_random_seed(1)
    built = make_keras_object(family, described)
    config = json.dumps(built.get_config(), default=str, sort_keys=True)
    return config + _COMPUTE.get(family, lambda built: "")(built)


_KERNEL = np.random.default_rng(4).normal(size=(4, 3)).astype("float32")
_COMPUTE: Mapping[str, Callable[[Any], str]] = {
    "initializers": lambda built: digest(np.asarray(built((4, 3)))),
    "regularizers": lambda built: digest(float(built(tf.constant(_KERNEL)))),
    "constraints": lambda built: digest(np.asarray(built(tf.constant(_KERNEL)))),
    "losses": lambda built: _compare(built.call),
    "metrics": lambda built: _compare(built),
}


# Values by the names of options whose default is None, or of which the type of the default says too little.
OF_KERAS: dict[str, Any] = {
    "data_format": "channels_first", "seed": 5, "noise_shape": [1, 3], "strides": 3, "padding": "same",
    "backward_layer": {"kind": "lstm", "units": 2, "return_sequences": True, "go_backwards": True}, "num_tokens": 7,
    "attention_axes": [1], "value_dim": 5, "sliding_window": 3, "flash_attention": False, "max_freq": 3000.0,
    "sequence_length": 77, "shared_axes": [1], "fill_value": 0.7, "max_value": 3.0, "fft_length": 64, "frame_step": 33,
    "renorm_clipping": {"rmax": 2.0}, "input_axes": [0], "output_axes": [1], "ignore_class": 1, "class_id": 1,
    "top_k": 2, "thresholds": [0.3, 0.4], "threshold": 0.3, "average": "macro", "num_labels": 3,
    "label_weights": [0.2, 0.3, 0.5], "output_padding": 1, "bias_axes": "c", "logit_soft_cap": 3.0,
    "activation": "tanh", "curve": "PR", "summation_method": "minoring",
    "class_aggregation": "variance_weighted_average",
    "distribution": "uniform", "score_mode": "concat", "interpolation": "nearest", "recurrent_activation": "tanh",
    "merge_mode": "sum",
    "output_mode": "one_hot", "use_cudnn": False, "window": "hamming", "fill_mode": "nearest", "scaling": "spectrum",
}  # fmt: skip
FAMILIES = ("constraints", "initializers", "layers", "losses", "metrics", "regularizers")
# Options that need others beside them, or a value of their own.
OF_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "auc.num_labels": (3, {"multi_label": True}),
    "auc.label_weights": ((0.2, 0.8), {"multi_label": True, "num_labels": 2}),
    "orthogonal_regularizer.mode": ("columns", {}),
    "variance_scaling.mode": ("fan_out", {}),
    "random_flip.mode": ("vertical", {}),
    "stft_spectrogram.mode": ("psd", {}),
    "stft_spectrogram.fft_length": (512, {}),
    "up_sampling2d.interpolation": ("bilinear", {}),
    "permute.dims": ((1, 2), {}),
    "bidirectional.layer": ({"kind": "gru", "units": 2, "return_sequences": True}, {}),
    "spectral_normalization.layer": ({"kind": "dense", "units": 3}, {}),
    **{f"conv{axes}d_transpose.output_padding": (1, {"strides": 2}) for axes in (1, 2, 3)},
}
# Options of which TensorFlow takes the default alone.
_REFUSED = ("sparse_categorical_crossentropy.axis",)

_TRIED = (
    *("augmentations.", "compression.", "distillation.losses.", "tokens.", "keras.optimizers.", "keras.schedules."),
    *(f"keras.{family}." for family in FAMILIES),
)
OWNERS = tuple(
    owner
    for owner in list_owners()
    if (owner.startswith(_TRIED) and owner != "distillation.losses.hard")
    or owner == "EpochSchedule"
    or owner.removeprefix("schedules.") in OF_SCHEDULES
)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_reaches_keras(family: str, tmp_path: Path) -> None:
    idle: list[str] = []
    for kind in catalogue.list_kinds(family):
        entry, described = catalogue.get_entry(family, kind), describe(family, kind)
        for name, default in entry["options"].items():
            if f"{kind}.{name}" in _REFUSED:
                continue
            value, beside = OF_KINDS.get(f"{kind}.{name}", (None, {}))
            values = [value] if value is not None else make_other_values(name, default, described.get(name))
            base = {**described, **beside}
            before = see_object(family, KerasObjectField(family).check(base))
            results = [_try(family, {**base, name: value}) for value in values]
            if not any(result not in (before, None) for result in results):
                idle.append(f"{kind}.{name}: {values}")
    assert idle == []


def test_an_axis_that_tensorflow_refuses_is_refused() -> None:
    described = KerasObjectField("losses").check({"kind": "sparse_categorical_crossentropy", "axis": 0})
    with pytest.raises(ValueError, match="Only axis=-1"):
        make_keras_object("losses", described)(tf.constant([0, 1, 2, 0]), tf.nn.softmax(_KERNEL))


def _compare(function: Callable[[Any, Any], Any]) -> str:
    """Digest what a loss or a metric computes; empty if it takes other arguments, and its configuration must do."""
    try:
        return digest(np.asarray(function(tf.abs(_KERNEL), tf.nn.softmax(_KERNEL))))
    except (ValueError, TypeError, tf.errors.InvalidArgumentError):
        return ""


def make_other_values(name: str, default: Any, given: Any) -> list[Any]:
    """Values that differ from the one that is given, or from the default."""
    family, value = catalogue.get_option_family(name), default if given is None else given
    if family is not None and family not in ("layers", "activations"):
        return [
            {"initializers": {"kind": "constant", "value": 0.3}, "regularizers": "l2", "constraints": "non_neg"}[family]
        ]
    if isinstance(value, (bool, int, float)):
        return [*list_other_values(value), *([] if isinstance(value, bool) else [value / 2, -2])]
    if isinstance(value, list) and all(isinstance(each, (int, float)) for each in value):
        return [tuple(each + 1 for each in value), tuple(each / 2 for each in value)]
    others = [OF_KERAS.get(name), REQUIRED.get(name), "same", "cols", 2, 0.5, (1, 2), ((1, 1), (2, 2)), 3]
    return [tuple(each) if isinstance(each, list) else each for each in others if each is not None and each != value]


def _try(family: str, values: dict[str, Any]) -> str | None:
    try:
        return see_object(family, KerasObjectField(family).check(values))
    except Exception:  # Keras refuses a value in many ways; another one may suit
        return None
