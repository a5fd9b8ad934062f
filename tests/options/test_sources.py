"""Another value of an option of a source gives other rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.test_idx import packed
from tests.data.sources.test_tfrecord import pets, write
from tests.options.law import Change, Subject, find_idle_options
from tests.options.sights import see_arrays
from tests.pictures import encoded, pixels

ROWS = 40


def make_csv(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    lines = ["size;note;label"] + [f"{row % 7}.5;'a;{row % 3}';{'xy'[row % 2]}" for row in range(ROWS)]
    for name, number in (("rows", 0), ("other", 1)):
        (folder / f"{name}.csv").write_text("\n".join(lines[:1] + lines[1 + number :]), encoding="utf-8")
    (folder / "plain.csv").write_text("\n".join(f"{row % 7},{'xä'[row % 2]}" for row in range(ROWS)), encoding="utf-8")
    plain = {"data.source.path": str(folder / "plain.csv"), "data.inputs": {"column_1": {"kind": "number"}},
             "data.targets": {"column_2": {"kind": "category"}}}  # fmt: skip
    changes = {
        "path": str(folder / "other.csv"),
        "delimiter": ",",
        "quote": "none",
        "header": Change(True, plain),
        "skip_lines": Change(3, {**plain, "data.source.header": False}),
        "columns": Change(["a", "b"], {"data.source.path": str(folder / "plain.csv"), "data.inputs": None,
                                       "data.targets": {"column_2": {"kind": "category"}}}),
        "encoding": Change("latin-1", {**plain, "data.targets.column_2.normalize": False}),
        "missing": ["2.5"],
    }  # fmt: skip
    recipe = {"source": {"kind": "csv", "path": str(folder / "rows.csv")}, "inputs": {"size": {"kind": "number"}},
              "targets": {"label": {"kind": "category"}}}  # fmt: skip
    return recipe, changes


def make_tables(kind: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, number in (("rows", 1), ("other", 2)):
        table = pa.table({"size": [float(row**number) for row in range(ROWS)], "label": ["x", "y"] * (ROWS // 2)})
        if kind == "parquet":
            pq.write_table(table, folder / f"{name}.parquet")
        elif kind == "jsonl":
            (folder / f"{name}.jsonl").write_text(
                "\n".join(f'{{"size": {row["size"]}, "label": "{row["label"]}"}}' for row in table.to_pylist())
            )
        else:
            np.savez(folder / f"{name}.npz", size=table["size"].to_numpy(), label=np.array(table["label"].to_pylist()))
    recipe = {"source": {"kind": kind, "path": str(folder / f"rows.{kind}")}, "inputs": {"size": {"kind": "number"}},
              "targets": {"label": {"kind": "category"}}}  # fmt: skip
    return recipe, {"path": str(folder / f"other.{kind}")}


def make_builtin(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"source": {"kind": "builtin", "name": "iris"}}, {"name": "wine"}


def make_idx(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, step in (("rows", 1), ("other", 2)):
        for prefix, count in (("train", 12), ("t10k", 4)):
            images = (step * np.arange(count * 20) % 250).astype("uint8").reshape(count, 4, 5)
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{prefix}-images-idx3-ubyte").write_bytes(packed(images))
            (folder / name / f"{prefix}-labels-idx1-ubyte").write_bytes(packed((np.arange(count) % 2).astype("uint8")))
    return {"source": {"kind": "idx", "path": str(folder / "rows")}}, {"path": str(folder / "other")}


def make_image_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    lines = ["file,other,label"]
    for row in range(16):
        kind = ("cat", "dog")[row % 2]
        for name, seed in (("rows", row), ("other", row + 99)):
            path = folder / name / kind / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels(4, 5, seed=seed)))
        lines.append(f"{kind}/{row}.png,{kind}/{(row + 2) % 16}.png,{kind}")
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "shorter.csv").write_text("\n".join(lines[:-2]))
    table = {"data.source.table": str(folder / "table.csv"), "data.targets": {"label": {"kind": "category"}},
             "data.inputs": None}  # fmt: skip
    changes = {
        "path": str(folder / "other"),
        "table": Change(str(folder / "shorter.csv"), table),
        "column": Change("other", table),
    }
    return {"source": {"kind": "image_folder", "path": str(folder / "rows")}}, changes


def make_text(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, count in (("rows", 30), ("other", 31)):
        (folder / name).mkdir()
        for document in ("first", "second"):
            (folder / name / f"{document}.txt").write_text(f"the tä of {document}\n" * count, encoding="utf-8")
    recipe = {"source": {"kind": "text", "path": str(folder / "rows"), "window": 40},
              "inputs": {"text": {"kind": "text"}}, "targets": {"document": {"kind": "category"}}}  # fmt: skip
    return recipe, {"path": str(folder / "other"), "window": 60, "stride": 20, "encoding": "latin-1"}


def make_tfrecord(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, count in (("rows", 12), ("other", 14)):
        write(folder / f"{name}.tfrecord", *pets(count))
    recipe = {
        "source": {"kind": "tfrecord", "path": str(folder / "rows.tfrecord")},
        "inputs": {"where": {"kind": "number"}},
        "targets": {"label": {"kind": "category"}},
    }
    changes = {
        "path": str(folder / "other.tfrecord"),
        "features": {"where": {"type": "float", "shape": [3, 1]}, "label": {"type": "int"}},
    }
    return recipe, changes


SOURCES: dict[str, Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]] = {
    "builtin": make_builtin,
    "csv": make_csv,
    "idx": make_idx,
    "image_folder": make_image_folder,
    "jsonl": partial(make_tables, "jsonl"),
    "npz": partial(make_tables, "npz"),
    "parquet": partial(make_tables, "parquet"),
    "text": make_text,
    "tfrecord": make_tfrecord,
}
OWNERS = (*(f"data.sources.{kind}" for kind in SOURCES), "FeatureOptions", "SplitPathsField", "TablePathsField")


@pytest.mark.parametrize("kind", SOURCES)
def test_no_option_of_a_source_is_idle(kind: str, tmp_path: Path, cache: Path) -> None:
    data, changes = SOURCES[kind](tmp_path)
    recipe = {"name": "rows", "data": data, "model": "linear"}
    subject = Subject(f"data.sources.{kind}", "data.source", recipe, (partial(see_arrays, cache=cache),), changes)
    assert find_idle_options(subject, tmp_path) == []


def test_no_option_of_a_feature_is_idle(tmp_path: Path, cache: Path) -> None:
    data, _ = make_tfrecord(tmp_path)
    data["source"]["features"] = {"where": {"type": "float", "shape": [3]}, "label": {"type": "int"}}
    recipe = {"name": "rows", "data": data, "model": "linear"}
    changes = {"type": "int", "shape": [1, 3]}
    subject = Subject(
        "FeatureOptions", "data.source.features.where", recipe, (partial(see_arrays, cache=cache),), changes
    )
    assert find_idle_options(subject, tmp_path) == []


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_no_split_of_a_path_is_idle(kind: str, tmp_path: Path, cache: Path) -> None:
    data, changes = make_tables(kind, tmp_path)
    own, other = data["source"]["path"], changes["path"]
    data["source"]["path"] = {"train": own, "validation": own, "test": own}
    owner = {"npz": "SplitPathsField", "parquet": "TablePathsField"}[kind]
    recipe = {"name": "rows", "data": data, "model": "linear"}
    subject = Subject(
        owner,
        "data.source.path",
        recipe,
        (partial(see_arrays, cache=cache),),
        dict.fromkeys(data["source"]["path"], other),
    )
    assert find_idle_options(subject, tmp_path) == []
