"""Source formats. Each module reads one format into columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from bmcli import parts
from bmcli.cells import Raw
from bmcli.data import files
from bmcli.recipe.fields import Checked, Kind, fault
from bmcli.recipe.fields import shown as written
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np


_Place = TypeVar("_Place")


@dataclass(frozen=True)
class Rows:
    """Everything a source holds.

    Args:
        columns: Raw columns by name, all of the same length, in the source's order.
        split: Name of the split that each row's file belongs to, or None if the source does not tell.
        where: A row's place for error texts, e.g. `data/train.csv:418` for row 416.
    """

    columns: Mapping[str, Raw]
    split: np.ndarray | None
    where: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0


class SourceOptions(Kind):
    """Base of every source's options. An option called `path` arrives absolute."""

    def files(self) -> tuple[Path, ...]:
        """Files read, for the fingerprint and for checking that they exist."""
        return ()

    def fingerprint(self) -> str:
        """SHA-256 of what is read; the same bytes elsewhere have the same fingerprint."""
        return files.fingerprint(self.files())

    def natural_targets(self) -> Mapping[str, Mapping[str, Any]]:
        """Targets of a source that knows them, as a recipe writes them: `{"label": {"kind": "category"}}`."""
        return {}


class Source(Protocol):
    """What a module in this folder offers."""

    Options: type[SourceOptions]

    def read(self, options: Any) -> Rows:
        """All rows.

        Raises:
            BmcliError: The file is missing, empty, damaged or of another format; with file and line.
        """


@dataclass(frozen=True)
class _Paths(Checked):
    """One file, or a file for each split."""

    def check(self, value: Any) -> str | Mapping[str, str]:
        if isinstance(value, str) and value:
            return value
        if not isinstance(value, Mapping) or not value:
            raise fault("path", f"expected a path or a mapping from split to path, received {written(value)}.")
        for split, path in value.items():
            if split not in SPLITS:
                raise fault("path", f"no split {written(split)}.", parts.did_you_mean(str(split), SPLITS))
            if not isinstance(path, str) or not path:
                raise fault("path", f"expected a path for {split}, received {written(path)}.")
        return dict(value)

    def json_schema(self) -> dict[str, Any]:
        each = {split: {"type": "string"} for split in SPLITS}
        return {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": each, "additionalProperties": False, "minProperties": 1},
            ]
        }


FilePaths = Annotated[str | Mapping[str, str], _Paths()]
"""A path, or a mapping from split to path: `{train: train.csv, test: test.csv}`."""


def by_split(path: str | Mapping[str, str]) -> tuple[tuple[str | None, Path], ...]:
    """The files of a `FilePaths` with their splits, in the order of the splits."""
    if isinstance(path, str):
        return ((None, Path(path)),)
    return tuple((split, Path(path[split])) for split in SPLITS if split in path)


def located(places: Sequence[tuple[_Place, int]], row: int) -> tuple[_Place, int]:
    """The file that a row of several files in turn is in, and its row there.

    Args:
        places: Files, or whatever stands for them, with their numbers of rows.
    """
    for place, length in places:
        if row < length:
            return place, row
        row -= length
    raise IndexError(row)


def split_names(lengths: Mapping[str | None, int]) -> np.ndarray | None:
    """The split of every row from the rows of each file, None for a single file without a split."""
    import numpy as np

    if None in lengths:
        return None
    return np.repeat(np.array(list(lengths), dtype=str), list(lengths.values()))
