"""Encoder of raw cells for the network of an artefact; it only needs NumPy.

    columns = {column["name"]: column for column in json.load(open("preprocessing.json"))["inputs"]}
    encoded = encode(columns["age"], [34, None, 51])

Cells are strings for texts, and for categories, dates and booleans that are text, with "" for a missing value; numbers
otherwise, with NaN or None for a missing value; and pictures as arrays `(height, width)` or `(height, width,
channels)`, of any size. Decode the picture files of a model that takes files first, in upright orientation and with
transparency: to uint8, or to uint16 if `column["state"]["bits"]` is 16.

This file is copied to every artefact with preprocessing outside the model. It is self-contained; the encoders of kinds
that are not built in are files beside it, such as `encoder_trace.py`.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
PERIODS = {"minute": 60, "hour": 1440, "weekday": 7, "day": 31, "month": 12, "day_of_year": 366}
EPOCHS = {"seconds": 1, "milliseconds": 1000}
DAY_S = 86400
MAX_SECONDS = 2**38
FIRST_YEAR, LAST_YEAR = 2, 9998  # others mean that there is no date
GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], "float32")
ASCII_SPACE = " \t\n\v\f\r"
# Blanks around categories, and the forms of numbers, as `bmcli.canonical` defines them.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200C))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
MISSING_INTEGER = -(2**63)  # a missing cell of a category that is an integer
ZEROS = {"codes": "", "numbers": "0*"}
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
MASK_64 = 2**64 - 1


def encode(column: Mapping[str, Any], cells: Any) -> np.ndarray:
    """Encode cells of one column as an array `(rows, *column["shape"])` of `column["dtype"]`."""
    kind = column["kind"]
    if kind not in _ENCODERS:
        add_encoder(kind, Path(__file__).with_name(f"encoder_{kind}.py"))
    encoded = _ENCODERS[kind](column, cells)
    return np.asarray(encoded, column["dtype"]).reshape(-1, *column["shape"])


def add_encoder(kind: str, file: Path) -> None:
    """Add the encoder of a kind that has its own file, whose function `encode` takes a column and its cells."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a .py file always has a spec
    spec.loader.exec_module(module)  # type: ignore[union-attr]  # and a loader
    _ENCODERS[kind] = module.encode


def _encode_number(column: Mapping[str, Any], cells: Any) -> Any:
    state, dtype = column["state"], column["raw_dtype"]
    values = np.array(cells, dtype)
    values = values[:, None] if values.ndim == 1 else values
    fill, offset, scale = (np.array(state[key], dtype) for key in ("fill", "offset", "scale"))
    missing = np.isnan(values)
    if state.get("log"):
        wide = values.astype("float64")
        values = (np.sign(wide) * np.log1p(np.abs(wide))).astype(dtype)
    encoded = ((_apply_curves(np.where(missing, fill, values), state) - offset) / scale).astype("float32")
    if state.get("learned"):
        encoded = np.where(missing, np.float32("nan"), encoded)
    if state["flag"]:
        encoded = np.concatenate([encoded, missing.astype("float32")], axis=-1)
    if state["padded"]:
        encoded = np.where(missing.all(axis=-1, keepdims=True), np.float32("nan"), encoded)
    return encoded


