"""Quantisation by Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bmcli.compression.methods import measure_model_size, quantize
from bmcli.errors import BmcliError

from .conftest import examples, given, logits


@pytest.mark.parametrize(("to", "dtype"), [("int8", "int8"), ("int4", "int8"), ("float8", "float32")])
def test_dense_layers_are_quantised_and_convolutions_are_not(trained: keras.Model, to: str, dtype: str) -> None:
    found = quantize.apply(quantize.Options(to=to), trained, given(examples()))
    modes = {type(layer).__name__: layer.quantization_mode for layer in found.layers if layer.weights}
    assert (modes["Dense"], modes["Conv2D"]) == (to, None)
    assert found.get_layer("head")._kernel.dtype == dtype
    scale = float(np.abs(logits(trained)).max())
    assert float(np.abs(logits(found) - logits(trained)).mean()) < (0.02 if to == "int8" else 0.2) * scale


def test_fewer_bits_need_fewer_bytes(trained: keras.Model) -> None:
    sizes = {
        to: measure_model_size(quantize.apply(quantize.Options(to=to), trained, {})).bytes
        for to in ("int8", "int4", "float8")
    }
    plain = measure_model_size(trained).bytes
    dense = 4 * sum(layer.kernel.numpy().size for layer in trained.layers if isinstance(layer, keras.layers.Dense))
    assert sizes["int8"] == pytest.approx(plain - dense * 3 / 4, rel=0.05)
    # 4 bits have a scale for each group of a channel's weights, which takes most bytes in a small network.
    assert plain - dense * 7 / 8 < sizes["int4"] < 0.95 * sizes["int8"]
    assert sizes["float8"] >= plain, "made for training, it keeps float32"


def test_a_network_of_convolutions_alone_cannot_be_quantised() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3)])
    with pytest.raises(BmcliError, match="can quantise no layer"):
        quantize.apply(quantize.Options(), keras.Model(model.inputs, model.outputs), {})
