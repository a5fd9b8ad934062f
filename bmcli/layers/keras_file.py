"""The one door for `.keras` files and weights from anywhere: looked through before Keras reads them.

Keras' safe mode refuses code, but builds and allocates whatever a file asks for. Here the directory of the archive, the
configuration and the layout of the weights are checked first, on a private copy, so that what is loaded is what was
checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import keras

from bmcli import disk, layers
from bmcli.errors import BmcliError
from bmcli.machine import read_available_bytes

WEIGHTS = "model.weights.h5"
MAX_CONFIG_BYTES = 16 * 2**20
"""Of config.json: a vocabulary of a million words fits, and parsing it takes some hundred megabytes at most."""
MAX_CONFIG_VALUES = 2_000_000
"""Values in config.json: each takes some 60 bytes of memory where it took two of the file."""
MAX_DEPTH = 200
"""Of values in values: a network inside of a network takes about 20."""
MAX_MEMBERS = 1_000
"""Of the archive: Keras writes three files, and one for each vocabulary."""
MAX_UNPACK_RATIO = 16
"""Times the file: Keras does not compress, and packing weights that are mostly zeros saves less."""
MAX_WEIGHTS = 100_000
"""Groups and arrays among the weights: the largest networks of Keras have some thousands."""

_DIRECTORY_BYTES = 2**20  # as many members take 0.1 MB
_MIN_UNPACKED_BYTES = 2**20  # what a file may unpack to whatever its size
_MEMBER = re.compile(r"config\.json|metadata\.json|model\.weights\.h5|assets(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}){1,16}")
_PLAIN_NUMBERS = re.compile(r"bool|string|(bfloat|float|u?int)\d{1,2}")
_CHUNK = 2**20

_CODE_LAYERS = {
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "FlaxLayer",
    "JaxLayer",
}  # layers that run what a file brings
_FILE_READING_LAYERS = {"StringLookup", "IntegerLookup", "TextVectorization"}
_VALUE_CLASSES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
_ALLOWED_CLASSES = {
    "keras": {"Sequential", "DTypePolicy", "FloatDTypePolicy"},
    "keras.models": {"Sequential"},
    "keras.src.models.functional": {"Functional"},
    "keras.random": {"SeedGenerator"},
}
_FAMILIES = ("layers", "initializers", "regularizers", "constraints", "dtype_policies", "quantizers")


@dataclass(frozen=True)
class KerasFile:
    """A `.keras` file whose directory and configuration can be read without harm.

    Args:
        shown: The file that was opened, as a user knows it.
        private_copy: A private copy of it, named `*.keras`.
        config: What config.json holds: the description of the model, not checked yet.
    """

    shown: Path
    private_copy: Path
    config: Mapping[str, Any]

    def require_known_classes(self) -> None:
        """Refuses everything but Keras' own layers that run no code of the file, and the layers of this package.

        Raises:
            BmcliError: Something else is asked for; it is named.
        """
        layers.register()
        # Keras ignores how a model was compiled, if it is not to be compiled.
        described = {name: value for name, value in self.config.items() if name != "compile_config"}
        if described.get("class_name") not in ("Functional", "Sequential"):
            raise refusal_error(
                self.shown, f"it describes {str(described.get('class_name'))[:80]!r}, and no model of layers"
            )
        for each in _iterate_objects(described):
            if reason := _find_class_problem(each):
                raise refusal_error(self.shown, reason)

    @contextlib.contextmanager
    def weights(self) -> Iterator[Path]:
        """The weights as a private file, `*.weights.h5`, while the context lasts.

        Raises:
            BmcliError: They are not as Keras writes them.
        """
        with tempfile.NamedTemporaryFile(suffix=f".{WEIGHTS}") as unpacked:
            with zipfile.ZipFile(self.private_copy) as archive, archive.open(WEIGHTS) as member:
                needed = archive.getinfo(WEIGHTS).file_size
                with disk.convert_write_errors(Path(unpacked.name), needed):
                    shutil.copyfileobj(member, unpacked, _CHUNK)
                    unpacked.flush()
            try:
                check_weights(Path(unpacked.name))
            except ValueError as error:
                raise refusal_error(self.shown, f"its weights {error}") from None
            yield Path(unpacked.name)


def refusal_error(path: Path, reason: str, suggestion: str = "") -> BmcliError:
    """The fault of a model file that is not loaded."""
    return BmcliError(f"{disk.format_path(path)}: refused, {reason}.", suggestion=suggestion)


@contextlib.contextmanager
def open_keras_file(path: Path, digest: str | None = None) -> Iterator[KerasFile]:
    """Copies a `.keras` file and looks through it, before anything is unpacked or built.

    Args:
        digest: SHA-256 that its bytes must have.

    Raises:
        BmcliError: It is gone, damaged, larger than what is free, or not as Keras writes such files.
    """
    shown = disk.format_path(path)
    with tempfile.NamedTemporaryFile(suffix=".keras") as copy:
        found = _copy_file(path, copy)
        if digest is not None and found != digest:
            raise BmcliError(f"{shown} is not what it was when it was chosen, by its SHA-256.")
        try:
            with zipfile.ZipFile(_BoundedReader(copy)) as archive:
                _check_archive(archive, Path(copy.name).stat().st_size)
            with zipfile.ZipFile(copy.name) as archive:
                config = _parse_config(archive.read("config.json"))
        except disk.DamagedFile as error:
            raise refusal_error(path, str(error)) from None
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
            raise BmcliError(f"{shown}: damaged, not a Keras archive ({_first_line(error)}).") from None
        except Exception as error:  # of the decompressor
            raise BmcliError(f"{shown}: damaged, cannot be unpacked ({_first_line(error)}).") from None
        yield KerasFile(path, Path(copy.name), config)


def count_weights(path: Path) -> int:
    """Arrays of the layers among weights that were checked."""
    found: list[str] = []

    def count(name: str, item: Any) -> None:
        found.extend([name] if isinstance(item, h5py.Dataset) else [])

    with h5py.File(path, "r") as file:
        if "layers" in file:
            file["layers"].visititems(count)
    return len(found)


def check_weights(path: Path) -> None:
    """Looks through an HDF5 file of weights without reading them.

    Raises:
        ValueError: It is none, points elsewhere, or claims more than it holds; the text goes on from `its weights`.
    """
    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            claimed = _count_claimed_bytes(file)
    except (OSError, RuntimeError, KeyError, RecursionError) as error:
        raise ValueError(f"are damaged ({_first_line(error)})") from None
    if claimed > size:
        raise ValueError(f"claim {claimed:,} bytes in a file of {size:,}")


def _copy_file(path: Path, copy: IO[bytes]) -> str:
    """Copies a file into another; its SHA-256."""
    hashed = hashlib.sha256()
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "no regular file"
            raise refusal_error(path, f"it is {kind}", "Save the model as one file, with model.save('model.keras').")
        with path.open("rb") as file:
            start = file.read(8)
            if start == b"\x89HDF\r\n\x1a\n":
                raise refusal_error(path, "it is an HDF5 file (.h5)", "Save the model with model.save('model.keras').")
            file.seek(0)
            while chunk := file.read(_CHUNK):
                hashed.update(chunk)
                copy.write(chunk)
        copy.flush()
    except FileNotFoundError:
        raise BmcliError(
            f"{disk.format_path(path)}: no such file.", suggestion="The run kept no model; see its status."
        ) from None
    except OSError as error:
        raise BmcliError(f"{disk.format_path(path)}: cannot be read ({error.strerror or error}).") from None
    return hashed.hexdigest()


class _BoundedReader:
    """A file whose reads are short: `zipfile` reads a directory at once, as long as the archive says it is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, lambda: None

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(_DIRECTORY_BYTES + 1 if size < 0 else min(size, _DIRECTORY_BYTES + 1))
        if len(content) > _DIRECTORY_BYTES:
            raise disk.DamagedFile(f"its directory is larger than {_DIRECTORY_BYTES:,} bytes")
        return content

    def seekable(self) -> bool:
        return True


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Raises disk.Damaged for an archive whose members are not those that Keras writes, or too large."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise disk.DamagedFile(f"it has {len(members):,} members, more than {MAX_MEMBERS:,}")
    names = [member.filename for member in members]
    for member in members:
        if reason := _find_member_problem(member, names):
            raise disk.DamagedFile(f"its member {member.filename[:100]!r} {reason}")
    for name in ("config.json", WEIGHTS):
        if name not in names:
            raise disk.DamagedFile(f"it has no {name}")
    unpacked, limit = sum(member.file_size for member in members), max(_MIN_UNPACKED_BYTES, MAX_UNPACK_RATIO * size)
    if unpacked > limit:
        raise disk.DamagedFile(f"it unpacks to {unpacked:,} bytes, more than {MAX_UNPACK_RATIO} times its {size:,}")
    if unpacked > read_available_bytes():
        raise disk.DamagedFile(f"it unpacks to {unpacked:,} bytes, and {read_available_bytes():,} are free in memory")
    if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
        raise disk.DamagedFile(f"its config.json is larger than {MAX_CONFIG_BYTES:,} bytes")


