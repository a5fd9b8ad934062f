from __future__ import annotations

import errno
import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

from bmcli.data import preparation, store
from bmcli.data.preparation import encode_rows, prepare
from bmcli.data.resolution import resolve_options
from bmcli.data.sources import csv
from bmcli.errors import BmcliError, Fault
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import PartField
from bmcli.specs import SPLITS, PreparedData

TABLE = "age,city,rank,split,y\n" + "".join(
    f"{20 + n % 30},{['Rome', 'Oslo', 'Lima'][n % 3]},{n},{'test' if n % 5 == 0 else 'train'},{'ab'[n % 2]}\n"
    for n in range(60)
)


def run(cache: Path, seed: int = 0, **data: Any) -> PreparedData:
    options = DataOptions.model_validate(data)
    targets = options.targets or {
        name: PartField("data.targets").check(values)
        for name, values in options.source.default_targets().items()  # type: ignore[attr-defined]
    }
    return prepare(options, targets, seed, cache)


def table(path: Path, text: str = TABLE, **data: Any) -> dict[str, Any]:
    path.write_text(text)
    source = {"kind": "csv", "path": str(path)}
    return {"source": source, "targets": {"y": "category"}, "split": {"column": "split"}, **data}


def faults(*args: Any, **data: Any) -> tuple[Fault, ...]:
    with pytest.raises(BmcliError) as caught:
        run(*args, **data)
    return caught.value.faults


def test_iris_from_source_to_arrays(cache: Path) -> None:
    prepared = run(cache, source={"kind": "builtin", "name": "iris"})
    assert prepared.spec.counts == {"train": 120, "validation": 15, "test": 15}
    assert prepared.spec.target("species").classes == ("setosa", "versicolor", "virginica")
    train = prepared.split("train")
    assert len(train) == 120
    assert np.bincount(train.targets["species"]).tolist() == [40, 40, 40]
    lengths = train.inputs["petal length (cm)"]
    assert lengths.shape == (120, 1)
    assert lengths.mean() == pytest.approx(0, abs=1e-6)
    assert lengths.std() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer", "diabetes"])
def test_builtin_sets_need_no_more_than_their_name(cache: Path, name: str) -> None:
    prepared = run(cache, source={"kind": "builtin", "name": name})
    for split in SPLITS:
        arrays = prepared.split(split)
        assert len(arrays) == prepared.spec.counts[split]
        for column in prepared.spec.inputs:
            assert arrays.inputs[column.name].shape[1:] == column.shape
            assert arrays.inputs[column.name].dtype == column.dtype


def test_inputs_are_all_columns_that_serve_nothing_else(cache: Path, file: Path) -> None:
    spec = run(cache, **table(file, drop=("rank",))).spec
    assert [(column.name, column.kind) for column in spec.inputs] == [("age", "number"), ("city", "category")]
    assert spec.counts == {"train": 48, "validation": 0, "test": 12}


def test_named_inputs_keep_the_order_of_the_recipe(cache: Path, file: Path) -> None:
    spec = run(cache, **table(file, inputs={"city": "category", "age": {"kind": "number", "flag": True}})).spec
    assert [(column.name, column.shape) for column in spec.inputs] == [("city", ()), ("age", (2,))]


def test_extremes_in_validation_and_test_leave_fitted_numbers_unchanged(cache: Path, file: Path) -> None:
    plain = run(cache, **table(file, split={"column": "split", "validation": 0.25}))
    seen = set(plain.split("train").inputs["rank"][:, 0].tolist())
    ranks = plain.spec.input("rank").state
    lines = TABLE.splitlines()
    unseen = [
        n for n in range(60) if not any(abs((n - ranks["offset"][0]) / ranks["scale"][0] - s) < 1e-4 for s in seen)
    ]
    assert len(unseen) == 24
    for n in unseen:
        lines[n + 1] = ",".join(["1e9", "Atlantis", *lines[n + 1].split(",")[2:]])
    planted = run(cache, **table(file, "\n".join(lines) + "\n", split={"column": "split", "validation": 0.25}))
    assert planted.spec.fingerprint != plain.spec.fingerprint
    assert planted.spec.inputs == plain.spec.inputs
    assert planted.spec.targets == plain.spec.targets
    np.testing.assert_array_equal(planted.split("train").inputs["age"], plain.split("train").inputs["age"])
    assert (planted.split("test").inputs["city"] == 4).all()


