"""NumPy archives: every array is a column. Pickled objects are never loaded."""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import limits
from bmcli.data import files, tables
from bmcli.data.sources import FilePaths, SourceOptions, SourceRows, list_split_files, locate_row, repeat_split_names
from bmcli.data.tables import PartlyReadableColumns
from bmcli.errors import BmcliError
from bmcli.quoting import MAX_SHOWN, brief, quoted
from bmcli.raw_columns import RawColumn, UnreadableColumn

if TYPE_CHECKING:
    import numpy as np

_SUFFIXES = {"_train": "train", "_validation": "validation", "_val": "validation", "_test": "test"}
_Arrays = dict[str, "np.ndarray"]
_Unreadable = dict[str, UnreadableColumn]

_MAX_DIRECTORY_BYTES = 138 * limits.MAX_COLUMNS  # 46 bytes for each member, and twice as many for its name


class Options(SourceOptions):
    """NumPy archive of arrays with rows first; x_train and x_test are column x of training and test rows."""

    ENDINGS = (".npz",)

    kind: Literal["npz"] = "npz"
    path: FilePaths = Field(description="An archive, or one per split.")

    def files(self) -> tuple[Path, ...]:
        return tuple(path for _, path in list_split_files(self.path))

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, _ in list_split_files(self.path) if split is not None)


def read(options: Options) -> SourceRows:
    """Read numeric arrays unchanged, and arrays of text as text columns."""
    named = list_split_files(options.path)
    unreadable: _Unreadable = {}
    groups = {split: (path, _load_arrays(path, unreadable)) for split, path in named}
    if None in groups:
        path, arrays = groups[None]
        unreadable = {_parse_name(name)[1]: error for name, error in unreadable.items()}
        groups = {split: (path, group) for split, group in _group_by_suffix(path, arrays, unreadable).items()}
    groups = {split: (path, _select_rows(path, group, unreadable)) for split, (path, group) in groups.items()}
    columns = PartlyReadableColumns(_concatenate_splits(list(groups.values()), unreadable), unreadable)
    lengths = {split: len(next(iter(group.values()))) for split, (_, group) in groups.items()}
    places = [(path, split, lengths[split]) for split, (path, _) in groups.items()]
    return SourceRows(
        columns,
        repeat_split_names(lengths),
        describe_row=lambda row: _describe_row(places, row),
        count=sum(lengths.values()),
    )


def _load_arrays(path: Path, unreadable: _Unreadable) -> _Arrays:
    """Load the arrays of an archive; all kinds of damage are BmcliErrors.

    Args:
        unreadable: Filled with the arrays that cannot be columns, such as single values and Python objects.
    """
    import numpy as np

    with files.open_file(path) as file:
        try:
            # The directory is checked first, member by member: `numpy.load` would trust its sizes.
            with zipfile.ZipFile(_BoundedFile(file, path)) as archive:
                members = archive.infolist()
                tables.check_count(path, len(members), "arrays")
                unpacked_bytes = sum(member.file_size for member in members)
                # Members may share the same bytes of the file, so that their sum exceeds the limit and no member does.
                limits.check_growth(files.format_path(path), file.seek(0, io.SEEK_END), unpacked_bytes)
                files.check_memory(path, unpacked_bytes, "Save it as Parquet, which is read in parts.")
                name, times = Counter(member.filename for member in members).most_common(1)[0] if members else ("", 0)
                if times > 1:
                    raise files.file_error(path, f"two arrays are named {quoted(name.removesuffix('.npy'))}.")
                for member in members:
                    _check_member(path, archive, member, unreadable)
            file.seek(0)
            with np.load(file, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in loaded.files if name not in unreadable}
        except (BmcliError, OSError):
            raise
        except zipfile.BadZipFile as error:
            raise files.file_error(path, f"is not an intact NPZ archive: {brief(str(error))}.") from None
        except Exception as error:  # Damaged headers raise anything from TokenError to NotImplementedError.
            raise files.file_error(path, f"cannot be read: {type(error).__name__}: {brief(str(error))}.") from None
    checked = {}
    for name, array in arrays.items():
        try:
            checked[name] = _check_array(path, name, array)
        except UnreadableColumn as error:
            unreadable[name] = error
    if not checked:
        raise next(iter(unreadable.values()), files.file_error(path, "holds no arrays."))
    return checked


