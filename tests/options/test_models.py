"""Another value of an option of a model family gives another network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.options.law import Change, Subject, find_idle_options
from tests.options.sights import describe_archive, make_archive, see_network
from tests.trainers import FAMILIES

ELSEWHERE = {"from": "tests/commands/test_model_from.py::test_the_first_weights_are_those_of_the_source"}

CHANGES: dict[str, dict[str, Any]] = {
    "convnext": {"patch": 3},
    "ft_transformer": {"width": 4, "heads": 4},
    "layers": {
        "layers": [{"kind": "flatten", "from": "image"}, {"kind": "concatenate", "from": ["flatten_0", "age"]},
                   {"kind": "dense", "units": 3}],
        "outputs": Change(
            {"price": "second", "visits": "first"},
            {
                "data.targets": {"price": {"kind": "number"}, "visits": {"kind": "number"}},
                "model.layers": [{"kind": "dense", "units": 1, "from": "age", "name": "first"},
                                 {"kind": "dense", "units": 1, "from": "age", "name": "second"}],
                "model.outputs": {"price": "first", "visits": "second"},
                "data.inputs": {"age": {"kind": "number"}},
            },
        ),
    },
    "mlp": {"sequences": Change("mean", {"data.inputs.text": {"kind": "number"}}), "periodic": {"frequencies": 2}},
    "resnet": {
        "variant": Change(18, {"model.widths": None, "model.blocks": None}),
        "inner": Change(0.5, {"model.bottleneck": True}),
        "bottleneck": True,
    },
    "rnn": {"activation": "relu", "share": Change(True, {"model.units": [4, 4], "model.bidirectional": False})},
    "table_resnet": {"periodic": {"frequencies": 2}},
    "transformer": {"width": 4, "heads": 4, "share": Change(True, {"model.depth": 2}),
                    "patch": Change(2, {"data.inputs": {"image": {"kind": "image"}}})},
    "wide_deep": {"wide": ["age"], "deep": ["age"], "periodic": {"frequencies": 2}},
}  # fmt: skip


def make_subject(kind: str, folder: Path, cache: Path) -> Subject:
    options, columns = FAMILIES[kind]
    recipe = {
        "name": "family",
        "data": describe_archive(make_archive(folder), columns),
        "model": {"kind": kind, **options},
    }
    return Subject(
        f"models.{kind}", "model", recipe, (partial(see_network, cache=cache),), CHANGES.get(kind, {}), ELSEWHERE
    )


OWNERS = tuple(f"models.{kind}" for kind in FAMILIES)


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_option_of_a_family_is_idle(kind: str, tmp_path: Path, cache: Path) -> None:
    assert find_idle_options(make_subject(kind, tmp_path, cache), tmp_path) == []
