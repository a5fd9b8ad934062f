"""Which source reads a file or a folder, judged by names alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bmcli.data import files
from bmcli.data.sources import TABBED, formats
from bmcli.data.splitting.splits import split_of_word
from bmcli.errors import BmcliError
from bmcli.pictures import SUFFIXES
from bmcli.quoting import quoted
from bmcli.specs import SPLITS

_LAST_WORD = re.compile(r"(?:^|[-_. ])([A-Za-z]+)$")


@dataclass(frozen=True)
class Found:
    """A source for some data.

    Args:
        kind: A part of `data.sources`.
        path: A file, a folder, or a file for each split.
        options: What else the source has to be told.
    """

    kind: str
    path: Path | Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """As options of `data.source`, with absolute paths."""
        path = {split: str(each) for split, each in self.path.items()} if isinstance(self.path, Mapping) else self.path
        return {"kind": self.kind, "path": path if isinstance(path, dict) else str(path), **self.options}


def find(data: Path) -> Found:
    """The source of a table, an archive of arrays, or a folder of tables or pictures.

    Raises:
        BmcliError: It is not there, or nothing in it is known.
    """
    try:
        if not files.exists(data):
            raise files.missing(data, "file or folder")
        return _of_folder(data) if data.is_dir() else of_file(data)
    except BmcliError as error:
        raise _plain(error) from None


def of_file(file: Path) -> Found:
    """The source of a table or an archive by its name.

    Raises:
        BmcliError: None reads such files.
    """
    suffix = files.ending(file.name)
    if suffix not in formats():
        ending = f"files ending in {quoted(suffix)}" if suffix else "files without an ending"
        raise BmcliError(f"{files.shown(file)}: no source reads {ending}.", suggestion=_known())
    return Found(formats()[suffix], file, _options([file]))


def _of_folder(folder: Path) -> Found:
    content = [path for path in files.listed(folder) if not path.name.startswith(".")]
    if any("-images-idx3-ubyte" in path.name for path in content):
        return Found("idx", folder)
    if any(files.ending(path.name) in SUFFIXES for path in folder.glob("*/*")) and not _tables(content):
        return Found("image_folder", folder)
    if any(files.ending(path.name) in SUFFIXES for path in folder.glob("*/*/*")) and not _tables(content):
        return Found("image_folder", folder)
    return _of_tables(folder, _tables(content))


def _tables(content: list[Path]) -> list[Path]:
    return [path for path in content if path.is_file() and files.ending(path.name) in formats()]


def _of_tables(folder: Path, tables: list[Path]) -> Found:
    """One table, one for each split, or one in many files."""
    if not tables:
        raise BmcliError(f"{files.shown(folder)}: holds neither tables nor pictures.", suggestion=_known())
    if len(tables) == 1:
        return of_file(tables[0])
    kinds = sorted({formats()[files.ending(path.name)] for path in tables})
    splits = {path: _split(path) for path in tables}
    told = {split: path for split in SPLITS for path, named in splits.items() if named == split}
    if len(kinds) == 1 and "train" in told and len(told) == len(tables):
        return Found(kinds[0], told, _options(tables))
    if len(kinds) == 1 and not told and len({files.ending(path.name) for path in tables}) == 1:
        return Found(kinds[0], folder, _options(tables))
    names = ", ".join(path.name for path in tables[:5]) + (" ..." if len(tables) > 5 else "")
    raise BmcliError(
        f"{files.shown(folder)}: these tables do not belong together by their names: {names}.",
        suggestion="Name one of them, or call them train, validation and test.",
    )


def _split(path: Path) -> str:
    """The split that a file's name ends in, as `mails_train.csv.gz`, or nothing."""
    word = _LAST_WORD.search(path.name.removesuffix(".gz").rpartition(".")[0])
    return split_of_word(word[1]) if word else ""


def _options(tables: list[Path]) -> dict[str, Any]:
    return {"delimiter": "\t"} if all(files.ending(path.name) in TABBED for path in tables) else {}


def _known() -> str:
    return f"Known: {', '.join(formats())}, and folders of them."


def _plain(error: BmcliError) -> BmcliError:
    """The same fault without its place in a recipe, which there is none of yet."""
    return BmcliError(error.faults[0].message, suggestion=error.faults[0].suggestion)
