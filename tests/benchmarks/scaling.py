"""Steps of one worker on one core against two workers on two cores, beside what the model of `scaling` predicts.

    python -m tests.benchmarks.scaling [--recipe cnn mlp] [--repeats 3] [--batch 256]

Networks where computing dominates, on generated images. The two take turns, each time as new processes through
`launch_workers`; a repeat's figure is the median of its calls, the result the median of the repeats. Every worker
has one core to itself, so an ideal pair is 2 times as fast. Other programs on these cores slow down a pair more
than one worker, because it waits for the slower of both: `busy` is the wall time of one worker in its processor
time, 1 on a machine with nothing else to do, and `by processor time` the ratio of what both ways compute, which
others do not change, but which leaves out waiting. The prediction comes from constants measured by one worker on
one core, and from all-reduces between two workers. Prints a table, and a JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bmcli import training
from bmcli.cost_model import prediction
from bmcli.distribution.launch import launch_workers, list_cores
from bmcli.recipe.load import load_recipe
from bmcli.training import prepare_data

ROWS = 4096
CALL_S = 0.5
CALLS = 12
MODELS = {
    "cnn": "{kind: cnn, filters: [16, 32], kernel_size: 5, pool: 2, dense: [120, 84], dropout: 0.2}",
    "mlp": "{kind: mlp, hidden: [1024, 1024]}",
}
RECIPE = """\
bmcli: 1
name: scaling
data:
  source: {{kind: npz, path: {path}}}
  inputs: {{image: {{kind: image}}}}
  targets: {{label: {{kind: category}}}}
