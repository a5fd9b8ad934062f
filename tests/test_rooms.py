"""Laws of the package as a whole: names, rooms, and the parts that a room opens without importing them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import bmcli
from bmcli import parts

ROOT = Path(bmcli.__file__).parent
TREES = {file.relative_to(ROOT): ast.parse(file.read_text()) for file in sorted(ROOT.rglob("*.py"))}

# The recipe language asks parts for their options alone, which are light: see the last test.
OPENED_BY_RECIPES = {
    "augmentations", "compression.methods", "data.sources", "data.targets", "distillation.losses", "export.formats",
    "inputs", "models", "objectives", "tokens",
}  # fmt: skip
HEAVY = {"tensorflow", "keras", "keras_tuner", "sklearn", "matplotlib", "bmcli.training", "bmcli.layers"}


def opened_parts() -> list[tuple[str, str]]:
    """Each room of the package with a room of parts that one of its modules opens by name."""
    found = []
    for path, tree in TREES.items():
        room = path.parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = ast.unparse(node.func)
            if called in ("parts.load", "parts.names", "PartField") and isinstance(node.args[0].value, str):
                found.append((room, node.args[0].value))
    return found


def test_no_two_classes_have_one_name() -> None:
    names = Counter(
        node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )  # fmt: skip
    del names["Options"], names["State"]  # of each kind of part
    assert len(names) > 300
    assert [name for name, count in names.items() if count > 1] == []


def test_no_function_or_parameter_has_the_name_of_a_builtin() -> None:
    taken = {"format", "input", "bytes", "range", "hash", "vars", "next", "type", "id", "list", "filter", "map", "max"}
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                found += [f"{path}:{node.lineno} {each.arg}" for each in arguments if each.arg in taken]
    assert not found


def test_only_the_terminal_and_messages_print() -> None:
    answering = {Path("export/runner.py"), Path("networks/rehearsal.py")}  # processes that answer on standard output
    found = []
    for path, tree in TREES.items():
        if path.parts[0] in ("terminal", "messages.py") or path in answering:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                printed = ast.unparse(node) in ("print", "sys.stdout.write", "sys.stderr.write")
                found += [f"{path}:{node.lineno}"] if printed else []
    assert not found


def documented(docstring: str | None) -> set[str]:
    """The names that a docstring describes below `Args:`."""
    described = (docstring or "").partition("Args:")[2].partition("\n\n")[0]
    found = re.findall(r"^    ((?:\w+, )*\w+): ", described, flags=re.MULTILINE)
    return {name for names in found for name in names.split(", ")}


def test_docstrings_describe_arguments_that_are_there() -> None:
    wrong, count = [], 0
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            names = documented(ast.get_docstring(node))
            count += len(names)
            made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            known = {field.id for field in fields if isinstance(field, ast.Name)}
            for function in [node] if isinstance(node, ast.FunctionDef) else made:
                arguments = function.args
                listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                known |= {each.arg for each in [*listed, arguments.vararg, arguments.kwarg] if each is not None}
            if known:  # an exception or a field type may have none of its own
                wrong += [f"{path}:{node.lineno} {node.name}: {name}" for name in sorted(names - known)]
    assert count > 1000
    assert not wrong


def test_rooms_open_only_parts_that_lie_below_them() -> None:
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layer = {room: place for place, line in enumerate(contracts[0]["layers"]) for room in line.split(" | ")}
    opened = opened_parts()
    assert len(opened) > 20
    for room, part in opened:
        if room == "recipe":
            assert part in OPENED_BY_RECIPES
        elif part.partition(".")[0] != room:
            assert layer[room] < layer[part.partition(".")[0]], f"{room} opens {part}"


@pytest.mark.parametrize("part", sorted(OPENED_BY_RECIPES))
def test_what_recipes_open_is_light(part: str) -> None:
    code = (
        f"import sys; from bmcli import parts; [parts.load({part!r}, kind).Options for kind in parts.names({part!r})]\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert parts.names(part)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
