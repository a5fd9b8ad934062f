"""Preparing a large table: time and peak memory, against pandas and scikit-learn's ColumnTransformer.

    python -m tests.benchmarks.prepare [--rows 1000000] [--times 3] [--formats csv parquet]

Generates rows of mixed columns (numbers with gaps, small and large categories, words for yes and no, dates), and
prepares them in turn by bmcli and by pandas with scikit-learn, each in a process of its own: the same columns, filled,
scaled and encoded, split in train, validation and test, fitted on the training rows, and written to disk as arrays.
Time is that of reading, preparing and writing, without imports, by the clock and as time of the processors; memory is
the peak of the resident set. pandas is no dependency of bmcli: without it bmcli is measured alone. Prints a table, and
a JSON object on the last line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = [f"number_{n}" for n in range(8)]
SMALL = [f"small_{n}" for n in range(4)]
LARGE = [f"large_{n}" for n in range(2)]
YES = [f"yes_{n}" for n in range(2)]
DATES = ["date_0", "date_1"]
SIDES = ("bmcli", "pandas")
_PIECE = 100_000


def generate(folder: Path, rows: int) -> None:
    """`table.csv` and `table.parquet`, written in pieces."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    chance = np.random.default_rng(0)
    first = _piece(chance, 10)
    with (
        pa.csv.CSVWriter(folder / "table.csv", first.schema) as text,
        pa.parquet.ParquetWriter(folder / "table.parquet", first.schema) as parquet,
    ):
        for start in range(0, rows, _PIECE):
            piece = _piece(chance, min(_PIECE, rows - start))
            text.write_table(piece)
            parquet.write_table(piece)


def _piece(chance: np.random.Generator, rows: int) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for position, name in enumerate(NUMBERS):
        values = np.round(chance.normal(10.0 * position, 1 + position, rows), 4)
        columns[name] = pa.array(values, mask=chance.random(rows) < 0.05)
    for position, name in enumerate(SMALL):
        known = np.array([f"{name} {n}" for n in range(4 + 3 * position)])
        columns[name] = pa.array(known[chance.integers(0, len(known), rows)], mask=chance.random(rows) < 0.02)
    for name in LARGE:
        columns[name] = pa.array([f"{name}-{n:05d}" for n in chance.integers(0, 10_000, rows)])
    for name in YES:
        columns[name] = pa.array(np.array(["no", "yes"])[chance.integers(0, 2, rows)])
    for name in DATES:
        days = np.datetime64("2000-01-01") + chance.integers(0, 9000, rows)
        columns[name] = pa.array(np.datetime_as_string(days))
    columns["label"] = pa.array(np.array(["a", "b", "c"])[chance.integers(0, 3, rows)])
    return pa.table(columns)


def with_bmcli(file: Path, folder: Path) -> None:
    """Prepares the table as a recipe does."""
    from bmcli.data.preparation import prepare
    from bmcli.recipe.data import DataOptions

    inputs: dict[str, Any] = {
        **dict.fromkeys(NUMBERS, "number"),
        **dict.fromkeys([*SMALL, *LARGE], "category"),
        **dict.fromkeys(YES, "boolean"),
        **{name: {"kind": "date", "parts": ("trend", "day_of_year", "weekday")} for name in DATES},
    }
    source = {"kind": file.suffix[1:], "path": str(file)}
    options = DataOptions.model_validate({"source": source, "inputs": inputs, "targets": {"label": "category"}})
    spec = prepare(options, options.targets_by_name(), 0, folder).spec
    print(json.dumps(dict(spec.counts)))


