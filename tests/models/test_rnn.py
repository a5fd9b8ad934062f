from __future__ import annotations

from typing import Any

import pytest

from bmcli.errors import BmcliError
from bmcli.models import rnn
from tests.models.fakes import column, heads, spec


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return rnn.build(rnn.Options(**options), data, heads(data))


def test_an_image_is_read_row_by_row() -> None:
    network = _build(column("image", (4, 3, 2)), cell="simple", units=5)
    assert next(layer for layer in network.layers if layer.name.startswith("simple_rnn")).cell.kernel.shape == (6, 5)


def test_both_directions_start_with_weights_of_their_own() -> None:
    network = _build(column("series", (4, 3)), bidirectional=True, units=5)
    both = next(layer for layer in network.layers if layer.name.startswith("bidirectional"))
    assert (both.forward_layer.cell.kernel.numpy() != both.backward_layer.cell.kernel.numpy()).any()


def test_a_sequence_is_needed() -> None:
    with pytest.raises(BmcliError, match=r"one sequence or image, but none of these inputs fits: age \(3\)"):
        _build(column("age", (3,)))
