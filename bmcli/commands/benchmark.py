"""`bmcli benchmark`: measure size, latency and memory of artefacts side by side."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bmcli import disk, machine, records
from bmcli.advice import make_command
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
        loaded: dict[Path, BenchmarkTarget] = {}  # by folder: one that is named twice is measured once
        run_folders: dict[Run, list[Path]] = {}
        for number, target in enumerate(targets):
            if artefacts.is_artefact(Path(target)):
                loaded.setdefault(Path(target).resolve(), _load_artefact(Path(target), trust_artefact))
            elif (run := find_run(target, root)) not in run_folders:
                of_run = _list_targets_of_run(run, Path(scratch) / str(number), trust_artefact)
                run_folders[run] = [each.folder.resolve() for each in of_run]
                loaded.update(zip(run_folders[run], of_run, strict=True))
        names = _make_unique_names(loaded, run_folders)
        measured_costs = benchmark.measure_costs(
            [replace(each, name=name) for each, name in zip(loaded.values(), names, strict=True)], repeats
        )
    file = figure or _choose_figure_path(targets[0], root)
    disk.write_atomically(file, costs.render_svg_file(measured_costs).encode())
    for run, folders in run_folders.items():
        # In the run they have their own names.
        by_folder = zip(loaded.items(), measured_costs, strict=True)
        own_costs = [replace(cost, name=each.name).to_json() for (path, each), cost in by_folder if path in folders]
        run.write(run.benchmark, {"artefacts": own_costs})
        refresh_report(run, cache, log)
    return BenchmarkResult(tuple(measured_costs), file, repeats, tuple(_list_notes(tuple(loaded.values()))))


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
    metric = next(((name, by_model["artefact"]) for name, by_model in content["verification"]["metrics"].items()), None)
    uses_int8 = content["runtime"] == "litert" and "int8" in str(content["options"]["quantize"])
    return BenchmarkTarget(
        content["format"], folder, artefact.spec, content["bytes"], content["gzip_bytes"], metric,
        uses_int8,
    )  # fmt: skip


def _list_targets_of_run(run: Run, scratch: Path, trust_artefact: bool) -> list[BenchmarkTarget]:
    """List the model of a run, then its artefacts."""
    folders = sorted(run.exports.iterdir()) if run.exports.is_dir() else []
    exported = [_load_artefact(folder, trust_artefact) for folder in folders if artefacts.is_artefact(folder)]
    if not exported:
        raise BmcliError(
            f"{run.display_path} has no artefact.", suggestion=f"{make_command('export', run.display_path)} makes one."
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
        MODEL_NAME, scratch, spec, run.model.stat().st_size, card.measure_gzip_bytes(run.model), metric
    )


def _make_unique_names(loaded: Mapping[Path, BenchmarkTarget], run_folders: Mapping[Run, Sequence[Path]]) -> list[str]:
    """Name the artefacts by their formats; those of one format also by their run, or by their path."""
    run_names = {path: run.name for run, folders in run_folders.items() for path in folders}
    run_paths = {path: run.display_path for run, folders in run_folders.items() for path in folders}
    names = [each.name for each in loaded.values()]
    with_run = [f"{run_names[path]} {each.name}" if path in run_names else each.name for path, each in loaded.items()]
    with_path = [
        f"{run_paths[path]} {each.name}" if path in run_paths else disk.format_path(path)
        for path, each in loaded.items()
    ]
    for longer_names in (with_run, with_path):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer for name, longer in zip(names, longer_names, strict=True)]
    return names
