"""Target columns as the data room hands them over."""

from __future__ import annotations

from bmcli.specs import Column


def category(*classes: str, name: str = "label") -> Column:
    return Column(name=name, kind="category", shape=(), dtype="int32", classes=classes)


def number(name: str = "price") -> Column:
    return Column(name=name, kind="number", shape=(), dtype="float32")


def labels(*names: str, name: str = "tags") -> Column:
    return Column(name=name, kind="labels", shape=(len(names),), dtype="uint8", classes=names)


def ordered(*classes: str, name: str = "grade") -> Column:
    return Column(name=name, kind="ordered", shape=(), dtype="int32", classes=classes)


def count(name: str = "visits") -> Column:
    return Column(name=name, kind="count", shape=(), dtype="float32", state={"mean": 4.0})
