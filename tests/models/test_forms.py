"""Features of every family: their shapes, masks, and what they may depend on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli import models, parts, private_api
from bmcli.models import CAUSAL_STEPS, MAP, PYRAMID, STEPS, VECTOR, Backbone, FeatureRequest
from bmcli.recipe.fields import PartField
from bmcli.specs import Column
from tests.models.fakes import batch, column, number, spec

IMAGE = column("image", (8, 8, 1))
PHOTO = column("photo", (32, 32, 3), "uint8")
TEXT = column("text", (6, 4), padding=0.0)
AGE = column("age", (3,))
ENDS = ({"kind": "dense", "units": 3, "activation": "relu"}, {"kind": "dense", "units": 3})

Shapes = dict[FeatureRequest, Any]
CASES: list[tuple[str, dict[str, Any], tuple[Column, ...], Shapes]] = [
    ("mlp", {"hidden": (5,)}, (AGE,), {VECTOR: (5,)}),
    ("linear", {}, (AGE, TEXT), {VECTOR: (27,)}),
    ("wide_deep", {"hidden": (5,)}, (AGE,), {VECTOR: (8,)}),
    ("table_resnet", {"width": 8}, (AGE,), {VECTOR: (8,)}),
    ("ft_transformer", {"width": 8}, (AGE,), {VECTOR: (8,)}),
    ("cnn", {"filters": (4,), "dense": (5,)}, (IMAGE, AGE), {VECTOR: (5,), MAP: (4, 4, 7)}),
    ("cnn", {"filters": (4,), "dense": (5,)}, (TEXT,), {VECTOR: (5,), STEPS: (3, 4)}),
    (
        "resnet",
        {"widths": (4, 8), "blocks": (1, 1)},
        (IMAGE, AGE),
        {VECTOR: (11,), MAP: (4, 4, 11), PYRAMID: ((8, 8, 7), (4, 4, 11))},
    ),
    (
        "mobilenet",
        {"widths": (4, 8), "blocks": (1, 1), "last": 12},
        (IMAGE,),
        {VECTOR: (12,), MAP: (4, 4, 12), PYRAMID: ((8, 8, 4), (4, 4, 12))},
    ),
    (
        "convnext",
        {"widths": (4, 8), "blocks": (1, 1)},
        (IMAGE,),
        {VECTOR: (8,), MAP: (2, 2, 8), PYRAMID: ((4, 4, 4), (2, 2, 8))},
    ),
    ("application", {"architecture": "mobilenet"}, (PHOTO, AGE), {VECTOR: (1027,), MAP: (1, 1, 1027)}),
    ("rnn", {"units": 5}, (TEXT, AGE), {VECTOR: (8,), STEPS: (6, 8), CAUSAL_STEPS: (6, 8)}),
    ("rnn", {"units": (4, 5), "bidirectional": True, "pooling": "mean"}, (TEXT,), {VECTOR: (10,), STEPS: (6, 10)}),
    ("transformer", {"width": 8}, (TEXT, AGE), {VECTOR: (11,), STEPS: (6, 11), CAUSAL_STEPS: (6, 11)}),
    ("transformer", {"width": 8, "pooling": "token"}, (TEXT,), {VECTOR: (8,), STEPS: (6, 8)}),
    (
        "transformer",
        {"width": 8, "patch": (4, 2)},
        (IMAGE,),
        {VECTOR: (8,), STEPS: (8, 8), CAUSAL_STEPS: (8, 8), MAP: (2, 4, 8)},
    ),
    ("layers", {"layers": ENDS}, (AGE,), {}),
]
every_case = pytest.mark.parametrize(
    ("kind", "options", "columns", "shapes"), CASES, ids=[f"{each[0]}-{i}" for i, each in enumerate(CASES)]
)
STEP_CASES = [case for case in CASES if STEPS in case[3] and TEXT in case[2]]
CAUSAL_CASES = [case for case in CASES if CAUSAL_STEPS in case[3]]


def build(kind: str, options: dict[str, Any], columns: tuple[Column, ...], *requests: FeatureRequest) -> Backbone:
    keras.utils.set_random_seed(1)
    checked = PartField("models").check({"kind": kind, **options})
    backbone: Backbone = parts.load("models", kind).build(checked, spec(*columns), requests)
    return backbone


def run(backbone: Backbone, request: FeatureRequest, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and their mask."""
    features = backbone.features[request]
    with models.allow_column_names():
        model = keras.Model(dict(backbone.inputs), {"tensor": features.tensor, "mask": features.mask})
    outputs = model({name: tf.constant(values) for name, values in rows.items()})
    return outputs["tensor"].numpy(), outputs["mask"].numpy()


