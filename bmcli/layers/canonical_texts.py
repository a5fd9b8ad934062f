"""Canonical form of texts in a graph, as `bmcli.canonical` defines it, for serving.

TensorFlow has no operation for Unicode's normal form C, so that it is computed here as in Unicode Standard Annex 15:
decompose each character, sort the marks after each base character by their class, and compose pairs again.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bmcli.canonical import BLANKS, Spelling, list_number_rules

# Syllables of Hangul are composed by arithmetic: a lead and a vowel, then a tail.
_SYLLABLES, _LEADS, _VOWELS, _TAILS = 0xAC00, 0x1100, 0x1161, 0x11A7
_LEAD_COUNT, _VOWEL_COUNT, _TAIL_COUNT = 19, 21, 28
_SYLLABLE_COUNT = _LEAD_COUNT * _VOWEL_COUNT * _TAIL_COUNT
_LONGEST = 4  # characters of a decomposition
_LAST = 0x2FFFF  # no character behind it is a mark, or is decomposed
_PAIR = 2**21  # above the number of any character: a pair is one number, `first * _PAIR + second`
_NONE = -1
_BLANK_CLASS = "[" + "".join(f"\\x{{{ord(blank):x}}}" for blank in BLANKS) + "]"


def canonicalize(texts: Any, spelling: Spelling) -> Any:
    """Convert texts `(batch,)` to their canonical form; "" where nothing is left."""
    if spelling == "raw":
        return texts
    texts = tf.strings.regex_replace(compose(texts), f"^{_BLANK_CLASS}+|{_BLANK_CLASS}+$", "")
    for pattern, replacement in list_number_rules(spelling):
        texts = tf.strings.regex_replace(texts, pattern, replacement, replace_global=False)
    return texts


def compose(texts: Any) -> Any:
    """Convert texts `(batch,)` to Unicode's normal form C; invalid bytes may be replaced."""
    # Nearly all texts are in normal form already, which a look at their characters shows.
    may_change = tf.strings.regex_full_match(texts, _build_tables().may_change)
    return tf.cond(tf.reduce_any(may_change), lambda: _compose_all(texts), lambda: tf.identity(texts))


class _Tables(NamedTuple):
    """Properties of characters, by sorted code points.

    Args:
        may_change: Pattern of the texts that may not be in normal form.
        decomposed: Characters that are decomposed, and `decompositions` `(characters, 4)`, 0 after the last one.
        marks: Characters that are marks, and their combining `classes` above 0.
        pairs: Pairs that are composed, as one number each, and what they become.
    """

    may_change: str
    decomposed: np.ndarray
    decompositions: np.ndarray
    marks: np.ndarray
    classes: np.ndarray
    pairs: np.ndarray
    composed: np.ndarray


@cache
def _build_tables() -> _Tables:
    decompositions: dict[int, list[int]] = {}
    classes: dict[int, int] = {}
    pairs: dict[int, int] = {}
    changing = {*range(_VOWELS, _VOWELS + _VOWEL_COUNT), *range(_TAILS + 1, _TAILS + _TAIL_COUNT)}
    for code in range(_LAST + 1):
        character = chr(code)
        if combining := unicodedata.combining(character):
            classes[code] = combining
            changing.add(code)
        parts = unicodedata.decomposition(character)
        if not parts or parts.startswith("<") or _SYLLABLES <= code < _SYLLABLES + _SYLLABLE_COUNT:
            continue
        decompositions[code] = [*map(ord, unicodedata.normalize("NFD", character))]
        if unicodedata.normalize("NFC", character) != character:
            changing.add(code)
            continue
        first, second = (int(part, 16) for part in parts.split())
        pairs[first * _PAIR + second] = code
        changing.add(second)
    padded = [[*each, *[0] * (_LONGEST - len(each))] for each in decompositions.values()]
    return _Tables(
        f"(?s).*[{_format_ranges(sorted(changing))}].*",
        np.array([*decompositions], "int32"),
        np.array(padded, "int32"),
        np.array([*classes], "int32"),
        np.array([*classes.values()], "int32"),
        np.array(sorted(pairs), "int64"),
        np.array([pairs[pair] for pair in sorted(pairs)], "int32"),
    )


def _format_ranges(codes: list[int]) -> str:
    """Write code points as ranges of a character class."""
    starts = [codes[0], *(after for before, after in pairwise(codes) if after > before + 1)]
    ends = [*(before for before, after in pairwise(codes) if after > before + 1), codes[-1]]
    return "".join(f"\\x{{{start:x}}}-\\x{{{end:x}}}" for start, end in zip(starts, ends, strict=True))


class _Characters(NamedTuple):
    """Characters of all texts, in their order.

    Args:
        codes: Code points, `(characters,)`, int32.
        classes: Their combining classes, 0 for all but marks.
        texts: Number of the text of each, ascending.
    """

    codes: Any
    classes: Any
    texts: Any


