"""Help, options, messages, docstrings, comments and names are in standard English: no words that puzzle a stranger."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import bmcli
from bmcli.cli import cli
from bmcli.recipe.json_schema import make_recipe_schema

FORBIDDEN = (
    *("told", "tells?", "telling", "anew", "asked", "asks?", "said", "says?", "hears?", "heard", "whom", "nobody"),
    *("deals?", "dealt", "dealing", "so many", "so often", "by heart", "go on", "goes on", "going on", "gone on"),
    *("just that", "surest", "doubtful", "rightly", "laid over", "in the place of", "learned from", "taken for"),
    *("taught", "judged?", "judging", "weighs?", "weighed"),
)
WORD = re.compile(rf"\b(?:{'|'.join(FORBIDDEN)})\b", re.IGNORECASE)
NAME = re.compile(r"(?:^|_)(?:told|asked|said|anew|dealt|taught|judged?|weigh|heard)(?:_|$)")
PATTERN = re.compile(
    rf"{WORD.pattern}"
    r"|(?<!such )\bas [\[{]"  # "such as" stands before an example
    r"|^(?:What|Who)\b",  # a description begins with a noun or a verb
    re.IGNORECASE,
)


def list_commands(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the context of a command and of all commands below it."""
    context = click.Context(command, parent, command.name, terminal_width=200)
    yield context
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from list_commands(child, context)


CONTEXTS = {context.command_path: context for context in list_commands(cli)}


def list_descriptions(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "description" and isinstance(value, str):
                yield value
            else:
                yield from list_descriptions(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from list_descriptions(item)


def find_faults(texts: Iterator[str]) -> list[str]:
    return [f"'{found[0]}' in: {text}" for text in texts if (found := PATTERN.search(" ".join(text.split())))]


@pytest.mark.parametrize(
    "text", ["What it is.", "It is told.", "Tells it.", "Train\nso\nmany.", "Dealt, as {kind: l2}."]
)
def test_the_pattern_finds_a_word_in_a_text(text: str) -> None:
    assert find_faults(iter([text]))


def test_the_pattern_allows_standard_words() -> None:
    assert find_faults(iter(["The ideal price, such as {a: 1}, retold in detail; a task is what is masked."])) == []


@pytest.mark.parametrize("path", CONTEXTS)
def test_help_is_in_standard_words(path: str) -> None:
    assert find_faults(iter(CONTEXTS[path].get_help().split("\n\n"))) == []


def test_every_command_and_option_is_explained() -> None:
    commands = [context.command for context in CONTEXTS.values()]
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    assert len(commands) > 15
    assert [command.name for command in commands if not command.help] == []
    assert [option.name for option in options if not (option.help or option.hidden)] == []


def test_the_list_of_commands_cuts_no_sentence() -> None:
    listing = cli.get_help(click.Context(cli, info_name="bmcli", terminal_width=80))
    assert "..." not in listing.partition("Prepare:")[2].replace("ONNX, ...", "")


def test_each_command_is_listed_in_one_section() -> None:
    listed = [command.name for commands in cli.sections.values() for command in commands]
    assert sorted(map(str, listed)) == sorted(cli.commands)


def test_the_schema_is_in_standard_words() -> None:
    descriptions = sorted(set(list_descriptions(make_recipe_schema())))
    assert len(descriptions) > 1000
    assert find_faults(iter(descriptions)) == []


PACKAGE = Path(bmcli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TEMPLATES = sorted(PACKAGE.rglob("*.html"))


def list_words(module: Path) -> Iterator[str]:
    """Yield the texts and comments of a module in which a word puzzles, and the names that do."""
    for token in tokenize.generate_tokens(io.StringIO(module.read_text(encoding="utf-8")).readline):
        text = " ".join(token.string.split())
        pattern = NAME if token.type == tokenize.NAME else WORD
        if token.type in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT) and pattern.search(text):
            yield text


def test_a_word_is_found_in_a_text_a_comment_and_a_name(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('told = "It says so."  # anew\nretold = "a task"  # essay\n')
    assert list(list_words(module)) == ["told", '"It says so."', "# anew"]


def test_the_package_is_in_standard_words() -> None:
    assert len(MODULES) > 300
    assert [f"{module.relative_to(PACKAGE)}: {text}" for module in MODULES for text in list_words(module)] == []


def test_the_pages_of_reports_are_in_standard_words() -> None:
    assert len(TEMPLATES) > 5
    assert [page.name for page in TEMPLATES if WORD.search(page.read_text(encoding="utf-8"))] == []
