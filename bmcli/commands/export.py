"""`bmcli export`: write artefacts of a run, and verify each of them against the model."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from bmcli import disk, parts, records, trust
from bmcli.compression import methods
from bmcli.errors import ArtefactRejected, BmcliError, Fault
from bmcli.export import ExportableModel, FormatOptions, WrittenModel, card, require_installed
from bmcli.export.agreement import resolve_limits
from bmcli.export.rows import read_split_rows
from bmcli.export.verify import ReferencePredictions, Verification, verify
from bmcli.export.writing import write_expected
from bmcli.recipe.export import ExportOptions
from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.paths import join_steps, parse_steps
from bmcli.recipe.schema import Recipe
from bmcli.redaction import introduce
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.workflows import report_data
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.opening import find_run, load_network, load_run_recipe
from bmcli.workflows.reporting import refresh_report
from bmcli.workflows.session import prepare_again

_CALIBRATION_ROWS = 256
"""Training rows on which quantisation measures the ranges of activations."""


@dataclass(frozen=True)
class ExportedArtefact:
    """One written artefact.

    Args:
        path: Its final folder, below `rejected` if its verification failed.
        sealed: Its card proves that this user exported it.
    """

    format_name: str
    path: Path
    verification: Verification
    bytes: int
    gzip_bytes: int
    sealed: bool = True


@dataclass(frozen=True)
class ExportResult:
    """The artefacts of a run.

    Args:
        failed: Errors of formats that could not be written, by name.
    """

    run: Run
    artefacts: tuple[ExportedArtefact, ...]
    failed: Mapping[str, BmcliError] = field(default_factory=dict)

    def require_verified(self) -> None:
        """Raise an error if a format could not be written, or if an artefact differs from the model.

        Raises:
            ArtefactRejected: An artefact was rejected.
            BmcliError: None was rejected, but a format could not be written.
        """
        faults = [fault for error in self.failed.values() for fault in error.faults]
        rejected = [artefact for artefact in self.artefacts if not artefact.verification.verified]
        if rejected:
            sentences = (
                f"{disk.format_path(artefact.path)} is rejected: {' '.join(artefact.verification.failures)}"
                for artefact in rejected
            )
            raise ArtefactRejected(*faults, *sentences)
        if faults:
            first = next(iter(self.failed.values()))
            raise type(first)(*faults)  # of its class, which decides the exit code


def export(
    target: str, overrides: Sequence[str], formats: str | None, root: Path, cache: Path, log: ReportCallback
) -> ExportResult:
    """Export a run in the formats of its recipe.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run and whose `export` section are taken.
        overrides: Changes to the `export` section.
        formats: Formats instead of those of the recipe, such as `saved_model,litert:int8`.

    Raises:
        BmcliError: The run has no model, its data changed, or none of the formats is installed.
    """
    _check_overrides(overrides)
    overrides = (*overrides, *([] if formats is None else [f"export.formats={_parse_formats(formats)}"]))
    run = find_run(target, root)
    is_recipe = target.endswith((".yaml", ".yml")) and Path(target).is_file()
    loaded = load_recipe(target, overrides) if is_recipe else load_run_recipe(run, overrides)
    try:
        _require_any_installed(loaded.recipe.export)
        # The data and the network are those of the run, even if a recipe file has changed since.
        run_recipe = load_run_recipe(run).recipe
        exported = _export_formats(run, run_recipe, loaded.recipe.export, cache, log)
        failed = {name: loaded.locate(error) for name, error in exported.failed.items()}
    except BmcliError as error:
        raise loaded.locate(error) from None
    refresh_report(run, cache, log)
    return replace(exported, failed=failed)


def _check_overrides(overrides: Sequence[str]) -> None:
    for argument in overrides:
        steps, _ = parse_steps(argument)
        if steps[:1] != ("export",):
            raise BmcliError(f"{join_steps(steps)} cannot change after training.", suggestion="Only export can.")


def _parse_formats(text: str) -> str:
    """Convert formats such as `saved_model,litert:int8` to the value of a recipe; a colon begins a quantisation."""
    formats = []
    for name in text.split(","):
        kind, colon, quantize = name.strip().partition(":")
        formats.append({"kind": kind, "quantize": quantize} if colon else kind)
    return write_scalar(formats)


def _require_any_installed(options: ExportOptions) -> None:
    """Reject an export of which no format is installed, before data and network are loaded for nothing."""
    formats = _list_formats(options)
    faults: list[Fault] = []
    for position, format_options in enumerate(formats):
        try:
            require_installed(format_options)
        except BmcliError as error:
            faults += _locate_faults(error, position)
    if len(faults) == len(formats):
        raise BmcliError(*faults)


def _locate_faults(error: BmcliError, position: int) -> list[Fault]:
    """Locate faults without a path at the format of a position."""
    return [replace(fault, path=fault.path or f"export.formats.{position}") for fault in error.faults]


def _list_formats(options: ExportOptions) -> tuple[FormatOptions, ...]:
    # The recipe language lies below the formats, so its type for them is that of all kinds.
    return cast("tuple[FormatOptions, ...]", options.formats)


def _export_formats(run: Run, recipe: Recipe, options: ExportOptions, cache: Path, log: ReportCallback) -> ExportResult:
    spec = read_data_spec(run)
    prepared = prepare_again(recipe, spec, cache)
    # Weights are float32 in every precision of training, and formats hold no mixed one.
    network = load_network(recipe.in_single_precision(), spec, run, cache)
    # Artefacts are verified on raw rows, which prepared data does not hold.
    split = _choose_split(recipe, prepared)
    rows = read_split_rows(recipe, prepared, {"train": _CALIBRATION_ROWS} | {split: options.verify.samples})
    exportable = ExportableModel(network, spec, rows["train"], recipe.name)
    reference = ReferencePredictions.from_network(network, spec, split, rows[split])
    run_records = _RunRecords(
        report_data.read_undamaged(run.evaluation, run.read_evaluations, log) or {},
        report_data.read_undamaged(run.environment, run.read_environment, log) or {},
    )
    written: list[ExportedArtefact] = []
    failed: dict[str, BmcliError] = {}
    for position, format_options in enumerate(_list_formats(options)):
        name = format_options.name
        try:
            require_installed(format_options)
            artefact = _write_artefact(run, recipe, format_options, exportable, reference, options, run_records)
        except BmcliError as error:
            failed[name] = type(error)(*_locate_faults(error, position))
            log(introduce(name, f"NOT WRITTEN, {error}"))
        else:
            verdict = "verified" if artefact.verification.verified else "REJECTED"
            log(introduce(name, f"{verdict}, {disk.format_path(artefact.path)}"))
            if not artefact.sealed:
                advice = "if its model is a program, predict and benchmark need --trust-artefact."
                log(introduce(name, f"has no seal, since no key can be kept at {trust.locate_key()}; {advice}"))
            written.append(artefact)
    return ExportResult(run, tuple(written), failed)


@dataclass(frozen=True)
class _RunRecords:
    """Records of a run for the cards of its artefacts; empty if their file is missing or damaged."""

    evaluations: Mapping[str, Any]
    environment: Mapping[str, Any]


def _choose_split(recipe: Recipe, prepared: PreparedData) -> str:
    """Choose the split to verify artefacts on: that of the recipe, or the next that has rows."""
    preferred = (recipe.evaluate.split, "test", "validation", "train")
    return next(name for name in preferred if prepared.spec.counts[name])


def _write_artefact(
    run: Run,
    recipe: Recipe,
    options: FormatOptions,
    exportable: ExportableModel,
    reference: ReferencePredictions,
    export_options: ExportOptions,
    run_records: _RunRecords,
) -> ExportedArtefact:
    """Write an artefact into a temporary folder, verify it there, and move it to its place."""
    before = methods.measure_model_size(exportable.network.model)
    exportable = _compress_network(exportable, options)
    with (
        disk.convert_write_errors(run.exports / options.name),
        _make_temporary_folder(run.exports, options.name) as folder,
        disk.convert_write_errors(run.exports / options.name, estimate=lambda: _estimate_bytes(exportable, options)),
    ):
        format_module: Any = parts.load("export.formats", options.kind)
        written: WrittenModel = format_module.export(exportable, options, folder)
        _write_preprocessing(written, recipe, exportable.spec, folder)
        # Verification loads the artefact by its card, which is replaced afterwards by one with the results.
        records.write_json(folder / card.CARD, card.build_minimal(options, written))
        verification = verify_artefact(folder, written, exportable, reference, options, export_options)
        after = methods.measure_model_size(exportable.network.model) if options.list_compressions() else None
        weights = {"model": before.to_json(), "compressed": None if after is None else after.to_json()}
        content = card.build(
            run, recipe, exportable.spec, options, written, folder, verification, export_options.license, weights,
            run_records.evaluations, run_records.environment,
        )  # fmt: skip
        sealed = card.write(folder, content)
        disk.write_atomically(folder / card.CARD_TEXT, card.render_markdown(content).encode())
        place = run.exports if verification.verified else run.exports / "rejected"
        path = _move_artefact(folder, place, options.name)
    return ExportedArtefact(options.name, path, verification, content["bytes"], content["gzip_bytes"], sealed)


def _estimate_bytes(exportable: ExportableModel, options: FormatOptions) -> int:
    """Estimate the size of an artefact by that of its weights at the precision of the format."""
    ratio = {"float16": 2, "int8": 4}.get(options.precision, 1)
    return sum(weight.numpy().nbytes for weight in exportable.network.model.weights) // ratio


def _compress_network(exportable: ExportableModel, options: FormatOptions) -> ExportableModel:
    """Compress the network, if the format has compression steps."""
    if not options.list_compressions():
        return exportable
    model = methods.compress_model(options.list_compressions(), exportable.network.model, exportable.examples.encoded)
    return replace(exportable, network=replace(exportable.network, model=model))


def verify_artefact(
    folder: Path,
    written: WrittenModel,
    exportable: ExportableModel,
    reference: ReferencePredictions,
    options: FormatOptions,
    export_options: ExportOptions,
) -> Verification:
    """Compare the predictions of an artefact, and the texts that it writes, with those of its model.

    Args:
        exportable: With the network that was written, perhaps a compressed one.
    """
    encoder = folder / card.ENCODER / "__init__.py"
    limits = resolve_limits(export_options.verify, options.precision, reference.spec)
    expected = None if written.writing is None else write_expected(exportable, reference.rows)
    return verify(folder, written, reference, limits, expected, *([encoder] if encoder.exists() else []))


def _write_preprocessing(written: WrittenModel, recipe: Recipe, spec: DataSpec, folder: Path) -> None:
    from bmcli.export import encoder_files

    records.write_record(folder / card.PREPROCESSING, card.describe_preprocessing(spec, recipe))
    encoded = [spec.input(each.column) for each in written.signatures[0].inputs if each.form == "encoded"]
    if encoded:
        encoder_files.write_files(encoded, folder)


@contextlib.contextmanager
def _make_temporary_folder(exports: Path, name: str) -> Iterator[Path]:
    """Make a folder that is removed after the body, unless the body moves it."""
    folder = exports / f".{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_artefact(folder: Path, place: Path, name: str) -> Path:
    """Move a folder to its name, with a number if that is taken, such as `litert-2`."""
    place.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = place / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            # Another export may take the name in between; then the next number is tried.
            with contextlib.suppress(OSError):
                folder.rename(path)
                disk.flush_folder(place)
                return path
            if not path.exists():
                raise BmcliError(f"{path}: cannot be written.")
        number += 1