def _apply_curves(values: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Transform values by the piecewise linear curve, or to the bin, of their channel."""
    if "knots" not in state and "edges" not in state:
        return values
    transformed = np.empty_like(values)
    for channel in range(values.shape[-1]):
        x = values[..., channel]
        if "edges" in state:
            transformed[..., channel] = np.searchsorted(np.array(state["edges"][channel], x.dtype), x, side="right")
            continue
        knots, heights = (np.array(state[key][channel], x.dtype) for key in ("knots", "heights"))
        x = np.clip(x, knots[0], knots[-1])
        left = np.searchsorted(knots, x, side="right") - 1
        knots, heights = np.append(knots, x.dtype.type("inf")), np.append(heights, heights[-1])
        weight = (x - knots[left]) / (knots[left + 1] - knots[left])
        transformed[..., channel] = heights[left] + weight * (heights[left + 1] - heights[left])
    return transformed


def _encode_category(column: Mapping[str, Any], cells: Any) -> Any:
    state = column["state"]
    buckets = state.get("buckets", 0)
    count = buckets or len(column["classes"])
    indices = {name: get_index for get_index, name in enumerate(column["classes"])}

    def get_index(word: str) -> int:
        return fingerprint(word.encode()) % buckets if buckets else indices.get(word, count + 1)

    words, spelling = [_read_cell(cell) for cell in np.asarray(cells, object).reshape(-1)], state.get("spelling", "raw")
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


def _encode_boolean(column: Mapping[str, Any], cells: Any) -> Any:
    state = column["state"]
    if column["raw_dtype"] == "string":
        words = [_read_cell(cell).strip(ASCII_SPACE).lower() for cell in np.asarray(cells, object).reshape(-1)]
        values = np.array([1.0 if w in state["yes"] else 0.0 if w in state["no"] else np.nan for w in words], "float32")
    else:
        values = np.array(cells, "float32")
    values = values.reshape(len(values), -1)
    missing = ~((values == 0) | (values == 1))
    encoded = np.where(missing, np.float32(state["fill"]), values)
    return np.concatenate([encoded, missing.astype("float32")], axis=1) if state["flag"] else encoded


def _encode_date(column: Mapping[str, Any], cells: Any) -> Any:
    state = column["state"]
    timestamps = [_parse_seconds(cell, column) for cell in np.asarray(cells, object).reshape(-1)]
    is_known = np.array([timestamp is not None for timestamp in timestamps])
    seconds = np.array([timestamp or 0 for timestamp in timestamps], "int64")
    channels = [_encode_date_part(part, seconds, state) for part in state["parts"]]
    encoded = np.where(is_known[:, None], np.concatenate(channels, axis=1), np.float32(0))
    return np.concatenate([encoded, (~is_known).astype("float32")[:, None]], axis=1) if state["flag"] else encoded


def _parse_seconds(cell: Any, column: Mapping[str, Any]) -> int | None:
    """Parse a cell as whole seconds since 1970; None if it is missing or unreadable."""
    state = column["state"]
    if column["raw_dtype"] != "string" and state["formats"][0] in EPOCHS:
        value = float("nan") if cell is None else float(cell)
        value /= EPOCHS[state["formats"][0]]
        return int(np.floor(value)) if np.isfinite(value) and abs(value) < MAX_SECONDS else None
    if isinstance(cell, (float, np.floating)) and not np.isfinite(cell):
        return None
    text = _read_cell(cell).strip(ASCII_SPACE)
    if text.lower() in [each.strip().lower() for each in state["missing_cells"]]:
        return None
    for date_format, regex, fields in state["patterns"]:
        match = re.fullmatch(regex, text)
        seconds = (
            None if match is None else _convert_fields(date_format, dict(zip(fields, match.groups(), strict=True)))
        )
        if seconds is not None:
            return seconds
    return None


def _convert_fields(date_format: str, texts: Mapping[str, Any]) -> int | None:
    """Convert the fields of a cell to seconds; None for a day that does not exist."""
    if "number" in texts:
        value = float(texts["number"]) / EPOCHS[date_format]
        return int(np.floor(value)) if abs(value) < MAX_SECONDS else None
    days = (_find_week_day if "iso_week" in texts else _find_month_day)(texts)
    if days is None:
        return None
    hour = int(texts.get("hour") or 0)
    if "half" in texts:
        hour = int(texts.get("half_hour") or 0) % 12 + 12 * (texts["half"].lower()[0] == "p")
    time = hour * 3600 + int(texts.get("minute") or 0) * 60 + int(texts.get("second") or 0)
    zone = re.sub("[A-Za-z:]", "", texts.get("zone") or "") + "0000"
    zone = "+0000" if zone[0] == "0" else zone
    ahead = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
    return days * DAY_S + time - (-ahead if zone[0] == "-" else ahead)


def _find_month_day(texts: Mapping[str, Any]) -> int | None:
    """Count the days from 1970 to the day of a month; None if it does not exist."""
    if "year" in texts:
        year = int(texts["year"] or 1970)
    else:
        short = int(texts.get("short_year") or 0)
        year = short + (2000 if short < 69 else 1900)  # the convention of POSIX and of strptime
    name = texts.get("month_name")
    month = MONTHS.index(name[:3].lower()) + 1 if name else int(texts.get("month") or 1)
    day = int(texts.get("day") or 1)
    days = _days_from_civil(np.int64(year), np.int64(month), np.int64(day))
    exists = tuple(map(int, _civil_from_days(days)))[1:] == (month, day) and FIRST_YEAR <= year <= LAST_YEAR
    return int(days) if exists else None


def _find_week_day(texts: Mapping[str, Any]) -> int | None:
    """Count the days from 1970 to the day of a week of ISO 8601; None if the week does not exist."""
    year, week = int(texts["iso_year"]), int(texts["iso_week"])
    fourth = int(_days_from_civil(np.int64(year), np.int64(1), np.int64(4)))  # in the first week of its year
    monday = fourth - (fourth + 3) % 7 + 7 * (week - 1)
    exists = monday + 3 < int(_days_from_civil(np.int64(year + 1), np.int64(1), np.int64(1)))
    return monday + int(texts.get("iso_day") or 1) - 1 if exists and FIRST_YEAR <= year <= LAST_YEAR else None


def _encode_date_part(part: str, seconds: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    if part == "trend":
        return ((seconds.astype("float64") - state["offset"]) / state["scale"]).astype("float32")[:, None]
    angles = 2 * np.pi * np.arange(PERIODS[part]) / PERIODS[part]
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype("float32")[_compute_period_index(part, seconds)]


def _compute_period_index(part: str, seconds: np.ndarray) -> Any:
    days = seconds // DAY_S
    if part in ("minute", "hour"):
        return seconds % DAY_S // 60 % PERIODS[part]
    if part == "weekday":
        return (days + 3) % 7  # 1970 began on a Thursday, weeks begin on Monday
    year, month, day = _civil_from_days(days)
    if part == "day_of_year":
        return days - _days_from_civil(year, np.ones_like(month), np.ones_like(day))
    return (month if part == "month" else day) - 1


def _days_from_civil(year: Any, month: Any, day: Any) -> Any:
    """Compute the days from 1970 to a date of the Gregorian calendar."""
    year = np.where(month <= 2, year - 1, year)
    # Years begin in March here, so that the leap day is their last; 719468 is the day number of 1970-01-01.
    era, month = year // 400, (month + 9) % 12
    in_year = (153 * month + 2) // 5 + day - 1
    return era * 146097 + year % 400 * 365 + year % 400 // 4 - year % 400 // 100 + in_year - 719468


def _civil_from_days(days: Any) -> tuple[Any, Any, Any]:
    days = days + 719468
    era, in_era = days // 146097, days % 146097
    year = (in_era - in_era // 1460 + in_era // 36524 - in_era // 146096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    month = (5 * in_year + 2) // 153
    day = in_year - (153 * month + 2) // 5 + 1
    month = np.where(month < 10, month + 3, month - 9)
    return year + era * 400 + (month <= 2), month, day


def _encode_text(column: Mapping[str, Any], cells: Any) -> Any:
    state = column["state"]
    term_ids = {term: index + 2 for index, term in enumerate(state["vocabulary"])}  # 0 is padding, 1 an unknown term
    length, encoded = state["length"], list[Any]()
    for cell in np.asarray(cells, object).reshape(-1):
        numbers = [term_ids.get(term, 1) for term in _split_terms(_read_cell(cell), state)]
        if not state["bag"]:
            numbers = numbers[:length] or [1]
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


def _split_terms(text: str, state: Mapping[str, Any]) -> list[str]:
    text = unicodedata.normalize("NFC", text) if state["composed"] else text
    text = text.lower() if state["lowercase"] else text
    text = _strip_accents(text) if state["accents"] == "strip" else text
    if state["punctuation"] == "drop":
        text = "".join(character if _is_word(character) else " " for character in text)
    elif state["punctuation"] == "split":
        text = "".join(
            character if _is_word(character) or _is_space(character) else f" {character} " for character in text
        )
    text = " ".join("".join(" " if _is_space(character) else character for character in text).split(" "))
    words = [word for word in text.split(" ") if word]
    tokens = words if state["tokens"] == "words" else list(" ".join(words))
    low, high = state["ngrams"]
    separator = " " if state["tokens"] == "words" else ""
    spans = [tokens[at : at + width] for width in range(low, high + 1) for at in range(len(tokens) - width + 1)]
    return [separator.join(span) for span in spans]


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


def _encode_image(column: Mapping[str, Any], cells: Any) -> Any:
    pictures = [_encode_picture(column, np.asarray(cell)) for cell in cells]
    return np.stack(pictures) if pictures else np.zeros((0, *column["shape"]))


def _encode_picture(column: Mapping[str, Any], picture: np.ndarray) -> np.ndarray:
    """Convert one picture to the size and the channels of the network."""
    state, channels = column["state"], column["shape"][2]
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.size == 0:
        return np.zeros(column["shape"], column["dtype"])  # a missing picture
    if column["raw_dtype"] != "string":
        return _resize(_convert_channels(picture, channels), column["shape"][:2], state.get("fit", "stretch"), False)
    if channels < 4:
        picture = _lay_on_background(picture, state["background"])
    picture = picture.astype(column["dtype"])
    resized = _resize(picture, column["shape"][:2], state["fit"], antialias=True)
    if channels < 4:
        return _convert_channels(resized, channels)
    alpha = resized[..., -1:] if resized.shape[2] in (2, 4) else np.full_like(resized[..., -1:], 2 ** state["bits"] - 1)
    colours = resized[..., :3] if resized.shape[2] > 2 else np.repeat(resized[..., :1], 3, axis=2)
    return np.concatenate([colours, alpha], axis=2)


def _lay_on_background(picture: np.ndarray, background: Sequence[int]) -> np.ndarray:
    """Lay a picture on a background of red, green and blue, where it has two or four channels."""
    if picture.shape[2] % 2:
        return picture
    largest = np.iinfo(picture.dtype).max
    colours = picture[..., :3] if picture.shape[2] == 4 else np.repeat(picture[..., :1], 3, axis=2)
    alpha = picture[..., -1:].astype("float32") / np.float32(largest)
    behind = np.array(background, "float32") * np.float32(largest // 255)
    laid = np.rint(colours.astype("float32") * alpha + behind * (1 - alpha))
    return np.clip(laid, 0, largest).astype(picture.dtype)


def _convert_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    if channels == 3 and picture.shape[2] == 1:
        return np.repeat(picture, 3, axis=2)
    if channels != 1 or picture.shape[2] != 3:
        return picture
    if picture.dtype != np.uint8:
        return (picture * GREY_WEIGHTS).sum(axis=2, keepdims=True)
    # As in tf.image.rgb_to_grayscale: uint8 is scaled by 1 / 255, and converted back by the maximum plus 0.5.
    grey = (picture.astype("float32") * np.float32(1 / 255) * GREY_WEIGHTS).sum(axis=2, keepdims=True)
    return np.clip(grey * np.float32(255.5), 0, 255).astype("uint8")


def _resize(picture: np.ndarray, size: Sequence[int], fit: str, antialias: bool) -> np.ndarray:
    """Resize a picture bilinearly."""
    if picture.shape[:2] == tuple(size):
        return picture
    if fit == "crop":
        picture = _crop_centre(picture, *size)
    whole = np.array(picture.shape[:2], "float64")
    ratio = max(whole / size)
    inner = [max(1, int(side)) for side in np.floor(whole / ratio)] if fit == "pad" else list(size)
    across, down = (
        _compute_resize_weights(picture.shape[1], inner[1], antialias),
        _compute_resize_weights(picture.shape[0], inner[0], antialias),
    )
    resized = np.einsum("yh,hwc,xw->yxc", down, picture.astype("float32"), across, optimize=True)
    if fit == "pad":
        first = [max(0, int(edge)) for edge in np.floor((np.array(size) - whole / ratio) / 2)]
        framed = np.zeros((*size, picture.shape[2]), "float32")
        framed[first[0] : first[0] + inner[0], first[1] : first[1] + inner[1]] = resized
        resized = framed
    return np.clip(np.rint(resized), 0, 255).astype("uint8") if picture.dtype == np.uint8 else resized


def _compute_resize_weights(size: int, new: int, antialias: bool) -> np.ndarray:
    """Compute the weight of each old row in each new one, `(new, size)`."""
    centres = (np.arange(new) + 0.5) * size / new
    support = max(size / new, 1.0) if antialias else 1.0
    distances = np.abs(np.arange(size) + 0.5 - np.clip(centres, 0.5, size - 0.5)[:, None]) / support
    if antialias:
        distances = np.abs(np.arange(size) + 0.5 - centres[:, None]) / support
    weights = np.maximum(0, 1 - distances)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def _crop_centre(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop the largest central window with the ratio of `height` to `width`."""
    whole = np.array(picture.shape[:2])
    window = np.rint(whole[::-1].astype("float32") * np.array([height / width, width / height], "float32")).astype(int)
    window = np.clip(window, 1, whole)
    first = (whole - window) // 2
    return picture[first[0] : first[0] + window[0], first[1] : first[1] + window[1]]


def _read_cell(cell: Any) -> str:
    """Convert a cell to text; whole numbers are written without a decimal point."""
    if cell is None or (isinstance(cell, (float, np.floating)) and np.isnan(cell)):
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, (int, np.integer)) and cell == MISSING_INTEGER:
        return ""
    if isinstance(cell, (float, np.floating)) and cell == int(cell):
        return str(int(cell))
    return str(cell)


_ENCODERS: dict[str, Callable[[Mapping[str, Any], Any], Any]] = {
    "number": _encode_number,
    "category": _encode_category,
    "boolean": _encode_boolean,
    "date": _encode_date,
    "text": _encode_text,
    "image": _encode_image,
}
