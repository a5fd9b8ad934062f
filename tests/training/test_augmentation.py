"""Augmentation in training: reproducible, the same on any devices, and nowhere but in training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.networks.network import build_serving_model
from bmcli.training import augmentation, prepare_data
from bmcli.training.augmentation import Augmenter
from bmcli.training.feed import ResidentFeed, StreamingFeed, gather_rows, shuffle_rows
from bmcli.training.loss import compute_losses
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, same, weights_of
from tests.training.test_feed import Fake, epoch_of, split_of
from tests.training.test_replicas import agree, distance, trained
from tests.training.test_resuming import assert_same_training, rows_of

PICTURES = "{kind: flip}, {kind: translate, factor: 0.2}, {kind: erasing}"
NUMBERS = "{kind: noise}, {kind: column_dropout, rate: 0.3}"
PLAIN = f"data.augment={{image: [{PICTURES}], number: [{NUMBERS}]}}"
MIXUP = f"data.augment={{image: [{PICTURES}, mixup], number: [{NUMBERS}, mixup]}}"
CUTMIX = "data.augment={image: [{kind: rotate}, cutmix]}"
WAYS = {"plain": PLAIN, "mixup": MIXUP, "cutmix": CUTMIX}


@pytest.mark.parametrize(
    ("way", "replicas"),
    [pytest.param(way, n, marks=() if (way, n) == ("mixup", 2) else pytest.mark.slow) for way in WAYS for n in (2, 4)],
)
def test_replicas_see_what_one_device_sees(make_family: MakeTrainer, way: str, replicas: int) -> None:
    """Batches of 8, and a last one of 5."""
    settings = (WAYS[way], "data.weight=worth")
    one, many = (make_family("mlp", *settings, rows=21, replicas=count) for count in (1, replicas))
    agree(one, many)


def test_parts_of_a_batch_see_what_the_whole_sees(make_family: MakeTrainer) -> None:
    agree(*(make_family("mlp", MIXUP, f"train.gradient_accumulation={parts}", rows=21) for parts in (1, 3)))


def test_streamed_rows_are_changed_as_resident_ones(make_family: MakeTrainer) -> None:
    resident, streamed = (
        trained(make_family("mlp", MIXUP, f"runtime.feed={feed}", rows=21)) for feed in ("resident", "streaming")
    )
    assert same(resident[0], streamed[0])
    assert resident[1] == streamed[1]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_way_changes_what_is_learned(make_family: MakeTrainer, way: str) -> None:
    assert distance(trained(make_family("mlp", WAYS[way]))[0], trained(make_family("mlp"))[0]) > 1e-3


MATRIX = {
    "plain": (PLAIN,),
    "mixup": (MIXUP, "train.ema=0.9", "train.gradient_accumulation=2"),
    "mixed_float16": (MIXUP, "train.precision=mixed_float16"),
    "xla": (CUTMIX, "runtime.jit=true"),
    "replicas": (MIXUP, "runtime.strategy=mirrored", "runtime.replicas=2"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mixup" else pytest.mark.slow) for name in MATRIX]
)
def test_a_training_killed_in_an_epoch_resumes_to_the_same_bits(make_family: MakeTrainer, name: str) -> None:
    settings = (*MATRIX[name], "train.checkpoint.steps=4")
    whole = make_family("mlp", *settings, rows=21)
    whole.train(Silent())
    assert (whole.steps_per_epoch, whole.progress.step) == (3, 9)
    rows = rows_of(whole)
    shutil.rmtree(whole.run.checkpoints / "step-000000009")
    again = make_family("mlp", *settings, rows=21, run=whole.run)
    assert again.resume() == ()
    assert (again.progress.epoch, again.progress.batch) == (2, 2)
    again.train(Silent())
    assert_same_training(again, whole, rows)


@pytest.mark.slow
def test_programs_of_several_steps_learn_what_single_steps_learn(make_family: MakeTrainer) -> None:
    plain, single, several = (
        trained(make_family("mlp", MIXUP, *how, rows=35))[0]
        for how in (("runtime.jit=false",), ("runtime.jit=true",), ("runtime.jit=true", "runtime.jit_steps=2"))
    )
    assert distance(plain, single) <= 1e-4
    assert distance(single, several) <= 1e-5


def test_validation_rows_are_measured_as_they_are(make_family: MakeTrainer) -> None:
    still = ("train.optimizer={kind: sgd, learning_rate: 1e-12}", "train.epochs=1")
    augmented, plain = (trained(make_family("mlp", *still, *more))[1] for more in ((MIXUP,), ()))
    assert augmented["validation/loss"] == pytest.approx(plain["validation/loss"], rel=1e-6)
    assert augmented["train/loss"] != pytest.approx(plain["train/loss"], rel=1e-3)


def test_nothing_of_it_is_in_a_served_model(make_family: MakeTrainer) -> None:
    augmented, plain = (
        build_serving_model(t.network, t_spec(t)) for t in (make_family("mlp", PLAIN), make_family("mlp"))
    )

    def kinds(model: Any) -> list[str]:
        return [type(layer).__name__ for layer in model._flatten_layers()]

    assert kinds(augmented) == kinds(plain)


def t_spec(trainer: Trainer) -> Any:
    recipe = trainer.recipe
    return prepare_data(recipe, trainer._cache).spec


def augment_of(trainer: Trainer) -> Augmenter:
    assert trainer.components.augmentation is not None
    return trainer.components.augmentation


def test_bytes_stay_bytes_and_what_is_not_named_stays(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", CUTMIX)
    data, rows = trainer.feed._data, tf.range(17)
    found = augment_of(trainer).augment_examples(data, rows, None, 3)
    assert found["inputs"]["image"].dtype == tf.uint8
    for name in ("age", "city"):
        np.testing.assert_array_equal(found["inputs"][name], data["inputs"][name])
    np.testing.assert_array_equal(found["targets"]["label"], data["targets"]["label"])


def test_a_step_and_an_epoch_later_the_same_row_is_changed_in_another_way(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", PLAIN)
    seen = [augment_of(trainer).augment_examples(trainer.feed._data, tf.range(17), None, step) for step in (0, 1, 3)]
    assert len({found["inputs"]["image"].numpy().tobytes() for found in seen}) == 3


def test_partners_are_mixed_after_they_were_changed(make_family: MakeTrainer) -> None:
    """Mixing what the whole batch holds and what some places need gives the same."""
    trainer = make_family("mlp", MIXUP, "data.weight=worth")
    rows = shuffle_rows(1, 2, 17)
    whole = augment_of(trainer).augment_examples(trainer.feed._data, rows, None, 5)
    places = tf.constant([16, 2, 9])
    some = augment_of(trainer).augment_examples(trainer.feed._data, rows, places, 5)
    chosen = gather_rows(whole, places)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), some, chosen)
    assert "weights" in some["others"]


def test_the_loss_of_a_mixture_is_that_of_both_targets_by_their_shares(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", MIXUP, "data.weight=worth")
    examples = augment_of(trainer).augment_examples(trainer.feed._data, tf.range(17), None, 0)
    outputs = trainer.network.model(examples["inputs"])
    plain = {name: examples[name] for name in ("inputs", "targets", "weights")}
    own, other = (compute_losses(trainer.network, each, outputs) for each in (plain, {**plain, **examples["others"]}))
    share = examples["share"]
    np.testing.assert_allclose(
        compute_losses(trainer.network, examples, outputs), share * own + (1 - share) * other, rtol=1e-5
    )
    assert 0.5 <= float(tf.reduce_min(share)) < float(tf.reduce_max(share)) <= 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_mixes_reads_whole_batches(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    split, rows = split_of(29), shuffle_rows(3, 1, 29)
    placement = Fake(replicas=2, workers=2, rank=rank)
    monkeypatch.setattr("bmcli.training.feed.BLOCK_BYTES", 500)
    streamed = epoch_of(StreamingFeed(split, placement, whole_batches=True), rows, 8)
    resident = epoch_of(ResidentFeed(split, placement), rows, 8)
    assert all(same(a, b) for a, b in zip(streamed, resident, strict=True))
    own = epoch_of(StreamingFeed(split, placement), rows, 8)
    assert not all(same(a, b) for a, b in zip(own, resident, strict=True))


FAULTS = {
    "{image: [hue]}": ("data.augment.image.0", "its pictures have no colours"),
    "{age: [flip]}": ("data.augment.age.0", "flip changes inputs of kind image, not number"),
    "{city: [noise]}": ("data.augment.city.0", "noise changes inputs of kind number, not category"),
    "{imag: [flip]}": ("data.augment.imag", "no input 'imag'"),
    "{image: [mixup, flip]}": ("data.augment.image.0", "mixup mixes examples, so it must be the last augmentation"),
    "{image: [mixup], age: [{kind: mixup, alpha: 1.0}]}": ("data.augment.age", "all inputs are mixed in one way"),
    "{image: [flipp]}": ("data.augment.image.0", "no kind 'flipp'"),
    "{image: [{kind: flip, mod: vertical}]}": ("data.augment.image.0.mod", "no such key"),
    "{image: [{kind: crop, scale: [0.9, 0.2]}]}": ("data.augment.image.0.scale", "expected two ascending numbers"),
}


@pytest.mark.parametrize("options", FAULTS)
def test_what_cannot_be_done_is_a_fault_with_its_place(make_family: MakeTrainer, options: str) -> None:
    path, message = FAULTS[options]
    with pytest.raises(BmcliError) as caught:
        make_family("mlp", f"data.augment={options}")
    assert message in str(caught.value)
    assert caught.value.faults[0].path == path


def test_no_augmentation_leaves_an_input_as_it_is(make_family: MakeTrainer) -> None:
    assert make_family("mlp", "data.augment={image: []}").components.augmentation is None
    assert make_family("mlp", "data.augment={number: [noise], age: []}").components.augmentation is None
    some = make_family("mlp", "data.augment={number: [noise], image: []}").components.augmentation
    assert some is not None
    assert list(some.inputs) == ["age"]


def test_sequences_and_bins_are_not_changed(make_family: MakeTrainer) -> None:
    with pytest.raises(BmcliError, match="not sequences"):
        make_family("rnn", "data.augment={text: [noise]}")
    with pytest.raises(BmcliError, match="cut into bins"):
        make_family("mlp", "data.augment={age: [noise]}", "data.inputs.age.bins=4")


def test_pictures_are_those_of_the_network(make_family: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_family("mlp", PLAIN)
    recipe = trainer.recipe
    prepared = prepare_data(recipe, trainer._cache)
    rows = np.array([5, 2, 11])
    seen = augmentation.augment_pictures(recipe, prepared, rows)
    stored = prepared.split("train").inputs["image"][rows]
    assert list(seen) == ["image"]
    assert (seen["image"].shape, seen["image"].dtype) == (stored.shape, np.uint8)
    assert not np.array_equal(seen["image"], stored)
    plain = make_family("mlp").recipe
    np.testing.assert_array_equal(augmentation.augment_pictures(plain, prepared, rows)["image"], stored)


def test_the_steps_are_traced_once(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", MIXUP, rows=21)
    trained(trainer)
    assert trainer.steps.trace_count == 2  # full batches and the ragged one
    assert weights_of(trainer)
