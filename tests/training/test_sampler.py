"""The order of the training rows: shuffled in every epoch, or at first from short sequences to long ones."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError, Interrupted
from bmcli.inputs import number, text
from bmcli.training import prepare_data, sampler, trainer
from bmcli.training.feed import gather_rows, shuffle_rows
from bmcli.training.loss import compute_losses
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, same, table, weights_of
from tests.training.test_resuming import assert_same_training, resumed
from tests.training.test_trainer import StopsAt

ROWS = 35
SORTED = ("train.curriculum={epochs: 2}", "train.epochs=4")


@pytest.fixture
def make(make_family: MakeTrainer) -> MakeTrainer:
    """Build a trainer of a recurrent network on sequences of 2 to 5 steps."""

    def make(*settings: str, **more: Any) -> Trainer:
        return make_family("rnn", *settings, rows=ROWS, **more)

    return make


def steps_of_rows() -> np.ndarray:
    """Steps of the training rows, counted without the mask."""
    found: np.ndarray = 5 - np.isnan(table(ROWS)["text"]).all(axis=-1).sum(axis=-1)
    return found


def test_the_first_epochs_go_from_short_to_long(make: MakeTrainer) -> None:
    trainer, steps = make(*SORTED), steps_of_rows()
    assert set(steps) == {2, 3, 4, 5}
    found = [trainer.sampler.epoch_order(epoch).numpy() for epoch in range(4)]
    for rows in found:
        assert sorted(rows) == list(range(ROWS))
    for rows in found[:2]:
        assert list(steps[rows]) == sorted(steps)
    assert not np.array_equal(found[0], found[1]), "rows of one length are shuffled"
    for epoch in (2, 3):
        assert np.array_equal(found[epoch], shuffle_rows(3, epoch, ROWS))
        assert list(steps[found[epoch]]) != sorted(steps)


def test_rows_of_one_length_stand_as_they_were_shuffled(make: MakeTrainer) -> None:
    trainer, steps, shuffled = make(*SORTED), steps_of_rows(), shuffle_rows(3, 1, ROWS).numpy()
    expected = np.concatenate([shuffled[steps[shuffled] == length] for length in (2, 3, 4, 5)])
    assert np.array_equal(trainer.sampler.epoch_order(1), expected)
    assert trainer.sampler.epoch_order(1).dtype == shuffle_rows(3, 1, ROWS).dtype


def test_what_is_trained_is_what_keras_learns_from_the_sorted_rows(make: MakeTrainer) -> None:
    settings = ("train.curriculum={}", "train.epochs=2")
    ours, plain = make(*settings), make(*settings)
    optimizer, model, steps = keras.optimizers.SGD(0.05, momentum=0.9), plain.network.model, steps_of_rows()
    for epoch in range(2):
        rows = shuffle_rows(3, epoch, ROWS).numpy()
        rows = rows[np.argsort(steps[rows], kind="stable")] if epoch == 0 else rows
        plain.feed.start_epoch(tf.constant(rows), 8)
        for start in range(0, ROWS, 8):
            examples = gather_rows(plain.feed.read_block(0, 1).data, rows[start : start + 8])
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(compute_losses(plain.network, examples, model(examples["inputs"], training=True)))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    ours.train(Silent())
    for found, expected in zip(weights_of(ours), weights_of(plain), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.slow), 7, 13])
def test_a_stopped_training_resumes_in_its_order(make: MakeTrainer, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """In the middle of an epoch that is sorted, of the second such, and of one that is not."""
    monkeypatch.setattr(trainer, "CALL_S", 0.0)
    settings = (*SORTED, "runtime.feed=streaming") if step == 7 else SORTED
    whole, stopped = make(*settings), make(*settings)
    whole.train(Silent())
    assert whole.steps_per_epoch == 5
    with pytest.raises(Interrupted):
        stopped.train(StopsAt(step, signal.SIGTERM))
    assert (stopped.progress.epoch, stopped.progress.batch) == divmod(step, 5)
    assert_same_training(resumed(make, stopped.run, *settings), whole)


def test_streaming_gives_the_bits_of_resident_rows(make: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.training.feed.BLOCK_BYTES", 3 * 8 * 200)
    resident, streaming = (make(*SORTED, f"runtime.feed={feed}") for feed in ("resident", "streaming"))
    for each in (resident, streaming):
        each.train(Silent())
    assert same(weights_of(resident), weights_of(streaming))


@pytest.mark.parametrize("block_bytes", [1, 500, 10**9])
def test_lengths_are_counted_block_by_block(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(sampler, "_BLOCK_BYTES", block_bytes)
    rows = table(ROWS)["text"]
    column = number.fit("text", rows, number.Options())
    assert np.array_equal(sampler.count_steps(column, number.encode(rows, column)), steps_of_rows())


@pytest.mark.parametrize("options", [{"missing": "learned"}, {"flag": True}, {"bins": 3}])
def test_padding_is_known_however_numbers_are_encoded(options: dict[str, Any]) -> None:
    rows = table(ROWS)["text"]
    rows[4, 0, 1] = np.nan  # missing, and no padding
    column = number.fit("text", rows, number.Options(**options))
    assert np.array_equal(sampler.count_steps(column, number.encode(rows, column)), steps_of_rows())


def test_a_text_has_the_length_of_its_terms() -> None:
    rows = pa.chunked_array([["one two three", "one", None, "two one", "three three two one"]])
    options = text.Options(encoding="sequence", tokens={"kind": "words", "min_count": 1}, length=4)
    column = text.fit("text", rows, options)
    assert list(sampler.count_steps(column, text.encode(rows, column))) == [3, 1, 1, 2, 4]


def test_an_input_without_a_length_is_a_fault(make: MakeTrainer, make_trainer: MakeTrainer) -> None:
    with pytest.raises(BmcliError, match="no input has a length") as caught:
        make_trainer("train.curriculum={}")
    assert caught.value.faults[0].path == "train.curriculum"
    with pytest.raises(BmcliError, match="input 'age' has no length") as caught:
        make("train.curriculum={input: age}")
    assert caught.value.faults[0].path == "train.curriculum.input"
    with pytest.raises(BmcliError, match="no input 'txt'") as caught:
        make("train.curriculum={input: txt}")
    (fault,) = caught.value.faults
    assert (fault.path, fault.suggestion) == ("train.curriculum.input", "Did you mean 'text'?")


def test_of_several_inputs_with_lengths_one_has_to_be_named(
    make_from: MakeTrainer, tmp_path: Path, cache: Path
) -> None:
    columns = table(ROWS)
    arrays = {"first": columns["text"], "second": columns["text"][::-1], "label": columns["label"]}
    np.savez(
        tmp_path / "two.npz", **{f"{name}_{split}": a for split in ("train", "test") for name, a in arrays.items()}
    )
    described = {
        "bmcli": 1,
        "name": "two",
        "data": {
            "source": {"kind": "npz", "path": str(tmp_path / "two.npz")},
            "inputs": {"first": {"kind": "number"}, "second": {"kind": "number"}},
            "targets": {"label": {"kind": "category"}},
        },
        "model": {"kind": "mlp", "hidden": [4], "sequences": "mean"},
        "train": {"epochs": 1, "tensorboard": False},
        "runtime": {"jit": False},
    }
    with pytest.raises(BmcliError, match="several inputs have a length: first, second") as caught:
        make_from(described, "train.curriculum={}")
    assert caught.value.faults[0].suggestion == "Name one: {input: first}."
    trainer = make_from(described, "train.curriculum={input: second}")
    recipe = trainer.recipe
    second = prepare_data(recipe, cache).split("train").inputs["second"]
    steps = 5 - np.isnan(second).all(axis=-1).sum(axis=-1)
    assert list(steps[trainer.sampler.epoch_order(0).numpy()]) == sorted(steps)
