"""Study folders: tasks and results are complete files, and a task is claimed once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bmcli import records, runs
from bmcli.errors import BmcliError
from bmcli.recipe.fields import dump
from bmcli.recipe.load import load_recipe
from bmcli.trials import SearchObjective, Task, TrialResult
from bmcli.tuning.study import WORKER_TIMEOUT_S, Study, describe_search, find_study
from tests.conftest import TINY, WriteRecipe

from .conftest import ACCURACY, SEARCH, MakeStudy

TASK = Task("0007", {"model.dropout": 0.25, "model.hidden": [4, 4]}, 3, "0002", (0.5, None), True, 60.0)
RESULT = TrialResult("0007", "done", {"validation/accuracy": 0.9}, (-0.5, None, -0.9), {"train/loss": 0.1}, 3, 1.5, "")


def test_tasks_and_results_come_back_as_they_were_put(study: Study) -> None:
    study.put_task(TASK)
    assert study.list_open_tasks() == ["0007"]
    assert study.read_task("0007") == TASK
    assert study.read_result("0007") is None
    assert study.put_result(RESULT)
    assert study.read_result("0007") == RESULT
    assert study.list_open_tasks() == study.list_unfinished_tasks() == []


def test_a_task_is_claimed_once_and_free_again_once_released(study: Study) -> None:
    study.put_task(TASK)
    assert study.claim("0007")
    assert not study.claim("0007")
    assert study.list_open_tasks() == []
    assert study.list_unfinished_tasks() == ["0007"]
    study.release("0007")
    assert study.list_open_tasks() == ["0007"]


def test_a_task_with_a_result_is_not_claimed(study: Study) -> None:
    study.put_task(TASK)
    study.put_result(RESULT)
    assert not study.claim("0007")


def test_the_first_result_stays(study: Study) -> None:
    assert study.put_result(RESULT)
    assert not study.put_result(replace(RESULT, state="failed"))
    assert study.read_result("0007") == RESULT


CLAIMING = """
import sys
from pathlib import Path
from bmcli.tuning.study import Study
study = Study(Path(sys.argv[1]))
sys.stdin.readline()
for name in study.list_open_tasks():
    if study.claim(name):
        print(name)
