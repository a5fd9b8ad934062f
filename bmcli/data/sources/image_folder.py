"""Pictures in folders: a folder for each class, or a table that names the files."""

from __future__ import annotations

import hashlib
import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bmcli import limits, parts, pictures
from bmcli.data import files
from bmcli.data.profiling import discovery
from bmcli.data.sources import SourceOptions, SourceRows, map_endings_to_kinds
from bmcli.data.splitting.splits import parse_split_name
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import FileColumn, is_text_column, to_texts
from bmcli.recipe.fields import fault

_TABLES = ("csv", "jsonl", "parquet")
_DESKTOP_FILES = ("thumbs.db", "desktop.ini")


class Options(SourceOptions):
    """Image files, by class (`cat/1.jpg`), by split and class (`train/cat/1.jpg`), or listed in a table.

    Without a table the columns are `image` and `label`, and folders named train, validation (valid, val, dev) and test
    are splits. With a table the columns are those of the table, and `column` is replaced by the images.
    """

    kind: Literal["image_folder"] = "image_folder"
    path: str = Field(
        min_length=1,
        description="Folder of the classes or splits, or the folder that file names of the table are relative to.",
    )
    table: str | None = Field(
        default=None, min_length=1, description="A CSV, TSV, Parquet or JSON lines file with one row per image."
    )
    column: str | None = Field(
        default=None, min_length=1, description="Column of the table that contains the file names; by default `file`."
    )

    @model_validator(mode="after")
    def _column_has_a_table(self) -> Options:
        if self.column is not None and self.table is None:
            raise fault("column", "`column` does nothing without `table`.", "Name the table, or leave the column out.")
        if self.table is not None and map_endings_to_kinds().get(files.get_ending(self.table)) not in _TABLES:
            known = ", ".join(ending for ending, kind in map_endings_to_kinds().items() if kind in _TABLES)
            raise fault("table", f"{quoted(Path(self.table).name)} is no table by its name.", f"Known: {known}.")
        return self

    def files(self) -> tuple[Path, ...]:
        """Every picture, and the table. Those that a table names and the folder lacks are left to reading."""
        if self.table is None:
            return tuple(picture.path for picture in _find_pictures(Path(self.path)))
        names = _read_file_names(self, _read_table(self))
        found = [path for path in dict.fromkeys(names) if path is not None and os.path.isfile(path)]
        return (Path(self.table), *found)

    def shown(self, split: str | None = None) -> str:
        return files.format_path(Path(self.table or self.path))

    def fingerprint(self) -> str:
        """SHA-256 of the names below the folder and what the files hold: a picture's folder is its class."""
        paths, folder = self.files(), Path(self.path)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "bmcli-digest") as threads:
            digests = threads.map(lambda path: files.fingerprint([path]), paths)
            below = [os.path.relpath(path, folder) if path.is_relative_to(folder) else path.name for path in paths]
            told = "\n".join(f"{name}\0{digest}" for name, digest in zip(below, digests, strict=True))
        return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()

    def default_targets(self) -> Mapping[str, Mapping[str, Any]]:
        return {"label": {"kind": "category"}} if self.table is None else {}


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: str
    split: str | None


def read(options: Options) -> SourceRows:
    """The pictures as encoded files, in the order of their names or of the table, with their labels."""
    if options.table is not None:
        return _read_from_table(options, _read_table(options))
    import numpy as np
    import pyarrow as pa

    found = _find_pictures(Path(options.path))
    paths = [picture.path for picture in found]
    labels = pa.chunked_array([pa.array([picture.label for picture in found], pa.string())])
    has_splits = found[0].split is not None
    return SourceRows(
        columns={"image": _make_file_column(paths), "label": labels},
        split=np.array([picture.split for picture in found], dtype=str) if has_splits else None,
        where=lambda row: files.format_path(paths[row]),
    )


def _make_file_column(paths: Sequence[Path | None]) -> FileColumn:
    import numpy as np

    def reader(position: int) -> bytes:
        path = paths[position]
        if path is None:
            raise OSError("the cell names no file")
        with files.open_file(path) as file:
            return file.read()

    return FileColumn(np.arange(len(paths)), reader)


