"""Commands that put a trained model to use: predict, export, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

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
    """Export a run as verified artefacts: SavedModel, LiteRT, ONNX, ..."""
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


COMMANDS = (predict_command, export_command, benchmark_command)
