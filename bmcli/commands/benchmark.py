"""`bmcli benchmark`: measure size, latency and memory of artefacts side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bmcli import disk, machine, records
from bmcli import inputs as input_kinds
from bmcli.errors import BmcliError
from bmcli.export import artefacts, benchmark, card
from bmcli.export.benchmark import BenchmarkTarget
from bmcli.export.formats.keras import Options, describe_model
from bmcli.reports import costs
from bmcli.reports.costs import Cost
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.opening import find_run
from bmcli.workflows.reporting import refresh_report

MODEL_NAME = "model"
"""Name of the model of a run among its artefacts."""


@dataclass(frozen=True)
class BenchmarkResult:
    """Costs of artefacts and the figure that shows them.

    Args:
        figure: An SVG file.
        notes: Sentences that help to read the costs.
    """

    costs: tuple[Cost, ...]
    figure: Path
    repeats: int
    notes: tuple[str, ...] = ()


def benchmark_artefacts(
    targets: Sequence[str], figure: Path | None, repeats: int, root: Path, cache: Path, log: ReportCallback,
    trust_artefact: bool = False,
) -> BenchmarkResult:  # fmt: skip
    """Measure artefacts in turn; the costs of those of a run are kept in the run and shown in its report.

    Args:
        targets: Folders of artefacts, and runs, of which the model and all artefacts are measured.
        figure: A new file for the figure; by default `benchmark.svg` beside the artefacts of the first target.
        repeats: Number of turns.
        trust_artefact: Load artefacts that are programs even if another user exported them.

    Raises:
        BmcliError: There is no such run or artefact, or the figure cannot be written there.
        ArtefactRejected: An artefact was changed, cannot be run, or is a program that another user exported.
    """
    if figure is not None:
        _check_figure(figure)
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        loaded: list[BenchmarkTarget] = []
        run_slices: dict[Run, slice] = {}  # the targets of each run among all
        for number, target in enumerate(targets):
            if artefacts.is_artefact(Path(target)):
                loaded.append(_load_artefact(Path(target), trust_artefact))
            else:
                run = find_run(target, root)
                of_run = _list_targets_of_run(run, Path(scratch) / str(number), trust_artefact)
                run_slices[run] = slice(len(loaded), len(loaded) + len(of_run))
                loaded += of_run
        measured_costs = benchmark.measure_costs(_make_names_unique(loaded), repeats)
    file = figure or _choose_figure_path(targets[0], root)
    disk.write_atomically(file, costs.render_svg_file(measured_costs).encode())
    for run, run_slice in run_slices.items():
        run.write(run.benchmark, {"artefacts": [cost.to_json() for cost in measured_costs[run_slice]]})
        refresh_report(run, cache, log)
    return BenchmarkResult(tuple(measured_costs), file, repeats, tuple(_list_notes(loaded)))


def _list_notes(targets: Sequence[BenchmarkTarget]) -> Iterator[str]:
    if not machine.has_int8_dot_products() and any(target.uses_int8 for target in targets):
        yield (
            f"{machine.read_processor_name()} has no int8 dot products (VNNI, or SDOT on ARM): int8 convolutions take "
            "as long here as float32 ones, and longer with fewer than 128 channels. Dense layers are faster."
        )


def _check_figure(figure: Path) -> None:
    if figure.suffix.lower() != ".svg":
        raise BmcliError(f"expected a file ending in .svg, received {figure.name}.")
    if figure.exists():
        raise BmcliError(f"{figure} exists already.", suggestion="Name another file with --figure.")
    if not figure.absolute().parent.is_dir():
        raise BmcliError(f"{figure.parent}: no such folder.")


def _choose_figure_path(target: str, root: Path) -> Path:
    """Return the default path of the figure; the figure of an earlier measurement there is replaced."""
    folder = Path(target).absolute().parent if artefacts.is_artefact(Path(target)) else find_run(target, root).exports
    folder.mkdir(exist_ok=True)
    return folder / "benchmark.svg"


def _load_artefact(folder: Path, trust_artefact: bool) -> BenchmarkTarget:
    artefact = artefacts.open_artefact(folder, trust_artefact)
    content = artefact.card
    decoded_columns = tuple(
        tensor.column
        for tensor in artefact.signature.inputs
        if tensor.form == "encoded" and input_kinds.get_traits(artefact.spec.input(tensor.column)).file_formats
    )
    metric = next(((name, by_model["artefact"]) for name, by_model in content["verification"]["metrics"].items()), None)
    uses_int8 = content["runtime"] == "litert" and "int8" in str(content["options"]["quantize"])
    return BenchmarkTarget(
        content["format"], folder, artefact.spec, decoded_columns, content["bytes"], content["gzip_bytes"], metric,
        uses_int8,
    )  # fmt: skip


def _list_targets_of_run(run: Run, scratch: Path, trust_artefact: bool) -> list[BenchmarkTarget]:
    """List the model of a run, then its artefacts."""
    folders = sorted(run.exports.iterdir()) if run.exports.is_dir() else []
    exported = [_load_artefact(folder, trust_artefact) for folder in folders if artefacts.is_artefact(folder)]
    if not exported:
        raise BmcliError(
            f"{run.display_path} has no artefact.", suggestion=f"`bmcli export {run.display_path}` makes one."
        )
    return [_make_model_target(run, exported[0].folder, scratch), *exported]


def _make_model_target(run: Run, artefact: Path, scratch: Path) -> BenchmarkTarget:
    """Make an artefact of the model of a run, in a temporary folder."""
    spec, options = read_data_spec(run), Options()
    written = describe_model(spec)
    scratch.mkdir(parents=True)
    # The benchmark worker loads an artefact by its card, so the model gets one beside a link to its file.
    (scratch / written.model).symlink_to(run.require_model())
    records.write_json(scratch / card.CARD, card.build_minimal(options, written))
    metrics = card.read(artefact)["verification"]["metrics"]
    metric = next(((name, by_model["model"]) for name, by_model in metrics.items()), None)
    return BenchmarkTarget(
        MODEL_NAME, scratch, spec, (), run.model.stat().st_size, card.measure_gzip_bytes(run.model), metric
    )


def _make_names_unique(targets: Sequence[BenchmarkTarget]) -> list[BenchmarkTarget]:
    """Rename targets of one name, such as those of several runs, to their folders and numbers."""
    names = [target.name for target in targets]
    return [
        target if names.count(target.name) == 1 else replace(target, name=f"{target.folder.name} {number}")
        for number, target in enumerate(targets, 1)
    ]
