"""The law of the catalogue: awkward data trains, predicts and is served like its clean twin."""

from __future__ import annotations

import csv
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tests.awkward
from bmcli.recipe.load import load_recipe
from bmcli.specs import SPLITS, PreparedData
from bmcli.training import prepare_data
from tests.awkward.case import Case, Files
from tests.commands.conftest import Bmcli

_MODULES = sorted(each.name for each in pkgutil.iter_modules(tests.awkward.__path__))
CASES: dict[str, Case] = {
    case.name: case
    for name in _MODULES
    if name.startswith("cases_")
    for case in importlib.import_module(f"tests.awkward.{name}").CASES
}
"""The cases of all modules `cases_*`, each of which lists its own in CASES."""
_BRIEFLY = ("train.epochs=2", "train.tensorboard=false", "train.stop=null", "runtime.jit=false")
_SAMPLE = 88  # every so many cases, one is trained in the usual suite


def _write_recipe(bmcli: Bmcli, case: Case, files: Files, folder: Path) -> Path:
    """Write the recipe that `init` makes of files."""
    recipe = folder / "recipe.yaml"
    data = case.write(files, folder / "data")
    done = bmcli("init", data, *(("--target", case.target) if case.target else ()), "--output", recipe)
    assert done.code == 0, done.err
    return recipe


def _prepare(bmcli: Bmcli, case: Case, files: Files, folder: Path) -> PreparedData:
    return prepare_data(load_recipe(str(_write_recipe(bmcli, case, files, folder))).recipe, folder / "cache")


@pytest.mark.parametrize("name", CASES)
def test_what_people_write_is_prepared_like_what_it_means(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    case = CASES[name]
    awkward = _prepare(bmcli, case, case.awkward, tmp_path / "awkward")
    clean = _prepare(bmcli, case, case.clean, tmp_path / "clean")
    kinds = [[(each.name, each.kind) for each in data.spec.inputs] for data in (awkward, clean)]
    assert kinds[0] == kinds[1]
    for split in SPLITS:
        found, wanted = awkward.split(split), clean.split(split)
        for mine, others in ((found.inputs, wanted.inputs), (found.targets, wanted.targets)):
            assert mine.keys() == others.keys()
            for column, cells in mine.items():
                np.testing.assert_allclose(cells, others[column], 1e-6, 1e-6, err_msg=f"{split}: {column}")


@dataclass(frozen=True)
class Outcome:
    """What a run says of rows.

    Args:
        predicted, served: Predictions of the run and of its SavedModel.
        unseen: Number of cells that the model does not know, by column.
    """

    predicted: list[dict[str, str]]
    served: list[dict[str, str]]
    metrics: Mapping[str, float | None]
    unseen: Mapping[str, int]


def _run_all(bmcli: Bmcli, case: Case, files: Files, meets: Files, folder: Path) -> Outcome:
    """Train briefly, predict and evaluate on rows, and predict them by the SavedModel."""
    recipe = _write_recipe(bmcli, case, files, folder)
    rows = case.write(meets, folder / "meets")

    def call(*arguments: object) -> dict[str, object]:
        done = bmcli(*arguments, "--json")
        assert done.code == 0, done.err
        found: dict[str, object] = done.json()
        return found

    run = Path(str(call("train", recipe, *_BRIEFLY)["run"]))
    predicted = call("predict", run, rows, "--output", folder / "predicted.csv")
    metrics = call("evaluate", run, "--data", rows)["metrics"]
    call("export", run, "--formats", "saved_model")
    call("predict", run / "exports" / "saved_model", rows, "--output", folder / "served.csv")
    unseen = predicted["unseen"]
    assert isinstance(metrics, dict)
    assert isinstance(unseen, dict)
    # The names of metrics of a file begin with its own.
    named = {name.rpartition("/")[2]: value for name, value in metrics.items()}
    return Outcome(_read_rows(folder / "predicted.csv"), _read_rows(folder / "served.csv"), named, unseen)


def _read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _assert_same_rows(found: list[dict[str, str]], wanted: list[dict[str, str]]) -> None:
    assert len(found) == len(wanted)
    for mine, others in zip(found, wanted, strict=True):
        assert mine.keys() == others.keys()
        for name, cell in others.items():
            try:
                number = float(cell)
            except ValueError:
                assert mine[name] == cell
            else:
                assert float(mine[name]) == pytest.approx(number, rel=1e-4, abs=1e-5)


_OUTCOMES: dict[tuple[object, ...], Outcome] = {}


def _run_clean(bmcli: Bmcli, case: Case, folder: Path) -> Outcome:
    """Run the clean twin of a case, which many cases share."""
    key = (*case.clean.items(), case.target, case.data)
    if key not in _OUTCOMES:
        _OUTCOMES[key] = _run_all(bmcli, case, case.clean, case.clean, folder)
    return _OUTCOMES[key]


def _rename_classes(rows: list[dict[str, str]], case: Case) -> list[dict[str, str]]:
    """Return predicted rows with the classes that the clean twin calls otherwise by its names."""
    prefix = f"{case.target}_probability_"
    columns = {f"{prefix}{mine}": f"{prefix}{clean}" for mine, clean in case.classes.items()}
    return [
        {
            columns.get(column, column): case.classes.get(cell, cell) if column == case.target else cell
            for column, cell in row.items()
        }
        for row in rows
    ]


def _check_case(case: Case, bmcli: Bmcli, folder: Path) -> None:
    found = _run_all(bmcli, case, case.awkward, case.meets or case.awkward, folder / "awkward")
    wanted = _run_clean(bmcli, case, folder / "clean")
    _assert_same_rows(_rename_classes(found.predicted, case), wanted.predicted)
    _assert_same_rows(_rename_classes(found.served, case), wanted.predicted)
    assert found.metrics == pytest.approx(wanted.metrics, rel=1e-4, abs=1e-5, nan_ok=True)
    assert {name: count for name, count in found.unseen.items() if count} == case.unseen


@pytest.mark.parametrize("name", list(CASES)[::_SAMPLE])
def test_what_people_write_trains_like_what_it_means(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    _check_case(CASES[name], bmcli, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_everything_that_people_write_trains_like_what_it_means(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    _check_case(CASES[name], bmcli, tmp_path)
