"""What the winner of a search gains over the recipe as it is written, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bmcli.evaluation.intervals import Difference
from bmcli.number_texts import write_number, write_signed

_MANY = 5  # differences from which on one may well exclude 0 by chance, and numbers hide the sentence


@dataclass(frozen=True)
class Improvement:
    """The winner of a search against the recipe as it is written.

    Args:
        split: Name of the split that both were evaluated on.
        rows: Number of its rows.
        objective: Metric by which the search chose; it may be no metric of an evaluation.
        differences: Of each metric, the recipe as it is written first.
    """

    split: str
    rows: int
    objective: str
    differences: Mapping[str, Difference]

    @property
    def better(self) -> list[Difference]:
        """Metrics in which the winner is better, with an interval that excludes 0."""
        return [each for each in self.differences.values() if each.better == "second"]

    @property
    def worse(self) -> list[Difference]:
        """Metrics in which the winner is worse, with an interval that excludes 0."""
        return [each for each in self.differences.values() if each.better == "first"]

    def describe(self) -> tuple[str, ...]:
        """Describe what the search was worth, in sentences; losses come first."""
        on = f"On the {self.rows:,} {self.split} rows the winner"
        tested = [each for each in self.differences.values() if each.interval and each.direction]
        if not tested:
            return (f"{on} cannot be distinguished from the recipe as it is written: no difference has an interval.",)
        if not self.better and not self.worse:
            return (f"{on} is no better than the recipe as it is written, within noise.",)
        sentences = []
        if self.worse:
            sentences.append(f"{on} is worse than the recipe as it is written in {_list_changes(self.worse)}.")
        if self.better:
            words = "It is better" if sentences else f"{on} is better than the recipe as it is written"
            sentences.append(f"{words} in {_list_changes(self.better)}.")
        else:
            sentences.append("It is better in no metric, within noise.")
        chosen = self.differences.get(self.objective)
        if chosen is not None and self.better and not chosen.better:
            sentences.append(f"In {self.objective}, by which the search chose, it is no better, within noise.")
        others = len(tested) - len(self.better) - len(self.worse)
        if others:
            sentences.append(f"Of {len(tested)} differences {others} {'is' if others == 1 else 'are'} within noise.")
        if len(tested) >= _MANY:
            sentences.append(_describe_chance(tested))
        return tuple(sentences)

    def to_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "rows": self.rows,
            "differences": {name: each.to_json() for name, each in self.differences.items()},
            "better": [each.metric for each in self.better],
            "worse": [each.metric for each in self.worse],
        }


def _describe_chance(tested: Sequence[Difference]) -> str:
    """Describe how many of several intervals exclude 0 although there is no difference."""
    count = max(1, round(sum(1 - each.interval.level for each in tested if each.interval is not None)))
    return (
        f"By chance alone, about {count} of {len(tested)} such intervals {'excludes' if count == 1 else 'exclude'} 0."
    )


def _list_changes(differences: Sequence[Difference]) -> str:
    """List metrics, a few of them with both values and the interval of the difference, as part of a sentence."""
    parts = [_format_change(each) if len(differences) < _MANY else each.metric for each in differences]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _format_change(difference: Difference) -> str:
    interval = difference.interval
    assert interval is not None, "a metric without an interval is neither better nor worse"
    return (
        f"{difference.metric} ({write_number(difference.second)} instead of {write_number(difference.first)}; "
        f"{interval.percent} interval of the difference {write_signed(interval.low)} to {write_signed(interval.high)})"
    )
