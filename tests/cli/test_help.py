"""Help fits its terminal, is never cut, and names the environment."""

from __future__ import annotations

import click
import pytest

from bmcli.cli import cli
from tests.test_words import CONTEXTS

WIDTHS = (60, 80, 120)


def get_help(path: str, width: int) -> str:
    """Return the help of a command in a terminal of some columns."""
    command = CONTEXTS[path].command
    parent = click.Context(cli, info_name="bmcli", terminal_width=width, max_content_width=width)
    if command is cli:
        return cli.get_help(parent)
    return command.get_help(click.Context(command, parent, command.name, terminal_width=width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", CONTEXTS)
def test_no_line_of_a_help_is_wider_than_its_terminal(path: str, width: int) -> None:
    lines = get_help(path, width).splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > width] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_summaries_of_commands_are_whole_sentences(width: int) -> None:
    words = " ".join(get_help("cli", width).split())
    for name, command in cli.commands.items():
        summary = " ".join((command.help or "").partition("\n\n")[0].split())
        assert summary.endswith(".")
        assert not summary.endswith("...")
        assert f"{name} {summary}" in words


def test_the_help_names_the_environment() -> None:
    assert "BMCLI_RUNS" in get_help("cli", 80)
    assert "BMCLI_CACHE" in get_help("cli", 80)
    with_runs = [
        path for path, context in CONTEXTS.items() if any("--runs" in each.opts for each in context.command.params)
    ]
    assert len(with_runs) > 10
    assert [path for path in with_runs if "BMCLI_RUNS" not in get_help(path, 80)] == []
