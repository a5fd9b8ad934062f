"""A kind of tokens that a user adds is chosen by a recipe like a built-in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from bmcli import parts, plugins
from bmcli.inputs import text

PLUGIN = '''
"""Bytes by another name."""
import sys
from dataclasses import dataclass
from typing import Literal

from bmcli.recipe.tokens import TokenOptions
from bmcli.tokenization.base import read_normalization
from bmcli.tokens.bytes import ByteTokenizer

LOWERCASE = True
State = None


class Options(TokenOptions):
    """Bytes by another name."""

    kind: Literal["octets"] = "octets"


@dataclass(frozen=True)
class OctetTokenizer(ByteTokenizer):
    kind = "octets"
    has_numpy_encoder = False


def fit(options, normalization, texts, use):
    return OctetTokenizer(normalization)


def from_state(state):
    return OctetTokenizer(read_normalization(state))


PARTS = {"tokens.octets": sys.modules[__name__]}
'''


@pytest.fixture
def _octets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    file = tmp_path / "octets.py"
    file.write_text(PLUGIN)
    monkeypatch.setenv(plugins.FILES_VARIABLE, "[]")
    plugins.add_files((file,))
    yield
    monkeypatch.undo()
    plugins._list_parts.cache_clear()


@pytest.mark.usefixtures("_octets")
def test_a_kind_of_tokens_of_a_file_is_one_of_the_kinds() -> None:
    assert "octets" in parts.names("tokens")
    rows = pa.chunked_array([["AB", "b"]])
    column = text.fit("x", rows, text.Options(tokens="octets", encoding="sequence"))
    assert column.state["tokenizer"]["kind"] == "octets"
    assert text.encode(rows, column).tolist() == [[2 + 0x61, 2 + 0x62], [2 + 0x62, 0]]
    traits = text.get_traits(column)
    assert traits.encoder_file is None
    assert traits.reading_options == {"tokens": "octets"}
    traits.check_state()


def test_the_tokens_of_an_artefact_are_those_of_a_known_kind() -> None:
    column = text.fit("x", pa.chunked_array([["a"]]), text.Options(tokens="bytes"))
    for state in ({"kind": "octets"}, {"kind": "bytes"}, {}, {**column.state["tokenizer"], "extra": 1}):
        with pytest.raises(ValueError, match=r"tokens has no kind|composed|extra"):
            text.get_traits(replace(column, state={**column.state, "tokenizer": state})).check_state()
