"""Private interfaces of Keras 3.15 and TensorFlow 2.21: the only place where bmcli uses any.

Each function says why no public interface does. `tests/test_private_api.py` tells when one of them changes.
Imports neither before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def flatten_layers(model: Any) -> list[Any]:
    """A model, its layers, and those inside of them.

    `model.layers` stops at nested models and at wrappers such as `Bidirectional`.
    """
    return list(model._flatten_layers())


def get_only_node(operation: Any) -> Any:
    """The one call of an operation of a functional model: `input_tensors`, `outputs`.

    `operation.input` and `operation.output` lose the order of several tensors.
    """
    (node,) = operation._inbound_nodes
    return node


def get_first_outputs(layer: Any) -> Any:
    """Symbolic outputs of the first call of a layer, which may be called several times."""
    return layer._inbound_nodes[0].output_tensors


def get_operation(tensor: Any) -> Any:
    """The operation that a symbolic tensor is an output of; Keras keeps the public way back inside of `Node`."""
    return tensor._keras_history.operation


def get_seed_generators(layer: Any) -> list[Any]:
    """The random generators of a layer, whose names differ from layer to layer."""
    return list(layer._seed_generators)


def get_uncast_value(variable: Any) -> Any:
    """The value of a Keras variable in its own type: inside of a layer's call `value` is cast to the compute type."""
    return variable._value


def disable_gradient_reduction(optimizer: Any) -> None:
    """Let an optimizer apply gradients as they are: Keras would sum them over the replicas after clipping them."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list


@contextmanager
def replace_stateless_dropout(dropout: Callable[..., Any]) -> Iterator[None]:
    """Let Keras' layers that are traced meanwhile drop elements by another function.

    `keras.layers.Dropout` calls `tf.nn.experimental.stateless_dropout` and offers no choice.
    """
    import tensorflow as tf

    before = tf.nn.experimental.stateless_dropout
    tf.nn.experimental.stateless_dropout = dropout
    try:
        yield
    finally:
        tf.nn.experimental.stateless_dropout = before


def set_heartbeat_timeout(workers: int, timeout_s: float) -> None:
    """Keep TensorFlow from looking after the workers of a cluster, which may end in a dump of the native stack."""
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=int(1000 * timeout_s),
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers)],
    )


def convert_calibrated(converter: Any) -> bytes:
    """A LiteRT model with the ranges of representative rows, in float32.

    `tf.lite.experimental.QuantizationDebugger` makes it on its way, beside a model that it debugs.
    """
    converter.experimental_mlir_quantizer = True
    converter._experimental_calibrate_only = True
    found: bytes = converter.convert()
    return found


def quantize_calibrated(model: bytes, kept: list[str]) -> bytes:
    """A calibrated LiteRT model in int8, but for the operations that give some tensors.

    Args:
        kept: Names of these tensors. No public converter takes such a list.
    """
    from tensorflow.lite.python import convert

    found: bytes = convert.mlir_quantize(model, denylisted_nodes=kept)
    return found


def parse_litert_graph(model: bytes) -> tuple[Any, Any, Mapping[str, int]]:
    """The first graph of a LiteRT model, its operator codes, and the numbers of operators by name.

    The public interpreter names operations, but not their tensors' places among the inputs.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    found = schema.ModelT.InitFromPackedBuf(model, 0)
    return found.subgraphs[0], found.operatorCodes, schema.BuiltinOperator


def patch_tf2onnx() -> None:
    """Let tf2onnx work with NumPy 2: Keras keeps what mends it to itself."""
    from keras.src.export import tf2onnx_lib

    tf2onnx_lib.patch_tf2onnx()
