"""Limits of the differences between an artefact and its model follow from use and from arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.answers import Answers
from bmcli.answers.classes import CategoryAnswers
from bmcli.answers.numbers import NumberAnswers
from bmcli.export import agreement
from bmcli.export.agreement import Limits, OutputComparison, resolve_limits
from bmcli.recipe.export import VerifyOptions
from bmcli.specs import Column, DataSpec, OutputSpec

from .conftest import exported, trained

SPEC = DataSpec((), (), {}, "", "")
NUMBER = NumberAnswers(OutputSpec("price", "regression", ()), Column("price", "number", (), "float32"))
CLASS = CategoryAnswers(
    OutputSpec("kind", "classification", (2,), names=("a", "b")), Column("kind", "category", (), "int32")
)
DRAWN = np.random.default_rng(0)


def compared(
    answers: Answers, expected: np.ndarray, predicted: np.ndarray, precision: Any = "float32", magnitude: float = 1.0
) -> tuple[Limits, OutputComparison, int]:
    """Limits, the comparison, and the number of rows with another answer."""
    limits = resolve_limits(VerifyOptions(), precision, SPEC)
    differences = answers.measure_differences(expected, predicted, expected)
    same = answers.agree(expected, predicted, differences, limits.tolerance)
    output = agreement.compare_output(answers, expected, predicted, float(differences.max()), magnitude, limits)
    return limits, output, int((~same).sum())


def failures(found: tuple[Limits, OutputComparison, int], rows: int) -> list[str]:
    limits, output, differing = found
    return list(agreement.list_failures(limits, {"price": output}, {}, rows, differing))


def test_numbers_of_few_levels_over_a_long_tail_are_rejected() -> None:
    prices = np.exp(np.random.default_rng(0).normal(10, 2.5, 500))
    step = prices.max() / 255
    coarse = np.round(prices / step) * step  # as integers of 8 bits over the whole range
    assert len(np.unique(coarse)) < 60
    assert np.median(np.abs(coarse / prices - 1)) > 0.5
    assert np.mean(np.abs(coarse - prices) <= 0.1 * prices.std()) > 0.99, "standard deviations would accept them"
    found = failures(compared(NUMBER, prices, coarse, "int8"), 500)
    assert any("decisions agree" in each for each in found)


def test_numbers_that_follow_the_model_less_than_a_person_needs_are_rejected_by_r2() -> None:
    prices = DRAWN.normal(1000, 10, 500)
    noisy = prices + 1.15 * np.sign(DRAWN.normal(size=500))  # within a tenth of the interquartile range, every one
    found = compared(NUMBER, prices, noisy, "int8")
    assert found[2] == 0
    (failure,) = failures(found, 500)
    assert "R2 of 'price' with the model's predictions as truth is 0.98" in failure


def test_numbers_in_the_tail_are_compared_by_their_distance_from_the_median() -> None:
    prices = np.exp(DRAWN.normal(10, 1.5, 500))
    assert failures(compared(NUMBER, prices, prices * 1.03, "int8"), 500) == []
    years = DRAWN.normal(2000, 5, 500)  # 3 % of a year would be 60 years
    assert failures(compared(NUMBER, years, years * 1.03, "int8"), 500) != []


@pytest.mark.parametrize("constant", [0.0, 5.0, -3.0])
def test_equal_predictions_have_a_unit(constant: float) -> None:
    same = np.full(20, constant)
    limits, output, differing = compared(NUMBER, same, same * (1 + 1e-9))
    assert (differing, output.r2) == (0, None)
    assert failures((limits, output, differing), 20) == []
    assert compared(NUMBER, same, same + 1)[2] == 20


def test_the_limit_of_a_difference_grows_with_the_logits() -> None:
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1]], "float32")
    off = probabilities + np.float32(2.8e-4) * np.array([1, -1], "float32")
    assert failures(compared(CLASS, probabilities, off, magnitude=5), 2) != []
    assert failures(compared(CLASS, probabilities, off, magnitude=40), 2) == []
    _, output, _ = compared(CLASS, probabilities, off, magnitude=40)
    assert output.limit == pytest.approx(4e-4)
    far = probabilities + np.float32(0.02) * np.array([1, -1], "float32")
    assert failures(compared(CLASS, probabilities, far, magnitude=1e9), 2) != [], "size is no excuse for a percent"


def test_the_limit_of_numbers_grows_with_their_distance_from_zero() -> None:
    seconds = 1.7e9 + DRAWN.uniform(0, 1e4, 500)
    rounded = seconds.astype("float32").astype("float64")  # to 128 seconds
    _, output, _ = compared(NUMBER, seconds, seconds)
    assert output.limit == 0.01
    assert np.abs(rounded - seconds).max() / np.subtract(*np.quantile(seconds, (0.75, 0.25))) > 1e-4
    assert compared(NUMBER, 2000 + DRAWN.normal(0, 5, 500), np.zeros(500))[1].limit == pytest.approx(0.003, rel=0.3)


def test_limits_and_spared_rows_are_told_in_words() -> None:
    limits, output, _ = compared(NUMBER, np.arange(100.0), np.arange(100.0) + 0.1, "int8")
    sentences = list(agreement.summarize(limits, {"price": output}, {"r2": (0.9, 0.895)}, 100, 1, ["a small one"]))
    assert sentences == [
        "99 of 100 rows have the same answer, 99.00%; at least 99.00%, or all but 1 row.",
        "'price': the same answer is a number within 0.1 of the interquartile range of the model's predictions, or of "
        "its distance from their median where that is larger.",
        "'price': the largest difference is 0.002 interquartile ranges, no limit.",
        "'price': R2 with the model's predictions as truth is 0.99999, at least 0.99.",
        "r2: 0.8950, of the model 0.9000; at most 0.01 below the model's.",
        "Not compared, since the artefact takes one size of pictures: a small one.",
    ]


SKEWED = """\
name: prices
data:
  source: {kind: csv, path: prices.csv}
  targets: {price: {kind: number, scale: log}}
model: {kind: mlp, hidden: [16]}
train: {epochs: 25, batch_size: 16, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
"""


@pytest.mark.slow
def test_integers_that_lose_the_usual_numbers_of_a_skewed_target_are_rejected(tmp_path: Path, cache: Path) -> None:
    sizes = np.random.default_rng(0).normal(size=400)
    lines = [f"{size:.4f},{np.exp(2.5 * size):.6g}" for size in sizes]
    (tmp_path / "prices.csv").write_text("\n".join(["size,price", *lines]))
    artefacts = exported(trained(SKEWED, tmp_path, cache), cache, "litert,litert:int8,litert:full_int8").artefacts
    whole, mixed, integer = (each.verification for each in artefacts)
    assert whole.failures == ()
    assert mixed.failures == (), "its end is in float32"
    assert any("decisions agree" in failure for failure in integer.failures), integer.summary
