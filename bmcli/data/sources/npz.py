"""NumPy archives: every array is a column. Nothing is ever unpickled."""

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
from bmcli.errors import BmcliError
from bmcli.quoting import LONGEST, brief, quoted
from bmcli.raw_columns import RawColumn

if TYPE_CHECKING:
    import numpy as np

_SUFFIXES = {"_train": "train", "_validation": "validation", "_val": "validation", "_test": "test"}
_Arrays = dict[str, "np.ndarray"]

_DIRECTORY_BYTES = 138 * limits.COLUMNS  # 46 for each member, and twice as many for its name


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
    """Numeric arrays as they are, arrays of text as text columns."""
    named = list_split_files(options.path)
    groups = {split: (path, _arrays(path)) for split, path in named}
    if None in groups:
        path, arrays = groups[None]
        groups = {split: (path, group) for split, group in _group_by_suffix(path, arrays).items()}
    for path, group in groups.values():
        _check_lengths(path, group)
    columns = _concatenate_splits(list(groups.values()))
    lengths = {split: len(next(iter(group.values()))) for split, (_, group) in groups.items()}
    places = [(path, split, lengths[split]) for split, (path, _) in groups.items()]
    return SourceRows(columns, repeat_split_names(lengths), where=lambda row: _describe_row(places, row))


def _arrays(path: Path) -> _Arrays:
    """Every array of an archive; damage of any sort is a BmcliError."""
    import numpy as np

    with files.open_file(path) as file:
        try:
            with zipfile.ZipFile(_Bounded(file, path)) as archive:
                members = archive.infolist()
                tables.check_count(path, len(members), "arrays")
                unpacked_bytes = sum(member.file_size for member in members)
                # Members may lie over each other, so that the sum grows where none of them does.
                limits.check_growth(files.format_path(path), file.seek(0, io.SEEK_END), unpacked_bytes)
                files.check_memory(path, unpacked_bytes, "Save it as Parquet, which is read in parts.")
                name, times = Counter(member.filename for member in members).most_common(1)[0] if members else ("", 0)
                if times > 1:
                    raise _file_error(path, f"two arrays are named {quoted(name.removesuffix('.npy'))}.")
                for member in members:
                    _check_member(path, archive, member)
            file.seek(0)
            with np.load(file, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in loaded.files}
        except (BmcliError, OSError):
            raise
        except zipfile.BadZipFile as error:
            raise _file_error(path, f"is not an intact NPZ archive: {brief(str(error))}.") from None
        except Exception as error:  # Damaged headers raise anything from TokenError to NotImplementedError.
            raise _file_error(path, f"cannot be read: {type(error).__name__}: {brief(str(error))}.") from None
    if not arrays:
        raise _file_error(path, "holds no arrays.")
    return {name: _check_array(path, name, array) for name, array in arrays.items()}


