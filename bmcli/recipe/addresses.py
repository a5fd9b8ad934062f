"""Addresses of remote files, such as `s3://bucket/table.parquet`: which a recipe may contain, and which may be read.

Reading an address connects to another machine with the user's credentials. Recipes can come from other people, so an
address contains the location of a file only, and one that only a recipe names is not read until the user allows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from bmcli.redaction import HIDDEN

ENVIRONMENT_VARIABLE = "BMCLI_ADDRESSES"
"""Environment variable with origins, such as `s3://bucket`, that may be read although only a recipe names them."""


class _Scheme(NamedTuple):
    """Allowed content of an address of one scheme.

    Args:
        authority: Pattern of the part before the path.
        options: Allowed query options; none of them changes the server or the encryption.
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
# A region becomes part of a host name: with dots or slashes it could name another server.
_VALUE = re.compile(r"[A-Za-z0-9_-]{1,64}")
CREDENTIALS_HINT = (
    "Set credentials and servers outside of the recipe: AWS_ENDPOINT_URL, AWS_PROFILE or AWS_ACCESS_KEY_ID in the "
    "environment, or the configuration files of the store."
)


def is_address(path: str) -> bool:
    """Whether a path is an address with a scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def is_remote(path: str) -> bool:
    """Whether a path is read over a network."""
    return is_address(path) and not path.startswith("file://")


def find_problem(address: str) -> tuple[str, str] | None:
    """Find forbidden content of an address; returns message and suggestion."""
    name, _, rest = address.partition("://")
    scheme = _SCHEMES.get(name)
    if scheme is None:
        return f"no file system for {name[:20]}://.", f"Known: {', '.join(_SCHEMES)}."
    if "#" in rest:
        return "an address has no fragment (#).", "Write %23 for a # in the name of a file."
    path, _, query = rest.partition("?")
    authority = path.partition("/")[0]
    user, at, _ = authority.rpartition("@")
    if at and not re.fullmatch(scheme.authority, authority) and user:
        return f"an address must not contain a user or password, received {name}://{HIDDEN}@....", CREDENTIALS_HINT
    if name == "file" and authority:
        return "file:// is for files of this machine.", "Write file:///folder/file with three slashes."
    if not re.fullmatch(scheme.authority, authority):
        return f"no valid bucket or host after {name}://.", "Write it like s3://bucket/folder/file."
    for option in query.split("&") if query else ():
        key, _, value = option.partition("=")
        if key not in scheme.options:
            known = f"Known: {', '.join(scheme.options)}. " if scheme.options else ""
            return f"an address of {name}:// has no option {key[:40]!r} in a recipe.", f"{known}{CREDENTIALS_HINT}"
        if not _VALUE.fullmatch(value):
            return f"option {key} of an address may contain letters, digits, dashes and underscores only.", ""
    return None


def get_origin(address: str) -> str:
    """The scheme and authority of an address: `s3://bucket`."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"


def is_allowed(address: str) -> bool:
    """Whether the user allows reading from the origin of an address; local files are always allowed."""
    return not is_remote(address) or get_origin(address) in _list_allowed()


def allow_typed(text: str) -> None:
    """Allow the origins of addresses in a command line, in this process and in those that it starts."""
    origins = [match[0] for match in _TYPED.finditer(text) if match[1] in _SCHEMES]
    if origins:
        os.environ[ENVIRONMENT_VARIABLE] = " ".join(dict.fromkeys([*_list_allowed(), *origins]))


# Possessive quantifiers, so that a long argument takes linear time.
_TYPED = re.compile(r"""(?<![A-Za-z0-9+.-])([A-Za-z0-9+.-]++)://[^/?#\s,"'\]}]*+""")


def _list_allowed() -> list[str]:
    return [each.rstrip("/") for each in re.split(r"[\s,]+", os.environ.get(ENVIRONMENT_VARIABLE, "")) if each]
