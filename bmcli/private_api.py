"""Private interfaces of Keras 3.15 and TensorFlow 2.21: the only place where bmcli uses any.

Each function gives the reason why no public interface can be used. `tests/test_private_api.py` fails when one of them
changes. Neither library is imported before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def flatten_layers(model: Any) -> list[Any]:
    """List a model, its layers, and all layers inside of these.

    `model.layers` does not contain the layers inside nested models and wrappers such as `Bidirectional`.
    """
    return list(model._flatten_layers())


def list_nodes(model: Any) -> list[Any]:
    """List the inputs and the calls of operations in a functional model, in the order of the data flow.

    Each node has `operation`, `is_input`, `input_tensors` and `output_tensors`. The public `operation.input` and
    `operation.output` lose the order of several tensors, and belong to the first call, perhaps one in another model.
    """
    # Keras counts depth from the outputs, so the largest is the first.
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def fill_arguments(node: Any, values: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call in a functional model with values in place of its symbolic tensors.

    A functional model can be called as a whole only, and not call by call with something in between.

    Args:
        node: One of `list_nodes`.
        values: By the `id` of their symbolic tensors.
    """
    arguments, options = node.arguments.fill_in(values)
    return tuple(arguments), dict(options)


def get_sources(tensor: Any) -> list[Any]:
    """Get the symbolic tensors from which an operation computes a tensor; none for an input of a model."""
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)


def get_first_outputs(layer: Any) -> Any:
    """Get the symbolic outputs of the first call of a layer, always as a list, unlike the public `output`."""
    return layer._inbound_nodes[0].output_tensors


def get_operation(tensor: Any) -> Any:
    """Get the operation whose output a symbolic tensor is; no public attribute leads from a tensor to it."""
    return tensor._keras_history.operation


def get_seed_generators(layer: Any) -> list[Any]:
    """List the random generators of a layer; their public attributes have different names in each layer."""
    return list(layer._seed_generators)


def get_uncast_value(variable: Any) -> Any:
    """Get the value of a Keras variable in its dtype: in the call of a layer, `value` is cast to the compute dtype."""
    return variable._value


def disable_gradient_reduction(optimizer: Any) -> None:
    """Stop an optimizer from summing gradients over replicas.

    Keras would sum them after clipping; the trainer sums them before.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list


@contextmanager
def replace_stateless_dropout(dropout: Callable[..., Any]) -> Iterator[None]:
    """Replace the dropout function of Keras' layers that are traced in the body.

    `keras.layers.Dropout` always calls `tf.nn.experimental.stateless_dropout`.
    """
    import tensorflow as tf

    original = tf.nn.experimental.stateless_dropout
    tf.nn.experimental.stateless_dropout = dropout
    try:
        yield
    finally:
        tf.nn.experimental.stateless_dropout = original


def set_heartbeat_timeout(workers: int, timeout_s: float) -> None:
    """Set the time after which TensorFlow considers a worker of a cluster lost.

    Its reaction can be a dump of the native stack, so this is left to the caller. `tf.config` has no such option.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=int(1000 * timeout_s),
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers)],
    )


def convert_calibrated(converter: Any) -> bytes:
    """Convert to a float32 LiteRT model with the ranges of representative rows.

    The public `tf.lite.experimental.QuantizationDebugger` makes such a model only internally.
    """
    converter.experimental_mlir_quantizer = True
    converter._experimental_calibrate_only = True
    model: bytes = converter.convert()
    return model


def quantize_calibrated(model: bytes, kept: list[str]) -> bytes:
    """Quantise a calibrated LiteRT model to int8, except for the operations that compute some tensors.

    Args:
        kept: Names of these tensors. No public converter has such an option.
    """
    from tensorflow.lite.python import convert

    quantized: bytes = convert.mlir_quantize(model, denylisted_nodes=kept)
    return quantized


def parse_litert_graph(model: bytes) -> tuple[Any, Any, Mapping[str, int]]:
    """Parse the first graph of a LiteRT model; returns it, its operator codes, and operator numbers by name.

    The public interpreter lists operations, but not the positions of their tensors among the inputs.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    return parsed.subgraphs[0], parsed.operatorCodes, schema.BuiltinOperator


def patch_tf2onnx() -> None:
    """Make tf2onnx work with NumPy 2; Keras has this patch in a private module."""
    from keras.src.export import tf2onnx_lib

    tf2onnx_lib.patch_tf2onnx()
