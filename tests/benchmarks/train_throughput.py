"""Examples per second of our loop next to `model.fit`, on the same network, data, batch size and optimizer.

    python -m tests.benchmarks.train_throughput [--recipe fashion-mlp ...] [--batch 32 64 256] [--repeats 5]

Every way to train takes turns with the others, so that a machine whose speed drifts is fair to all. The ways of
`model.fit` run in a process with TensorFlow as it comes, ours in one with the variables that bmcli sets before it
imports TensorFlow; where those matter to the kernels, `fit_..._as_ours` are the ways of `model.fit` in that second
process. A turn is a training of some epochs after one that compiled, and its fastest epoch counts: at the end of one in
ten or so epochs `model.fit` waits for the tuner of tf.data, which sleeps for up to as long as the epoch took, and that
would make up to half of the gain. Prints a table, and a JSON object on the last line.

Columns: `fit_numpy` on arrays, `fit_tfdata` on a shuffled tf.data, `fit_tfdata_32` the same with 32 steps an execution,
`ours`, `ours_xla` and `ours_xla_8` without XLA, with it, and with 8 steps as one program, and `torch`, a loop over
resident tensors, if PyTorch is installed. `--recipe shakespeare --rows 640` compares a language model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Mapping
from typing import Any

RECIPES = ("fashion-mlp", "fashion-cnn", "fashion-lstm", "fashion-transformer")
FIT = {"fit_numpy": None, "fit_tfdata": 1, "fit_tfdata_32": 32}
OURS = {"ours": (False, 1), "ours_xla": (True, 1), "ours_xla_8": (True, 8)}

Train = Callable[[int], list[float]]
"""Trains for some epochs; the seconds of each."""


class Trainee:
    """A process that trains on request.

    Args:
        variables: What its environment has beside ours.
    """

    def __init__(self, recipe: str, batch: int, rows: int, variables: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.train_throughput", "--serve", recipe, str(batch), str(rows)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **variables},
        )  # fmt: skip

    def seconds(self, way: str, epochs: int) -> float:
        """Of the fastest of some epochs of one way to train."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{way} {epochs}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def serve(recipe: str, batch: int, rows: int) -> None:
    """Trains as each line of stdin says, `way epochs`, and answers with the seconds of the fastest epoch."""
    answers, sys.stdout = sys.stdout, sys.stderr
    ways: dict[str, Train] = {}
    for line in sys.stdin:
        way, epochs = line.split()
        if way not in ways:
            ways[way] = _way(way, recipe, batch, rows)
        print(min(ways[way](int(epochs))), file=answers, flush=True)


def _way(way: str, name: str, batch: int, rows: int) -> Train:
    """A new network and a way to train it."""
    from bmcli import training
    from bmcli.recipe.load import load_recipe
    from bmcli.runs import make_cache_folder
    from bmcli.specs import Split
    from bmcli.training import prepare_data

    recipe = load_recipe(name, [f"train.batch_size={batch}"]).recipe
    prepared = prepare_data(recipe, make_cache_folder())
    whole = prepared.split("train")
    split = Split({k: v[:rows] for k, v in whole.inputs.items()}, {k: v[:rows] for k, v in whole.targets.items()})
    if way == "torch":
        return _torch(name, split, batch)
    from bmcli.distribution import strategy

    placement = strategy.create_placement(recipe.runtime)
    network = training.build_network(recipe, prepared.spec, whole.targets, placement)
    if way in FIT:
        return _fit(recipe, network, split, FIT[way])
    return _ours(recipe, network, split, placement, OURS[way])


