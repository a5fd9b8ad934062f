"""Every command on a table of very many columns, with a real, tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bmcli.runs import Run
from bmcli.specs import MANY_COLUMNS
from tests.trained import run_of

from .conftest import Bmcli

COLUMNS = MANY_COLUMNS + 130  # more than a report has a row for

RECIPE = """\
bmcli: 1
name: wide
data:
  source: {kind: csv, path: wide.csv}
  targets: {label: category}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 16, tensorboard: false}
runtime: {jit: false}
"""


def _write(path: Path) -> None:
    dice = np.random.default_rng(0)
    words = (["red", "green", ""], ["yes", "no"])
    cells = [lambda: f"{dice.normal():.3f}", *(lambda each=each: str(dice.choice(each)) for each in words)]
    lines = [",".join([*(f"c_{place}" for place in range(COLUMNS)), "label"])]
    lines += [",".join([*(cells[place % 3]() for place in range(COLUMNS)), "ab"[row % 2]]) for row in range(60)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("wide")
    _write(folder / "wide.csv")
    return run_of(RECIPE, folder, folder / "cache")


def test_the_network_of_a_wide_table_has_few_layers_beside_its_inputs(run: Run) -> None:
    from bmcli.networks.network import load_serving_model

    model = load_serving_model(run.model)
    inner = model.get_layer("network")
    kinds = [type(layer).__name__ for each in (model, inner) for layer in each.layers]
    assert kinds.count("InputLayer") == 2 * COLUMNS
    assert len(kinds) - 2 * COLUMNS < 15


def test_the_lock_of_a_wide_table_can_be_read_again(run: Run) -> None:
    from bmcli.recipe.load import load_recipe

    assert load_recipe(str(run.lock)).recipe.data.inputs is None


def test_a_lock_writes_what_differs_from_the_defaults_of_many_named_inputs(run: Run, tmp_path: Path) -> None:
    from bmcli.recipe.load import load_recipe
    from bmcli.recipe.render import render_recipe

    named = "".join(f"    c_{place}: {{kind: category, min_count: {1 + place % 2}}}\n" for place in range(3000))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("  targets", f"  inputs:\n{named}  targets"))
    loaded = load_recipe(str(tmp_path / "recipe.yaml"))
    (tmp_path / "lock.yaml").write_text(render_recipe(loaded.recipe, loaded.tree))
    assert load_recipe(str(tmp_path / "lock.yaml")).recipe.data.inputs == loaded.recipe.data.inputs


def test_what_was_trained_on_a_wide_table_is_measured_and_predicts(run: Run, bmcli: Bmcli) -> None:
    trained = json.loads((run.folder / "evaluation.json").read_text())["test"]["metrics"]
    again = bmcli("evaluate", run.folder, "--json").json()["metrics"]
    assert again["test/accuracy"] == pytest.approx(trained["accuracy"], abs=1e-6)
    predicted = bmcli("predict", run.folder, run.folder.parents[2] / "wide.csv", "--output", "out.csv")
    assert predicted.code == 0
    assert len(Path("out.csv").read_text().splitlines()) == 61


def test_the_report_of_a_wide_table_counts_the_inputs_that_it_does_not_show(run: Run) -> None:
    text = run.report.read_text()
    assert f"{COLUMNS + 1 - 300} more inputs are not shown" in text
    assert "<td>c_10</td>" in text or ">c_10<" in text
    assert f">c_{COLUMNS - 1}<" not in text


@pytest.mark.slow
def test_of_very_many_columns_those_that_add_most_are_explained(run: Run, bmcli: Bmcli) -> None:
    explained = bmcli("explain", run.folder, "--rows", 8, "--repeats", 1, "--examples", 1)
    assert explained.code == 0, explained.err
    assert "The importance of 30 more columns was not measured" in explained.out
    found = json.loads(run.explanation.read_text())
    (target,) = found["targets"]
    assert found["left_out"] == COLUMNS - len(target["importances"]) == 30
    assert len(target["shares"]) == COLUMNS  # each category of its own, though they are one tensor
    assert "30 more columns, which have smaller integrated gradients, were not measured" in run.report.read_text()
