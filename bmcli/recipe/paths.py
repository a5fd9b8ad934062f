"""Ways through a recipe as users write them: `train.optimizer.kind`."""

from __future__ import annotations

import re

from bmcli.recipe.nodes import KeyPath

_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."=\s][^."=]*)')


def join_steps(steps: KeyPath) -> str:
    """A way as users write it: `train.optimizer.kind`; keys with dots and the like stand in quotes."""
    return ".".join(_format_step(str(step)) for step in steps)


def _format_step(step: str) -> str:
    plain = _STEP.fullmatch(step) and not step.startswith('"')
    return step if plain else '"' + re.sub(r'(["\\])', r"\\\1", step) + '"'


def parse_steps(text: str) -> tuple[KeyPath, str]:
    """The steps that a text begins with and the rest of it; no steps if it does not begin with a path."""
    steps: list[str | int] = []
    position = 0
    while match := _STEP.match(text, position):
        quoted, bare = match[1], match[2]
        position = match.end()
        if bare is None:
            steps.append(re.sub(r"\\(.)", r"\1", quoted))
        else:
            steps.append(int(bare) if bare.isdecimal() and len(bare) < 9 else bare)
        if not text.startswith(".", position):
            return tuple(steps), text[position:]
        position += 1
    return (), text


def split_path(path: str) -> KeyPath:
    """`model.layers.3.units` as steps; a key with dots stands in quotes. What is no such path is one step."""
    steps, rest = parse_steps(path)
    return steps if steps and not rest else tuple(path.split("."))
