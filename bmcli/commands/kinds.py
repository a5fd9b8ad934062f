"""`bmcli ls ROOM`: list the kinds of parts that recipes can name, those of plug-ins included."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from bmcli import parts, plugins
from bmcli.errors import BmcliError
from bmcli.quoting import quoted


@dataclass(frozen=True)
class ListedKind:
    """A kind of part.

    Args:
        headline: First line of the documentation of its options.
        plugin: The installed package or the file that it comes from; empty if it is built in.
    """

    kind: str
    headline: str
    plugin: str


@dataclass(frozen=True)
class ListedRoom:
    """The kinds of one room, in alphabetical order."""

    room: str
    kinds: tuple[ListedKind, ...]


def list_kinds(room: str) -> ListedRoom:
    """List the kinds of a room.

    Raises:
        BmcliError: There is no such room, or a plug-in cannot be loaded.
    """
    if room not in plugins.ROOMS:
        raise BmcliError(f"no room of parts {quoted(room)}.", suggestion=parts.did_you_mean(room, plugins.ROOMS))
    return ListedRoom(room, tuple(_describe_kind(room, kind) for kind in parts.names(room)))


def _describe_kind(room: str, kind: str) -> ListedKind:
    headline = (inspect.getdoc(parts.load(room, kind).Options) or "").partition("\n")[0]
    is_built_in = kind in parts.list_built_in(room)
    return ListedKind(kind, headline, "" if is_built_in else str(plugins.describe(f"{room}.{kind}")))