class _Bounded:
    """A file whose reads are short: `zipfile` reads the whole directory at once, whose members take a moment each."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.close = file.seek, file.tell, lambda: None

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size if size < 0 else min(size, _DIRECTORY_BYTES + 1))
        if len(content) > _DIRECTORY_BYTES:
            raise _file_error(
                self._path,
                f"its directory has {max(size, len(content)):,} bytes, as of more than {limits.COLUMNS:,} arrays; "
                "so many are the most.",
                tables.FEWER_COLUMNS,
            )
        return content

    def seekable(self) -> bool:
        return True


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compares what an array's header claims with what the archive holds, before anything is read."""
    from numpy.lib import format as npy

    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        raise _file_error(path, f"{quoted(name)} is not an array.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Those of other methods are unpacked whole, however little they announce.
        raise _file_error(
            path, f"array {quoted(name)} is compressed in another way than NumPy does it.", "Save it by NumPy."
        )
    limits.check_growth(f"{files.format_path(path)}: array {quoted(name)}", member.compress_size, member.file_size)
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(stream)
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise _file_error(
            path,
            f"array {quoted(name)} holds Python objects, which are never loaded.",
            "Save numbers or text, as `array.astype(str)` gives.",
        )
    if min(shape, default=1) < 0 or (shape and shape[0] and not math.prod(shape[1:]) * dtype.itemsize):
        raise _file_error(
            path,
            f"array {quoted(name)} has the shape {shape} of {brief(str(dtype), LONGEST)}, whose rows hold nothing.",
        )
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != member.file_size - header_bytes:
        raise _file_error(
            path, f"array {quoted(name)} announces {claimed} bytes, holds {member.file_size - header_bytes}."
        )


def _check_array(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 0:
        raise _file_error(path, f"array {quoted(name)} is a single value, expected rows.")
    if array.dtype.kind not in "biufUS":
        raise _file_error(
            path, f"array {quoted(name)} has type {brief(str(array.dtype), LONGEST)}, expected numbers or text."
        )
    if array.dtype.kind in "US" and array.ndim > 1:
        raise _file_error(path, f"array {quoted(name)} has text of shape {array.shape}, expected one text a row.")
    if array.dtype.kind not in "US":
        return array
    try:
        array = array.astype(str)
        "".join(array.tolist()).encode()
    except (UnicodeError, ValueError):
        raise _file_error(path, f"array {quoted(name)} holds bytes that are no text.", "Save it as text.") from None
    return array


def _group_by_suffix(path: Path, arrays: _Arrays) -> Mapping[str | None, _Arrays]:
    """Arrays by split and column; without suffixes all belong to no split."""
    groups: dict[str | None, _Arrays] = {}
    for name, array in arrays.items():
        suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix) and name != suffix), "")
        group = groups.setdefault(_SUFFIXES.get(suffix), {})
        column = name.removesuffix(suffix)
        if column in group:
            raise _file_error(path, f"two arrays are column {quoted(column)} of {_SUFFIXES[suffix]}.")
        group[column] = array
    if None in groups and len(groups) > 1:
        stray = next(iter(groups[None]))
        raise _file_error(
            path,
            f"array {quoted(stray)} belongs to no split, though others do.",
            f"Name it {quoted(stray + '_train')}.",
        )
    order = {split: position for position, split in enumerate((None, *_SUFFIXES.values()))}
    return dict(sorted(groups.items(), key=lambda item: order[item[0]]))


def _check_lengths(path: Path, group: _Arrays) -> None:
    (first, array), *others = group.items()
    if not len(array):
        raise _file_error(path, f"array {quoted(first)} has no rows.")
    for name, other in others:
        if len(other) != len(array):
            raise _file_error(
                path, f"column {quoted(name)} has {len(other)} rows, column {quoted(first)} has {len(array)}."
            )


def _concatenate_splits(groups: list[tuple[Path, _Arrays]]) -> dict[str, RawColumn]:
    """Columns over all splits, which must have the same names and shapes."""
    import numpy as np

    path, first = groups[0]
    for other_path, group in groups[1:]:
        differing = sorted(set(first) ^ set(group))
        if differing:
            lacks = other_path if differing[0] in first else path
            raise _file_error(lacks, f"column {quoted(differing[0])} is not there for every split.")
        for name, array in group.items():
            if array.shape[1:] != first[name].shape[1:] or (array.dtype.kind == "U") != (first[name].dtype.kind == "U"):
                there = "another split" if path == other_path else files.format_path(path)
                raise _file_error(
                    other_path,
                    f"column {quoted(name)} has rows of shape {array.shape[1:]}, {array.dtype}, "
                    f"in {there} of shape {first[name].shape[1:]}, {first[name].dtype}.",
                )
    return {name: _column(np.concatenate([group[name] for _, group in groups])) for name in first}


def _column(array: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.array(array, pa.string())]) if array.dtype.kind == "U" else array


def _describe_row(places: list[tuple[Path, str | None, int]], row: int) -> str:
    (path, split), row = locate_row([((path, split), length) for path, split, length in places], row)
    return f"{files.format_path(path)} {split or ''}".rstrip() + f" row {row + 1}"


def _file_error(path: Path, message: str, suggestion: str = "") -> BmcliError:
    return BmcliError(f"{files.format_path(path)}: {message}", path=files.RECIPE_PATH, suggestion=suggestion)
