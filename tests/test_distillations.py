"""Distillations: what was begun is known again, and leads nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli import distillations, records, runs
from bmcli.distillations import Distillation
from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe
from tests.conftest import WriteRecipe


@pytest.fixture
def begun(tmp_path: Path, write_recipe: WriteRecipe) -> Distillation:
    return distillations.create_distillation(tmp_path / "runs", load_recipe(str(write_recipe())))


def test_the_runs_of_a_distillation_are_found_where_it_was_moved(begun: Distillation, tmp_path: Path) -> None:
    run = runs.create(begun.root, "student")
    begun.add_job("student-1-seed-5", run)
    begun.root.rename(tmp_path / "moved")
    moved = distillations.find_distillation(tmp_path / "moved", "tiny")
    found = moved.jobs()["student-1-seed-5"]
    assert found.folder == tmp_path / "moved" / "student" / run.folder.name


@pytest.mark.parametrize("folder", ["/tmp/run", "../student/run", "student/..", ".ssh/run", "run", "a/b/c"])
def test_a_job_that_leads_out_of_the_folder_of_runs_is_refused(begun: Distillation, folder: str) -> None:
    record = records.read_record(begun.jobs_file)
    records.write_record(begun.jobs_file, {**record, "jobs": {"teacher-1": folder}})
    with pytest.raises(BmcliError, match=r"jobs\.json: damaged \(contains the path"):
        begun.jobs()


def test_a_changed_recipe_of_a_distillation_is_refused(begun: Distillation) -> None:
    assert begun.load_base().recipe.seed == 5
    begun.base.write_text(begun.base.read_text().replace("seed: 5", "seed: 6"))
    with pytest.raises(BmcliError, match=r"base\.yaml: damaged"):
        begun.load_base()


@pytest.mark.parametrize("name", ["base.yaml", "jobs.json"])
def test_a_distillation_without_one_of_its_files_names_it(begun: Distillation, name: str) -> None:
    (begun.folder / name).unlink()
    with pytest.raises(BmcliError, match=f"{name}: damaged"):
        distillations.find_distillation(begun.root, "tiny").load_base()


def test_a_teacher_whose_model_was_exchanged_is_refused(tmp_path: Path) -> None:
    run = runs.create(tmp_path / "runs", "teacher")
    run.write_lock("name: teacher\n")
    run.model.write_bytes(b"of another")
    run.write(run.data, {"recipe": "", "model": "0" * 64})
    with pytest.raises(BmcliError, match=r"model\.keras: not the model that the training wrote"):
        distillations.resolve_teacher(distillations.TeacherOptions(run=str(run.folder)), run)
