"""Spans of tags that mark the begin and the inside of names, such as `B-city I-city O`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Scheme = Literal["BIO", "BILOU", "IOBES"]

_TAG = re.compile(r"([BILUES])-(.+)")
# A token of the first kind begins a span, one of the second ends it; U and S are spans of one token.
_BEGINS, _ENDS = frozenset("BUS"), frozenset("LEUS")


@dataclass(frozen=True)
class SpanTags:
    """How tags mark spans.

    Args:
        types: The kinds of spans, sorted.
        type_of: Index of the type of each tag, -1 outside of spans, `(tags + 1,)`; the last is that of no word.
        begins, ends: Whether each tag begins and ends a span, bool `(tags + 1,)`.
    """

    scheme: Scheme
    types: tuple[str, ...]
    type_of: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    def find_spans(self, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the spans of rows of tags, each with its row, its type and a number that is the same for equal spans.

        As in conlleval, a span also begins where a tag of its inside follows another type or none.

        Args:
            tags: Indices of tags, -1 for no word, `(rows, steps)`.
        """
        steps = tags.shape[1]
        types, begins, ends = (values[np.pad(tags, ((0, 0), (1, 1)), constant_values=-1)]
                               for values in (self.type_of, self.begins, self.ends))  # fmt: skip
        follows = (types[:, 1:] == types[:, :-1]) & ~ends[:, :-1] & ~begins[:, 1:]
        is_inside = types[:, 1:] >= 0
        starts = is_inside & ~follows
        stops = (types[:, :-1] >= 0) & ~follows
        row, first = np.nonzero(starts)
        _, last = np.nonzero(stops)
        kind = types[:, 1:][starts]
        number = ((row * len(self.types) + kind) * (steps + 1) + first) * (steps + 1) + last
        return row, kind, number


def read_span_tags(tags: Sequence[str]) -> SpanTags | None:
    """Read how tags mark spans; None if they do not: without `O`, a begin, or with any other tag."""
    matches = [_TAG.fullmatch(tag) for tag in tags]
    prefixes = {match[1] for match in matches if match}
    if any(match is None and tag != "O" for match, tag in zip(matches, tags, strict=True)) or "O" not in tags:
        return None
    schemes: tuple[tuple[Scheme, set[str]], ...] = (("BIO", {*"BI"}), ("BILOU", {*"BILU"}), ("IOBES", {*"BIES"}))
    scheme = next((name for name, letters in schemes if prefixes <= letters), None)
    if scheme is None or not prefixes & _BEGINS:
        return None
    types = sorted({match[2] for match in matches if match})
    return SpanTags(
        scheme,
        tuple(types),
        np.array([types.index(match[2]) if match else -1 for match in [*matches, None]]),
        np.array([bool(match and match[1] in _BEGINS) for match in [*matches, None]]),
        np.array([bool(match and match[1] in _ENDS) for match in [*matches, None]]),
    )
