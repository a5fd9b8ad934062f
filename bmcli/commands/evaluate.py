"""`bmcli evaluate`: evaluate a run on a split or on a new file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import training
from bmcli.errors import BmcliError
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.evaluation import check_evaluation
from bmcli.workflows.opening import check_overrides, find_run, load_run_recipe
from bmcli.workflows.reporting import evaluate_and_report, refresh_report
from bmcli.workflows.run_evaluation import EvaluationResult, drop_damaged_evaluations, evaluate_rows

if TYPE_CHECKING:
    from bmcli.data.sources import SourceRows


def evaluate(
    target: str,
    overrides: Sequence[str],
    split: str | None,
    data: Path | None,
    root: Path,
    cache: Path,
    log: ReportCallback,
) -> EvaluationResult:
    """Evaluate a run on one of its splits, or on every row of a new file, and update its report.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        overrides: Changes to `evaluate` and `data.source` of the run's recipe.
        split: By default the recipe's `evaluate.split`.
        data: A file or folder of any format that a source reads.
        log: Takes warnings, such as why no report could be written.
    """
    run = find_run(target, root)
    check_overrides(overrides)
    # Refuses a run whose lock belongs to another, before evaluations of the run are dropped.
    read_data_spec(run)
    drop_damaged_evaluations(run, log)
    loaded = load_run_recipe(run, overrides)
    try:
        if data is None:
            return evaluate_and_report(loaded, run, split or loaded.recipe.evaluate.split, cache, log)
        result = _evaluate_file(loaded, run, data, cache, log)
    except BmcliError as error:
        raise loaded.locate(error) from None
    if result.run is not None:
        refresh_report(run, cache, log)
    return result


def _evaluate_file(loaded: LoadedRecipe, run: Run, data: Path, cache: Path, log: ReportCallback) -> EvaluationResult:
    from bmcli.data.derivation import derive_columns, get_derivations
    from bmcli.data.preparation import encode_rows

    recipe = loaded.recipe
    spec = read_data_spec(run)
    check_evaluation(recipe, spec)
    placement = training.place_on_devices(recipe, cache) if training.needs_specific_devices(recipe.runtime) else None
    model = run.require_model()
    training.set_environment_variables(recipe, cache)
    raw = derive_columns(_read_file(recipe, spec, data, log), get_derivations(spec), with_faults=True)
    rows = encode_rows(raw, spec, with_targets=True)
    placement = placement or training.place_on_devices(recipe, cache)
    network = training.load_trained_network(recipe, spec, rows.targets, model, placement)
    return evaluate_rows(recipe, network, spec, rows, data.name, run if placement.is_chief else None, placement, raw)


def _read_file(recipe: Recipe, spec: DataSpec, data: Path, log: ReportCallback) -> SourceRows:
    """Read every row of another file."""
    from bmcli.data.targets import get_source_columns
    from bmcli.workflows.new_rows import read_new_rows

    needed = [column.name for column in spec.inputs]
    needed += [name for target in spec.targets for name in get_source_columns(target)]
    trained = recipe.data.source.model_dump(exclude_unset=True)
    rows = read_new_rows(data.absolute(), trained, needed, skip_malformed=False)
    for note in rows.notes:
        log(f"note: {note}")
    return rows
