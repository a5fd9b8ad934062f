"""Whatever a file or the command line holds, reading it gives a recipe or faults with places, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bmcli.errors import BmcliError
from bmcli.recipe.load import LoadedRecipe, list_built_in, load_recipe
from tests.recipe.files import SMALLEST, write
from tests.recipe.test_check import TEN

PIECES = (
    *(b"\t", b"\n", b"\r", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\x1b"),
    *(b"&a ", b"*a", b"!!int ", b"!x ", b"<<: ", b"? ", b"- ", b": ", b"#", b"|", b">", b"%YAML 1.1\n", b"---\n"),
    *(b"{", b"}", b"[", b"]", b",", b"'", b'"', b"\\", b'"\\U00110000"', b'"\\ud800"', b'"\\0"', b"\\x", b"$", b"${"),
    *(b"null", b"true", b".nan", b"1e999", b"-0", b"1e-3", b"9" * 60, b"0x", b"2001-99-99", b"1:30", b"[" * 60),
    *(b"kind: mlp", b"kind: layers", b"extends: recipe.yaml", b"extends: digits", b"vars: {a: 1}", b"${a}", b"0: 1"),
    *(b"name: ..", b"{a: " * 60, b"...\n"),
)  # fmt: skip


def sources() -> list[bytes]:
    return [SMALLEST.encode(), TEN.encode(), *(file.read_bytes() for file in list_built_in().values())]


def mutated(text: bytes, chance: random.Random) -> bytes:
    """The text with a few pieces put in, taken out, doubled or moved."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((1, 1, 2, 5, 40)))
        choice = chance.randrange(5)
        if choice == 0:
            text = text[:start] + chance.choice(PIECES) + text[start:]
        elif choice == 1:
            text = text[:start] + chance.choice(PIECES) + text[end:]
        elif choice == 2:
            text = text[:start] + text[end:]
        elif choice == 3:
            text = text[:end] + text[start:]
        else:
            to = chance.randrange(len(text) + 1)
            text = text[:to] + text[start:end] + text[to:]
    return text


def check_one(file: Path, data: bytes, overrides: tuple[str, ...] = ()) -> None:
    file.write_bytes(data)
    outcome = read(file, overrides)
    is_fault = isinstance(outcome, BmcliError) and all(fault.message and fault.place for fault in outcome.faults)
    assert is_fault or isinstance(outcome, LoadedRecipe), (data, overrides, outcome)


def read(file: Path, overrides: tuple[str, ...]) -> LoadedRecipe | Exception:
    try:
        return load_recipe(str(file), overrides)
    except Exception as error:
        return error


def check_many(folder: Path, count: int, seed: int) -> None:
    chance, texts = random.Random(seed), sources()
    for _ in range(count):
        check_one(folder / "recipe.yaml", mutated(chance.choice(texts), chance))


def test_a_mutated_recipe_is_read_or_refused(tmp_path: Path) -> None:
    check_many(tmp_path, 400, seed=1)


@pytest.mark.slow
def test_many_mutated_recipes_are_read_or_refused(tmp_path: Path) -> None:
    check_many(tmp_path, 20_000, seed=2)


OVERRIDES = (
    *(b"train.epochs=3", b"model.hidden=[8,16]", b"model=cnn", b"model.kind=cnn", b'data.inputs."a.b".kind=number'),
    *(b"evaluate.gates.accuracy=>= 0.9", b"vars.a=1", b"train.stop={patience: 3}", b"data.source.path=x", b"name=a"),
)


def test_mutated_overrides_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(400):
        arguments = [mutated(chance.choice(OVERRIDES), chance) for _ in range(2)]
        overrides = tuple(argument.decode("utf-8", "surrogateescape") for argument in arguments)
        check_one(tmp_path / "recipe.yaml", SMALLEST.encode(), overrides)


@pytest.mark.parametrize(
    "value", ["null", "3", "[]", "{}", "[[]]", "{a: {}}", "'x'", "[null]", "{kind: null}", "{kind: {}}"]
)
def test_a_value_of_any_type_anywhere_is_read_or_refused(tmp_path: Path, value: str) -> None:
    lines = [line for line in TEN.splitlines() if not line.startswith("#")]
    for position, line in enumerate(lines):
        changed = [*lines[:position], line.partition(":")[0] + ": " + value, *lines[position + 1 :]]
        check_one(tmp_path / "recipe.yaml", "\n".join(changed).encode())


def test_a_base_of_any_kind_is_read_or_refused(tmp_path: Path) -> None:
    chance, texts = random.Random(4), sources()
    for _ in range(100):
        write(tmp_path, "", "base.yaml")
        (tmp_path / "base.yaml").write_bytes(mutated(chance.choice(texts), chance))
        check_one(
            tmp_path / "recipe.yaml", b"extends: base.yaml\nmodel: {kind: mlp, hidden: {0: 3}}\ntrain: {stop: null}\n"
        )
