"""Files that encode raw cells for the network of an artefact: `encoder.py`, and those of kinds of plug-ins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from bmcli import disk
from bmcli import inputs as input_kinds
from bmcli.export import encoder
from bmcli.specs import Column


def write_files(columns: Iterable[Column], folder: Path) -> Path:
    """Write the files that the columns need into a folder; returns that of `encoder.py`."""
    path = folder / Path(encoder.__file__).name
    disk.write_atomically(path, Path(encoder.__file__).read_bytes())
    for kind, file in _find_files(columns).items():
        disk.write_atomically(folder / f"encoder_{kind}.py", file.read_bytes())
    return path


def load_encoder(columns: Iterable[Column]) -> ModuleType:
    """Load the encoder of this package with those of the plug-ins; code in an artefact is never run."""
    for kind, file in _find_files(columns).items():
        encoder.add_encoder(kind, file)
    return encoder


def _find_files(columns: Iterable[Column]) -> Mapping[str, Path]:
    """Find the file of each kind that brings one."""
    files = {column.kind: input_kinds.get_traits(column).encoder_file for column in columns}
    return {kind: file for kind, file in files.items() if file is not None}
