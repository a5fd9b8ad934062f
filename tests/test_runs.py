"""Run directories: found by name, written by one process, never half written."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from bmcli import disk, records, runs
from bmcli.errors import BmcliError


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    made = runs.create(tmp_path, "digits")
    made.write_lock("name: digits\n")
    return made


def test_a_new_run_is_the_latest_of_its_name(tmp_path: Path) -> None:
    first, second = runs.create(tmp_path, "digits"), runs.create(tmp_path, "digits")
    assert first.folder != second.folder
    assert (tmp_path / "digits" / "latest").resolve() == second.folder.resolve()


def test_a_run_is_found_by_directory_and_by_name(tmp_path: Path, run: runs.Run) -> None:
    for text in (str(run.folder), "digits", str(tmp_path / "digits")):
        assert runs.find(tmp_path, text).folder == run.folder.resolve()


def test_an_unknown_run_names_the_nearest(tmp_path: Path, run: runs.Run) -> None:
    with pytest.raises(BmcliError, match="no run 'digit'") as caught:
        runs.find(tmp_path, "digit")
    assert caught.value.faults[0].suggestion == "Did you mean 'digits'?"


def test_discarding_the_only_run_leaves_nothing(tmp_path: Path, run: runs.Run) -> None:
    runs.discard(run)
    assert list(tmp_path.iterdir()) == []


def test_events_are_found_under_one_name(tmp_path: Path) -> None:
    """TensorBoard walks through all folders, also those that are links."""
    run = runs.create(tmp_path, "digits")
    student = runs.Run(runs.create(tmp_path, "digits-distill").folder / "student-1-seed-0")
    for each in (run, student):
        (each.events / "train").mkdir(parents=True)
    found = [Path(folder).relative_to(tmp_path) for folder, _, _ in os.walk(tmp_path, followlinks=True)
             if Path(folder).name == "train"]  # fmt: skip
    assert sorted(map(str, found)) == sorted([
        f"digits/events/{run.folder.name}/train",
        f"digits-distill/events/{student.folder.parent.name}/student-1-seed-0/train",
    ])  # fmt: skip
    assert runs.Run(tmp_path / "mine").events == tmp_path / "mine" / "events"


def test_discarding_a_run_removes_its_events(tmp_path: Path, run: runs.Run) -> None:
    other = runs.create(tmp_path, "digits")
    for each in (run, other):
        each.events.mkdir(parents=True)
    runs.discard(other)
    assert [folder.name for folder in run.events.parent.iterdir()] == [run.folder.name]
    assert (tmp_path / "digits" / "latest").resolve() == run.folder.resolve()
    runs.discard(run)
    assert list(tmp_path.iterdir()) == []


def test_discarding_the_latest_run_points_to_the_one_before(tmp_path: Path, run: runs.Run) -> None:
    runs.discard(runs.create(tmp_path, "digits"))
    assert (tmp_path / "digits" / "latest").resolve() == run.folder.resolve()


def test_a_held_run_names_the_process_that_holds_it(run: runs.Run) -> None:
    with (
        run.acquire_lock(),
        pytest.raises(BmcliError, match=f"written by process {os.getpid()}"),
        runs.Run(run.folder).acquire_lock(),
    ):
        pass


def _hold_for_ever(folder: str, held: multiprocessing.Queue[int]) -> None:
    with runs.Run(Path(folder)).acquire_lock():
        runs.Run(Path(folder)).set_status("running")
        held.put(os.getpid())
        signal.pause()


def test_a_run_whose_process_was_killed_is_free_and_counts_as_crashed(run: runs.Run) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Queue()
    process = context.Process(target=_hold_for_ever, args=(str(run.folder), held))
    process.start()
    held.get(timeout=60)
    assert run.status()["state"] == "running"
    process.kill()
    process.join()
    with run.acquire_lock():
        pass
    assert run.status()["state"] == "crashed"


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    records.write_json(path, {"value": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"(?i)no space left"):
        records.write_json(path, {"value": 2})
    assert json.loads(path.read_text()) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_last_row_is_left_out(run: runs.Run) -> None:
    run.append_epoch({"epoch": 1, "train/loss": 0.5})
    with run.metrics.open("a") as file:
        file.write('{"epoch": 2, "train/lo')
    assert run.read_epochs() == [{"epoch": 1, "train/loss": 0.5}]


def test_rows_after_a_checkpoint_are_dropped_for_a_resumed_run(run: runs.Run) -> None:
    for epoch in (1, 2, 3):
        run.append_epoch({"epoch": epoch})
    run.truncate_epochs(2)
    assert [row["epoch"] for row in run.read_epochs()] == [1, 2]


def test_the_cache_is_made_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0o002)
    try:
        assert runs.make_cache_folder() == runs.make_cache_folder() == tmp_path / "new" / "cache"
    finally:
        os.umask(before)
    assert [place.stat().st_mode & 0o777 for place in (tmp_path / "new", tmp_path / "new" / "cache")] == [0o700] * 2


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o1777])
@pytest.mark.parametrize("variable", ["BMCLI_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_that_others_write_is_refused(
    variable: str, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BMCLI_CACHE")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    place = runs.locate_cache()
    place.mkdir(parents=True)
    place.chmod(mode)
    with pytest.raises(BmcliError, match=r"not private: .* is writable by other users") as caught:
        runs.make_cache_folder()
    assert caught.value.exit_code == 2
    assert "chmod go-w" in caught.value.faults[0].suggestion
    assert list(place.iterdir()) == []


def test_nothing_is_made_in_a_folder_that_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BmcliError, match="is writable by other users"):
        runs.make_cache_folder()
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_looked_at_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "loop"))
    with pytest.raises(BmcliError, match="too many levels of symbolic links"):
        runs.make_cache_folder()


def test_a_lock_that_is_a_link_empties_no_file(tmp_path: Path, run: runs.Run) -> None:
    marker = tmp_path / "marker"
    marker.write_text("kept")
    (run.folder / ".lock").symlink_to(marker)
    with pytest.raises(BmcliError, match=r"\.lock: a symbolic link"), run.acquire_lock():
        pass
    (run.folder / ".lock").unlink()
    os.link(marker, run.folder / ".lock")
    with pytest.raises(BmcliError, match="a link or no regular file"), run.acquire_lock():
        pass
    assert marker.read_text() == "kept"


@pytest.mark.parametrize("name", ["checkpoints", "data.json", "exports", "events"])
def test_a_run_that_leads_out_of_its_directory_is_refused(tmp_path: Path, run: runs.Run, name: str) -> None:
    (run.folder / name).symlink_to(tmp_path)
    with pytest.raises(BmcliError, match=f"{name}: a symbolic link"):
        runs.find(tmp_path, "digits")


def test_the_latest_run_is_one_beside_the_link(tmp_path: Path, run: runs.Run) -> None:
    other = runs.create(tmp_path / "elsewhere", "digits")
    other.write_lock("name: other\n")
    link = tmp_path / "digits" / "latest"
    link.unlink()
    link.symlink_to(other.folder)
    with pytest.raises(BmcliError, match="expected a run beside it"):
        runs.find(tmp_path, "digits")


def test_a_changed_lock_is_refused(tmp_path: Path, run: runs.Run) -> None:
    run.lock.write_text(run.lock.read_text().replace("digits", "digitz"))
    with pytest.raises(BmcliError, match=r"recipe\.lock\.yaml: changed since"):
        runs.find(tmp_path, "digits")


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b'{"state": "done"}', b"[" * 20_000, b'{"a": NaN}', b"\xff"])
def test_a_damaged_status_is_reported_as_damaged(run: runs.Run, content: bytes) -> None:
    run.status_file.write_bytes(content)
    status = run.status()
    assert status["state"] == "damaged"
    assert "status.json: damaged" in status["reason"]


def test_a_changed_row_is_left_out_and_named(run: runs.Run) -> None:
    for epoch in (1, 2, 3):
        run.append_epoch({"epoch": epoch, "train/loss": 0.5 if epoch != 3 else float("nan")})
    run.metrics.write_bytes(run.metrics.read_bytes().replace(b'2, "train/loss": 0.5', b'2, "train/loss": 0.4'))
    rows, (fault,) = run.read_epochs_checked()
    assert rows == [{"epoch": 1, "train/loss": 0.5}, {"epoch": 3, "train/loss": None}]
    assert "metrics.jsonl:2: damaged" in fault


@pytest.fixture
def whole(run: runs.Run) -> runs.Run:
    """A run with a record of each kind."""
    run.recipe.write_text("name: digits\n")
    digests = {"recipe": disk.compute_sha256(run.recipe), "model": None}
    run.write(run.data, digests)
    run.set_status("done", epochs=1)
    run.append_epoch({"epoch": 1, "train/loss": 0.5})
    return run


def test_a_run_that_is_copied_and_renamed_keeps_its_records(tmp_path: Path, whole: runs.Run) -> None:
    shutil.copytree(whole.folder, tmp_path / "elsewhere" / "renamed")
    copy = runs.find(tmp_path, str(tmp_path / "elsewhere" / "renamed"))
    assert (copy.id, copy.status()["state"], copy.read_epochs()) == (whole.id, "done", whole.read_epochs())


def test_a_lock_that_is_written_again_keeps_the_id(whole: runs.Run) -> None:
    before = whole.id
    whole.write_lock("name: digits\nseed: 2\n")
    assert before == whole.id != ""


@pytest.mark.parametrize("name", ["data.json", "status.json", "metrics.jsonl"])
def test_a_record_of_another_run_is_refused_and_named(tmp_path: Path, whole: runs.Run, name: str) -> None:
    other = runs.create(tmp_path, "digits")
    other.write_lock("name: digits\n")
    shutil.copytree(whole.folder, other.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.yaml"))
    shutil.copy(whole.folder / name, other.folder / name)
    if name == "data.json":
        with pytest.raises(BmcliError, match=r"data\.json: from another run"):
            other.read_data(dict)
    elif name == "status.json":
        assert "status.json: from another run" in other.status()["reason"]
    else:
        assert (other.read_epochs(), len(other.read_epochs_checked()[1])) == ([], 1)


def test_runs_of_one_recipe_have_one_digest_of_it_and_ids_of_their_own(tmp_path: Path) -> None:
    first, second, other = (runs.create(tmp_path / "runs", name) for name in ("one", "one", "other"))
    for each, text in ((first, "seed: 1\n"), (second, "seed: 1\n"), (other, "seed: 2\n")):
        each.write_lock(text)
    assert first.recipe_sha256() == second.recipe_sha256() != other.recipe_sha256()
    assert first.lock.read_text() != second.lock.read_text()


def test_a_lock_of_another_run_is_refused(tmp_path: Path, whole: runs.Run) -> None:
    other = runs.create(tmp_path, "digits")
    other.write_lock("name: digits\n")
    shutil.copy(other.lock, whole.lock)
    with pytest.raises(BmcliError, match=r"recipe\.lock\.yaml: from another run than data\.json"):
        runs.find(tmp_path, str(whole.folder))
    assert whole.status()["state"] == "damaged"


def test_a_run_whose_lock_is_gone_is_named_and_listed(tmp_path: Path, whole: runs.Run) -> None:
    whole.lock.unlink()
    with pytest.raises(BmcliError, match=r"recipe\.lock\.yaml: damaged"):
        runs.find(tmp_path, "digits")
    assert [run.folder for run in runs.list_runs(tmp_path)] == [whole.folder]


def test_a_lost_status_is_reported(whole: runs.Run) -> None:
    whole.status_file.unlink()
    assert "status.json: missing" in whole.status()["reason"]


def test_a_changed_recipe_is_not_shown_as_the_one_that_was_written(whole: runs.Run) -> None:
    assert whole.read_recipe() == "name: digits\n"
    whole.recipe.write_text("name: digitz\n")
    with pytest.raises(BmcliError, match=r"recipe\.yaml: changed"):
        whole.read_recipe()


def test_lost_epochs_are_reported(whole: runs.Run) -> None:
    assert whole.read_epochs_checked()[1] == []
    whole.metrics.write_bytes(b"")
    assert "metrics.jsonl: damaged (it holds 0 of 1 epochs)" in whole.read_epochs_checked()[1][0]
    whole.metrics.unlink()
    assert "metrics.jsonl: damaged (it holds 0 of 1 epochs)" in whole.read_epochs_checked()[1][0]
