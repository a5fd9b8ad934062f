"""Integer quantisation of LiteRT models, and the selection of operations that stay in float32.

An operation stays in float32 where integers are slower or wrong:

- Convolutions over fewer than 8 channels, such as the first one over the pixels of a picture. XNNPACK, the library
  that computes LiteRT's operations on CPUs, pads channels to 8 (kernels `qs8-qc8w-igemm/*x8c8`), or to 4 on ARM with
  dot products, so one channel costs as much as eight. The weights of these convolutions are small.
- Operations after the last layer with weights, such as softmax: with 256 values of a probability, or of a predicted
  number, different outputs of the network become ties. The layer itself stays, too, if it has few of the weights.
- One-hot vectors: the converter gives their 0 and their 1 separate scales, which LiteRT does not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bmcli import private_api

_MIN_CHANNELS = 8
_SMALL_SHARE = 0.05


def quantize(converter: Any, full_integer: bool = False) -> bytes:
    """Quantise a model to integers, except for the tensors of `list_float_tensors`.

    Args:
        converter: A `tf.lite.TFLiteConverter` with a representative data set.
        full_integer: Keep only operations in float32 that would be wrong in integers.
    """
    calibrated = private_api.convert_calibrated(converter)
    return private_api.quantize_calibrated(calibrated, list_float_tensors(calibrated, full_integer))


def list_float_tensors(model: bytes, full_integer: bool = False) -> list[str]:
    """List the output tensors of the operations that stay in float32.

    Args:
        model: A LiteRT model in float32.
        full_integer: As for `quantize`.
    """
    graph, codes, operators = private_api.parse_litert_graph(model)  # other graphs are the bodies of loops
    reader = _GraphReader(operators, codes, graph)
    operations = [
        *reader.find_one_hots(),
        *([] if full_integer else [*reader.find_thin_convolutions(), *reader.find_output_operations()]),
    ]
    return sorted({graph.tensors[index].name.decode() for each in operations for index in each.outputs})


class _GraphReader:
    """Reader of the operations of a LiteRT graph."""

    def __init__(self, operators: Any, codes: Any, graph: Any) -> None:
        self._codes, self._graph = codes, graph
        self._convolution, self._one_hot = operators.CONV_2D, operators.ONE_HOT
        self._layers = (operators.CONV_2D, operators.DEPTHWISE_CONV_2D, operators.FULLY_CONNECTED)
        self._barriers = (
            *self._layers,
            operators.BATCH_MATMUL,
            operators.GATHER,
            operators.EMBEDDING_LOOKUP,
            operators.WHILE,
        )
        self._maker = {
            index: operation for operation in graph.operators for index in _list_tensor_indices(operation.outputs)
        }

    def find_thin_convolutions(self) -> Iterator[Any]:
        """Find convolutions over few channels."""
        for operation in self._graph.operators:
            if self._kind(operation) == self._convolution and self._shape(operation.inputs[1])[-1] < _MIN_CHANNELS:
                yield operation

    def find_one_hots(self) -> Iterator[Any]:
        return (operation for operation in self._graph.operators if self._kind(operation) == self._one_hot)

    def find_output_operations(self) -> Iterator[Any]:
        """Find the operations after the last layers with weights, and such layers if they are small."""
        seen: set[int] = set()
        waiting = list(self._graph.outputs)
        while waiting:
            operation = self._maker.get(waiting.pop())
            if operation is None or id(operation) in seen:
                continue
            seen.add(id(operation))
            if self._kind(operation) not in self._barriers:
                waiting += _list_tensor_indices(operation.inputs)
                yield operation
            elif self._kind(operation) in self._layers and self._is_small(operation):
                yield operation

    def _is_small(self, layer: Any) -> bool:
        """Whether a layer has a small share of all constants."""
        inputs = set(self._graph.inputs)
        constants = [
            index for index in range(len(self._graph.tensors)) if index not in self._maker and index not in inputs
        ]
        return self._size(layer.inputs[1]) <= _SMALL_SHARE * sum(map(self._size, constants))

    def _kind(self, operation: Any) -> Any:
        code = self._codes[operation.opcodeIndex]
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def _size(self, index: int) -> int:
        return math.prod(map(int, self._shape(index)))

    def _shape(self, index: int) -> Any:
        shape = self._graph.tensors[index].shape
        return () if shape is None else shape  # scalars have None


def _list_tensor_indices(tensors: Any) -> list[int]:
    """List tensor indices, which are None for an operation without tensors."""
    return [] if tensors is None else list(map(int, tensors))