def _shape(tensor: Any) -> Any:
    return tuple(map(_shape, tensor)) if isinstance(tensor, tuple) else tuple(tensor.shape[1:])


def test_every_family_is_among_the_cases() -> None:
    assert {case[0] for case in CASES} == set(parts.names("models"))


@every_case
def test_a_family_builds_the_forms_that_it_lists(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...], shapes: Shapes
) -> None:
    checked = PartField("models").check({"kind": kind, **options})
    listed = parts.load("models", kind).forms(checked, spec(*columns))
    if kind == "layers":
        pytest.skip("its features are the outputs of the layers that a recipe lists")
    assert set(listed) == set(shapes)
    for request in (VECTOR, STEPS, CAUSAL_STEPS, MAP, PYRAMID):
        features = build(kind, options, columns, request).features
        found = {each: _shape(features[each].tensor) for each in features if each in (request, VECTOR)}
        assert found.get(request) == shapes.get(request), request
    together = build(kind, options, columns, *shapes).features
    assert {each: _shape(features.tensor) for each, features in together.items()} == shapes


def test_a_family_that_does_not_accept_the_inputs_lists_no_form() -> None:
    for kind, columns in {
        "resnet": (TEXT,),
        "rnn": (AGE,),
        "ft_transformer": (IMAGE,),
        "application": (IMAGE,),
    }.items():
        options = {"architecture": "mobilenet"} if kind == "application" else {}
        checked = PartField("models").check({"kind": kind, **options})
        assert parts.load("models", kind).forms(checked, spec(*columns)) == ()


@pytest.mark.parametrize(("kind", "options", "columns", "shapes"), STEP_CASES)
def test_no_valid_step_depends_on_padding(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...], shapes: Shapes
) -> None:
    backbone = build(kind, options, columns, STEPS)
    rows = batch(spec(*columns), 3)
    rows["text"][:, 4:, 0] = 0.0  # padding
    steps, mask = run(backbone, STEPS, rows)
    assert steps.shape[:2] == mask.shape
    assert mask.any()
    assert not mask.all()
    rows["text"][:, 4:, 1:] += 7.0
    others, same_mask = run(backbone, STEPS, rows)
    np.testing.assert_array_equal(mask, same_mask)
    np.testing.assert_allclose(others[mask], steps[mask], atol=1e-6)


@pytest.mark.parametrize(("kind", "options", "columns", "shapes"), CAUSAL_CASES)
def test_a_causal_step_does_not_depend_on_later_ones(
    kind: str, options: dict[str, Any], columns: tuple[Column, ...], shapes: Shapes
) -> None:
    backbone = build(kind, {**options, "dropout": 0.0}, columns, CAUSAL_STEPS)
    name, tensor = columns[0].name, backbone.features[CAUSAL_STEPS].tensor
    with models.allow_column_names():
        model = keras.Model(dict(backbone.inputs), tensor)
    rows = batch(spec(*columns), 3)
    before = model(rows).numpy()
    rows[name][:, 4:] += 1.0  # of the image the lower half, which is that of the last patches
    after = model(rows).numpy()
    np.testing.assert_allclose(after[:, :4], before[:, :4], atol=1e-6)
    assert not np.allclose(after[:, 4:], before[:, 4:], atol=1e-3)


def test_the_head_of_a_graph_of_layers_is_the_dense_layer_that_ends_it() -> None:
    inner = {"kind": "dense", "units": 5, "name": "inner"}
    dense = {"kind": "dense", "units": 3, "name": "out"}
    ends: dict[str, tuple[Any, ...]] = {
        "inner": (dense,), "product": (dense, {"kind": "multiply", "from": ("out", "out"), "name": "product"}),
    }  # fmt: skip
    for source, layers in {**ends, "inner ": (dense, {"kind": "softmax"})}.items():
        features = build("layers", {"layers": (inner, *layers)}, (AGE,), VECTOR).by_target["label"]
        assert private_api.get_operation(features.tensor).name == source.strip()


def test_an_output_layer_that_others_read_is_part_of_the_backbone() -> None:
    layers = ({"kind": "dense", "units": 3, "name": "out"}, {"kind": "dense", "units": 2, "name": "more"})
    data = spec(AGE, targets=(number("label"), number("price")))
    options = PartField("models").check(
        {"kind": "layers", "layers": layers, "outputs": {"label": "out", "price": "more"}}
    )
    backbone = parts.load("models", "layers").build(options, data, (VECTOR,))
    names = {target: private_api.get_operation(each.tensor).name for target, each in backbone.by_target.items()}
    assert names == {"label": "out", "price": "out"}
