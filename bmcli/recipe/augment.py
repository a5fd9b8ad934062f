"""Section `data.augment`: the augmentations of each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.fields import Kind
from bmcli.recipe.problems import Problem

Augmentations = Mapping[str, Sequence[Kind]]
"""Augmentations by input, or by kind for all inputs of that kind that are not named themselves."""


def resolve_by_input(augment: Augmentations, kinds: Mapping[str, str]) -> dict[str, tuple[str, Sequence[Kind]]]:
    """Resolve, for each augmented input, the key of `augment` that applies, and its augmentations.

    Args:
        kinds: The kind of each input by its name.
    """
    keys = {name: name if name in augment else kind for name, kind in kinds.items()}
    return {name: (key, augment[key]) for name, key in keys.items() if augment.get(key)}


def find_order_problem(augment: Augmentations) -> Problem | None:
    """Find a mistake that does not depend on the data: mixing must come last, and be the same for all inputs."""
    mixing: list[tuple[str, Kind]] = []
    for name, kinds in augment.items():
        for position, each in enumerate(kinds):
            if parts.load("augmentations", each.kind).MIXES:
                mixing.append((name, each))
                if position < len(kinds) - 1:
                    message = f"{each.kind} mixes examples, so it must be the last augmentation."
                    return Problem((name, position), message, "Move it to the end.")
    for name, each in mixing[1:]:
        first_name, first = mixing[0]
        if each != first:
            message = f"{each.kind} differs from that of {quoted(first_name)}, but all inputs are mixed in one way."
            return Problem((name,), message, f"Use the same options as for {quoted(first_name)}.")
    return None


def find_input_problem(augment: Augmentations, kinds: Mapping[str, str]) -> Problem | None:
    """Find an unknown input, or one that its augmentation does not suit.

    Args:
        kinds: The kind of each input by its name.
    """
    for name, changes in augment.items():
        kind = kinds.get(name, name)
        if kind not in kinds.values():
            return Problem((name,), f"no input {quoted(name)}.", parts.did_you_mean(name, kinds))
        for position, each in enumerate(changes):
            able, form = parts.load("augmentations", each.kind).INPUTS, parts.load("inputs", kind).Options.AUGMENTED_AS
            if form not in able:
                suitable = [n for n in parts.names("augmentations") if form in parts.load("augmentations", n).INPUTS]
                hint = f"Suitable for {kind}: {', '.join(suitable)}." if suitable else f"Nothing changes {kind}."
                message = f"{each.kind} changes inputs of kind {' or '.join(able)}, not {kind}."
                return Problem((name, position), message, hint)
    mixes = [
        key for key, changes in resolve_by_input(augment, kinds).values() if any(c.kind == "cutmix" for c in changes)
    ]
    if len(mixes) > 1:
        message = "cutmix can mix one input only, since the areas in two inputs could differ."
        return Problem((mixes[1],), message, "Keep it for one of them.")
    return None
