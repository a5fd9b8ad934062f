"""Where the folder of a run is; what is in it is known to `runs` alone, except for the name of its resolved recipe."""

from __future__ import annotations

import os
from pathlib import Path

from bmcli.disk import format_path
from bmcli.errors import BmcliError

LOCK = "recipe.lock.yaml"


def get_default_root() -> Path:
    """The folder of all runs, unless a command names another."""
    return Path(os.environ.get("BMCLI_RUNS", "runs"))


def find_folder(root: Path, target: str) -> Path | None:
    """Find the directory of a run by path or name, without checking its content; None if there is none."""
    for folder in (Path(target), Path(target) / "latest", root / target, root / target / "latest"):
        if is_run(folder):
            return folder
    return None


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run; also without its lock, so that the missing lock is reported."""

    def holds(name: str) -> bool:
        return os.path.lexists(folder / name)  # pathlib raises for names that the system refuses

    return holds(LOCK) or (holds("recipe.yaml") and holds("data.json"))


def resolve_latest(folder: Path) -> Path:
    """Resolve a folder that is a link, such as `latest`.

    Raises:
        BmcliError: It is a `latest` whose target is not a folder beside it.
    """
    if folder.name == "latest" and folder.is_symlink():
        target = os.readlink(folder)
        beside = folder.parent / target
        if target != Path(target).name or target == ".." or beside.is_symlink():
            raise BmcliError(
                f"{format_path(folder)}: a link to {target}, expected a run beside it.",
                suggestion="Remove the link, or name the run's directory.",
            )
    return folder.resolve()
