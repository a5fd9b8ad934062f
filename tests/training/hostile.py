"""Models from untrusted sources: `.keras` files that attack whoever loads them, and the results of loading each.

    python -m tests.training.hostile FOLDER

writes FOLDER/found.json: for each attack the fault, its exit code, and by how many bytes the process grew.
"""

from __future__ import annotations

import copy
import json
import marshal
import os
import resource
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

WEIGHTS = "model.weights.h5"
Config = dict[str, Any]
Write = Callable[[Path, Path, Path], None]
"""Writes an attack, from an honest file and a marker that must not appear."""

_MARKER = "MARKER"  # stands for the marker's path in configurations


def _members(honest: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(honest) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _configured(change: Callable[[Config], None]) -> Write:
    """An attack by the configuration."""

    def write(path: Path, honest: Path, marker: Path) -> None:
        members = _members(honest)
        config = json.loads(members["config.json"])
        change(config)
        text = json.dumps(config).replace(_MARKER, str(marker))
        _write(path, {**members, "config.json": text.encode()})

    return write


def _dense(config: Config) -> Config:
    found: Config = next(each for each in config["config"]["layers"] if each["class_name"] == "Dense")
    return found


def _replaced(module: str, name: str, options: Config, registered: str | None = None) -> Callable[[Config], None]:
    """Replace the dense layer by another."""

    def change(config: Config) -> None:
        layer = _dense(config)
        kept = {"name": layer["config"]["name"], "trainable": True, "dtype": "float32"}
        layer.update(module=module, class_name=name, config={**kept, **options}, registered_name=registered)

    return change


def _activated(activation: Any) -> Callable[[Config], None]:
    return lambda config: _dense(config)["config"].update(activation=activation)


def _function(module: str, name: str) -> Config:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def _lambda() -> Config:
    import base64

    code = compile(f"open({_MARKER!r}, 'w')", "lambda", "eval")
    value = [base64.b64encode(marshal.dumps(code)).decode(), None, None]
    return {"function": {"class_name": "__lambda__", "config": {"value": value}}}


def _units(count: int) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        layer = _dense(config)
        layer["config"]["units"] = count
        layer["build_config"] = {"input_shape": [None, 4]}

    return change


def _configured_raw(content: bytes) -> Write:
    return lambda path, honest, _: _write(path, {**_members(honest), "config.json": content})


def _weighted(change: Callable[[h5py.File, Path], None]) -> Write:
    """An attack by the file of weights, in which the dense layer's kernel is `layers/dense/vars/0`."""

    def write(path: Path, honest: Path, marker: Path) -> None:
        members = _members(honest)
        aside = path.with_suffix(".h5")
        aside.write_bytes(members[WEIGHTS])
        secret = path.with_suffix(".secret")
        with h5py.File(secret, "w") as file:
            file["kernel"] = np.ones((4, 3), "float32")
        with h5py.File(aside, "r+") as file:
            del file["layers/dense/vars/0"]
            change(file, secret)
        _write(path, {**members, WEIGHTS: aside.read_bytes()})

    return write


KERNEL = "layers/dense/vars/0"


def _external_link(file: h5py.File, secret: Path) -> None:
    file[KERNEL] = h5py.ExternalLink(str(secret), "/kernel")


def _soft_link(file: h5py.File, secret: Path) -> None:
    file[KERNEL] = h5py.SoftLink("/layers/dense/vars/1")


def _outside(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KERNEL, (4, 3), "float32", external=[(str(secret), 0, 48)])


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 3), "float32")
    layout[:] = h5py.VirtualSource(str(secret), "kernel", (4, 3))
    file.create_virtual_dataset(KERNEL, layout)


def _shape_bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KERNEL, (2**20, 2**20), "float32")


def _packed_bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KERNEL, (4, 3), "float32", compression="gzip")


def _texts(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KERNEL, (4, 3), h5py.string_dtype())


def _circle(file: h5py.File, secret: Path) -> None:
    file["layers/dense/vars/0"] = file["layers"]


