"""Files that were made to exhaust memory or time: a law over every kind of source.

One process, which costs a start of TensorFlow, trains on all of them, so that one that ends it fails the whole law.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmcli import parts
from tests.pictures import encoded, pixels

MEMORY = 4 * 2**30
"""Bytes that the process may allocate, TensorFlow included."""

GROWN = 2**30
"""Bytes of memory that each bomb may take on top of what the process took before."""

_PIECE = 2**20


def _packed(head: bytes, piece: bytes) -> bytes:
    """Write a gzip file of 300 MB with many members, which are unpacked one after the other."""
    member = gzip.compress(piece * (_PIECE // len(piece)), mtime=0)
    return gzip.compress(head, mtime=0) + member * 300


def _parquet(file: Path, column: Any, **options: Any) -> None:
    pq.write_table(pa.table({"x": column, "y": pa.array(np.zeros(len(column), "int8"))}), file, **options)


def _texts(file: Path) -> None:
    codes = pa.array(np.zeros(200_000, "int32"))
    _parquet(file, pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 40_000])), compression="zstd")


def _texts_without_a_first_one(file: Path) -> None:
    codes = pa.array(np.zeros(200_000, "int32"), mask=np.arange(200_000) < 100_000)
    _parquet(file, pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 40_000])), compression="zstd")


def _texts_by_difference(file: Path) -> None:
    text = pa.array(["x" * 40_000] * 100)
    texts = pa.chunked_array([text] * 80)
    _parquet(file, texts, use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"}, compression="zstd")


def _numbers(file: Path) -> None:
    _parquet(file, pa.chunked_array([pa.array(np.zeros(10_000_000))] * 4), compression="zstd")


def _list(file: Path) -> None:
    one = pa.ListArray.from_arrays([0, 36_000_000], pa.array(np.zeros(36_000_000)))
    _parquet(file, one, compression="zstd")


def _nested(file: Path) -> None:
    value: Any = 1
    for _ in range(80):
        value = {"a": value}
    _parquet(file, pa.array([value]))


def _npz(file: Path, method: int, size: int) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (size // 8,)})
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive, archive.open("x.npy", "w") as member:
        member.write(head.getvalue())
        for _ in range(size // _PIECE):
            member.write(bytes(_PIECE))


def _record(file: Path, length: int) -> None:
    from tests.data.sources.test_tfrecord import _masked_crc

    head = length.to_bytes(8, "little")
    file.write_bytes(head + _masked_crc(head) + bytes(4))


def _idx(file: Path, content: bytes) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        (file.parent / name).write_bytes(b"\0\0\x08\x03" + struct.pack(">III", 1, 1, 1) + b"\0")
    (file.parent / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 1) + b"\0")
    file.write_bytes(content)


def _gif(*frames: tuple[int, int], screen: tuple[int, int] = (10, 10)) -> bytes:
    one = encoded(pixels(2, 2), "gif")
    start = 13 + 3 * 128
    content = bytearray(one[:start])
    content[6:10] = struct.pack("<HH", *screen)
    for width, height in frames:
        content += one[start : start + 5] + struct.pack("<HH", width, height) + one[start + 9 : -1]
    return bytes(content) + b";"


def _png(side: int) -> bytes:
    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = part(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(bytes(10**6))) + part(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def _tiff(side: int) -> bytes:
    fields = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: 2**31}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)


def _webp(side: int) -> bytes:
    size = (side - 1).to_bytes(3, "little")
    head = b"VP8X" + struct.pack("<II", 10, 2) + size + size
    return b"RIFF" + struct.pack("<I", len(head) + 4) + b"WEBP" + head


def _transparent_gif(side: int) -> bytes:
    one = encoded(pixels(2, 2), "gif")
    start = 13 + 3 * 128
    return one[:6] + struct.pack("<HH", side, side) + one[10:start] + b"!\xf9\x04\x01\0\0\0\0" + one[start:]


def _jpeg(scans: int) -> bytes:
    one = encoded(pixels(8, 8), "jpg")
    return one[:-2] + b"\xff\xda\x00\x02" * scans + one[-2:]


BOMBS: dict[str, dict[str, tuple[str, Callable[[Path], Any], str]]] = {
    "csv": {"packed": ("a.csv.gz", lambda file: file.write_bytes(_packed(b"x,y\n", b"1" * 60 + b",2\n")), "unpack to")},
    "text": {"packed": ("a.txt.gz", lambda file: file.write_bytes(_packed(b"", b"a word or two ")), "unpack to")},
    "jsonl": {
        "packed": (
            "a.jsonl.gz",
            lambda file: file.write_bytes(_packed(b"", b'{"x": 1, "y": 2}' + b" " * 47 + b"\n")),
            "unpack to",
        ),
        "deep": ("a.jsonl", lambda file: file.write_text('{"x": 1, "y": 2}\n{"x": ' + "[" * 10**6), "nested"),
        "long line": ("a.jsonl.gz", lambda file: file.write_bytes(_packed(b'{"x": "', b"x")), "is longer than"),
        "quotes": ("a.jsonl", lambda file: file.write_text('{"x": [[}\n{"x": "' + '\\"' * 10**6), "nested|not JSON"),
    },
    "parquet": {
        "one text": ("a.parquet", _texts, "unpack to"),
        "one text, at first missing": ("a.parquet", _texts_without_a_first_one, "unpack to"),
        "texts by their difference": ("a.parquet", _texts_by_difference, "unpack to"),
        "one number": ("a.parquet", _numbers, "unpack to"),
        "one list": ("a.parquet", _list, "unpack to"),
        "deep": ("a.parquet", _nested, "nested"),
    },
    "npz": {
        "packed": ("a.npz", lambda file: _npz(file, zipfile.ZIP_DEFLATED, 300 * _PIECE), "unpack to"),
        "packed in another way": (
            "a.npz",
            lambda file: _npz(file, zipfile.ZIP_BZIP2, _PIECE),
            "a method that NumPy does not use",
        ),
    },
    "idx": {
        "packed": ("t10k-labels-idx1-ubyte.gz", lambda file: _idx(file, _packed(b"\0\0\x08\x01", b"\0")), "unpack to"),
    },
    "tfrecord": {
        "packed": (
            "a.tfrecord.gz",
            lambda file: file.write_bytes(_packed(struct.pack("<QI", 2**32, 0), b"\0")),
            "unpack to",
        ),
        "long record": ("a.tfrecord", lambda file: _record(file, 2**62), "record 1 is damaged or cut off"),
    },
    "image_folder": {
        "GIF frame larger than its screen": (
            "a/1.gif",
            lambda file: file.write_bytes(_gif((30_000, 30_000))),
            "900 megapixels",
        ),
        "GIF of many frames": (
            "a/1.gif",
            lambda file: file.write_bytes(_gif(*[(4000, 4000)] * 3000)),
            "megapixels together",
        ),
        "JPEG of many scans": (
            "a/1.jpg",
            lambda file: file.write_bytes(_jpeg(3000)),
            "at most 100 scans, received 3001",
        ),
        "PNG of one colour": ("a/1.png", lambda file: file.write_bytes(_png(50_000)), "2.5e\\+03 megapixels"),
        "TIFF that announces": ("a/1.tif", lambda file: file.write_bytes(_tiff(50_000)), "2.5e\\+03 megapixels"),
        "WebP that announces": ("a/1.webp", lambda file: file.write_bytes(_webp(2**24)), "megapixels"),
        "GIF of a large screen": ("a/1.gif", lambda file: file.write_bytes(_transparent_gif(60_000)), "megapixels"),
        "BMP that announces": ("a/1.bmp", lambda file: file.write_bytes(_bmp(2**31 - 1, 2**31 - 1)), "megapixels"),
    },
}
LAW = [(kind, name) for kind, bombs in BOMBS.items() for name in bombs]

_CHILD = """
import contextlib, io, json, resource, sys
import tensorflow, pyarrow.parquet
from bmcli.__main__ import main
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024

