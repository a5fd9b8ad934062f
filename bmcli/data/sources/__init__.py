"""Kinds of data sources. Each module reads one format into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeAlias, TypeVar

from bmcli import parts
from bmcli.data import files
from bmcli.data.files import File
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe import addresses
from bmcli.recipe.addresses import is_address
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import FieldType, Kind, fault, fault_at
from bmcli.recipe.nodes import format_value
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np


_Item = TypeVar("_Item")

_MAX_NAMED_FILES = 3
_MAX_COLUMN_NAME = 1000  # characters, as of a key of a recipe


@dataclass(frozen=True)
class SourceRows:
    """Rows of a source, as raw columns.

    Args:
        columns: Raw columns by name, all of the same length, in the order of the source. A column may be built on
            every access, so access each once, and one at a time.
        split: Name of the split of each row, by its file; None if the source does not define splits.
        describe_row: Function from a row to its place for messages, e.g. `data/train.csv:418` for row 416.
        detected_options: Detected values of the source's options that are `auto`, by name.
        count: Number of rows; None to take the length of a column.
        malformed_records: Number of records that were left out because they are not rows.
        origin: Files that hold the rows, for messages about no row in particular.
        left_out: Names of files and folders beside the data that hold no rows, such as hidden ones.
        notes: Sentences about how the files were read, where that had to be guessed.
    """

    columns: Mapping[str, RawColumn]
    split: np.ndarray | None
    describe_row: Callable[[int], str]
    detected_options: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None
    malformed_records: int = 0
    origin: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        if self.count is not None:
            return self.count
        return len(next(iter(self.columns.values()))) if self.columns else 0


def describe_left_out(left_out: Sequence[str]) -> str:
    """Describe the files and folders that hold no rows, in one sentence; empty if there are none."""
    count = len(left_out)
    names = ", ".join(map(quoted, left_out[:_MAX_NAMED_FILES]))
    more = f" and {count - _MAX_NAMED_FILES:,} more" if count > _MAX_NAMED_FILES else ""
    entries = "file or folder" if count == 1 else "files or folders"
    return f"{count:,} {entries} left out, which hold no data: {names}{more}." if count else ""


class SourceOptions(Kind):
    """Base class of the options of all sources. The recipe loader makes an option `path` absolute."""

    ENDINGS: ClassVar[tuple[str, ...]] = ()
    """Endings of the file names that the source reads, without `.gz`."""
    detects: ClassVar[bool] = True
    """Whether files of these endings are read by this source where none is named."""

    def files(self) -> tuple[File, ...]:
        """List the files that the source reads, in the order of the fingerprint; folders and patterns are expanded."""
        return ()

    def local_files(self) -> tuple[File, ...]:
        """List the files of this machine, without network access."""
        return self.files()

    def splits(self) -> tuple[str, ...]:
        """Return the split of each file; empty if the files do not define splits."""
        return ()

    def describe_files(self, split: str | None = None) -> str:
        """Name the files of all rows, or of the rows of a split, as the recipe names them, for messages."""
        path = getattr(self, "path", self.kind)
        if isinstance(path, Mapping):
            groups = [path[split]] if split in path else path.values()
            path = [each for paths in groups for each in _as_list(paths)]
        names = [files.format_path(files.parse_path(each)) for each in _as_list(path)]
        more = f" and {len(names) - _MAX_NAMED_FILES} more" if len(names) > _MAX_NAMED_FILES else ""
        return ", ".join(names[:_MAX_NAMED_FILES]) + more

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the data; the same bytes in another folder have the same fingerprint."""
        return files.compute_fingerprint(self.files())

    def default_targets(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the targets of a source that defines them, as in a recipe: `{"label": {"kind": "category"}}`."""
        return {}


class SourceKind(Protocol):
    """Interface of the modules of this folder.

    A module whose format can recover from a malformed record also has a function `read_well_formed`, which leaves such
    records out and counts them.
    """

    Options: type[SourceOptions]

    def read(self, options: Any) -> SourceRows:
        """Read all rows.

        Raises:
            BmcliError: A file is missing, empty, damaged or of another format; with file and line.
        """


def get_source(options: DataOptions) -> SourceOptions:
    """Return the source of a recipe, which the recipe language itself, below this folder, can only type as `Kind`."""
    assert isinstance(options.source, SourceOptions)
    return options.source


def read_rows(options: SourceOptions, skip_malformed: bool) -> SourceRows:
    """Read all rows of a source.

    Args:
        skip_malformed: Leave out records that are not rows, and count them, if the module has `read_well_formed`;
            otherwise they are faults.

    Raises:
        BmcliError: As `SourceKind.read` does.
    """
    parts.reset_suggestions()  # The search for similar names is limited; every source gets the full number of words.
    part = parts.load("data.sources", options.kind)
    rows: SourceRows = (getattr(part, "read_well_formed", part.read) if skip_malformed else part.read)(options)
    for name in rows.columns:
        if len(name) > _MAX_COLUMN_NAME:
            raise BmcliError(
                f"{options.describe_files()}: expected column names of at most {_MAX_COLUMN_NAME:,} characters, "
                f"received {quoted(name)}.",
                path=files.RECIPE_PATH,
                suggestion="Shorten the name: recipes, reports and artefacts repeat it.",
            )
    return replace(rows, origin=options.describe_files())


@dataclass(frozen=True)
class _SplitPathsField(FieldType):
    """One file, or a file for each split."""

    def check(self, value: Any) -> str | Mapping[str, str]:
        for path in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(path, str) and is_address(path):
                raise fault("path", f"expected a local file, received the address {format_value(path)}.")
        if isinstance(value, str) and value:
            return value
        if not isinstance(value, Mapping) or not value:
            raise fault("path", f"expected a path or a mapping from split to path, received {format_value(value)}.")
        for split, path in value.items():
            if split not in SPLITS:
                raise fault("path", f"no split {format_value(split)}.", parts.did_you_mean(str(split), SPLITS))
            if not isinstance(path, str) or not path:
                raise fault("path", f"expected a path for {split}, received {format_value(path)}.")
        return dict(value)

    def json_schema(self) -> dict[str, Any]:
        each = {split: {"type": "string"} for split in SPLITS}
        return {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": each, "additionalProperties": False, "minProperties": 1},
            ]
        }


FilePaths = Annotated[str | Mapping[str, str], _SplitPathsField()]
"""A path, or a mapping from split to path: `{train: train.csv, test: test.csv}`."""


Paths: TypeAlias = str | Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class _TablePathsField(FieldType):
    """Files, folders and patterns, or a mapping from split to these."""

    def check(self, value: Any) -> Paths:
        if not isinstance(value, Mapping):
            return _check_paths(value, ())
        if not value:
            raise fault("path", "expected paths, received an empty mapping.")
        for split in value:
            if split not in SPLITS:
                raise fault("path", f"no split {format_value(split)}.", parts.did_you_mean(str(split), SPLITS))
        return {split: _check_paths(paths, (split,)) for split, paths in value.items()}

    def json_schema(self) -> dict[str, Any]:
        some = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        each = dict.fromkeys(SPLITS, some)
        mapping = {"type": "object", "properties": each, "additionalProperties": False, "minProperties": 1}
        return {"anyOf": [*some["anyOf"], mapping]}


def _check_paths(value: Any, place: tuple[str, ...]) -> str | tuple[str, ...]:
    """Check a path or a list of paths; `place` is the split that they belong to, if any."""
    paths = value if isinstance(value, (list, tuple)) else [value]
    if not paths:
        raise fault_at(place, "expected paths, received an empty list.")
    for position, path in enumerate(paths):
        here: tuple[str | int, ...] = place if paths[0] is value else (*place, position)
        if not isinstance(path, str) or not path:
            what = f"a path or a list of paths for {place[0]}" if place else "a path, a list, or a mapping from split"
            raise fault_at(here, f"expected {what}, received {format_value(path)}.")
        if is_address(path) and (problem := addresses.find_problem(path)):
            raise fault_at(here, *problem)
    return value if isinstance(value, str) else tuple(paths)


TablePaths = Annotated[Any, _TablePathsField()]
"""A file, a folder, a pattern such as `part-*.csv`, or a list of these; or a mapping from split to any of these.

Each is a local path, or an address of an object store such as `s3://bucket/table.parquet`.
"""


class TableOptions(SourceOptions):
    """Base class of the options of sources of tables, whose `path` is a `TablePaths`."""

    path: Any

    def tables(self, remote: bool = True) -> tuple[tuple[str | None, File], ...]:
        """List the files with their splits: by split, then as listed, those of a folder or a pattern by name.

        Args:
            remote: Include files at addresses, which needs a network.

        Raises:
            BmcliError: A folder or a pattern has no file, or a file is listed twice.
        """
        by_split = self.path if isinstance(self.path, Mapping) else {None: self.path}
        located = [
            (split, each)
            for split in (None, *SPLITS)
            for path in _as_list(by_split.get(split, ()))
            if remote or not addresses.is_remote(path)
            for each in files.find_files(path, self.ENDINGS)
        ]
        twice = next((each for each, times in Counter(located).items() if times > 1), None)
        if twice is not None:
            raise files.file_error(twice[1], "is listed twice.")
        return tuple(located)

    def files(self) -> tuple[File, ...]:
        return tuple(path for _, path in self.tables())

    def local_files(self) -> tuple[File, ...]:
        return tuple(path for _, path in self.tables(remote=False))

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, _ in self.tables() if split is not None)


DELIMITED_ENDINGS = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
"""Endings of tables whose cells are separated by something else than commas."""


@cache
def map_endings_to_kinds() -> Mapping[str, str]:
    """Return the kind of source that reads files of each ending."""
    # Cached, because it imports every source.
    options = {kind: parts.load("data.sources", kind).Options for kind in parts.names("data.sources")}
    return {ending: kind for kind, each in options.items() if each.detects for ending in each.ENDINGS}


def _as_list(paths: str | Sequence[str]) -> Sequence[str]:
    return (paths,) if isinstance(paths, str) else paths


def list_split_files(path: str | Mapping[str, str]) -> tuple[tuple[str | None, Path], ...]:
    """List the files of a `FilePaths` with their splits, in the order of `SPLITS`."""
    if isinstance(path, str):
        return ((None, Path(path)),)
    return tuple((split, Path(path[split])) for split in SPLITS if split in path)


def locate_row(places: Sequence[tuple[_Item, int]], row: int) -> tuple[_Item, int]:
    """Return the file of a row of several files one after the other, and its row there.

    Args:
        places: Files, or other values that identify them, with their numbers of rows.
    """
    for place, length in places:
        if row < length:
            return place, row
        row -= length
    raise IndexError(row)


def repeat_split_names(lengths: Mapping[str | None, int]) -> np.ndarray | None:
    """Return the split of every row, given the number of rows of each split; None if rows have no split."""
    import numpy as np

    if None in lengths:
        return None
    return np.repeat(np.array(list(lengths), dtype=str), list(lengths.values()))
