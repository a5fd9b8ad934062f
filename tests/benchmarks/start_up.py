"""How long a user waits before anything happens: whole processes, medians.

    python -m tests.benchmarks.start_up [--repeats 9]

Prints a table, and a JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.wrong_recipes import TEN_FAULTS

# Ends once the first call of the compiled steps is done.
_TO_FIRST_STEP = """
import os, sys
sys.argv = ["bmcli", "train", "digits", "--runs", sys.argv[1], "-q"]
from bmcli import training
built = training.build_network
def watched(*arguments):
    network = built(*arguments)
    from bmcli.training.train_step import CompiledSteps
    train_block = CompiledSteps.train_block
    def first(self, block):
        train_block(self, block)
        if self.optimizer.name == "adam" and sys._getframe(1).f_code.co_name == "_run_steps":
            os._exit(0)
    CompiledSteps.train_block = first
    return network
training.build_network = watched
from bmcli.__main__ import main
main()
"""


def seconds(command: list[str], repeats: int) -> float:
    """Median wall time of a process, after one that warms the disk cache."""
    timings = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        timings.append(time.perf_counter() - start)
    return statistics.median(timings[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder) / "wrong.yaml"
        wrong.write_text(TEN_FAULTS)
        bmcli = [sys.executable, "-m", "bmcli"]
        measured = {
            "python -c pass": seconds([sys.executable, "-c", "pass"], repeats),
            "bmcli --help": seconds([*bmcli, "--help"], repeats),
            "bmcli validate, ten faults": seconds([*bmcli, "validate", str(wrong)], repeats),
            "bmcli show digits": seconds([*bmcli, "show", "digits"], repeats),
            "import tensorflow, keras": seconds([sys.executable, "-c", "import tensorflow, keras"], repeats),
            "digits to the first step": seconds([sys.executable, "-c", _TO_FIRST_STEP, folder], repeats),
        }
        measured["digits to the first step, beyond imports"] = (
            measured["digits to the first step"] - measured["import tensorflow, keras"]
        )
    for name, value in measured.items():
        print(f"{name:<45} {value:6.3f} s")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
