"""Target columns as the data room hands them over."""

from __future__ import annotations

from bmcli.specs import Column


def category(*classes: str, name: str = "label") -> Column:
    return Column(name=name, kind="category", shape=(), dtype="int32", classes=classes)


def number(name: str = "price") -> Column:
    return Column(name=name, kind="number", shape=(), dtype="float32")
