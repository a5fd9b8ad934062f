"""`bmcli export`: writes artefacts of a run, each of them checked against the model."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from bmcli import disk, parts, trust
from bmcli.commands.evaluate import add_device_defaults, find_run, refresh_report
from bmcli.commands.predict import load_network
from bmcli.compression import methods
from bmcli.errors import ArtefactRejected, BmcliError, Fault
from bmcli.export import ExportableModel, FormatOptions, WrittenModel, card, require_installed
from bmcli.export.rows import read_split_rows
from bmcli.export.verify import ReferencePredictions, Verification, resolve_limits, verify
from bmcli.recipe.export import ExportOptions
from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.paths import join_steps, parse_steps
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.workflows import report_data
from bmcli.workflows.session import prepare_again

_CALIBRATION_ROWS = 256
"""Training rows that measure ranges of numbers."""

ReportCallback = Callable[[str], None]


@dataclass(frozen=True)
class ExportedArtefact:
    """One artefact, where it lies in the end.

    Args:
        sealed: Whether its card shows that this user exported it.
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
        failed: Formats that could not be written, and why.
    """

    run: Run
    artefacts: tuple[ExportedArtefact, ...]
    failed: Mapping[str, BmcliError] = field(default_factory=dict)

    def require_verified(self) -> None:
        """Raises what is to be told of formats that were not written, and of artefacts that are not what was trained.

        Raises:
            ArtefactRejected: An artefact was rejected.
            BmcliError: None was rejected, but a format could not be written.
        """
        told = [fault for error in self.failed.values() for fault in error.faults]
        rejected = [each for each in self.artefacts if not each.verification.verified]
        if rejected:
            sentences = (
                f"{disk.format_path(each.path)} is rejected: {' '.join(each.verification.failures)}"
                for each in rejected
            )
            raise ArtefactRejected(*told, *sentences)
        if told:
            first = next(iter(self.failed.values()))
            raise type(first)(*told)


def export(
    target: str, overrides: Sequence[str], formats: str | None, root: Path, cache: Path, log: ReportCallback
) -> ExportResult:
    """Exports a run as its recipe says.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken, and whose `export` section.
        overrides: Changes of the `export` section.
        formats: In the place of the recipe's, as `saved_model,litert:int8`.

    Raises:
        BmcliError: The run has no model, its data changed, or a format is not installed.
    """
    _check_overrides(overrides)
    asked = (*overrides, *([] if formats is None else [f"export.formats={_parse_formats(formats)}"]))
    run = find_run(target, root)
    is_recipe = target.endswith((".yaml", ".yml")) and Path(target).is_file()
    loaded = load_recipe(target if is_recipe else str(run.lock), asked if is_recipe else add_device_defaults(asked))
    try:
        _check_installed(loaded.recipe.export)
        trained = load_recipe(str(run.lock), add_device_defaults([])).recipe
        exported = _export_formats(run, trained, loaded.recipe.export, cache, log)
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
    """`litert:int8` as a recipe writes it: what follows the colon is how it is quantized."""
    found = []
    for each in text.split(","):
        kind, colon, quantize = each.strip().partition(":")
        found.append({"kind": kind, "quantize": quantize} if colon else kind)
    return write_scalar(found)


def _check_installed(options: ExportOptions) -> None:
    faults: list[Fault] = []
    for position, each in enumerate(options.formats):
        try:
            require_installed(each, f"export.formats.{position}")  # type: ignore[arg-type]
        except BmcliError as error:
            faults += error.faults
    if faults:
        raise BmcliError(*faults)


def _export_formats(run: Run, recipe: Recipe, options: ExportOptions, cache: Path, log: ReportCallback) -> ExportResult:
    spec = read_data_spec(run)
    prepared = prepare_again(recipe, spec, cache)
    network = load_network(recipe, spec, run, cache)
    split = _choose_split(recipe, prepared)
    rows = read_split_rows(recipe, prepared, {"train": _CALIBRATION_ROWS} | {split: options.verify.samples})
    examples = rows["train"]
    subject = ExportableModel(network, spec, recipe.quantiles(), examples, recipe.name)
    judge = ReferencePredictions.from_network(network, spec, recipe.quantiles(), split, rows[split])
    known = _Known(
        report_data.read_undamaged(run.evaluation, run.evaluations, log) or {},
        report_data.read_undamaged(run.environment, run.read_environment, log) or {},
    )
    found: list[ExportedArtefact] = []
    failed: dict[str, BmcliError] = {}
    for place, each in enumerate(cast("tuple[FormatOptions, ...]", options.formats)):
        try:
            artefact = _write_artefact(run, recipe, each, subject, judge, options, known)
        except BmcliError as error:
            failed[each.name] = _locate_in_format(error, place)
            log(f"{each.name}: NOT WRITTEN, {error}")
        else:
            log(_describe_artefact(artefact))
            if not artefact.sealed:
                log(
                    f"{artefact.format_name}: has no seal, since no key can be kept at "
                    f"{trust.locate_key()}; where its model "
                    "is a program, predict and benchmark need --trust-artefact."
                )
            found.append(artefact)
    return ExportResult(run, tuple(found), failed)


@dataclass(frozen=True)
class _Known:
    """What a card tells of a run beside its model; empty where the file that tells is gone or damaged."""

    evaluations: Mapping[str, Any]
    recorded: Mapping[str, Any]


def _locate_in_format(error: BmcliError, place: int) -> BmcliError:
    """The same, its faults at the format where they have no place of their own."""
    return type(error)(*(replace(fault, path=fault.path or f"export.formats.{place}") for fault in error.faults))


def _choose_split(recipe: Recipe, prepared: PreparedData) -> str:
    """The split that artefacts are judged on: the recipe's, or another that has rows."""
    wanted = (recipe.evaluate.split, "test", "validation", "train")
    return next(name for name in wanted if prepared.spec.counts[name])


