"""One optimizer step, and many of them in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bmcli import private_api
from bmcli.training.coupled import CoupledGradients
from bmcli.training.feed import Block, gather_rows
from bmcli.training.graph_ops import (
    batch_rows,
    full_batches,
    graph_function,
    merge_axes,
    repeat,
    replica_share,
    rest_rows,
    xla_function,
)
from bmcli.training.loss import regularization_loss
from bmcli.training.micro_batches import MicroBatches
from bmcli.training.objective_batch import Arrays, sum_units
from bmcli.training.step_components import StepComponents

NO_STEP = -1


class Compilation(NamedTuple):
    """Way in which steps are compiled.

    Args:
        jit: Compile with XLA. The loop around the steps stays plain: XLA around the whole loop is many times slower on
            CPUs. With several replicas only the gradients are compiled, because XLA has no collective operations for
            their exchange on CPUs.
        steps_per_program: Number of successive steps that XLA compiles as one program. A program begins at a multiple
            of this number of batches of a feed; batches that do not fill a program are trained on one by one. Without
            XLA it is the number of steps whose examples are gathered, and computed by teachers, together. The last bits
            of the weights depend on it, so that a call must not end within a program.
    """

    jit: bool = False
    steps_per_program: int = 1


PLAIN = Compilation()


class CompiledSteps:
    """The compiled optimizer steps of one network.

    A step has the same result for any number of replicas and micro-batches: each sums the losses of its examples,
    divided by the size of the whole batch or by its number of units, and the gradients are summed before they are
    clipped and applied.

    Args:
        batch: Number of examples of a step, over all replicas.
        compilation: More than one step per program needs one replica and one micro-batch.
        micro_batches: Number of parts of a batch that are computed one after the other.
    """

    def __init__(
        self, components: StepComponents, batch: int, compilation: Compilation = PLAIN, micro_batches: int = 1
    ) -> None:
        self.components, self.batch, self.compilation, self.micro_batches = (
            components,
            batch,
            compilation,
            micro_batches,
        )
        self.network, self.optimizer = components.network, components.optimizer
        self.meters, self.placement = components.meters, components.placement
        self._loss, self._augmentation, self._hooks = components.loss, components.augmentation, components.hooks
        placement = self.placement
        self._is_undivided = placement.replicas == 1 and micro_batches == 1
        # A step without static shapes also takes the ragged last batch, so that it is traced only once.
        self._accepts_any_size = (
            self._is_undivided and not compilation.jit and self._augmentation is None and placement.kind != "tpu"
        )
        if placement.replicas > 1:
            # Keras would clip the gradients of each replica before their sum; `_reduce_gradients` sums them first.
            private_api.disable_gradient_reduction(self.optimizer)
        self._single_loop = graph_function(self._build_loop(self._build_step(compilation.jit), 1))
        program_loop = (
            self._build_loop(self._build_program(), compilation.steps_per_program)
            if compilation.jit
            else self._train_groups
        )
        self._program_loop = graph_function(program_loop)
        # One step per epoch has this shape: compiling it with XLA would cost more time than it saves.
        self._ragged_step = graph_function(self._distribute_step(self._build_step(False)))

    def train_block(self, block: Block) -> int:
        """Train on the batches of a block; returns the number of the first whose loss was not finite, or -1."""
        for first, count, loop in self._split_into_programs(block):
            bad = int(loop(block.data, block.rows, tf.constant(first), tf.constant(count)))
            if bad != NO_STEP:
                return first - block.first + bad
        return NO_STEP

    def _split_into_programs(self, block: Block) -> Iterator[tuple[int, int, Any]]:
        """Yield the first batch, the number of batches and the compiled loop of each call."""
        first, last, each = block.first, block.first + block.count, self.compilation.steps_per_program
        if each > 1 and not self.compilation.jit:
            yield first, block.count, self._program_loop
            return
        # Programs begin at multiples of their length, counted from the start of the feed's rows: which steps are
        # compiled together, and so the last bits, then do not depend on where calls or a resumed training begin.
        start, end = -(-first // each) * each, last // each * each
        if each == 1 or start >= end:
            start = end = last
        for begin, stop, loop in (
            (first, start, self._single_loop),
            (start, end, self._program_loop),
            (end, last, self._single_loop),
        ):
            if begin < stop:
                yield begin, stop - begin, loop

    def train_ragged_batch(self, block: Block) -> int:
        """Train on the ragged last batch, the only one of a block; returns 0 if its loss was not finite, else -1."""
        if self._accepts_any_size:
            return self.train_block(block)
        return NO_STEP if bool(tf.math.is_finite(self._ragged_step(block.data, rest_rows(block, self.batch)))) else 0

    def snapshot(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Copy the state of the variables, and of the meters on each replica."""
        return [variable.numpy() for variable in self.components.variables], self.meters.state()

    def restore_snapshot(self, snapshot: tuple[Sequence[np.ndarray], Sequence[np.ndarray]]) -> None:
        values, meter_state = snapshot
        for variable, value in zip(self.components.variables, values, strict=True):
            variable.assign(value)
        self.meters.restore(meter_state)

    @property
    def trace_count(self) -> int:
        """Number of times that steps were traced; each kind of step should be traced only once."""
        loops = (self._single_loop, self._program_loop, self._ragged_step)
        return sum(int(loop.experimental_get_tracing_count()) for loop in loops)

    def _build_loop(self, step: Callable[..., Any], each: int) -> Callable[..., Any]:
        """Build a loop over some batches that runs `each` of them in one call of `step`."""

        def loop(data: Any, rows: Any, first: Any, count: Any) -> Any:
            def train_next(done: Any, bad: Any) -> tuple[Any, Any]:
                if self._accepts_any_size:
                    chosen = batch_rows(rows, first + done, self.batch)
                else:
                    chosen = full_batches(rows, first + done, self.batch, each)
                # A loss that is not finite is recorded; the trainer stops after the call.
                losses = tf.reshape(self._run_on_replicas(step, data, chosen), (each,))
                wrong = ~tf.math.is_finite(losses)
                at = done + tf.argmax(wrong, output_type=tf.int32)
                return done + each, tf.where((bad == NO_STEP) & tf.reduce_any(wrong), at, bad)

            return repeat(count, train_next, tf.constant(NO_STEP))[0]

        return loop

    def _train_groups(self, data: Any, rows: Any, first: Any, count: Any) -> Any:
        """Train on some batches; the examples of several are gathered, and computed by teachers, together."""
        # A large network, such as a teacher, computes many rows at once in much less time than a few at a time.
        each = self.compilation.steps_per_program

        def train_next_group(done: Any, bad: Any) -> tuple[Any, Any]:
            # A group always has the same shape: beyond the end it repeats the last row, and `left` steps are trained.
            places = tf.minimum((first + done) * self.batch + tf.range(each * self.batch), tf.size(rows) - 1)
            left = tf.minimum(each, count - done)
            return done + each, self._run_on_replicas(self._train_group, data, tf.gather(rows, places), left, done, bad)

        return repeat(count, train_next_group, tf.constant(NO_STEP))[0]

    def _train_group(self, data: Any, rows: Any, count: Any, done: Any, bad: Any) -> Any:
        """Train the first `count` steps of a group, one after the other."""
        examples = self._gather_program_examples(data, rows)

        def train_next(number: Any, bad: Any) -> tuple[Any, Any]:
            batch = tf.nest.map_structure(lambda array: full_batches(array, number, self.batch), examples)
            wrong = ~tf.math.is_finite(self._train_examples(batch, self.batch))
            return number + 1, tf.where((bad == NO_STEP) & wrong, done + number, bad)

        return repeat(count, train_next, bad)[0]

    def _build_program(self) -> Callable[..., Any]:
        """Compile several steps as one program, from the arrays and the rows of all batches to the losses."""

        def train_all(examples: Arrays) -> Any:
            def batch(number: int) -> Any:
                first, last = number * self.batch, (number + 1) * self.batch
                return tf.nest.map_structure(lambda array: array[first:last], dict(examples))

            # Unrolled in Python, because a loop inside an XLA program is many times slower on CPUs.
            steps = range(self.compilation.steps_per_program)
            return tf.stack([self._train_examples(batch(number), self.batch) for number in steps])

        compiled = xla_function(train_all)
        return lambda data, rows: compiled(self._gather_program_examples(data, rows))

    def _gather_program_examples(self, data: Any, rows: Any) -> Arrays:
        """Gather the examples of all batches of a program, one batch after the other."""
        step, count = self.optimizer.iterations.value, self.compilation.steps_per_program
        if self._augmentation is None and not self._loss.changes_batch:
            return self._loss.extend(self._gather_examples(data, rows, None, step))

        # Each batch is changed separately, with the random numbers of its step, so that its examples are those of a
        # step that is compiled alone.
        def gather_batch(number: Any) -> Any:
            return self._gather_examples(data, full_batches(rows, number, self.batch), None, step + number)

        numbers = tf.range(count, dtype=step.dtype)
        traced = graph_function(gather_batch).get_concrete_function(tf.TensorSpec((), step.dtype))
        specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, traced.structured_outputs)
        batches = tf.map_fn(traced, numbers, fn_output_signature=specs)
        return self._loss.extend(tf.nest.map_structure(lambda array: merge_axes(array, count * self.batch), batches))

    def _gather_examples(self, data: Any, rows: Any, places: Any, step: Any) -> Arrays:
        """Gather the examples at some positions of a batch, augmented, and prepared by the objectives.

        Args:
            rows: Row in `data` of each example of the whole batch.
            places: Positions in the batch; None for the whole batch.
            step: Optimizer steps done.
        """
        if self._augmentation is not None:
            examples = self._augmentation.augment_examples(data, rows, places, step)
        else:
            examples = gather_rows(data, rows if places is None else tf.gather(rows, places))
        return self._loss.prepare(examples, step, rows.shape[0] or tf.size(rows), places)

    def _distribute_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda data, rows: self._run_on_replicas(step, data, rows)

    def _run_on_replicas(self, step: Callable[..., Any], *arguments: Any) -> Any:
        strategy = self.placement.strategy
        # Every replica returns the loss of the whole batch, so that the result of the first one is enough.
        return strategy.experimental_local_results(strategy.run(step, args=arguments))[0]

    def _build_step(self, jit: bool) -> Callable[..., Any]:
        """Build a step of one replica, from the arrays and the rows of the whole batch to the batch's loss."""
        # XLA compiles the whole step where it is undivided, and otherwise only what lies between the exchanges of the
        # replicas: it cannot contain collective operations on CPUs. Gathering and changing examples stay outside.
        compile_ = xla_function if jit else _keep
        train = compile_(self._train_examples)
        compute_gradients = (
            CoupledGradients(self.components, compile_).compute
            if self._loss.compares_examples
            else partial(self._accumulate_gradients, compile_(self._compute_gradients))
        )

        def step(data: Any, rows: Any) -> Any:
            size = tf.cast(tf.size(rows), tf.float32) if self._accepts_any_size else rows.shape[0]
            done = self.optimizer.iterations.value
            if self._is_undivided:
                return train(self._loss.extend(self._gather_examples(data, rows, None, done)), size)
            places, counts = replica_share(tf.range(size), self.placement.replicas)
            examples = self._gather_examples(data, rows, places, done)
            divisors = sum_units(examples, counts, self.placement.replicas)
            batches = MicroBatches.divide(places.shape[0], self.micro_batches)
            gradients, loss = compute_gradients(batches, examples, counts, size, divisors)
            return self._apply_gradients(*self._reduce_gradients(gradients, loss))

        return step

    def _train_examples(self, examples: Arrays, size: Any) -> Any:
        """Train on a whole batch; returns its loss."""
        divisors = sum_units(examples, None, 1)
        return self._apply_gradients(*self._compute_gradients(examples, None, size, divisors, 1))

    def _compute_gradients(
        self, examples: Arrays, counts: Any, size: Any, divisors: Mapping[str, Any], parts: int
    ) -> tuple[list[Any], Any]:
        """Compute the gradients and the loss that some examples contribute to a batch.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
            size: Number of examples in the whole batch.
            divisors: Number of units in the whole batch, of each target that counts them.
            parts: Number of parts in which this replica's share of the batch is computed.
        """
        with tf.GradientTape() as tape, self.components.join_forward_pass():
            results = self._loss.forward(examples)
            computed = self._loss.compute(examples, results, size, self.optimizer.iterations.value, divisors)
            losses = computed.losses if counts is None else computed.losses.map(lambda values: values * counts)
            penalty = regularization_loss(self.network)
            # Divided by the size of the whole batch, and the penalty by the number of contributions, so that the sum
            # over replicas and parts is the loss of one device. Means of shares would weight ragged ones too much.
            loss = losses.sum(size, divisors) + penalty / (self.placement.replicas * parts)
            scaled = self.optimizer.scale_loss(loss)
        self.components.update_meters(examples, computed._replace(losses=losses), penalty, counts)
        return tape.gradient(scaled, self.components.weights), loss

    def _accumulate_gradients(
        self,
        compute_gradients: Callable[..., Any],
        batches: MicroBatches,
        examples: Arrays,
        counts: Any,
        size: int,
        divisors: Mapping[str, Any],
    ) -> tuple[list[Any], Any]:
        """Sum the gradients and losses over the parts of this replica's examples."""

        def compute_part(part: tuple[Arrays, Any]) -> tuple[list[Any], Any]:
            examples, counts = part
            return compute_gradients(self._loss.extend(examples), counts, size, divisors, batches.parts)

        return batches.sum_gradients(compute_part, (examples, counts), self.components.weights)

    def _reduce_gradients(self, gradients: Sequence[Any], loss: Any) -> tuple[list[Any], Any]:
        """Sum gradients and loss over the replicas, and average moving statistics."""
        context = tf.distribute.get_replica_context()
        if self.placement.replicas == 1:
            return list(gradients), loss
        # Gradients of embeddings are sparse; dense ones can be summed with all others in one collective operation.
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        averaged = self.components.statistics
        statistics = [statistic.value / self.placement.replicas for statistic in averaged]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [*dense, *statistics, loss])
        for statistic, value in zip(averaged, summed[len(dense) : -1], strict=True):
            statistic.assign(value)
        remaining = iter(summed)
        return [None if gradient is None else next(remaining) for gradient in gradients], summed[-1]

    def _apply_gradients(self, gradients: Sequence[Any], loss: Any) -> Any:
        snapshots = [hook.before_step() for hook in self._hooks]
        for hook in self._hooks:
            gradients = hook.transform_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.components.weights, strict=True))
        for hook, snapshot in zip(self._hooks, snapshots, strict=True):
            hook.after_step(self.optimizer.iterations.value, snapshot)
        return loss

    def catch_up(self) -> None:
        """Let the hooks do what is due at the current step, after a resume with another number of steps."""
        step = int(self.optimizer.iterations.numpy())
        for hook in self._hooks:
            self.placement.strategy.run(hook.catch_up, args=(tf.constant(step),))


def _keep(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leave a function as it is, where others are compiled."""
    return function
