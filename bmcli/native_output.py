"""Output that C++ libraries write to the file descriptor of standard error, past `sys.stderr`."""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_hidden: list[int] = []
"""Copies of the descriptor of standard error while it leads elsewhere, the outermost first."""


@contextlib.contextmanager
def hide_native_stderr() -> Iterator[None]:
    """Hide what C++ libraries write to standard error while they start, unless the body fails.

    TensorFlow writes before it reads its log level, so only the file descriptor itself can be redirected.
    """
    import tempfile

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    _hidden.append(kept)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(kept, 2)
            aside.seek(0)
            os.write(2, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            _hidden.remove(kept)
            os.close(kept)


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