model: {model}
train: {{epochs: 1, batch_size: {batch}, tensorboard: false, select: {{metric: last}}}}
runtime: {{jit: false}}
"""


def write_recipe(folder: Path, model: str, batch: int) -> Path:
    """A recipe on random images, in which there is nothing to learn."""
    path = folder / "images.npz"
    if not path.exists():
        images = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28, 1), np.uint8)
        np.savez(path, image_train=images, label_train=np.array([f"c{row % 10}" for row in range(ROWS)]))
    recipe = folder / f"{model}.yaml"
    recipe.write_text(RECIPE.format(path=path, model=MODELS[model], batch=batch))
    return recipe


def work(recipe_file: Path, found: Path) -> None:
    """The part of a worker: seconds a step of each call; alone also the constants of the model."""
    recipe = load_recipe(str(recipe_file)).recipe
    cache = recipe_file.parent / "cache"
    prepared = prepare_data(recipe, cache)
    placement = training.place_on_devices(recipe, cache)
    from bmcli.cost_model.measurement import measure_costs
    from bmcli.workflows.assembly import build_trainer

    split = prepared.split("train")
    network = training.build_network(recipe, prepared.spec, split.targets, placement)
    trainer = build_trainer(recipe, network, prepared, placement, None, cache)
    result: dict[str, Any] = calls(trainer)
    if placement.workers == 1:
        measured = measure_costs(trainer, split, None)
        result |= {"work": asdict(measured.work), "seconds_by_batch": measured.seconds}
    if placement.is_chief:
        found.write_text(json.dumps(result))


def calls(trainer: Any) -> dict[str, list[float]]:
    """Wall and processor seconds of a step, in each of some calls of about half a second; those of the chief."""
    full = trainer.feed.count // trainer.batch
    trainer.feed.start_epoch(trainer.sampler.epoch_order(0), trainer.batch)
    seconds, processor, count = [], [], 1
    for _ in range(CALLS + 2):
        start, start_processor = time.perf_counter(), time.process_time()
        trainer.steps.train_block(trainer.feed.read_block(0, count))
        processor.append((time.process_time() - start_processor) / count)
        (each,) = trainer.placement.broadcast_from_chief([(time.perf_counter() - start) / count])
        seconds.append(each)
        count = max(1, min(int(CALL_S / each), full))
    # The first one compiles, the second one is a single step.
    return {"seconds": seconds[2:], "processor": processor[2:]}


def run(recipe: Path, workers: int, folder: Path) -> dict[str, Any]:
    """What some workers measure, each on a core of its own."""
    found = folder / "found.json"
    found.unlink(missing_ok=True)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, list_cores()[:workers])
    try:
        command = [sys.executable, "-m", "tests.benchmarks.scaling", "--worker", str(recipe), str(found)]
        ended = launch_workers(command, workers, folder)
    finally:
        os.sched_setaffinity(0, own)
    if ended.loss:
        raise ended.loss.to_error()
    measured: dict[str, Any] = json.loads(found.read_text())
    return measured


def compare(model: str, batch: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Measured and predicted seconds a step of one and of two workers."""
    from bmcli.cost_model.measurement import measure_exchange_seconds

    recipe = write_recipe(folder, model, batch)
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    exchanges: list[dict[str, float]] = []
    for _ in range(repeats):
        for workers, results in runs.items():
            results.append(run(recipe, workers, folder))
        exchanges.append(measure_exchange_seconds())
    exchange = {float(size): min(found[size] for found in exchanges) for size in exchanges[0]}
    link = prediction.fit_link(list(exchange), list(exchange.values()), 2)
    by_batch = [found["seconds_by_batch"] for found in runs[1]]
    best_by_batch = {int(size): min(found[size] for found in by_batch) for size in by_batch[0]}
    compute = prediction.fit_line_through_last(list(best_by_batch), list(best_by_batch.values()))
    cluster = prediction.ClusterModel(compute, link, input=1e18, snapshot=1e18, disk=1e18)
    step = prediction.predict_step(prediction.Workload(**runs[1][0]["work"]), cluster, 2)
    medians = {n: median(found, "seconds") for n, found in runs.items()}
    processor = {n: median(found, "processor") for n, found in runs.items()}
    best = {n: min(min(r["seconds"]) for r in found) for n, found in runs.items()}
    predicted = compute.at(batch) / step.seconds
    ratio = medians[1] / medians[2]
    return {
        "model": model,
        "batch": batch,
        "gradient_bytes": runs[1][0]["work"]["gradient_bytes"],
        "one_s": medians[1],
        "two_s": medians[2],
        "ratio": ratio,
        "efficiency": ratio / 2,
        "best_one_s": best[1],
        "best_two_s": best[2],
        "best_ratio": best[1] / best[2],
        "processor_one_s": processor[1],
        "processor_two_s": processor[2],
        "processor_ratio": processor[1] / processor[2],
        "busy": medians[1] / processor[1],
        "fixed_s": compute.fixed,
        "example_s": compute.slope,
        "link": asdict(link),
        "exchange_s": exchange,
        "predicted_two_s": step.seconds,
        "predicted_compute_s": step.compute_s,
        "predicted_exchange_s": step.exchange_s,
        "predicted_ratio": predicted,
        "error": predicted / ratio - 1,
    }


def median(runs: list[dict[str, Any]], what: str) -> float:
    return statistics.median(statistics.median(run[what]) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        work(*chosen.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(model, chosen.batch, chosen.repeats, Path(folder)) for model in chosen.recipe]
    names = ("1 worker", "2 workers", "ratio", "best", "by processor time", "predicted", "error", "busy")
    print(f"{'network':<8}" + "".join(f"{name:>{max(9, len(name) + 2)}}" for name in names))
    for found in results:
        rates = "".join(f"{chosen.batch / found[key]:>{width},.0f}/s" for key, width in (("one_s", 8), ("two_s", 9)))
        print(
            f"{found['model']:<8}{rates}{found['ratio']:>9.2f}{found['best_ratio']:>9.2f}"
            f"{found['processor_ratio']:>19.2f}{found['predicted_ratio']:>11.2f}{found['error']:>9.0%}{found['busy']:>9.2f}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
