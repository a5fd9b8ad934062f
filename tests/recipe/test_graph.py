"""Faults of a graph of layers that are found without data and without Keras."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from bmcli.models.layers import Options
from bmcli.recipe import graph
from bmcli.recipe.fields import dump
from bmcli.recipe.json_schema import make_recipe_schema

DENSE = {"kind": "dense", "units": 3}


def found(*layers: Any, **options: Any) -> list[tuple[tuple[str | int, ...], str, str]]:
    """Place, message and suggestion of every fault."""
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"layers": layers, **options})
    return [(error["loc"], error["msg"], error.get("ctx", {}).get("suggestion", "")) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("layers", "where", "message", "suggestion"),
    [
        (
            (),
            ("layers",),
            "expected a list of layers, received an empty list.",
            "Write [{kind: dense, units: 10}].",
        ),
        ((3,), ("layers", 0), "expected a layer, received 3.", "Write {kind: dense, units: 10}."),
        (({"units": 3},), ("layers", 0), "'kind' is missing.", "Write {kind: dense, units: 10}."),
        (({"kind": "dens", "units": 3},), ("layers", 0, "kind"), "no layer 'dens'.", "Did you mean 'dense'?"),
        (
            (DENSE, {"kind": "shard", "layer": "a"}),
            ("layers", 1, "kind"),
            "no layer 'shard'.",
            "Did you mean 'shared'?",
        ),
        (
            ({"kind": "dense", "unit": 3, "units": 3},),
            ("layers", 0, "unit"),
            "dense has no option 'unit'.",
            "Did you mean 'units'?",
        ),
        (
            ({**DENSE, "fron": "a"},),
            ("layers", 0, "fron"),
            "dense has no option 'fron'.",
            "Did you mean 'from'?",
        ),
        (
            ({**DENSE, "name": "a/b"},),
            ("layers", 0, "name"),
            "expected a name, received 'a/b'.",
            "Use letters, digits, dashes and underscores.",
        ),
        (
            ({**DENSE, "from": ()},),
            ("layers", 0, "from"),
            "expected a name or a list of names, received [].",
            "",
        ),
        (
            ({**DENSE, "from": 7},),
            ("layers", 0, "from"),
            "expected a name or a list of names, received 7.",
            "",
        ),
        (
            ({**DENSE, "name": "a"}, {**DENSE, "name": "a"}),
            ("layers", 1, "name"),
            "layer 0 is called 'a' too.",
            "Give each layer a different name.",
        ),
        (
            ({**DENSE, "from": ("a", "b")},),
            ("layers", 0, "from"),
            "dense takes one input, received 2.",
            "Put `add` or `concatenate` before it.",
        ),
        (
            (DENSE, {"kind": "add"}),
            ("layers", 1),
            "add takes at least 2 inputs, received 1.",
            "Write from: [NAME, NAME].",
        ),
        (
            ({"kind": "dot", "axes": 1, "from": ("a", "b", "c")},),
            ("layers", 0, "from"),
            "dot takes at most 2 inputs, received 3.",
            "",
        ),
        (
            ({**DENSE, "name": "one"}, {"kind": "shared", "layer": "onee"}),
            ("layers", 1, "layer"),
            "no layer is called 'onee'.",
            "Did you mean 'one'?",
        ),
        (
            (
                {**DENSE, "name": "a"},
                {"kind": "shared", "layer": "a", "name": "b"},
                {"kind": "shared", "layer": "b"},
            ),
            ("layers", 2, "layer"),
            "'b' is shared itself.",
            "Write layer: a.",
        ),
        (
            ({**DENSE, "name": "a"}, {"kind": "shared"}),
            ("layers", 1),
            "shared needs the name of a layer.",
            "Write {kind: shared, layer: NAME, from: ...}.",
        ),
        (
            ({**DENSE, "name": "a"}, {"kind": "shared", "layer": "a", "units": 3}),
            ("layers", 1, "units"),
            "shared has no option 'units'.",
            "It takes `layer`, `from` and `name`.",
        ),
        (
            ({**DENSE, "name": "a", "from": "c"}, {**DENSE, "name": "b"}, {**DENSE, "name": "c"}),
            ("layers", 0, "from"),
            "these layers feed each other in a circle: a -> b -> c -> a.",
            "Break it at one `from`.",
        ),
        (
            ({**DENSE, "name": "a", "from": "a"},),
            ("layers", 0, "from"),
            "these layers feed each other in a circle: a -> a.",
            "Break it at one `from`.",
        ),
        (
            ({**DENSE, "name": "a"}, {**DENSE, "from": "x"}),
            ("layers", 0),
            "no output depends on 'a'.",
            "Read it in a `from`, or leave it out.",
        ),
    ],
)
def test_a_fault_names_its_place(layers: Any, where: Any, message: str, suggestion: str) -> None:
    assert found(*layers) == [(where, message, suggestion)]


def test_outputs_must_be_layers() -> None:
    assert found({**DENSE, "name": "end"}, outputs={"label": "ende"}) == [
        (("outputs", "label"), "no layer is called 'ende'.", "Did you mean 'end'?")
    ]


def test_everything_is_reported_at_once() -> None:
    faults = found(
        {"kind": "dens"},
        {"kind": "dense", "unit": 3},
        {**DENSE, "name": "a", "from": "b"},
        {**DENSE, "name": "b"},
        {"kind": "add"},
        outputs={"label": "c"},
        extra=1,
    )
    assert {where for where, _, _ in faults} == {
        ("layers", 0, "kind"), ("layers", 1), ("layers", 1, "unit"), ("layers", 2, "from"), ("layers", 4),
        ("outputs", "label"), ("extra",),
    }  # fmt: skip


def test_two_circles_are_two_faults() -> None:
    pair = [{**DENSE, "name": "a", "from": "b"}, {**DENSE, "name": "b"}]
    other = [{**DENSE, "name": "c", "from": "d"}, {**DENSE, "name": "d"}]
    ends = {"kind": "add", "from": ("b", "d")}
    assert [where for where, _, _ in found(*pair, *other, ends)] == [
        ("layers", 0, "from"),
        ("layers", 2, "from"),
    ]


def test_each_layer_comes_behind_those_it_reads() -> None:
    layers = graph.read_layers(
        ({**DENSE, "name": "c", "from": "b"}, {**DENSE, "name": "a", "from": "x"}, {**DENSE, "name": "b"})
    )
    assert [layer.name for layer in graph.sort_layers(layers)] == ["a", "b", "c"]


def test_a_long_chain_is_no_trouble() -> None:
    assert len(graph.sort_layers(graph.read_layers(Options(layers=(DENSE,) * 3000).layers))) == 3000


def test_a_checked_list_is_checked_again_to_itself() -> None:
    options = Options(layers=("flatten", {**DENSE, "from": "flatten_0"}), outputs={"label": "dense_1"})
    assert Options.model_validate_json(json.dumps(dump(options)), strict=False).outputs == options.outputs
    assert Options.model_validate(options.model_dump()) == options


def test_the_schema_knows_every_layer_and_its_links() -> None:
    recipe = {"name": "x", "data": {"source": {"kind": "builtin", "name": "digits"}}}
    layers = ["flatten", {**DENSE, "name": "a"}, {"kind": "shared", "layer": "a", "from": ["b"]}]
    schema = jsonschema.Draft202012Validator(make_recipe_schema())
    assert schema.is_valid({**recipe, "model": {"kind": "layers", "layers": layers}})
    assert not schema.is_valid({**recipe, "model": {"kind": "layers", "layers": [{"kind": "dense", "unit": 3}]}})