def with_pandas(file: Path, folder: Path) -> None:
    """The same by the usual means, as well as they are usually put together."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OrdinalEncoder, StandardScaler

    table = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    train, rest = train_test_split(table, train_size=0.8, random_state=0, stratify=table["label"])
    validation, test = train_test_split(rest, train_size=0.5, random_state=0, stratify=rest["label"])
    del table, rest

    def categories() -> Any:
        missing = {"strategy": "constant", "fill_value": ""}
        return make_pipeline(
            SimpleImputer(**missing),
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.int32),
        )

    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("categories", categories(), [*SMALL, *LARGE]),
            ("yes", FunctionTransformer(lambda cells: (cells == "yes").astype("float32")), YES),
            ("dates", make_pipeline(FunctionTransformer(_calendar), StandardScaler()), DATES),
        ]
    )
    transformer.fit(train)
    labels = LabelEncoder().fit(train["label"])
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        np.save(folder / f"{name}.npy", transformer.transform(rows).astype("float32"))
        np.save(folder / f"{name}-label.npy", labels.transform(rows["label"]))
    print(json.dumps({"train": len(train), "validation": len(validation), "test": len(test)}))


def _calendar(cells: Any) -> np.ndarray:
    """Trend, day of the year and day of the week as sine and cosine."""
    import pandas as pd

    parts = []
    for name in cells:
        moments = pd.to_datetime(cells[name], format="%Y-%m-%d")
        year, week = moments.dt.dayofyear / 366, moments.dt.dayofweek / 7
        parts += [moments.astype("int64"), *(turn(2 * np.pi * of) for of in (year, week) for turn in (np.sin, np.cos))]
    return np.stack([np.asarray(part, "float64") for part in parts], axis=1)


def run(side: str, file: Path, folder: Path) -> None:
    """Prepares in this process; prints seconds and the peak of memory on the last line."""
    _import(side)
    begun, worked = time.perf_counter(), time.process_time()
    {"bmcli": with_bmcli, "pandas": with_pandas}[side](file, folder)
    taken = {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - worked}
    print(json.dumps({**taken, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def _import(side: str) -> None:
    """What the side needs, so that loading it is not measured."""
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    if side == "bmcli":
        import bmcli.data.preparation
        import bmcli.layers.date_encoder  # noqa: F401
    else:
        import pandas  # noqa: F401
        import sklearn.compose
        import sklearn.impute
        import sklearn.model_selection  # noqa: F401


def measured(side: str, file: Path) -> dict[str, float]:
    """Seconds and peak bytes of one process."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        command = [sys.executable, "-m", "tests.benchmarks.prepare", "--run", side, str(file), folder]
        environment = {**os.environ, "BMCLI_CACHE": folder}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=("csv", "parquet"), default=["csv", "parquet"])
    parser.add_argument("--folder", type=Path, help="where tables are kept for the next time")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        run(chosen.run[0], Path(chosen.run[1]), Path(chosen.run[2]))
        return
    sides = [side for side in SIDES if side == "bmcli" or importlib.util.find_spec("pandas")]
    folder = Path(tempfile.mkdtemp()) if chosen.folder is None else chosen.folder
    if not (folder / "table.csv").exists():
        generate(folder, chosen.rows)
    results = []
    for form in chosen.formats:
        file = folder / f"table.{form}"
        taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for turn in range(chosen.times):
            for side in sides if turn % 2 == 0 else reversed(sides):
                taken[side].append(measured(side, file))
        for side in sides:
            result = {
                "format": form,
                "rows": chosen.rows,
                "side": side,
                "seconds": statistics.median(each["seconds"] for each in taken[side]),
                "processor_seconds": statistics.median(each["processor_seconds"] for each in taken[side]),
                "peak_bytes": max(each["peak_bytes"] for each in taken[side]),
            }
            results.append(result)
            speed = chosen.rows / result["seconds"]
            print(
                f"{form:>8}  {side:>7}  {result['seconds']:6.2f} s  {speed:>10,.0f} rows/s  "
                f"{result['processor_seconds']:6.2f} s of processors  "
                f"{result['peak_bytes'] / 2**20:>6,.0f} MiB",
                flush=True,
            )
    if chosen.folder is None:
        shutil.rmtree(folder)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
