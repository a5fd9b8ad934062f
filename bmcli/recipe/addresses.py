"""Addresses of files, as `s3://bucket/table.parquet`: which may stand in a recipe, and which may be read.

An address makes the machine speak to another one, with the user's credentials. So it says no more than where a file
lies, and one that nobody but a recipe names is not read until the user allows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from bmcli.redaction import HIDDEN

ENVIRONMENT_VARIABLE = "BMCLI_ADDRESSES"
"""Names the places, as `s3://bucket`, that may be read although only a recipe names them."""


class _Scheme(NamedTuple):
    """What an address of a scheme may say.

    Args:
        authority: Pattern of what stands before the path.
        options: Those that do not decide whom the machine speaks to, or how it is encrypted.
    """

    authority: str
    options: tuple[str, ...] = ()


_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HOST = r"([A-Za-z0-9._-]+@)?[A-Za-z0-9._-]*(:[0-9]{1,5})?"
_CONTAINER = r"([A-Za-z0-9$-]+@)?[A-Za-z0-9.-]+"
_SCHEMES: Mapping[str, _Scheme] = {
    "s3": _Scheme(_BUCKET, ("region",)),
    "gs": _Scheme(f"(anonymous@)?{_BUCKET}", ("project_id", "retry_limit_seconds")),
    "gcs": _Scheme(f"(anonymous@)?{_BUCKET}", ("project_id", "retry_limit_seconds")),
    "hdfs": _Scheme(_HOST, ("user",)),
    "viewfs": _Scheme(_HOST, ("user",)),
    "abfs": _Scheme(_CONTAINER),
    "abfss": _Scheme(_CONTAINER),
    "file": _Scheme(""),
}
# A region becomes part of a host's name.
_VALUE = re.compile(r"[A-Za-z0-9_-]{1,64}")
CREDENTIALS_HINT = (
    "Set such things outside of the recipe: AWS_ENDPOINT_URL, AWS_PROFILE or AWS_ACCESS_KEY_ID in the environment, or "
    "the store's own settings."
)


def is_address(path: str) -> bool:
    """Whether a path is an address with a scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def is_remote(path: str) -> bool:
    """Whether reading a path takes a network."""
    return is_address(path) and not path.startswith("file://")


def find_problem(address: str) -> tuple[str, str] | None:
    """What an address says that it may not, and what to do instead."""
    name, _, rest = address.partition("://")
    scheme = _SCHEMES.get(name)
    if scheme is None:
        return f"no file system for {name[:20]}://.", f"Known: {', '.join(_SCHEMES)}."
    if "#" in rest:
        return "an address has no part behind #.", "Write %23 for a # in the name of a file."
    path, _, query = rest.partition("?")
    authority = path.partition("/")[0]
    user, at, _ = authority.rpartition("@")
    if at and not re.fullmatch(scheme.authority, authority) and user:
        return f"an address holds no user or password, received {name}://{HIDDEN}@....", CREDENTIALS_HINT
    if name == "file" and authority:
        return "file:// is for files of this machine.", "Write file:///folder/file with three slashes."
    if not re.fullmatch(scheme.authority, authority):
        return f"no name of a place to read from behind {name}://.", "Write it as s3://bucket/folder/file."
    for option in query.split("&") if query else ():
        key, _, value = option.partition("=")
        if key not in scheme.options:
            known = f"Known: {', '.join(scheme.options)}. " if scheme.options else ""
            return f"an address of {name}:// has no option {key[:40]!r} in a recipe.", f"{known}{CREDENTIALS_HINT}"
        if not _VALUE.fullmatch(value):
            return f"option {key} of an address is letters, digits, dashes and underscores.", ""
    return None


def get_origin(address: str) -> str:
    """Where an address points to, without the path: `s3://bucket`."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"


def is_allowed(address: str) -> bool:
    """Whether the user has allowed to read from where an address points to; files of this machine need no word."""
    return not is_remote(address) or get_origin(address) in _list_allowed()


def allow_typed(text: str) -> None:
    """Allows the places of addresses that the user typed, in this process and in those that it starts."""
    typed = [match[0] for match in _TYPED.finditer(text) if match[1] in _SCHEMES]
    if typed:
        os.environ[ENVIRONMENT_VARIABLE] = " ".join(dict.fromkeys([*_list_allowed(), *typed]))


_TYPED = re.compile(r"""(?<![A-Za-z0-9+.-])([A-Za-z0-9+.-]++)://[^/?#\s,"'\]}]*+""")


def _list_allowed() -> list[str]:
    return [each.rstrip("/") for each in re.split(r"[\s,]+", os.environ.get(ENVIRONMENT_VARIABLE, "")) if each]
