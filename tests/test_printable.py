"""Foreign text that is shown cannot rewrite a terminal."""

from __future__ import annotations

import pytest

from bmcli.printable import clean


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "a\x00b", "\u202egnp.exe", "\x9b31m"])
def test_control_characters_never_reach_a_terminal(text: str) -> None:
    assert all(character.isprintable() for character in clean(text))
