"""An objective of every kind with targets and outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np

from bmcli import parts
from bmcli.models import Features
from bmcli.objectives import TargetObjective
from bmcli.recipe.fields import PartField
from bmcli.specs import Column

ROWS = 40

CLASSES = Column("label", "category", (), "int32", classes=("a", "b", "c", "d"))
GRADES = Column("grade", "ordered", (), "int32", classes=("poor", "fair", "good", "best"))
TAGS = Column("tags", "labels", (3,), "uint8", classes=("red", "round", "small"), state={"separator": ";"})
VISITS = Column("visits", "count", (), "float32", state={"mean": 4.0})
PRICE = Column("price", "number", (), "float32", state={"mean": 20.0, "scale": 2.0})
INCOME = Column("income", "number", (), "float32", state={"mean": 5.0, "scale": 0.5, "log": True})


class Case(NamedTuple):
    """Options of an objective, and its target."""

    options: dict[str, Any]
    target: Column

    @property
    def kind(self) -> str:
        return str(self.options["kind"])

    def width(self) -> int:
        part = parts.load("objectives", self.kind)
        output = part.build_head(self._checked(), self.target, Features(keras.Input((5,))))
        return int(output.shape[-1])

    def truth(self, rows: int = ROWS) -> np.ndarray:
        """Encoded targets; every class is there and every label is both there and not."""
        draw = np.random.default_rng(1)
        if self.target.kind == "labels":
            return (draw.random((rows, 3)) < [0.5, 0.3, 0.15]).astype("uint8")
        if self.target.classes:
            return (np.arange(rows) % 7 % len(self.target.classes)).astype("int32")
        if self.target.kind == "count":
            return draw.poisson(4, rows).astype("float32")
        return draw.normal(size=rows).astype("float32")

    def outputs(self, rows: int = ROWS) -> np.ndarray:
        return (2 * np.random.default_rng(2).normal(size=(rows, self.width()))).astype("float32")

    def build(self, train_targets: Any = None, **more: Any) -> TargetObjective:
        train_targets = self.truth() if train_targets is None else train_targets
        part, options = parts.load("objectives", self.kind), self._checked(**more)
        built: TargetObjective = part.build(options, part.describe(options, self.target), self.target, train_targets)
        return built

    def _checked(self, **more: Any) -> Any:
        return PartField("objectives").check({**self.options, **more})


CASES = {
    "classification": Case({"kind": "classification"}, CLASSES),
    "classification, balanced": Case({"kind": "classification", "class_weights": "balanced"}, CLASSES),
    "classification, effective": Case({"kind": "classification", "class_weights": "effective", "beta": 0.9}, CLASSES),
    "classification, focal": Case({"kind": "classification", "loss": "categorical_focal_crossentropy"}, CLASSES),
    "classification, binary focal": Case(
        {"kind": "classification", "loss": "binary_focal_crossentropy"}, replace(CLASSES, classes=("no", "yes"))
    ),
    "classification of grades": Case({"kind": "classification"}, GRADES),
    "multi_label": Case({"kind": "multi_label"}, TAGS),
    "multi_label, balanced": Case({"kind": "multi_label", "class_weights": "balanced"}, TAGS),
    "multi_label, effective": Case({"kind": "multi_label", "class_weights": "effective"}, TAGS),
    "multi_label, by name": Case({"kind": "multi_label", "class_weights": {"small": 5}}, TAGS),
    "multi_label, focal": Case({"kind": "multi_label", "loss": "binary_focal_crossentropy"}, TAGS),
    "ordinal": Case({"kind": "ordinal"}, GRADES),
    "ordinal, balanced": Case({"kind": "ordinal", "class_weights": "balanced"}, GRADES),
    "regression": Case({"kind": "regression"}, PRICE),
    "regression, log": Case({"kind": "regression", "loss": "huber"}, INCOME),
    "count": Case({"kind": "count"}, VISITS),
    "quantile": Case({"kind": "quantile"}, PRICE),
    "quantile, log": Case({"kind": "quantile", "quantiles": (0.05, 0.25, 0.5, 0.75, 0.95)}, INCOME),
    "quantile, one": Case({"kind": "quantile", "quantiles": (0.9,)}, PRICE),
}
