"""Texts that a language model writes, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bmcli.answers import Writing
from bmcli.objectives import open_answers
from bmcli.specs import DataSpec

Ending = Literal["end", "stop", "length"]
"""Why a text ends: the model wrote its end, a text at which to stop, or the largest number of tokens."""


class Sampling(NamedTuple):
    """How the next token is chosen; in a graph, each value is a scalar tensor.

    Args:
        temperature: Divisor of the logits; 0 takes the most probable token.
        top_k: Number of the most probable tokens that are drawn from (Fan et al. 2018); 0 for all.
        top_p: Smallest share of the probability that the tokens have that are drawn from, the most probable first
            (Holtzman et al. 2020); 1 for all.
        repetition_penalty: Divisor of positive logits, and factor of negative ones, of tokens that are in the text
            already (Keskar et al. 2019, section 4.1); 1 for none.
    """

    temperature: Any = 1.0
    top_k: Any = 0
    top_p: Any = 1.0
    repetition_penalty: Any = 1.0


@dataclass(frozen=True)
class WrittenText:
    """A text that a model has written.

    Args:
        text: Without its prompt, and with the blank between both where tokens are words.
        tokens: Their number, without the one of the end.
        ending: Why it ends.
    """

    text: str
    tokens: int
    ending: Ending


@dataclass(frozen=True)
class TextLimits:
    """Where texts end.

    Args:
        tokens: Largest number of tokens.
        stop: Texts before which a text ends.
    """

    tokens: int
    stop: tuple[str, ...] = ()


def find_writing(spec: DataSpec) -> tuple[str, Writing] | None:
    """Find the output of a network that writes texts, and how; None if it writes none."""
    for name, answers in open_answers(spec).items():
        if answers.writing is not None:
            return name, answers.writing
    return None
