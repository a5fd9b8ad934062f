"""Ids that every tokenizer has, below those of its tokens."""

from __future__ import annotations

PADDING, UNKNOWN, FIRST_TOKEN = 0, 1, 2
"""Ids with special meanings, and the id of the first token of a vocabulary."""

END_IDS = 2
"""Number of ids above those of the tokens: of the begin and of the end of a text that is written. They are the last
ones, so that a network that only reads texts has no embeddings of them."""