def _describe_artefact(artefact: ExportedArtefact) -> str:
    verdict = "verified" if artefact.verification.verified else "REJECTED"
    return f"{artefact.format_name}: {verdict}, {disk.format_path(artefact.path)}"


def _write_artefact(
    run: Run,
    recipe: Recipe,
    options: FormatOptions,
    exportable: ExportableModel,
    reference: ReferencePredictions,
    export_options: ExportOptions,
    known: _Known,
) -> ExportedArtefact:
    """One artefact: written aside, checked there, and moved to where it belongs."""
    before = methods.measure_model_size(exportable.network.model)
    exportable = _compress_network(exportable, options)
    with (
        disk.convert_write_errors(run.exports / options.name),
        _make_temporary_folder(run.exports, options.name) as folder,
        disk.convert_write_errors(run.exports / options.name, estimate=lambda: _estimated_bytes(exportable, options)),
    ):
        part: Any = parts.load("export.formats", options.kind)
        written: WrittenModel = part.export(exportable, options, folder)
        _write_preprocessing(written, recipe, exportable.spec, folder)
        disk.write_json(folder / card.CARD, card.build_minimal(options, written))
        verification = verify_artefact(folder, written, reference, options, export_options)
        weights = {
            "model": before.to_json(),
            "artefact": methods.measure_model_size(exportable.network.model).to_json(),
        }
        made = card.build(
            run, recipe, exportable.spec, options, written, folder, verification, export_options.licence, weights,
            known.evaluations, known.recorded,
        )  # fmt: skip
        sealed = card.write(folder, made)
        disk.write_atomically(folder / card.CARD_TEXT, card.render_markdown(made).encode())
        place = run.exports if verification.verified else run.exports / "rejected"
        path = _move_artefact(folder, place, options.name)
    return ExportedArtefact(options.name, path, verification, made["bytes"], made["gzip_bytes"], sealed)


def _estimated_bytes(subject: ExportableModel, options: FormatOptions) -> int:
    """About the bytes of an artefact: those of its weights, with numbers as narrow as its format stores them."""
    narrower = {"float16": 2, "int8": 4}.get(options.precision, 1)
    return sum(weight.numpy().nbytes for weight in subject.network.model.weights) // narrower


def _compress_network(exportable: ExportableModel, options: FormatOptions) -> ExportableModel:
    """The same with a smaller network, if that is asked for."""
    if not options.list_compressions():
        return exportable
    model = methods.compress_model(options.list_compressions(), exportable.network.model, exportable.examples.encoded)
    return replace(exportable, network=replace(exportable.network, model=model))


def verify_artefact(
    folder: Path,
    written: WrittenModel,
    reference: ReferencePredictions,
    options: FormatOptions,
    export_options: ExportOptions,
) -> Verification:
    """Compares an artefact with its model."""
    encoder = folder / card.ENCODER
    bounds = resolve_limits(export_options.verify, options.precision, reference.spec)
    return verify(folder, written, reference, bounds, *([encoder] if encoder.exists() else []))


def _write_preprocessing(written: WrittenModel, recipe: Recipe, spec: DataSpec, folder: Path) -> None:
    from bmcli.export import encoder

    disk.write_record(folder / card.PREPROCESSING, card.describe_preprocessing(spec, recipe))
    if any(each.form == "encoded" for each in written.signatures[0].inputs):
        disk.write_atomically(folder / card.ENCODER, Path(encoder.__file__).read_bytes())


@contextlib.contextmanager
def _make_temporary_folder(exports: Path, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards, unless it was moved away."""
    folder = exports / f".{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_artefact(folder: Path, place: Path, name: str) -> Path:
    """Gives a folder its name, or with a number behind it if there is one of that name: `litert-2`."""
    place.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = place / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            with contextlib.suppress(FileExistsError, OSError):
                folder.rename(path)
                disk.flush_folder(place)
                return path
            if not path.exists():
                raise BmcliError(f"{path}: cannot be written.")
        number += 1