def _find_member_problem(member: zipfile.ZipInfo, names: list[str]) -> str:
    """Why a member is none that Keras writes, or an empty text."""
    if not _MEMBER.fullmatch(member.filename):
        return "is none of a Keras model"
    if names.count(member.filename) > 1:
        return "is there twice"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is no regular file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in another way than deflate"
    return ""


def _parse_config(content: bytes) -> dict[str, Any]:
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if values > MAX_CONFIG_VALUES:
        raise disk.DamagedFile(f"its config.json holds about {values:,} values, more than {MAX_CONFIG_VALUES:,}")
    try:
        config = json.loads(content.decode("utf-8"))  # Keras writes Infinity, which JSON does not know, and reads it
    except RecursionError:
        raise disk.DamagedFile("its config.json is nested too deeply") from None
    except ValueError as error:
        raise disk.DamagedFile(f"its config.json is no JSON ({_first_line(error)})") from None
    if not isinstance(config, dict):
        raise disk.DamagedFile("its config.json is no JSON object")
    level: list[Any] = [config]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
    if level:
        raise disk.DamagedFile(f"its config.json is nested more than {MAX_DEPTH} deep")
    return config


def _iterate_objects(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every object that a configuration describes."""
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value
        waiting += [each for each in inner if isinstance(each, (dict, list))]
        if isinstance(value, dict) and "class_name" in value:
            yield value


def _find_class_problem(described: Mapping[str, Any]) -> str:
    """Why an object of a configuration is not built, or an empty text."""
    name, module = described["class_name"], described.get("module")
    registered, config = described.get("registered_name"), described.get("config")
    if not isinstance(name, str) or not isinstance(registered, (str, type(None))):
        return "it names no class where one is described"
    if name in _VALUE_CLASSES:
        dtype = config.get("dtype", "float32") if isinstance(config, dict) else "float32"
        known = isinstance(dtype, (str, dict)) and (isinstance(dtype, dict) or _PLAIN_NUMBERS.fullmatch(dtype))
        return "" if known else f"it holds values of the dtype {str(dtype)[:40]!r}"
    asked = f"it asks for {str(module)[:80]}.{name[:80]}"
    if name == "function":
        return "" if _is_activation(config, module, registered) else f"it asks for the function {str(config)[:80]!r}"
    if registered is not None and registered.startswith("bmcli>"):
        return "" if _is_own(registered, name) else f"{asked}, which bmcli does not have"
    if registered not in (None, name):
        return f"{asked}, registered as {registered[:80]!r}, which bmcli does not know"
    if not isinstance(module, str) or not _is_of_keras(module, name):
        return f"{asked}, which is none of the layers of Keras or bmcli that are loaded from files"
    if name in _FILE_READING_LAYERS and any(
        isinstance((config or {}).get(key), str) for key in ("vocabulary", "idf_weights")
    ):
        return f"its layer {name} would read a file of its own choice"
    return ""


def _is_activation(name: Any, module: Any, registered: Any) -> bool:
    known = isinstance(name, str) and callable(getattr(keras.activations, name, None))
    usual = module in ("builtins", "keras.activations") and registered in (None, name)
    return known and usual and name not in ("get", "serialize", "deserialize")


def _is_own(registered: str, name: str) -> bool:
    found = keras.saving.get_registered_object(registered)
    return isinstance(found, type) and found.__name__ == name and found.__module__.startswith("bmcli.layers.")


def _is_of_keras(module: str, name: str) -> bool:
    if name in _ALLOWED_CLASSES.get(module, ()):
        return True
    if module.startswith("keras.src.ops."):
        found = getattr(sys.modules.get(module), name, None)
        return isinstance(found, type) and issubclass(found, keras.Operation) and found.__module__ == module
    family = module.removeprefix("keras.")
    found = getattr(getattr(keras, family), name, None) if family in _FAMILIES and module != family else None
    return isinstance(found, type) and found.__name__ not in _CODE_LAYERS


def _count_claimed_bytes(file: h5py.File) -> int:
    """Bytes of all arrays of an HDF5 file, as it claims them; raises ValueError for what Keras does not write."""
    seen, waiting, total = {_address(file)}, [file], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"point elsewhere, by the link {name[:80]!r}")
            item = group[name]
            if _address(item) in seen:
                raise ValueError(f"hold {name[:80]!r} twice")
            seen.add(_address(item))
            if len(seen) > MAX_WEIGHTS:
                raise ValueError(f"are more than {MAX_WEIGHTS:,} arrays")
            if isinstance(item, h5py.Dataset):
                total += _count_array_bytes(item)
            elif isinstance(item, h5py.Group):
                waiting.append(item)
            else:
                raise ValueError(f"hold {name[:80]!r}, which is no array")
    return total


def _address(item: h5py.HLObject) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _count_array_bytes(array: h5py.Dataset) -> int:
    """Bytes of an array that lies in its file as it is."""
    name = str(array.name)[-80:]
    if array.is_virtual or array.external:
        raise ValueError(f"take {name!r} from another file")
    if array.id.get_create_plist().get_nfilters():
        raise ValueError(f"pack {name!r}, which Keras does not")
    if array.dtype.kind not in "biufV" or array.dtype.names is not None:
        raise ValueError(f"hold {name!r} of the type {array.dtype}")
    return int(array.dtype.itemsize * (array.size or 0))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
