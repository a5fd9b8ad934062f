"""The package of a stranger, installed in a folder of its own for this process and those that it starts."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bmcli import plugins
from bmcli.runs import Run
from tests.commands.conftest import Bmcli, bmcli  # noqa: F401  # a fixture
from tests.stranger.installing import PACKAGE, install
from tests.stranger.traces import write_traces


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(PACKAGE, folder)
    return folder


def _forget_plugins() -> None:
    importlib.invalidate_caches()
    plugins._list_parts.cache_clear()
    plugins.load_part.cache_clear()


@pytest.fixture(autouse=True)
def _installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(site)])
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        _forget_plugins()
        yield
    _forget_plugins()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run, trained by the first test that needs it."""
    return {"folder": tmp_path_factory.mktemp("kept")}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_traces(tmp_path)


@pytest.fixture
def run(bmcli: Bmcli, tmp_path: Path, recipe: Path, kept: dict[str, Any]) -> Run:  # noqa: F811  # the fixture
    """Copy of a finished run."""
    if "run" not in kept:
        write_traces(kept["folder"])
        trained = bmcli("train", kept["folder"] / "recipe.yaml", "--runs", kept["folder"] / "runs", "--json")
        assert trained.code == 0, trained.err
        kept["json"], kept["run"] = trained.json(), Path(trained.json()["run"])
    return Run(Path(shutil.copytree(kept["run"], tmp_path / "runs" / "quakes" / "copy")))
