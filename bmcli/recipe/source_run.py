"""Fill in what a recipe leaves to the run that its backbone comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from bmcli.advice import make_command
from bmcli.disk import format_path
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import quoted
from bmcli.recipe import nodes
from bmcli.recipe.fields import PartField, dump
from bmcli.recipe.nodes import KeyPath, Node, format_value
from bmcli.recipe.paths import join_steps
from bmcli.recipe.schema import Recipe
from bmcli.run_folders import LOCK, find_folder, get_default_root, resolve_latest


def fill_from_run(tree: Node, load: Callable[[str], Recipe]) -> Node:
    """Fill in the model and the inputs of a recipe whose `model.from` names a run.

    Args:
        load: Loads the recipe of a file.

    Raises:
        BmcliError: There is no such run, or the recipe contradicts it; every contradiction at once.
    """
    model, data = tree.find(("model",)), tree.find(("data",))
    named = tree.find(("model", "from"))
    # A mapping is that of a run's own recipe, which is complete.
    if model is None or named is None or named.value is None or isinstance(named.value, dict):
        return tree
    if not isinstance(named.value, str) or not named.value:
        message = f"expected a run, received {format_value(named.plain())}."
        raise BmcliError(Fault(message, "model.from", named.place, "Write from: runs/NAME."))
    folder = _find_run(named)
    source = load(str(folder / LOCK)).after_training()
    completion = _Completion(format_path(folder), named)
    own = replace(model, value={key: node for key, node in model.value.items() if key != "from"})
    options = completion.complete_part(own, "models", _without_source(dump(source.model)), ("model",))
    sections = {"model": replace(options, value={"from": replace(named, value=str(folder)), **options.value})}
    if data is not None and isinstance(data.value, dict) and source.data.inputs is not None:
        completion.refuse_targets(tree.find(("data", "targets")), source.data.inputs)
        inputs = completion.complete_inputs(data.value.get("inputs"), dump(source.data.inputs))
        crosses = completion.make_node(dump(source.data.crosses))
        sections["data"] = replace(data, value={"crosses": crosses, **data.value, "inputs": inputs})
    if completion.faults:
        raise BmcliError(*completion.faults)
    return replace(tree, value={**tree.value, **sections})


def _without_source(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "from"}


def _find_run(named: Node) -> Path:
    """Find the folder of the run that a recipe names."""
    folder = find_folder(get_default_root(), named.value)
    try:
        if folder is not None:
            return resolve_latest(folder)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="model.from", place=named.place) for fault in error.faults)) from None
    message = f"no run {quoted(named.value)}: neither a run directory nor a name in {get_default_root()}."
    raise BmcliError(Fault(message, "model.from", named.place, f"{make_command('train', 'RECIPE')} makes one."))


@dataclass
class _Completion:
    """Completion of parts of a recipe by those of a run.

    Args:
        run: The run in messages.
        named: The value of `model.from`, whose place filled values have.
        faults: Contradictions found so far.
    """

    run: str
    named: Node
    faults: list[Fault] = field(default_factory=list)

    def make_node(self, value: Any) -> Node:
        """Make the tree of a plain value."""
        return nodes.parse_tree(nodes.write_scalar(value), self.named.place.file, Path()).place_at(self.named)

    def complete_part(self, written: Node | None, room: str, expected: Mapping[str, Any], path: KeyPath) -> Node:
        """Complete the options of a part; one that differs from the run's is a fault.

        Args:
            expected: The options of the run, as plain values.
        """
        filled = self.make_node(expected)
        if written is None:
            return filled
        own = written.value if isinstance(written.value, dict) else {"kind": written}
        completed = replace(written, value={**filled.value, **own})
        if completed.value["kind"].plain() != expected["kind"]:
            self._add_fault(own["kind"], (*path, "kind"), expected["kind"])
            return completed
        try:
            checked = dump(PartField(room).check(completed.plain()))
        except (PydanticCustomError, ValidationError):
            return completed  # its faults are found when the whole recipe is validated
        for key, node in own.items():
            if checked[key] != expected[key]:
                self._add_fault(node, (*path, key), expected[key])
        return completed

    def complete_inputs(self, written: Node | None, expected: Mapping[str, Any]) -> Node:
        """Complete the inputs, which must be those of the run."""
        if written is None or not isinstance(written.value, dict):
            return self.make_node(expected)
        if set(written.value) != set(expected):
            received = ", ".join(written.value)
            message = f"expected the inputs of {self.run}, which are {', '.join(expected)}; received {received}."
            self.faults.append(Fault(message, "data.inputs", written.place, "Leave them out; they come from the run."))
            return written
        # In the order of the run, in which the network joins them.
        parts = {
            name: self.complete_part(written.value[name], "inputs", options, ("data", "inputs", name))
            for name, options in expected.items()
        }
        return replace(written, value=parts)

    def refuse_targets(self, targets: Node | None, inputs: Mapping[str, Any]) -> None:
        """Refuse a target that the run takes as an input."""
        for name, node in targets.value.items() if targets is not None and isinstance(targets.value, dict) else ():
            if name in inputs:
                message = f"column {quoted(name)} is an input of {self.run}, whose backbone needs it to predict."
                advice = f"Train that run without it, by drop: [{nodes.write_scalar(name)}]."
                self.faults.append(Fault(message, join_steps(("data", "targets", name)), node.place, advice))

    def _add_fault(self, node: Node, path: KeyPath, expected: Any) -> None:
        received = format_value(node.plain())
        message = f"received {received}, but {self.run} was trained with {format_value(expected)}."
        self.faults.append(Fault(message, join_steps(path), node.place, "Leave it out; it comes from the run."))
