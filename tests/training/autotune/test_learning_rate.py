"""`learning_rate: auto`: a rate from the fall of the loss, and a training that is as if nothing had been tried."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe
from bmcli.runs import find
from bmcli.training.autotune import learning_rate
from tests.commands.conftest import Bmcli, bmcli
from tests.conftest import TINY, WriteRecipe
from tests.trainers import MakeTrainer, Silent, same, weights_of

__all__ = ["bmcli"]  # the fixture

AUTO = "train.optimizer={kind: adam, learning_rate: auto}"
TRIED = list(np.geomspace(learning_rate.LOWEST, learning_rate.HIGHEST, learning_rate.STEPS))


def falls_at(rate: float, until: float) -> list[float]:
    """A loss that is flat, falls around a rate, and rises beyond another."""
    return [2.0 / (1.0 + (tried / rate) ** 2) + (tried / until) ** 2 for tried in TRIED]


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_the_rate_is_near_where_the_loss_falls(rate: float) -> None:
    found = learning_rate.find_steepest(TRIED, falls_at(rate, 100 * rate))
    assert abs(math.log10(found / rate)) < 0.5


def test_noise_moves_it_little() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, learning_rate.STEPS)
    found = learning_rate.find_steepest(TRIED, [*(np.array(falls_at(1e-3, 0.1)) + noise)])
    assert abs(math.log10(found / 1e-3)) < 0.8


@pytest.mark.parametrize(
    "losses", [[1.0] * 100, [float(number) for number in range(100)], [1.0, 0.5], [math.nan] * 100]
)
def test_a_loss_that_never_falls_gives_no_rate(losses: list[float]) -> None:
    assert learning_rate.find_steepest(TRIED[: len(losses)], losses) == 0.0


def test_the_training_after_it_is_that_with_the_rate_named(make_trainer: MakeTrainer) -> None:
    found = make_trainer(AUTO, "model.dropout=0.2", "model.normalization=batch")
    rate = found.recipe.train.optimizer.options["learning_rate"]
    assert 1e-5 < rate < 1.0
    named = make_trainer(f"train.optimizer={{kind: adam, learning_rate: {rate!r}}}", "model.dropout=0.2",
                         "model.normalization=batch")  # fmt: skip
    for trainer in (found, named):
        trainer.train(Silent())
    assert same(weights_of(found), weights_of(named))


def test_a_loss_that_no_rate_lowers_is_a_fault(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_rate, "_run_range_test", lambda *_: (TRIED, [1.0] * len(TRIED)))
    with pytest.raises(BmcliError, match="the loss fell at no learning rate"):
        make_trainer(AUTO)


def test_the_lock_has_the_rate_that_was_found(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(TINY)
    assert bmcli("train", recipe, AUTO, "-q").code == 0
    lock = find(tmp_path / "runs", load_recipe(str(recipe)).recipe.name).lock
    assert type(load_recipe(str(lock)).recipe.train.optimizer.options["learning_rate"]) is float
    assert bmcli("train", lock, "-q").code == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [AUTO, "train.schedule={kind: exponential_decay, decay_steps: 10, decay_rate: 0.5}"],
            "sets its own learning rates",
        ),
        (["train.optimizer={kind: adam, learning_rate: aut}"], "expected a number"),
        (["train.optimizer={kind: adam, beta_1: auto}"], "expected a number"),
    ],
)
def test_only_a_rate_without_a_schedule_of_its_own_is_found(
    overrides: list[str], message: str, write_recipe: WriteRecipe
) -> None:
    with pytest.raises(BmcliError) as error:
        load_recipe(str(write_recipe(TINY)), overrides)
    assert message in str(error.value)
