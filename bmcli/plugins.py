"""Parts that are not built in: those of installed packages, and those of files that the user names.

A package announces its parts as entry points of the group `bmcli.parts`, such as
`"models.perceiver" = "my_package.perceiver"`: room and kind, and the module or object that is the part. A file given by
`bmcli --plugin FILE.py` has a mapping `PARTS` from the same names to its parts. A recipe alone never loads code.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bmcli.errors import BmcliError
from bmcli.quoting import quoted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "bmcli.parts"
FILES_VARIABLE = "BMCLI_PLUGINS"
"""Environment variable with the files of `--plugin` as a JSON list; processes that a command starts inherit it."""

ROOMS = (
    *("augmentations", "compression.methods", "data.sources", "data.targets", "distillation.losses"),
    *("export.formats", "inputs", "layers", "models", "objectives", "tokens"),
)


_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "data.targets": (
        *("Options.list_read_columns", "OBJECTIVE", "ONE_CLASS", "State", "guess", "fit", "check", "encode", "decode"),
        *("index_classes", "count_classes"),
    ),
    "inputs": (
        *("Options.can_be_crossed", "guess", "fit", "check", "encode", "build_encoder", "build_feature", "get_traits"),
    ),
    "models": ("convolves", "forms", "build"),
    "objectives": (
        *("Options.decides", "TARGETS", "REQUEST", "FORM", "METRICS", "make_answers", "build_head"),
        *("build", "convert_teacher", "invert_predictions"),
    ),
    "tokens": ("LOWERCASE", "State", "fit", "from_state"),
}
"""Attributes that a part of a room must have."""

_LONGEST_PATH = 400


class Plugin(NamedTuple):
    """Origin of a part that is not built in.

    Args:
        part: Room and kind, such as `models.perceiver`.
        source: Name of the installed distribution, or the absolute path of a file.
        version: Of the distribution; empty for a file.
        sha256: Of the Python files of the distribution's package, or of the file.
    """

    part: str
    source: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.source} {self.version}".strip()


def add_files(files: tuple[Path, ...]) -> None:
    """Use the parts of some files, in this process and in those that it starts.

    Raises:
        BmcliError: A file does not exist.
    """
    for file in files:
        if not file.is_file():
            raise BmcliError(f"{file}: no such file.", suggestion="Give --plugin the Python file of a plug-in.")
    if files:
        os.environ[FILES_VARIABLE] = json.dumps([str(file.absolute()) for file in files])
        _list_parts.cache_clear()


def list_plugin_files() -> list[str]:
    """List the files of `--plugin`."""
    value = os.environ.get(FILES_VARIABLE, "[]")
    try:
        return list(map(str, json.loads(value)))
    except (ValueError, TypeError):
        raise BmcliError(
            f"{FILES_VARIABLE}: expected a JSON list of files, received {quoted(value)}.",
            suggestion="Unset it, and use --plugin.",
        ) from None


class _Announcement(NamedTuple):
    """A part that was announced and perhaps not loaded yet.

    Args:
        list_files: Lists the Python files that it is made of.
    """

    source: str
    version: str
    load: Callable[[], Any]
    list_files: Callable[[], Sequence[Path]]


def list_kinds(room: str) -> tuple[str, ...]:
    """List the kinds that plug-ins add to a room.

    Raises:
        BmcliError: A name is that of a built-in part, is not a room and a kind, or is announced twice.
    """
    return tuple(name.removeprefix(f"{room}.") for name in _list_parts() if name.rpartition(".")[0] == room)


def list_plugins() -> tuple[Plugin, ...]:
    """Describe all parts of plug-ins without loading those of packages; errors as for `list_kinds`."""
    return tuple(map(describe, _list_parts()))


def map_options() -> dict[type, Plugin]:
    """Load all parts of plug-ins that recipes choose: their origins by the classes of their options.

    Raises:
        BmcliError: One cannot be loaded.
    """
    return {load_part(name).Options: describe(name) for name in _list_parts() if _has_options(name)}


def describe(name: str) -> Plugin:
    """Describe the origin of a part; KeyError if no plug-in has it."""
    part = _list_parts()[name]
    return Plugin(name, part.source, part.version, _hash_files(part.list_files()))


@cache
def load_part(name: str) -> Any:
    """Load a part of a plug-in.

    Raises:
        KeyError: No plug-in has it.
        BmcliError: It cannot be imported.
    """
    announced = _list_parts()[name]
    advice = f"Repair or remove {quoted(announced.source, _LONGEST_PATH)}."
    try:
        part = announced.load()
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        reason = f"cannot be loaded: {type(error).__name__}: {error}"
        raise BmcliError(f"plug-in {quoted(name)} {reason}", suggestion=advice) from error
    if problem := _find_part_problem(name, part):
        raise BmcliError(f"plug-in {quoted(name)} {problem}.", suggestion=advice)
    return part


def _find_part_problem(name: str, part: Any) -> str:
    """Name what every part of a room has, and this one lacks; an empty text if it lacks nothing."""
    if not _has_options(name):
        return "" if callable(getattr(part, "list_layers", None)) else "has no function list_layers"
    if not hasattr(getattr(part, "Options", None), "model_validate"):
        return "has no Options, a class derived from bmcli.recipe.fields.Kind"
    room = name.rpartition(".")[0]
    required = list(_REQUIRED.get(room, ()))
    if room == "objectives" and _has(part, "TARGETS"):
        required.append("describe" if part.TARGETS else "describe_inputs")
    missing = [each for each in required if not _has(part, each)]
    return f"lacks {', '.join(missing)}" if missing else ""


def _has_options(name: str) -> bool:
    """Whether a recipe can choose a part; files of networks name layers instead."""
    return not name.startswith("layers.")


def _has(part: Any, path: str) -> bool:
    try:
        attrgetter(path)(part)
    except AttributeError:
        return False
    return True


@cache
def _list_parts() -> Mapping[str, _Announcement]:
    found: dict[str, _Announcement] = {}
    for point in _list_entry_points():
        name, version = (point.dist.name, point.dist.version) if point.dist else (point.module, "")
        _announce(found, point.name, _Announcement(name, version, point.load, partial(_list_package, point.module)))
    for file in map(Path, list_plugin_files()):
        for name, part in _load_file(file).items():
            _announce(found, name, _Announcement(str(file), "", partial(_identity, part), partial(_list_one, file)))
    return dict(sorted(found.items()))


def _list_entry_points() -> Sequence[EntryPoint]:
    """List the entry points of all installed packages in the order of their names."""
    # importlib.metadata parses the metadata of every package, which takes longer than to check a recipe. Most
    # installations have no plug-in, and a search for the name of the group shows it.
    if not any(GROUP.encode() in content for content in _read_entry_point_files()):
        return []
    from importlib.metadata import entry_points

    return sorted(entry_points(group=GROUP), key=lambda point: point.dist.name if point.dist else point.module)


def _read_entry_point_files() -> Iterator[bytes]:
    for folder in filter(os.path.isdir, sys.path):
        with contextlib.suppress(PermissionError):  # Python cannot import from such a folder either
            for name in os.listdir(folder):
                if name.endswith((".dist-info", ".egg-info")):
                    # Texts instead of paths, whose construction takes longer than to read the files.
                    with (
                        contextlib.suppress(FileNotFoundError, NotADirectoryError),
                        open(f"{folder}/{name}/entry_points.txt", "rb") as file,
                    ):
                        yield file.read()


def _identity(part: Any) -> Any:
    return part


def _list_one(file: Path) -> Sequence[Path]:
    return [file]


def _announce(found: dict[str, _Announcement], name: str, part: _Announcement) -> None:
    room, _, kind = name.rpartition(".")
    if room not in ROOMS or not kind.isidentifier():
        raise BmcliError(
            f"plug-in {quoted(part.source, _LONGEST_PATH)}: {quoted(name)} is not a part.",
            suggestion=f"Name it ROOM.KIND, where ROOM is one of {', '.join(ROOMS)}.",
        )
    if Path(__file__).parent.joinpath(*room.split("."), kind).with_suffix(".py").exists():
        raise BmcliError(
            f"plug-in {quoted(part.source, _LONGEST_PATH)}: {quoted(name)} is a built-in part.",
            suggestion="Give it another name.",
        )
    if name in found:
        raise BmcliError(
            f"two plug-ins have a part {quoted(name)}: {quoted(found[name].source, _LONGEST_PATH)} and "
            f"{quoted(part.source, _LONGEST_PATH)}.",
            suggestion="Remove one of them.",
        )
    found[name] = part


def _load_file(file: Path) -> Mapping[str, Any]:
    """Run a file of `--plugin` and return its parts."""
    import hashlib  # not at the top: OpenSSL takes 3 ms of every start

    module_name = f"bmcli_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise BmcliError(f"{file}: not a Python file.", suggestion="A plug-in's name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pydantic look up the module of a class
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise BmcliError(f"{file}: cannot be loaded: {type(error).__name__}: {error}") from error
    parts = getattr(module, "PARTS", None)
    if not isinstance(parts, Mapping) or not parts or not all(isinstance(name, str) for name in parts):
        raise BmcliError(
            f"{file}: has no parts.", suggestion='Define PARTS, such as PARTS = {"models.perceiver": Perceiver()}.'
        )
    return parts


def _list_package(module: str) -> Sequence[Path]:
    """List the Python files of the package that a module is in, without importing it."""
    top = importlib.util.find_spec(module.partition(".")[0])
    if top is None or top.origin is None:
        return []
    origin = Path(top.origin)
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _hash_files(files: Sequence[Path]) -> str:
    import hashlib  # as above

    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        # Name and length before each content, so that moving code between files changes the digest.
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
