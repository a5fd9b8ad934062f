"""Graphs of Keras layers in a recipe, parsed, checked and sorted without importing Keras.

A layer is a mapping with a `kind`, Keras' options of that kind, and optionally a `name` and the source of its input,
`from`: the name of a layer or of an input column, or a list of names.
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
from bmcli.recipe.fields import FieldType, KerasObjectField, add_suggestion, fault
from bmcli.recipe.nodes import KeyPath, format_value
from bmcli.recipe.problems import Problem

SHARED = "shared"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_OWN_KEYS = ("kind", "name", "from")

# Minimum and maximum number of input tensors of layers that take several.
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
        name: The name in the recipe, or one made from kind and position.
        kind: The Keras layer, or `shared`.
        options: Options of the Keras layer.
        sources: Names of layers or columns; None is the previous layer, or the only input for the first layer.
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
    """List of layers; a checked list is the list as it was written, with kinds instead of Keras' names of classes."""

    def check(self, value: Any) -> tuple[Mapping[str, Any], ...]:
        if isinstance(value, (list, tuple)):
            value = [_replace_class_names(entry) for entry in value]
        problems = find_problems(value)
        if problems:
            raise make_validation_error(problems)
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


def _replace_class_names(entry: Any) -> Any:
    # The `layer` of a shared layer is a name that the user chose.
    is_shared = isinstance(entry, Mapping) and entry.get("kind") == SHARED
    return entry if is_shared else catalogue.replace_class_names("layers", entry)


def make_validation_error(problems: Sequence[Problem], first: ValidationError | None = None) -> ValidationError:
    """Make one error of all problems, each at its place.

    Args:
        first: Error whose details precede the problems.
    """
    details = [add_suggestion(detail) for detail in first.errors(include_url=False)] if first else []
    details += [
        InitErrorDetails(type=fault("layers", message, suggestion), loc=place, input=None)
        for place, message, suggestion in problems
    ]
    return ValidationError.from_exception_data("layers", details)


def read_layers(layers: Sequence[Any]) -> tuple[GraphLayer, ...]:
    """Read the layers of a checked list."""
    names = {entry["name"] for entry in layers if isinstance(entry, Mapping) and "name" in entry}
    return tuple(_read_layer(index, entry, names) for index, entry in enumerate(layers))