def test_the_same_bytes_elsewhere_are_not_prepared_again(cache: Path, file: Path, tmp_path: Path) -> None:
    first = run(cache, **table(file))
    copy = tmp_path / "elsewhere.csv"
    second = run(cache, **table(copy))
    assert first.folder == second.folder
    assert first.spec == second.spec


@pytest.mark.parametrize(
    "change",
    [{"drop": ("age",)}, {"split": {"column": "split", "validation": 0.2}}, {"inputs": {"age": "number"}}],
)
def test_other_options_have_another_key(cache: Path, file: Path, change: dict[str, Any]) -> None:
    assert run(cache, **table(file)).spec.key != run(cache, **table(file, **change)).spec.key


def test_other_bytes_seeds_and_versions_have_another_key(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {run(cache, **table(file)).spec.key, run(cache, seed=1, **table(file)).spec.key}
    keys.add(run(cache, **table(file, TABLE.replace("Oslo", "Bern"))).spec.key)
    monkeypatch.setattr(preparation, "PREPARATION_VERSION", 0)
    keys.add(run(cache, **table(file)).spec.key)
    assert len(keys) == 4


def test_the_fingerprint_of_one_file_is_its_sha256(cache: Path, file: Path) -> None:
    fingerprint = run(cache, **table(file)).spec.fingerprint
    if tool := shutil.which("sha256sum"):
        assert subprocess.check_output([tool, file], text=True).split()[0] == fingerprint


def test_a_known_source_is_not_parsed_again(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(cache, **table(file))
    monkeypatch.setattr(csv, "read", None)
    run(cache, **table(file))


def damage_spec(folder: Path) -> None:
    (folder / "spec.json").write_text('{"inputs": 3')


def cut_array(folder: Path) -> None:
    path = folder / "train" / "inputs-0.npy"
    path.write_bytes(path.read_bytes()[:-4])


def remove_array(folder: Path) -> None:
    (folder / "test" / "targets-0.npy").unlink()


def move_offset(folder: Path) -> None:
    path = folder / "spec.json"
    spec = json.loads(path.read_text())
    spec["inputs"][0]["state"]["offset"] = [0.0]
    path.write_text(json.dumps(spec))


def nest_spec(folder: Path) -> None:
    (folder / "spec.json").write_text("[" * 100_000)


def change_a_label(folder: Path) -> None:
    path = folder / "train" / "targets-0.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])


@pytest.mark.parametrize("damage", [damage_spec, cut_array, remove_array, move_offset, nest_spec, change_a_label])
def test_a_damaged_entry_is_prepared_again(cache: Path, file: Path, damage: Any) -> None:
    first = run(cache, **table(file))
    before = np.array(first.split("train").inputs["age"])
    labels = np.array(first.split("train").targets["y"])
    damage(first.folder)
    assert store.find_damage(first.folder)
    second = run(cache, **table(file))
    assert second.folder == first.folder
    assert second.spec == first.spec
    np.testing.assert_array_equal(second.split("train").inputs["age"], before)
    np.testing.assert_array_equal(second.split("train").targets["y"], labels)


def test_a_damaged_entry_whose_source_is_gone_is_a_fault_of_the_source(cache: Path, file: Path) -> None:
    first = run(cache, **table(file))
    change_a_label(first.folder)
    data = table(file)
    file.unlink()
    assert faults(cache, **data)[0].message == f"{file}: no such file."


def test_what_a_killed_process_left_is_cleared_away(cache: Path, file: Path) -> None:
    first = run(cache, **table(file))
    first.folder.rename(first.folder.with_name(f".{first.folder.name}.draft"))
    second = run(cache, **table(file))
    assert second.spec == first.spec
    assert {path.suffix for path in cache.iterdir()} == {"", ".lock"}


def prepare_in_process(cache: Path, data: dict[str, Any], results: Any) -> None:
    results.put(str(run(cache, **data).folder))


def test_two_processes_at_once_prepare_the_same_data(cache: Path, file: Path) -> None:
    data = table(file, TABLE + TABLE.split("\n", 1)[1] * 200)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=prepare_in_process, args=(cache, data, results)) for _ in range(2)]
    for process in processes:
        process.start()
    folders = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(folders) == 1
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == [Path(folders.pop()).name]


