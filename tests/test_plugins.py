"""Parts of a user's own: from an installed package or from a file, in every verb and every process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmcli import parts, plugins, stopping
from bmcli.advice import make_command
from bmcli.errors import BmcliError

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
FAMILY, OBJECTIVE = (block for block in BLOCKS if "PARTS = " in block)
"""The complete family and the complete objective that the page shows."""

RECIPE = {
    "name": "sines",
    "data": {"source": {"kind": "builtin", "name": "iris"}},
    "model": {"kind": "sine", "units": 8},
    "train": {"epochs": 2},
}
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Runs `bmcli` in a process of its own, in a folder that has `recipe.yaml`, with packages in `site`."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    own = {name: str(tmp_path / name) for name in ("BMCLI_CACHE", "BMCLI_RUNS", "XDG_CONFIG_HOME")}
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bmcli", *map(str, arguments)],
            env={**os.environ, **own, "PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "sine.py"
    file.write_text(FAMILY)
    return file


def install(site: Path, distribution: str, points: str, modules: dict[str, str]) -> None:
    """Put a package where `pip install --target` would."""
    site.mkdir(exist_ok=True)
    for name, content in modules.items():
        (site / f"{name}.py").write_text(content)
    info = site / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[bmcli.parts]\n{points}\n")


def find_lock(tmp_path: Path) -> dict[str, Any]:
    (lock,) = (tmp_path / "BMCLI_RUNS/sines").glob("2*/recipe.lock.yaml")
    content: dict[str, Any] = yaml.safe_load(lock.read_text())
    return content


def test_a_file_is_a_plug_in_for_every_verb(call: Call, plugin: Path, tmp_path: Path) -> None:
    trained = call("--plugin", plugin, "train", "recipe.yaml", "--json")
    assert trained.returncode == 0, trained.stderr
    recorded = find_lock(tmp_path)["plugins"]["models.sine"]
    assert recorded["source"] == str(plugin)
    assert len(recorded["sha256"]) == 64
    evaluated = call("--plugin", plugin, "evaluate", "sines", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads(trained.stdout)["metrics"]
    assert json.loads(evaluated.stdout)["metrics"].items() <= metrics.items()
    exported = call("--plugin", plugin, "export", "sines", "--json")
    assert exported.returncode == 0, exported.stderr
    resumed = call("--plugin", plugin, "train", "--resume", "sines", "train.epochs=3", "--json")
    assert resumed.returncode == 0, resumed.stderr


def test_an_objective_is_a_plug_in_for_every_verb(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "shortage.py"
    file.write_text(OBJECTIVE)
    recipe = {
        **RECIPE, "name": "orders", "data": {"source": {"kind": "builtin", "name": "diabetes"}}, "model": "mlp",
        "objective": {"kind": "shortage", "price": 9.0}, "train": {"epochs": 30, "tensorboard": False},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    trained = call("--plugin", file, "train", "recipe.yaml", "--json")
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads(trained.stdout)["metrics"]
    assert list(metrics)[-4:] == ["test/cost", "test/mae", "test/rmse", "test/r2"]
    assert metrics["test/mae"] < metrics["test/cost"] < 3 * metrics["test/mae"], "nearly all predictions are too high"
    exported = call("--plugin", file, "export", "orders", "--formats", "saved_model", "--json")
    assert exported.returncode == 0, exported.stderr


def test_processes_that_a_search_starts_have_the_plug_in(call: Call, plugin: Path, tmp_path: Path) -> None:
    space = {"model.units": {"choice": [4, 8]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "tune": {"space": space, "trials": 2}}))
    found = call("--plugin", plugin, "tune", "recipe.yaml", "--workers", "2", "--json")
    assert found.returncode == 0, found.stderr
    assert [trial["state"] for trial in json.loads(found.stdout)["trials"]] == ["done", "done"]


def test_a_run_without_its_plug_in_names_it(call: Call, plugin: Path) -> None:
    assert call("--plugin", plugin, "train", "recipe.yaml").returncode == 0
    done = call("evaluate", "sines")
    assert done.returncode == 2
    assert f"models.sine comes from the plug-in '{plugin}', which was not given." in done.stderr
    assert f"Write `bmcli --plugin {plugin} COMMAND ...`." in done.stderr


def test_a_list_of_files_that_is_none_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.FILES_VARIABLE, "a.py:b.py")
    with pytest.raises(BmcliError, match="BMCLI_PLUGINS: expected a JSON list of files"):
        plugins.list_plugin_files()


def test_the_advice_how_to_resume_repeats_the_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    command = make_command("train", "--resume", "x")
    assert stopping.format_resume_advice(command) == "Continue with `bmcli train --resume x`."
    monkeypatch.setenv(plugins.FILES_VARIABLE, '["/a:b.py", "/c d.py"]')
    assert stopping.format_resume_advice(command) == (
        "Continue with `bmcli --plugin /a:b.py --plugin '/c d.py' train --resume x`."
    )


def test_the_list_of_a_room_has_built_in_kinds_and_those_of_plug_ins(call: Call, plugin: Path) -> None:
    built_in = json.loads(call("ls", "models", "--json").stdout)["kinds"]
    all_kinds = json.loads(call("--plugin", plugin, "ls", "models", "--json").stdout)["kinds"]
    assert [each["kind"] for each in built_in] == sorted(parts.list_built_in("models"))
    assert all(each["headline"] and not each["plugin"] for each in built_in)
    (added,) = [each for each in all_kinds if each["plugin"]]
    assert (added["kind"], added["plugin"]) == ("sine", str(plugin))
    wrong = call("ls", "modls")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean 'models'?" in wrong.stderr


def test_a_run_with_another_plug_in_warns(call: Call, plugin: Path) -> None:
    assert "warning: the code" not in call("--plugin", plugin, "train", "recipe.yaml").stderr
    assert "warning: the code" not in call("--plugin", plugin, "evaluate", "sines").stderr
    plugin.write_text(f"{FAMILY}# changed\n")
    changed = f"the code of models.sine in the plug-in {plugin} differs from the code that the run was made with."
    for command in (("evaluate", "sines"), ("train", "--resume", "sines", "train.epochs=3")):
        done = call("--plugin", plugin, *command)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(changed) == 1


def test_a_recipe_alone_loads_no_code(call: Call, plugin: Path, tmp_path: Path) -> None:
    plugin.write_text("import pathlib; pathlib.Path('loaded').touch()\n" + FAMILY)
    origin = {"source": str(plugin), "version": "", "sha256": "0" * 64}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "plugins": {"models.sine": origin}}))
    assert call("validate", "recipe.yaml").returncode == 2
    assert call("train", "recipe.yaml", f"plugins={{models.sine: {{source: {plugin}, sha256: a}}}}").returncode == 2
    assert not (tmp_path / "loaded").exists()


def test_an_installed_package_is_a_plug_in(call: Call, tmp_path: Path) -> None:
    install(tmp_path / "site", "sine-family", "models.sine = sine_family", {"sine_family": FAMILY})
    trained = call("train", "recipe.yaml")
    assert trained.returncode == 0, trained.stderr
    recorded = find_lock(tmp_path)["plugins"]["models.sine"]
    assert (recorded["source"], recorded["version"]) == ("sine-family", "1.2")
    assert "Units of the hidden layer." in call("schema").stdout
    checks = json.loads(call("doctor", "--json").stdout)["checks"]
    (check,) = (check for check in checks if check["name"] == "plug-in models.sine")
    assert check["found"].startswith("sine-family 1.2, sha256 ")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "model": {"kind": "sin"}}))
    assert "Did you mean 'sine'?" in call("validate", "recipe.yaml").stderr


@pytest.mark.parametrize(
    ("points", "content", "message"),
    [
        ("models.mlp = other", FAMILY, "'models.mlp' is a built-in part"),
        ("perceiver = other", FAMILY, "'perceiver' is not a part"),
        ("models.sine = other", "", "plug-in 'models.sine' has no Options"),
        ("models.sine = other", "Options = int", "plug-in 'models.sine' has no Options"),
        ("models.sine = missing", FAMILY, "plug-in 'models.sine' cannot be loaded: ModuleNotFoundError"),
        ("models.sine = other", "1 / 0", "plug-in 'models.sine' cannot be loaded: ZeroDivisionError"),
    ],
)
def test_a_bad_package_is_named(call: Call, tmp_path: Path, points: str, content: str, message: str) -> None:
    install(tmp_path / "site", "other-family", points, {"other": content})
    done = call("validate", "recipe.yaml")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "other" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_packages_with_one_part_are_named(call: Call, tmp_path: Path) -> None:
    for name in ("first", "second"):
        install(tmp_path / "site", name, f"models.sine = {name}", {name: FAMILY})
    done = call("validate", "recipe.yaml")
    assert done.returncode == 2
    assert "two plug-ins have a part 'models.sine': 'first' and 'second'" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "has no parts. Define PARTS"),
        ("PARTS = {}", "has no parts. Define PARTS"),
        ("PARTS = {'models.mlp': 1}", "'models.mlp' is a built-in part"),
        ("import nowhere", "cannot be loaded: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("1 +", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_bad_file_is_named(call: Call, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "bad.py"
    if content is not None:
        file.write_text(content)
    done = call("--plugin", file, "validate", "recipe.yaml")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_of_built_in_parts_looks_for_no_plug_in(call: Call, tmp_path: Path) -> None:
    install(tmp_path / "site", "broken", "nonsense = broken", {"broken": "1 / 0"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "model": "mlp"}))
    assert call("validate", "recipe.yaml").returncode == 0
