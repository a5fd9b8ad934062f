"""Students: what they learn from their teachers, on any devices, interrupted or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.distillation import transfer_set
from bmcli.errors import BmcliError
from bmcli.networks.weights import SavedNetwork, load_weights
from bmcli.recipe import students
from bmcli.recipe.distill import DistillOptions, TrainedTeacherOptions
from bmcli.recipe.load import load_recipe
from bmcli.training.feed import gather_rows
from bmcli.training.train_step import Compilation
from bmcli.training.trainer import Trainer
from bmcli.workflows import session as sessions
from tests.trainers import Silent, same, table, weights_of
from tests.training.teaching import ROWS, Losses, make_with, pupil, recipe_file, trained

HARD, SOFT = {"kind": "hard", "weight": 0.3}, {"kind": "soft", "weight": 0.7, "temperature": 2.0}
MAPS = {"kind": "feature", "pairs": ({"student": "activation", "teacher": "activation"},)}
EVERY: list[dict[str, Any]] = [
    SOFT,
    {"kind": "logits"},
    MAPS,
    {"kind": "feature"},
    {"kind": "attention", "pairs": ({"student": "activation", "teacher": "activation"},)},
    {"kind": "relation"},
    {"kind": "dist"},
]
STILL = "train.optimizer={kind: sgd, learning_rate: 0.0}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teaching")


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return recipe_file(folder)


@pytest.fixture(scope="module")
def teacher(path: Path, folder: Path, cache: Path) -> TrainedTeacherOptions:
    return trained(path, folder / "runs", cache)


@pytest.fixture
def make(folder: Path, cache: Path) -> Callable[..., Trainer]:
    return make_with(folder / "runs", cache)


@pytest.fixture
def student(path: Path, teacher: TrainedTeacherOptions, make: Callable[..., Trainer]) -> Callable[..., Trainer]:
    """A trainer of a student of the teacher."""

    def of(losses: Losses, *overrides: str, run: Any = None, **more: Any) -> Trainer:
        return make(pupil(path, [teacher], losses, *overrides, **more), run)

    return of


def rows_of(trainer: Trainer) -> list[dict[str, Any]]:
    watcher = Silent()
    trainer.train(watcher)
    return watcher.rows


def test_every_kind_of_loss_is_tried() -> None:
    assert {each["kind"] for each in EVERY} | {"hard"} == set(parts.names("distillation.losses"))


def test_the_labels_alone_are_an_ordinary_training_which_a_teacher_changes(
    path: Path, make: Callable[..., Trainer], student: Any
) -> None:
    plain, alone = make(load_recipe(str(path))), student([{"kind": "hard"}, {"kind": "soft", "weight": 0.0}])
    distilled = student([HARD, SOFT])
    for trainer in (plain, alone, distilled):
        trainer.train(Silent())
    assert same(weights_of(plain), weights_of(alone))
    assert not same(weights_of(plain), weights_of(distilled))


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss["kind"])
def test_learning_from_the_teacher_alone_brings_the_loss_down(loss: dict[str, Any], student: Any) -> None:
    rows = rows_of(student([loss], "train.epochs=12"))
    assert rows[-1][f"train/{loss['kind']}_loss"] < 0.95 * rows[0][f"train/{loss['kind']}_loss"]


def test_the_loss_is_the_weighted_sum_of_its_terms_and_the_regularisers(student: Any) -> None:
    regular = "model.kernel_regularizer={kind: l2, l2: 0.01}"
    (plain,) = rows_of(student([HARD, SOFT, MAPS], STILL, "train.epochs=1"))
    trainer = student([HARD, SOFT, MAPS], STILL, "train.epochs=1", regular)
    (row,) = rows_of(trainer)
    summed = 0.3 * row["train/hard_loss"] + 0.7 * row["train/soft_loss"] + row["train/feature_loss"]
    own = sum(float(each) for each in trainer.network.model.losses)
    assert own > 0.01
    assert plain["train/loss"] == pytest.approx(summed, rel=1e-4)
    assert row["train/loss"] == pytest.approx(summed + own, rel=1e-4)


def assert_two_are_one(student: Any, losses: Losses, *overrides: str, within: float = 1e-5) -> None:
    one = student(losses, *overrides)
    two = student(losses, *overrides, "runtime.strategy=mirrored", "runtime.replicas=2")
    rows, other_rows = rows_of(one), rows_of(two)
    for a, b in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_allclose(a, b, atol=within)
    for row, other in zip(rows, other_rows, strict=True):
        for name in one.components.loss.term_names:
            assert row[f"train/{name}_loss"] == pytest.approx(other[f"train/{name}_loss"], rel=1e-3, abs=1e-5)


def test_two_replicas_are_one_device(student: Any) -> None:
    """With every loss at once, and a ragged last batch."""
    assert ROWS % 8
    assert_two_are_one(student, [HARD, *EVERY], "train.epochs=2")


@pytest.mark.slow
@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss["kind"])
def test_two_replicas_are_one_device_with_each_loss(loss: dict[str, Any], student: Any) -> None:
    assert_two_are_one(student, [HARD, loss])


@pytest.mark.slow
def test_a_replica_without_examples_changes_nothing(student: Any) -> None:
    """The last batch of 21 rows in batches of 4 is one example for two replicas."""
    losses = [HARD, {"kind": "relation"}, {"kind": "dist"}]
    assert_two_are_one(student, losses, "train.batch_size=4", "train.epochs=1")


def test_a_batch_in_parts_is_the_batch(student: Any) -> None:
    whole, parted = student([HARD, SOFT, MAPS]), student([HARD, SOFT, MAPS], "train.gradient_accumulation=3")
    whole.train(Silent())
    parted.train(Silent())
    for a, b in zip(weights_of(whole), weights_of(parted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_what_compares_examples_is_the_same_in_parts(student: Any) -> None:
    """With the projection of a layer, whose weights are trained too, and a ragged last batch."""
    losses = [HARD, {"kind": "relation"}, {"kind": "dist"}, {"kind": "feature"}]
    assert_two_are_one(student, losses, "train.epochs=2", "train.gradient_accumulation=3")
    whole, parted = student(losses), student(losses, "train.gradient_accumulation=3")
    whole.train(Silent())
    parted.train(Silent())
    for a, b in zip(weights_of(whole), weights_of(parted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("parts_of_batch", [1, 2])
def test_xla_compares_examples_of_two_replicas(parts_of_batch: int, student: Any) -> None:
    compiled = ("runtime.jit=true", f"train.gradient_accumulation={parts_of_batch}")
    assert_two_are_one(student, [HARD, {"kind": "relation"}], "train.epochs=2", *compiled, within=1e-4)


def test_xla_computes_the_same(student: Any) -> None:
    losses = [HARD, SOFT, {"kind": "dist"}]
    plain, compiled = student(losses), student(losses, "runtime.jit=true")
    plain.train(Silent())
    compiled.train(Silent())
    for a, b in zip(weights_of(plain), weights_of(compiled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def compute_loss(trainer: Trainer, more: dict[str, Any]) -> Any:
    """Compute the loss of each of the first rows."""
    block = trainer.feed
    block.start_epoch(tf.range(trainer.feed.count), 8)
    found = block.read_block(0, 1)
    loss = trainer.components.loss
    examples = loss.extend({**gather_rows(found.data, tf.range(8)), **more})
    return loss.compute(examples, loss.forward(examples), 8, tf.constant(0, tf.int64), {}).losses.by_example


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss["kind"])
def test_every_loss_has_the_weights_of_examples(loss: dict[str, Any], student: Any) -> None:
    trainer = student([HARD, loss])
    weights = np.array([0, 2, 1, 1, 3, 0, 1, 0.5], "float32")
    weighted = compute_loss(trainer, {"weights": tf.constant(weights)})
    assert (weighted.numpy()[weights == 0] == 0).all()
    if not parts.load("distillation.losses", loss["kind"]).WHOLE_BATCH:  # its losses depend on the weights of others
        np.testing.assert_allclose(weighted, weights * compute_loss(trainer, {}), rtol=1e-5)


def test_numbers_that_change_do_so_from_epoch_to_epoch_without_another_trace(student: Any) -> None:
    soft = {
        **SOFT,
        "weight": {"start": 1.0, "end": 0.0},
        "temperature": {"start": 4.0, "end": 1.0, "shape": "geometric"},
    }
    trainer = student([HARD, soft], STILL)
    rows = rows_of(trainer)
    for row, weight in zip(rows, [1.0, 0.5, 0.0], strict=True):
        expected = 0.3 * row["train/hard_loss"] + weight * row["train/soft_loss"]
        assert row["train/loss"] == pytest.approx(expected, rel=1e-4)
    (at_two,) = rows_of(student([HARD, SOFT], STILL, "train.epochs=1"))
    assert rows[1]["train/soft_loss"] == pytest.approx(at_two["train/soft_loss"], rel=1e-4)
    assert trainer.steps.trace_count == 1


def test_a_resumed_student_has_the_same_bits(student: Any) -> None:
    soft = {**SOFT, "weight": {"start": 1.0, "end": 0.0}, "temperature": {"start": 8.0, "end": 1.0}}
    losses = [HARD, soft, {**MAPS, "weight": 0.5}, {"kind": "relation"}]
    more = ("model.dropout=0.3", "train.ema=0.9", "train.optimizer=adam")
    whole = student(losses, *more)
    whole.train(Silent())
    begun = student(losses, *more)
    begun.train(Silent(), lambda row: "paused" if row["epoch"] == 1 else None)
    again = student(losses, *more, run=begun.run)
    assert again.resume() == ()
    assert again.progress.epoch == 1
    again.progress.stop_reason = None
    again.train(Silent())
    assert same(weights_of(whole), weights_of(again))
    assert same(whole.steps.snapshot()[0], again.steps.snapshot()[0]), "of the optimizer or the projections"


NOTHING_CHANGES = "data.augment={image: [{kind: brightness, factor: 1e-9}]}"


@pytest.mark.parametrize("batch", [8, 2], ids=["one by one", "of several steps at once"])
def test_a_teacher_that_predicts_in_every_step_gives_the_cached_outputs(batch: int, student: Any) -> None:
    """Of 10 batches and a rest 8 are made at once, then 2."""
    losses = [HARD, SOFT, {"kind": "feature"}, MAPS]
    cached, predicting = (student(losses, f"train.batch_size={batch}", *more) for more in ((), (NOTHING_CHANGES,)))
    assert "computed once" in cached.components.loss.note
    assert "in every step" in predicting.components.loss.note
    assert predicting.steps.compilation == Compilation(False, 8 if batch == 2 else 1)
    cached.train(Silent())
    predicting.train(Silent())
    for a, b in zip(weights_of(cached), weights_of(predicting), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_step_that_diverges_is_known_where_several_are_made_at_once(student: Any) -> None:
    wild = ("train.batch_size=2", "train.optimizer={kind: sgd, learning_rate: 1e30}", "train.epochs=1")
    cached, predicting = (student([HARD, SOFT], *wild, *more).train(Silent()) for more in ((), (NOTHING_CHANGES,)))
    assert cached.divergence is not None
    assert predicting.divergence == cached.divergence


def test_examples_made_at_once_are_those_made_one_by_one(student: Any) -> None:
    """Each batch has the random numbers of its own step."""
    trainer = student([HARD, SOFT], "train.batch_size=2", "data.augment={image: [{kind: brightness, factor: 0.3}]}")
    rows = tf.random.shuffle(tf.range(16), seed=1)
    trainer.feed.start_epoch(rows, 2)
    data = trainer.feed.read_block(0, 1).data
    together = trainer.steps._gather_program_examples(data, rows)["inputs"]["image"]
    each = [
        trainer.components.augmentation.augment_examples(data, rows[n : n + 2], None, n // 2)["inputs"]["image"]
        for n in range(0, 16, 2)
    ]
    np.testing.assert_allclose(together, np.concatenate(each), atol=1e-6)


def test_teacher_and_student_see_the_same_augmented_pictures(student: Any) -> None:
    trainer = student([SOFT], "data.augment={image: [{kind: brightness, factor: 0.3}]}")
    trainer.feed.start_epoch(tf.range(trainer.feed.count), 8)
    block = trainer.feed.read_block(0, 1)
    plain = gather_rows(block.data, tf.range(8))
    seen = trainer.components.augmentation.augment_examples(block.data, tf.range(8), None, 0)
    outputs = trainer.components.loss.extend(seen)["teacher"]["outputs"]["label"]
    again = trainer.components.loss.extend({"inputs": seen["inputs"]})["teacher"]["outputs"]["label"]
    without = trainer.components.loss.extend({"inputs": plain["inputs"]})["teacher"]["outputs"]["label"]
    np.testing.assert_array_equal(outputs, again)
    assert np.abs(outputs - without).max() > 1e-3


def test_teacher_outputs_are_computed_once(student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    student([HARD, SOFT])
    monkeypatch.setattr(transfer_set, "_write_outputs", lambda *_: pytest.fail("computed again"))
    student([{**HARD, "weight": 0.9}, SOFT], "train.batch_size=4")


def test_what_is_learned_from_is_made_again_where_it_is_damaged(student: Any, cache: Path) -> None:
    def feed() -> Any:
        return student([HARD, SOFT], transfer={"excluded_classes": {"label": ("high",)}}).feed._data

    first = feed()
    for kind in ("teachers", "transfer"):
        arrays = list((cache / kind).glob("[!.]*/*.npy"))
        assert arrays
        for array in arrays:
            whole = array.read_bytes()
            array.write_bytes(whole[:-2] + bytes([whole[-2] ^ 0x10]) + whole[-1:])
        again = feed()
        for first_array, other in zip(tf.nest.flatten(first), tf.nest.flatten(again), strict=True):
            np.testing.assert_array_equal(first_array, other)


def test_a_teacher_whose_lock_was_changed_is_refused(
    path: Path, folder: Path, cache: Path, make: Callable[..., Trainer]
) -> None:
    other = trained(path, folder / "runs", cache, "train.epochs=1")
    lock = Path(other.run or "") / "recipe.lock.yaml"
    lock.write_text(lock.read_text() + "# edited\n")
    with pytest.raises(BmcliError, match=r"teacher .*recipe\.lock\.yaml: changed since"):
        make(pupil(path, [other], [HARD, SOFT]))


def test_a_teacher_of_other_pictures_predicts_as_for_its_own(
    path: Path, folder: Path, cache: Path, make: Callable[..., Trainer]
) -> None:
    """Its pictures are larger, and it has no ages; cached outputs are those for its own inputs."""
    other = trained(path, folder / "runs", cache, "data.inputs.image.size=[12, 12]", "data.inputs.age=null")
    kept = make(pupil(path, [other], [HARD, SOFT]))
    assert kept.train(Silent()).divergence is None
    session = sessions.start_session(load_recipe(str(Path(other.run or "") / "recipe.lock.yaml")), cache)
    own = session.prepared.split("train").inputs
    network = session.build_trainer(None).network
    load_weights(SavedNetwork(Path(other.model), session.prepared.spec), network)
    expected = network.model({name: tf.constant(values) for name, values in own.items()}, training=False)["label"]
    outputs = kept.feed._data["teacher"]["outputs"]["label"][:, 0]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    predicting = make(pupil(path, [other], [HARD, SOFT], NOTHING_CHANGES))
    assert predicting.train(Silent()).divergence is None


def test_a_saved_model_is_the_same_teacher_as_its_run(
    path: Path, teacher: TrainedTeacherOptions, make: Callable[..., Trainer]
) -> None:
    run = make(pupil(path, [teacher], [HARD, SOFT]))
    file = make(pupil(path, [teacher.model_copy(update={"run": None})], [HARD, SOFT]))
    run.train(Silent())
    file.train(Silent())
    for a, b in zip(weights_of(run), weights_of(file), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_saved_model_cannot_see_augmented_rows(
    path: Path, teacher: TrainedTeacherOptions, make: Callable[..., Trainer]
) -> None:
    with pytest.raises(BmcliError, match="takes raw rows"):
        make(pupil(path, [teacher.model_copy(update={"run": None})], [HARD, SOFT], NOTHING_CHANGES))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_an_ensemble_of_one_network_twice_is_that_network(
    average: str, path: Path, teacher: TrainedTeacherOptions, make: Callable[..., Trainer], student: Any
) -> None:
    one = student([HARD, SOFT])
    heavy = teacher.model_copy(update={"weight": 3.0})
    two = make(pupil(path, [teacher, heavy], [HARD, SOFT], average=average))
    one.train(Silent())
    two.train(Silent())
    for a, b in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_teacher_that_changed_is_refused(
    path: Path, teacher: TrainedTeacherOptions, make: Callable[..., Trainer]
) -> None:
    with pytest.raises(BmcliError, match="has changed since it was chosen"):
        make(pupil(path, [teacher.model_copy(update={"sha256": "0" * 64})], [HARD, SOFT]))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"student": "conv"}, "has no layer 'conv'"),
        ({"teacher": "conv"}, "has no layer 'conv'"),
        ({"student": "activation"}, "cannot compare"),
        ({"of": 1}, "there is no teacher 1"),
    ],
)
def test_layers_that_cannot_be_compared_are_faults(pair: dict[str, Any], message: str, student: Any) -> None:
    with pytest.raises(BmcliError, match=message):
        student([HARD, {"kind": "feature", "pairs": (pair,)}])


@pytest.mark.parametrize(
    ("target", "losses"),
    [
        ("price: {kind: number}", [{"kind": "hard"}, {"kind": "logits"}]),
        ("tags: {kind: labels}", [HARD, SOFT]),
        ("grade: {kind: ordered}", [HARD, SOFT]),
        ("visits: {kind: count}", [HARD, {"kind": "logits"}]),
        ("price: {kind: number}, label: {kind: category}", None),
    ],
)
def test_every_kind_of_target_can_be_distilled(
    target: str, losses: Any, path: Path, folder: Path, cache: Path, make: Callable[..., Trainer], tmp_path: Path
) -> None:
    text = path.read_text().replace("targets: {label: {kind: category}}", f"targets: {{{target}}}")
    other = tmp_path / "recipe.yaml"
    other.write_text(text)
    teacher = trained(other, folder / "runs", cache)
    rows = rows_of(make(pupil(other, [teacher], losses, "train.epochs=8") if losses else _usual(other, teacher)))
    terms = [name for name in rows[0] if name.endswith("_loss") and name != "train/hard_loss"]
    assert terms
    assert all(rows[-1][name] < rows[0][name] for name in terms)


def _usual(path: Path, teacher: TrainedTeacherOptions) -> Any:
    loaded = students.make_distilled_student(
        load_recipe(str(path), ["train.epochs=8"]), DistillOptions(), [teacher], {}
    )
    assert loaded.recipe.distillation is not None
    assert [loss.kind for loss in loaded.recipe.distillation.losses] == ["hard", "soft", "logits"]
    return loaded


def test_outputs_of_a_teacher_are_on_the_scale_of_its_student(
    path: Path, folder: Path, cache: Path, make: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Fitted on other rows it has another mean and deviation."""
    text = path.read_text().replace("label: {kind: category}", "price: {kind: number}")
    other = tmp_path / "recipe.yaml"
    other.write_text(text)
    teacher = trained(other, folder / "runs", cache, "data.sample=10")
    trainer = make(pupil(other, [teacher], [{"kind": "logits"}]))
    run = sessions.start_session(load_recipe(str(Path(teacher.run or "") / "recipe.lock.yaml")), cache)
    its = run.prepared.spec.target("price").state
    mine = sessions.start_session(load_recipe(str(other)), cache).prepared.spec.target("price").state
    assert its["mean"] != mine["mean"]
    network = run.build_trainer(None).network
    load_weights(SavedNetwork(Path(teacher.model), run.prepared.spec), network)
    prices = trainer.feed._data["teacher"]["outputs"]["price"].numpy()[:, 0, 0] * mine["scale"] + mine["mean"]
    own = run.prepared.split("train").inputs
    inputs = {name: tf.constant(values) for name, values in own.items()}
    expected = network.predict(network.model(inputs, training=False), inputs)["price"]
    for price in expected.numpy():  # each of the teacher's rows is among the student's
        assert np.abs(prices - price).min() < 1e-3