def resident():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) * 1024

for recipe in json.load(sys.stdin):
    open("/proc/self/clear_refs", "w").write("5")  # resets the peak
    before, output = resident(), io.StringIO()
    sys.argv = ["bmcli", "train", recipe]
    with contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as left:
            code = left.code
    print("ENDED " + json.dumps([code, output.getvalue(), peak() - before]), flush=True)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, int, str, int]]:
    """File, exit code, output and memory of a training on every bomb, all in one process with a memory limit."""
    root = tmp_path_factory.mktemp("bombs")
    files, recipes = {}, []
    for number, (kind, name) in enumerate(LAW):
        folder = root / str(number)
        folder.mkdir()
        file_name, make, _ = BOMBS[kind][name]
        files[kind, name] = file = folder / file_name
        file.parent.mkdir(exist_ok=True)
        make(file)
        if kind == "image_folder":
            (folder / "b").mkdir()
            for label, count in (("a", 10), ("b", 10)):
                for picture in range(count):
                    (folder / label / f"{picture + 2}.png").write_bytes(encoded(pixels(4, 4, seed=picture)))
        recipes.append(folder / "recipe.yaml")
        recipes[-1].write_text(json.dumps(_recipe(kind, folder if kind in ("idx", "image_folder") else file)))
    folders = {name: str(root / name) for name in ("BMCLI_CACHE", "BMCLI_RUNS", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(MEMORY)],
        input=json.dumps([str(recipe) for recipe in recipes]),
        cwd=root,
        env={**os.environ, **folders, "COLUMNS": "500", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    lines = [json.loads(line.removeprefix("ENDED ")) for line in done.stdout.splitlines() if line.startswith("ENDED ")]
    assert len(lines) == len(LAW), done.stderr
    return {key: (files[key], *line) for key, line in zip(LAW, lines, strict=True)}


def _recipe(kind: str, path: Path) -> dict[str, Any]:
    inputs = (
        {"image": {"kind": "image", "size": [4, 4]}} if kind in ("idx", "image_folder") else {"x": {"kind": "number"}}
    )
    data: dict[str, Any] = {"source": {"kind": kind, "path": str(path)}, "inputs": inputs}
    if kind not in ("idx", "image_folder"):
        data["targets"] = {"y": {"kind": "number"}}
    model, train = {"kind": "mlp", "hidden": [4]}, {"epochs": 1, "batch_size": 16, "tensorboard": False}
    return {"bmcli": 1, "name": "bombs", "data": data, "model": model, "train": train}


def test_every_kind_of_source_has_its_bombs() -> None:
    assert set(BOMBS) == set(parts.names("data.sources")) - {"builtin"}  # which reads no file


@pytest.mark.parametrize(("kind", "name"), LAW)
def test_a_bomb_is_a_fault_that_names_its_file(ended: Any, kind: str, name: str) -> None:
    file, code, words, grown = ended[kind, name]
    assert (code, "Traceback" in words) == (2, False), words
    assert re.search(rf"/{re.escape(file.name)}\b.*({BOMBS[kind][name][2]})", words), words
    assert grown < GROWN, words
