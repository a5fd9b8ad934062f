"""What all tests share: a cache of their own, and small recipes that really train."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bmcli import garbage_collection

garbage_collection.reduce_collections()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A shell that starts the tests in the background has SIGINT ignored, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = """\
bmcli: 1
name: tiny
seed: 5
data: {source: {kind: builtin, name: iris}}
model: {kind: mlp, hidden: [8], dropout: 0.2}
train: {epochs: 3, batch_size: 16, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
"""

WriteRecipe = Callable[..., Path]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, shared by all tests of a worker."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache or key, nor does a fixture that several tests share."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BMCLI_CACHE", str(folder / "cache"))
        environment.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    """No test reads or writes the user's cache or runs."""
    monkeypatch.setenv("BMCLI_CACHE", str(cache))
    monkeypatch.setenv("BMCLI_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Limits the bytes that a file of this process may have, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def write_recipe(tmp_path: Path) -> WriteRecipe:
    """Writes a recipe and returns its path; without a text the tiny one."""

    def write(text: str = TINY, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
