"""`bmcli explain` and `bmcli report` as a user calls them."""

from __future__ import annotations

from pathlib import Path

from bmcli.evaluation.explanation_record import Explanation
from tests.conftest import WriteRecipe

from .conftest import Bmcli


def test_a_run_is_explained_and_its_report_tells_so(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    assert bmcli("train", write_recipe()).code == 0
    done = bmcli("explain", "tiny", "--rows", 12, "--repeats", 1, "--examples", 1, "--json")
    assert done.code == 0, done.err
    found = Explanation.from_json(done.json()["explanation"])
    assert found.split == "validation"
    assert found.rows == 12
    assert {each.column for each in found.targets[0].importances} == set(found.targets[0].wrong[0].features)
    report = bmcli("report", "tiny", "--json").json()["report"]
    with open(report, encoding="utf-8") as file:
        assert "bmcli explain" in file.read()
    assert bmcli("train", "--resume", "tiny", "train.epochs=12").code == 0
    assert "bmcli explain" not in Path(report).read_text(encoding="utf-8"), "that was of earlier weights"


def test_what_is_no_run_is_a_fault(bmcli: Bmcli) -> None:
    for verb in ("explain", "report"):
        done = bmcli(verb, "nothing")
        assert done.code == 2
        assert "no run 'nothing'" in done.err
