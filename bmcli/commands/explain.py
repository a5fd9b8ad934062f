"""`bmcli explain`: why a run's model answers as it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import training
from bmcli.commands.evaluate import Opened, Tell, elsewhere, find_run, open_run, predicted
from bmcli.errors import BmcliError
from bmcli.recipe.load import load
from bmcli.runs import Run
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    from bmcli.evaluation.explanation_record import Explanation
    from bmcli.networks.network import Network


@dataclass(frozen=True)
class Asked:
    """How closely to look.

    Args:
        split: The rows to explain; None for those of the validation, or of the test if there are none.
        rows: To measure importance on, at most.
        repeats: How often each column is dealt anew among the rows.
        examples: Of the most wrong, and of the most doubtful.
    """

    split: str | None
    rows: int
    repeats: int
    examples: int


@dataclass(frozen=True)
class Found:
    run: Run
    explanation: Explanation


def explain(target: str, asked: Asked, root: Path, cache: Path, told: Tell) -> Found:
    """Explains a run, writes `explanation.json`, and the report anew.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        told: Hears what is damaged and left out of the report.
    """
    run = find_run(target, root)
    loaded = load(str(run.lock), elsewhere(()))
    try:
        opened = open_run(loaded, run, cache)
        explanation = _explained(opened, asked)
        run.write(run.explanation, explanation.to_json())
        on = loaded.recipe.evaluate.split
        if opened.prepared.spec.counts[on]:
            opened.write_report(on, told)
    except BmcliError as error:
        raise loaded.locate(error) from None
    return Found(run, explanation)


def _explained(opened: Opened, asked: Asked) -> Explanation:
    from bmcli.explanation.explain import Subject
    from bmcli.explanation.explain import explain as look_into

    recipe, spec, train = opened.recipe, opened.prepared.spec, opened.prepared.split("train")
    on = asked.split or next(split for split in (*SPLITS[1:], SPLITS[0]) if spec.counts[split])
    if not spec.counts[on]:
        raise BmcliError(f"there are no {on} rows to explain.", suggestion="Name another split with --split.")

    def random() -> Network:
        return training.built(recipe, spec, train.targets, opened.placement)

    judged = predicted(recipe, opened.network, spec, opened.prepared.split(on), on, opened.placement)
    subject = Subject(opened.network, random, spec, recipe.quantiles(), train)
    return look_into(subject, judged, asked.rows, asked.repeats, asked.examples)
