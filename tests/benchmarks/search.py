"""Trials an hour of `bmcli tune` next to KerasTuner's own Hyperband with `model.fit`.

    python -m tests.benchmarks.search [--network mlp cnn] [--rows 10000] [--epochs 9] [--repeats 1]

Both search the same space with the same oracle, over the same rows of Fashion-MNIST and with the same budgets of
epochs; `bmcli` with one worker and with two. A search runs in a process of its own, and its time is that from the
first trial's begin to the end of the last: neither importing TensorFlow nor what follows the search counts. Also tells
the highest resident memory of the processes of trials in each tenth of a search. Prints a table, and a JSON object on
the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

_MODELS = {
    "mlp": "{kind: mlp, hidden: [64], dropout: 0.0}",
    "cnn": "{kind: cnn, filters: [8, 16], kernel_size: 3, pool: 2, dense: [32], dropout: 0.0}",
}
_RECIPE = """\
bmcli: 1
name: search
extends: fashion-mlp
data: {{sample: {rows}}}
model: {model}
train: {{epochs: {epochs}, batch_size: 64, schedule: constant, tensorboard: false}}
tune:
  algorithm: hyperband
  objective: validation/accuracy
  trials: 1000
  space:
    train.optimizer.learning_rate: {{log: [1e-4, 1e-1]}}
    model.dropout: {{float: [0, 0.5], step: 0.1}}
    {wide}
  confirm: none
"""
_WIDE = {
    "mlp": "model.hidden: {choice: [[32], [64], [128, 64]]}",
    "cnn": "model.filters: {choice: [[8, 16], [16, 32]]}",
}


def ours(network: str, rows: int, epochs: int, workers: int) -> dict[str, Any]:
    """One search of bmcli."""
    with tempfile.TemporaryDirectory(prefix="bmcli-search-") as folder:
        recipe = Path(folder) / "search.yaml"
        recipe.write_text(
            _RECIPE.format(rows=rows, model=_MODELS[network], epochs=epochs, wide=_WIDE[network]), encoding="utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "bmcli",
            "tune",
            str(recipe),
            "--workers",
            str(workers),
            "--runs",
            folder,
            "-q",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peaks = _Peaks(Path(folder))
        assert process.wait() == 0
        events = [json.loads(line) for line in next(Path(folder).glob("*/*/journal.jsonl")).open()]
    ended = [event for event in events if event["event"] == "ended" and event["result"]["name"].isdecimal()]
    begun = min(event["at"] - event["result"]["seconds"] for event in ended)
    return {**_rate(len(ended), ended[-1]["at"] - begun), "peak_mib": peaks.by_tenth()}


class _Peaks(threading.Thread):
    """The highest resident memory of each process of trials."""

    def __init__(self, runs: Path) -> None:
        super().__init__(daemon=True)
        self._runs, self._found = runs, dict[int, int]()
        self.start()

    def run(self) -> None:
        while self._runs.exists():
            for claim in self._runs.glob("*/*/claims/*"):
                try:
                    worker = json.loads(claim.read_text())["pid"]
                    for child in Path(f"/proc/{worker}/task/{worker}/children").read_text().split():
                        status = Path(f"/proc/{child}/status").read_text()
                        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
                        self._found[int(child)] = int(peak.split()[1]) // 1024
                except (OSError, ValueError, StopIteration):
                    continue
            time.sleep(0.1)

    def by_tenth(self) -> list[int]:
        values = list(self._found.values())
        return [max(part) for n in range(10) if (part := values[len(values) * n // 10 : len(values) * (n + 1) // 10])]


def _rate(trials: int, seconds: float) -> dict[str, Any]:
    return {"trials": trials, "seconds": round(seconds, 1), "trials_per_hour": round(3600 * trials / seconds)}


def keras_tuners(network: str, rows: int, epochs: int) -> dict[str, Any]:
    """One search of KerasTuner, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.search", "--serve", network, str(rows), str(epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def serve(network: str, rows: int, epochs: int) -> dict[str, Any]:
    """KerasTuner's Hyperband over the same rows and space."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import keras_tuner
    import numpy as np

    from bmcli.recipe.load import load_recipe
    from bmcli.runs import make_cache_folder
    from bmcli.training import prepare_data

    recipe = load_recipe("fashion-mlp", [f"data.sample={rows}"]).recipe
    prepared = prepare_data(recipe, make_cache_folder())

    def arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
        found = prepared.split(split)
        (image,), (label,) = found.inputs.values(), found.targets.values()
        return np.asarray(image, "float32") / 255.0, np.asarray(label)

    def build(hp: Any) -> Any:
        rate = hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")
        dropout = hp.Float("dropout", 0.0, 0.5, step=0.1)
        layers: list[Any] = [keras.layers.Input((28, 28, 1))]
        if network == "mlp":
            layers.append(keras.layers.Flatten())
            for units in ([32], [64], [128, 64])[hp.Choice("hidden", [0, 1, 2])]:
                layers += [keras.layers.Dense(units, "relu"), keras.layers.Dropout(dropout)]
        else:
            for filters in ([8, 16], [16, 32])[hp.Choice("filters", [0, 1])]:
                layers += [keras.layers.Conv2D(filters, 3, padding="same", activation="relu"), keras.layers.MaxPool2D()]
                layers.append(keras.layers.Dropout(dropout))
            layers += [keras.layers.Flatten(), keras.layers.Dense(32, "relu"), keras.layers.Dropout(dropout)]
        model = keras.Sequential([*layers, keras.layers.Dense(10, "softmax")])
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    with tempfile.TemporaryDirectory(prefix="bmcli-search-") as folder:
        tuner = keras_tuner.Hyperband(
            build,
            objective="val_accuracy",
            max_epochs=epochs,
            factor=3,
            seed=1,
            directory=folder,
            project_name="search",
        )
        start = time.perf_counter()
        tuner.search(*arrays("train"), validation_data=arrays("validation"), batch_size=64, verbose=0)
        return _rate(len(tuner.oracle.trials), time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=list(_MODELS), choices=list(_MODELS))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--serve", nargs=3, metavar=("NETWORK", "ROWS", "EPOCHS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        print(json.dumps(serve(chosen.serve[0], int(chosen.serve[1]), int(chosen.serve[2]))))
        return
    results = []
    for network in chosen.network:
        ways: dict[str, Any] = {
            "keras_tuner": partial(keras_tuners, network, chosen.rows, chosen.epochs),
            "one_worker": partial(ours, network, chosen.rows, chosen.epochs, 1),
            "two_workers": partial(ours, network, chosen.rows, chosen.epochs, 2),
        }
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(chosen.repeats):
            for way, search in ways.items():
                found[way].append(search())
        rates = {way: statistics.median(each["trials_per_hour"] for each in some) for way, some in found.items()}
        ratios = {
            "to_keras_tuner": rates["one_worker"] / rates["keras_tuner"],
            "two_to_one": rates["two_workers"] / rates["one_worker"],
        }
        results.append({"network": network, "trials_per_hour": rates, **ratios, "searches": found})
        told = "  ".join(f"{way} {rate:,.0f}" for way, rate in rates.items())
        print(f"{network:<4} trials an hour: {told}; bmcli {ratios['to_keras_tuner']:.2f}x, ", end="")
        print(f"two workers {ratios['two_to_one']:.2f}x; peak MiB {found['one_worker'][-1]['peak_mib']}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
