"""Output that C++ libraries write to the file descriptor of standard error, past `sys.stderr`."""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import IO

_hidden: list[int] = []
"""Copies of the descriptor of standard error while it leads elsewhere, the outermost first."""


@contextlib.contextmanager
def hide_native_stderr() -> Iterator[None]:
    """Hide what C++ libraries write to standard error while they start, unless the body fails.

    TensorFlow writes before it reads its log level, so only the file descriptor itself can be redirected.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _open_aside() as aside:
        try:
            with redirect_native_stderr(aside.fileno()):
                yield
        except Exception:
            aside.seek(0)
            os.write(2, aside.read())
            raise


@contextlib.contextmanager
def drop_native_stderr() -> Iterator[None]:
    """Drop what C++ libraries write to standard error, also if the body fails.

    For remarks on data that is at fault, such as those of the JPEG library on a picture that is cut off: the body
    reports the fault itself, with its row.
    """
    with open(os.devnull, "wb") as nowhere, redirect_native_stderr(nowhere.fileno()):
        yield


@contextlib.contextmanager
def redirect_native_stderr(descriptor: int) -> Iterator[None]:
    """Let C++ libraries write to a file what they write to standard error.

    Args:
        descriptor: Of the open file.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    _hidden.append(kept)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        _hidden.remove(kept)
        os.close(kept)


def _open_aside() -> IO[bytes]:
    """Open a file without a name; where the system has them, one in memory, which needs no writable folder."""
    if sys.platform == "linux":
        return open(os.memfd_create("stderr"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()


def restore_native_stderr() -> None:
    """Let standard error be seen again, for another thread than the one that hides it."""
    for kept in _hidden[:1]:
        os.dup2(kept, 2)


def quiet_import(name: str) -> None:
    """Hide what C++ writes while a module is imported for the first time, whichever code imports it.

    Libraries such as Keras import TensorFlow themselves, so that it is not enough to hide it around our own imports.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.meta_path.insert(0, _QuietFinder(name))


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finder of one module, whose first import is hidden."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    """Loader that hides the output of another one, and then leaves the module to it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        with hide_native_stderr():
            self._loader.exec_module(module)
