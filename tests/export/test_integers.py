"""LiteRT in integers keeps in float32 what is slower or too coarse in them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from bmcli.export import integers


def converter_of(model: keras.Model, folder: Path) -> tf.lite.TFLiteConverter:
    shape = model.input.shape
    held = tf.Module()
    held.weights = [variable.value for variable in model.variables]
    held.serve = tf.function(lambda x: {"y": model(x, training=False)}, input_signature=[tf.TensorSpec(shape)])
    tf.saved_model.save(held, str(folder), signatures={"serving_default": held.serve.get_concrete_function()})
    found = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    found.optimizations = [tf.lite.Optimize.DEFAULT]
    rows = np.random.default_rng(0).normal(size=(40, 1, *shape[1:])).astype("float32")
    found.representative_dataset = lambda: ([row] for row in rows)
    return found


def dtypes(content: bytes) -> list[tuple[str, str]]:
    """Operations with weights and softmax, in order, each with the type that it takes."""
    names = {getattr(schema.BuiltinOperator, name): name for name in ("CONV_2D", "FULLY_CONNECTED", "SOFTMAX")}
    types = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    return [
        (names[code], types[graph.tensors[each.inputs[0]].type])
        for each in graph.operators
        for code in [model.operatorCodes[each.opcodeIndex].builtinCode]
        if code in names
    ]


def test_thin_convolutions_and_small_ends_stay_in_float(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    tensor = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    tensor = keras.layers.Conv2D(16, 3, activation="relu")(tensor)
    tensor = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(tensor))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(tensor))
    assert dtypes(integers.quantize(converter_of(model, tmp_path))) == [
        ("CONV_2D", "float32"), ("CONV_2D", "int8"), ("FULLY_CONNECTED", "int8"), ("FULLY_CONNECTED", "float32"),
        ("SOFTMAX", "float32"),
    ]  # fmt: skip


def test_a_last_layer_with_most_of_the_weights_is_in_integers(tmp_path: Path) -> None:
    inputs = keras.Input((500,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    found = dtypes(integers.quantize(converter_of(model, tmp_path)))
    assert found == [("FULLY_CONNECTED", "int8"), ("SOFTMAX", "float32")]


def test_one_hot_vectors_are_right_in_integers(tmp_path: Path) -> None:
    inputs = keras.Input((2,))
    chosen = keras.ops.one_hot(keras.ops.cast(inputs[:, 0] > 0, "int32"), 5)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()([3 * inputs, chosen])))
    rows = np.random.default_rng(1).uniform(-1, 1, (20, 2)).astype("float32")
    for wholly in (False, True):
        content = integers.quantize(converter_of(model, tmp_path / str(wholly)), wholly)
        run = tf.lite.Interpreter(model_content=content).get_signature_runner()
        np.testing.assert_allclose(run(x=rows)["y"], model(rows), atol=0.1)
