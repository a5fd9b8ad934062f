"""Checks of `.keras` files and weights from untrusted sources, before Keras reads them.

Keras' safe mode refuses code, but builds and allocates everything that a file describes. Here the directory of the
archive, the configuration and the layout of the weights are checked first, on a private copy, so that the file cannot
be exchanged between the check and the load.
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
from collections.abc import Collection, Iterator, Mapping
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
"""Largest config.json: a vocabulary of a million words fits, and parsing it takes a few hundred megabytes at most."""
MAX_CONFIG_VALUES = 2_000_000
"""Largest number of values in config.json: each takes about 60 bytes of memory, and as few as two in the file."""
MAX_DEPTH = 200
"""Deepest nesting of values in config.json: a network inside of a network has about 20 levels."""
MAX_MEMBERS = 1_000
"""Largest number of members of the archive: Keras writes three files, and one for each vocabulary."""
MAX_UNPACK_RATIO = 16
"""Largest ratio of unpacked to packed size: Keras does not compress, and compressing weights that are mostly zeros
saves less."""
MAX_WEIGHTS = 100_000
"""Largest number of groups and arrays among the weights: the largest networks of Keras have a few thousand."""

_DIRECTORY_BYTES = 2**20  # the directory of MAX_MEMBERS members takes 0.1 MB
_MIN_UNPACKED_BYTES = 2**20  # to which a file of any size may unpack
_MEMBER = re.compile(r"config\.json|metadata\.json|model\.weights\.h5|assets(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}){1,16}")
_PLAIN_NUMBERS = re.compile(r"bool|string|(bfloat|float|u?int)\d{1,2}")
_CHUNK = 2**20

# Layers that run code or graphs of the file.
_CODE_LAYERS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"}
# Layers that read a file of this machine if their vocabulary is a path.
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
    """A `.keras` file whose directory and configuration can be read safely.

    Args:
        path: The original file, for messages.
        private_copy: A private copy of it, named `*.keras`.
        config: Content of config.json, which describes the model; its classes are not checked yet.
        digest: SHA-256 of the file.
    """

    path: Path
    private_copy: Path
    config: Mapping[str, Any]
    digest: str

    def require_known_classes(self) -> None:
        """Refuse all classes but the layers of Keras that run no code of the file, and those of bmcli and plug-ins.

        Raises:
            BmcliError: The file needs another class, which is named.
        """
        layers.register()
        added = layers.list_added()
        # Models are loaded with `compile=False`, and Keras then ignores this part.
        described = {name: value for name, value in self.config.items() if name != "compile_config"}
        if described.get("class_name") not in ("Functional", "Sequential"):
            raise refusal_error(
                self.path, f"it describes {str(described.get('class_name'))[:80]!r}, which is not a model of layers"
            )
        for each in _iterate_objects(described):
            if reason := _find_class_problem(each, added):
                raise refusal_error(self.path, reason)

    @contextlib.contextmanager
    def weights(self) -> Iterator[Path]:
        """Unpack the weights to a private file, `*.weights.h5`, for the time of the context.

        Raises:
            BmcliError: The weights are not in the format that Keras writes.
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
                raise refusal_error(self.path, f"its weights {error}") from None
            yield Path(unpacked.name)


def refusal_error(path: Path, reason: str, suggestion: str = "") -> BmcliError:
    """Make the error of a model file that is not loaded."""
    return BmcliError(f"{disk.format_path(path)}: refused, {reason}.", suggestion=suggestion)


@contextlib.contextmanager
def open_keras_file(path: Path, digest: str | None = None) -> Iterator[KerasFile]:
    """Copy and check a `.keras` file, before anything is unpacked or built.

    Args:
        digest: SHA-256 that its bytes must have.

    Raises:
        BmcliError: The file is missing, damaged, larger than the free memory, or not in the format that Keras writes.
    """
    shown_path = disk.format_path(path)
    with tempfile.NamedTemporaryFile(suffix=".keras") as copy:
        actual_digest = _copy_file(path, copy)
        if digest is not None and actual_digest != digest:
            raise BmcliError(
                f"{shown_path} has changed since it was chosen: its SHA-256 is another.",
                suggestion="Restore it, or choose it again.",
            )
        try:
            # The directory is read and checked through a reader with a limit; only then the file itself is opened.
            with zipfile.ZipFile(_BoundedReader(copy)) as archive:
                _check_archive(archive, Path(copy.name).stat().st_size)
            with zipfile.ZipFile(copy.name) as archive:
                config = _parse_config(archive.read("config.json"))
        except disk.DamagedFile as error:
            raise refusal_error(path, str(error)) from None
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
            raise BmcliError(f"{shown_path}: damaged, not a Keras archive ({_first_line(error)}).") from None
        except Exception as error:  # the decompressor has error classes that are not public
            raise BmcliError(f"{shown_path}: damaged, cannot be unpacked ({_first_line(error)}).") from None
        yield KerasFile(path, Path(copy.name), config, actual_digest)


