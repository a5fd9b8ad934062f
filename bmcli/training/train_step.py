"""One optimizer step, many of them in one call, and a pass over a split without learning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.training import dropout
from bmcli.training.augmentation import Augment
from bmcli.training.averaging import Average
from bmcli.training.feed import Block, Feed, batches, gather, inputs_of, part
from bmcli.training.meters import Meters
from bmcli.training.pruning import Masks
from bmcli.training.quantization_aware import Rounding

CALL_S = 0.25  # Steps of one call fill about this time: Python costs nothing, and signals are still answered quickly.

NO_STEP = -1

Arrays = Mapping[str, Any]


def losses(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> Any:
    """Loss of each example over all targets, `(batch,)`, with the weights of targets and examples.

    Where examples are mixed with others it is that of both, by their shares of the mixture.
    """
    own = _losses(network, examples, outputs)
    if "others" not in examples:
        return own
    share = examples["share"]
    return share * own + (1.0 - share) * _losses(network, examples["others"], outputs)


def _losses(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> Any:
    targets = examples["targets"]
    total = tf.add_n(
        [objective.weight * objective.loss(targets[n], outputs[n]) for n, objective in network.objectives.items()]
    )
    if "labelled" in examples:
        total = total * examples["labelled"]
    return total * examples["weights"] if "weights" in examples else total


def example_weights(examples: Arrays, like: Any) -> Any:
    """How much each example counts, `(batch,)`; of mixed ones by their shares of the mixture.

    Args:
        like: Any numbers of the examples, `(batch,)`.
    """
    own = examples["weights"] if "weights" in examples else tf.ones_like(like)
    if "others" not in examples or "weights" not in examples:
        return own
    return examples["share"] * own + (1.0 - examples["share"]) * examples["others"]["weights"]


class Judged(NamedTuple):
    """What a step found of some examples.

    Args:
        outputs: Of the network, by target.
        losses: Of each example, `(batch,)`, its weight included.
        terms: What the losses are made of, each `(batch,)` with the weights of examples, by name; empty if one alone.
    """

    outputs: Mapping[str, Any]
    losses: Any
    terms: Mapping[str, Any]


class Lesson:
    """What a network learns from: the labels, by its objectives.

    Args:
        network: What learns.
    """

    terms: tuple[str, ...] = ()
    """Names of what the loss is made of, if it is of several things."""
    compares = False
    """Whether examples of a batch are compared with each other, so that it has to be computed at once."""
    asks = False
    """Whether something is asked of the examples of every step."""
    steps_per_epoch = 1
    described: Any = None
    """What decides how fast a step is, beside the network."""
    words = ""
    """What a user may want to know of it, in a sentence."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def helpers(self) -> list[Any]:
        """Weights that are learned beside those of the network, and then dropped."""
        return []

    def completed(self, examples: Arrays) -> Arrays:
        """The examples with what is known of them beside the labels."""
        return examples

    def judge(self, examples: Arrays, counts: Any, size: int, step: Any) -> Judged:
        """Outputs and losses of some examples of a batch, in training.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
            size: Examples of the whole batch.
            step: Optimizer steps done.
        """
        outputs = self.network.model(inputs_of(examples), training=True)
        return Judged(outputs, losses(self.network, examples, outputs), {})


def penalty(network: Network) -> Any:
    """The network's own losses: regularisers."""
    return tf.add_n([tf.cast(loss, tf.float32) for loss in network.model.losses] or [tf.zeros(())])


def compiled(function: Callable[..., Any]) -> Any:
    """A graph of a function without Python's control flow; to convert that would take a second or two."""
    return tf.function(function, autograph=False)


def compiled_by_xla(function: Callable[..., Any]) -> Any:
    def with_cheap_dropout(*arguments: Any) -> Any:
        with dropout.hashed():
            return function(*arguments)

    return tf.function(with_cheap_dropout, jit_compile=True, autograph=False)


def repeat(count: Any, body: Callable[..., Any], *state: Any) -> list[Any]:
    """The state after `count` turns of `body(done, *state) -> (done + 1, *state)`, one after the other."""
    _, *found = tf.while_loop(lambda done, *_: done < count, body, (tf.constant(0), *state), parallel_iterations=1)
    return found


