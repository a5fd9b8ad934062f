"""Another value of an option of the section `data` gives other prepared rows."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.options.law import Change, Subject, find_idle_options
from tests.options.sights import see_arrays, see_network
from tests.pictures import encoded, pixels

ROWS = 60
AUGMENTED = "tests/training/test_augmentation.py::test_each_way_changes_what_is_learned"
_CITIES = ("Bonn", "Lyon", "Turin", "Oslo", "Rome")
_TEXTS = ("The café is open.", "the CAFÉ, closed", "a cafe opens late", "Open it; close it", "late and early")


def _write_cost(row: int) -> str:
    if row % 9 == 4:
        return "7 kg"
    if row % 2:
        return f"{1 + row % 5}.0" if row % 8 == 3 else str(1 + row % 5)
    return f"{1 + row % 7},{100 + row}"


def make_table(folder: Path) -> Path:
    """A table with cells for which every option matters: spellings, notations, marks of missing values, dates."""
    draw = np.random.default_rng(3)
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "cost", "flag", "city", "tags", "day", "note", "part", "group", "when", "worth",
                         "label", "price", "visits", "grade", "topics", "is_red", "is_big"])  # fmt: skip
        for row in range(ROWS):
            number = draw.normal(10, 4)
            writer.writerow([
                "" if row % 9 == 4 else f"{abs(number):.2f}",
                _write_cost(row),
                ("yes", "no", "ja", "", "nein")[row % 5],
                f" {_CITIES[row % 4]}" if row % 6 else _CITIES[4 if row % 12 else 0],
                ";".join(_CITIES[: 1 + row % 3]),
                f"2024-{1 + row % 12:02}-{1 + row % 28:02}" if row % 10 else "2024-05-06",
                _TEXTS[row % 5] + (" cafe\u0301" if row % 2 else ""),
                ("train", "train", "train", "validation", "test")[row % 5],
                f"g{row % 12}",
                f"{1 + row * 7 % 28:02}.{1 + row % 12:02}.2023",
                f"{1 + row % 3}",
                ("red", "green", " red")[row % 3],
                f"{2 + number / 2:.3f}",
                str(row % 6),
                f"{row % 4}.0" if row % 8 == 3 else str(row % 4),
                ("3;big", "3.0;red", "")[row % 3],
                str(row % 2),
                str(int(row % 3 == 0)),
            ])  # fmt: skip
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("rows"))


def make_recipe(path: Path, **data: Any) -> dict[str, Any]:
    described = {
        "source": {"kind": "csv", "path": str(path)},
        "split": {"validation": 0.2, "test": 0.2},
        "inputs": {"size": {"kind": "number"}},
        "targets": {"label": {"kind": "category"}},
        **data,
    }
    return {"name": "rows", "data": described, "model": {"kind": "linear"}}


_FILL = {"data.invalid": "fill"}
# The column of each kind of input, its options beside the kind, and values that the schema cannot suggest.
INPUTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "boolean": (
        "flag",
        {"yes": ["yes", "ja"], "no": ["no", "nein"]},
        {"yes": Change(["yes"], _FILL), "no": Change(["no"], _FILL), "missing_cells": ["ja"]},
    ),
    "category": (
        "city",
        {},
        {
            "encoding": "hash", "dimension": Change(3, {"data.inputs.city.encoding": "embedding"}),
            "buckets": Change(20, {"data.inputs.city.encoding": "hash"}), "min_count": 9, "max_categories": 2,
            "separator": "o",
        },
    ),
    "date": ("day", {}, {"format": Change("%Y-%d-%m", _FILL), "missing_cells": ["2024-05-06"], "parts": ["month"]}),
    "number": (
        "cost",
        {"thousands": ",", "unit": "kg"},
        {
            "decimal": Change(",", {**_FILL, "data.inputs.cost.thousands": ""}), "thousands": Change(".", _FILL),
            "unit": Change("", _FILL), "binning": Change("uniform", {"data.inputs.cost.bins": 4}),
            "missing_cells": ["3"], "missing": Change("median", {"data.source.missing": ["7 kg"]}),
            "flag": Change(True, {"data.source.missing": ["7 kg"]}),
        },
    ),
    "text": (
        "note",
        {"encoding": "bag"},
        {
            "end": Change(False, {"data.inputs.note.encoding": "written"}), "tokens": "characters", "length": 2,
            "mask": Change(True, {"data.inputs.note.encoding": "sequence"}),
            "accents": "strip", "dimension": 3,
        },
    ),
    "lags": ("past", {"of": "price"}, {"of": "visits", "within": "group"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", INPUTS)
def test_no_option_of_an_input_is_idle(kind: str, rows: Path, tmp_path: Path, cache: Path) -> None:
    column, options, changes = INPUTS[kind]
    recipe = make_recipe(rows, inputs={column: {"kind": kind, **options}})
    # The width of an embedding belongs to the network.
    sights = (partial(see_arrays, cache=cache), partial(see_network, cache=cache))
    assert (
        find_idle_options(Subject(f"inputs.{kind}", f"data.inputs.{column}", recipe, sights, changes), tmp_path) == []
    )


def make_pictures(folder: Path) -> Path:
    """A folder of pictures of two classes, and a table that names them by two columns; one is half transparent."""
    lines = ["file,other,label,split"]
    for row in range(24):
        kind = ("cat", "dog")[row % 2]
        path = folder / "pictures" / kind / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = pixels(8, 12, channels=4, seed=row)
        picture[..., 3] = 255
        picture[:4, :, 3] = 0 if row == 3 else 255
        path.write_bytes(encoded(picture))
        lines.append(f"{kind}/{row}.png,{kind}/{row // 2 * 2 + row % 2}.png,{kind},train")
    (folder / "pictures.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "pictures"


def test_no_option_of_an_image_is_idle(tmp_path: Path, cache: Path) -> None:
    recipe = make_recipe(tmp_path, source={"kind": "image_folder", "path": str(make_pictures(tmp_path))},
                         inputs={"image": {"kind": "image"}}, split={"validation": 0.25, "test": 0.25})  # fmt: skip
    changes = {
        "size": [4, 6],
        "fit": Change("crop", {"data.inputs.image.size": [6, 6]}),
        "channels": 1,
        "background": "black",
        "max_megapixels": 0.00001,
    }
    del recipe["data"]["targets"]
    sights = (partial(see_arrays, cache=cache), partial(see_network, cache=cache))
    assert find_idle_options(Subject("inputs.image", "data.inputs.image", recipe, sights, changes), tmp_path) == []


# The same for targets, whose objective needs numbers or classes.
TARGETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "category": ("label", {}, {"classes": ["red", "green"]}),
    "count": (
        "cost",
        {"thousands": ",", "unit": "kg"},
        {
            "decimal": Change(",", {"data.invalid": "skip", "data.targets.cost.thousands": ""}),
            "thousands": Change(".", {"data.invalid": "skip"}), "unit": Change("", {"data.invalid": "skip"}),
        },
    ),
    "labels": ("topics", {}, {"separator": "e", "classes": ["red", "big", "3"], "columns": ["is_red", "is_big"]}),
    "number": (
        "cost",
        {"thousands": ",", "unit": "kg"},
        {
            "decimal": Change(",", {"data.invalid": "skip", "data.targets.cost.thousands": ""}),
            "thousands": Change(".", {"data.invalid": "skip"}), "unit": Change("", {"data.invalid": "skip"}),
        },
    ),
    "ordered": ("grade", {}, {"classes": ["3", "2", "1", "0"]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_no_option_of_a_target_is_idle(kind: str, rows: Path, tmp_path: Path, cache: Path) -> None:
    column, options, changes = TARGETS[kind]
    recipe = make_recipe(rows, targets={column: {"kind": kind, **options}})
    sights = (partial(see_arrays, cache=cache), partial(see_network, cache=cache))
    subject = Subject(f"data.targets.{kind}", f"data.targets.{column}", recipe, sights, changes)
    assert find_idle_options(subject, tmp_path) == []


OWNERS = (
    *(f"inputs.{kind}" for kind in (*INPUTS, "image")), *(f"data.targets.{kind}" for kind in TARGETS),
    "DataOptions", "SplitOptions", "FoldOptions", "SampleOptions", "CrossOptions",
)  # fmt: skip


def test_no_option_of_the_data_is_idle(rows: Path, tmp_path: Path, cache: Path) -> None:
    recipe = make_recipe(rows, inputs={"size": {"kind": "number"}, "city": {"kind": "category"}})
    other = rows.with_name("other.csv")
    other.write_text(rows.read_text(encoding="utf-8").replace("Bonn", "Kiel"), encoding="utf-8")
    changes = {
        "source": {"kind": "csv", "path": str(other)},
        "inputs": {"visits": {"kind": "number"}},
        "targets": {"price": {"kind": "number"}},
        "drop": Change(["note"], {"data.inputs": None}),
        "weight": "worth",
        "invalid": Change(
            "skip",
            {"data.invalid": "fill", "data.inputs.flag": {"kind": "boolean", "yes": ["yes"], "no": ["no", "nein"]}},
        ),
        "crosses": Change([{"columns": ["city", "flag"]}], {"data.inputs.flag": {"kind": "category"}}),
    }
    elsewhere = {"augment": AUGMENTED}
    sights = (partial(see_arrays, cache=cache), partial(see_network, cache=cache))
    assert find_idle_options(Subject("DataOptions", "data", recipe, sights, changes, elsewhere), tmp_path) == []


def test_no_option_of_a_split_is_idle(rows: Path, tmp_path: Path, cache: Path) -> None:
    changes = {
        "train": 0.3,
        "column": Change("part", {"data.split": {}}),
        "stratify": "city",
        "group": "group",
        "time": Change("when", {}),
        "time_format": Change("%m.%d.%Y", {"data.split.time": "when"}),
        "fold": {"number": 1, "of": 3},
    }
    subject = Subject("SplitOptions", "data.split", make_recipe(rows), (partial(see_arrays, cache=cache),), changes)
    assert find_idle_options(subject, tmp_path) == []


def test_no_option_of_a_fold_a_sample_or_a_cross_is_idle(rows: Path, tmp_path: Path, cache: Path) -> None:
    sights = (partial(see_arrays, cache=cache), partial(see_network, cache=cache))
    inputs = {"city": {"kind": "category"}, "label": {"kind": "category"}, "group": {"kind": "category"}}
    fold = make_recipe(rows, split={"fold": {"number": 1, "of": 3}})
    sample = make_recipe(rows, sample={"share": 0.5})
    cross = make_recipe(rows, inputs=inputs, targets={"price": {"kind": "number"}},
                        crosses=[{"columns": ["city", "label"], "buckets": 10}])  # fmt: skip
    idle = [
        *find_idle_options(Subject("FoldOptions", "data.split.fold", fold, sights, {"of": 4}), tmp_path),
        *find_idle_options(
            Subject(
                "SampleOptions", "data.sample", sample, sights,
                {"count": Change(20, {"data.sample": {"count": 10}}), "balance": "label"},
            ),
            tmp_path,
        ),
        *find_idle_options(
            Subject("CrossOptions", "data.crosses.0", cross, sights, {"columns": ["city", "group"]}), tmp_path
        ),
    ]  # fmt: skip
    assert idle == []
