"""Laws of faults of data: one short message of one line that names the file at fault, for every kind of source."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli import parts
from tests.data.sources import test_tfrecord
from tests.data.sources.test_idx import packed
from tests.pictures import encoded, pixels

from .conftest import Bmcli, Done

Row = dict[str, Any]
HUGE = "z" * 200_000
_CAPABILITIES = 0x20080522  # the version of their calls
_MAY_READ_ALL = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
EVIL = "\x1b[2J\nrecipe.yaml is valid.\u202e"

RECIPE = """\
bmcli: 1
name: faulty
data:
  source: SOURCE
  inputs: INPUTS
  targets: {y: TARGET}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 16, tensorboard: false}
runtime: {jit: false}
"""


def table(delimiter: str) -> Callable[[Sequence[Row]], bytes]:
    def written(rows: Sequence[Row]) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows({name: "" if cell != cell else cell for name, cell in row.items()} for row in rows)
        return text.getvalue().encode()

    return written


def lines(rows: Sequence[Row]) -> bytes:
    def cell(value: Any) -> Any:
        return None if value != value else "inf" if value == float("inf") else value

    return "".join(json.dumps({name: cell(value) for name, value in row.items()}) + "\n" for row in rows).encode()


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Convert rows to cells by column, all of them text if one is."""
    found = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: [str(cell) for cell in cells] if any(isinstance(cell, str) for cell in cells) else cells
        for name, cells in found.items()
    }


def parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns(rows)), file)
    return file.getvalue()


def archive(rows: Sequence[Row]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: np.array(cells) for name, cells in columns(rows).items()})
    return file.getvalue()


def records(rows: Sequence[Row]) -> bytes:
    cells = {
        name: [cell.encode() if isinstance(cell, str) else float(cell) for cell in cells]
        for name, cells in columns(rows).items()
    }
    file = Path("kept.tfrecord")
    test_tfrecord.write(file, *({name: [cells[name][row]] for name in cells} for row in range(len(rows))))
    data = file.read_bytes()
    file.unlink()
    return data


def zipped(write: Callable[[Sequence[Row]], bytes]) -> Callable[[Sequence[Row]], bytes]:
    return lambda rows: gzip.compress(write(rows))


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], bytes]]] = {
    ".csv": ("csv", table(",")),
    ".tsv": ("csv", table("\t")),
    ".csv.gz": ("csv", zipped(table(","))),
    ".jsonl": ("jsonl", lines),
    ".jsonl.gz": ("jsonl", zipped(lines)),
    ".parquet": ("parquet", parquet),
    ".npz": ("npz", archive),
    ".tfrecord": ("tfrecord", records),
}
PICTURES = ("idx", "image_folder")
DOCUMENTS = ("text",)
WITHOUT_FILES = ("builtin",)


def rows(count: int = 30, first: int = 0) -> list[Row]:
    return [{"x": n / 7, "word": "ab"[n % 2] * (1 + n % 3), "y": float(n % 5)} for n in range(first, first + count)]


def with_cell(column: str, cell: Any, row: int = 11) -> list[Row]:
    table = rows()
    table[row][column] = cell
    return table


def constant(column: str, cell: Any) -> list[Row]:
    return [{**row, column: cell} for row in rows()]


NUMBER, CLASS = "{kind: number}", "{kind: category}"
FAULTS: Mapping[str, tuple[Callable[[], list[Row]], str, str]] = {
    # Content of the training file, kind of the target, and message.
    "wrong type": (lambda: with_cell("x", "bad"), NUMBER, "column 'x': expected a number, received 'bad'"),
    "NaN target": (lambda: with_cell("y", float("nan")), NUMBER, "column 'y': expected a number, received nothing"),
    "infinite": (lambda: with_cell("x", float("inf")), NUMBER, "column 'x': expected a finite number, received"),
    "one class": (lambda: constant("y", "only"), CLASS, "target 'y': every training row has the class 'only'"),
    "one number": (lambda: constant("y", 2.0), NUMBER, "target 'y': every training row has the value 2"),
    "all missing": (lambda: constant("x", float("nan")), NUMBER, "column 'x': the training rows have no value"),
    "huge": (lambda: with_cell("x", HUGE), NUMBER, "(200,000 characters)"),
    "control characters": (lambda: with_cell("x", EVIL), NUMBER, r"'\x1b[2J\nrecipe.yaml is valid.\u202e'"),
    "huge class": (lambda: constant("y", HUGE), CLASS, "(200,000 characters)"),
    "control characters in a class": (lambda: constant("y", EVIL), CLASS, r"\x1b[2J\nrecipe.yaml is valid."),
}  # fmt: skip