def _read_layer(index: int, entry: Any, names: set[str]) -> GraphLayer:
    if isinstance(entry, str):
        entry = {"kind": entry}
    kind = catalogue.find_kind("layers", entry["kind"])
    name = entry.get("name") or _make_unique_name(f"{kind}_{index}", names)
    sources = entry.get("from")
    options = {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    shared_layer = str(options.pop("layer", "")) if kind == SHARED else ""
    return GraphLayer(
        index,
        name,
        kind,
        options,
        None if sources is None else (sources,) if isinstance(sources, str) else tuple(sources),
        shared_layer,
    )


def _make_unique_name(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    return name


def find_problems(layers: Any) -> list[Problem]:
    """Find every mistake in a list of layers, except in names of columns, which are not known here."""
    if not isinstance(layers, (list, tuple)) or not layers:
        received = "an empty list" if isinstance(layers, (list, tuple)) else format_value(layers)
        return [Problem((), f"expected a list of layers, received {received}.", "Write [{kind: dense, units: 10}].")]
    problems = [problem.below(index) for index, entry in enumerate(layers) for problem in _find_entry_problems(entry)]
    if not _is_readable(layers):
        return problems
    graph = read_layers(layers)
    return [
        *problems,
        *_find_duplicates(layers),
        *_find_wrong_shares(graph),
        *_find_wrong_counts(graph),
        *_find_cycles(graph),
    ]


def _is_readable(layers: Any) -> bool:
    """Whether kinds, names and sources have the right types, so that the graph can be checked as a whole."""
    return (
        isinstance(layers, (list, tuple))
        and len(layers) > 0
        and all(
            isinstance(entry, str)
            or (
                isinstance(entry, Mapping)
                and isinstance(entry.get("kind"), str)
                and not any(_find_link_problems(entry))
            )
            for entry in layers
        )
    )


def _find_entry_problems(entry: Any) -> list[Problem]:
    """Find the mistakes in one layer by itself."""
    if isinstance(entry, str):
        entry = {"kind": entry}
    if not isinstance(entry, Mapping):
        return [Problem((), f"expected a layer, received {format_value(entry)}.", "Write {kind: dense, units: 10}.")]
    return [*_find_link_problems(entry), *_find_kind_problems(entry)]


def _find_link_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Find mistakes in `name` and `from`."""
    name = entry.get("name", "x")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        hint = "Use letters, digits, dashes and underscores."
        yield Problem(("name",), f"expected a name, received {format_value(name)}.", hint)
    sources = entry.get("from", "x")
    names = [sources] if isinstance(sources, str) else sources
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        yield Problem(("from",), f"expected a name or a list of names, received {format_value(sources)}.")


def _find_kind_problems(entry: Mapping[str, Any]) -> list[Problem]:
    kinds = catalogue.list_kinds("layers")
    if "kind" not in entry:
        return [Problem((), "'kind' is missing.", "Write {kind: dense, units: 10}.")]
    kind, options = entry["kind"], {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    if kind == SHARED:
        return _find_shared_problems(options)
    if not isinstance(kind, str) or kind not in kinds:
        return [Problem(("kind",), f"no layer {format_value(kind)}.", parts.did_you_mean(str(kind), [*kinds, SHARED]))]
    return catalogue.find_option_problems("layers", kind, options, also=("name", "from"))


def _find_shared_problems(options: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem((option,), f"shared has no option {quoted(option)}.", "It takes `layer`, `from` and `name`.")
        for option in options
        if option != "layer"
    ]
    if not isinstance(options.get("layer"), str):
        hint = "Write {kind: shared, layer: NAME, from: ...}."
        problems.append(Problem((), "shared needs the name of a layer.", hint))
    return problems


def _find_duplicates(layers: Sequence[Any]) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for index, entry in enumerate(layers):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and first.setdefault(name, index) != index:
            message = f"layer {first[name]} is called {quoted(name)} too."
            problems.append(Problem((index, "name"), message, "Give each layer a different name."))
    return problems


def _find_wrong_shares(graph: Sequence[GraphLayer]) -> Iterator[Problem]:
    layers = {layer.name: layer for layer in graph}
    unshared = [layer.name for layer in graph if layer.kind != SHARED]
    for layer in graph:
        if layer.kind != SHARED or not layer.shared_layer or layer.shared_layer in unshared:
            continue
        if layer.shared_layer in layers:
            hint = f"Write layer: {layers[layer.shared_layer].shared_layer}."
            yield Problem((layer.index, "layer"), f"{quoted(layer.shared_layer)} is shared itself.", hint)
        else:
            hint = parts.did_you_mean(layer.shared_layer, unshared)
            yield Problem((layer.index, "layer"), f"no layer is called {quoted(layer.shared_layer)}.", hint)


def _find_wrong_counts(graph: Sequence[GraphLayer]) -> Iterator[Problem]:
    """Find layers whose number of inputs does not fit their kind."""
    kinds = {layer.name: layer.kind for layer in graph}
    for layer in graph:
        kind = kinds.get(layer.shared_layer, "") if layer.kind == SHARED else layer.kind
        if kind not in catalogue.list_kinds("layers"):
            continue
        least, most = _get_input_counts(kind)
        count = len(layer.sources or ("",))
        place: KeyPath = (layer.index, "from") if layer.sources else (layer.index,)
        if count < least:
            expected = f"{least} inputs" if most == least else f"at least {least} inputs"
            yield Problem(place, f"{kind} takes {expected}, received {count}.", "Write from: [NAME, NAME].")
        elif most is not None and count > most:
            expected = "one input" if most == 1 else f"at most {most} inputs"
            hint = "Put `add` or `concatenate` before it." if most == 1 else ""
            yield Problem(place, f"{kind} takes {expected}, received {count}.", hint)


def _get_input_counts(kind: str) -> tuple[int, int | None]:
    if kind in _INPUT_COUNTS:
        return _INPUT_COUNTS[kind]
    return (1, 1) if catalogue.get_entry("layers", kind)["inputs"] == "one" else (2, None)


def _find_cycles(graph: Sequence[GraphLayer]) -> Iterator[Problem]:
    """Find cycles; each is one problem that names its members."""
    links = _list_links(graph)
    while True:
        try:
            TopologicalSorter(links).prepare()
            return
        except CycleError as error:
            cycle = error.args[1]  # each layer feeds the next; the last is the first
            # `graphlib` may start anywhere in the cycle; begin with the layer that is written first.
            start = min(range(len(cycle) - 1), key=lambda position: cycle[position])
            cycle = cycle[start:-1] + cycle[:start] + [cycle[start]]
            names = " -> ".join(graph[index].name for index in cycle)
            message = f"these layers feed each other in a circle: {names}."
            yield Problem((cycle[0], "from"), message, "Break it at one `from`.")
            links[cycle[0]] = []  # to find the next cycle


def _list_links(graph: Sequence[GraphLayer]) -> dict[int, list[int]]:
    """The positions of the layers that each layer reads; columns are left out."""
    position = {layer.name: layer.index for layer in reversed(graph)}  # of equal names, which are a fault, the first
    return {layer.index: [position[name] for name in get_sources(layer, graph) if name in position] for layer in graph}


def get_sources(layer: GraphLayer, graph: Sequence[GraphLayer]) -> tuple[str, ...]:
    """The names that a layer reads; none for a first layer without `from`."""
    if layer.sources is not None:
        return layer.sources
    return (graph[layer.index - 1].name,) if layer.index else ()


def sort_layers(graph: Sequence[GraphLayer]) -> list[GraphLayer]:
    """Sort the layers so that each follows those it reads; otherwise the order is as written."""
    sorter = TopologicalSorter(_list_links(graph))
    sorter.prepare()
    order: list[int] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return [graph[index] for index in order]


def find_output_problems(layers: Any, outputs: Any) -> list[Problem]:
    """Find mistakes in `outputs`, and layers that no output depends on; places are below the model's options."""
    if not _is_readable(layers):
        return []
    graph = read_layers(layers)
    names = [layer.name for layer in graph]
    if outputs is None:
        return _find_unread(graph, [names[-1]])
    if not isinstance(outputs, Mapping) or not all(isinstance(name, str) for name in outputs.values()):
        return []
    problems = [
        Problem(("outputs", target), f"no layer is called {quoted(name)}.", parts.did_you_mean(name, names))
        for target, name in outputs.items()
        if name not in names
    ]
    return problems or _find_unread(graph, list(outputs.values()))


def _find_unread(graph: Sequence[GraphLayer], outputs: Sequence[str]) -> list[Problem]:
    links = _list_links(graph)
    read_by_output: set[int] = set()
    waiting = [layer.index for layer in graph if layer.name in outputs]
    while waiting:
        index = waiting.pop()
        if index not in read_by_output:
            read_by_output.add(index)
            waiting += links[index]
    return [
        Problem(
            ("layers", layer.index),
            f"no output depends on {quoted(layer.name)}.",
            _suggest_source(layer.name, graph) or "Read it in a `from`, or leave it out.",
        )
        for layer in graph
        if layer.index not in read_by_output
    ]


def _suggest_source(name: str, graph: Sequence[GraphLayer]) -> str:
    """Suggest a similar source that is the name of no layer; it could also be that of a column."""
    names = {layer.name for layer in graph}
    unknown = {source for layer in graph for source in layer.sources or () if source not in names}
    near = parts.nearest(name, sorted(unknown))
    return f"Does `from: {near}` mean this layer?" if near else ""
