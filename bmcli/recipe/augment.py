"""Which augmentations change which inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.fields import Kind

Augmentations = Mapping[str, Sequence[Kind]]
"""Augmentations by input, or by a kind of input for all inputs of that kind that are not named themselves; none leave
an input as it is."""

Problem = tuple[tuple[str | int, ...], str, str]
"""Where in `data.augment`, what is wrong, what to do."""


def resolve_by_input(augment: Augmentations, kinds: Mapping[str, str]) -> dict[str, tuple[str, Sequence[Kind]]]:
    """For each input that changes, the key of `augment` that says so, and what changes it.

    Args:
        kinds: The kind of each input by its name.
    """
    keys = {name: name if name in augment else kind for name, kind in kinds.items()}
    return {name: (key, augment[key]) for name, key in keys.items() if augment.get(key)}


def find_order_problem(augment: Augmentations) -> Problem | None:
    """What is wrong whatever the data: mixing examples comes last, and is one thing for the whole example."""
    mixing: list[tuple[str, Kind]] = []
    for name, kinds in augment.items():
        for position, each in enumerate(kinds):
            if parts.load("augmentations", each.kind).MIXES:
                mixing.append((name, each))
                if position < len(kinds) - 1:
                    return (name, position), f"{each.kind} mixes examples, so it comes last.", "Move it to the end."
    for name, each in mixing[1:]:
        first_name, first = mixing[0]
        if each != first:
            return (
                (name,),
                f"an example is mixed in one way, but {quoted(first_name)} says otherwise.",
                "Write the same.",
            )
    return None


def find_input_problem(augment: Augmentations, kinds: Mapping[str, str]) -> Problem | None:
    """What is wrong beside these inputs: a name that none has, or a kind that cannot be changed so.

    Args:
        kinds: The kind of each input by its name.
    """
    for name, changes in augment.items():
        kind = kinds.get(name, name)
        if kind not in kinds.values():
            return (name,), f"no input {quoted(name)}.", parts.did_you_mean(name, kinds)
        for position, each in enumerate(changes):
            able = parts.load("augmentations", each.kind).INPUTS
            if kind not in able:
                suitable = [n for n in parts.names("augmentations") if kind in parts.load("augmentations", n).INPUTS]
                hint = f"Those for {kind}: {', '.join(suitable)}." if suitable else f"Nothing changes {kind}."
                return (name, position), f"{each.kind} changes inputs of kind {' or '.join(able)}, not {kind}.", hint
    mixes = [
        key for key, changes in resolve_by_input(augment, kinds).values() if any(c.kind == "cutmix" for c in changes)
    ]
    if len(mixes) > 1:
        return (mixes[1],), "cutmix mixes one input, since the areas in two could differ.", "Leave it in one of them."
    return None
