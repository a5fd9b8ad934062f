from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.models import wide_deep
from tests.models.fakes import build_network, column, spec

AGE, CITY = column("age", (2,)), column("city", (), "int32", codes=4)


def _build(**options: Any) -> Any:
    data = spec(AGE, CITY)
    return build_network(wide_deep, wide_deep.Options(hidden=(5,), **options), data)


def test_each_side_reads_its_own_columns() -> None:
    shapes = {w.shape for w in _build(wide=("city",), deep=("age",)).weights if len(w.shape) == 2}
    assert shapes == {(4, 3), (2, 5), (5, 3)}


def test_by_default_both_read_all() -> None:
    shapes = [tuple(w.shape) for w in _build().weights if len(w.shape) == 2]
    assert sorted(shapes) == [(5, 3), (6, 3), (6, 5)]


def test_the_two_are_added() -> None:
    network = _build(wide=("city",), deep=("age",))
    ages, cities = np.random.default_rng(0).normal(size=(4, 2)).astype("float32"), np.arange(4)

    def outputs(age: Any, city: Any) -> Any:
        return network({"age": tf.constant(age), "city": tf.constant(city)})["label"].numpy()

    both = outputs(ages, cities) - outputs(ages * 0, cities) - outputs(ages, cities * 0) + outputs(ages * 0, cities * 0)
    np.testing.assert_allclose(both, 0, atol=1e-6)


def test_columns_must_be_inputs() -> None:
    with pytest.raises(BmcliError, match="no input 'citty'") as caught:
        _build(wide=("citty",))
    assert caught.value.faults[0].path == "model.wide.0"
    assert caught.value.faults[0].suggestion == "Did you mean 'city'?"


def test_every_input_must_be_read() -> None:
    with pytest.raises(BmcliError, match="neither `wide` nor `deep` reads the input 'age'"):
        _build(wide=("city",), deep=("city",))
