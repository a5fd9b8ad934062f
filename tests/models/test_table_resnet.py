from __future__ import annotations

from typing import Any

import pytest

from bmcli.errors import BmcliError
from bmcli.models import PeriodicOptions, table_resnet
from tests.models.fakes import build_network, column, spec


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(table_resnet, table_resnet.Options(**options), data)


def test_layers_come_in_the_documented_order() -> None:
    network = _build(column("age", (3,)), width=4, depth=1, dropout=0.1, residual_dropout=0.2)
    assert [type(layer).__name__ for layer in network.layers][1:] == [
        "Dense", "BatchNormalization", "Dense", "Activation", "Dropout", "Dense", "Dropout", "Add",
        "BatchNormalization", "Activation", "Dense",
    ]  # fmt: skip


def test_weights_are_those_of_its_layers() -> None:
    network = _build(column("age", (3,)), width=4, depth=2, ratio=2.0, normalization=None)
    assert network.count_params() == (3 * 4 + 4) + 2 * ((4 * 8 + 8) + (8 * 4 + 4)) + (4 * 3 + 3)


def test_periodic_is_for_numbers() -> None:
    with pytest.raises(BmcliError, match="`periodic` embeds numbers, but no input is a number") as caught:
        _build(column("city", (), "int32", codes=4), column("text", (6, 4)), periodic=PeriodicOptions())
    assert caught.value.faults[0].path == "model.periodic"
