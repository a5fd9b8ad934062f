"""Commands that put a trained model to use: predict, generate, export, benchmark."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bmcli.cli.group import ResumableCommand
from bmcli.cli.options import (
    RUN_EPILOG,
    RunType,
    get_console,
    new_file_option,
    output_options,
    overrides_argument,
    run_argument,
    runs_option,
    trust_option,
)

_MAX_INTEGER = 2**31 - 1  # of TensorFlow's int32


@click.command(
    cls=ResumableCommand,
    epilog=f"{RUN_EPILOG} An artefact is a folder that `bmcli export` wrote. DATA is a table, a folder of pictures, "
    "or - for CSV or JSON lines on standard input.",
)
@click.argument("run", type=RunType(), metavar="RUN|ARTEFACT")
@click.argument("data", type=click.Path(path_type=Path))
@new_file_option("--output", "FILE", "New file for the predictions; by default standard output.")
@click.option(
    "--format", "chosen", type=click.Choice(["csv", "parquet", "jsonl"]),
    help="Output format; by default that of the output file's extension, else csv.",
)  # fmt: skip
@click.option(
    "--keep", multiple=True, metavar="COLUMN",
    help="Copy a column of DATA to the output; repeatable. A target is copied as COLUMN_true.",
)  # fmt: skip
@click.option(
    "--spreadsheet-safe", is_flag=True,
    help="Prefix text that a spreadsheet would run as a formula with an apostrophe, in csv. Without it, text is copied "
    "unchanged: do not open output of foreign data in a spreadsheet.",
)  # fmt: skip
@click.option("--skip-bad-rows", is_flag=True, help="Skip unreadable rows and report their number.")
@trust_option
@runs_option
@output_options
def predict_command(
    run: str, data: Path, output: Path | None, chosen: Any, keep: tuple[str, ...], spreadsheet_safe: bool,
    skip_bad_rows: bool, trust_artefact: bool, root: Path,
) -> None:  # fmt: skip
    """Predict the rows of new data with a run or an artefact."""
    from bmcli.commands.predict import PredictionRequest, predict
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import prediction

    _check_streams(output)
    request = PredictionRequest(data, output, chosen, tuple(dict.fromkeys(keep)), skip_bad_rows, spreadsheet_safe)
    get_console().present(prediction, predict(run, request, root, make_cache_folder(), trust_artefact))


def _check_streams(output: Path | None) -> None:
    if get_console().as_json and output is None:
        raise click.UsageError("--json prints to standard output, so predictions need --output FILE.")


@click.command(
    cls=ResumableCommand,
    epilog=f"{RUN_EPILOG} KEY=VALUE may override values of export. Artefacts take raw rows. Each is verified against "
    "the model; exit code 4 means that one was rejected.",
)
@run_argument
@overrides_argument
@click.option(
    "--formats", metavar="FORMAT,...",
    help="Formats instead of those of the recipe, such as saved_model,litert:int8,onnx.",
)  # fmt: skip
@runs_option
@output_options
def export_command(run: str, overrides: tuple[str, ...], formats: str | None, root: Path) -> None:
    """Export a run as artefacts for serving, each verified against its model."""
    from bmcli.commands.export import export
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import artefacts

    console = get_console()
    exported = export(run, overrides, formats, root, make_cache_folder(), console.log)
    console.present(artefacts, exported)
    exported.require_verified()


@click.command(
    cls=ResumableCommand,
    epilog=f"{RUN_EPILOG} It is measured with all of its artefacts. ARTEFACT is a folder that `bmcli export` wrote.",
)
@click.argument("targets", nargs=-1, required=True, type=RunType(), metavar="RUN|ARTEFACT...")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="Rounds of measurement."
)
@new_file_option("--figure", "FILE.svg", "New file for the figure; by default benchmark.svg beside the artefacts.")
@trust_option
@runs_option
@output_options
def benchmark_command(
    targets: tuple[str, ...], repeats: int, figure: Path | None, trust_artefact: bool, root: Path
) -> None:
    """Measure size, latency, throughput and memory of artefacts."""
    from bmcli.commands.benchmark import benchmark_artefacts
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import benchmark

    console = get_console()
    found = benchmark_artefacts(targets, figure, repeats, root, make_cache_folder(), console.log, trust_artefact)
    console.present(benchmark, found)


@click.command(
    cls=ResumableCommand,
    epilog=f"{RUN_EPILOG} Its objective is that of a language model. Without PROMPT and --prompts the model begins.",
)
@run_argument
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "--prompts", "file", type=click.Path(path_type=Path),
    help="File with one prompt a line, or JSON lines with `prompt`; - for standard input.",
)  # fmt: skip
@new_file_option("--output", "FILE", "New file of JSON lines for the texts; by default standard output.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Texts per prompt.")
@click.option(
    "--tokens",
    type=click.IntRange(1, 1_000_000),
    default=256,
    show_default=True,
    metavar="N",
    help="Maximum tokens of a text.",
)
@click.option(
    "--temperature", type=click.FloatRange(0), default=1.0, show_default=True,
    help="Divisor of the logits: below 1 for likelier tokens, 0 for the likeliest alone.",
)  # fmt: skip
@click.option("--top-k", type=click.IntRange(1, _MAX_INTEGER), metavar="N", help="Draw from the N likeliest tokens.")
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE",
    help="Draw from the likeliest tokens that have this share of the probability.",
)  # fmt: skip
@click.option(
    "--repetition-penalty", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Make tokens that the text has less probable, if above 1.",
)  # fmt: skip
@click.option("--beams", type=click.IntRange(2), metavar="N", help="Search for the likeliest text with N beams.")
@click.option(
    "--length-power", type=float, metavar="POWER",
    help="Power of the number of tokens by which --beams divides log-probabilities.  [default: 1.0]",
)  # fmt: skip
@click.option("--stop", multiple=True, metavar="TEXT", help="End a text before this text; repeatable.")
@click.option(
    "--seed", type=click.IntRange(0, _MAX_INTEGER), default=0, show_default=True, help="Seed of the random numbers."
)
@click.option("--no-cache", is_flag=True, help="Compute the whole window for each token, which is slower.")
@runs_option
@output_options
def generate_command(
    run: str, prompts: tuple[str, ...], file: Path | None, output: Path | None, count: int, tokens: int,
    temperature: float, top_k: int | None, top_p: float | None, repetition_penalty: float, beams: int | None,
    length_power: float | None, stop: tuple[str, ...], seed: int, no_cache: bool, root: Path,
) -> None:  # fmt: skip
    """Continue texts with the language model of a run."""
    from bmcli.commands.generate import GenerationRequest, generate
    from bmcli.generation import Sampling
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import generation

    _check_search(click.get_current_context(), beams, length_power, temperature)
    for name, value in {"temperature": temperature, "repetition_penalty": repetition_penalty}.items():
        if not math.isfinite(value):
            raise click.BadParameter(f"expected a finite number, received {value}.", param_hint=_name_option(name))
    if "" in stop:
        raise click.BadParameter("a text to stop at must not be empty.", param_hint="--stop")
    console = get_console()
    sampling = Sampling(temperature, top_k or 0, top_p or 1.0, repetition_penalty)
    request = GenerationRequest(
        prompts, file, output, count, tokens, sampling, beams or 0, 1.0 if length_power is None else length_power,
        stop, seed, not no_cache,
    )  # fmt: skip
    stream = None if console.as_json or output is not None else sys.stdout
    console.present(generation, generate(run, request, stream, root, make_cache_folder()))


def _check_search(context: click.Context, beams: int | None, length_power: float | None, temperature: float) -> None:
    """Refuse options that do nothing beside others."""
    if beams is None and length_power is not None:
        raise click.UsageError("--length-power has no effect without --beams.")
    drawing = ("top_k", "top_p", "seed", "count")
    sampling = ("temperature", "repetition_penalty", *drawing)
    given = [name for name in sampling if context.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    if beams is not None and given:
        raise click.UsageError(f"{_name_option(given[0])} has no effect with --beams, which finds one text.")
    if temperature == 0 and (idle := [name for name in given if name in drawing]):
        raise click.UsageError(f"{_name_option(idle[0])} has no effect with --temperature 0, which draws nothing.")


def _name_option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


COMMANDS = (predict_command, generate_command, export_command, benchmark_command)