class _BoundedFile:
    """A file whose reads are limited: `zipfile` reads and parses the whole directory at once, however large it is."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.close = file.seek, file.tell, lambda: None

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size if size < 0 else min(size, _MAX_DIRECTORY_BYTES + 1))
        if len(content) > _MAX_DIRECTORY_BYTES:
            raise files.file_error(
                self._path,
                f"expected a directory of at most {limits.MAX_COLUMNS:,} arrays, received one of "
                f"{max(size, len(content)):,} bytes, which has more.",
                tables.FEWER_COLUMNS,
            )
        return content

    def seekable(self) -> bool:
        return True


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, unreadable: _Unreadable) -> None:
    """Compare the header of an array with the size of its member, before the array is loaded."""
    import numpy as np

    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        raise files.file_error(path, f"{quoted(name)} is not an array.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # `zipfile` decompresses other methods without regard to the declared size.
        raise files.file_error(
            path, f"array {quoted(name)} is compressed by a method that NumPy does not use.", "Save it with NumPy."
        )
    limits.check_growth(f"{files.format_path(path)}: array {quoted(name)}", member.compress_size, member.file_size)
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        header_bytes = stream.tell()
    if dtype.hasobject:
        message = f"array {quoted(name)} contains Python objects, which are never loaded."
        unreadable[name] = _make_array_error(path, message, "Save numbers, or text by `array.astype(str)`.")
        return
    if min(shape, default=1) < 0 or (shape and shape[0] and not math.prod(shape[1:]) * dtype.itemsize):
        raise files.file_error(
            path,
            f"array {quoted(name)} has shape {shape} of {brief(str(dtype), MAX_SHOWN)}, expected rows with values.",
        )
    declared = math.prod(shape) * dtype.itemsize
    if declared != member.file_size - header_bytes:
        raise files.file_error(
            path, f"array {quoted(name)} declares {declared} bytes, but has {member.file_size - header_bytes}."
        )


def _make_array_error(path: Path, message: str, suggestion: str = "") -> UnreadableColumn:
    return UnreadableColumn.of(files.file_error(path, message, suggestion))


def _check_array(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Convert an array to numbers or text; raise UnreadableColumn if it is no column."""
    if array.ndim == 0:
        raise _make_array_error(path, f"array {quoted(name)} is a single value, expected rows.")
    if array.dtype.kind not in "biufUS":
        raise _make_array_error(
            path, f"array {quoted(name)} has dtype {brief(str(array.dtype), MAX_SHOWN)}, expected numbers or text."
        )
    if array.dtype.kind in "US" and array.ndim > 1:
        raise _make_array_error(path, f"array {quoted(name)} has text of shape {array.shape}, expected one text a row.")
    if array.dtype.kind not in "US":
        return array
    try:
        array = array.astype(str)
        "".join(array.tolist()).encode()
    except (UnicodeError, ValueError):
        raise _make_array_error(
            path, f"array {quoted(name)} contains bytes that are not text.", "Save it as text."
        ) from None
    return array


def _parse_name(name: str) -> tuple[str | None, str]:
    """Return the split that the suffix of an array's name stands for, if any, and the name of its column."""
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix) and name != suffix), "")
    return _SUFFIXES.get(suffix), name.removesuffix(suffix)


def _group_by_suffix(path: Path, arrays: _Arrays, unreadable: _Unreadable) -> Mapping[str | None, _Arrays]:
    """Group arrays by the split in their suffix, and by column; without any suffix there is one group, None."""
    groups: dict[str | None, _Arrays] = {}
    for name, array in arrays.items():
        split, column = _parse_name(name)
        group = groups.setdefault(split, {})
        if column in group:
            raise files.file_error(path, f"two arrays are the column {quoted(column)} of {split}.")
        group[column] = array
    if len(groups) > 1:
        for name in groups.pop(None, {}):
            unreadable[name] = _make_array_error(
                path,
                f"array {quoted(name)} belongs to no split, but others do.",
                f"Name it {quoted(name + '_train')}.",
            )
    order = {split: position for position, split in enumerate((None, *_SUFFIXES.values()))}
    return dict(sorted(groups.items(), key=lambda item: order[item[0]]))


def _select_rows(path: Path, group: _Arrays, unreadable: _Unreadable) -> _Arrays:
    """Select the arrays with as many rows as most of them have; others, such as names of classes, are no columns."""
    lengths = Counter(map(len, group.values()))
    rows = max(lengths, key=lambda length: lengths[length])
    first = next(name for name, array in group.items() if len(array) == rows)
    if not rows:
        raise files.file_error(path, f"array {quoted(first)} has no rows.")
    for name, array in group.items():
        if len(array) != rows:
            message = f"column {quoted(name)} has {len(array)} rows, column {quoted(first)} has {rows}."
            unreadable.setdefault(name, _make_array_error(path, message))
    return {name: array for name, array in group.items() if len(array) == rows}


def _concatenate_splits(groups: list[tuple[Path, _Arrays]], unreadable: _Unreadable) -> dict[str, RawColumn]:
    """Concatenate the columns that have the same names and shapes in all splits; others are unreadable."""
    import numpy as np

    path, first = groups[0]
    for other_path, group in groups[1:]:
        for name in sorted(set(first) ^ set(group)):
            lacks = other_path if name in first else path
            message = f"column {quoted(name)} is missing in a split."
            unreadable.setdefault(name, _make_array_error(lacks, message))
        for name, array in group.items():
            if name in first and (
                array.shape[1:] != first[name].shape[1:] or (array.dtype.kind == "U") != (first[name].dtype.kind == "U")
            ):
                there = "another split" if path == other_path else files.format_path(path)
                message = (
                    f"column {quoted(name)} has rows of shape {array.shape[1:]}, {array.dtype}, "
                    f"in {there} of shape {first[name].shape[1:]}, {first[name].dtype}."
                )
                unreadable.setdefault(name, _make_array_error(other_path, message))
    names = [name for name in first if name not in unreadable]
    return {name: _to_column(np.concatenate([group[name] for _, group in groups])) for name in names}


def _to_column(array: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.array(array, pa.string())]) if array.dtype.kind == "U" else array


def _describe_row(places: list[tuple[Path, str | None, int]], row: int) -> str:
    (path, split), row = locate_row([((path, split), length) for path, split, length in places], row)
    return f"{files.format_path(path)} {split or ''}".rstrip() + f" row {row + 1}"