def _compose_all(texts: Any) -> Any:
    characters = _sort_marks(_decompose(tf.strings.unicode_decode(texts, "UTF-8")))
    shape = tf.TensorShape([None])
    characters, _ = tf.while_loop(
        lambda _, changes: changes,
        lambda characters, _: _compose_once(characters),
        (characters, tf.constant(True)),
        shape_invariants=(_Characters(shape, shape, shape), tf.TensorShape([])),
    )
    ragged = tf.RaggedTensor.from_value_rowids(characters.codes, characters.texts, tf.size(texts, tf.int64))
    return tf.strings.unicode_encode(ragged, "UTF-8")


def _decompose(codes: tf.RaggedTensor) -> _Characters:
    tables = _build_tables()
    place, found = _find(codes.values, tables.decomposed)
    unchanged = tf.pad(codes.values[:, tf.newaxis], [[0, 0], [0, _LONGEST - 1]])
    parts = tf.where(found[:, tf.newaxis], tf.gather(tables.decompositions, place), unchanged)
    # The first part is kept even if it is the character 0.
    kept = (parts != 0) | (tf.range(_LONGEST) == 0)
    flat = tf.boolean_mask(parts, kept)
    rows = tf.boolean_mask(tf.tile(codes.value_rowids()[:, tf.newaxis], [1, _LONGEST]), kept)
    place, is_mark = _find(flat, tables.marks)
    return _Characters(flat, tf.where(is_mark, tf.gather(tables.classes, place), 0), rows)


def _find(values: Any, keys: np.ndarray) -> tuple[Any, Any]:
    """Return the place of each value in sorted keys, and whether it is there."""
    place = tf.minimum(tf.searchsorted(keys, values), len(keys) - 1)
    return place, tf.gather(keys, place) == values


def _find_starts(characters: _Characters) -> Any:
    """Whether a character is the first of a text, or no mark: marks belong to the character before them."""
    first = tf.concat([[True], characters.texts[1:] != characters.texts[:-1]], axis=0)[: tf.size(characters.texts)]
    return first | (characters.classes == 0)


def _sort_marks(characters: _Characters) -> _Characters:
    """Sort the marks of each character by their class; those of one class keep their order."""
    run = tf.cumsum(tf.cast(_find_starts(characters), "int64"))
    order = tf.argsort(run * 256 + tf.cast(characters.classes, "int64"), stable=True)
    return _Characters(*(tf.gather(each, order) for each in characters))


def _compose_once(characters: _Characters) -> tuple[_Characters, Any]:
    """Compose each character with the first mark that it can be composed with, or with the character before it.

    Returns:
        The characters, and whether any were composed.
    """
    codes, classes, texts = characters
    places = tf.range(tf.size(codes))
    is_start = _find_starts(characters)
    run = tf.cumsum(tf.cast(is_start, "int32")) - 1
    start_places = tf.boolean_mask(places, is_start)
    # A base character is composed with one that is adjacent and without marks between them.
    before = tf.maximum(places - 1, 0)
    follows = is_start & (places > 0) & (classes == 0) & (tf.gather(texts, before) == texts)
    base = tf.where(is_start, before, tf.gather(start_places, run))
    # The marks are sorted, so only one of the same class can stand between a mark and its character.
    blocked = (before != base) & (tf.gather(classes, before) == classes)
    candidate = tf.where(is_start, follows & tf.gather(is_start, before), ~blocked) & (tf.gather(classes, base) == 0)
    composed = tf.where(candidate, _look_up_pairs(tf.gather(codes, base), codes), _NONE)
    found = composed != _NONE
    # One composition for each base at a time, the first one, and none with a base that is composed itself.
    first = tf.math.unsorted_segment_min(tf.where(found, places, tf.int32.max), base, tf.size(codes))
    found &= places == tf.gather(first, base)
    found &= ~tf.gather(found & is_start, base)
    codes = tf.tensor_scatter_nd_update(
        codes, tf.boolean_mask(base, found)[:, tf.newaxis], tf.boolean_mask(composed, found)
    )
    rest = _Characters(*(tf.boolean_mask(each, ~found) for each in (codes, classes, texts)))
    return rest, tf.reduce_any(found)


def _look_up_pairs(first: Any, second: Any) -> Any:
    """Return the characters that pairs become, _NONE for a pair that is not composed."""
    tables = _build_tables()
    place, found = _find(tf.cast(first, "int64") * _PAIR + tf.cast(second, "int64"), tables.pairs)
    composed = tf.where(found, tf.gather(tables.composed, place), _NONE)
    lead, vowel = first - _LEADS, second - _VOWELS
    with_vowel = (lead >= 0) & (lead < _LEAD_COUNT) & (vowel >= 0) & (vowel < _VOWEL_COUNT)
    composed = tf.where(with_vowel, _SYLLABLES + (lead * _VOWEL_COUNT + vowel) * _TAIL_COUNT, composed)
    syllable, tail = first - _SYLLABLES, second - _TAILS
    has_no_tail = (syllable >= 0) & (syllable < _SYLLABLE_COUNT) & (syllable % _TAIL_COUNT == 0)
    return tf.where(has_no_tail & (tail > 0) & (tail < _TAIL_COUNT), first + tail, composed)
