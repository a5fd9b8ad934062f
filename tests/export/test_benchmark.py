"""Costs of artefacts are measured in separate processes, in turns."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bmcli import encoder, machine
from bmcli.export.benchmark import make_rows
from bmcli.raw_columns import is_file_column
from bmcli.reports import costs
from bmcli.reports.costs import Cost, Latency
from bmcli.runs import Run
from bmcli.specs import DataSpec
from tests.commands.conftest import Bmcli, bmcli
from tests.inputs.test_laws import CASES

__all__ = ["bmcli"]  # the fixture

TWO = [
    Cost("saved_model", 4096, 2048, 1.5, (Latency(1, 1e-3, 2e-3, 3e-3, 9), Latency(32, 4e-3, 5e-3, 6e-3, 9)), 2**29,
         ("accuracy", 0.9)),
    Cost("litert-int8", 1024, 900, 0.01, (Latency(1, 1e-4, 2e-4, 3e-4, 9), Latency(32, 2e-3, 3e-3, 4e-3, 9)), 2**26,
         None),
]  # fmt: skip


def test_throughput_is_that_of_the_largest_batch() -> None:
    assert TWO[0].rows_per_second == pytest.approx(8000)
    assert TWO[0].to_json()["metric"] == {"name": "accuracy", "value": 0.9}


def test_the_figure_is_a_file_that_names_every_artefact() -> None:
    drawn = costs.render_svg_file(TWO)
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "saved_model" in drawn
    assert "litert-int8" in drawn
    assert drawn == costs.render_svg_file(TWO)


@pytest.mark.parametrize("name", CASES)
def test_made_rows_are_such_as_the_column_takes(name: str) -> None:
    column = CASES[name].fit()
    cells = make_rows(DataSpec((column,), (), {}, "", ""), 3)["x"]
    assert len(cells) == 3
    if is_file_column(CASES[name].rows):
        assert all(cell.startswith(b"\x89PNG") for cell in cells)
    else:
        assert encoder.encode({**vars(column), "state": {**column.state, "patterns": []}}, cells).shape[0] == 3


@pytest.mark.slow
def test_a_run_is_measured_beside_its_artefacts(bmcli: Bmcli, table_run: Run, tmp_path: Path) -> None:
    # Other tests export the shared run, too.
    run = shutil.copytree(
        table_run.folder, tmp_path / "parcels" / "copy", ignore=shutil.ignore_patterns("exports"), symlinks=True
    )
    assert bmcli("export", run, "--formats", "litert", "-q").code == 0
    targets = (run, run / "exports" / "litert", run)  # each artefact is measured once, however often it is named
    done = bmcli("benchmark", *targets, "--repeats", 1, "--figure", tmp_path / "costs.svg", "--json")
    assert done.code == 0, done.err
    assert [each["name"] for each in done.json()["artefacts"]] == ["model", "litert"]
    found = {each["name"]: each for each in done.json()["artefacts"]}
    for each in found.values():
        low, high = (each["latencies"][0][figure] for figure in ("median_s", "p99_s"))
        assert 0 < low <= high
        assert each["bytes"] > each["gzip_bytes"] > 0
        assert np.isfinite(each["load_s"])
    assert (tmp_path / "costs.svg").read_text().startswith("<svg")
    assert bmcli("benchmark", run, "--figure", tmp_path / "costs.svg").code == 2


def test_what_was_never_exported_is_a_fault(bmcli: Bmcli, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a" / "1"
    run.mkdir(parents=True)
    Run(run).write_lock("name: a\n")
    done = bmcli("benchmark", run)
    assert done.code == 2
    assert "has no artefact" in done.err
    assert "bmcli export" in done.err


@pytest.mark.parametrize(
    ("features", "expected"),
    [("fma avx2 avx512_vnni", True), ("Features : asimd asimddp", True), ("fma avx2 avx", False), ("", False)],
)
def test_processors_with_dot_products_of_bytes_are_known(features: str, expected: bool) -> None:
    assert machine.has_int8_dot_products(features) is expected
