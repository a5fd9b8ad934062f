"""LiteRT in integers: which operations compute with them, and which stay in float32.

An operation stays in float32 where integers cost more than they save, or are wrong:

- Convolutions over fewer than 8 channels, as the first one over the pixels of a picture. XNNPACK, the library that
  computes LiteRT's operations on CPUs, fills channels up to 8 (kernels `qs8-qc8w-igemm/*x8c8`), or to 4 on ARM with dot
  products, so that one channel costs as much as eight. These kernels are small.
- What follows the last layer with weights, as softmax: 256 values of a probability, or of a number that is predicted,
  make ties of what the network tells apart. The layer itself stays, too, if it has few of the weights.
- One-hot vectors: the converter gives their 0 and their 1 scales of their own, which LiteRT does not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bmcli import private_api

_MIN_CHANNELS = 8
_SMALL_SHARE = 0.05


def quantize(converter: Any, full_integer: bool = False) -> bytes:
    """A model in integers, but for `list_float_tensors`.

    Args:
        converter: A `tf.lite.TFLiteConverter` that has representative rows.
        full_integer: Keep nothing in float32 but what would be wrong in integers.
    """
    calibrated = private_api.convert_calibrated(converter)
    return private_api.quantize_calibrated(calibrated, list_float_tensors(calibrated, full_integer))


def list_float_tensors(model: bytes, full_integer: bool = False) -> list[str]:
    """Names of the tensors that operations give which stay in float32.

    Args:
        model: A LiteRT model in float32.
        full_integer: As above.
    """
    graph, codes, kinds = private_api.parse_litert_graph(model)  # other graphs are the bodies of loops
    reader = _GraphReader(kinds, codes, graph)
    operations = [
        *reader.find_one_hots(),
        *([] if full_integer else [*reader.find_thin_convolutions(), *reader.find_output_operations()]),
    ]
    return sorted({graph.tensors[place].name.decode() for each in operations for place in each.outputs})


class _GraphReader:
    """The operations of a LiteRT graph."""

    def __init__(self, kinds: Any, codes: Any, graph: Any) -> None:
        self._codes, self._graph = codes, graph
        self._convolution, self._one_hot = kinds.CONV_2D, kinds.ONE_HOT
        self._layers = (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED)
        self._barriers = (*self._layers, kinds.BATCH_MATMUL, kinds.GATHER, kinds.EMBEDDING_LOOKUP, kinds.WHILE)
        self._maker = {
            place: operation for operation in graph.operators for place in _list_tensor_indices(operation.outputs)
        }

    def find_thin_convolutions(self) -> Iterator[Any]:
        """Convolutions over few channels."""
        for operation in self._graph.operators:
            if self._kind(operation) == self._convolution and self._shape(operation.inputs[1])[-1] < _MIN_CHANNELS:
                yield operation

    def find_one_hots(self) -> Iterator[Any]:
        return (operation for operation in self._graph.operators if self._kind(operation) == self._one_hot)

    def find_output_operations(self) -> Iterator[Any]:
        """What leads from the last layers with weights to the outputs, and such layers if they are small."""
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
        """Whether a layer has few of all constants."""
        given = set(self._graph.inputs)
        constants = [
            place for place in range(len(self._graph.tensors)) if place not in self._maker and place not in given
        ]
        return self._size(layer.inputs[1]) <= _SMALL_SHARE * sum(map(self._size, constants))

    def _kind(self, operation: Any) -> Any:
        code = self._codes[operation.opcodeIndex]
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def _size(self, place: int) -> int:
        return math.prod(map(int, self._shape(place)))

    def _shape(self, place: int) -> Any:
        shape = self._graph.tensors[place].shape
        return () if shape is None else shape  # of a scalar


def _list_tensor_indices(tensors: Any) -> list[int]:
    """Numbers of tensors, of which an operation may have none."""
    return [] if tensors is None else list(map(int, tensors))
