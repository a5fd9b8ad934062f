"""README, docs/ and the list of recipes are true: commands parse, recipes are valid, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from bmcli import errors, stopping
from bmcli.cli import cli
from bmcli.recipe import nodes
from bmcli.recipe.load import list_built_in, load_recipe
from tests.recipe.files import write
from tests.recipe.strategies import schema
from tests.recipe.test_render import as_lists
from tests.recipes_readme import write_readme

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LISTED = ROOT / "recipes" / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), LISTED]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`bmcli ([^`]+)`")
SECTIONS = {"bmcli", "name", "extends", "vars", "seed", "data", "model", "objective", "train", "runtime", "evaluate",
            "tune", "distill", "export"}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A command or a recipe in a page."""

    page: Path
    text: str
    shown: str = ""
    """What the page prints below a command."""

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.splitlines()[0][:60]}"


def _blocks(page: Path, language: str) -> Iterator[str]:
    return (block for kind, block in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language)


def _console_commands() -> Iterator[Example]:
    """Each call of bmcli in a console block, without what stands around it on its line."""
    for page in PAGES:
        for block in _blocks(page, "console"):
            for prompt in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, shown = prompt.partition("\n")
                for call in re.split(r"\s&&\s|;\s|\s\|\s", line):
                    words = list(takewhile(lambda word: word != ">", shlex.split(call, comments=True)))
                    if words and Path(words[0]).name == "bmcli":
                        yield Example(page, shlex.join(words[1:]), shown)


def _split_command(example: Example) -> list[str]:
    """The verb of a command and its arguments, without the plug-ins that are named before them."""
    words = shlex.split(example.text)
    while words[0] == "--plugin":
        words = words[2:]
    return words


def _inline_commands() -> Iterator[Example]:
    """Each mention of a verb or an option of it within a sentence or a table."""
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        yield from (Example(page, found.replace("\\|", "|")) for found in INLINE.findall(text))


def _yaml(whole: bool) -> list[Example]:
    """Recipes of the pages: whole ones, or fragments of one."""
    found = [Example(page, block) for page in PAGES for block in _blocks(page, "yaml")]
    recipes = [example for example in found if set(_read(example.text)) <= SECTIONS]
    return [example for example in recipes if _is_whole(_read(example.text)) == whole]


def _is_whole(recipe: dict[str, Any]) -> bool:
    return "extends" in recipe or {"data", "model"} <= set(recipe)


def _read(text: str) -> dict[str, Any]:
    """The first document of a block; that of Kubernetes has several."""
    found = as_lists(nodes.parse_tree(text.split("\n---\n")[0], "", Path()).plain())
    assert isinstance(found, dict)
    return found


COMMANDS, MENTIONS = list(_console_commands()), list(_inline_commands())
RECIPES, FRAGMENTS = _yaml(whole=True), _yaml(whole=False)


def test_there_are_documents_to_check() -> None:
    assert len(PAGES) >= 13
    assert len(COMMANDS) >= 40
    assert len(MENTIONS) >= 30
    assert len(RECIPES) >= 4
    assert len(FRAGMENTS) >= 12


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 9216


def test_the_readme_installs_as_the_checks_of_a_clone_do() -> None:
    """Two commands do all the set-up: one installs and trains on embedded data, one runs the tests."""
    commands = "".join(_blocks(README, "console"))
    assert (
        "$ python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt . "
        "&& .venv/bin/bmcli train recipes/images/digits.yaml\n"
    ) in commands
    assert "$ .venv/bin/pip install -q -c constraints.txt '.[test]' && .venv/bin/pytest -n 2\n" in commands


def test_the_readme_shows_the_five_verbs() -> None:
    shown = {shlex.split(example.text)[0] for example in COMMANDS if example.page == README and example.shown}
    assert {"train", "tune", "evaluate", "distill", "export"} <= shown


def test_the_list_of_recipes_is_what_its_script_prints() -> None:
    assert LISTED.read_text(encoding="utf-8") == write_readme(), "python -m tests.recipes_readme > recipes/README.md"


def test_every_recipe_is_listed() -> None:
    text = LISTED.read_text(encoding="utf-8")
    assert [name for name in list_built_in() if f"| [{name}](" not in text] == []


def test_the_data_of_every_recipe_has_a_licence() -> None:
    text = LISTED.read_text(encoding="utf-8")
    files = [file.name for file in (ROOT / "recipes").glob("*/data/*")]
    assert files
    assert [name for name in files if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("example", COMMANDS, ids=str)
def test_a_command_parses(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.recipe.addresses.allow_typed", lambda argument: None)  # lasts as long as the process
    verb, *arguments = _split_command(example)
    assert verb in cli.commands, f"no such command: bmcli {verb}"
    cli.commands[verb].make_context(verb, arguments)


@pytest.mark.parametrize(
    "example",
    # The parts of plug-ins are in no built-in recipe; test_plugins.py trains with the one of the page.
    [each for each in COMMANDS if "no such key" not in each.shown and not each.text.startswith("--plugin")],
    ids=str,
)
def test_overrides_of_a_command_are_valid(example: Example) -> None:
    """In the built-in recipe that is named, or else in one that the verb fits."""
    verb, *arguments = shlex.split(example.text)
    overrides = [each for each in arguments if re.fullmatch(r"[a-z][\w.]*=.*", each)]
    usual = "digits-search" if verb == "tune" else "digits"
    load_recipe(next((each for each in arguments if each in list_built_in()), usual), overrides)


@pytest.mark.parametrize("example", MENTIONS, ids=str)
def test_a_mention_of_a_command_names_its_options(example: Example) -> None:
    verb, *words = example.text.split()
    if verb.startswith("-"):
        return
    if verb != "VERB":
        assert verb in cli.commands, f"no such command: bmcli {verb}"
        known = {
            name for option in cli.commands[verb].params if isinstance(option, click.Option) for name in option.opts
        }
        assert {word for word in words if word.startswith("-") and word != "-"} <= known


@pytest.mark.parametrize("example", RECIPES, ids=str)
def test_a_whole_recipe_is_valid(example: Example, tmp_path: Path) -> None:
    load_recipe(write(tmp_path, example.text))


@pytest.mark.parametrize("example", FRAGMENTS, ids=str)
def test_a_fragment_of_a_recipe_is_valid_in_another(example: Example) -> None:
    jsonschema.Draft202012Validator(schema()).validate({"extends": "digits", **_read(example.text)})


def test_other_yaml_is_for_kubernetes() -> None:
    blocks = [block for page in PAGES for block in _blocks(page, "yaml")]
    others = [block for block in blocks if not set(_read(block)) <= SECTIONS]
    assert [_read(block)["kind"] for block in others] == ["Service"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert links or page.parent.name == "docs"
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    links = {(README.parent / link).resolve() for link in LINK.findall(README.read_text(encoding="utf-8"))}
    assert set(PAGES) - {README} <= links


def test_every_exit_code_is_listed() -> None:
    table = (
        (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").partition("## Exit codes")[2].partition("##")[0]
    )
    raised = {
        each.exit_code
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.BmcliError)
    }
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)]
    assert listed == sorted({0, stopping.INTERRUPTED} | raised)


def test_the_map_of_the_package_lists_every_layer() -> None:
    table = (
        (ROOT / "docs" / "how-it-is-built.md").read_text(encoding="utf-8").partition("## Rooms")[2].partition("##")[0]
    )
    listed = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert listed == [layer.split(" | ") for layer in contracts[0]["layers"]]