def some_batches(rows: Any, number: Any, batch: int, count: int = 1) -> Any:
    """What lies at some full batches, from batch `number` on, `(count * batch, ...)`."""
    return tf.ensure_shape(rows[number * batch : (number + count) * batch], (count * batch, *rows.shape[1:]))


def batch_or_rest(rows: Any, number: Any, batch: int) -> Any:
    """The rows of a batch of an order, `(examples,)`; how many shows only when it runs, for the last may be ragged."""
    return rows[number * batch : (number + 1) * batch]


def rest(block: Block, batch: int) -> Any:
    """The rows of a block from its first batch on, in a shape of their own."""
    return block.rows[block.first * batch :]


class Compilation(NamedTuple):
    """How steps are compiled.

    Args:
        jit: With XLA. The loop around the steps stays plain: XLA around the whole loop is many times slower on CPUs.
            With several replicas only the gradients are compiled, because XLA cannot hold the exchange of gradients
            on CPUs.
        together: Steps that XLA compiles, one after the other, as one program. They start at every `together`th batch
            of a feed and end with it; batches that do not fill a program are trained on one by one. Without XLA: steps
            whose examples are made, and shown to teachers, at once. The last bits of the weights depend on it, and so
            calls must not end within a program.
    """

    jit: bool = False
    together: int = 1


PLAIN = Compilation()


