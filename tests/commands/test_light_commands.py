"""Commands that do not train are fast, import no TensorFlow, and report faults with their place."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bmcli.recipe.load import list_built_in, load_recipe
from tests.conftest import TINY, WriteRecipe
from tests.wrong_recipes import TEN_FAULTS, THREE_WRONG_ENTRIES

from .conftest import Bmcli


def test_ten_faults_are_ten_places_and_exit_2(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("validate", write_recipe(TEN_FAULTS), "--json")
    faults = done.json()["faults"]
    assert done.code == 2
    assert len({(fault["line"], fault["column"]) for fault in faults}) >= 10
    assert all(fault["file"].endswith("recipe.yaml") for fault in faults)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["validate", "wrong.yaml"], ["validate", "space.yaml"], ["ls"], ["show", "digits"]),
        *(["runs"], ["schema"]),
    ],
)
def test_light_verbs_never_import_tensorflow(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "wrong.yaml").write_text(TEN_FAULTS)
    (tmp_path / "space.yaml").write_text(THREE_WRONG_ENTRIES)
    code = (
        "import sys\nfrom bmcli.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
        "heavy = ('tensorflow', 'keras', 'keras_tuner', 'sklearn', 'matplotlib')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_three_wrong_entries_of_a_space_are_three_places(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("validate", write_recipe(THREE_WRONG_ENTRIES), "--json")
    assert done.code == 2
    assert [(each["line"], each["column"], each["path"]) for each in done.json()["faults"]] == [
        (7, 43, 'tune.space."train.optimizer.learning_rate".log.0'),
        (8, 5, "model.filter"),
        (9, 30, "train.batch_size"),
    ]


def test_a_search_is_no_part_of_a_training(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(f"{TINY}tune: {{space: {{model.dropout: {{float: [0, 0.5]}}}}}}\n")
    assert bmcli("validate", recipe).code == 0
    run = Path(bmcli("train", recipe, "train.epochs=1", "--json").json()["run"])
    assert "tune" not in yaml.safe_load((run / "recipe.lock.yaml").read_text())
    assert "tune:" in (run / "recipe.yaml").read_text()
    assert yaml.safe_load(bmcli("show", recipe).out)["tune"]["space"] == {"model.dropout": {"float": [0.0, 0.5]}}


@pytest.mark.parametrize("text", [TEN_FAULTS, THREE_WRONG_ENTRIES])
def test_checking_a_recipe_needs_neither_numpy_nor_pyarrow(tmp_path: Path, text: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    code = (
        "import sys\nfrom bmcli.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('numpy', 'pyarrow', 'rich') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "validate", "wrong.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_valid_recipe_is_said_to_be(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("validate", write_recipe())
    assert done.code == 0
    assert "is valid" in done.out


def test_deep_validation_counts_rows_and_parameters(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    answer = bmcli("validate", write_recipe(), "--deep", "--json").json()
    assert sum(answer["rows"].values()) == 150
    assert answer["parameters"] == 4 * 8 + 8 + 8 * 3 + 3


def test_deep_validation_names_a_layer_that_does_not_fit(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(TINY.replace("model: {kind: mlp, hidden: [8], dropout: 0.2}", (
        "model:\n  kind: layers\n  layers:\n    - {kind: concatenate, from: [a, b]}\n"
    )).replace("{source: {kind: builtin, name: iris}}", (
        "{source: {kind: builtin, name: digits}, inputs: {image: {kind: image}}}"
    )))  # fmt: skip
    done = bmcli("validate", recipe, "--deep")
    assert done.code == 2
    assert "recipe.yaml:8" in done.err


def test_a_file_that_is_not_there_is_a_fault_of_the_recipe(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(TINY.replace("kind: builtin, name: iris}", "kind: idx, path: nowhere}"))
    done = bmcli("validate", recipe)
    assert done.code == 2
    assert "data.source.path" in done.err
    assert "nowhere" in done.err


def test_show_writes_every_default_and_its_origin(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    shown = bmcli("show", write_recipe(), "train.epochs=9").out
    assert "recipe.yaml:6" in shown
    assert "command line" in shown
    assert "# default" in shown


def test_what_show_prints_is_the_same_recipe(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe()
    (tmp_path / "shown.yaml").write_text(bmcli("show", recipe).out)
    assert load_recipe(str(tmp_path / "shown.yaml")).recipe.train == load_recipe(str(recipe)).recipe.train


@pytest.mark.parametrize(
    ("path", "origin"),
    [("train.epochs", "command line"), ("train.batch_size", "recipe.yaml:6"), ("train.precision", "default")],
)
def test_why_tells_where_a_value_comes_from(bmcli: Bmcli, write_recipe: WriteRecipe, path: str, origin: str) -> None:
    answer = bmcli("show", write_recipe(), "train.epochs=9", "--why", path, "--json").json()
    assert answer["path"] == path
    assert origin in answer["origin"]


def test_why_of_an_unknown_path_names_the_nearest(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("show", write_recipe(), "--why", "train.epoch")
    assert done.code == 2
    assert "Did you mean 'epochs'?" in done.err


def test_why_in_a_run_tells_what_auto_became(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    bmcli("train", write_recipe())
    answer = bmcli("show", "tiny", "--why", "runtime.jit", "--json").json()
    assert answer == {"path": "runtime.jit", "value": False, "origin": "auto"}


def test_every_built_in_recipe_is_listed_with_a_headline(bmcli: Bmcli) -> None:
    listed = bmcli("ls", "--json").json()["recipes"]
    assert {entry["name"] for entry in listed} == set(list_built_in())
    assert all(len(entry["headline"]) > 10 for entry in listed)
    assert [entry for entry in listed if not entry["headline"].endswith(".")] == []  # a whole sentence
    assert [entry for entry in listed if entry["headline"].count("(") != entry["headline"].count(")")] == []
    assert {(entry["name"], entry["folder"]) for entry in listed} >= {("digits", "images"), ("penguins", "tables")}


def test_recipes_are_listed_by_folder(bmcli: Bmcli) -> None:
    lines = [line.split() for line in bmcli("ls").out.splitlines()]
    headings = [words[0] for words in lines if words[-1] == "description"]
    assert headings == ["compression", "distillation", "images", "sequences", "tables", "text"]
    assert [words[0] for words in lines].index("penguins") > [words[0] for words in lines].index("tables")


def test_a_copied_recipe_brings_its_data_and_trains(bmcli: Bmcli, tmp_path: Path) -> None:
    assert bmcli("cp", "penguins", "birds.yaml").code == 0
    assert (tmp_path / "data" / "penguins.csv").is_file()
    done = bmcli("train", "birds.yaml", "train.epochs=1", "--json")
    assert done.code == 0, done.err


def test_copying_never_overwrites(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("mine")
    done = bmcli("cp", "digits", "my.yaml")
    assert done.code == 2
    assert "exists already. Name another file as DESTINATION." in done.err
    assert (tmp_path / "my.yaml").read_text() == "mine"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "penguins.csv").write_text("mine")
    done = bmcli("cp", "penguins", "birds.yaml")
    assert "data/penguins.csv exists already. Name another folder as DESTINATION." in done.err
    assert not (tmp_path / "birds.yaml").exists()


def test_copying_an_unknown_recipe_names_the_nearest(bmcli: Bmcli) -> None:
    assert "Did you mean 'digits'?" in bmcli("cp", "digit", "my.yaml").err


def test_runs_lists_what_was_trained(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    assert bmcli("runs", "--json").json() == {"runs": []}
    bmcli("train", write_recipe())
    (run,) = bmcli("runs", "--json").json()["runs"]
    assert (run["name"], run["state"], run["epochs"]) == ("tiny", "done", 3)
    assert run["headline"].startswith("test/accuracy")
    assert (run["model"], len(run["started"])) == ("mlp", len("2026-01-31 12:00"))
    shown = bmcli("runs", "tiny").out
    assert all(part in shown for part in ("done", "mlp", run["started"], run["headline"], f"tiny/{run['id']}"))
    assert bmcli("show", f"tiny/{run['id']}").code == 0  # what is shown is a name of the run


def test_the_schema_accepts_the_built_in_recipes(bmcli: Bmcli) -> None:
    validator = jsonschema.Draft202012Validator(bmcli("schema", "--json").json())
    recipes = list_built_in()
    assert recipes
    for path in recipes.values():
        if "extends" not in path.read_text():
            errors = [error.message for error in validator.iter_errors(_tuples_as_lists(path))]
            assert errors == [], path


def _tuples_as_lists(path: Path) -> object:
    """Read a recipe as JSON values, with numbers as in YAML 1.2."""
    from bmcli.recipe import nodes

    return json.loads(json.dumps(nodes.parse_tree(path.read_text(), path.name, path.parent).plain()))


def test_doctor_names_versions_and_devices(bmcli: Bmcli) -> None:
    checks = {check["name"]: check for check in bmcli("doctor", "--json").json()["checks"]}
    assert checks["tensorflow"]["mark"] == "ok"
    assert "CPU" in checks["devices"]["found"]


def test_doctor_tells_whether_cache_and_key_are_the_users_alone(
    bmcli: Bmcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checks() -> dict[str, dict[str, str]]:
        return {check["name"]: check for check in bmcli("doctor", "--json").json()["checks"]}

    assert [checks()[name]["mark"] for name in ("cache", "key")] == ["ok", "ok"]
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "file").touch()
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "open"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    found = checks()
    assert (found["cache"]["mark"], found["key"]["mark"]) == ("missing", "note")
    assert "is writable by other users" in found["cache"]["found"]
    assert "chmod go-w" in found["cache"]["advice"]
    assert bmcli("doctor").code == 1
    assert list((tmp_path / "open").iterdir()) == []


def test_doctor_answers_where_no_folder_can_be_written(tmp_path: Path) -> None:
    code = (
        "import os, resource\nfrom bmcli.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nos.access = lambda path, mode: False\nmain()"
    )
    # Pipes, since files of captured output could not be written either.
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["temporary files"]["mark"] == "missing"
    assert "TMPDIR" in checks["temporary files"]["advice"]
    # Another folder may be used where training starts.
    assert checks["runs"]["mark"] == "note"
    assert "BMCLI_RUNS" in checks["runs"]["advice"]


def test_wrong_usage_is_one_fault_and_exit_2(bmcli: Bmcli) -> None:
    done = bmcli("train", "--json")
    assert done.code == 2
    assert len(done.json()["faults"]) == 1
    assert bmcli("trian").code == 2


def test_without_a_command_the_help_is_shown_as_it_stands(bmcli: Bmcli) -> None:
    done = bmcli()
    assert (done.code, done.err) == (2, "")
    assert done.out == bmcli("--help").out
    assert "\n  train " in done.out
    assert bmcli("--json").json()["faults"][0]["message"] == "COMMAND is required."


def test_an_unknown_recipe_names_the_nearest(bmcli: Bmcli) -> None:
    done = bmcli("train", "digts")
    assert done.code == 2
    assert "Did you mean 'digits'?" in done.err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("bmcli tr", "train"),
        ("bmcli train dig", "digits"),
        ("bmcli train digits model.kind=tr", "model.kind=transformer"),
    ],
)
def test_the_shell_completes_verbs_recipes_and_kinds(words: str, offered: str) -> None:
    environment = {
        **os.environ,
        "_BMCLI_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from bmcli.cli import cli; cli(prog_name='bmcli')"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert f"plain,{offered}" in done.stdout.splitlines()


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m bmcli schema | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_text_outside_the_locale_is_printed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "ü.yaml").write_text("näme: 1\n")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "bmcli", "validate", "ü.yaml"],
        capture_output=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_yaml_of_the_shipped_recipes_is_plain_yaml() -> None:
    assert all(isinstance(yaml.safe_load(path.read_text()), dict) for path in list_built_in().values())


def test_a_copy_for_which_there_is_no_room_leaves_nothing(bmcli: Bmcli, tmp_path: Path, small_files: Any) -> None:
    small_files(300)  # its output on stderr fits
    done = bmcli("cp", "iris", "mine.yaml")
    small_files(resource.RLIM_INFINITY)
    assert done.code == 1
    assert "mine.yaml: file too large; " in done.err
    assert "bytes were to be written" in done.err
    assert not list(tmp_path.glob("*"))


def test_a_recipe_for_which_there_is_no_room_is_named_as_it_was_asked_for(
    bmcli: Bmcli, tmp_path: Path, small_files: Any
) -> None:
    (tmp_path / "table.csv").write_text("size,price\n1,2\n3,4\n5,7\n6,6\n9,2\n")
    small_files(700)
    done = bmcli("init", "table.csv", "--target", "price", "--output", "mine.yaml")
    small_files(resource.RLIM_INFINITY)
    assert done.code == 1
    assert done.err.startswith("mine.yaml: file too large; ")
    assert not list(tmp_path.glob("*mine*"))


def test_a_table_that_does_not_fit_into_the_cache_names_the_cache(
    bmcli: Bmcli, tmp_path: Path, cache: Path, small_files: Any
) -> None:
    (tmp_path / "table.csv").write_text("size,price\n" + "".join(f"{i},{2.5 * i}\n" for i in range(3000)))
    small_files(2000)
    done = bmcli("init", "table.csv", "--target", "price")
    small_files(resource.RLIM_INFINITY)
    assert done.code == 1
    assert done.err.startswith(f"{cache}: file too large; ")
    assert [each.name for each in tmp_path.glob("*")] == ["table.csv"]
