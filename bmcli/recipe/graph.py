"""Graphs of Keras layers as a recipe writes them: read, checked and ordered without Keras.

A layer is a mapping with a `kind`, that kind's Keras options, and optionally a `name` and where its input
comes `from`: the name of a layer or of an input column, or a list of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe import catalogue
from bmcli.recipe.catalogue import Problem
from bmcli.recipe.fields import FieldType, KerasObjectField, add_suggestion, fault, format_value

SHARED = "shared"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_OWN_KEYS = ("kind", "name", "from")

# How many tensors a layer takes, where it takes more than one: at least, at most.
_INPUT_COUNTS: dict[str, tuple[int, int | None]] = {
    "multi_head_attention": (1, 3),
    "group_query_attention": (1, 3),
    "attention": (1, 3),
    "additive_attention": (1, 3),
    "dot": (2, 2),
    "subtract": (2, 2),
}


@dataclass(frozen=True)
class GraphLayer:
    """One layer of a graph.

    Args:
        index: Its position in the recipe.
        name: As written, or made from kind and position.
        kind: The Keras layer, or `shared`.
        options: Of the Keras layer.
        sources: Names of layers or columns; None takes the layer before it, or the first one the sole input.
        shared_layer: Name of the layer that a `shared` one calls again.
    """

    index: int
    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] | None = None
    shared_layer: str = ""


@dataclass(frozen=True)
class LayersField(FieldType):
    """The field type of a list of layers; a checked list is the list as it was written."""

    def check(self, value: Any) -> tuple[Mapping[str, Any], ...]:
        found = find_problems(value)
        if found:
            raise make_validation_error(found)
        return tuple({"kind": entry} if isinstance(entry, str) else entry for entry in value)

    def json_schema(self) -> dict[str, Any]:
        name = {"type": "string", "description": "Name of the layer."}
        names = {
            "description": "Layer or input column to read, or a list of these; by default the previous layer.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
        }
        kinds, *layers = KerasObjectField("layers").json_schema()["anyOf"]
        shared = {
            "type": "object",
            "description": "Apply an earlier layer again, with the same weights.",
            "properties": {"kind": {"const": SHARED, "description": "Shared layer."}, "layer": name},
            "required": ["kind", "layer"],
            "additionalProperties": False,
        }
        each = [
            {**layer, "properties": {**layer["properties"], "name": name, "from": names}} for layer in [*layers, shared]
        ]
        return {"type": "array", "items": {"anyOf": [kinds, *each]}, "minItems": 1}


def make_validation_error(found: Sequence[Problem], beside: ValidationError | None = None) -> ValidationError:
    """All problems as one error, each at its place, with those of another error before them."""
    details = [add_suggestion(detail) for detail in beside.errors(include_url=False)] if beside else []
    details += [
        InitErrorDetails(type=fault("layers", text, hint), loc=where, input=None) for where, text, hint in found
    ]
    return ValidationError.from_exception_data("layers", details)


def read_layers(layers: Sequence[Any]) -> tuple[GraphLayer, ...]:
    """The layers of a checked list."""
    taken = {entry["name"] for entry in layers if isinstance(entry, Mapping) and "name" in entry}
    return tuple(_read_layer(index, entry, taken) for index, entry in enumerate(layers))


def _read_layer(index: int, entry: Any, taken: set[str]) -> GraphLayer:
    if isinstance(entry, str):
        entry = {"kind": entry}
    name = entry.get("name") or _free_name(f"{entry['kind']}_{index}", taken)
    sources = entry.get("from")
    options = {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    shares = str(options.pop("layer", "")) if entry["kind"] == SHARED else ""
    return GraphLayer(
        index,
        name,
        entry["kind"],
        options,
        None if sources is None else (sources,) if isinstance(sources, str) else tuple(sources),
        shares,
    )


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def find_problems(layers: Any) -> list[Problem]:
    """Everything that is wrong with a list of layers; names of columns are not known here."""
    if not isinstance(layers, (list, tuple)) or not layers:
        received = "an empty list" if isinstance(layers, (list, tuple)) else format_value(layers)
        return [((), f"expected a list of layers, received {received}.", "Write [{kind: dense, units: 10}].")]
    found: list[Problem] = []
    for index, entry in enumerate(layers):
        found += [((index, *where), text, hint) for where, text, hint in _entry_problems(entry)]
    if not _is_readable(layers):
        return found
    graph = read_layers(layers)
    return [
        *found,
        *_find_duplicates(layers),
        *_find_wrong_shares(graph),
        *_find_wrong_counts(graph),
        *_find_cycles(graph),
    ]


def _is_readable(layers: Any) -> bool:
    """Whether kinds, names and sources have the right types, so that the whole can be looked at."""
    return (
        isinstance(layers, (list, tuple))
        and len(layers) > 0
        and all(
            isinstance(entry, str)
            or (isinstance(entry, Mapping) and isinstance(entry.get("kind"), str) and not any(_link_problems(entry)))
            for entry in layers
        )
    )


def _entry_problems(entry: Any) -> list[Problem]:
    """What is wrong with one layer by itself."""
    if isinstance(entry, str):
        entry = {"kind": entry}
    if not isinstance(entry, Mapping):
        return [((), f"expected a layer, received {format_value(entry)}.", "Write {kind: dense, units: 10}.")]
    return [*_link_problems(entry), *_kind_problems(entry)]


def _link_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _name_problems(entry)
    yield from _source_problems(entry)


def _name_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    name = entry.get("name", "x")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield (
            ("name",),
            f"expected a name, received {format_value(name)}.",
            "Use letters, digits, dashes and underscores.",
        )


def _source_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    sources = entry.get("from", "x")
    names = [sources] if isinstance(sources, str) else sources
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        yield ("from",), f"expected a name or a list of names, received {format_value(sources)}.", ""


def _kind_problems(entry: Mapping[str, Any]) -> list[Problem]:
    kinds = catalogue.list_kinds("layers")
    if "kind" not in entry:
        return [((), "'kind' is missing.", "Write {kind: dense, units: 10}.")]
    kind, options = entry["kind"], {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    if kind == SHARED:
        return _shared_problems(options)
    if not isinstance(kind, str) or kind not in kinds:
        return [(("kind",), f"no layer {format_value(kind)}.", parts.did_you_mean(str(kind), [*kinds, SHARED]))]
    return catalogue.check_options("layers", kind, options, also=("name", "from"))


def _shared_problems(options: Mapping[str, Any]) -> list[Problem]:
    found: list[Problem] = [
        ((option,), f"shared has no option {quoted(option)}.", "It takes `layer`, `from` and `name`.")
        for option in options
        if option != "layer"
    ]
    if not isinstance(options.get("layer"), str):
        found.append(((), "shared needs the name of a layer.", "Write {kind: shared, layer: NAME, from: ...}."))
    return found


def _find_duplicates(layers: Sequence[Any]) -> list[Problem]:
    first: dict[str, int] = {}
    found: list[Problem] = []
    for index, entry in enumerate(layers):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and first.setdefault(name, index) != index:
            found.append(
                ((index, "name"), f"layer {first[name]} is called {quoted(name)} too.", "Give each its own name.")
            )
    return found


def _find_wrong_shares(graph: Sequence[GraphLayer]) -> Iterator[Problem]:
    layers = {layer.name: layer for layer in graph}
    own = [layer.name for layer in graph if layer.kind != SHARED]
    for layer in graph:
        if layer.kind != SHARED or not layer.shared_layer or layer.shared_layer in own:
            continue
        if layer.shared_layer in layers:
            hint = f"Write layer: {layers[layer.shared_layer].shared_layer}."
            yield (layer.index, "layer"), f"{quoted(layer.shared_layer)} is shared itself.", hint
        else:
            hint = parts.did_you_mean(layer.shared_layer, own)
            yield (layer.index, "layer"), f"no layer is called {quoted(layer.shared_layer)}.", hint


def _find_wrong_counts(graph: Sequence[GraphLayer]) -> Iterator[Problem]:
    """Layers whose number of inputs does not fit their kind."""
    kinds = {layer.name: layer.kind for layer in graph}
    for layer in graph:
        kind = kinds.get(layer.shared_layer, "") if layer.kind == SHARED else layer.kind
        if kind not in catalogue.list_kinds("layers"):
            continue
        least, most = _get_input_counts(kind)
        given = len(layer.sources or ("",))
        where: tuple[str | int, ...] = (layer.index, "from") if layer.sources else (layer.index,)
        if given < least:
            wanted = f"{least} inputs" if most == least else f"at least {least} inputs"
            yield where, f"{kind} takes {wanted}, received {given}.", "Write from: [NAME, NAME]."
        elif most is not None and given > most:
            wanted = "one input" if most == 1 else f"at most {most} inputs"
            hint = "Put `add` or `concatenate` before it." if most == 1 else ""
            yield where, f"{kind} takes {wanted}, received {given}.", hint


def _get_input_counts(kind: str) -> tuple[int, int | None]:
    if kind in _INPUT_COUNTS:
        return _INPUT_COUNTS[kind]
    return (1, 1) if catalogue.get_entry("layers", kind)["inputs"] == "one" else (2, None)


def _find_cycles(graph: Sequence[GraphLayer]) -> Iterator[Problem]:
    """One problem for each cycle, which names its members."""
    links = _links(graph)
    while True:
        try:
            TopologicalSorter(links).prepare()
            return
        except CycleError as error:
            way = error.args[1]  # each feeds the next; the last is the first
            start = min(range(len(way) - 1), key=lambda position: way[position])
            way = way[start:-1] + way[:start] + [way[start]]
            names = " -> ".join(graph[index].name for index in way)
            yield (
                (way[0], "from"),
                f"these layers feed each other in a circle: {names}.",
                "Break it at one `from`.",
            )
            links[way[0]] = []


def _links(graph: Sequence[GraphLayer]) -> dict[int, list[int]]:
    """The layers that each layer reads, by position; columns are left out."""
    position = {layer.name: layer.index for layer in reversed(graph)}
    return {layer.index: [position[name] for name in get_sources(layer, graph) if name in position] for layer in graph}


def get_sources(layer: GraphLayer, graph: Sequence[GraphLayer]) -> tuple[str, ...]:
    """Names a layer reads; none for a first layer without `from`."""
    if layer.sources is not None:
        return layer.sources
    return (graph[layer.index - 1].name,) if layer.index else ()


def sort_layers(graph: Sequence[GraphLayer]) -> list[GraphLayer]:
    """The layers so that each stands behind those it reads, otherwise as written."""
    sorter = TopologicalSorter(_links(graph))
    sorter.prepare()
    order: list[int] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return [graph[index] for index in order]


def find_output_problems(layers: Any, outputs: Any) -> list[Problem]:
    """What is wrong with `outputs`, and layers that no output depends on; places start at the options."""
    if not _is_readable(layers):
        return []
    graph = read_layers(layers)
    names = [layer.name for layer in graph]
    if outputs is None:
        return _find_unread(graph, [names[-1]])
    if not isinstance(outputs, Mapping) or not all(isinstance(name, str) for name in outputs.values()):
        return []
    found: list[Problem] = [
        (("outputs", target), f"no layer is called {quoted(name)}.", parts.did_you_mean(name, names))
        for target, name in outputs.items()
        if name not in names
    ]
    return found or _find_unread(graph, list(outputs.values()))


def _find_unread(graph: Sequence[GraphLayer], outputs: Sequence[str]) -> list[Problem]:
    links = _links(graph)
    read_by_output: set[int] = set()
    waiting = [layer.index for layer in graph if layer.name in outputs]
    while waiting:
        index = waiting.pop()
        if index not in read_by_output:
            read_by_output.add(index)
            waiting += links[index]
    return [
        (
            ("layers", layer.index),
            f"no output depends on {quoted(layer.name)}.",
            _suggest_source(layer.name, graph) or "Read it in a `from`, or leave it out.",
        )
        for layer in graph
        if layer.index not in read_by_output
    ]


def _suggest_source(name: str, graph: Sequence[GraphLayer]) -> str:
    """A hint at a source that is no layer and nearly the name of one; it could also be a column's."""
    known = {layer.name for layer in graph}
    strangers = {source for layer in graph for source in layer.sources or () if source not in known}
    near = parts.nearest(name, sorted(strangers))
    return f"Was it meant by `from: {near}`?" if near else ""
