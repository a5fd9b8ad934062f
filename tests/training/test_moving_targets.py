"""Augmentations of a plug-in that move targets with an input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import plugins
from bmcli.errors import BmcliError
from bmcli.training.feed import gather_rows, shuffle_rows
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer
from tests.training.test_replicas import agree, distance, trained

MIRROR = '''\
"""Mirror a vector at 0; numbers to predict change their sign with it."""

import sys
from typing import Literal

from bmcli.augmentations import MovingTransform
from bmcli.recipe.fields import Kind

INPUTS = ("number",)
MIXES = False


class Options(Kind):
    """Random change of sign."""

    kind: Literal["mirror"] = "mirror"


class Mirror(MovingTransform):
    TARGETS = ("number",)

    def change(self, values, targets, random):
        import tensorflow as tf

        sign = tf.where(random.uniform() < 0.5, -1.0, 1.0)
        return values * sign[:, None], {name: target * sign for name, target in targets.items()}


def build(options, column):
    return Mirror()


PARTS = {"augmentations.mirror": sys.modules[__name__]}
'''
ALONE, MIXED = "data.augment={age: [mirror]}", "data.augment={age: [mirror, mixup]}"


@pytest.fixture(autouse=True)
def _mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A part that bmcli does not know, from a file as with `--plugin`."""
    monkeypatch.setenv(plugins.FILES_VARIABLE, "[]")
    file = tmp_path / "mirror.py"
    file.write_text(MIRROR)
    plugins.add_files((file,))
    yield
    plugins._list_parts.cache_clear()
    plugins.load_part.cache_clear()


def examples_of(trainer: Trainer, places: Any = None, step: int = 0) -> dict[str, Any]:
    augmenter = trainer.components.augmentation
    assert augmenter is not None
    return augmenter.augment_examples(trainer.feed._data, shuffle_rows(1, 0, 17), places, step)


def test_targets_move_with_their_inputs(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", ALONE, target="price")
    plain, found = gather_rows(trainer.feed._data, shuffle_rows(1, 0, 17)), examples_of(trainer)
    signs = np.sign(found["inputs"]["age"] / plain["inputs"]["age"])
    assert set(signs[:, 0]) == {-1.0, 1.0}
    np.testing.assert_array_equal(found["inputs"]["age"], signs * plain["inputs"]["age"])
    np.testing.assert_array_equal(found["targets"]["price"], signs[:, 0] * plain["targets"]["price"])
    for name in ("image", "city"):
        np.testing.assert_array_equal(found["inputs"][name], plain["inputs"][name])


def test_targets_of_other_kinds_stay(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", ALONE, target="label")
    plain, found = gather_rows(trainer.feed._data, shuffle_rows(1, 0, 17)), examples_of(trainer)
    assert not np.array_equal(found["inputs"]["age"], plain["inputs"]["age"])
    np.testing.assert_array_equal(found["targets"]["label"], plain["targets"]["label"])


def test_the_partner_of_a_mixture_has_the_target_that_moved_with_it(make_family: MakeTrainer) -> None:
    trainer = make_family("mlp", MIXED, target="price")
    alone = make_family("mlp", ALONE, target="price")
    places = tf.constant([16, 2, 9])
    whole, some, unmixed = examples_of(trainer), examples_of(trainer, places), examples_of(alone)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), some, gather_rows(whole, places))
    moved = {float(each) for each in unmixed["targets"]["price"]}
    assert {float(each) for each in whole["others"]["targets"]["price"]} == moved


@pytest.mark.parametrize("augment", [ALONE, MIXED])
def test_replicas_and_parts_move_the_same_targets(make_family: MakeTrainer, augment: str) -> None:
    one, parted, mirrored = (
        make_family("mlp", augment, *how, rows=21, target="price", **more)
        for how, more in (((), {}), (("train.gradient_accumulation=3",), {}), ((), {"replicas": 2}))
    )
    agree(one, parted, mirrored)
    assert distance(trained(make_family("mlp", rows=21, target="price"))[0], [
        weight.numpy() for weight in one.network.model.weights
    ]) > 1e-3  # fmt: skip


def test_a_target_cannot_follow_two_inputs(make_family: MakeTrainer, tmp_path: Path) -> None:
    two = ("data.inputs.worth={kind: number}", "data.augment={age: [mirror], worth: [mirror]}")
    with pytest.raises(BmcliError, match="moves with changes of input 'age', so changes of 'worth' cannot"):
        make_family("mlp", *two, target="price")
