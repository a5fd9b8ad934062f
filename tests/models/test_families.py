"""Laws that hold for every family, each over several of its networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli import layers, parts
from bmcli.recipe.fields import Kind, PartField, dump
from bmcli.specs import Column
from tests.models.fakes import batch, build_network, category, column, number, spec

IMAGE = column("image", (8, 8, 1))
AGE = column("age", (3,))
CITY = column("dense", (), "int32", codes=4)  # a column may be called like a layer
TEXT = column("text", (6, 4), padding=0.0)
SERIES = column("mean_1", (5, 2))

GRAPH: tuple[dict[str, Any], ...] = (
    {"kind": "multi_head_attention", "num_heads": 2, "key_dim": 4, "from": "text"},
    {"kind": "bidirectional", "layer": {"kind": "lstm", "units": 4}, "name": "read"},
    {"kind": "dense", "units": 8, "activation": "relu", "name": "wide", "from": "age"},
    {"kind": "concatenate", "name": "all", "from": ("read", "wide")},
    {"kind": "dense", "units": 3, "name": "label_end", "activation": "softmax", "from": "all"},
    {"kind": "dense", "units": 1, "name": "price_end", "from": "all"},
)

CASES: list[tuple[str, dict[str, Any], tuple[Column, ...]]] = [
    ("mlp", {}, (IMAGE, AGE, CITY)),
    ("mlp", {"hidden": (), "sequences": "mean"}, (TEXT, AGE)),
    ("mlp", {"normalization": "batch", "dropout": 0.2, "activation": "gelu"}, (AGE, TEXT)),
    ("cnn", {}, (IMAGE,)),
    ("cnn", {"normalization": "batch", "pooling": "average", "dropout": 0.1}, (IMAGE, AGE)),
    ("cnn", {"kernel_size": (3, 2), "convolutions": 2, "padding": "valid", "filters": (4,)}, (IMAGE, CITY)),
    ("mlp", {"periodic": {"frequencies": 3, "width": 2}}, (AGE, TEXT, CITY)),
    ("linear", {"kernel_regularizer": "l2"}, (AGE, CITY, TEXT)),
    ("wide_deep", {"hidden": (8,), "periodic": {}}, (AGE, CITY)),
    ("wide_deep", {"wide": ("dense",), "deep": ("age",), "wide_regularizer": "l1"}, (AGE, CITY)),
    ("table_resnet", {"width": 8, "depth": 2, "residual_dropout": 0.1}, (AGE, CITY, TEXT)),
    ("table_resnet", {"width": 8, "normalization": "layer", "periodic": {}}, (AGE,)),
    ("ft_transformer", {"width": 8, "heads": 2}, (AGE, CITY)),
    ("ft_transformer", {"width": 8, "heads": 2, "depth": 1}, (CITY,)),
    ("cnn", {"convolutions": 2, "normalization": "batch"}, (TEXT, AGE)),
    ("cnn", {"strides": 2, "pool_kind": "average", "padding": "valid", "kernel_size": 2}, (column("long", (24, 2)),)),
    ("cnn", {"pooling": "flatten", "pool_kind": "average", "filters": (4,)}, (TEXT,)),
    ("resnet", {"widths": (4, 8), "normalization": "group"}, (IMAGE, AGE)),
    ("resnet", {"blocks": (1, 2), "bottleneck": True, "stem": "halving", "dropout": 0.2}, (IMAGE,)),
    ("resnet", {"blocks": (1,), "stem": "large"}, (IMAGE,)),
    ("mobilenet", {"widths": (4, 8), "blocks": (2, 1), "last": 12}, (IMAGE, CITY)),
    ("mobilenet", {"widths": (4,), "blocks": (1,), "last": None, "expansion": 1.0, "normalization": "group"}, (IMAGE,)),
    ("convnext", {"widths": (4, 8), "blocks": (1, 2), "kernel_size": 3, "drop_path": 0.2}, (IMAGE, AGE)),
    ("convnext", {"widths": (4,), "blocks": (1,), "patch": 4, "dropout": 0.2}, (IMAGE,)),
    ("application", {"architecture": "mobilenet"}, (column("photo", (32, 32, 3), "uint8"), AGE)),
    ("rnn", {}, (IMAGE,)),
    ("rnn", {"pooling": "attention"}, (TEXT,)),
    ("rnn", {"cell": "gru", "units": (4, 4), "share": True, "bidirectional": True}, (TEXT, AGE)),
    ("rnn", {"cell": "gru", "units": (8, 6), "bidirectional": True, "pooling": "mean"}, (TEXT, AGE)),
    ("rnn", {"cell": "simple", "normalization": "batch", "pooling": "max", "dense": (8,)}, (TEXT,)),
    ("transformer", {"width": 16}, (IMAGE, AGE)),
    ("transformer", {"width": 8, "patch": 4, "pooling": "token", "positions": "sinusoidal"}, (IMAGE,)),
    ("transformer", {"width": 8, "norm_first": False, "pooling": "max"}, (TEXT, CITY)),
    ("transformer", {"width": 8, "pooling": "token", "positions": None, "depth": 1}, (SERIES,)),
    ("transformer", {"width": 8, "share": True}, (TEXT,)),
    ("layers", {"layers": GRAPH, "outputs": {"label": "label_end", "price": "price_end"}}, (TEXT, AGE)),
]
TARGETS = (category(), number())

every_network = pytest.mark.parametrize(
    ("kind", "options", "columns"), CASES, ids=[f"{kind}-{i}" for i, (kind, _, _) in enumerate(CASES)]
)


def chosen(kind: str, options: dict[str, Any]) -> Kind:
    return PartField("models").check({"kind": kind, **options})


def built(kind: str, options: dict[str, Any], columns: tuple[Column, ...], seed: int = 1) -> keras.Model:
    data = spec(*columns, targets=TARGETS)
    keras.utils.set_random_seed(seed)
    return build_network(parts.load("models", kind), chosen(kind, options), data)


def outputs_of(network: keras.Model, columns: tuple[Column, ...], size: int) -> dict[str, np.ndarray]:
    outputs = network({name: tf.constant(rows) for name, rows in batch(spec(*columns), size).items()})
    return {name: output.numpy() for name, output in outputs.items()}


def test_every_family_is_among_the_cases() -> None:
    assert parts.names("models")
    assert {kind for kind, _, _ in CASES} == set(parts.names("models"))


@every_network
def test_options_dump_to_what_they_were_made_of(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...]
) -> None:
    checked = chosen(kind, options)
    assert dump(checked)["kind"] == kind
    assert PartField("models").check(_as_tuples(dump(checked))) == checked


@every_network
def test_outputs_are_finite_numbers_of_each_target(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...]
) -> None:
    network = built(kind, options, columns)
    assert network.name == "network"
    for size in (1, 7):
        outputs = outputs_of(network, columns, size)
        assert {name: output.shape for name, output in outputs.items()} == {
            "label": (size, 3),
            "price": (size, 1),
        }
        assert all(output.dtype == np.float32 and np.isfinite(output).all() for output in outputs.values())


@every_network
def test_gradients_reach_every_weight(kind: str, options: dict[str, Any], columns: tuple[Column, ...]) -> None:
    network = built(kind, options, columns)
    rows = {name: tf.constant(values) for name, values in batch(spec(*columns), 16).items()}
    for weight in network.trainable_variables:
        if not weight.numpy().any():  # A branch that starts at 0 would hold back the gradients of its layers.
            weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    with tf.GradientTape() as tape:
        outputs = network(rows, training=True)
        # Weighted: the sum of normalized outputs does not depend on what was normalized.
        loss = tf.add_n([tf.reduce_sum(tf.sin(2.0 * o + tf.range(16.0)[:, None])) for o in outputs.values()])
    weights = network.trainable_variables
    gradients = tape.gradient(loss, weights)
    assert weights
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        size = float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient))))
        # Attention does not depend on the bias of its keys, which adds the same to every score of a query.
        assert np.isfinite(size), weight.path
        assert size > 0 or weight.path.endswith("key/bias"), weight.path


@every_network
def test_a_saved_network_gives_the_same_outputs(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...], tmp_path: Path
) -> None:
    network = built(kind, options, columns)
    network.save(tmp_path / "network.keras")
    layers.register()
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    for name, output in outputs_of(network, columns, 4).items():
        np.testing.assert_array_equal(outputs_of(loaded, columns, 4)[name], output)


@every_network
def test_the_seed_decides_the_weights(kind: str, options: dict[str, Any], columns: tuple[Column, ...]) -> None:
    first, again, other = (built(kind, options, columns, seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


@every_network
def test_outputs_stay_float32_in_mixed_precision(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...]
) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        outputs = outputs_of(built(kind, options, columns), columns, 2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(output.dtype == np.float32 and np.isfinite(output).all() for output in outputs.values())


@every_network
def test_no_two_layers_start_alike(kind: str, options: dict[str, Any], columns: tuple[Column, ...]) -> None:
    """An initializer used for two layers would give both the same weights."""
    weights = [w.numpy() for w in built(kind, options, columns).trainable_variables if "kernel" in w.path]
    flat = [tuple(w.ravel()[:6]) for w in weights if w.size >= 6]
    assert len(flat) == len(set(flat))


def _as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tuples(item) for key, item in value.items()}
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