"""


def test_many_processes_that_claim_at_once_claim_each_task_once(study: Study) -> None:
    for number in range(40):
        study.put_task(Task(f"{number:04}", {}))
    command = [sys.executable, "-c", CLAIMING, str(study.folder)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    claimed = Counter(name for process in processes for name in process.communicate("go\n")[0].split())
    assert claimed == Counter(f"{number:04}" for number in range(40))


def claimed_by(study: Study, name: str, host: str, process: int, silent_s: float = 0.0) -> Path:
    """Make a claim of another process with an old heartbeat."""
    study.put_task(Task(name, {}))
    path = study.folder / "claims" / name
    records.write_record(path, {"host": host, "pid": process})
    then = time.time() - silent_s
    os.utime(path, (then, then))
    return path


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_tasks_of_dead_workers_are_offered_anew(study: Study) -> None:
    here = os.uname().nodename
    claimed_by(study, "killed", here, ended_process())
    claimed_by(study, "silent", "elsewhere", 1, WORKER_TIMEOUT_S + 5)
    claimed_by(study, "hung", here, os.getpid(), WORKER_TIMEOUT_S + 5)
    claimed_by(study, "busy", "elsewhere", 1, WORKER_TIMEOUT_S - 10)
    claimed_by(study, "own", here, os.getpid())
    torn = claimed_by(study, "torn", "elsewhere", 1, WORKER_TIMEOUT_S + 5)
    torn.write_text('{"host": "else')
    os.utime(torn, (time.time() - WORKER_TIMEOUT_S - 5,) * 2)
    assert study.release_dead_claims() == ["hung", "killed", "silent", "torn"]
    assert study.list_open_tasks() == ["hung", "killed", "silent", "torn"]


def test_a_claim_with_a_result_is_never_taken_back(study: Study) -> None:
    claimed_by(study, "0007", "elsewhere", 1, WORKER_TIMEOUT_S + 5)
    study.put_result(RESULT)
    assert study.release_dead_claims() == []
    assert not study.claim("0007")


def test_a_beat_tells_whether_the_claim_is_still_ones_own(study: Study) -> None:
    worker = study.announce_worker()
    study.put_task(TASK)
    study.claim("0007")
    claim = study.folder / "claims" / "0007"
    os.utime(claim, (0, 0))
    assert study.send_heartbeat(worker, "0007")
    assert claim.stat().st_mtime > time.time() - 60
    claim.unlink()
    records.write_record(claim, {"host": "elsewhere", "pid": 1})
    assert not study.send_heartbeat(worker, "0007")
    study.release("0007")
    assert claim.exists(), "it is another's"
    claim.unlink()
    assert not study.send_heartbeat(worker, "0007")


def test_live_workers_are_those_that_were_heard_of(study: Study) -> None:
    assert study.list_live_workers() == []
    worker = study.announce_worker()
    assert study.list_live_workers() == [worker]
    os.utime(study.folder / "workers" / worker, (time.time() - WORKER_TIMEOUT_S - 5,) * 2)
    assert study.list_live_workers() == []
    study.send_heartbeat(worker)
    assert study.list_live_workers() == [worker]
    study.leave(worker)
    assert study.list_live_workers() == []


def test_a_search_that_is_over_can_be_taken_up(study: Study) -> None:
    assert not study.is_over
    study.finish()
    assert study.is_over
    study.reopen()
    study.reopen()
    assert not study.is_over


def test_a_search_has_one_chief(study: Study) -> None:
    with (
        study.acquire_lock(),
        pytest.raises(BmcliError, match=f"is being written by process {os.getpid()}"),
        study.acquire_lock(),
    ):
        pass
    with study.acquire_lock():
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"name": "0007"}', b'{"no": 1}', b"\xff\xfe"])
def test_torn_files_are_faults_that_name_them(study: Study, content: bytes) -> None:
    for path, read in (
        (study.folder / "tasks" / "0007.json", lambda: study.read_task("0007")),
        (study.folder / "results" / "0007.json", lambda: study.read_result("0007")),
        (study.start_record_file, study.objectives),
    ):
        path.write_bytes(content)
        with pytest.raises(BmcliError, match=f"{path.name}: missing or damaged"):
            read()


def test_a_task_of_another_name_than_its_file_is_a_fault(study: Study) -> None:
    study.put_task(replace(TASK, name="0008"))
    (study.folder / "tasks" / "0008.json").rename(study.folder / "tasks" / "0007.json")
    with pytest.raises(BmcliError, match=r"0007\.json: missing or damaged"):
        study.read_task("0007")


def test_a_result_cut_off_anywhere_is_a_fault(study: Study) -> None:
    study.put_result(RESULT)
    path = study.folder / "results" / "0007.json"
    whole = path.read_bytes()
    assert json.loads(whole[:-1]) == json.loads(whole), "but for its last line break"
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(BmcliError, match="missing or damaged"):
            study.read_result("0007")


def test_a_study_is_begun_with_its_recipe_and_objectives(make_study: MakeStudy, tmp_path: Path) -> None:
    objectives = (ACCURACY, SearchObjective("parameters", "min"))
    study = make_study("train.epochs=7", objectives=objectives)
    assert study.folder.parent.name == "tiny-tune"
    assert study.recipe.read_text() == SEARCH
    assert study.objectives() == objectives
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), ["train.epochs=7"]).recipe
    assert study.read_start_record() == describe_search(recipe, objectives, "fingerprint")
    assert study.read_start_record()["recipe"] == json.loads(json.dumps(dump(recipe)))
    assert study.read_start_record() != describe_search(recipe, objectives[:1], "fingerprint")
    assert study.read_start_record() != describe_search(recipe, objectives, "of other data")


def test_a_candidate_is_laid_over_the_recipe_and_selects_by_what_is_searched_for(make_study: MakeStudy) -> None:
    study = make_study("train.epochs=7")
    recipe = study.load_candidate({"model.hidden": [4, 4], "seed": 9}).recipe
    assert (recipe.model.hidden, recipe.seed, recipe.train.epochs, recipe.tune) == ((4, 4), 9, 7, None)
    assert recipe.train.select.metric == "validation/accuracy"
    assert study.load_candidate({"train.select.metric": "last"}).recipe.train.select.metric == "last"
    given = make_study("train.select.metric=train/loss")
    assert given.load_candidate({}).recipe.train.select.metric == "train/loss"
    size = make_study(objectives=(SearchObjective("parameters", "min"),))
    assert size.load_candidate({}).recipe.train.select.metric == "auto"
    with pytest.raises(BmcliError, match=r"The candidate: .*model\.dropout=2"):
        study.load_candidate({"model.dropout": 2})


def test_a_candidate_may_change_a_variable_and_what_is_below_an_extended_recipe(
    make_study: MakeStudy, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("a,label\n1,x\n2,y\n")
    write_recipe("data: {source: {kind: csv, path: table.csv}, targets: {label: category}}\n", "below.yaml")
    study = make_study(
        text="name: tiny\nextends: below.yaml\nvars: {width: 8, price: 5$$}\nmodel: {kind: mlp, hidden: ['${width}']}\n"
        "tune: {space: {vars.width: {int: [4, 16]}}}\n"
    )
    recipe = study.load_candidate({"vars.width": 16}).recipe
    assert recipe.model.hidden == (16,)
    assert recipe.data.source.path == str(tmp_path / "table.csv")
    assert recipe.vars["price"] == "5$"


def test_studies_are_found_by_folder_name_and_recipe(study: Study, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for text in (str(study.folder), "tiny", "tiny-tune", str(root / "tiny-tune")):
        assert find_study(root, text) == study
    with pytest.raises(BmcliError, match="no search 'tinny'"):
        find_study(root, "tinny")
    assert runs.list_runs(root) == []


def test_tasks_and_results_of_another_search_are_refused(make_study: MakeStudy) -> None:
    own, other = make_study(), make_study()
    other.put_task(TASK)
    other.put_result(RESULT)
    for kind in ("tasks", "results"):
        (other.folder / kind / "0007.json").rename(own.folder / kind / "0007.json")
    with pytest.raises(BmcliError, match=r"tasks/0007\.json: missing or damaged"):
        own.read_task("0007")
    with pytest.raises(BmcliError, match=r"results/0007\.json: missing or damaged"):
        own.read_result("0007")


WINNER = {"model.hidden": [4, 4], "model.dropout": 0.125, "seed": 9, "data.seed": 5}


def test_the_recipe_of_the_winner_is_that_of_the_user_with_its_values(make_study: MakeStudy) -> None:
    study = make_study("train.epochs=7", text=f"# mine\n{SEARCH}")
    study.write_best(WINNER, "The winner")
    written = f"# The winner\n# mine\n{SEARCH}"
    for old, new in {
        "seed: 5": "seed: 9", "name: iris}": "name: iris}, seed: 5", "epochs: 3": "epochs: 7",
        "hidden: [8], dropout: 0.2": "hidden: [4, 4], dropout: 0.125",
        "learning_rate: 1e-2}}": "learning_rate: 1e-2}, select: {metric: validation/accuracy}}",
    }.items():  # fmt: skip
        assert written.count(old) == 1
        written = written.replace(old, new)
    assert study.best.read_text() == written
    best = load_recipe(str(study.best)).recipe
    assert best.tune == load_recipe(str(study.search)).recipe.tune, "it can be searched from there"
    assert best.without_tune() == study.load_candidate(WINNER).recipe


def test_a_recipe_that_cannot_keep_its_text_is_written_with_every_default(make_study: MakeStudy) -> None:
    text = SEARCH.replace("dropout: 0.2", "dropout: &share 0.2").replace("epochs: 3", "epochs: 3, ema: *share")
    study = make_study(text=text)
    study.write_best(WINNER, "The winner")
    best = study.best.read_text()
    assert best.startswith("# The winner\n")
    assert "# default" in best
    assert load_recipe(str(study.best)).recipe == study.load_candidate(WINNER).recipe
    assert study.load_candidate(WINNER).recipe.train.ema == 0.2, "the alias stays what it was"


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_a_recipe_that_is_extended_may_change_before_the_end_of_a_search(
    make_study: MakeStudy, write_recipe: WriteRecipe, change: str
) -> None:
    below = write_recipe(TINY, "below.yaml")
    study = make_study(text=f"extends: below.yaml\n{SEARCH[len(TINY) :]}")
    if change == "removed":
        below.unlink()
    else:
        below.write_text(TINY.replace("batch_size: 16", "batch_size: 32"))
    study.write_best(WINNER, "The winner")
    best = load_recipe(str(study.best)).recipe
    assert best.without_tune() == study.load_candidate(WINNER).recipe
    assert best.train.batch_size == 16


@pytest.mark.parametrize("name", ["base.yaml", "search.yaml", "template.yaml"])
def test_a_changed_recipe_of_a_search_is_refused(study: Study, name: str) -> None:
    study.require_recipes()
    file = study.folder / name
    file.write_text(file.read_text() + "# edited\n")
    with pytest.raises(BmcliError, match=f"{name}: missing or damaged"):
        study.load_candidate({})
