"""Peak memory and speed of training against the size of the data, resident and streaming.

    python -m tests.benchmarks.memory [--sizes 100MiB 1GiB 4GiB] [--batch 256] [--seconds 15] [--repeats 3]

Generates prepared data of each size (28 x 28 grey images), trains an MLP on it with each feed in turn, in processes of
their own, and watches their anonymous memory (`RssAnon`: pages of mapped files do not count, the system takes them back
as it likes). Prints a table of median speeds and highest memory, and a JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bmcli.recipe.fields import Size
from bmcli.specs import Column, DataSpec

FEEDS = ("resident", "streaming")
ROW = 28 * 28
WARM_S = 3.0
_RECIPE = """\
bmcli: 1
name: memory
data: {source: {kind: builtin, name: digits}}
model: {kind: mlp, hidden: [128, 64]}
train: {tensorboard: false, epochs: 100, checkpoint: {time: 10m}, select: {metric: last}}
"""


def generate(folder: Path, size: int) -> None:
    """Prepared data of about `size` bytes, written in pieces."""
    rows = size // ROW
    image = Column("image", "image", (28, 28, 1), "uint8", (28, 28), "uint8", (), {"offset": [0.0], "scale": [255.0]})
    label = Column("label", "category", (), "int32", (), "string", tuple("0123456789"))
    spec = DataSpec((image,), (label,), {"train": rows, "validation": 0, "test": 0}, "generated", "generated")
    chance = np.random.default_rng(0)
    for split, count in spec.counts.items():
        (folder / split).mkdir(parents=True)
        pixels = np.lib.format.open_memmap(
            folder / split / "inputs-0.npy", mode="w+", dtype="uint8", shape=(count, 28, 28, 1)
        ) if count else np.zeros((0, 28, 28, 1), "uint8")  # fmt: skip
        labels = chance.integers(0, 10, count).astype("int32")
        for start in range(0, count, 100_000):
            piece = chance.integers(0, 64, (min(100_000, count - start), 28, 28, 1), "uint8")
            pixels[start : start + len(piece)] = piece + 16 * labels[
                start : start + len(piece), None, None, None
            ].astype("uint8")
        if not count:
            np.save(folder / split / "inputs-0.npy", pixels)
        np.save(folder / split / "targets-0.npy", labels)
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    os.sync()  # Writing it back would go on beside the first training.


def serve(folder: Path, feed: str, batch: int, seconds: float) -> None:
    """Trains for some seconds and prints the examples per second of the calls after the first ones."""
    from bmcli import runs, training
    from bmcli.recipe.load import load_recipe
    from bmcli.specs import PreparedData

    (folder / "recipe.yaml").write_text(_RECIPE)
    overrides = [f"train.batch_size={batch}", f"train.stop.time={seconds}s", f"runtime.feed={feed}", "runtime.jit=true"]
    recipe = load_recipe(str(folder / "recipe.yaml"), overrides).recipe
    prepared = PreparedData.open(folder)
    placement = training.place_on_devices(recipe, folder / "cache")
    network = training.build_network(recipe, prepared.spec, prepared.split("train").targets, placement)
    from bmcli.workflows.assembly import build_trainer

    class Watch:
        """Sums up what is done once everything is compiled."""

        examples, taken, done = 0, 0.0, 0
        begun: float | None = None

        def on_progress(self, moment: Any) -> None:
            now, done = time.perf_counter(), moment.step * batch
            self.begun = self.begun or now
            if now - self.begun > WARM_S and done > self.done:
                self.taken += now - self.last
                self.examples += done - self.done
            self.done, self.last = done, now

        def on_epoch_end(self, row: Any, selected: bool) -> None:
            self.done, self.last = 0, time.perf_counter()

        def on_note(self, text: str) -> None:
            return None

    watch = Watch()
    run = runs.create(folder / "runs", "memory")
    build_trainer(recipe, network, prepared, placement, run, folder / "cache").train(watch)
    print(watch.examples / watch.taken)


def measured(folder: Path, feed: str, batch: int, seconds: float) -> tuple[float, int]:
    """Examples per second, and the peak of anonymous memory in bytes."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--serve", str(folder), feed, str(batch), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(0.02)
    out, said = process.communicate()
    if process.returncode:
        sys.exit(said)
    return float(out.split()[-1]), peak


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
    except (OSError, StopIteration):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["100MiB", "1GiB", "4GiB"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(Path(chosen.serve[0]), chosen.serve[1], int(chosen.serve[2]), float(chosen.serve[3]))
        return
    from pydantic import TypeAdapter

    results = []
    for text in chosen.sizes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
            folder = Path(name) / "data"
            generate(folder, int(TypeAdapter(Size).validate_python(text)))
            result: dict[str, Any] = {"size": text, "batch_size": chosen.batch}
            turns = [
                {feed: measured(folder, feed, chosen.batch, chosen.seconds) for feed in FEEDS}
                for _ in range(chosen.repeats)
            ]
            for feed in FEEDS:
                speeds, peaks = zip(*(turn[feed] for turn in turns), strict=True)
                result[feed] = {
                    "examples_per_second": round(statistics.median(speeds)),
                    "peak_anonymous_bytes": max(peaks),
                    "turns": [round(speed) for speed in speeds],
                }
            result["speed_ratio"] = (
                result["streaming"]["examples_per_second"] / result["resident"]["examples_per_second"]
            )
            results.append(result)
            print(
                f"{text:>8}  "
                + "  ".join(
                    f"{feed} {result[feed]['examples_per_second']:>9,} examples/s, "
                    f"{result[feed]['peak_anonymous_bytes'] / 2**20:>6,.0f} MiB"
                    for feed in FEEDS
                )
                + f"  streaming at {result['speed_ratio']:.2f} of the speed",
                flush=True,
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