def test_a_full_disk_is_a_fault_and_leaves_nothing(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(store, "_write_array", refuse)
    (fault,) = faults(cache, **table(file))
    assert fault.message.startswith(str(cache))
    assert fault.message.endswith("cannot write the prepared data: no space left on device.")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_made_is_a_fault(file: Path) -> None:
    data = table(file)
    (fault,) = faults(file / "cache", **data)
    assert fault.message == f"{file / 'cache'}: cannot write the prepared data: not a directory."


def test_a_source_that_changes_while_it_is_read_is_a_fault(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = csv.read

    def read_and_append(options: csv.Options) -> Any:
        rows = read(options)
        file.write_text(TABLE + "20,Rome,1,train,a\n")
        return rows

    monkeypatch.setattr(csv, "read", read_and_append)
    assert faults(cache, **table(file))[0].message == f"{file}: changed while it was read."


def test_columns_the_source_lacks_are_faults_all_at_once(cache: Path, file: Path) -> None:
    found = faults(
        cache,
        **table(
            file,
            inputs={"agee": "number"},
            targets={"why": "category"},
            drop=("citty",),
            split={"column": "splot", "stratify": "yy"},
        ),
    )
    assert [(fault.path, fault.message, fault.suggestion) for fault in found] == [
        ("data.inputs.agee", f"{file}: no column 'agee'.", "Did you mean 'age'?"),
        ("data.targets.why", f"{file}: no column 'why'.", "Known: age, city, rank, split, y."),
        ("data.drop.0", f"{file}: no column 'citty'.", "Did you mean 'city'?"),
        ("data.split.column", f"{file}: no column 'splot'.", "Did you mean 'split'?"),
        ("data.split.stratify", f"{file}: no column 'yy'.", "Did you mean 'y'?"),
    ]


def test_a_bad_cell_is_named_by_file_line_and_column(cache: Path, file: Path) -> None:
    text = TABLE.replace("\n31,", "\nabc,", 1)
    (fault,) = faults(cache, **table(file, text, inputs={"age": {"kind": "number"}}))
    line = text.splitlines().index(next(row for row in text.splitlines() if row.startswith("abc"))) + 1
    assert fault.message == f"{file}:{line}  column 'age': expected a number, received 'abc'."
    assert fault.suggestion == 'Write `missing_cells: ["abc"]` beside its kind to treat such cells as missing.'


def test_bad_cells_of_several_columns_are_reported_at_once(cache: Path, file: Path) -> None:
    found = faults(cache, **table(file, inputs={"age": "category", "city": "number"}, targets={"y": "number"}))
    assert [fault.message.split("  ")[1].split(":")[0] for fault in found] == [
        "column 'city'",
        "column 'y'",
    ]


def test_a_class_that_only_the_test_rows_have_is_a_fault_at_its_line(cache: Path, file: Path) -> None:
    (fault,) = faults(cache, **table(file, TABLE + "20,Rome,1,test,c\n"))
    assert fault.message == f"{file}:62  column 'y': expected a class of the training rows, received 'c'."


def test_a_split_column_beside_split_files_is_a_fault(cache: Path, file: Path) -> None:
    data = table(file)
    data["source"]["path"] = {"train": str(file), "test": str(file)}
    assert faults(cache, **data)[0].path == "data.split.column"


def test_a_bad_split_name_is_a_fault_at_its_line(cache: Path, file: Path) -> None:
    (fault,) = faults(cache, **table(file, TABLE + "20,Rome,1,holdout,a\n"))
    assert fault.message.startswith(f"{file}:62  column 'split': expected train, validation or test")


def test_no_input_left_is_a_fault(cache: Path, file: Path) -> None:
    found = faults(cache, **table(file, drop=("age", "city", "rank")))
    assert found[0].message == f"{file}: no column is left to be an input."


def test_new_rows_are_encoded_by_what_was_fitted(cache: Path, file: Path) -> None:
    prepared = run(cache, **table(file))
    rows = csv.read(csv.Options(path=str(file)))
    encoded = encode_rows(rows, prepared.spec, with_targets=True)
    test = [n for n in range(60) if n % 5 == 0]
    for name, array in prepared.split("test").inputs.items():
        np.testing.assert_array_equal(encoded.inputs[name][test], array)
    np.testing.assert_array_equal(encoded.targets["y"][test], prepared.split("test").targets["y"])


def test_new_rows_need_no_targets_unless_they_are_encoded(cache: Path, file: Path, tmp_path: Path) -> None:
    spec = run(cache, **table(file)).spec
    (tmp_path / "new.csv").write_text("age,city,rank\n30,Rome,5\n")
    rows = csv.read(csv.Options(path=str(tmp_path / "new.csv")))
    assert encode_rows(rows, spec, with_targets=False).targets == {}
    with pytest.raises(BmcliError, match="no column 'y'"):
        encode_rows(rows, spec, with_targets=True)


def test_preparing_a_table_needs_neither_tensorflow_nor_scikit_learn(cache: Path, file: Path) -> None:
    table(file)
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.data.test_preparation import run, table\n"
        f"run(Path({str(cache)!r}), **table(Path({str(file)!r})))\n"
        "assert not {'tensorflow', 'keras', 'sklearn'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_checking_options_needs_neither_numpy_nor_pyarrow() -> None:
    script = (
        "import sys\n"
        "from bmcli import parts\n"
        "for room in ('data.sources', 'data.targets', 'inputs'):\n"
        "    assert parts.names(room)\n"
        "    for kind in parts.names(room):\n"
        "        parts.load(room, kind).Options.model_json_schema()\n"
        "assert not {'numpy', 'pyarrow', 'tensorflow', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def as_parquet(path: Path) -> Path:
    pq.write_table(arrow_csv.read_csv(path), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_json_lines(path: Path) -> Path:
    rows = arrow_csv.read_csv(path).to_pylist()
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.with_suffix(".jsonl")


@pytest.mark.parametrize("convert", [as_parquet, as_json_lines])
def test_every_format_of_a_table_gives_the_same_arrays(cache: Path, file: Path, convert: Any) -> None:
    data = table(file, TABLE.replace("\n31,", "\n,"))
    other = convert(file)
    first = run(cache, **data)
    second = run(cache, **{**data, "source": {"kind": other.suffix[1:], "path": str(other)}})
    assert first.folder != second.folder
    assert [(column.name, column.kind) for column in first.spec.inputs] == [
        (column.name, column.kind) for column in second.spec.inputs
    ]
    for split in SPLITS:
        for name, array in first.split(split).inputs.items():
            np.testing.assert_array_equal(array, second.split(split).inputs[name])


def test_arrays_written_in_pieces_are_those_written_at_once(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(cache, **table(file))
    before = {path.relative_to(whole.folder): path.read_bytes() for path in whole.folder.rglob("*.npy")}
    shutil.rmtree(whole.folder)
    monkeypatch.setattr(preparation, "_PIECE_BYTES", 20)
    again = run(cache, **table(file))
    assert before
    assert {path.relative_to(again.folder): path.read_bytes() for path in again.folder.rglob("*.npy")} == before


def test_a_bad_cell_of_a_later_piece_is_named_by_its_line(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_PIECE_BYTES", 4)
    rows = "20,Rome,1,test,a\n20,Rome,1,test,c\n"
    assert faults(cache, **table(file, TABLE + rows))[0].message.startswith(
        f"{file}:63  column 'y': expected a class of the training rows, received 'c'"
    )


def test_arrays_are_as_numpy_saves_them(cache: Path, file: Path, tmp_path: Path) -> None:
    prepared = run(cache, **table(file))
    np.save(tmp_path / "saved.npy", prepared.split("train").inputs["age"])
    assert (prepared.folder / "train" / "inputs-0.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()


def test_files_in_other_splits_have_another_key(cache: Path, tmp_path: Path) -> None:
    paths = []
    for name in "abc":
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text(f"x,y\n{ord(name)},u\n{ord(name) + 5},v\n")
    a, b, c = map(str, paths)
    source = {"kind": "csv", "path": {"train": [a, b], "test": c}}
    data: dict[str, Any] = {"source": source, "targets": {"y": "category"}}
    first = run(cache, **data)
    second = run(cache, **{**data, "source": {"kind": "csv", "path": {"train": a, "test": [b, c]}}})
    assert first.spec.fingerprint == second.spec.fingerprint
    assert (first.spec.counts["train"], second.spec.counts["train"]) == (4, 2)


def test_ten_thousand_categories_are_prepared(cache: Path, file: Path) -> None:
    text = "c,y\n" + "".join(f"k{n % 10_000:05d},{'ab'[n % 2]}\n" for n in range(20_000))
    data = table(file, text, split={})
    assert len(run(cache, **data).spec.input("c").classes) > 9_000


def test_a_constant_column_is_prepared(cache: Path, file: Path) -> None:
    text = "k,c,y\n" + "".join(f"5,same,{'ab'[n % 2]}\n" for n in range(40))
    prepared = run(cache, **table(file, text, split={}))
    assert (prepared.split("train").inputs["k"] == 0).all()
    assert prepared.spec.input("c").classes == ("same",)


def test_mixed_types_in_a_column_are_categories_unless_it_is_named_a_number(cache: Path, file: Path) -> None:
    text = "m,y\n" + "".join(f"{n if n % 3 else 'x'},{'ab'[n % 2]}\n" for n in range(40))
    assert run(cache, **table(file, text, split={})).spec.input("m").kind == "category"
    (fault,) = faults(cache, **table(file, text, split={}, inputs={"m": "number"}))
    assert "column 'm': expected a number, received 'x'" in fault.message


def test_one_row_is_too_few_to_be_split(cache: Path, file: Path) -> None:
    assert "too few" in faults(cache, **table(file, "x,y\n1,a\n", split={}))[0].message


def test_a_file_that_vanishes_while_it_is_read_is_a_fault(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = csv.read

    def read_and_remove(options: csv.Options) -> Any:
        rows = read(options)
        file.unlink()
        return rows

    monkeypatch.setattr(csv, "read", read_and_remove)
    assert faults(cache, **table(file))[0].message == f"{file}: no such file."
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_what_was_guessed_stands_in_the_resolved_options(cache: Path, file: Path) -> None:
    data = table(file, TABLE.replace(",", ";"))
    options = DataOptions.model_validate(data)
    spec = run(cache, **data).spec
    found = {"delimiter": ";", "encoding": "utf-8", "quote": '"', "skip_lines": 0, "header": True}
    assert spec.source == found
    again = resolve_options(options, options.targets_by_name(), spec).source
    assert again == csv.Options(path=str(file), **found)
