"""The group of commands, and commands that name how to resume after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bmcli import stopping
from bmcli.errors import BmcliError
from bmcli.terminal.console import Console

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


class ResumableCommand(click.Command):
    """Command that handles signals, and after an interruption names the command that resumes it."""

    def invoke(self, ctx: click.Context) -> Any:
        with stopping.resumable(lambda: _find_resume_advice(self.name or "", ctx.params)):
            stopping.enable_interrupts(ctx.ensure_object(Console).print_final_faults)
            return super().invoke(ctx)


class CommandGroup(click.Group):
    """Group whose help lists its commands in sections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, Sequence[click.Command]] = {}

    def add_section(self, title: str, commands: Sequence[click.Command]) -> None:
        self.sections[title] = commands
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        ((command.name or "").ljust(width), command.get_short_help_str(formatter.width - width - 4))
                        for command in commands
                    ]
                )


def _find_resume_advice(verb: str, params: Mapping[str, Any]) -> str | None:
    """Return how to resume what a command resumes or joins; None if it does neither, or nothing of it exists."""
    resumed, joined = params.get("resume"), params.get("join")
    with contextlib.suppress(BmcliError):  # there is no such run, search or distillation
        if verb == "train" and resumed:
            from bmcli import runs

            return runs.find(params["root"], resumed).resume_advice
        if verb == "tune" and (resumed or joined):
            from bmcli.tuning import study

            shown = study.find_study(params["root"], str(resumed or joined)).display_path
            return stopping.format_resume_advice(f"bmcli tune --{'resume' if resumed else 'join'} {shown}")
        if verb == "distill" and resumed:
            from bmcli import distillations

            return stopping.format_resume_advice(
                f"bmcli distill --resume {distillations.find_distillation(params['root'], resumed).display_path}"
            )
    return None
