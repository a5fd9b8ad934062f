"""Files that encode raw cells for the network of an artefact: the folder `encoder`, with a module for each kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from bmcli import disk, encoder
from bmcli import inputs as input_kinds
from bmcli.specs import Column

PACKAGE = Path(encoder.__file__).parent
_COMMON = ("__init__.py", "_cells.py")  # no kind begins with an underscore


def write_files(columns: Iterable[Column], folder: Path) -> Path:
    """Write the folder with the modules that the columns need into another one; returns its `__init__.py`."""
    target = folder / PACKAGE.name
    target.mkdir(exist_ok=True)
    for name in _COMMON:
        disk.write_atomically(target / name, (PACKAGE / name).read_bytes())
    for kind, file in _find_files(columns).items():
        disk.write_atomically(target / f"{kind}.py", file.read_bytes())
    return target / "__init__.py"


def load_encoder(columns: Iterable[Column]) -> ModuleType:
    """Load the encoder of this package with those of the plug-ins; code in an artefact is never run."""
    for kind, file in _find_files(columns).items():
        if file.parent != PACKAGE:
            encoder.add_encoder(kind, file)
    return encoder


def _find_files(columns: Iterable[Column]) -> Mapping[str, Path]:
    """Find the file of each kind that brings one."""
    files = {column.kind: input_kinds.get_traits(column).encoder_file for column in columns}
    return {kind: file for kind, file in files.items() if file is not None}
