"""Source formats. Each module reads one format into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeAlias, TypeVar

from bmcli import parts
from bmcli.data import files as data_files
from bmcli.data.files import File
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe import addresses
from bmcli.recipe.addresses import is_address
from bmcli.recipe.fields import FieldType, Kind, fault, fault_at
from bmcli.recipe.nodes import format_value
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np


_Item = TypeVar("_Item")

_MOST_NAMES = 3
_LONGEST_NAME = 1000  # characters, as of a key of a recipe


@dataclass(frozen=True)
class SourceRows:
    """Everything a source holds.

    Args:
        columns: Raw columns by name, all of the same length, in the source's order. Each may be made when it is
            asked for, so ask for one at a time, and once.
        split: Name of the split that each row's file belongs to, or None if the source does not tell.
        where: A row's place for error texts, e.g. `data/train.csv:418` for row 416.
        found: What the source's options came to where they are `auto`, by name.
        count: How many rows there are; None to count those of a column.
        broken: How many records were no rows, and were left out.
        origin: The files that hold the rows, for error texts that are of no row.
    """

    columns: Mapping[str, RawColumn]
    split: np.ndarray | None
    where: Callable[[int], str]
    found: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None
    broken: int = 0
    origin: str = ""

    def __len__(self) -> int:
        if self.count is not None:
            return self.count
        return len(next(iter(self.columns.values()))) if self.columns else 0


class SourceOptions(Kind):
    """Base of every source's options. An option called `path` arrives absolute."""

    ENDINGS: ClassVar[tuple[str, ...]] = ()
    """Of the names of the files that it reads, `.gz` apart."""

    def files(self) -> tuple[File, ...]:
        """Files read, for the fingerprint; asks the file systems what folders and patterns hold."""
        return ()

    def local_files(self) -> tuple[File, ...]:
        """Those of this machine, found without a network."""
        return self.files()

    def splits(self) -> tuple[str, ...]:
        """The split that each file belongs to; empty if the files do not tell."""
        return ()

    def shown(self, split: str | None = None) -> str:
        """The files that hold all rows, or those of a split, for error texts: as the recipe names them."""
        path = getattr(self, "path", self.kind)
        if isinstance(path, Mapping):
            some = [path[split]] if split in path else path.values()
            path = [each for paths in some for each in _as_list(paths)]
        names = [data_files.format_path(data_files.parse_path(each)) for each in _as_list(path)]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return ", ".join(names[:_MOST_NAMES]) + more

    def fingerprint(self) -> str:
        """SHA-256 of what is read; the same bytes elsewhere have the same fingerprint."""
        return data_files.fingerprint(self.files())

    def default_targets(self) -> Mapping[str, Mapping[str, Any]]:
        """Targets of a source that knows them, as a recipe writes them: `{"label": {"kind": "category"}}`."""
        return {}


class SourceKind(Protocol):
    """What a module in this folder offers."""

    Options: type[SourceOptions]

    def read(self, options: Any) -> SourceRows:
        """All rows.

        Raises:
            BmcliError: The file is missing, empty, damaged or of another format; with file and line.
        """


def read_rows(options: SourceOptions, skip_broken: bool) -> SourceRows:
    """All rows of a source.

    Args:
        skip_broken: Leave records out that are no rows, and count them, where a source can tell them from others:
            its module then has a function `read_unbroken` beside `read`. Otherwise they are a fault.

    Raises:
        BmcliError: As a source's `read` does.
    """
    parts.reset_suggestions()
    part = parts.load("data.sources", options.kind)
    rows: SourceRows = (getattr(part, "read_unbroken", part.read) if skip_broken else part.read)(options)
    for name in rows.columns:
        if len(name) > _LONGEST_NAME:
            raise BmcliError(
                f"{options.shown()}: the name of a column has at most {_LONGEST_NAME:,} characters, received "
                f"{quoted(name)}.",
                path=data_files.RECIPE_PATH,
                suggestion="Shorten it; recipes, reports and artefacts name the columns.",
            )
    return replace(rows, origin=options.shown())


@dataclass(frozen=True)
class _SplitPathsField(FieldType):
    """One file, or a file for each split."""

    def check(self, value: Any) -> str | Mapping[str, str]:
        for path in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(path, str) and is_address(path):
                raise fault("path", f"expected files of this machine, received {format_value(path)}.")
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
    """Files, folders and patterns, or such for each split."""

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
    """One path, or several."""
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
"""A file, a folder of files, a pattern as `part-*.csv`, or a list of such; or a mapping from split to any of these.

Each is a path, or the address of an object store as `s3://bucket/table.parquet`.
"""


class TableOptions(SourceOptions):
    """Base of the options of a source of tables, whose `path` is a `TablePaths`."""

    path: Any

    def tables(self, remote: bool = True) -> tuple[tuple[str | None, File], ...]:
        """The files with their splits: by split, then as listed, those of a folder or a pattern by name.

        Args:
            remote: Also those at addresses, which takes a network.

        Raises:
            BmcliError: A folder or a pattern has no file, or one is there twice.
        """
        by_split = self.path if isinstance(self.path, Mapping) else {None: self.path}
        found = [
            (split, each)
            for split in (None, *SPLITS)
            for path in _as_list(by_split.get(split, ()))
            if remote or not addresses.is_remote(path)
            for each in data_files.find_files(path, self.ENDINGS)
        ]
        twice = next((each for each, times in Counter(found).items() if times > 1), None)
        if twice is not None:
            raise BmcliError(f"{data_files.format_path(twice[1])}: is named twice.", path=data_files.RECIPE_PATH)
        return tuple(found)

    def files(self) -> tuple[File, ...]:
        return tuple(path for _, path in self.tables())

    def local_files(self) -> tuple[File, ...]:
        return tuple(path for _, path in self.tables(remote=False))

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, _ in self.tables() if split is not None)


TAB_SEPARATED_ENDINGS = (".tsv", ".tab")
"""Endings of tables whose cells are divided by tabs."""


@cache
def map_endings_to_kinds() -> Mapping[str, str]:
    """The kind of source by the endings of file names."""
    options = {kind: parts.load("data.sources", kind).Options for kind in parts.names("data.sources")}
    return {ending: kind for kind, each in options.items() for ending in each.ENDINGS}


def _as_list(paths: str | Sequence[str]) -> Sequence[str]:
    return (paths,) if isinstance(paths, str) else paths


def list_split_files(path: str | Mapping[str, str]) -> tuple[tuple[str | None, Path], ...]:
    """The files of a `FilePaths` with their splits, in the order of the splits."""
    if isinstance(path, str):
        return ((None, Path(path)),)
    return tuple((split, Path(path[split])) for split in SPLITS if split in path)


def locate_row(places: Sequence[tuple[_Item, int]], row: int) -> tuple[_Item, int]:
    """The file that a row of several files in turn is in, and its row there.

    Args:
        places: Files, or whatever stands for them, with their numbers of rows.
    """
    for place, length in places:
        if row < length:
            return place, row
        row -= length
    raise IndexError(row)


def repeat_split_names(lengths: Mapping[str | None, int]) -> np.ndarray | None:
    """The split of every row from the rows of each split in turn, None for rows without a split."""
    import numpy as np

    if None in lengths:
        return None
    return np.repeat(np.array(list(lengths), dtype=str), list(lengths.values()))
