"""Small data sets of scikit-learn, for first steps and tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

from pydantic import Field

from bmcli.data.sources import SourceOptions, SourceRows

_TARGETS = {
    "digits": {"label": {"kind": "category"}},
    "iris": {"species": {"kind": "category"}},
    "wine": {"cultivar": {"kind": "category"}},
    "breast_cancer": {"diagnosis": {"kind": "category"}},
    "diabetes": {"progression": {"kind": "number"}},
}


class Options(SourceOptions):
    """Built-in data: digits (1797 images 8x8), iris (150 rows), wine (178), breast_cancer (569), diabetes (442)."""

    kind: Literal["builtin"] = "builtin"
    name: Literal["digits", "iris", "wine", "breast_cancer", "diabetes"] = Field(description="Name of the dataset.")

    def describe_files(self, split: str | None = None) -> str:
        return self.name

    def fingerprint(self) -> str:
        return hashlib.sha256(f"scikit-learn {version('scikit-learn')} {self.name}".encode()).hexdigest()

    def default_targets(self) -> Mapping[str, Mapping[str, Any]]:
        return _TARGETS[self.name]


def read(options: Options) -> SourceRows:
    """Read digits as uint8 images from 0 to 16, the others as float64 columns by name; classes as text."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{options.name}")()
    if options.name == "digits":
        columns = {"image": data.images.astype("uint8")[..., None]}
    else:
        columns = {str(name): data.data[:, position] for position, name in enumerate(data.feature_names)}
    target = next(iter(_TARGETS[options.name]))
    columns[target] = data.target if options.name == "diabetes" else _get_class_names(data)
    return SourceRows(columns, split=None, describe_row=lambda row: f"{options.name} row {row + 1}")


def _get_class_names(data: Any) -> Any:
    """Return the class name of every row."""
    import pyarrow as pa

    return pa.chunked_array([pa.array([str(data.target_names[position]) for position in data.target])])