def _with_members(*more: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> Write:
    def write(path: Path, honest: Path, marker: Path) -> None:
        with zipfile.ZipFile(path, "w", how) as archive:
            for name, content in (*_members(honest).items(), *more):
                archive.writestr(name, content)

    return write


def _symlink(path: Path, honest: Path, marker: Path) -> None:
    _with_members()(path, honest, marker)
    link = zipfile.ZipInfo("assets/vocabulary.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")


def _encrypted(path: Path, honest: Path, marker: Path) -> None:
    _with_members()(path, honest, marker)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def _bomb(path: Path, honest: Path, marker: Path) -> None:
    # 60 MB of zeros in 60 kB, in the proportion of 12 GB in 12 MB.
    _write(path, {**_members(honest), WEIGHTS: bytes(60 * 2**20)}, zipfile.ZIP_DEFLATED)


def _folder(path: Path, honest: Path, marker: Path) -> None:
    path.mkdir()
    for name, content in _members(honest).items():
        (path / name).write_bytes(content)


def _hdf5(path: Path, honest: Path, marker: Path) -> None:
    path.write_bytes(_members(honest)[WEIGHTS])


def _pipe(path: Path, honest: Path, marker: Path) -> None:
    os.mkfifo(path)


def _torn(path: Path, honest: Path, marker: Path) -> None:
    path.write_bytes(honest.read_bytes()[:-200])


def _nested_compiled(config: Config) -> None:
    _dense(config)["compile_config"] = {
        "optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {}, "registered_name": None}
    }


ATTACKS: dict[str, Write] = {
    "lambda": _configured(_replaced("keras.layers", "Lambda", _lambda())),
    "lambda as activation": _configured(_activated({"class_name": "__lambda__", **{"config": _lambda()["function"]}})),
    "os.system": _configured(_activated(_function("os", "system"))),
    "os.system as a layer": _configured(_replaced("os", "system", {"command": f"touch {_MARKER}"})),
    "builtins.open": _configured(_activated(_function("builtins", "open"))),
    "get_file": _configured(_activated(_function("keras.utils", "get_file"))),
    "unsafe deserialization": _configured(_activated(_function("keras.config", "enable_unsafe_deserialization"))),
    "load_model": _configured(_activated(_function("keras.saving", "load_model"))),
    "TFSMLayer": _configured(_replaced("keras.layers", "TFSMLayer", {"filepath": _MARKER})),
    "TorchModuleWrapper": _configured(_replaced("keras.layers", "TorchModuleWrapper", {"module": "x"})),
    "file editor": _configured(_replaced("keras.src.saving.file_editor", "KerasFileEditor", {"filepath": _MARKER})),
    "an own class": _configured(_replaced("evil.module", "Evil", {}, "evil>Evil")),
    "a layer bmcli lacks": _configured(_replaced("bmcli.layers.evil", "Evil", {}, "bmcli>Evil")),
    "a false name": _configured(_replaced("keras.layers", "Dense", {"units": 3}, "bmcli>NumberEncoder")),
    "no module": _configured(lambda config: _dense(config).pop("module")),
    "a compiled layer": _configured(_nested_compiled),
    "StringLookup of a file": _configured(_replaced("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"})),
    "TextVectorization of a file": _configured(
        _replaced("keras.layers", "TextVectorization", {"vocabulary": "/etc/passwd"})
    ),
    "a wide dtype": _configured(
        _activated({"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S1000000000"}})
    ),
    "no model": _configured(lambda config: config.update(copy.deepcopy(_dense(config)))),
    "8 GB of weights": _configured(_units(2**29)),
    "4 TB of weights": _configured(_units(10**12)),
    "a deep configuration": _configured_raw(b"[" * 100_000 + b"]" * 100_000),
    "a nested configuration": _configured_raw(b'{"a":' * 500 + b"1" + b"}" * 500),
    "a configuration that is no UTF-8": _configured_raw(b'{"class_name": "\xff\xfe"}'),
    "a configuration without a class": _configured_raw(b'{"class_name": NaN}'),
    "a configuration that is a list": _configured_raw(b"[]"),
    "a large configuration": _configured_raw(b" " * (17 * 2**20)),
    "many values": _configured_raw(b"[" + b"[]," * 3_000_000 + b"1]"),
    "an external link": _weighted(_external_link),
    "a soft link": _weighted(_soft_link),
    "an array outside": _weighted(_outside),
    "a virtual array": _weighted(_virtual),
    "a claim of 4 TB": _weighted(_shape_bomb),
    "a packed array": _weighted(_packed_bomb),
    "an array of texts": _weighted(_texts),
    "a circle": _weighted(_circle),
    "weights that are garbage": lambda path, honest, _: _write(path, {**_members(honest), WEIGHTS: b"garbage" * 99}),
    "100,000 members": _with_members(*((f"assets/{number}", b"") for number in range(100_000))),
    "2,000 members": _with_members(*((f"assets/{number}", b"") for number in range(2_000))),
    "an unknown member": _with_members(("evil.py", b"import os")),
    "the same member twice": _with_members(("config.json", b"{}")),
    "a member above": _with_members(("../evil", b"")),
    "an asset above": _with_members(("assets/../../evil", b"")),
    "an absolute member": _with_members(("/tmp/evil", b"")),
    "a symbolic link": _symlink,
    "an encrypted member": _encrypted,
    "another compression": _with_members(how=zipfile.ZIP_BZIP2),
    "a bomb": _bomb,
    "a folder": _folder,
    "HDF5": _hdf5,
    "a pipe": _pipe,
    "a torn file": _torn,
}


def honest_model(path: Path) -> Any:
    """A model that a Keras user made, compiled and saved; returns it."""
    import keras

    numbers = keras.Input((4,), name="numbers")
    hidden = keras.layers.Dense(3, activation="relu", kernel_regularizer="l2", name="dense")(numbers)
    model = keras.Model({"numbers": numbers}, {"label": keras.ops.softmax(hidden * 2.5)})
    model.compile("adam", "mse")
    model.save(path)
    return model


def _loaded(path: Path) -> Iterator[tuple[str, Any]]:
    from bmcli.errors import BmcliError
    from bmcli.networks import network

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        network.load_serving_model(path)
        yield from {"fault": "", "code": 0}.items()
    except BmcliError as error:
        yield from {"fault": str(error), "code": error.exit_code}.items()
    yield "grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> None:
    folder, marker = Path(sys.argv[1]), Path(sys.argv[1]) / "marker"
    import warnings

    warnings.filterwarnings("ignore", category=UserWarning, module="zipfile")  # of members that are there twice
    honest_model(folder / "honest.keras")
    found = {"honest": dict(_loaded(folder / "honest.keras"))}
    resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, 8 * 2**30))
    for number, (name, write) in enumerate(ATTACKS.items()):
        path = folder / f"{number}.keras"
        if os.fork() == 0:  # what making it takes is not counted
            write(path, folder / "honest.keras", marker)
            os._exit(0)
        assert os.wait()[1] == 0, name
        found[name] = {**dict(_loaded(path)), "marker": marker.exists()}
    (folder / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
