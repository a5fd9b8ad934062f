"""Learning-rate schedules: over steps, epochs or time; and what is said of those that do nothing."""

from __future__ import annotations

import itertools
import math

import pytest

from bmcli.errors import BmcliError
from bmcli.training.schedule import describe_idle_steps, sample_rates
from tests.trainers import MakeTrainer, Silent, same, weights_of
from tests.training.test_resuming import resumed


def test_a_schedule_over_some_epochs_ends_with_its_last_rate(make_trainer: MakeTrainer) -> None:
    watch = Silent()
    make_trainer("train.schedule={kind: linear, floor: 0.1, span: 2}", "train.epochs=4").train(watch)
    rates = [row["learning_rate"] for row in watch.rows]
    assert rates[2:] == pytest.approx([0.001, 0.001])
    assert rates[0] == pytest.approx(0.0055)


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call of the compiled steps take a second."""
    clock = itertools.count()
    monkeypatch.setattr("bmcli.training.trainer.time.perf_counter", lambda: float(next(clock)))


TIMED = ("train.schedule={kind: linear, span: time}", "runtime.jit=false")


@pytest.mark.usefixtures("slow_clock")
def test_a_schedule_over_time_falls_with_the_time(make_trainer: MakeTrainer) -> None:
    watch = Silent()
    outcome = make_trainer(*TIMED, "train.epochs=5000", "train.stop.time=10s").train(watch)
    assert (outcome.stop_reason, outcome.train_s) == ("time", 10)
    assert watch.rows[-1]["learning_rate"] == pytest.approx(0.001), "of the time when the last call began"
    rates = [row["learning_rate"] for row in watch.rows]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.usefixtures("slow_clock")
def test_a_schedule_over_time_resumes_to_the_same_bits(make_trainer: MakeTrainer) -> None:
    settings = (*TIMED, "train.epochs=4", "train.stop.time=1m")
    whole, first = make_trainer(*settings), make_trainer(*settings)
    whole.train(Silent())
    first.train(Silent(), lambda row: "paused" if row["epoch"] == 2 else None)
    again = resumed(make_trainer, first.run, *settings)
    assert again.progress.train_s == whole.progress.train_s > 0
    assert same(weights_of(again), weights_of(whole))


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        (("train.schedule={kind: cosine, span: time}",), "train.schedule.span", "needs the time of the training"),
        (("train.schedule={kind: constant, span: 3}",), "train.schedule", "`span` has no effect"),
        (("train.schedule={kind: constant, warmup: 0.1, floor: 0.1}",), "train.schedule", "`floor` has no effect"),
        (
            ("train.schedule={kind: cosine_decay, decay_steps: 80, warmup_steps: 20}",),
            "train.schedule",
            "the warm-up of cosine_decay has no effect without `warmup_target`",
        ),
    ],
)
def test_a_schedule_that_cannot_do_what_was_meant_is_refused(
    make_trainer: MakeTrainer, settings: tuple[str, ...], path: str, message: str
) -> None:
    with pytest.raises(BmcliError, match=message) as caught:
        make_trainer(*settings)
    assert caught.value.faults[0].path.startswith(path)


def test_steps_with_a_rate_of_0_are_found(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.schedule={kind: cosine_decay, decay_steps: 18}")
    curve = (trainer.recipe.train, trainer.selection.steps, trainer.steps_per_epoch)
    assert trainer.selection.steps == 24
    assert describe_idle_steps(*curve).startswith("the learning rate is 0 in the last 6 of 24 steps")
    rates = dict(sample_rates(*curve))
    assert rates[9] == pytest.approx(0.005)
    assert [step for step, rate in rates.items() if rate == 0] == list(range(18, 24))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "{kind: cosine, span: 2, floor: 0.1}"])
def test_a_schedule_that_learns_to_the_end_gives_no_warning(make_trainer: MakeTrainer, schedule: str) -> None:
    trainer = make_trainer(f"train.schedule={schedule}")
    curve = (trainer.recipe.train, trainer.selection.steps, trainer.steps_per_epoch)
    assert describe_idle_steps(*curve) == ""
    assert all(math.isfinite(rate) for _, rate in sample_rates(*curve))