def _find_pictures(root: Path) -> list[_Picture]:
    """Every picture with its class, and its split if folders tell it."""
    folders = _folders(root)
    splits = {folder: parse_split_name(folder.name) for folder in folders}
    if not any(splits.values()):
        return _label_pictures(folders, None)
    stray = next((folder for folder, split in splits.items() if not split), None)
    if stray is not None:
        told = next(folder.name for folder, split in splits.items() if split)
        raise _file_error(stray, f"is no split, though {quoted(told)} beside it is.", "Move it elsewhere.")
    if len(set(splits.values())) < len(splits):
        raise _file_error(root, f"two folders are the same split: {', '.join(folder.name for folder in folders)}.")
    return [picture for folder in folders for picture in _label_pictures(_folders(folder), splits[folder])]


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, by name."""
    inside = _list_folder(parent)
    folders = [path for path in inside if path.is_dir()]
    stray = next(
        (path for path in inside if path.suffix.lower() in pictures.IMAGE_SUFFIXES and path not in folders), None
    )
    if stray is not None and folders:
        raise _file_error(stray, "lies beside the folders of the classes, in none of them.")
    if not folders:
        raise _file_error(
            parent, "holds no folder of a class.", "Put the pictures of each class into a folder: cat/1.jpg."
        )
    return folders


def _label_pictures(folders: Sequence[Path], split: str | None) -> list[_Picture]:
    found: list[_Picture] = []
    for folder in folders:
        found += [_Picture(path, folder.name, split) for path in _pictures(folder)]
        _check_count(folder.parent, len(found))
    return found


def _pictures(folder: Path) -> list[Path]:
    found = _list_folder(folder)
    for path in found:
        if path.is_dir():
            raise _file_error(path, f"expected pictures of the class {quoted(folder.name)}, found a folder.")
        if path.suffix.lower() not in pictures.IMAGE_SUFFIXES:
            known = ", ".join(pictures.IMAGE_SUFFIXES)
            raise _file_error(path, "is no picture by its name.", f"Known: {known}. Move it elsewhere, or convert it.")
    if not found:
        raise _file_error(folder, "the folder of the class is empty.", "Remove it, or put pictures into it.")
    return found


def _list_folder(folder: Path) -> list[Path]:
    """What is in a folder, by name; hidden files and those of desktops do not count."""
    if not files.exists(folder):
        raise files.missing_file_error(folder, "folder")
    try:
        inside = sorted(islice(folder.iterdir(), limits.PICTURES + 1), key=lambda path: path.name)
    except NotADirectoryError:
        raise _file_error(folder, "expected a folder, found a file.") from None
    except OSError as error:
        raise _file_error(folder, f"cannot be read: {(error.strerror or str(error)).lower()}.") from None
    _check_count(folder, len(inside))
    return [path for path in inside if not path.name.startswith(".") and path.name.lower() not in _DESKTOP_FILES]


def _check_count(folder: Path, count: int) -> None:
    if count > limits.PICTURES:
        raise _file_error(
            folder,
            f"holds more than {limits.PICTURES:,} files and folders.",
            "Write the pictures into record files, and read them with `kind: tfrecord`.",
        )


def _read_table(options: Options) -> SourceRows:
    """The rows of the table as its own source reads them."""
    assert options.table is not None
    found = discovery.detect_file(Path(options.table))
    part = parts.load("data.sources", found.kind)
    try:
        table: SourceRows = part.read(part.Options.model_validate(found.to_options()))
    except BmcliError as error:
        raise BmcliError(*(replace(each, path="data.source.table") for each in error.faults)) from None
    return table


def _read_file_names(options: Options, table: SourceRows) -> list[Path | None]:
    """The file that each row of the table names."""
    name = options.column or "file"
    if name not in table.columns:
        hint = parts.did_you_mean(name, table.columns)
        raise BmcliError(f"{options.shown()}: no column {quoted(name)}.", path="data.source.column", suggestion=hint)
    column = table.columns[name]
    if not is_text_column(column):
        raise BmcliError(f"{options.shown()}: column {quoted(name)} holds no file names.", path="data.source.column")
    folder = Path(options.path)
    return [folder / cell if cell else None for cell in to_texts(column).to_pylist()]


def _read_from_table(options: Options, table: SourceRows) -> SourceRows:
    if not os.path.isdir(options.path):
        raise files.missing_file_error(Path(options.path), "folder")
    paths = _read_file_names(options, table)
    name = options.column or "file"

    def where(row: int) -> str:
        path = paths[row]
        return f"{table.where(row)} ({'no file' if path is None else files.format_path(path)})"

    return replace(table, columns=ChainMap({name: _make_file_column(paths)}, table.columns), where=where, found={})  # type: ignore[arg-type]


def _file_error(path: Path, message: str, suggestion: str = "") -> BmcliError:
    return BmcliError(f"{files.format_path(path)}: {message}", path=files.RECIPE_PATH, suggestion=suggestion)
