"""Laws of every augmentation, on pictures and numbers that together use all of their options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.inputs import image, number
from bmcli.specs import Column
from bmcli.training.augmentation import StatelessRandom
from tests.pictures import pixels

CASES: dict[str, tuple[dict[str, Any], ...]] = {
    "flip": ({}, {"mode": "vertical"}, {"mode": "horizontal_and_vertical"}),
    "rotate": ({}, {"factor": 0.5, "fill_mode": "constant"}),
    "translate": ({}, {"factor": (0.3, 0.1), "fill_mode": "wrap"}),
    "zoom": ({}, {"factor": 0.5, "fill_mode": "nearest"}),
    "shear": ({"factor": 0.3},),
    "crop": ({}, {"scale": (0.1, 0.2), "ratio": (0.5, 2.0)}),
    "contrast": ({"factor": 0.9},),
    "brightness": ({"factor": 0.5},),
    "hue": ({"factor": 0.5},),
    "saturation": ({"factor": 0.8},),
    "erasing": ({}, {"probability": 1.0, "scale": (0.1, 0.5), "ratio": (1.0, 1.0)}),
    "rand_augment": ({}, {"num_ops": 3, "factor": 1.0}),
    "mixup": ({}, {"alpha": 2.0}),
    "cutmix": ({}, {"alpha": 0.5}),
    "noise": ({}, {"stddev": 2.0}),
    "column_dropout": ({"rate": 0.5},),
}
EACH = [(kind, options) for kind, several in CASES.items() for options in several]
each_case = pytest.mark.parametrize(("kind", "options"), EACH, ids=[f"{kind} {options}" for kind, options in EACH])
COUNT = 24


def column_for(kind: str) -> Column:
    if "image" in parts.load("augmentations", kind).INPUTS:
        return image.fit("x", np.stack([pixels(12, 10, seed=seed) for seed in range(COUNT)]), image.Options())
    rows = np.random.default_rng(0).normal(5, 3, (COUNT, 4))
    rows[3, 1] = np.nan
    return number.fit("x", rows, number.Options(flag=True))


def values_for(column: Column) -> np.ndarray:
    """Examples in the form that augmentations expect."""
    if column.kind == "image":
        return np.stack([pixels(12, 10, seed=seed) for seed in range(COUNT)]).astype("float32") / 255
    return np.random.default_rng(1).normal(size=(COUNT, *column.shape)).astype("float32")


def dice(step: int = 0, places: list[int] | None = None, name: str = "a") -> StatelessRandom:
    chosen = None if places is None else tf.constant(places)
    return StatelessRandom(7, name, tf.constant(step), COUNT, chosen)


def applied(kind: str, options: dict[str, Any], **where: Any) -> tuple[np.ndarray, np.ndarray]:
    """Examples before and after, at all places or some; the partner of an example is the next one."""
    part, column = parts.load("augmentations", kind), column_for(kind)
    change = part.build(part.Options(**options), column)
    every = values_for(column)
    places = where.get("places") or list(range(COUNT))
    own, other = every[places], np.roll(every, 1, axis=0)[places]
    after = change(own, other, dice(**where))[0] if part.MIXES else change(tf.constant(own), dice(**where))
    return own, np.asarray(after)


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(parts.names("augmentations"))


@each_case
def test_shape_and_type_stay_and_examples_change(kind: str, options: dict[str, Any]) -> None:
    before, after = applied(kind, options)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    assert np.isfinite(after).all()
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) >= COUNT / 5
    if column_for(kind).kind == "image":
        assert after.min() >= -1e-5
        assert after.max() <= 1 + 1e-5


@each_case
def test_the_same_step_draws_the_same_and_another_step_or_name_something_else(
    kind: str, options: dict[str, Any]
) -> None:
    _, first = applied(kind, options)
    _, again = applied(kind, options)
    assert first.tobytes() == again.tobytes()
    for other in ({"step": 1}, {"name": "b"}):
        assert first.tobytes() != applied(kind, options, **other)[1].tobytes()


@each_case
def test_an_example_is_changed_alike_whichever_are_computed_beside_it(kind: str, options: dict[str, Any]) -> None:
    _, whole = applied(kind, options)
    places = [20, 3, 4, 11]
    _, some = applied(kind, options, places=places)
    np.testing.assert_allclose(some, whole[places], rtol=0, atol=1e-6)


@each_case
def test_examples_are_changed_each_in_its_own_way(kind: str, options: dict[str, Any]) -> None:
    part, column = parts.load("augmentations", kind), column_for(kind)
    change = part.build(part.Options(**options), column)
    same = np.repeat(values_for(column)[:1], COUNT, axis=0)
    after = change(same, values_for(column), dice())[0] if part.MIXES else change(tf.constant(same), dice())
    assert len({row.tobytes() for row in np.asarray(after)}) >= (2 if kind in ("flip", "column_dropout") else 4)


def test_flips_are_pictures_mirrored() -> None:
    before, after = applied("flip", {"mode": "horizontal_and_vertical"})
    seen = set()
    for own, changed in zip(before, after, strict=True):
        ways = {"none": own, "left": own[:, ::-1], "up": own[::-1], "both": own[::-1, ::-1]}
        (way,) = [name for name, picture in ways.items() if np.array_equal(picture, changed)]
        seen.add(way)
    assert seen == {"none", "left", "up", "both"}


def test_erasing_paints_one_window_and_leaves_the_rest() -> None:
    before, after = applied("erasing", {"probability": 1.0, "scale": (0.25, 0.25), "ratio": (1.0, 1.0)})
    for own, changed in zip(before, after, strict=True):
        erased = (own != changed).any(axis=-1)
        rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert len(np.unique(changed[erased], axis=0)) == 1
        assert erased.mean() == pytest.approx(0.25, abs=0.1)


def test_a_whole_crop_is_the_picture() -> None:
    before, after = applied("crop", {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)})
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_mixtures_are_of_both_by_their_shares() -> None:
    for kind in ("mixup", "cutmix"):
        part, column = parts.load("augmentations", kind), column_for(kind)
        ones = np.ones((COUNT, 12, 10, 3), "float32")
        mixed, share = part.build(part.Options(), column)(ones, 0 * ones, dice())
        np.testing.assert_allclose(np.mean(mixed, axis=(1, 2, 3)), share, atol=1e-5)
        assert np.min(share) >= 0.49
        assert len(np.unique(share)) > 5


def test_noise_leaves_flags_alone() -> None:
    before, after = applied("noise", {"stddev": 0.5})
    np.testing.assert_array_equal(after[:, 4:], before[:, 4:])
    assert (after - before)[:, :4].std() == pytest.approx(0.5, rel=0.3)


def test_a_dropped_column_looks_like_a_missing_one() -> None:
    before, after = applied("column_dropout", {"rate": 0.5})
    column = column_for("column_dropout")
    missing = number.encode(np.full((1, 4), np.nan), column)[0]
    dropped = (after == missing).all(axis=1)
    assert 0 < dropped.sum() < COUNT
    np.testing.assert_array_equal(after[~dropped], before[~dropped])
    assert missing[4:].tolist() == [1, 1, 1, 1]
