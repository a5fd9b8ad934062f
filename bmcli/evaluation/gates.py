"""Gates: limits that a recipe sets on metrics, such as `accuracy: ">= 0.90"`."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bmcli import parts
from bmcli.errors import BmcliError, Fault
from bmcli.number_texts import write_number

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_GATE = re.compile(r"(>=|<=|>|<) ?(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


@dataclass(frozen=True)
class Gate:
    """A comparison (`>=`, `<=`, `>` or `<`) with a limit."""

    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Parse a gate such as `">= 0.90"`; ValueError for any other text."""
        match = _GATE.fullmatch(text)
        if not match:
            raise ValueError(f"Expected a gate such as '>= 0.9', received {text!r}")
        return cls(match[1], float(match[2]))

    def holds(self, value: float) -> bool:
        return bool(_COMPARE[self.comparison](value, self.limit))

    def __str__(self) -> str:
        return f"{self.comparison} {self.limit:.15g}"


@dataclass(frozen=True)
class MissedGate:
    """A gate that a metric does not meet; `value` is None where the metric is undefined on the rows."""

    metric: str
    gate: Gate
    value: float | None

    @property
    def limit(self) -> float:
        return self.gate.limit

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric} is undefined, expected {self.gate}"
        shown = write_number(self.value)
        # 0.89999 must not be shown as a 0.9 that misses its gate of 0.9.
        if self.gate.holds(float(shown.replace(",", ""))):
            shown = repr(self.value)
        return f"{self.metric} is {shown}, expected {self.gate}"


def check_names(gates: Mapping[str, str], names: Collection[str]) -> None:
    """Reject gates on metrics that the evaluation does not compute.

    Args:
        gates: As in the recipe, text by metric name.
        names: Metrics that will be computed, from `metrics.metric_names`.

    Raises:
        BmcliError: With a fault at `evaluate.gates.<name>` for every unknown name.
    """
    faults = [
        Fault(
            f"no metric '{name}' for these targets.",
            path=f"evaluate.gates.{name}",
            suggestion=parts.did_you_mean(name, names) or "Known: " + ", ".join(sorted(names)) + ".",
        )
        for name in gates
        if name not in names
    ]
    if faults:
        raise BmcliError(*faults)


def find_missed_gates(gates: Mapping[str, str], metrics: Mapping[str, float]) -> tuple[MissedGate, ...]:
    """Find the gates that are missed, in the order of the recipe; an undefined metric misses its gate."""
    parsed = {name: Gate.parse(text) for name, text in gates.items()}
    return tuple(
        MissedGate(name, gate, metrics.get(name))
        for name, gate in parsed.items()
        if name not in metrics or not gate.holds(metrics[name])
    )