def _ours(recipe: Any, network: Any, split: Any, placement: Any, way: tuple[bool, int]) -> Train:
    """Our loop, many steps a call, metrics included."""
    from bmcli.training import optimizers
    from bmcli.training.feed import ResidentFeed, shuffle_rows
    from bmcli.training.loss import LossProvider
    from bmcli.training.meters import Meters
    from bmcli.training.step_components import StepComponents
    from bmcli.training.train_step import Compilation, CompiledSteps

    feed, batch = ResidentFeed(split, placement), recipe.train.batch_size
    optimizer = optimizers.build_optimizer(recipe.train, 10**6)
    optimizer.build(network.model.trainable_variables)
    meters = Meters(network, {}, placement)
    components = StepComponents(network, optimizer, meters, placement, LossProvider(network, recipe.seed))
    steps = CompiledSteps(components, batch, Compilation(*way))
    numbers = iter(range(10**6))

    def train_epoch() -> None:
        feed.start_epoch(shuffle_rows(0, next(numbers), feed.count), batch)
        steps.train_block(feed.read_block(0, feed.count // batch))

    return _timed(train_epoch)


def _timed(train_epoch: Callable[[], None]) -> Train:
    def train(epochs: int) -> list[float]:
        return [timeit.timeit(train_epoch, number=1) for _ in range(epochs)]

    return train


def _fit(recipe: Any, network: Any, split: Any, steps_per_execution: int | None) -> Train:
    """`model.fit` on numpy arrays, or on tf.data if its steps per execution are told; metrics included."""
    import keras
    import numpy as np
    import tensorflow as tf

    from bmcli.training import optimizers

    (target,) = network.objectives
    network.model.compile(
        optimizer=optimizers.build_optimizer(recipe.train, 10**6),
        loss={target: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)},
        metrics={target: ["sparse_categorical_accuracy"]},
        steps_per_execution=steps_per_execution or 1,
    )
    inputs = {name: np.asarray(array) for name, array in split.inputs.items()}
    targets = {name: np.asarray(array) for name, array in split.targets.items()} or {target: _shift_tokens(inputs)}
    batch = recipe.train.batch_size
    if steps_per_execution is None:
        data: dict[str, Any] = {"x": inputs, "y": targets, "batch_size": batch}
    else:
        shuffled = tf.data.Dataset.from_tensor_slices((inputs, targets)).shuffle(len(split), seed=0)
        data = {"x": shuffled.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)}

    class Clock(keras.callbacks.Callback):
        seconds: list[float]

        def on_train_begin(self, logs: Any = None) -> None:
            self.seconds = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    def train(epochs: int) -> list[float]:
        clock = Clock()
        network.model.fit(**data, epochs=epochs, verbose=0, callbacks=[clock])
        return clock.seconds

    return train


def _shift_tokens(inputs: Mapping[str, Any]) -> Any:
    """The token after each of a text, -1 after the last one, `(rows, steps)`."""
    import numpy as np

    (ids,) = inputs.values()
    return np.concatenate([np.where(ids[:, 1:] == 0, -1, ids[:, 1:]), np.full_like(ids[:, :1], -1)], axis=1)


def _torch(name: str, split: Any, batch: int) -> Train:
    """The same network in PyTorch: rows resident in tensors and gathered by index."""
    import numpy as np
    import torch
    from torch import nn

    (image,), (label,) = split.inputs.values(), split.targets.values()
    pixels = torch.from_numpy(np.array(image)).float().div_(255).reshape(-1, 28, 28)
    labels = torch.from_numpy(np.array(label)).long()
    network = _TORCH[name](nn)
    optimizer = torch.optim.Adam(network.parameters())
    loss_of = nn.CrossEntropyLoss()

    def train_epoch() -> None:
        order = torch.randperm(len(labels))
        for start in range(0, len(labels) - batch + 1, batch):
            rows = order[start : start + batch]
            output = network(pixels[rows])
            loss = loss_of(output, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return _timed(train_epoch)


def compare(name: str, batch: int, repeats: int, seconds: float, rows: int) -> dict[str, Any]:
    """Median examples per second of every way to train a recipe's network, and ratios within each turn."""
    from bmcli import training
    from bmcli.recipe.load import load_recipe
    from bmcli.runs import make_cache_folder

    rows = rows // batch * batch
    plain = Trainee(name, batch, rows, {})
    as_ours = Trainee(name, batch, rows, training.environment_variables(load_recipe(name).recipe, make_cache_folder()))
    different = "TF_ENABLE_ONEDNN_OPTS" in training.environment_variables(load_recipe(name).recipe, make_cache_folder())
    ways = {way: (plain, way) for way in FIT} | {way: (as_ours, way) for way in OURS}
    if different:
        ways |= {f"{way}_as_ours": (as_ours, way) for way in FIT}
    if _has_torch() and name in _TORCH:
        ways["torch"] = (plain, "torch")
    try:
        for trainee, way in ways.values():
            trainee.seconds(way, 1)  # traces and compiles
        epochs = {name: max(2, round(seconds / t.seconds(way, 2))) for name, (t, way) in ways.items()}
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for key, (trainee, way) in ways.items():
                speeds[key].append(rows / trainee.seconds(way, epochs[key]))
    finally:
        plain.end()
        as_ours.end()
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    best = max(OURS, key=lambda way: medians[way])
    return {
        "recipe": name,
        "batch_size": batch,
        "examples_per_second": medians,
        "chosen": best,
        "ratio_to_fit_numpy": _ratio(speeds, best, ["fit_numpy"]),
        "ratio_to_fit_tfdata": _ratio(speeds, best, ["fit_tfdata"]),
        "ratio_to_best_fit": _ratio(speeds, best, [way for way in ways if way.startswith("fit")]),
    }


def _ratio(speeds: Mapping[str, list[float]], way: str, others: list[str]) -> float:
    """Median over the turns of one way against the fastest of others, the fastest by its median."""
    fastest = max(others, key=lambda other: statistics.median(speeds[other]))
    return statistics.median(a / b for a, b in zip(speeds[way], speeds[fastest], strict=True))


def _has_torch() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def _torch_mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )  # fmt: skip


