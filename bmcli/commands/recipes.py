"""`bmcli ls` and `bmcli cp`: list and copy the built-in recipes."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from bmcli import disk, parts
from bmcli.errors import BmcliError
from bmcli.recipe.load import list_built_in


@dataclass(frozen=True)
class BuiltInRecipe:
    """A recipe that comes with bmcli.

    Args:
        headline: The first sentence of its description.
    """

    name: str
    folder: str
    headline: str


def describe_built_in() -> list[BuiltInRecipe]:
    """Describe every built-in recipe, folder by folder."""
    return [BuiltInRecipe(name, file.parent.name, _read_headline(file)) for name, file in list_built_in().items()]


# Up to a point before another sentence, which that of "et al. 2018" is not.
_FIRST_SENTENCE = re.compile(r".*?\.(?= [A-Z`]|$)")


def _read_headline(file: Path) -> str:
    """Read the first sentence of the opening comment, below the line with the command."""
    lines = file.read_text(encoding="utf-8").splitlines()
    opening = [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    text = " ".join(opening[1:])
    found = _FIRST_SENTENCE.match(text)
    return found[0] if found else text


def copy_built_in(name: str, destination: Path) -> list[Path]:
    """Copy a recipe, and the files that it reads, to a file or into a folder; nothing is overwritten."""
    recipes = list_built_in()
    if name not in recipes:
        raise BmcliError(f"no built-in recipe '{name}'.", suggestion=parts.did_you_mean(name, recipes))
    source = recipes[name]
    target = destination / source.name if destination.is_dir() else destination
    pairs = [
        (source, target),
        *((file, target.parent / file.relative_to(source.parent)) for file in _find_companions(source)),
    ]
    for original, copy in pairs:
        # Equal companions may be left from another recipe of the same folder.
        if copy.exists() and (original == source or copy.read_bytes() != original.read_bytes()):
            # The recipe names its companions, so that only another folder helps there.
            another = "file" if original == source else "folder"
            raise BmcliError(f"{copy} exists already.", suggestion=f"Name another {another} as DESTINATION.")
    for original, copy in pairs:
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            disk.write_new(copy, original.read_bytes())
    return [copy for _, copy in pairs]


def _find_companions(source: Path) -> list[Path]:
    """Find files in the folder of a recipe that its text mentions by their relative path."""
    text = source.read_text(encoding="utf-8")
    files = (path for path in source.parent.rglob("*") if path.is_file() and path.suffix != ".yaml")
    return sorted(path for path in files if str(path.relative_to(source.parent)) in text)
