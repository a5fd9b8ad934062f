"""Paths of values in a recipe as users write them: `train.optimizer.kind`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bmcli.recipe.nodes import KeyPath

_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."=\s][^."=]*)')


def join_steps(steps: KeyPath) -> str:
    """Format a path: `train.optimizer.kind`; keys with dots, quotes, spaces or `=` are quoted."""
    return ".".join(_format_step(str(step)) for step in steps)


def _format_step(step: str) -> str:
    plain = _STEP.fullmatch(step) and not step.startswith('"')
    return step if plain else '"' + re.sub(r'(["\\])', r"\\\1", step) + '"'


def parse_steps(text: str) -> tuple[KeyPath, str]:
    """Parse the path at the start of a text; returns its steps and the rest. Without a path there are no steps."""
    steps: list[str | int] = []
    position = 0
    while match := _STEP.match(text, position):
        quoted, bare = match[1], match[2]
        position = match.end()
        if bare is None:
            steps.append(re.sub(r"\\(.)", r"\1", quoted))
        else:
            # A longer number is a key: no list is that long, and int() refuses thousands of digits.
            steps.append(int(bare) if bare.isdecimal() and len(bare) < 9 else bare)
        if not text.startswith(".", position):
            return tuple(steps), text[position:]
        position += 1
    return (), text


def replace_overrides(overrides: Iterable[str], changes: Sequence[str]) -> list[str]:
    """Join overrides and changes of them: what a change sets, in part or with more, is left out of the overrides.

    Args:
        overrides, changes: Arguments such as `train.epochs=3`.
    """
    changed = [parse_steps(change)[0] for change in changes]
    kept = [
        override for override in overrides if not any(_overlap(parse_steps(override)[0], steps) for steps in changed)
    ]
    return [*kept, *changes]


def _overlap(first: KeyPath, second: KeyPath) -> bool:
    """Whether one path is the other, or inside of it."""
    return all(one == other for one, other in zip(first, second, strict=False))


def split_path(path: str) -> KeyPath:
    """Split a path such as `model.layers.3.units` into steps; text that is no path is split at its dots."""
    steps, rest = parse_steps(path)
    return steps if steps and not rest else tuple(path.split("."))
