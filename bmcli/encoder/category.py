"""Encoder of categories."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._cells import ASCII_SPACE, read_cell

# Blanks around categories, and the forms of numbers, as `bmcli.canonical` defines them.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200C))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
ZEROS = {"codes": "", "numbers": "0*"}
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
MASK_64 = 2**64 - 1


def encode(column: Mapping[str, Any], cells: Any) -> Any:
    """Encode cells of one column of categories."""
    state = column["state"]
    buckets = state.get("buckets", 0)
    count = buckets or len(column["classes"])
    indices = {name: get_index for get_index, name in enumerate(column["classes"])}

    def get_index(word: str) -> int:
        return fingerprint(word.encode()) % buckets if buckets else indices.get(word, count + 1)

    words, spelling = [read_cell(cell) for cell in np.asarray(cells, object).reshape(-1)], state.get("spelling", "raw")
    if "separator" not in state:
        words = [canonicalize(word, spelling) for word in words]
        return [count if word == "" else get_index(word) for word in words]
    length, encoded = column["shape"][0], []
    for word in words:
        parts = [canonicalize(part.strip(ASCII_SPACE), spelling) for part in word.split(state["separator"])]
        found_indices = list(dict.fromkeys(get_index(part) for part in parts if part))[:length] or [count]
        encoded.append(found_indices + [count + 2] * (length - len(found_indices)))
    return encoded


def canonicalize(text: str, spelling: str) -> str:
    """Convert the text of a category to its canonical form; "" if nothing is left."""
    if spelling == "raw":
        return text
    text = unicodedata.normalize("NFC", text).strip(BLANKS)
    if spelling == "text":
        return text
    zeros = ZEROS[spelling]
    if match := re.fullmatch(rf"(?:\+|(-))?{zeros}([0-9]+)(?:\.0*)?", text):
        number = (match[1] or "") + match[2]
        return "0" if number == "-0" else number
    if match := re.fullmatch(rf"(?:\+|(-))?{zeros}([0-9]+)\.([0-9]*[1-9])0*", text):
        return f"{match[1] or ''}{match[2]}.{match[3]}"
    if match := re.fullmatch(r"(?:\+|(-))?\.([0-9]*[1-9])0*", text):
        return f"{match[1] or ''}0.{match[2]}"
    return "0" if re.fullmatch(r"[+-]?\.0+", text) else text


def fingerprint(text: bytes) -> int:
    """Compute FarmHash's Fingerprint64 (farmhashna::Hash64), which assigns categories to hash buckets."""
    size = len(text)
    if size > 64:
        return _hash_long(text)
    multiplier = K2 + 2 * size & MASK_64
    if size > 16:
        a, b = _fetch_64(text, 0), _fetch_64(text, 8)
        c, d = _fetch_64(text, size - 8) * multiplier, _fetch_64(text, size - 16) * K2
        a *= K1 if size <= 32 else K2
        first = _rotate_right(a + b, 43) + _rotate_right(c, 30) + d
        result = _mix(first, a + _rotate_right(b + K2, 18) + c, multiplier)
        if size <= 32:
            return result
        e, f = _fetch_64(text, 16) * multiplier, _fetch_64(text, 24)
        g, h = (first + _fetch_64(text, size - 32)) * multiplier, (result + _fetch_64(text, size - 24)) * multiplier
        return _mix(_rotate_right(e + f, 43) + _rotate_right(g, 30) + h, e + _rotate_right(f + a, 18) + g, multiplier)
    if size >= 8:
        a, b = _fetch_64(text, 0) + K2, _fetch_64(text, size - 8)
        return _mix(_rotate_right(b, 37) * multiplier + a, (_rotate_right(a, 25) + b) * multiplier, multiplier)
    if size >= 4:
        return _mix(size + (_fetch_64(text, 0, 4) << 3), _fetch_64(text, size - 4, 4), multiplier)
    if size:
        y, z = text[0] + (text[size >> 1] << 8), size + (text[-1] << 2)
        return _shift_mix(y * K2 ^ z * K0) * K2 & MASK_64
    return K2


def _hash_long(text: bytes) -> int:
    """Hash more than 64 bytes in blocks of 64; the last block overlaps the one before."""
    x, y = 81 * K2 + _fetch_64(text, 0) & MASK_64, 81 * K1 + 113 & MASK_64
    z = _shift_mix(y * K2 + 113) * K2 & MASK_64
    v, w = (0, 0), (0, 0)

    def step(at: int, multiplier: int, factor: int) -> tuple[Any, ...]:
        p = _rotate_right(x + y + v[0] + _fetch_64(text, at + 8), 37) * multiplier & MASK_64
        q = _rotate_right(y + v[1] + _fetch_64(text, at + 48), 42) * multiplier & MASK_64
        p ^= w[1] * factor & MASK_64
        q = q + v[0] * factor + _fetch_64(text, at + 40) & MASK_64
        r = _rotate_right(z + w[0], 33) * multiplier & MASK_64
        first = _hash_32_bytes(text, at, v[1] * multiplier, p + w[0])
        second = _hash_32_bytes(text, at + 32, r + w[1], q + _fetch_64(text, at + 16))
        return r, q, p, first, second

    for at in range(0, (len(text) - 1) // 64 * 64, 64):
        x, y, z, v, w = step(at, K1, 1)
    multiplier = K1 + ((z & 255) << 1) & MASK_64
    w = (w[0] + (len(text) - 1 & 63) & MASK_64, w[1])
    v = (v[0] + w[0] & MASK_64, v[1])
    w = (w[0] + v[0] & MASK_64, w[1])
    x, y, z, v, w = step(len(text) - 64, multiplier, 9)
    left = _mix(v[0], w[0], multiplier) + _shift_mix(y) * K0 + z
    return _mix(left, _mix(v[1], w[1], multiplier) + x, multiplier)


def _hash_32_bytes(text: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    words = [_fetch_64(text, at + offset) for offset in (0, 8, 16, 24)]
    a = a + words[0] & MASK_64
    b = _rotate_right(b + a + words[3], 21)
    total = a + words[1] + words[2] & MASK_64
    return total + words[3] & MASK_64, b + _rotate_right(total, 44) + a & MASK_64


def _mix(u: int, v: int, multiplier: int) -> int:
    u, v = u & MASK_64, v & MASK_64
    a = _shift_mix((u ^ v) * multiplier)
    return _shift_mix((v ^ a) * multiplier) * multiplier & MASK_64


def _shift_mix(value: int) -> int:
    value &= MASK_64
    return value ^ value >> 47


def _rotate_right(value: int, by: int) -> int:
    """Rotate the bits of a 64-bit integer to the right."""
    value &= MASK_64
    return value >> by | value << 64 - by & MASK_64


def _fetch_64(text: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(text[at : at + size], "little")
