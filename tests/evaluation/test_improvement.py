"""What a search was worth, in words: losses, gains and noise are told apart."""

from __future__ import annotations

import pytest

from bmcli.evaluation.improvement import Improvement
from bmcli.evaluation.intervals import Difference
from bmcli.metrics.info import Direction
from bmcli.metrics.proportions import Interval


def difference(
    name: str, first: float, second: float, bounds: tuple[float, float] | None, direction: Direction = "max"
) -> Difference:
    interval = None if bounds is None else Interval(*bounds, 0.95, "paired bootstrap")
    return Difference(name, first, second, interval, 0.5, "paired bootstrap", "" if interval else "none.", direction)


ACCURACY = difference("accuracy", 0.8, 0.81, (-0.01, 0.03))
WORSE_AUC = difference("roc_auc", 0.809, 0.781, (-0.05, -0.01))
WORSE_LOSS = difference("log_loss", 0.481, 0.63, (0.02, 0.3), "min")
BETTER_LOSS = difference("log_loss", 0.481, 0.43, (-0.08, -0.02), "min")


def describe(*differences: Difference, objective: str = "loss") -> str:
    return " ".join(Improvement("test", 262, objective, {each.metric: each for each in differences}).describe())


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ((ACCURACY,), "On the 262 test rows the winner is no better than the recipe as it is written, within noise."),
        (
            (ACCURACY, WORSE_AUC, WORSE_LOSS),
            "On the 262 test rows the winner is worse than the recipe as it is written in roc_auc (0.781 instead of "
            "0.809; 95 % interval of the difference -0.0500 to -0.0100) and log_loss (0.63 instead of 0.481; 95 % "
            "interval of the difference +0.0200 to +0.3000). It is better in no metric, within noise. Of 3 differences "
            "1 is within noise.",
        ),
        (
            (ACCURACY, BETTER_LOSS),
            "On the 262 test rows the winner is better than the recipe as it is written in log_loss (0.43 instead of "
            "0.481; 95 % interval of the difference -0.0800 to -0.0200). Of 2 differences 1 is within noise.",
        ),
        (
            (difference("accuracy", 0.8, 0.8, None),),
            "On the 262 test rows the winner cannot be distinguished from the recipe as it is written: no difference "
            "has an interval.",
        ),
    ],
)
def test_a_search_is_judged_by_the_intervals(differences: tuple[Difference, ...], words: str) -> None:
    assert describe(*differences) == words


def test_many_intervals_come_with_what_chance_does() -> None:
    others = [difference(f"recall_{number}", 0.8, 0.8, (-0.1, 0.1)) for number in range(39)]
    assert describe(BETTER_LOSS, *others).endswith(
        "Of 40 differences 39 are within noise. By chance alone, about 2 of 40 such intervals exclude 0."
    )


def test_many_gains_are_named_without_numbers() -> None:
    gains = [difference(f"recall_{number}", 0.8, 0.9, (0.05, 0.15)) for number in range(5)]
    assert "in recall_0, recall_1, recall_2, recall_3 and recall_4. By chance" in describe(*gains)


def test_gains_and_losses_are_both_told() -> None:
    text = describe(BETTER_LOSS, WORSE_AUC)
    assert text.index("is worse than the recipe as it is written in roc_auc") < text.index("It is better in log_loss")


def test_a_gain_elsewhere_does_not_hide_that_the_objective_gained_nothing() -> None:
    assert "In accuracy, by which the search chose, it is no better, within noise." in describe(
        ACCURACY, BETTER_LOSS, objective="accuracy"
    )
    assert "by which the search chose" not in describe(ACCURACY, BETTER_LOSS, objective="log_loss")


def test_a_metric_without_a_direction_is_neither_better_nor_worse() -> None:
    found = Improvement("test", 9, "loss", {"count": difference("count", 1.0, 2.0, (0.5, 1.5), "")})
    assert (found.better, found.worse) == ([], [])


def test_the_record_has_every_difference_and_names_gains_and_losses() -> None:
    found = Improvement("test", 262, "loss", {each.metric: each for each in (ACCURACY, WORSE_AUC, BETTER_LOSS)})
    record = found.to_json()
    assert (record["split"], record["rows"]) == ("test", 262)
    assert list(record["differences"]) == ["accuracy", "roc_auc", "log_loss"]
    assert (record["better"], record["worse"]) == (["log_loss"], ["roc_auc"])
    assert record["differences"]["roc_auc"]["interval"]["high"] == -0.01
