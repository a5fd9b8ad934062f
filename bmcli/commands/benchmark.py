"""`bmcli benchmark`: what artefacts cost to keep and to run, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bmcli import disk, machine
from bmcli.commands.evaluate import ReportCallback, find_run, refresh_report
from bmcli.errors import BmcliError
from bmcli.export import artefacts, benchmark, card
from bmcli.export.benchmark import BenchmarkTarget
from bmcli.export.formats import keras as keras_format
from bmcli.recipe.load import load_recipe
from bmcli.reports import costs
from bmcli.reports.costs import Cost
from bmcli.run_data import read_data_spec
from bmcli.runs import Run

MODEL_NAME = "model"
"""Name of a run's own model among its artefacts."""


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured.

    Args:
        figure: An SVG file.
        notes: Sentences about what was measured.
    """

    costs: tuple[Cost, ...]
    figure: Path
    repeats: int
    notes: tuple[str, ...] = ()


def benchmark_artefacts(
    targets: Sequence[str], figure: Path | None, repeats: int, root: Path, cache: Path, log: ReportCallback,
    trust_artefact: bool = False,
) -> BenchmarkResult:  # fmt: skip
    """Measures artefacts in turn; what those of a run cost is kept in it, and shown in its report.

    Args:
        targets: Folders of artefacts, and runs: their models with all of their artefacts.
        figure: A new file for the figure; by default beside the artefacts of the first target.
        repeats: Turns.
        trust_artefact: Load artefacts that are programs even if this user did not export them.

    Raises:
        BmcliError: There is no such run or artefact, or the figure cannot be written there.
        ArtefactRejected: An artefact is not what was written, cannot be run, or is a program of somebody else.
    """
    if figure is not None:
        _check_figure(figure)
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        found: list[BenchmarkTarget] = []
        of: dict[Run, slice] = {}
        for place, target in enumerate(targets):
            if artefacts.is_artefact(Path(target)):
                found.append(_load_artefact(Path(target), trust_artefact))
            else:
                own = _list_targets_of_run(run := find_run(target, root), Path(scratch) / str(place), trust_artefact)
                of[run] = slice(len(found), len(found) + len(own))
                found += own
        measured = benchmark.measure_costs(_make_names_unique(found), repeats)
    file = figure or _choose_figure_path(targets[0], root)
    disk.write_atomically(file, costs.render_svg_file(measured).encode())
    for run, own_places in of.items():
        run.write(run.benchmark, {"artefacts": [cost.to_json() for cost in measured[own_places]]})
        refresh_report(run, cache, log)
    return BenchmarkResult(tuple(measured), file, repeats, tuple(_list_notes(found)))


def _list_notes(measured: Sequence[BenchmarkTarget]) -> Iterator[str]:
    if not machine.has_int8_dot_products() and any(each.uses_int8 for each in measured):
        yield (
            f"{machine.read_processor_name()} has no dot products of bytes (VNNI, or SDOT on ARM): "
            "convolutions in int8 take as "
            "long here as in float32, and longer over fewer than 128 channels. Dense layers are faster."
        )


def _check_figure(figure: Path) -> None:
    if figure.suffix.lower() != ".svg":
        raise BmcliError(f"expected a file ending in .svg, received {figure.name}.")
    if figure.exists():
        raise BmcliError(f"{figure} exists already.", suggestion="Name another file with --figure.")
    if not figure.absolute().parent.is_dir():
        raise BmcliError(f"{figure.parent}: no such folder.")


def _choose_figure_path(target: str, root: Path) -> Path:
    """Where the figure goes if nobody says so; that of an earlier measurement there is replaced."""
    folder = Path(target).absolute().parent if artefacts.is_artefact(Path(target)) else find_run(target, root).exports
    folder.mkdir(exist_ok=True)
    return folder / "benchmark.svg"


def _load_artefact(folder: Path, trust_artefact: bool) -> BenchmarkTarget:
    found = artefacts.open_artefact(folder, trust_artefact)
    decoded = tuple(
        each.column
        for each in found.signature.inputs
        if each.form == "encoded" and found.spec.input(each.column).kind == "image"
    )
    metrics = found.card["verification"]["metrics"]
    metric = next(((name, each["artefact"]) for name, each in metrics.items()), None)
    in_integers = found.card["runtime"] == "litert" and "int8" in str(found.card["options"]["quantize"])
    return BenchmarkTarget(
        found.card["format"], folder, found.spec, decoded, found.card["bytes"], found.card["gzip_bytes"], metric,
        in_integers,
    )  # fmt: skip


def _list_targets_of_run(run: Run, scratch: Path, trust_artefact: bool) -> list[BenchmarkTarget]:
    """The model of a run, then its artefacts."""
    folders = sorted(run.exports.iterdir()) if run.exports.is_dir() else []
    found = [_load_artefact(folder, trust_artefact) for folder in folders if artefacts.is_artefact(folder)]
    if not found:
        raise BmcliError(
            f"{run.display_path} has no artefact.", suggestion=f"`bmcli export {run.display_path}` makes one."
        )
    return [_make_model_target(run, found[0].folder, scratch), *found]


def _make_model_target(run: Run, artefact: Path, scratch: Path) -> BenchmarkTarget:
    """A run's own model, described as an artefact in a folder that is gone afterwards."""
    spec, options = read_data_spec(run), keras_format.Options()
    written = keras_format.describe_model(spec, load_recipe(str(run.lock)).recipe.quantiles())
    scratch.mkdir(parents=True)
    (scratch / written.model).symlink_to(run.kept_model())
    disk.write_json(scratch / card.CARD, card.build_minimal(options, written))
    metrics = card.read(artefact)["verification"]["metrics"]
    metric = next(((name, each["model"]) for name, each in metrics.items()), None)
    return BenchmarkTarget(
        MODEL_NAME, scratch, spec, (), run.model.stat().st_size, card.measure_gzip_bytes(run.model), metric
    )


def _make_names_unique(found: Sequence[BenchmarkTarget]) -> list[BenchmarkTarget]:
    """Artefacts of several runs under the names of their folders, where their formats do not tell them apart."""
    from dataclasses import replace

    names = [each.name for each in found]
    return [
        each if names.count(each.name) == 1 else replace(each, name=f"{each.folder.name} {place}")
        for place, each in enumerate(found, 1)
    ]
