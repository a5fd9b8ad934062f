"""Examples per second of our loop next to `model.fit`, on the same network, data, batch size and optimizer.

    python -m tests.benchmarks.train_throughput [--recipe fashion-mlp ...] [--repeats 5] [--rows 12800]

Both train in this process in turn, so that a machine whose speed drifts is fair to both. A repeat is one epoch after a
first one that compiles. Prints a table, and a JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.data.preparation import prepare
from bmcli.recipe.load import load
from bmcli.recipe.schema import Recipe
from bmcli.runs import cache_folder
from bmcli.specs import Split
from bmcli.training import optimizers, strategy
from bmcli.training.feed import ResidentFeed, order
from bmcli.training.meters import Meters
from bmcli.training.network import Network, assemble
from bmcli.training.step import Steps


def our_epoch(recipe: Recipe, network: Network, split: Split, jit: bool) -> Callable[[], None]:
    """An epoch of our loop, many steps a call, metrics included."""
    feed = ResidentFeed(split)
    batch = recipe.train.batch_size
    optimizer = optimizers.build(recipe.train, 10**6)
    optimizer.build(network.model.trainable_variables)
    steps = Steps(network, optimizer, Meters(network, {}), feed, batch, jit)
    epochs = iter(range(10**6))

    def run() -> None:
        rows = order(0, next(epochs), feed.count)
        steps.many(rows, 0, feed.count // batch)

    return run


def fit_epoch(recipe: Recipe, network: Network, split: Split, **settings: Any) -> Callable[[], None]:
    """An epoch of `model.fit` on numpy arrays, or on tf.data where settings ask for it, metrics included."""
    (target,) = split.targets
    model = network.model
    model.compile(
        optimizer=optimizers.build(recipe.train, 10**6),
        loss={target: keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        metrics={target: ["sparse_categorical_accuracy"]},
        jit_compile=False,
        steps_per_execution=settings.get("steps_per_execution", 1),
    )
    inputs = {name: np.asarray(array) for name, array in split.inputs.items()}
    targets = {name: np.asarray(array) for name, array in split.targets.items()}
    batch = recipe.train.batch_size
    if "steps_per_execution" in settings:
        data = tf.data.Dataset.from_tensor_slices((inputs, targets)).shuffle(len(split), seed=0)
        data = data.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
        return lambda: model.fit(data, epochs=1, verbose=0)
    return lambda: model.fit(inputs, targets, batch_size=batch, epochs=1, verbose=0, shuffle=True)


def compare(name: str, repeats: int, rows: int) -> dict[str, Any]:
    """Median examples per second of every way to train a recipe's network, and ratios to `fit` on numpy."""
    recipe = load(name).recipe
    strategy.prepare_runtime(recipe.seed, recipe.train.precision)
    prepared = prepare(recipe.data, recipe.targets(), recipe.seed, cache_folder() / "prepared")
    whole = prepared.split("train")
    rows = min(rows, len(whole)) // recipe.train.batch_size * recipe.train.batch_size
    split = Split({k: v[:rows] for k, v in whole.inputs.items()}, {k: v[:rows] for k, v in whole.targets.items()})

    def network() -> Network:
        return assemble(recipe, prepared.spec, whole.targets)

    ways = {
        "fit_numpy": fit_epoch(recipe, network(), split),
        "fit_tfdata": fit_epoch(recipe, network(), split, steps_per_execution=1),
        "fit_tfdata_32": fit_epoch(recipe, network(), split, steps_per_execution=32),
        "ours": our_epoch(recipe, network(), split, jit=False),
        "ours_xla": our_epoch(recipe, network(), split, jit=True),
    }
    for run in ways.values():
        run()
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            speeds[way].append(rows / (time.perf_counter() - start))
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    ratios = {
        way: statistics.median(a / b for a, b in zip(speeds[way], speeds["fit_numpy"], strict=True)) for way in ways
    }
    return {
        "recipe": name,
        "batch_size": recipe.train.batch_size,
        "examples_per_second": medians,
        "ratio_to_fit_numpy": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", nargs="+", default=["fashion-mlp", "fashion-cnn"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=12_800)
    chosen = parser.parse_args()
    results = [compare(name, chosen.repeats, chosen.rows) for name in chosen.recipe]
    ways = list(results[0]["examples_per_second"])
    print(f"{'recipe':<20} {'batch':>5} " + " ".join(f"{way:>22}" for way in ways))
    for result in results:
        cells = [f"{result['examples_per_second'][w]:>12,.0f} ({result['ratio_to_fit_numpy'][w]:>5.2f}x)" for w in ways]
        print(f"{result['recipe']:<20} {result['batch_size']:>5} " + " ".join(f"{cell:>22}" for cell in cells))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