def recipe(source: Mapping[str, Any], inputs: str = "{x: number, word: category}", target: str = NUMBER) -> Path:
    text = RECIPE.replace("SOURCE", json.dumps(source)).replace("INPUTS", inputs).replace("TARGET", target)
    path = Path("recipe.yaml")
    path.write_text(text)
    return path


def two_files(ending: str, train: Sequence[Row]) -> tuple[dict[str, Any], Path]:
    """Write a source of two files with the same column types; return it with the first file, which is at fault."""
    kind, write = TABLES[ending]
    texts = {name for row in train for name, cell in row.items() if isinstance(cell, str)}
    tested = [{name: str(cell) if name in texts else cell for name, cell in row.items()} for row in rows(10, 30)]
    Path("train" + ending).write_bytes(write(train))
    Path("test" + ending).write_bytes(write(tested))
    return {"kind": kind, "path": {"train": f"train{ending}", "test": f"test{ending}"}}, Path("train" + ending)


def check(done: Done, file: Path | str, message: str = "") -> None:
    """Check the law."""
    assert done.code == 2, done.err
    assert done.out == ""
    (line,) = [each for each in done.err.splitlines() if not each.startswith((" ", "loading "))]
    assert len(line) < 2000
    assert str(file) in line
    assert message in line
    assert line.isprintable()
    assert "Traceback" not in done.err
    assert HUGE[:100] not in done.err


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Remove the right to read a file or a folder, also for root, who needs capabilities dropped for that."""
    was = path.stat().st_mode
    path.chmod(0)
    header, held = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    assert libc.capget(header, held) == 0
    all_held = held[0]
    held[0] &= ~_MAY_READ_ALL
    assert libc.capset(header, held) == 0
    try:
        yield
    finally:
        held[0] = all_held
        assert libc.capset(header, held) == 0
        path.chmod(was)


def test_the_law_covers_every_kind_of_source() -> None:
    covered = {kind for kind, _ in TABLES.values()} | {*PICTURES, *DOCUMENTS, *WITHOUT_FILES}
    assert covered == set(parts.names("data.sources"))


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "holds no text"), (b"Z\xfcrich\n" * 9, "byte 2 is not utf-8")],
    ids=["missing", "empty", "another encoding"],
)
def test_a_document_at_fault_is_named(bmcli: Bmcli, kind: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("plays.txt").write_bytes(content)
    recipe({"kind": kind, "path": "plays.txt"})
    check(bmcli("train", "recipe.yaml"), "plays.txt", message)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_that_must_not_be_read_is_named(bmcli: Bmcli, kind: str) -> None:
    Path("plays.txt").write_text("First citizen: before we proceed any further, hear me speak.\n")
    recipe({"kind": kind, "path": "plays.txt"})
    with unreadable(Path("plays.txt")):
        done = bmcli("train", "recipe.yaml")
    check(done, "plays.txt", "cannot be read: permission denied")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ending", TABLES)
def test_a_fault_of_a_cell_names_the_file_of_several(bmcli: Bmcli, ending: str, fault: str) -> None:
    made, target, message = FAULTS[fault]
    source, file = two_files(ending, made())
    done = bmcli("train", recipe(source, target=target))
    check(done, file, message)
    assert "test" + ending not in done.err


@pytest.mark.parametrize("ending", TABLES)
def test_a_fault_of_a_cell_names_its_row(bmcli: Bmcli, ending: str) -> None:
    source, _ = two_files(ending, with_cell("x", "bad", row=11))
    place = {".csv": ":13", ".tsv": ":13", ".csv.gz": ":13", ".jsonl": ":12", ".jsonl.gz": ":12"}.get(ending)
    place = place or {".tfrecord": " record 12", ".npz": " train row 12"}.get(ending, " row 12")
    check(bmcli("train", recipe(source)), f"train{ending}{place}  column 'x'")


@pytest.mark.parametrize("ending", TABLES)
def test_a_column_that_is_missing_is_missed_in_its_files(bmcli: Bmcli, ending: str) -> None:
    source, file = two_files(ending, rows())
    check(bmcli("train", recipe(source, "{x: number, wrod: category}")), file, "no column 'wrod'. Did you mean 'word'?")


@pytest.mark.parametrize("ending", TABLES)
def test_a_column_that_one_file_lacks_is_missed_there(bmcli: Bmcli, ending: str) -> None:
    source, file = two_files(ending, [{"x": row["x"], "y": row["y"]} for row in rows()])
    done = bmcli("train", recipe(source))
    assert done.code == 2
    assert re.search(rf"train{ending}(:1)?[: ].*'word'", done.err) or f"test{ending}" in done.err, (done.err, file)


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("name", [EVIL, HUGE], ids=["control characters", "huge"])
def test_a_name_of_a_column_is_quoted(bmcli: Bmcli, ending: str, name: str) -> None:
    if ending == ".npz" and name == HUGE:
        pytest.skip("a member of an archive has a name of at most 65,535 bytes")
    write = TABLES[ending][1]
    Path("train" + ending).write_bytes(write([{**row, name: float("nan")} for row in rows()]))
    source = {"kind": TABLES[ending][0], "path": "train" + ending}
    check(bmcli("train", recipe(source, "null")), "train" + ending)


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("left", [0.0, 0.45], ids=["empty", "cut off"])
def test_a_file_that_is_cut_off_is_named(bmcli: Bmcli, ending: str, left: float) -> None:
    source, file = two_files(ending, rows())
    cut = file.read_bytes()[: int(left * file.stat().st_size)]
    if cut and ending in (".csv", ".tsv"):
        cut = cut[: cut.rindex(b"\n") + 2]  # within the first cell
    file.write_bytes(cut)
    check(bmcli("train", recipe(source)), file)


@pytest.mark.parametrize("ending", TABLES)
def test_a_file_that_must_not_be_read_is_named(bmcli: Bmcli, ending: str) -> None:
    source, file = two_files(ending, rows())
    written = recipe(source)
    with unreadable(file):
        done = bmcli("train", written)
    check(done, file, "cannot be read: permission denied")


@pytest.mark.parametrize("ending", TABLES)
def test_a_file_that_vanishes_before_it_is_read_is_named(
    bmcli: Bmcli, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file = two_files(ending, rows())
    vanish_before_reading(monkeypatch, source["kind"], file)
    check(bmcli("train", recipe(source)), file, "no such file")


def vanish_before_reading(monkeypatch: pytest.MonkeyPatch, kind: str, file: Path) -> None:
    part = parts.load("data.sources", kind)
    read = part.read

    def gone(options: Any) -> Any:
        file.unlink()
        return read(options)

    monkeypatch.setattr(part, "read", gone)


def folder_of_pictures(classes: Sequence[str] = ("cat", "dog")) -> dict[str, Any]:
    for each in classes:
        Path("pets", each).mkdir(parents=True)
        for number in range(10):
            Path("pets", each, f"{number}.png").write_bytes(encoded(pixels(4, 5, seed=number)))
    return {"kind": "image_folder", "path": "pets"}


def four_files(classes: int = 2) -> dict[str, Any]:
    folder = Path("digits")
    folder.mkdir()
    for prefix, count in (("train", 20), ("t10k", 10)):
        images = np.arange(count * 20, dtype="uint8").reshape(count, 4, 5)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(packed(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(packed(np.arange(count, dtype="uint8") % classes))
    return {"kind": "idx", "path": "digits"}


def picture_recipe(source: Mapping[str, Any], inputs: str = "{image: image}") -> Path:
    path = recipe(source, inputs, CLASS)
    path.write_text(path.read_text().replace("{y:", "{label:").replace("{kind: mlp, hidden: [4]}", "cnn"))
    return path


SOURCES: Mapping[str, tuple[Callable[..., dict[str, Any]], str]] = {
    "image_folder": (folder_of_pictures, "pets/cat/3.png"),
    "idx": (four_files, "digits/train-labels-idx1-ubyte"),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("left", [0.0, 0.5], ids=["empty", "cut off"])
def test_a_file_of_pictures_that_is_cut_off_is_named(bmcli: Bmcli, kind: str, left: float) -> None:
    make, name = SOURCES[kind]
    source, file = make(), Path(name)
    file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    check(bmcli("train", picture_recipe(source)), file)


@pytest.mark.parametrize("kind", PICTURES)
def test_a_file_of_pictures_that_must_not_be_read_is_named(bmcli: Bmcli, kind: str) -> None:
    make, name = SOURCES[kind]
    written = picture_recipe(make())
    with unreadable(Path(name)):
        done = bmcli("train", written)
    check(done, name, "cannot be read: permission denied")


@pytest.mark.parametrize("kind", PICTURES)
def test_a_folder_of_pictures_that_must_not_be_read_is_named(bmcli: Bmcli, kind: str) -> None:
    make, name = SOURCES[kind]
    written, folder = picture_recipe(make()), Path(name).parent
    with unreadable(folder):
        done = bmcli("train", written)
    check(done, folder, "cannot be read: permission denied")


@pytest.mark.parametrize("kind", PICTURES)
def test_a_file_of_pictures_that_vanishes_is_named(bmcli: Bmcli, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, name = SOURCES[kind]
    written = picture_recipe(make())
    part = parts.load("data.sources", kind)
    read = part.read

    def gone(options: Any) -> Any:
        found = read(options) if kind == "image_folder" else None
        Path(name).unlink()
        return found or read(options)

    monkeypatch.setattr(part, "read", gone)
    check(bmcli("train", written), name, "no such file")


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_without_a_column_are_named(bmcli: Bmcli, kind: str) -> None:
    make, name = SOURCES[kind]
    check(bmcli("train", picture_recipe(make(), "{imgae: image}")), name.partition("/")[0], "no column 'imgae'")


def test_pictures_of_one_class_are_named_with_its_name_quoted(bmcli: Bmcli) -> None:
    source = folder_of_pictures(["a\x1b[2J"])
    check(bmcli("train", picture_recipe(source)), "pets", r"every training row has the class 'a\x1b[2J'")


def test_digits_of_one_class_are_named(bmcli: Bmcli) -> None:
    check(bmcli("train", picture_recipe(four_files(classes=1))), "digits", "every training row has the class '0'")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run, its table, and an artefact of it."""
    import sys

    from bmcli.__main__ import main

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BMCLI_RUNS", str(folder / "runs"))
        Path("t.csv").write_bytes(table(",")(rows(60)))
        recipe({"kind": "csv", "path": "t.csv"})
        for arguments in (["train", "recipe.yaml", "-q"], ["export", "faulty", "--formats", "litert", "-q"]):
            patch.setattr(sys, "argv", ["bmcli", *arguments])
            with pytest.raises(SystemExit) as left:
                main()
            assert not left.value.code
    return folder


