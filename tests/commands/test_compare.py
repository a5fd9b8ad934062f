"""`bmcli compare` as a user calls it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import WriteRecipe

from .conftest import Bmcli


def test_runs_are_compared_on_the_same_rows(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe()
    for name, units in (("small", 2), ("large", 32)):
        assert bmcli("train", recipe, f"name={name}", f"model.hidden=[{units}]", "seed=3").code == 0
    done = bmcli("compare", "large", "small", "--output", "both.html", "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert found["recipes"] == {"model.hidden": ["[32]", "[2]"]}
    assert found["data"] == {}
    assert found["unpaired_reason"] == ""
    assert found["rows"] == 15
    large, small = found["runs"]
    assert large["parameters"] == 4 * 32 + 32 + 32 * 3 + 3
    assert small["size"] > 0
    assert small["latency_s"] > 0
    difference = found["differences"]["small"]["accuracy"]
    assert difference["first"] == large["metrics"]["accuracy"]
    assert difference["second"] == small["metrics"]["accuracy"]
    assert found["recommended"] in ("small", "large")

    again = bmcli("compare", "large", "small", "--output", "both.html")
    assert again.code == 2
    assert "both.html exists already" in again.err


@pytest.mark.slow
def test_runs_on_other_rows_are_not_compared_row_by_row(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    """Splits of iris, which is sorted, have the same classes in the same order whatever the seed."""
    recipe = write_recipe()
    for seed in (3, 4):
        assert bmcli("train", recipe, f"name=seed-{seed}", f"seed={seed}", "train.epochs=1").code == 0
    apart = bmcli("compare", "seed-3", "seed-4", "--metric", "log_loss")
    assert apart.code == 0, apart.err
    assert "evaluated on different rows" in apart.out
    assert "tensorflow" not in apart.err.lower()


@pytest.mark.slow
def test_what_cannot_be_compared_is_a_fault(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe()
    assert bmcli("train", recipe, "train.epochs=1").code == 0
    assert "expected at least two runs" in bmcli("compare", "tiny").err
    assert "is named twice" in bmcli("compare", "tiny", recipe).err
    assert bmcli("train", recipe, "name=other", "train.epochs=1").code == 0
    wrong = bmcli("compare", "tiny", "other", "--metric", "acuracy")
    assert wrong.code == 2
    assert "Did you mean 'accuracy'?" in wrong.err
    other = "data.targets={sepal length (cm): {kind: number}}"
    assert bmcli("train", recipe, "name=lengths", "train.epochs=1", other, "train.select.metric=last").code == 0
    apart = bmcli("compare", "tiny", "lengths")
    assert apart.code == 2
    assert "different targets (tiny: species; lengths: sepal length (cm))" in apart.err
    unknown = bmcli("compare", "tiny", "lenghts").err
    assert "Did you mean 'lengths'?" in unknown


def test_copies_of_a_run_are_compared_with_it(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    assert bmcli("train", write_recipe(), "train.epochs=1").code == 0
    run = (tmp_path / "runs" / "tiny" / "latest").resolve()
    for place in ("first", "second"):
        shutil.copytree(run, tmp_path / place / "tiny" / run.name)
    copies = [tmp_path / place / "tiny" / run.name for place in ("first", "second")]
    done = bmcli("compare", run, *copies, "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert len({each["name"] for each in found["runs"]}) == 3
    assert len(found["differences"]) == 2
    for difference in found["differences"].values():
        assert difference["accuracy"]["difference"] == 0
    assert found["unpaired_reason"] == ""
    names = [each["name"] for each in found["runs"]]
    assert found["same_predictions"] == dict.fromkeys(names[1:], names[0])
    assert found["recommended"] is None
    assert found["recommendation"].endswith("make the same predictions.")