def count_weights(path: Path) -> int:
    """Count the arrays of layers in a file of weights, which must have been checked."""
    arrays: list[str] = []

    def collect(name: str, item: Any) -> None:
        arrays.extend([name] if isinstance(item, h5py.Dataset) else [])

    with h5py.File(path, "r") as file:
        if "layers" in file:
            file["layers"].visititems(collect)
    return len(arrays)


def check_weights(path: Path) -> None:
    """Check the structure of an HDF5 file of weights, without reading the arrays.

    Raises:
        ValueError: The file is damaged, refers to other files, or claims more bytes than it has. The text is a
            predicate to the subject "its weights".
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
    """Copy a file into another one; returns its SHA-256."""
    hashed = hashlib.sha256()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device might never end
            kind = "a folder" if path.is_dir() else "not a regular file"
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
            f"{disk.format_path(path)}: no such file.", suggestion="See the status of the run: it kept no model."
        ) from None
    except OSError as error:
        raise BmcliError(f"{disk.format_path(path)}: cannot be read ({error.strerror or error}).") from None
    return hashed.hexdigest()


class _BoundedReader:
    """A file with a limit to the size of a read: `zipfile` reads the whole directory, of the size in the archive."""

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
    """Refuse an archive whose members are not those that Keras writes, or too large; raises `disk.DamagedFile`."""
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
    """Describe why Keras cannot have written a member, by a predicate; an empty text if it can."""
    if not _MEMBER.fullmatch(member.filename):  # also absolute paths, and paths with ..
        return "does not belong to a Keras model"
    if names.count(member.filename) > 1:  # which of them is read may differ between readers
        return "occurs twice"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is not a regular file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by another method than deflate"
    return ""


def _parse_config(content: bytes) -> dict[str, Any]:
    # Counted before parsing, which is what takes the memory.
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if values > MAX_CONFIG_VALUES:
        raise disk.DamagedFile(f"its config.json holds about {values:,} values, more than {MAX_CONFIG_VALUES:,}")
    try:
        config = json.loads(content.decode("utf-8"))  # accepts Infinity, which Keras writes although it is not JSON
    except RecursionError:
        raise disk.DamagedFile("its config.json is nested too deeply") from None
    except ValueError as error:
        raise disk.DamagedFile(f"its config.json is not JSON ({_first_line(error)})") from None
    if not isinstance(config, dict):
        raise disk.DamagedFile("its config.json is not a JSON object")
    # Level by level and not by recursion, which a deep nesting would exhaust here and in Keras.
    level: list[Any] = [config]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
    if level:
        raise disk.DamagedFile(f"its config.json is nested more than {MAX_DEPTH} deep")
    return config


def _iterate_objects(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every object that a configuration describes."""
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        inner = value.values() if isinstance(value, dict) else value
        pending += [each for each in inner if isinstance(each, (dict, list))]
        if isinstance(value, dict) and "class_name" in value:
            yield value