def test_rows_of_a_class_can_be_left_out(student: Any) -> None:
    trainer = student([HARD, SOFT], transfer={"excluded_classes": {"label": ("low",)}})
    labels = trainer.feed._data["targets"]["label"].numpy()
    kept = [name for name in range(3) if name in labels]
    assert len(kept) == 2
    assert trainer.train(Silent()).divergence is None
    assert trainer.network.model.output["label"].shape[-1] == 3


def test_a_class_that_is_not_there_cannot_be_left_out(student: Any) -> None:
    with pytest.raises(BmcliError, match="has no class 'lo'") as found:
        student([HARD, SOFT], transfer={"excluded_classes": {"label": ("lo",)}})
    assert found.value.faults[0].path == "distillation.transfer.excluded_classes.label.0"


def test_rows_without_labels_have_soft_losses_alone(student: Any, tmp_path: Path) -> None:
    more = {name: values for name, values in table(13, seed=5).items() if name in ("image", "age")}
    np.savez(tmp_path / "more.npz", **more)
    unlabelled = {"kind": "npz", "path": str(tmp_path / "more.npz")}
    plain, trainer = student([HARD, SOFT], STILL), student([HARD, SOFT], STILL, transfer={"unlabelled": unlabelled})
    assert trainer.feed.count == ROWS + 13
    (row, *_), (before, *_) = rows_of(trainer), rows_of(plain)
    assert row["train/hard_loss"] == pytest.approx(before["train/hard_loss"], rel=1e-4), "the mean over labelled rows"
    assert row["train/accuracy"] == pytest.approx(before["train/accuracy"])
    assert row["train/soft_loss"] != pytest.approx(before["train/soft_loss"], rel=1e-3)


