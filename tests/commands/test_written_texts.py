"""Foreign text in the files and messages of a run: without secrets, private, shortened, and escaped."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path

import pytest

from bmcli import records
from bmcli.distillations import Distillation
from bmcli.runs import Run
from bmcli.trials import TrialResult
from bmcli.tuning.study import Study

from .conftest import Bmcli

SECRET = "canary-4711"
REASON = f"cannot read s3://user:{SECRET}@bucket/a.csv?X-Amz-Signature={SECRET}: db_password={SECRET} was refused."
HUGE, EVIL = "z" * 50_000, "\x1b[2J\nrecipe.yaml is valid.<script>\u202e"

RECIPE = """\
bmcli: 1
name: foreign
data: {source: {kind: csv, path: t.csv}, targets: {y: {kind: category}}}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 16, tensorboard: false}
runtime: {jit: false}
evaluate: {slices: [word]}
vars: {note: none}
"""


def write_table() -> None:
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["x", "word", "na\x1bme\nb", "y"])
        for n in range(60):
            table.writerow([n / 7, ["a" + HUGE, "b" + EVIL, "c"][n % 3], "uv"[n % 2] + HUGE, "pq"[n % 5 > 2] + HUGE])


@pytest.mark.parametrize("kind", [Run, Distillation, Study])
def test_the_reason_of_an_end_holds_no_secret(
    tmp_path: Path, kind: type[Run] | type[Distillation] | type[Study]
) -> None:
    made = kind(tmp_path)
    made.set_status("failed", reason=REASON, stop_reason=[REASON], epochs=3)
    text = (tmp_path / "status.json").read_text()
    assert SECRET not in text
    assert "was refused" in text
    assert json.loads(text)["epochs"] == 3


def test_the_reason_of_a_trial_holds_no_secret(tmp_path: Path) -> None:
    study = Study(tmp_path)
    records.write_record(study.start_record_file, {"id": "of-this-study", "files": {}})
    (tmp_path / "results").mkdir()
    assert study.put_result(TrialResult("trial-1", "failed", reason=REASON))
    (kept,) = (tmp_path / "results").iterdir()
    assert SECRET not in kept.read_text()
    assert "was refused" in kept.read_text()


def test_a_run_on_foreign_text_shows_little_of_it_and_keeps_arguments_to_its_user(bmcli: Bmcli, tmp_path: Path) -> None:
    write_table()
    Path("recipe.yaml").write_text(RECIPE)
    outputs = [
        bmcli("train", "recipe.yaml", "vars.note=an-argument"),
        bmcli("export", "foreign", "--formats", "litert"),
    ]
    for done in outputs:
        assert done.code == 0, done.err
        assert len(done.out) < 10_000
        assert "\x1b" not in done.out + done.err
        assert "\nrecipe.yaml is valid" not in done.out + done.err
    runs = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and not path.is_symlink()]
    for name in ("report.html", "card.md"):
        (file,) = [path for path in runs if path.name == name]
        text = file.read_text()
        assert len(text) < 500_000
        assert HUGE[:600] not in text
        assert "\x1b" not in text
        assert "<script>\u202e" not in text
    held = {path.name: stat.S_IMODE(path.stat().st_mode) for path in runs if b"an-argument" in path.read_bytes()}
    assert {"recipe.lock.yaml", "environment.json", "report.html"} <= set(held)
    assert set(held.values()) == {0o600}, held


def test_names_like_those_of_secrets_hide_no_sentence(bmcli: Bmcli) -> None:
    write_table()
    recipe = RECIPE.replace("name: foreign", "name: secret").replace("[word]", "[]")
    Path("recipe.yaml").write_text(recipe)
    done = bmcli("train", "recipe.yaml")
    assert done.code == 0, done.err
    assert "secret: 48 train, 6 validation, 6 test rows; inputs: " in done.err
    assert "***" not in done.err + done.out
    missing = bmcli("evaluate", "token")
    assert missing.code == 2
    assert "no run 'token': neither a run directory nor a name in" in missing.err
