from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from bmcli.data.sources import builtin


def test_digits_are_small_images_with_labels() -> None:
    rows = builtin.read(builtin.Options(name="digits"))
    assert rows.columns["image"].shape == (1797, 8, 8, 1)
    assert rows.columns["image"].dtype == np.uint8
    assert rows.columns["image"].max() == 16
    assert rows.columns["label"][:3].to_pylist() == ["0", "1", "2"]
    assert rows.describe_row(4) == "digits row 5"


@pytest.mark.parametrize(
    ("name", "count", "features", "target", "first"),
    [
        ("iris", 150, 4, "species", "setosa"),
        ("wine", 178, 13, "cultivar", "class_0"),
        ("breast_cancer", 569, 30, "diagnosis", "malignant"),
        ("diabetes", 442, 10, "progression", 151.0),
    ],
)
def test_tables_have_named_columns_and_a_target(
    name: str, count: int, features: int, target: str, first: str | float
) -> None:
    options = builtin.Options.model_validate({"name": name})
    rows = builtin.read(options)
    assert len(rows) == count
    assert len(rows.columns) == features + 1
    assert list(options.default_targets()) == [target]
    cell = rows.columns[target][0]
    assert (cell.as_py() if isinstance(first, str) else cell) == first


def test_an_unknown_set_is_a_fault() -> None:
    with pytest.raises(ValidationError, match="name"):
        builtin.Options.model_validate({"name": "boston"})


def test_sets_have_fingerprints_of_their_own() -> None:
    assert builtin.Options(name="iris").fingerprint() != builtin.Options(name="wine").fingerprint()
