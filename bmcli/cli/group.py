"""The group of commands, and commands that name how to resume after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bmcli import stopping
from bmcli.advice import make_command
from bmcli.cli.options import make_override
from bmcli.errors import BmcliError
from bmcli.terminal.console import Console

_ARGUMENTS = "bmcli.arguments"
_MAX_SUMMARY_LENGTH = 1000  # a summary is never cut: it is wrapped
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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise _suggest_override(error, ctx.meta[_ARGUMENTS]) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        ((command.name or "").ljust(width), command.get_short_help_str(_MAX_SUMMARY_LENGTH))
                        for command in commands
                    ]
                )


def _suggest_override(error: click.NoSuchOption, arguments: Sequence[str]) -> click.UsageError:
    """Suggest the override of a recipe that an unknown option of a command means, such as train.epochs=3.

    Args:
        arguments: All arguments of the command line.
    """
    # Commands of a run accept overrides of few sections.
    if error.ctx is None or not {"recipe", "overrides"} <= {parameter.name for parameter in error.ctx.command.params}:
        return error
    from bmcli.recipe.option_paths import suggest_override

    override = suggest_override(error.option_name.lstrip("-").replace("-", "_"), _find_value(error, arguments))
    message = f"No such option '{error.option_name}'. Did you mean {override}?"
    return click.UsageError(message, error.ctx) if override else error


def _find_value(error: click.NoSuchOption, arguments: Sequence[str]) -> str:
    """Find the value that follows an unknown option; `...` if there is none."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == error.option_name:
            following = value if equals else next(iter(arguments[position + 1 :]), "")
            return following if following and not following.startswith("-") and "=" not in following else "..."
    return "..."


def _find_resume_advice(verb: str, params: Mapping[str, Any]) -> str | None:
    """Return how to resume what a command resumes or joins; None if it does neither, or nothing of it exists."""
    resumed, joined = params.get("resume"), params.get("join")
    # With `--resume`, the first override takes the place of the recipe. Nothing has written the changes yet.
    changes = [str(each) for each in (params.get("recipe"), *params.get("overrides", ())) if each]
    changes += [*make_override("runtime.strategy", params.get("strategy"))]
    changes += [*make_override("runtime.replicas", params.get("replicas"))]
    with contextlib.suppress(BmcliError):  # there is no such run, search or distillation
        if verb == "train" and resumed:
            from bmcli import runs

            run = runs.find(params["root"], resumed)
            command = run.resume_command.with_arguments(*changes)
            return stopping.format_resume_advice(command) if run.resume_advice else None
        if verb == "tune" and (resumed or joined):
            from bmcli.tuning import study

            shown = study.find_study(params["root"], str(resumed or joined)).display_path
            workers = params.get("workers")
            if joined:
                more = ["--workers", str(workers)] if workers else []
                return stopping.format_resume_advice(make_command("tune", "--join", shown, *more))
            changes += make_override("tune.workers", workers)
            return stopping.format_resume_advice(make_command("tune", "--resume", shown, *changes))
        if verb == "distill" and resumed:
            from bmcli import distillations

            shown = distillations.find_distillation(params["root"], resumed).display_path
            return stopping.format_resume_advice(make_command("distill", "--resume", shown))
    return None
