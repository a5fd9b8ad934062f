"""Image files: in a folder for each class, or listed in a table."""

from __future__ import annotations

import hashlib
import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.data import files, picture_folders
from bmcli.data.profiling import discovery
from bmcli.data.sources import SourceOptions, SourceRows, map_endings_to_kinds
from bmcli.data.splitting.splits import parse_split_name
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import FileColumn, is_text_column, to_texts
from bmcli.recipe.fields import fault

_TABLES = ("csv", "jsonl", "parquet")


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
    def _check_table(self) -> Options:
        if self.column is not None and self.table is None:
            raise fault("column", "`column` has no effect without `table`.", "Name the table, or leave the column out.")
        if self.table is not None and map_endings_to_kinds().get(files.get_ending(self.table)) not in _TABLES:
            known = ", ".join(ending for ending, kind in map_endings_to_kinds().items() if kind in _TABLES)
            name = quoted(Path(self.table).name)
            raise fault("table", f"the ending of {name} is not that of a table.", f"Known endings: {known}.")
        return self

    def files(self) -> tuple[Path, ...]:
        """List all pictures, and the table first.

        Files that the table lists and the folder lacks are left out here; reading them is a fault with their row.
        """
        if self.table is None:
            return tuple(picture.path for picture in _find_pictures(Path(self.path)))
        paths = _read_file_paths(self, _read_table(self))
        existing = [path for path in dict.fromkeys(paths) if path is not None and os.path.isfile(path)]
        return (Path(self.table), *existing)

    def describe_files(self, split: str | None = None) -> str:
        return files.format_path(Path(self.table or self.path))

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the paths below the folder and of the files: the folder of a picture is its class."""
        paths, folder = self.files(), Path(self.path)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "bmcli-digest") as threads:
            digests = threads.map(lambda path: files.compute_fingerprint([path]), paths)
            names = [os.path.relpath(path, folder) if path.is_relative_to(folder) else path.name for path in paths]
            listing = "\n".join(f"{name}\0{digest}" for name, digest in zip(names, digests, strict=True))
        return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()  # Names may be no valid UTF-8.

    def default_targets(self) -> Mapping[str, Mapping[str, Any]]:
        return {"label": {"kind": "category"}} if self.table is None else {}


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: str
    split: str | None


def read(options: Options) -> SourceRows:
    """Read the pictures as encoded files, in the order of their names or of the table, with their labels."""
    if options.table is not None:
        return _read_from_table(options, _read_table(options))
    import numpy as np
    import pyarrow as pa

    images = _find_pictures(Path(options.path))
    paths = [picture.path for picture in images]
    labels = pa.chunked_array([pa.array([picture.label for picture in images], pa.string())])
    has_splits = images[0].split is not None
    return SourceRows(
        columns={"image": _make_file_column(paths), "label": labels},
        split=np.array([picture.split for picture in images], dtype=str) if has_splits else None,
        describe_row=lambda row: files.format_path(paths[row]),
        left_out=picture_folders.list_left_out(Path(options.path)),
    )


def _make_file_column(paths: Sequence[Path | None]) -> FileColumn:
    import numpy as np

    def reader(position: int) -> bytes:
        path = paths[position]
        # An empty cell is not a missing picture, but a fault of its row, about which `data.invalid` decides.
        if path is None:
            raise OSError("the cell is empty, expected a file name")
        with files.open_file(path) as file:
            return file.read()

    return FileColumn(np.arange(len(paths)), reader)


def _find_pictures(root: Path) -> list[_Picture]:
    """Find all pictures with their class, and with their split if the folders define splits."""
    folders = _list_folders(root)
    splits = {folder: parse_split_name(folder.name) for folder in folders}
    if not any(splits.values()):
        return _label_pictures(folders, None)
    stray = next((folder for folder, split in splits.items() if not split), None)
    if stray is not None:
        known = next(folder.name for folder, split in splits.items() if split)
        message = f"is not the name of a split, but the folder {quoted(known)} beside it is."
        raise files.file_error(stray, message, "Move it elsewhere.")
    if len(set(splits.values())) < len(splits):
        names = ", ".join(folder.name for folder in folders)
        raise files.file_error(root, f"two folders are the same split: {names}.")
    return [picture for folder in folders for picture in _label_pictures(_list_folders(folder), splits[folder])]


def _list_folders(parent: Path) -> Sequence[Path]:
    """List the folders in a folder, sorted."""
    content = picture_folders.read_folder(parent)
    if content.pictures and content.folders:
        raise files.file_error(content.pictures[0], "is beside the folders of the classes and not in one of them.")
    if not content.folders:
        raise files.file_error(
            parent,
            "has no folder of a class.",
            "Put the pictures of each class into a folder, such as cat/1.jpg.",
        )
    return content.folders


def _label_pictures(folders: Sequence[Path], split: str | None) -> list[_Picture]:
    labelled: list[_Picture] = []
    for folder in folders:
        labelled += [_Picture(path, folder.name, split) for path in _list_pictures(folder)]
        picture_folders.check_count(folder.parent, len(labelled))
    return labelled


def _list_pictures(folder: Path) -> Sequence[Path]:
    content = picture_folders.read_folder(folder)
    if content.folders:
        raise files.file_error(
            content.folders[0], f"expected pictures of the class {quoted(folder.name)}, found a folder."
        )
    if content.others:
        raise picture_folders.make_other_file_error(content.others[0])
    if not content.pictures:
        raise files.file_error(folder, "the folder of the class is empty.", "Remove it, or put pictures into it.")
    return content.pictures


def _read_table(options: Options) -> SourceRows:
    """Read the table by the source of its format."""
    assert options.table is not None
    source = discovery.detect_file(Path(options.table))
    part = parts.load("data.sources", source.kind)
    try:
        table: SourceRows = part.read(part.Options.model_validate(source.to_options()))
    except BmcliError as error:
        raise BmcliError(*(replace(each, path="data.source.table") for each in error.faults)) from None
    return table


def _read_file_paths(options: Options, table: SourceRows) -> list[Path | None]:
    """Return the path of the file of each row of the table, None where the cell is empty."""
    name = options.column or "file"
    if name not in table.columns:
        hint = parts.did_you_mean(name, table.columns)
        raise BmcliError(
            f"{options.describe_files()}: no column {quoted(name)}.", path="data.source.column", suggestion=hint
        )
    column = table.columns[name]
    if not is_text_column(column):
        raise BmcliError(
            f"{options.describe_files()}: column {quoted(name)}: expected file names, received numbers or files.",
            path="data.source.column",
        )
    folder = Path(options.path)
    return [folder / cell if cell else None for cell in to_texts(column).to_pylist()]


def _read_from_table(options: Options, table: SourceRows) -> SourceRows:
    if not os.path.isdir(options.path):
        raise files.missing_file_error(Path(options.path), "folder")
    paths = _read_file_paths(options, table)
    name = options.column or "file"

    def describe_row(row: int) -> str:
        path = paths[row]
        return f"{table.describe_row(row)} ({'no file' if path is None else files.format_path(path)})"

    return replace(
        table,
        # A dictionary would build all columns of the table. ChainMap is typed for mappings that can be written, but
        # writes only to its first one.
        columns=ChainMap({name: _make_file_column(paths)}, table.columns),  # type: ignore[arg-type]
        describe_row=describe_row,
        detected_options={},  # They are options of the table's source, which this source does not have.
    )