class Steps:
    """The compiled steps of one network.

    A step is that of the whole batch, however many replicas and parts it is computed in: each of them adds up the
    losses of its examples, divided by the examples of the batch, and the gradients are added up before they are clipped
    and applied.

    Args:
        batch: Examples of a step, over all replicas.
        compilation: Several steps together need one replica and one part.
        parts: How many parts a batch is computed in, one after the other.
        average: Averages of the trainable weights.
        rates: Factors of the learning rate of some of the trainable weights, by their places among them.
        augment: What changes the examples, outside of what XLA compiles.
        lesson: What is learned from; by default the labels.
        masks: What is pruned.
        rounding: What rounds weights and activations of the network.
    """

    def __init__(
        self,
        network: Network,
        optimizer: keras.Optimizer,
        meters: Meters,
        placement: Placement,
        batch: int,
        compilation: Compilation = PLAIN,
        parts: int = 1,
        average: Average | None = None,
        rates: Mapping[int, float] | None = None,
        augment: Augment | None = None,
        lesson: Lesson | None = None,
        masks: Masks | None = None,
        rounding: Rounding | None = None,
    ) -> None:
        self.network, self.optimizer, self.meters, self.placement = network, optimizer, meters, placement
        self.batch, self.compilation, self.parts, self.average = batch, compilation, parts, average
        self.rates, self.augment = dict(rates or {}), augment
        self.lesson = lesson or Lesson(network)
        self.masks, self.rounding = masks, rounding
        self.statistics = [*moving_statistics(network.model), *(rounding.ranges if rounding else [])]
        self._alone = placement.replicas == 1 and parts == 1
        # What is not compiled for one shape takes the ragged last batch as it comes, and is traced but once.
        self._any_size = self._alone and not compilation.jit and augment is None and placement.kind != "tpu"
        if placement.replicas > 1:
            _leave_reducing_to_us(optimizer)
        self._many = compiled(self._loop_over(self._step_with(compilation.jit), 1))
        several = (
            self._loop_over(self._one_after_the_other(), compilation.together) if compilation.jit else self._groups
        )
        self._together = compiled(several)
        # The ragged last batch has a shape of its own; compiling it too would cost more than it saves.
        self._ragged = compiled(self._one_by(self._step_with(False)))

    def many(self, block: Block) -> int:
        """Trains on the batches of a block; the first whose loss was not finite, or -1."""
        for first, count, loop in self._programs(block):
            bad = int(loop(block.data, block.rows, tf.constant(first), tf.constant(count)))
            if bad != NO_STEP:
                return first - block.first + bad
        return NO_STEP

    def _programs(self, block: Block) -> Iterator[tuple[int, int, Any]]:
        """First batch and number of batches that each compiled loop takes, one after the other."""
        first, last, each = block.first, block.first + block.count, self.compilation.together
        if each > 1 and not self.compilation.jit:
            yield first, block.count, self._together
            return
        start, end = -(-first // each) * each, last // each * each
        if each == 1 or start >= end:
            start = end = last
        for begin, stop, loop in ((first, start, self._many), (start, end, self._together), (end, last, self._many)):
            if begin < stop:
                yield begin, stop - begin, loop

    def ragged(self, block: Block) -> int:
        """Trains on the one batch of a block, which is cut short; 0 if its loss was not finite, else -1."""
        if self._any_size:
            return self.many(block)
        return NO_STEP if bool(tf.math.is_finite(self._ragged(block.data, rest(block, self.batch)))) else 0

    @property
    def variables(self) -> list[Any]:
        """Everything that decides how training goes on and is the same on every replica, in a fixed order."""
        average = self.average.variables if self.average else []
        masks = self.masks.variables if self.masks else []
        ranges = self.rounding.ranges if self.rounding else []
        learned = [*self.network.model.variables, *self.lesson.helpers]
        return [*learned, *self.optimizer.variables, *average, *masks, *ranges]

    @property
    def weights(self) -> list[Any]:
        """What gradients are applied to: the weights of the network, then those of helpers."""
        return [*self.network.model.trainable_variables, *self.lesson.helpers]

    def snapshot(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The state of the variables, and of the meters on each replica."""
        return [variable.numpy() for variable in self.variables], self.meters.state()

    def put_back(self, snapshot: tuple[Sequence[np.ndarray], Sequence[np.ndarray]]) -> None:
        values, gathered = snapshot
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        self.meters.restore(gathered)

    @property
    def traces(self) -> int:
        """How often the steps were traced; more than once for each kind of step would be a waste."""
        loops = (self._many, self._together, self._ragged)
        return sum(int(loop.experimental_get_tracing_count()) for loop in loops)

    def _loop_over(self, step: Callable[..., Any], each: int) -> Callable[..., Any]:
        """Steps on some batches, `each` of them a turn."""

        def loop(data: Any, rows: Any, first: Any, count: Any) -> Any:
            def following(done: Any, bad: Any) -> tuple[Any, Any]:
                if self._any_size:
                    chosen = batch_or_rest(rows, first + done, self.batch)
                else:
                    chosen = some_batches(rows, first + done, self.batch, each)
                losses = tf.reshape(self._run(step, data, chosen), (each,))
                wrong = ~tf.math.is_finite(losses)
                at = done + tf.argmax(wrong, output_type=tf.int32)
                return done + each, tf.where((bad == NO_STEP) & tf.reduce_any(wrong), at, bad)

            return repeat(count, following, tf.constant(NO_STEP))[0]

        return loop

    def _groups(self, data: Any, rows: Any, first: Any, count: Any) -> Any:
        """Steps on some batches, the examples of several of which are made at once.

        A large network computes many rows in much less time than few at a time.
        """
        each = self.compilation.together

        def following(done: Any, bad: Any) -> tuple[Any, Any]:
            places = tf.minimum((first + done) * self.batch + tf.range(each * self.batch), tf.size(rows) - 1)
            left = tf.minimum(each, count - done)
            return done + each, self._run(self._group, data, tf.gather(rows, places), left, done, bad)

        return repeat(count, following, tf.constant(NO_STEP))[0]

    def _group(self, data: Any, rows: Any, count: Any, done: Any, bad: Any) -> Any:
        """The first `count` of some steps, one after the other."""
        examples = self._examples_of_several(data, rows)

        def following(number: Any, bad: Any) -> tuple[Any, Any]:
            batch = tf.nest.map_structure(lambda array: some_batches(array, number, self.batch), examples)
            wrong = ~tf.math.is_finite(self._learn(batch, None, self.batch, 1))
            return number + 1, tf.where((bad == NO_STEP) & wrong, done + number, bad)

        return repeat(count, following, bad)[0]

    def _one_after_the_other(self) -> Callable[..., Any]:
        """Several steps as one program: from the arrays and the places of all their batches to their losses."""

        def learn(examples: Arrays) -> Any:
            def batch(number: int) -> Any:
                first, last = number * self.batch, (number + 1) * self.batch
                return tf.nest.map_structure(lambda array: array[first:last], dict(examples))

            return tf.stack([self._learn(batch(n), None, self.batch, 1) for n in range(self.compilation.together)])

        learn_all = compiled_by_xla(learn)
        return lambda data, rows: learn_all(self._examples_of_several(data, rows))

    def _examples_of_several(self, data: Any, rows: Any) -> Arrays:
        """The examples of the batches that are computed together, one after the other."""
        if self.augment is None:
            return self.lesson.completed(gather(data, rows))
        augment, step = self.augment, self.optimizer.iterations.value

        def make(number: Any) -> Any:
            return augment.examples(data, some_batches(rows, number, self.batch), None, step + number)

        numbers = tf.range(self.compilation.together, dtype=step.dtype)
        traced = compiled(make).get_concrete_function(tf.TensorSpec((), step.dtype))
        kinds = tf.nest.map_structure(tf.TensorSpec.from_tensor, traced.structured_outputs)
        found = tf.map_fn(traced, numbers, fn_output_signature=kinds)
        return self.lesson.completed(tf.nest.map_structure(_in_one_row, found))

    def _examples(self, data: Any, rows: Any, places: Any) -> Arrays:
        """The examples at some places of a batch, augmented if the recipe says so, with what is known of them.

        Args:
            rows: Where in `data` the examples of the whole batch lie.
            places: None for the whole batch.
        """
        if self.augment is not None:
            found = self.augment.examples(data, rows, places, self.optimizer.iterations.value)
        else:
            found = gather(data, rows if places is None else tf.gather(rows, places))
        return self.lesson.completed(found)

    def _one_by(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda data, rows: self._run(step, data, rows)

    def _run(self, step: Callable[..., Any], *given: Any) -> Any:
        strategy = self.placement.strategy
        return strategy.experimental_local_results(strategy.run(step, args=given))[0]

    def _step_with(self, jit: bool) -> Callable[..., Any]:
        """A step of one replica: from the arrays and the places of the whole batch in them to the batch's loss."""
        learn = compiled_by_xla(self._learn) if jit else self._learn
        gradients = compiled_by_xla(self._gradients) if jit else self._gradients

        def step(data: Any, rows: Any) -> Any:
            size = tf.cast(tf.size(rows), tf.float32) if self._any_size else rows.shape[0]
            if self._alone:
                return learn(self._examples(data, rows, None), None, size, 1)
            places, counts = share(tf.range(size), self.placement.replicas)
            taken = partial(self._examples, data, rows)
            found, loss = self._over_parts(gradients, taken, places, counts, size)
            return self._apply(*self._reduced(found, loss))

        return step

    def _learn(self, examples: Arrays, counts: Any, size: Any, parts: int) -> Any:
        return self._apply(*self._gradients(examples, counts, size, parts))

    def _gradients(self, examples: Arrays, counts: Any, size: Any, parts: int) -> tuple[list[Any], Any]:
        """Gradients and loss that some examples add to a batch.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
            size: Examples of the whole batch.
            parts: How many parts this replica's share of the batch is computed in.
        """
        with tf.GradientTape() as tape, self.rounding.observing() if self.rounding else nullcontext():
            judged = self.lesson.judge(examples, counts, size, self.optimizer.iterations.value)
            each = judged.losses if counts is None else judged.losses * counts
            own = penalty(self.network)
            loss = tf.reduce_sum(each) / size + own / (self.placement.replicas * parts)
            scaled = self.optimizer.scale_loss(loss)
        predictions = self.network.predict(judged.outputs)
        self.meters.update(each, own, examples["targets"], predictions, counts, judged.terms, examples.get("labelled"))
        return tape.gradient(scaled, self.weights), loss

    def _over_parts(
        self, gradients: Callable[..., Any], taken: Callable[[Any], Arrays], places: Any, counts: Any, size: int
    ) -> tuple[list[Any], Any]:
        """The sum of the gradients over the parts of this replica's examples.

        Args:
            taken: From places in the batch to the examples there.
        """
        mine = places.shape[0]
        each = -(-mine // self.parts)  # as many in every part but the last
        full, rest = divmod(mine, each)
        parts = full + (1 if rest else 0)
        if parts == 1:
            return gradients(taken(places), counts, size, 1)

        def of(start: Any, length: int) -> tuple[list[Any], Any]:
            chosen = tf.ensure_shape(places[start : start + length], (length,))
            counted = None if counts is None else tf.ensure_shape(counts[start : start + length], (length,))
            return gradients(taken(chosen), counted, size, parts)

        weights = self.weights
        total = [tf.zeros(weight.shape) for weight in weights]
        loss = tf.zeros(())
        has_gradient = [True] * len(weights)

        def add(number: Any, total: list[Any], loss: Any) -> tuple[Any, list[Any], Any]:
            found, more = of(number * each, each)
            has_gradient[:] = [gradient is not None for gradient in found]
            return number + 1, _added(total, found), loss + more

        total, loss = repeat(full, add, total, loss)
        if rest:
            found, more = of(full * each, rest)
            total, loss = _added(total, found), loss + more
        return [gradient if has else None for gradient, has in zip(total, has_gradient, strict=True)], loss

    def _reduced(self, gradients: Sequence[Any], loss: Any) -> tuple[list[Any], Any]:
        """Sums over the replicas; moving statistics become their means."""
        context = tf.distribute.get_replica_context()
        if self.placement.replicas == 1:
            return list(gradients), loss
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        statistics = [statistic.value / self.placement.replicas for statistic in self.statistics]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [*dense, *statistics, loss])
        for statistic, value in zip(self.statistics, summed[len(dense) : -1], strict=True):
            statistic.assign(value)
        found = iter(summed)
        return [None if gradient is None else next(found) for gradient in gradients], summed[-1]

    def _apply(self, gradients: Sequence[Any], loss: Any) -> Any:
        weights = self.weights
        before = {place: tf.identity(weights[place].value) for place in self.rates}
        noted = None if self.average is None else self.average.before_step()
        if self.masks is not None:
            gradients = self.masks.gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        # The change is scaled and not the gradient, whose size means nothing to Adam and its like.
        for place, value in before.items():
            weights[place].assign(value + self.rates[place] * (weights[place].value - value))
        if self.average is not None:
            self.average.after_step(self.optimizer.iterations, noted)
        if self.masks is not None:
            self.masks.after_step(self.optimizer.iterations.value, self._copies)
        return loss

    @property
    def _copies(self) -> list[list[Any]]:
        return self.average.copies if self.average else []

    def catch_up(self) -> None:
        """Prunes what is due by now, where the span of pruning has moved."""
        if self.masks is not None:
            step = int(self.optimizer.iterations.numpy())
            self.placement.strategy.run(lambda: self.masks.catch_up(tf.constant(step), self._copies))


def _in_one_row(batches: Any) -> Any:
    """Arrays of several batches, `(batches, batch, ...)`, one after the other."""
    count, batch, *rest = batches.shape
    return tf.reshape(batches, (count * batch, *rest))


def share(rows: Any, replicas: int) -> tuple[Any, Any]:
    """The rows of a batch that the current replica takes, and whether each counts (1 or 0; None if all do).

    The shares differ by one row at most. Where a replica cannot know its number before it runs, as on a TPU, they
    are all of one size, and rows too many do not count.
    """
    if replicas == 1:
        return rows, None
    size = rows.shape[0]
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    replica = tf.get_static_value(number)
    if replica is not None:
        first, last = part(size, replicas, int(replica))
        empty = size * (int(replica) + 1) // replicas == first
        return rows[first:last], tf.zeros((1,)) if empty else None
    each = -(-size // replicas)
    places = number * each + tf.range(each)
    return tf.gather(rows, tf.minimum(places, size - 1)), tf.cast(places < size, tf.float32)


def whole(value: Any, counts: Any, size: int, replicas: int) -> Any:
    """What all replicas have of their shares of a batch, in the order of the batch, `(batch, ...)`.

    Args:
        value: Of this replica's share, `(examples, ...)`.
        counts: As `share` gives them.
        size: Examples of the whole batch.
    """
    if replicas == 1:
        return value
    # Each replica puts its rows into their places among zeros; the sum has them all.
    places, _ = share(tf.range(size), replicas)
    if counts is not None:
        value = tf.where(tf.reshape(counts > 0, [-1] + [1] * (len(value.shape) - 1)), value, 0)
    spread = tf.scatter_nd(places[:, None], value, tf.stack([size, *value.shape[1:]]))
    summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, spread)
    return tf.ensure_shape(summed, (size, *value.shape[1:]))


class Stopped(Exception):
    """A pass over rows was left, because a signal came."""


def _never() -> bool:
    return False


class Pace:
    """How many batches a call has: what fills about `CALL_S`, so that signals are answered between calls."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.batches = 1

    def after(self, count: int, seconds: float, stops: Callable[[], bool]) -> None:
        """Takes up how long a call of `count` batches took; all workers go by the clock of the chief.

        Raises:
            Stopped: One of the workers is to stop.
        """
        own = seconds if self._placement.chief else 0.0
        seconds, stopping = self._placement.sum_over_workers([own, float(stops())])
        if stopping:
            raise Stopped
        # At most doubled, because the first calls also trace and compile.
        self.batches = max(1, min(2 * self.batches, int(CALL_S * count / max(seconds, 1e-6))))


class Pass:
    """A pass over a split without learning: every row once, in its own order."""

    def __init__(
        self, network: Network, feed: Feed, batch: int, placement: Placement, meters: Meters | None = None
    ) -> None:
        self.network, self.feed, self.batch, self.placement, self.meters = network, feed, batch, placement, meters
        self._any_size = placement.replicas == 1 and placement.kind != "tpu"
        self._measure_many = compiled(self._loop)
        self._measure_rest = compiled(self._measure_batch)
        self._predict = compiled(self._predict_batch)
        self._pace = Pace(placement)

    def measure(self, stops: Callable[[], bool] = _never) -> dict[str, float]:
        """Loss and metrics over the split, by the meters given.

        Args:
            stops: Whether to leave the pass; asked after every call of some batches.

        Raises:
            Stopped: It said so.
        """
        assert self.meters is not None, "a pass that measures needs meters"
        self.meters.reset()
        for block, is_rest in batches(self.feed, self.batch, lambda: self._pace.batches):
            start = time.perf_counter()
            if is_rest and not self._any_size:
                self._measure_rest(block.data, rest(block, self.batch))
            else:
                self._measure_many(block.data, block.rows, tf.constant(block.first), tf.constant(block.count))
            self.meters.loss()  # waits for the device
            self._pace.after(block.count, time.perf_counter() - start, stops)
        return self.meters.results()

    def predict(self) -> dict[str, np.ndarray]:
        """Predictions of all rows by target, in the order of the split."""
        found = []
        for block, _ in batches(self.feed, self.batch):
            for number in range(block.first, block.first + block.count):
                found.append(self._predict(block.data, batch_or_rest(block.rows, number, self.batch)))
        return {name: np.concatenate([batch[name].numpy() for batch in found]) for name in self.network.objectives}

    def _loop(self, data: Any, rows: Any, first: Any, count: Any) -> None:
        def following(done: Any) -> tuple[Any]:
            chosen = batch_or_rest if self._any_size else some_batches
            self._measure_batch(data, chosen(rows, first + done, self.batch))
            return (done + 1,)

        repeat(count, following)

    def _measure_batch(self, data: Any, rows: Any) -> None:
        self.placement.strategy.run(self._measure, args=(data, rows))

    def _measure(self, data: Any, rows: Any) -> None:
        assert self.meters is not None
        rows, counts = share(rows, self.placement.replicas)
        examples = gather(data, rows)
        outputs = self.network.model(inputs_of(examples), training=False)
        each = losses(self.network, examples, outputs)
        each = each if counts is None else each * counts
        self.meters.update(each, penalty(self.network), examples["targets"], self.network.predict(outputs), counts)

    def _predict_batch(self, data: Any, rows: Any) -> dict[str, Any]:
        strategy = self.placement.strategy
        found = strategy.run(self._predict_share, args=(data, rows))
        return {name: strategy.experimental_local_results(value)[0] for name, value in found.items()}

    def _predict_share(self, data: Any, rows: Any) -> dict[str, Any]:
        size = rows.shape[0]
        mine, counts = share(rows, self.placement.replicas)
        predicted = self.network.predict(self.network.model(inputs_of(gather(data, mine)), training=False))
        if self.placement.replicas == 1:
            return predicted
        return {name: whole(value, counts, size, self.placement.replicas) for name, value in predicted.items()}


def _added(total: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    return [
        sum_ if gradient is None else sum_ + tf.convert_to_tensor(gradient)
        for sum_, gradient in zip(total, found, strict=True)
    ]


def moving_statistics(model: keras.Model) -> list[Any]:
    """What batch normalisation learns about its inputs, which each replica learns from its own examples."""
    return [
        weight
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for weight in layer.non_trainable_variables
        if "float" in weight.dtype
    ]


def _leave_reducing_to_us(optimizer: keras.Optimizer) -> None:
    """Gradients are summed before they are clipped; Keras would sum them after."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list