def _torch_cnn(nn: Any) -> Any:
    block = [nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2)]
    return nn.Sequential(
        nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 16, 5, padding=2), *block, nn.Conv2d(16, 32, 5, padding=2), *block,
        nn.Flatten(), nn.Linear(32 * 7 * 7, 120), nn.ReLU(), nn.Dropout(0.2), nn.Linear(120, 84), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(84, 10),
    )  # fmt: skip


def _torch_lstm(nn: Any) -> Any:
    class LastState(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(28, 64, batch_first=True), nn.Linear(64, 10)

        def forward(self, rows: Any) -> Any:
            return self.head(self.lstm(rows)[0][:, -1])

    return LastState()


def _torch_transformer(nn: Any) -> Any:
    import torch

    class Encoder(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.positions = nn.Linear(49, 64), nn.Parameter(torch.randn(16, 64) * 0.02)
            block = nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(block, 2, nn.LayerNorm(64), enable_nested_tensor=False)
            self.head = nn.Linear(64, 10)

        def forward(self, pixels: Any) -> Any:
            patches = pixels.reshape(-1, 4, 7, 4, 7).transpose(2, 3).reshape(-1, 16, 49)
            return self.head(self.blocks(self.embed(patches) + self.positions).mean(1))

    return Encoder()


_TORCH: dict[str, Callable[[Any], Any]] = {
    "fashion-mlp": _torch_mlp,
    "fashion-cnn": _torch_cnn,
    "fashion-lstm": _torch_lstm,
    "fashion-transformer": _torch_transformer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=list(RECIPES))
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 64, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="Of one turn.")
    parser.add_argument("--rows", type=int, default=12_800)
    parser.add_argument("--serve", nargs=3, metavar=("RECIPE", "BATCH", "ROWS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve[0], int(chosen.serve[1]), int(chosen.serve[2]))
        return
    results = []
    for name in chosen.recipe:
        for batch in chosen.batch:
            result = compare(name, batch, chosen.repeats, chosen.seconds, chosen.rows)
            results.append(result)
            speeds = "  ".join(f"{way} {value:,.0f}" for way, value in result["examples_per_second"].items())
            print(f"{name:<20} {batch:>4}  {speeds}", flush=True)
            print(
                f"{'':<25}  {result['chosen']}: {result['ratio_to_fit_numpy']:.2f}x fit on numpy, "
                f"{result['ratio_to_fit_tfdata']:.2f}x on tf.data, {result['ratio_to_best_fit']:.2f}x the best fit",
                flush=True,
            )
    means = {
        key: statistics.geometric_mean(result[key] for result in results)
        for key in ("ratio_to_fit_numpy", "ratio_to_fit_tfdata", "ratio_to_best_fit")
    }
    print("geometric means: " + ", ".join(f"{key} {value:.2f}x" for key, value in means.items()))
    print(json.dumps({"results": results, "geometric_means": means}))


if __name__ == "__main__":
    main()
