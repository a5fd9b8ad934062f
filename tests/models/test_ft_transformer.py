from __future__ import annotations

from typing import Any

import keras
import pytest
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import ft_transformer
from tests.models.fakes import build_network, column, spec

CITY = column("city", (), "int32", codes=4)


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(ft_transformer, ft_transformer.Options(width=8, heads=2, depth=1, **options), data)


def test_each_number_and_each_category_is_a_token() -> None:
    network = _build(column("age", (3,)), CITY, column("size", (1,)))
    attention = next(layer for layer in network.layers if isinstance(layer, keras.layers.MultiHeadAttention))
    assert attention.output.shape == (None, 1 + 3 + 1 + 1, 8)


def test_the_first_block_reads_tokens_as_they_are() -> None:
    kinds = [type(layer).__name__ for layer in _build(column("age", (3,)), dropout=0.0).layers]
    assert kinds[1:5] == ["NumberTokens", "ClassToken", "MultiHeadAttention", "Add"]


def test_sequences_and_images_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="works on the columns of a table, but 'text' is 6x4"):
        _build(column("age", (3,)), column("text", (6, 4)))


def test_too_many_tokens_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="would have 1002 tokens, one for each number and column, more than 1000"):
        _build(column("words", (1001,)), CITY)


def test_the_width_must_suit_the_heads() -> None:
    with pytest.raises(ValidationError, match="width 10 is not a multiple of 4 heads") as caught:
        ft_transformer.Options(width=10, heads=4)
    assert caught.value.errors()[0]["loc"] == ("heads",)
