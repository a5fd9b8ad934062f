"""Fixtures of the catalogue: bmcli as a user calls it."""

from tests.commands.conftest import bmcli

__all__ = ["bmcli"]