@pytest.fixture
def entries(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Sequence[str]]:
    """Arguments of commands that read a table `rows.csv`."""
    monkeypatch.setenv("BMCLI_RUNS", str(trained / "runs"))
    (card,) = (trained / "runs").rglob("card.json")
    return {
        "predict": ["predict", "faulty", "rows.csv"],
        "predict by an artefact": ["predict", str(card.parent), "rows.csv"],
        "evaluate": ["evaluate", "faulty", "--data", "rows.csv"],
    }


ENTRIES = ("predict", "predict by an artefact", "evaluate")


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("cell", "message"),
    [("bad", "'bad'"), (float("inf"), "finite"), (HUGE, "(200,000 characters)"), (EVIL, r"\x1b[2J\nrecipe")],
    ids=["wrong type", "infinite", "huge", "control characters"],
)
def test_new_rows_name_file_line_and_column(
    bmcli: Bmcli, entries: Mapping[str, Sequence[str]], entry: str, cell: Any, message: str
) -> None:
    Path("rows.csv").write_bytes(table(",")(with_cell("x", cell)))
    check(bmcli(*entries[entry]), "rows.csv:13  column 'x'", message)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"x,y,wrod\n1,2,a\n", "no column 'word'. Did you mean 'wrod'?"),
        (b"x,word,y\n1,a\n", "expected 3 cells, received 2"),
    ],
    ids=["empty", "missing column", "cut off"],
)
def test_new_tables_are_named(
    bmcli: Bmcli, entries: Mapping[str, Sequence[str]], entry: str, content: bytes, message: str
) -> None:
    Path("rows.csv").write_bytes(content)
    check(bmcli(*entries[entry]), "rows.csv", message)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: constant("y", 2.0), "every row has the same value"),
        (lambda: [{"y": row["y"]} for row in rows()], "no column is left"),
        (lambda: [{"x": HUGE, "y": row["y"]} for row in rows()], "no column is left"),
        (lambda: constant("y", HUGE), "every row has the same value"),
    ],
    ids=["constant target", "no input", "constant huge input", "constant huge target"],
)
def test_init_names_the_table(bmcli: Bmcli, made: Callable[[], list[Row]], message: str) -> None:
    Path("rows.csv").write_bytes(table(",")(made()))
    check(bmcli("init", "rows.csv", "--target", "y", "--output", "new.yaml"), "rows.csv", message)


def test_explain_names_the_table_that_is_not_what_it_was(bmcli: Bmcli, trained: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("BMCLI_RUNS", str(trained / "runs"))
    was = (trained / "t.csv").read_bytes()
    try:
        (trained / "t.csv").write_bytes(table(",")(with_cell("x", "bad")))
        check(bmcli("explain", "faulty"), "t.csv", "the data changed since this run was trained")
    finally:
        (trained / "t.csv").write_bytes(was)


@pytest.mark.parametrize("entry", [*ENTRIES, "init"])
@pytest.mark.parametrize("denied", ["rows.csv", "rows"])
def test_new_tables_that_must_not_be_read_are_named(
    bmcli: Bmcli, entries: Mapping[str, Sequence[str]], entry: str, denied: str
) -> None:
    Path("rows").mkdir()
    arguments = {**entries, "init": ["init", "rows.csv", "--output", "new.yaml"]}[entry]
    content = table(",")(rows())
    Path("rows.csv").write_bytes(content)
    Path("rows/rows.csv").write_bytes(content)
    with unreadable(Path(denied)):
        done = bmcli(*[each.replace("rows.csv", "rows/rows.csv") if denied == "rows" else each for each in arguments])
    check(done, "rows.csv", "permission denied")
