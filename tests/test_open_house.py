"""Kinds of inputs own themselves: no other room compares the kind of an input."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bmcli
from bmcli import parts

ROOT = Path(bmcli.__file__).parent

# Rooms and functions whose columns are targets, which have kinds of the same names.
ROOMS_OF_TARGETS = ("evaluation", "objectives")
FUNCTIONS_OF_TARGETS = {
    *("commands/init.py _list_notes", "data/checks.py _find_imbalances", "data/profiling/roles.py drop_leaks"),
    *("export/card.py _describe_target", "export/schema.py _check_classes", "models/layers.py _finish_output"),
    *("reports/run.py _describe_context", "workflows/evaluation.py _choose_fairness_target"),
    *("workflows/learners.py compare_learners",),
}
KINDS = set(parts.list_built_in("inputs"))


def is_kind(node: ast.expr) -> bool:
    """Whether an expression is the kind of something, such as `column.kind`, `kind` or `column["kind"]`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "kind"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name == "kind" or name == "kinds" or name.endswith("_kind")


def names_input(node: ast.expr) -> bool:
    """Whether an expression is a literal that names a kind of input, or a collection or mapping of some."""
    if isinstance(node, ast.Dict):
        return any(key is not None and names_input(key) for key in node.keys)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(names_input, node.elts))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in KINDS


def find_comparisons(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that compare a kind with a kind of input, or look one up in a mapping of them."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others):
                sides = [left, *others]
            case ast.Subscript(value=ast.Dict() as mapping, slice=key):
                sides = [mapping, key]
            case ast.Call(func=ast.Attribute(value=ast.Dict() as mapping, attr="get"), args=[key, *_]):
                sides = [mapping, key]
            case ast.Match(subject=subject, cases=cases):
                values = [each for case in cases for each in ast.walk(case.pattern) if isinstance(each, ast.MatchValue)]
                sides = [subject, *(each.value for each in values)]
            case _:
                continue
        if any(map(is_kind, sides)) and any(map(names_input, sides)):
            yield node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "column.kind == 'image'",
        "'date' != column.kind",
        "column.kind in ('text', 'x')",
        "column['kind'] not in {'category'}",
        "a.kind == b.kind == 'image'",
        "{'number': 1}[column.kind]",
        "{'boolean': 1}.get(column.kind, 2)",
        "profile.likely_kind == 'date'",
        "match column.kind:\n  case 'number' | 'x':\n    pass",
    ],
)
def test_a_comparison_is_found(code: str) -> None:
    assert list(find_comparisons(ast.parse(code)))


@pytest.mark.parametrize("code", ["column.kind == 'huber'", "array.dtype.kind == 'f'", "role == 'text'"])
def test_other_comparisons_are_none(code: str) -> None:
    assert not list(find_comparisons(ast.parse(code)))


def find_classes_of_inputs(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that read the classes of a column inside a loop over some `inputs`."""
    for node in ast.walk(tree):
        match node:
            case ast.For():
                loops: list[ast.For | ast.comprehension] = [node]
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                loops = [*node.generators]
            case _:
                continue
        names = {
            loop.target.id
            for loop in loops
            if isinstance(loop.target, ast.Name) and isinstance(loop.iter, ast.Attribute) and loop.iter.attr == "inputs"
        }
        for inner in ast.walk(node):
            match inner:
                case ast.Attribute(attr="classes", value=ast.Name(id=name)) if name in names:
                    yield inner.lineno


def find_functions(tree: ast.AST) -> Iterator[str]:
    """Yield the name of the innermost function of each comparison, empty outside of functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for line in find_comparisons(tree):
        around = [each for each in functions if each.lineno <= line <= (each.end_lineno or 0)]
        yield max(around, key=lambda each: each.lineno).name if around else ""


def test_classes_of_an_input_are_found() -> None:
    assert list(find_classes_of_inputs(ast.parse("for column in spec.inputs:\n    print(column.classes)"))) == [2]
    assert not list(find_classes_of_inputs(ast.parse("[column.classes for column in spec.targets]")))


def test_no_room_but_that_of_inputs_reads_the_classes_of_an_input() -> None:
    found = [
        f"{file}:{line}"
        for file in sorted(ROOT.rglob("*.py"))
        if file.parent.name != "inputs"
        for line in find_classes_of_inputs(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_no_room_but_that_of_inputs_compares_the_kind_of_an_input() -> None:
    assert len(KINDS) > 5
    files = {file.relative_to(ROOT): file for file in sorted(ROOT.rglob("*.py"))}
    found = {
        f"{path} {function}"
        for path, file in files.items()
        if path.parts[0] not in ("inputs", *ROOMS_OF_TARGETS)
        for function in find_functions(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert len(files) > 300
    assert found - FUNCTIONS_OF_TARGETS == set()
