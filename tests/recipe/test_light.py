"""Checking a recipe imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.recipe.files import write
from tests.recipe.test_check import TEN

PROGRAM = """
import sys
from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe
try:
    load_recipe(sys.argv[1])
except BmcliError as error:
    assert len(error.faults) > 10
heavy = ("tensorflow", "keras", "keras_tuner", "numpy", "pyarrow", "sklearn", "matplotlib", "rich", "click", "jinja2")
print([name for name in heavy if name in sys.modules])
"""


def imported(file: str) -> str:
    return subprocess.run([sys.executable, "-c", PROGRAM, file], capture_output=True, text=True, check=True).stdout


def test_reporting_faults_imports_nothing_heavy(tmp_path: Path) -> None:
    assert imported(write(tmp_path, TEN)) == "[]\n"


SOUND = """\
name: a
data:
  source: {kind: csv, path: a.csv}
  inputs: {a: number, b: category, c: image}
  targets: {label: category, price: number}
model: transformer
"""


def test_accepting_a_recipe_imports_nothing_heavy(tmp_path: Path) -> None:
    assert imported(write(tmp_path, SOUND)) == "[]\n"