def _find_class_problem(described: Mapping[str, Any], added: Collection[type]) -> str:
    """Describe why an object of a configuration must not be built; an empty text if it may.

    Args:
        added: The layers of plug-ins.
    """
    name, module = described["class_name"], described.get("module")
    registered, config = described.get("registered_name"), described.get("config")
    if not isinstance(name, str) or not isinstance(registered, (str, type(None))):
        return "a class in its config.json has no name"
    if name in _VALUE_CLASSES:
        # Keras passes it on to NumPy or TensorFlow, which know other types too, such as objects.
        dtype = config.get("dtype", "float32") if isinstance(config, dict) else "float32"
        is_plain = isinstance(dtype, (str, dict)) and (isinstance(dtype, dict) or _PLAIN_NUMBERS.fullmatch(dtype))
        return "" if is_plain else f"it contains values of the dtype {str(dtype)[:40]!r}"
    required = f"it requires {str(module)[:80]}.{name[:80]}"
    if name == "function":
        return "" if _is_activation(config, module, registered) else f"it requires the function {str(config)[:80]!r}"
    if registered is not None and registered.startswith("bmcli>"):
        return "" if _is_own(registered, name) else f"{required}, which bmcli does not have"
    if registered is not None and _is_added(registered, name, added):
        return ""
    if registered not in (None, name):
        return f"{required}, registered as {registered[:80]!r}, which bmcli does not know"
    if not isinstance(module, str) or not _is_of_keras(module, name):
        return f"{required}, which is not one of the layers of Keras or bmcli that may be loaded from files"
    if name in _FILE_READING_LAYERS and any(
        isinstance((config or {}).get(key), str) for key in ("vocabulary", "idf_weights")
    ):
        return f"its layer {name} would read a file that the model names"
    return ""


def _is_activation(name: Any, module: Any, registered: Any) -> bool:
    is_member = isinstance(name, str) and callable(getattr(keras.activations, name, None))
    is_from_keras = module in ("builtins", "keras.activations") and registered in (None, name)
    # These members of the module are not activations: they make objects from a description.
    return is_member and is_from_keras and name not in ("get", "serialize", "deserialize")


def _is_own(registered: str, name: str) -> bool:
    member = keras.saving.get_registered_object(registered)
    return isinstance(member, type) and member.__name__ == name and member.__module__.startswith("bmcli.layers.")


def _is_added(registered: str, name: str, added: Collection[type]) -> bool:
    member = keras.saving.get_registered_object(registered)
    return isinstance(member, type) and member in added and member.__name__ == name


def _is_of_keras(module: str, name: str) -> bool:
    if name in _ALLOWED_CLASSES.get(module, ()):
        return True
    if module.startswith("keras.src.ops."):
        # Operations on tensors in a functional model are saved by their private module; one that was only imported
        # there is refused, and so is a module that Keras has not imported itself.
        member = getattr(sys.modules.get(module), name, None)
        return isinstance(member, type) and issubclass(member, keras.Operation) and member.__module__ == module
    family = module.removeprefix("keras.")
    member = getattr(getattr(keras, family), name, None) if family in _FAMILIES and module != family else None
    return isinstance(member, type) and member.__name__ not in _CODE_LAYERS


def _count_claimed_bytes(file: h5py.File) -> int:
    """Count the bytes that an HDF5 file claims for its arrays; raises ValueError for what Keras never writes."""
    seen, pending, total = {_address(file)}, [file], 0
    while pending:
        group = pending.pop()
        for name in group:
            # Soft and external links may lead to other files.
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"point elsewhere, by the link {name[:80]!r}")
            item = group[name]
            if _address(item) in seen:  # a cycle of groups would never end, and an array could be loaded many times
                raise ValueError(f"contain {name[:80]!r} twice")
            seen.add(_address(item))
            if len(seen) > MAX_WEIGHTS:
                raise ValueError(f"are more than {MAX_WEIGHTS:,} arrays")
            if isinstance(item, h5py.Dataset):
                total += _count_array_bytes(item)
            elif isinstance(item, h5py.Group):
                pending.append(item)
            else:
                raise ValueError(f"contain {name[:80]!r}, which is not an array")
    return total


def _address(item: h5py.HLObject) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _count_array_bytes(array: h5py.Dataset) -> int:
    """Count the bytes of an array, which must be stored in the file itself and without compression."""
    name = str(array.name)[-80:]
    if array.is_virtual or array.external:
        raise ValueError(f"read {name!r} from another file")
    if array.id.get_create_plist().get_nfilters():  # compressed data may be far larger than the file
        raise ValueError(f"compress {name!r}, which Keras never does")
    if array.dtype.kind not in "biufV" or array.dtype.names is not None:  # V: bfloat16, which HDF5 does not have
        raise ValueError(f"contain {name!r} of the type {array.dtype}")
    return int(array.dtype.itemsize * (array.size or 0))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
