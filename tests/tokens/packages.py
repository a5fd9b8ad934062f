"""Packages that only some kinds of tokens need."""

from __future__ import annotations

import pytest

from bmcli.tokenization.pieces import MODULES


def require_packages(kind: str) -> None:
    """Skip a test of a kind whose packages are not installed."""
    if kind in ("bpe", "unigram"):
        for module in MODULES:
            pytest.importorskip(module, reason="needs pip install 'bmcli[text]'", exc_type=ImportError)
