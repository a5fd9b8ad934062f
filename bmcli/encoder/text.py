"""Encoder of texts."""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._cells import read_cell


def encode(column: Mapping[str, Any], cells: Any) -> Any:
    """Encode cells of one column of texts."""
    state = column["state"]
    encode_tokens, size = _TOKENIZERS[state["tokenizer"]["kind"]](state["tokenizer"])
    length, encoded = state["length"], list[Any]()
    for cell in np.asarray(cells, object).reshape(-1):
        numbers = encode_tokens(_normalize_text(read_cell(cell), state["tokenizer"]))
        if not state["bag"]:
            ends = [size + 1] if "end" in state["ends"] else []
            numbers = ([size, *numbers, *ends] if state["ends"] else numbers or [1])[:length]
            encoded.append(numbers + [0] * (length - len(numbers)))
            continue
        counts: dict[int, int] = {}
        for number in numbers:
            if number != 1:
                counts[number] = counts.get(number, 0) + 1
        known = list(counts)[:length]
        padding = [0] * (length - len(known))
        encoded.append([known + padding, [counts[number] for number in known] + padding])
    return encoded


def _normalize_text(text: str, state: Mapping[str, Any]) -> str:
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    text = unicodedata.normalize("NFC", text) if state["composed"] else text
    text = text.lower() if state["lowercase"] else text
    return _strip_accents(text) if state["accents"] == "strip" else text


def _make_term_tokenizer(state: Mapping[str, Any]) -> tuple[Callable[[str], list[int]], int]:
    """Make the tokenizer of words or characters, and count its ids; 0 is padding, 1 an unknown term."""
    term_ids = {term: index + 2 for index, term in enumerate(state["vocabulary"])}
    return lambda text: [term_ids.get(term, 1) for term in _split_terms(text, state)], 2 + len(term_ids)


def _split_terms(text: str, state: Mapping[str, Any]) -> list[str]:
    is_words = state["kind"] == "words"
    if state["punctuation"] == "drop":
        text = "".join(character if _is_word(character) else " " for character in text)
    elif state["punctuation"] == "split":
        text = "".join(
            character if _is_word(character) or _is_space(character) else f" {character} " for character in text
        )
    if state["spaces"] == "collapse":
        text = "".join(" " if _is_space(character) else character for character in text)
        text = " ".join(word for word in text.split(" ") if word)
    text = f" {text} " if state["edges"] and text else text
    tokens = [word for word in text.split(" ") if word] if is_words else list(text)
    low, high = state["ngrams"]
    separator = " " if is_words else ""
    spans = [tokens[at : at + width] for width in range(low, high + 1) for at in range(len(tokens) - width + 1)]
    return [separator.join(span) for span in spans]


def _make_byte_tokenizer(state: Mapping[str, Any]) -> tuple[Callable[[str], list[int]], int]:
    return lambda text: [byte + 2 for byte in text.encode()], 258


def _make_piece_tokenizer(state: Mapping[str, Any]) -> tuple[Callable[[str], list[int]], int]:
    """Make the tokenizer of pieces of words: 2 is byte 0, 258 the first piece. A space is U+2581 in pieces."""
    piece_ids = {piece: index + 258 for index, piece in enumerate(state["pieces"])}
    find_pieces = _find_bpe_pieces if state["kind"] == "bpe" else _find_unigram_pieces
    scores, known = dict(zip(state["pieces"], state["scores"], strict=True)), dict[str, list[int]]()

    def encode_word(word: str) -> list[int]:
        if word not in known:
            pieces = find_pieces(word, scores)
            known[word] = [
                number
                for piece in pieces
                for number in ([piece_ids[piece]] if piece in piece_ids else [byte + 2 for byte in piece.encode()])
            ]
        return known[word]

    def encode_text(text: str) -> list[int]:
        words = re.split("(?=\u2581)", text.replace(" ", "\u2581"))
        return [number for word in words for number in encode_word(word)]

    return encode_text, 258 + len(piece_ids)


def _find_bpe_pieces(word: str, scores: Mapping[str, float]) -> list[str]:
    """Join the neighbours whose joint piece has the best score, the first of equal ones, until none has one."""
    pieces, count = list(word), len(word)
    before, after = list(range(-1, count - 1)), list(range(1, count + 1))
    pairs: list[tuple[float, int, int, str, str]] = []

    def add_pair(left: int, right: int) -> None:
        if left >= 0 and right < count and (score := scores.get(pieces[left] + pieces[right])) is not None:
            heapq.heappush(pairs, (-score, left, right, pieces[left], pieces[right]))

    for position in range(count - 1):
        add_pair(position, position + 1)
    while pairs:
        _, left, right, first, second = heapq.heappop(pairs)
        if pieces[left] != first or pieces[right] != second or after[left] != right:
            continue  # one of them has been joined with another
        pieces[left], pieces[right] = first + second, ""
        after[left] = after[right]
        if after[right] < count:
            before[after[right]] = left
        add_pair(before[left], left)
        add_pair(left, after[left])
    return [piece for piece in pieces if piece]


def _find_unigram_pieces(word: str, scores: Mapping[str, float]) -> list[str]:
    """Find the pieces with the largest sum of scores, as the operation of TensorFlow does (Viterbi 1967).

    The sums are float32, and a candidate float64: of nearly equal splits, rounding decides.
    """
    count, longest = len(word), max(map(len, scores), default=1)
    unknown = float(np.float32(min(scores.values(), default=0.0)) - np.float32(10))
    sums, starts = [0.0] * (count + 1), [-1] * (count + 1)
    for start in range(count):
        ends = range(start + 1, min(count, start + longest) + 1)
        found = [(end, score) for end in ends if (score := scores.get(word[start:end])) is not None]
        # A character that is no piece is a candidate by itself.
        for end, score in found if found and found[0][0] == start + 1 else [*found, (start + 1, unknown)]:
            candidate = score + sums[start]
            if starts[end] < 0 or candidate > sums[end]:
                sums[end], starts[end] = float(np.float32(candidate)), start
    pieces, end = [], count
    while end > 0:
        pieces.append(word[starts[end] : end])
        end = starts[end]
    return pieces[::-1]


def _is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _is_space(character: str) -> bool:
    return unicodedata.category(character)[0] == "Z" or unicodedata.category(character) == "Cc"


def _strip_accents(text: str) -> str:
    plain = (_strip_accent(character) for character in text)
    return "".join(character for character in plain if not 0x300 <= ord(character) < 0x370)


def _strip_accent(character: str) -> str:
    code_point = ord(character)
    if 0xC0 <= code_point < 0x250 or 0x370 <= code_point < 0x530 or 0x1E00 <= code_point < 0x2000:
        base, *marks = list(unicodedata.normalize("NFD", character))
        if all(unicodedata.combining(mark) for mark in marks):
            return base
    return character


_TOKENIZERS: dict[str, Callable[[Mapping[str, Any]], tuple[Callable[[str], list[int]], int]]] = {
    "words": _make_term_tokenizer,
    "characters": _make_term_tokenizer,
    "bytes": _make_byte_tokenizer,
    "bpe": _make_piece_tokenizer,
    "unigram": _make_piece_tokenizer,
}