def test_without_teachers_the_rows_of_a_student_are_those_of_its_baseline(
    path: Path, teacher: TrainedTeacherOptions, make: Callable[..., Trainer]
) -> None:
    options = DistillOptions.model_validate({"transfer": {"excluded_classes": {"label": ("low",)}}})
    learner = load_recipe(str(path))
    baseline = make(students.make_baseline(learner, options, {}))
    distilled = make(students.make_distilled_student(learner, options, [teacher], {}))
    assert same(weights_of(baseline), weights_of(distilled))
    np.testing.assert_array_equal(baseline.sampler.epoch_order(0), distilled.sampler.epoch_order(0))
    data = baseline.feed._data, distilled.feed._data
    np.testing.assert_array_equal(data[0]["targets"]["label"], data[1]["targets"]["label"])
    assert baseline.train(Silent()).divergence is None


def test_a_lock_trains_the_student_again(
    student: Any, make: Callable[..., Trainer], path: Path, teacher: TrainedTeacherOptions, cache: Path
) -> None:
    loaded = pupil(path, [teacher], [HARD, SOFT, MAPS])
    first = make(loaded)
    assert first.run is not None
    sessions.start_session(loaded, cache).write_lock(first, first.run)
    first.train(Silent())
    again = make(load_recipe(str(first.run.lock)))
    again.train(Silent())
    assert same(weights_of(first), weights_of(again))
