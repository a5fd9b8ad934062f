"""JSON records: objects with a checksum that detects every change, and their validation by type."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from bmcli.disk import DamagedFile, convert_write_errors, read_file, write_atomically

_MAX_RECORD_BYTES = 2**28


_Value = TypeVar("_Value")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value without a checksum; numbers that are not finite become null."""
    text = json.dumps(to_json_value(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def write_record(path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
    """Write a JSON object with its checksum, by which `read_record` detects every change.

    Raises:
        ValueError: A number is not finite; JSON has no such numbers. `to_json_value` turns them into null.
    """
    text = json.dumps(_add_digest(value), indent=2, ensure_ascii=False, allow_nan=False)
    # File names can contain bytes that are no text, as lone surrogates; `\udcff` is also their escape in JSON.
    write_atomically(path, (text + "\n").encode(errors="backslashreplace"), mode)


def read_record(path: Path) -> dict[str, Any]:
    """Read the JSON object of `write_record`, without its checksum.

    Raises:
        OSError: The file does not exist or cannot be read.
        DamagedFile: The content is not what was written.
    """
    return parse_record(read_file(path, _MAX_RECORD_BYTES))


def write_record_line(file: Path, value: Mapping[str, Any]) -> None:
    """Append a record as one line, never through a symbolic link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    line = encode_record_line(value)
    with convert_write_errors(file, len(line)), os.fdopen(os.open(file, flags, 0o666), "wb") as opened:
        opened.write(line)


def encode_record_line(value: Mapping[str, Any]) -> bytes:
    """Encode a record as one line of a file; raises as `write_record` does."""
    return (json.dumps(_add_digest(value), allow_nan=False) + "\n").encode()


def parse_record(content: bytes) -> dict[str, Any]:
    """Parse a record and check its checksum, which is left out; raises `DamagedFile`."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise DamagedFile("not a JSON object")
    expected = value.pop("sha256", None)
    try:
        actual = compute_record_digest(value)
    except RecursionError:
        raise DamagedFile("nested too deeply") from None
    if actual != expected:
        raise DamagedFile("changed since it was written, by its SHA-256" if expected else "without its SHA-256")
    return value


def compute_record_digest(value: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of a JSON object, independent of the order of its keys and its indentation."""
    import hashlib  # not at the top: OpenSSL takes 3 ms of every start

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _add_digest(value: Mapping[str, Any]) -> dict[str, Any]:
    # Through JSON, because the digest is computed again from the file, where all keys are text.
    plain = json.loads(json.dumps(value, allow_nan=False))
    return {**plain, "sha256": compute_record_digest(plain)}


def to_json_value(value: Any) -> Any:
    """Convert a value for JSON: numbers that are not finite become null, lone surrogates of file names become `?`."""
    if isinstance(value, Mapping):
        return {to_json_value(key): to_json_value(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(each) for each in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="replace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def validate_as(value_type: type[_Value], value: Any) -> _Value:
    """Validate a JSON value as a type, such as a dataclass; keys that the type does not have are left out.

    Raises:
        DamagedFile: A key is missing, or has a value of another type; types are not converted.
    """
    from pydantic import ValidationError

    try:
        adapter: Any = _get_adapter(cast(Hashable, value_type))
        # From JSON text, because strict validation of Python values refuses a list for a tuple.
        return adapter.validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFile(f"{place}: {first['msg']}" if place else first["msg"]) from None
    except (RecursionError, ValueError) as error:
        raise DamagedFile(str(error)) from None


@cache
def _get_adapter(value_type: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(value_type)


def parse_json(content: bytes | str) -> Any:
    """Parse untrusted JSON.

    Raises:
        DamagedFile: It is no JSON, nested too deeply, or contains NaN or Infinity, which JSON does not have.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError:
        raise DamagedFile("nested too deeply") from None
    except ValueError as error:
        raise DamagedFile(f"no JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _parse_float(text: str) -> float:
    value = float(text)  # infinite for 1e999, which JSON allows
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value
