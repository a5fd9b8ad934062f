"""Pruning: what is small becomes 0 on a schedule and stays so; channels are removed in the end."""

from __future__ import annotations

import shutil
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.compression import channel_pruning, pruning
from bmcli.compression.pruning import MaskGroup, PruningMasks, PruningPool, SparsitySchedule
from bmcli.errors import BmcliError
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, find_hook, same, weights_of
from tests.training.test_resuming import assert_same_training, resumed

WEIGHTS = ("train.prune={sparsity: 0.5, start: 0, end: 0.5, updates: 4}", "runtime.jit=false")
LAST = (*WEIGHTS, "train.select.metric=last")


class Watches(Silent):
    """The share of zeros among all kernels after every epoch."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer, self.zeros, self.masks = trainer, list[float](), list[list[np.ndarray]]()

    def on_epoch_end(self, row: Any, selected: bool) -> None:
        super().on_epoch_end(row, selected)
        self.zeros.append(zeros_of(self.trainer.network.model))
        self.masks += [
            [mask.numpy() for mask in hook.variables]
            for hook in self.trainer.components.hooks
            if isinstance(hook, PruningMasks)
        ]


def kernels_of(model: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.trainable_variables if weight.name == "kernel"]


def zeros_of(model: keras.Model) -> float:
    kernels = kernels_of(model)
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def masks_of(values: np.ndarray, pruned: int, span: SparsitySchedule) -> tuple[Any, PruningMasks]:
    weight = keras.Variable(values.astype("float32"))
    return weight, PruningMasks([weight], [PruningPool((MaskGroup((0,), values.shape),), pruned)], span)


def test_the_smallest_are_pruned_along_the_cubic_curve() -> None:
    values = np.random.default_rng(1).permutation(np.arange(1, 101)) * np.where(np.arange(100) % 2, 1, -1)
    weight, masks = masks_of(values, 80, SparsitySchedule(0, 8, 4))
    found = []
    for step in range(1, 11):
        masks.after_step(tf.constant(step), None)
        found.append(int((weight.numpy() == 0).sum()))
    # 80 * (1 - (1 - k / 4)^3) after k quarters of the 8 steps, each in force from its step on
    assert found == [0, 46, 46, 70, 70, 78, 78, 80, 80, 80]
    assert set(np.abs(weight.numpy())) == {0, *range(81, 101)}


def test_what_is_pruned_stays_so_however_the_others_move() -> None:
    weight, masks = masks_of(np.array([1.0, 2.0, 3.0, 4.0]), 2, SparsitySchedule(0, 1, 1))
    masks.after_step(tf.constant(1), None)
    weight.assign([9.0, 9.0, 0.1, 0.1])
    masks.after_step(tf.constant(2), None)
    assert weight.numpy().tolist() == pytest.approx([0.0, 0.0, 0.1, 0.1])
    assert masks.transform_gradients([tf.ones(4)])[0].numpy().tolist() == [0.0, 0.0, 1.0, 1.0]
    assert masks.transform_gradients([None]) == [None]


def test_equal_magnitudes_do_not_prune_more_than_their_share() -> None:
    weight, masks = masks_of(np.ones(10), 4, SparsitySchedule(0, 1, 1))
    masks.after_step(tf.constant(1), None)
    assert (weight.numpy() == 0).sum() == 4


def test_a_span_that_moved_into_the_past_is_caught_up_with() -> None:
    weight, masks = masks_of(np.arange(1.0, 11.0), 5, SparsitySchedule(0, 8, 4))
    masks.catch_up(tf.constant(20))
    assert (weight.numpy() == 0).sum() == 5
    before = weight.numpy()
    masks.catch_up(tf.constant(20))
    assert same([weight.numpy()], [before])


def test_channels_go_with_all_their_weights() -> None:
    kernel = keras.Variable(np.array([[1.0, -5.0, 2.0], [1.0, 5.0, -2.0]], "float32"))
    bias = keras.Variable(np.ones(3, "float32"))
    masks = PruningMasks([bias, kernel], [PruningPool((MaskGroup((1, 0), (3,)),), 2)], SparsitySchedule(0, 1, 1))
    masks.after_step(tf.constant(1), None)
    assert kernel.numpy().tolist() == [[0.0, -5.0, 0.0], [0.0, 5.0, 0.0]]
    assert bias.numpy().tolist() == [0.0, 1.0, 0.0]


def test_the_smallest_are_looked_for_in_the_whole_network() -> None:
    large, small = (keras.Variable(np.arange(1.0, 5.0).astype("float32") * factor) for factor in (10, 1))
    masks = PruningMasks(
        [large, small], [PruningPool((MaskGroup((0,), (4,)), MaskGroup((1,), (4,))), 5)], SparsitySchedule(0, 1, 1)
    )
    masks.after_step(tf.constant(1), None)
    assert (large.numpy().tolist(), small.numpy().tolist()) == ([0.0, 20.0, 30.0, 40.0], [0.0] * 4)


@pytest.mark.parametrize("scope", ["network", "kernel"])
def test_the_scope_decides_where_the_share_is_reached(make_trainer: MakeTrainer, scope: str) -> None:
    trainer = make_trainer(f"train.prune={{sparsity: 0.75, scope: {scope}}}", "model.hidden=[32]", "runtime.jit=false")
    model = trainer.train(Silent()).network.model
    shares = [(kernel == 0).mean() for kernel in kernels_of(model)]
    assert zeros_of(model) == pytest.approx(0.75)
    assert (shares == [0.75, 0.75]) == (scope == "kernel")


@pytest.mark.parametrize(
    ("start", "end", "steps", "expected"),
    [(0.25, 0.75, 100, (25, 75)), (0.0, 0.1, 3, (0, 1)), (0.9, 1.0, 2, (1, 2)), (0.5, 0.75, 1, (0, 1))],
)
def test_a_span_lies_within_the_training(start: float, end: float, steps: int, expected: tuple[int, int]) -> None:
    options = pruning.WeightPruning(start=start, end=end)
    found = pruning.build_schedule(options, steps)
    assert (found.first, found.last) == expected


def test_a_training_ends_with_its_share_of_zeros(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*WEIGHTS, "train.epochs=4")
    watch = Watches(trainer)
    outcome = trainer.train(watch)
    assert watch.zeros[0] < watch.zeros[1] == watch.zeros[3] == pytest.approx(0.5)
    assert zeros_of(outcome.network.model) == pytest.approx(0.5)
    assert same(watch.masks[1], watch.masks[3]), "the masks stay while the others learn on"
    assert not same(*(kernels_of(make_trainer(*WEIGHTS).network.model), kernels_of(outcome.network.model)))


def test_layers_may_have_shares_of_their_own(make_trainer: MakeTrainer) -> None:
    prune = "train.prune={layers: {'dense/kernel': 0.25, 'dense_1/*': 0}}"
    trainer = make_trainer(prune, "runtime.jit=false")
    first, last = kernels_of(trainer.train(Silent()).network.model)
    assert ((first == 0).mean(), (last == 0).mean()) == (0.25, 0.0)


def test_a_pattern_that_matches_no_weight_is_reported_with_its_path(make_trainer: MakeTrainer) -> None:
    with pytest.raises(BmcliError, match="no weight is called 'dens/kernel'") as caught:
        make_trainer("train.prune.layers={'dens/kernel': 0.25}")
    assert caught.value.faults[0].path == "train.prune.layers.dens/kernel"


def test_epochs_before_the_end_of_pruning_give_way_to_later_ones(make_trainer: MakeTrainer) -> None:
    """The rate falls to nothing, so that losses rise with what is pruned, and the first epochs are the best."""
    settings = ("train.epochs=6", "train.optimizer={kind: sgd, learning_rate: 1e-9}", "train.stop.patience=1")
    watch = Silent()
    outcome = make_trainer(*settings, "train.prune={sparsity: 0.9, end: 0.5, updates: 3}", *WEIGHTS[1:]).train(watch)
    losses = [row["validation/loss"] for row in watch.rows]
    assert losses[0] < losses[2]
    assert [row["selected"] for row in watch.rows[:3]] == [True] * 3
    assert outcome.selected_epoch >= 3
    assert zeros_of(outcome.network.model) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    "average",
    [
        ("train.ema=0.9",),
        pytest.param(("train.swa.start=0.25",), marks=pytest.mark.slow),
        pytest.param(("train.schedule_free=true",), marks=pytest.mark.slow),
    ],
)
def test_averages_are_pruned_too(make_trainer: MakeTrainer, average: tuple[str, ...]) -> None:
    trainer = make_trainer(*LAST, *average, "train.epochs=4")
    outcome = trainer.train(Silent())
    assert zeros_of(outcome.network.model) == pytest.approx(0.5)


MATRIX: dict[str, tuple[str, ...]] = {
    "weights": ("train.prune={end: 0.7}", "train.ema=0.9"),
    "channels": ("train.prune={kind: channels, end: 0.7}", "model.normalization=batch"),
    "xla": ("train.prune={end: 0.7}", "runtime.jit=true"),
    "replicas": ("train.prune={end: 0.7}", "runtime.strategy=mirrored", "runtime.replicas=2"),
    "mixed_float16": ("train.prune={end: 0.7}", "train.precision=mixed_float16"),
    "accumulation": ("train.prune={end: 0.7}", "train.gradient_accumulation=2"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("weights", "channels") else pytest.mark.slow) for n in MATRIX]
)
def test_a_training_killed_while_it_prunes_resumes_to_the_same_bits(make_trainer: MakeTrainer, name: str) -> None:
    jit = () if name == "xla" else ("runtime.jit=false",)
    settings = (*MATRIX[name], *jit, "train.batch_size=40", "train.checkpoint.steps=5")
    whole = make_trainer(*settings)
    kept = whole.train(Silent()).network
    assert (whole.steps_per_epoch, find_hook(whole, PruningMasks).span, whole.progress.step) == (
        3,
        SparsitySchedule(2, 6, 50),
        9,
    )
    shutil.rmtree(whole.run.checkpoints / "step-000000009")
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in whole.run.read_epochs()
    ]
    again = make_trainer(*settings, run=whole.run)
    assert again.resume() == ()
    assert 2 < again.progress.step < 6
    outcome = again.train(Silent())
    assert_same_training(again, whole, rows)
    assert same(outcome.network.model.get_weights(), kept.model.get_weights())


def test_fewer_epochs_than_planned_still_prune_all(make_trainer: MakeTrainer) -> None:
    settings = ("train.prune={sparsity: 0.5, end: 0.8}", "runtime.jit=false", "train.select.metric=last")
    short = make_trainer(*settings, "train.epochs=10", "train.stop.time=1ms")
    short.train(Silent())
    assert zeros_of(short.network.model) < 0.5
    trainer = resumed(make_trainer, short.run, *settings, "train.epochs=1")
    assert zeros_of(trainer.network.model) == pytest.approx(0.5)


@pytest.mark.slow
def test_programs_of_several_steps_prune_what_single_steps_prune(make_trainer: MakeTrainer) -> None:
    settings = (*LAST[:1], "train.batch_size=8", "runtime.jit=true", "train.epochs=2")
    programs, single = (make_trainer(*settings, f"runtime.jit_steps={n}") for n in (4, 1))
    for trainer in (programs, single):
        trainer.train(Silent())
    for mine, theirs in zip(programs.steps.snapshot()[0], single.steps.snapshot()[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert zeros_of(programs.network.model) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("prune", "replicas"),
    [
        pytest.param("train.prune={sparsity: 0.5}", 2, marks=pytest.mark.slow),
        ("train.prune={kind: channels, sparsity: 0.5}", 2),
    ],
)
def test_replicas_prune_the_same(make_family: MakeTrainer, prune: str, replicas: int) -> None:
    one, many = make_family("mlp", prune), make_family("mlp", prune, replicas=replicas)
    outcomes = [trainer.train(Silent()) for trainer in (one, many)]
    for mine, theirs in zip(weights_of(one), weights_of(many), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    first, second = (outcome.network.model.get_weights() for outcome in outcomes)
    assert [a.shape for a in first] == [b.shape for b in second]
    for mask in find_hook(many, PruningMasks).variables:
        on_each = [v.numpy() for v in many.placement.strategy.experimental_local_results(mask.value)]
        assert len(on_each) == replicas
        assert all(same([on_each[0]], [other]) for other in on_each)


CHANNELS = ("train.prune={kind: channels, sparsity: 0.5}", "runtime.jit=false")
NARROWED = {
    "mlp": ("mlp", "model.hidden=[8, 6]"),
    "mlp with normalization": ("mlp", "model.hidden=[8, 6]", "model.normalization=batch"),
    "cnn": ("cnn", "model.filters=[6, 4]"),
    "cnn with normalization": ("cnn", "model.normalization=batch", "model.convolutions=2"),
    "cnn of averages": ("cnn", "model.pooling=average", "model.pool_kind=average"),
    "cnn of a sequence": (
        "cnn", "data.inputs.image=null",
        "data.inputs.text=number", "model.normalization=batch",
        "model.filters=[6]",
    ),
    "resnet": ("resnet", "model.normalization=batch"),
    "resnet of bottlenecks": ("resnet", "model.normalization=batch", "model.bottleneck=true"),
    "mobilenet": ("mobilenet", "model.normalization=batch"),
    "convnext": ("convnext",),
    "transformer": ("transformer",),
    "table_resnet": ("table_resnet", "model.normalization=layer"),
    "wide_deep": ("wide_deep", "model.hidden=[8]"),
    "rnn": ("rnn", "model.dense=[8]", "model.normalization=batch"),
}  # fmt: skip


USUAL = ("mlp", "cnn with normalization", "table_resnet")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in USUAL else pytest.mark.slow) for n in NARROWED])
def test_removing_pruned_channels_changes_nothing_that_is_computed(make_family: MakeTrainer, name: str) -> None:
    kind, *options = NARROWED[name]
    trainer = make_family(kind, *options, *CHANNELS)
    outcome = trainer.train(Silent())
    full, narrow = trainer.network.model, outcome.network.model
    assert narrow.count_params() < full.count_params()
    draw = np.random.default_rng(1)
    inputs = {
        name: draw.normal(size=(5, *tensor.shape[1:])).astype(tensor.dtype) for name, tensor in full.input.items()
    }
    expected, found = full(inputs), narrow(inputs)
    assert float(np.abs(expected["label"]).max()) > 0
    np.testing.assert_allclose(found["label"], expected["label"], atol=1e-5)
    fresh = make_family(kind, *options, "runtime.jit=false")
    assert len(fresh.network.model.layers) == len(narrow.layers)


@pytest.mark.slow
def test_the_widths_that_are_left_may_be_given(make_family: MakeTrainer) -> None:
    prune = "train.prune={kind: channels, widths: {filters: [5], dense: [2]}}"
    narrow = make_family("cnn", "model.filters=[6]", prune).train(Silent()).network.model
    assert [kernel.shape[-1] for kernel in kernels_of(narrow)] == [5, 2, 3]


def test_the_channels_with_the_largest_weights_are_left() -> None:
    layer = keras.layers.Dense(4)
    layer.build((None, 2))
    layer.set_weights([np.array([[1.0, 9.0, -5.0, 0.0], [1.0, 0.0, -5.0, 3.0]], "float32"), np.zeros(4, "float32")])
    assert channel_pruning.select_largest_channels(layer, 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda: keras.layers.LayerNormalization(), "channels before LayerNormalization cannot be removed"),
        (lambda: keras.layers.Activation("sigmoid"), "it does not map 0 to 0"),
    ],
)
def test_what_would_not_be_the_same_without_channels_is_refused(between: Any, message: str) -> None:
    def network(units: int) -> keras.Model:
        inputs = keras.Input((3,))
        return keras.Model(inputs, keras.layers.Dense(2)(between()(keras.layers.Dense(units)(inputs))))

    with pytest.raises(BmcliError, match=message):
        channel_pruning.find_pruned_layers(network(4), network(2))
