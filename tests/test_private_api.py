"""The private interfaces of Keras and TensorFlow are what bmcli takes them for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import bmcli
from bmcli import private_api


def network() -> keras.Model:
    inputs = keras.Input((4, 3))
    inside = keras.Sequential([keras.layers.Dense(2)])
    x = keras.layers.Bidirectional(keras.layers.LSTM(2))(keras.layers.TimeDistributed(inside)(inputs))
    return keras.Model(inputs, keras.layers.Dropout(0.5, seed=1)(x))


def test_layers_inside_of_models_and_wrappers_are_found() -> None:
    kinds = {type(layer).__name__ for layer in private_api.flatten_layers(network())}
    assert {"Functional", "Sequential", "Dense", "Bidirectional", "LSTM", "LSTMCell", "Dropout"} <= kinds


def test_operations_and_tensors_of_a_functional_model_lead_to_each_other() -> None:
    model = network()
    dropout = model.layers[-1]
    assert private_api.get_operation(model.output) is dropout
    first, *_, last = private_api.list_nodes(model)
    assert (first.is_input, last.is_input, last.operation) == (True, False, dropout)
    assert last.output_tensors == [model.output]
    assert private_api.get_operation(last.input_tensors[0]) is model.layers[-2]
    assert private_api.get_sources(model.output) == last.input_tensors
    assert private_api.get_first_outputs(dropout) == [model.output]


def test_layers_that_draw_have_generators() -> None:
    layers = private_api.flatten_layers(network())
    assert any(private_api.get_seed_generators(layer) for layer in layers)


def test_a_variable_has_a_value_that_no_policy_casts() -> None:
    class Half(keras.layers.Layer):
        def build(self, shape: object) -> None:
            self.weight = self.add_weight(shape=(1,), name="weight")

        def call(self, inputs: object) -> object:
            self.seen = (private_api.get_uncast_value(self.weight).dtype.name, self.weight.value.dtype.name)
            return inputs

    layer = Half(dtype="mixed_float16")
    layer(np.zeros((1, 1), "float32"))
    assert layer.seen == ("float32", "float16")


def test_optimizers_leave_gradients_as_they_are() -> None:
    assert hasattr(keras.optimizers.SGD(), "_all_reduce_sum_gradients")
    for optimizer in (keras.optimizers.SGD(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())):
        private_api.disable_gradient_reduction(optimizer)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        assert inner._all_reduce_sum_gradients(((1, 2),)) == [(1, 2)]


def test_keras_takes_its_dropout_from_the_function_that_is_replaced() -> None:
    def drop_all(x: tf.Tensor, *_: object, **__: object) -> tf.Tensor:
        return tf.zeros_like(x)

    with private_api.replace_stateless_dropout(drop_all):
        found = keras.layers.Dropout(0.1, seed=1)(tf.ones((4, 4)), training=True)
    assert not np.any(found)
    assert np.any(keras.layers.Dropout(0.1, seed=1)(tf.ones((4, 4)), training=True))


def test_the_coordination_service_can_be_described() -> None:
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    assert coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=2).num_tasks == 2
    assert callable(context.context().configure_coordination_service)


def test_a_model_is_calibrated_and_rounded_but_for_what_is_kept() -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(64)(inputs)))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rows = np.random.default_rng(1).normal(size=(16, 8)).astype("float32")
    converter.representative_dataset = lambda: ([row[None]] for row in rows)
    calibrated = private_api.convert_calibrated(converter)
    graph, codes, kinds = private_api.parse_litert_graph(calibrated)
    operators = [codes[each.opcodeIndex].builtinCode for each in graph.operators]
    assert operators.count(kinds.FULLY_CONNECTED) == 2
    last = graph.tensors[graph.operators[-1].outputs[0]].name.decode()
    whole, part = (private_api.quantize_calibrated(calibrated, kept) for kept in ([], [last]))
    assert _int8_tensors(whole) > _int8_tensors(part) > 0


def _int8_tensors(model: bytes) -> int:
    return sum(tensor.type == _INT8 for tensor in private_api.parse_litert_graph(model)[0].tensors)


_INT8 = 9  # in LiteRT's schema

_PRIVATE_MODULES = re.compile(r"keras\.src|tensorflow\.(python|compiler|lite\.python)")
_PRIVATE_NAMES = {
    "_flatten_layers", "_inbound_nodes", "_keras_history", "_seed_generators", "_all_reduce_sum_gradients",
    "_experimental_calibrate_only", "stateless_dropout",
}  # fmt: skip


def test_no_other_module_uses_what_is_private_in_keras_and_tensorflow() -> None:
    root = Path(bmcli.__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        if file.name == "private_api.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            name = node.attr if isinstance(node, ast.Attribute) else None
            if (module and _PRIVATE_MODULES.match(module)) or name in _PRIVATE_NAMES:
                found.append(f"{file.relative_to(root)}:{node.lineno} {module or name}")
    assert not found
