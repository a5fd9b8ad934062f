from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli.models import linear
from bmcli.recipe.fields import KerasObject
from tests.models.fakes import build_network, column, spec


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(linear, linear.Options(**options), data)


def test_outputs_are_weighted_sums() -> None:
    network = _build(column("age", (4,)), column("city", (), "int32", codes=2))
    kernel, bias = network.get_weights()
    assert kernel.shape == (6, 3)
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    given = {"age": tf.constant(rows), "city": tf.constant([1, 0, 1, 0, 0])}
    expected = rows @ kernel[:4] + kernel[[5, 4, 5, 4, 4]] + bias
    np.testing.assert_allclose(network(given)["label"], expected, atol=1e-5)


def test_the_regularizer_is_that_of_all_weights() -> None:
    network = _build(column("age", (4,)), kernel_regularizer=KerasObject("l1", {"l1": 0.5}))
    assert float(sum(network.losses)) == pytest.approx(0.5 * np.abs(network.get_weights()[0]).sum(), rel=1e-5)
