"""Kinds of inputs and targets own themselves: no other room compares them, or has classes as a switch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bmcli
from bmcli import parts

ROOT = Path(bmcli.__file__).parent

OWN_ROOMS = (("inputs",), ("data", "targets"), ("objectives",))
KINDS = {*parts.list_built_in("inputs"), *parts.list_built_in("data.targets")}


def is_kind(node: ast.expr) -> bool:
    """Whether an expression is the kind of something, such as `column.kind`, `kind` or `column["kind"]`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "kind"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name == "kind" or name == "kinds" or name.endswith("_kind")


def names_kind(node: ast.expr) -> bool:
    """Whether an expression is a literal that names a kind of input or target, or a collection or mapping of some."""
    if isinstance(node, ast.Dict):
        return any(key is not None and names_kind(key) for key in node.keys)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(names_kind, node.elts))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in KINDS


def find_comparisons(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that compare a kind with that of an input or target, or look one up in a mapping of them."""
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
        if any(map(is_kind, sides)) and any(map(names_kind, sides)):
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


def find_switches(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that branch on whether a column has classes."""
    for node in ast.walk(tree):
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) | ast.Assert(test=test):
                tests = [test]
            case ast.BoolOp(values=values):
                tests = values[:-1] if isinstance(node.op, ast.Or) else values
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                tests = [operand]
            case ast.comprehension(ifs=ifs):
                tests = ifs
            case ast.Call(func=ast.Name(id="bool" | "all" | "any" | "filter"), args=tests):
                pass
            case _:
                continue
        if any(isinstance(each, ast.Attribute) and each.attr == "classes" for each in tests):
            yield node.lineno if hasattr(node, "lineno") else tests[0].lineno


@pytest.mark.parametrize(
    "code",
    [
        "if column.classes:\n    pass",
        "1 if column.classes else 2",
        "not column.classes",
        "[column for column in columns if column.classes]",
        "len(column.classes) if column.classes and x else 0",
        "column.classes or ('a',)",
        "bool(column.classes)",
    ],
)
def test_a_switch_is_found(code: str) -> None:
    assert list(find_switches(ast.parse(code)))


def test_other_uses_of_classes_are_none() -> None:
    assert not list(find_switches(ast.parse("len(column.classes)\nfor name in column.classes:\n    name")))


def iterate_other_files() -> Iterator[tuple[Path, ast.AST]]:
    """Yield the modules outside of the rooms of the parts, by their path in the package."""
    for file in sorted(ROOT.rglob("*.py")):
        path = file.relative_to(ROOT)
        if not any(path.parts[: len(room)] == room for room in OWN_ROOMS):
            yield path, ast.parse(file.read_text(encoding="utf-8"))


def test_no_other_room_compares_the_kind_of_an_input_or_a_target() -> None:
    assert len(KINDS) > 8
    files = list(iterate_other_files())
    assert len(files) > 300
    assert [f"{path} {function}" for path, tree in files for function in find_functions(tree)] == []


def test_no_other_room_has_classes_as_a_switch() -> None:
    assert [f"{path}:{line}" for path, tree in iterate_other_files() for line in find_switches(tree)] == []
