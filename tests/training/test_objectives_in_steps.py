"""Laws of objectives that change batches, count units or compare examples, in any division of a batch."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.models import VECTOR
from bmcli.networks.network import Network
from bmcli.objectives import Batch, TargetObjective
from bmcli.training.augmentation import StatelessRandom
from bmcli.training.feed import shuffle_rows
from bmcli.training.loss import compute_label_losses
from bmcli.training.micro_batches import MicroBatches
from bmcli.training.objective_batch import prepare_examples, run_network
from bmcli.training.trainer import Trainer
from tests.trainers import Silent, same, weights_of
from tests.training.objective_cases import (
    CASES,
    VALIDATION,
    Contrastive,
    Denoising,
    MakeCase,
    NextToken,
    build_next_token,
    build_numbers,
    build_tokens,
    make_rows,
)
from tests.training.test_replicas import agree, distance, trained
from tests.training.test_resuming import assert_same_training, rows_of

each_case = pytest.mark.parametrize("name", CASES)
ROWS = 21  # in batches of 8: the last has 5


def test_the_cases_use_all_that_an_objective_can_change_in_a_step() -> None:
    objectives = [objective for case in CASES.values() for objective in case.build().objectives.values()]
    assert any(objective.changes_batch for objective in objectives)
    assert any(objective.counts_units for objective in objectives)
    assert any(objective.couples_examples and objective.views > 1 for objective in objectives)


def test_built_in_objectives_of_targets_change_nothing_in_a_step() -> None:
    """Their trainings have no operation for what they do not use, such as the units of those of steps."""
    kinds = [parts.load("objectives", name) for name in parts.names("objectives")]
    labelled = [kind for kind in kinds if kind.TARGETS and kind.REQUEST == VECTOR]
    own = [kind for kind in TargetObjective.__subclasses__() if kind.__module__.startswith("bmcli.objectives.")]
    assert len(own) == len(labelled)
    for kind in own:
        assert (kind.changes_batch, kind.counts_units, kind.couples_examples, kind.views) == (False, False, False, 1)


def test_every_objective_of_steps_is_among_the_cases() -> None:
    objectives = [each for case in CASES.values() for each in case.build().objectives.values()]
    cases = {type(each).__module__.removeprefix("bmcli.objectives.") for each in objectives}
    assert {name for name in parts.names("objectives") if parts.load("objectives", name).REQUEST != VECTOR} <= cases


@each_case
@pytest.mark.parametrize("rows", [ROWS, pytest.param(17, marks=pytest.mark.slow)])
def test_replicas_and_parts_learn_what_one_device_learns(make_case: MakeCase, name: str, rows: int) -> None:
    """With a ragged last batch, and one of a single example for two replicas."""
    parts_of_batch = "train.gradient_accumulation=3"
    one = make_case(name, rows=rows)
    agree(
        one,
        make_case(name, parts_of_batch, rows=rows),
        make_case(name, replicas=2, rows=rows),
        make_case(name, parts_of_batch, replicas=2, rows=rows),
    )
    assert distance(weights_of(one), weights_of(make_case(name, rows=rows))) > 1e-2


@each_case
@pytest.mark.parametrize("parts_of_batch", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_training_killed_in_an_epoch_resumes_to_the_same_bits(
    make_case: MakeCase, name: str, parts_of_batch: int
) -> None:
    settings = ("train.checkpoint.steps=2", f"train.gradient_accumulation={parts_of_batch}")
    whole = make_case(name, *settings, dropout=0.3)
    whole.train(Silent())
    assert (whole.steps_per_epoch, whole.progress.step) == (3, 6)
    rows = rows_of(whole)
    shutil.rmtree(whole.run.checkpoints / "step-000000006")
    again = make_case(name, *settings, dropout=0.3, run=whole.run)
    assert again.resume() == ()
    assert (again.progress.epoch, again.progress.batch) == (1, 1)
    again.train(Silent())
    assert_same_training(again, whole, rows)


@each_case
def test_programs_of_several_steps_and_xla_learn_what_single_steps_learn(make_case: MakeCase, name: str) -> None:
    plain, single, several = (
        trained(make_case(name, *how, rows=35))[0]
        for how in (("runtime.jit=false",), ("runtime.jit=true",), ("runtime.jit=true", "runtime.jit_steps=2"))
    )
    assert distance(plain, single) <= 1e-4
    assert distance(single, several) <= 1e-5


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("parts_of_batch", [1, 3])
def test_replicas_learn_the_same_with_xla(make_case: MakeCase, name: str, parts_of_batch: int) -> None:
    setting = f"train.gradient_accumulation={parts_of_batch}"
    agree(make_case(name), make_case(name, "runtime.jit=true", setting, replicas=2), tolerance=1e-4)


@each_case
def test_the_streaming_feed_gives_the_bits_of_the_resident_one(make_case: MakeCase, name: str) -> None:
    resident, streaming = (trained(make_case(name, f"runtime.feed={feed}")) for feed in ("resident", "streaming"))
    assert same(resident[0], streaming[0])
    assert resident[1] == streaming[1]


def test_each_step_and_each_row_has_noise_of_its_own(make_case: MakeCase) -> None:
    trainer = make_case("denoising")
    prepare = trainer.components.loss.prepare
    examples = {"inputs": {"numbers": tf.zeros((8, 6))}, "targets": {"goal": tf.zeros(8)}}
    first, again, later = (prepare(examples, step, 8, None)["inputs"]["numbers"].numpy() for step in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert len({row.tobytes() for row in (*first, *later)}) == 16
    some = prepare(
        {"inputs": {"numbers": tf.zeros((2, 6))}, "targets": {"goal": tf.zeros(2)}}, 3, 8, tf.constant([6, 1])
    )
    np.testing.assert_array_equal(some["inputs"]["numbers"], first[[6, 1]])


@each_case
def test_validation_is_repeatable(make_case: MakeCase, name: str) -> None:
    trainer = make_case(name)
    first = trainer.evaluator.measure()
    trainer.train(Silent())
    untrained = make_case(name)
    assert untrained.evaluator.measure() == untrained.evaluator.measure() == first
    assert first["loss"] != trainer.evaluator.measure()["loss"]


def tokens_of(draws: StatelessRandom, tokens: np.ndarray) -> np.ndarray:
    """Targets of the objective of next tokens, computed by itself."""
    return NextToken().prepare(Batch({"tokens": tf.constant(tokens)}, None), draws, True).target.numpy()


def mean_per_token(network: Network, batches: list[np.ndarray], targets: list[np.ndarray]) -> float:
    losses, count = 0.0, 0
    for tokens, target in zip(batches, targets, strict=True):
        logs = np.asarray(tf.nn.log_softmax(network.model({"tokens": tokens})["goal"]))
        rows, steps = np.nonzero(target)
        losses -= logs[rows, steps, target[rows, steps]].sum()
        count += len(rows)
    return losses / count


def test_a_mixture_has_the_units_and_losses_of_both_partners_by_its_share() -> None:
    network = build_next_token()
    tokens, others = make_rows("tokens", 8)["tokens"], make_rows("tokens", 9)["tokens"][:8]
    share = np.linspace(0.5, 1, 8).astype("float32")
    labelled = np.array([0, 2, 1, 1, 0, 1, 2, 1], "float32")
    network = replace(network, objectives={"goal": Supervised()})
    examples = {
        "inputs": {"tokens": tokens}, "targets": {"goal": tokens}, "labelled": labelled, "share": share,
        "others": {"targets": {"goal": others}, "labelled": np.ones(8, "float32")},
    }  # fmt: skip
    prepared = prepare_examples(network, examples, 3, 4, 8, None, training=True)
    kept = StatelessRandom(3, "training 'goal'", 4, 8, None).uniform(7).numpy() < 0.5
    own, other = np.where(kept, tokens, 0), np.where(kept, others, 0)
    np.testing.assert_array_equal(prepared["targets"]["goal"], own)
    np.testing.assert_array_equal(prepared["others"]["targets"]["goal"], other)
    units = share * labelled * (own != 0).sum(axis=-1) + (1 - share) * (other != 0).sum(axis=-1)
    np.testing.assert_allclose(prepared["units"]["goal"], units, rtol=1e-6)
    outputs = run_network(network, prepared, training=False)
    first, second = (NextToken().loss(each, outputs["goal"]) for each in (own, other))
    computed = compute_label_losses(network, prepared, outputs)
    np.testing.assert_allclose(
        computed.by_unit["goal"].losses, share * labelled * first + (1 - share) * second, rtol=1e-5
    )
    np.testing.assert_array_equal(computed.by_example, np.zeros(8))


@dataclass(frozen=True)
class Supervised(NextToken):
    """Tokens of the target, at a random share of the steps."""

    def prepare(self, batch: Batch, draws: Any, training: bool) -> Batch:
        return replace(batch, target=tf.where(draws.uniform(7) < 0.5, batch.target, 0))


STILL = "train.optimizer={kind: sgd, learning_rate: 1e-12}"


@pytest.mark.parametrize("replicas", [1, 2])
def test_losses_are_means_over_the_tokens_of_all_rows(make_case: MakeCase, replicas: int) -> None:
    """Over batches of 8, 8 and 5, and of 5, 5 and 3, whose numbers of tokens differ."""
    trainer = make_case("next token", STILL, "train.epochs=1", "train.gradient_accumulation=2", replicas=replicas)
    seed, network = trainer.recipe.seed, trainer.network
    _, metrics = trained(trainer)
    validation = make_rows("tokens", VALIDATION)["tokens"]
    batches = [validation[start : start + 5] for start in (0, 5, 10)]
    targets = [
        tokens_of(StatelessRandom(seed, "measuring 'goal'", number, len(batch), None), batch)
        for number, batch in enumerate(batches)
    ]
    assert metrics["validation/loss"] == pytest.approx(mean_per_token(network, batches, targets), rel=1e-5)
    rows = make_rows("tokens", ROWS)["tokens"][shuffle_rows(seed, 0, ROWS).numpy()]
    batches = [rows[start : start + 8] for start in (0, 8, 16)]
    targets = [
        tokens_of(StatelessRandom(seed, "training 'goal'", step, len(batch), None), batch)
        for step, batch in enumerate(batches)
    ]
    assert len({(target != 0).sum() for target in targets}) > 1
    assert metrics["train/loss"] == pytest.approx(mean_per_token(network, batches, targets), rel=1e-5)


def test_a_step_follows_the_gradient_of_the_mean_over_the_tokens_of_its_batch(make_case: MakeCase) -> None:
    rate, settings = 0.1, ("train.epochs=1", "train.batch_size=21", "train.gradient_accumulation=4")
    trainer = make_case("next token", *settings, f"train.optimizer={{kind: sgd, learning_rate: {rate}}}")
    model, seed = trainer.network.model, trainer.recipe.seed
    tokens = make_rows("tokens", ROWS)["tokens"][shuffle_rows(seed, 0, ROWS).numpy()]
    target = tokens_of(StatelessRandom(seed, "training 'goal'", 0, ROWS, None), tokens)
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, model({"tokens": tokens})["goal"])
        loss = tf.reduce_sum(losses * (target != 0)) / (target != 0).sum()
    gradients = [tf.convert_to_tensor(each).numpy() for each in tape.gradient(loss, model.trainable_variables)]
    expected = [weight - rate * each for weight, each in zip(weights_of(trainer), gradients, strict=True)]
    assert distance(trained(trainer)[0], expected) <= 1e-6


@dataclass(frozen=True)
class PlainMean(Denoising):
    """The mean of a row, by a loss whose unit is an example."""

    def prepare(self, batch: Batch, draws: Any, training: bool) -> Batch:
        return replace(
            batch, target=tf.reduce_mean(tf.cast(batch.inputs["tokens"], tf.float32), axis=-1, keepdims=True)
        )


def build_two_targets(dropout: float = 0.0) -> Network:
    tokens, hidden = build_tokens(dropout)
    outputs = {
        "goal": keras.layers.Dense(11)(hidden),
        "mean": keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(hidden)),
    }
    return Network(
        keras.Model({"tokens": tokens}, outputs), {"goal": NextToken(weight=0.5), "mean": PlainMean(weight=2.0)}, {}
    )


def add_target(trainer: Trainer) -> Trainer:
    """Give the rows a second target."""
    for feed in (trainer.feed, trainer.evaluator.feed):
        feed._data["targets"]["mean"] = feed._data["targets"]["goal"]
    return trainer


def test_each_target_has_its_own_divisor(make_case: MakeCase) -> None:
    one, parted, mirrored = (
        add_target(make_case("next token", STILL, "train.epochs=1", *how, build=build_two_targets, **more))
        for how, more in (((), {}), (("train.gradient_accumulation=3",), {}), ((), {"replicas": 2}))
    )
    tokens = make_rows("tokens", VALIDATION)["tokens"]
    outputs = one.network.model({"tokens": tokens})["mean"].numpy()[:, 0]
    error = float(np.square(outputs - tokens.mean(axis=-1)).mean())
    batches = [tokens[start : start + 5] for start in (0, 5, 10)]
    targets = [
        tokens_of(StatelessRandom(one.recipe.seed, "measuring 'goal'", number, len(batch), None), batch)
        for number, batch in enumerate(batches)
    ]
    expected = 2.0 * error + 0.5 * mean_per_token(one.network, batches, targets)
    assert one.evaluator.measure()["loss"] == pytest.approx(expected, rel=1e-5)
    agree(one, parted, mirrored)


@dataclass(frozen=True)
class Weighted(NextToken):
    """Later tokens count more."""

    def count_units(self, target: Any) -> Any:
        return tf.reduce_sum(tf.cast(target != 0, tf.float32) * self.weights, axis=-1)

    def loss(self, target: Any, output: Any) -> Any:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, output)
        return tf.reduce_sum(losses * tf.cast(target != 0, tf.float32) * self.weights, axis=-1)

    @property
    def weights(self) -> Any:
        return tf.range(7, dtype=tf.float32) / 10


def test_units_may_have_weights(make_case: MakeCase) -> None:
    def build(dropout: float) -> Network:
        return replace(build_next_token(dropout), objectives={"goal": Weighted()})

    one = make_case("next token", build=build)
    agree(one, make_case("next token", "train.gradient_accumulation=3", replicas=2, build=build))
    assert distance(weights_of(one), trained(make_case("next token"))[0]) > 1e-3


def test_a_batch_without_units_changes_nothing(make_case: MakeCase) -> None:
    def build(dropout: float) -> Network:
        return replace(build_next_token(dropout), objectives={"goal": Nothing()})

    trainer = make_case("next token", build=build)
    before = weights_of(trainer)
    weights, metrics = trained(trainer)
    assert same(weights, before)
    assert metrics["train/loss"] == metrics["validation/loss"] == 0


@dataclass(frozen=True)
class Nothing(NextToken):
    """All tokens are padding."""

    def prepare(self, batch: Batch, draws: Any, training: bool) -> Batch:
        return replace(batch, target=tf.zeros_like(batch.inputs["tokens"]))


def test_an_objective_of_several_views_is_the_only_one(make_case: MakeCase) -> None:
    def build(dropout: float) -> Network:
        numbers, hidden = build_numbers(dropout)
        outputs = {name: keras.layers.Dense(5)(hidden) for name in ("goal", "other")}
        return Network(keras.Model({"numbers": numbers}, outputs), {"goal": Contrastive(), "other": Denoising()}, {})

    with pytest.raises(BmcliError, match="compares several views of each example, so it must be the only one"):
        make_case("contrastive", build=build)


def test_dropout_is_the_same_in_both_passes_of_a_gradient_cache(make_case: MakeCase) -> None:
    """The gradient is that of one tape around the same parts, drawn in the same order."""
    rate = 0.1
    trainer = make_case("contrastive", "train.epochs=1", "train.batch_size=21", "train.gradient_accumulation=4",
                        f"train.optimizer={{kind: sgd, learning_rate: {rate}}}", dropout=0.5)  # fmt: skip
    model, seed = trainer.network.model, trainer.recipe.seed
    state = [variable.numpy() for variable in model.non_trainable_variables]
    rows = make_rows("numbers", ROWS)["numbers"][shuffle_rows(seed, 0, ROWS).numpy()]
    examples = {"inputs": {"numbers": tf.constant(rows)}, "targets": {"goal": tf.zeros(ROWS)}}
    prepared = trainer.components.loss.prepare(examples, 0, ROWS, None)
    batches = MicroBatches.divide(ROWS, 4)
    assert (batches.parts, batches.each) == (4, 6)

    @tf.function
    def compute_gradients() -> Any:
        with tf.GradientTape() as tape:
            pieces = [
                run_network(trainer.network, {"inputs": {"numbers": prepared["inputs"]["numbers"][start:stop]}}, True)
                for start, stop in ((0, 6), (6, 12), (12, 18), (18, 21))
            ]
            output = tf.concat([piece["goal"] for piece in pieces], axis=0)
            loss = tf.reduce_mean(Contrastive().loss(None, output))
        return tape.gradient(loss, model.trainable_variables)

    gradients = [each.numpy() for each in compute_gradients()]
    drawn = [variable.numpy() for variable in model.non_trainable_variables]
    assert drawn
    assert not same(drawn, state)
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    expected = [weight - rate * each for weight, each in zip(weights_of_trained(model), gradients, strict=True)]
    trained(trainer)
    assert distance(weights_of_trained(model), expected) <= 1e-6
    assert same([variable.numpy() for variable in model.non_trainable_variables], drawn)


def weights_of_trained(model: keras.Model) -> list[np.ndarray]:
    """Trained weights, without the states of generators."""
    return [weight.numpy() for weight in model.trainable_variables]


def test_moving_statistics_of_a_gradient_cache_are_updated_once(make_case: MakeCase) -> None:
    def build(objective: TargetObjective, dropout: float) -> Network:
        numbers = keras.Input((6,), name="numbers")
        hidden = keras.layers.BatchNormalization(momentum=0.5)(numbers)
        return Network(
            keras.Model({"numbers": numbers}, {"goal": keras.layers.Dense(5)(hidden)}), {"goal": objective}, {}
        )

    statistics = []
    for objective in (Contrastive(), Apart()):
        trainer = make_case(
            "contrastive", STILL, "train.gradient_accumulation=3", build=functools.partial(build, objective)
        )
        trained(trainer)
        statistics.append([variable.numpy() for variable in trainer.network.model.non_trainable_variables])
    assert same(*statistics)
    assert np.abs(statistics[0][0]).max() > 1e-3


@dataclass(frozen=True)
class Apart(Contrastive):
    """The same views, each example by itself."""

    couples_examples = False

    def loss(self, target: Any, output: Any) -> Any:
        return tf.reduce_sum(tf.square(output), axis=(1, 2))


def test_a_loss_of_compared_examples_is_that_of_the_whole_batch(make_case: MakeCase) -> None:
    """So that the law above is not one of parts that are compared by themselves."""
    trainer = make_case("contrastive", STILL, "train.epochs=1", "train.batch_size=21", "train.gradient_accumulation=3")
    seed = trainer.recipe.seed
    rows = make_rows("numbers", ROWS)["numbers"][shuffle_rows(seed, 0, ROWS).numpy()]
    examples = {"inputs": {"numbers": tf.constant(rows)}, "targets": {"goal": tf.zeros(ROWS)}}
    prepared = trainer.components.loss.prepare(examples, 0, ROWS, None)
    output = run_network(trainer.network, prepared, training=False)["goal"]
    whole = float(tf.reduce_mean(Contrastive().loss(None, output)))
    apart = float(tf.reduce_mean(Contrastive().loss(None, output[:7])))
    _, metrics = trained(trainer)
    assert metrics["train/loss"] == pytest.approx(whole, rel=1e-5)
    assert abs(whole - apart) > 0.1
