"""`bmcli validate`: every fault of a recipe, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bmcli import training
from bmcli.data import files
from bmcli.errors import BmcliError
from bmcli.recipe import students
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.space import load_search


@dataclass(frozen=True)
class NetworkSize:
    """The network of a recipe, and the rows of each split of its data."""

    rows: Mapping[str, int]
    parameters: int


@dataclass(frozen=True)
class ValidationResult:
    """A valid recipe.

    Args:
        recipe: Its file, or the name of a built-in recipe.
        network: None unless it was built.
    """

    recipe: str
    network: NetworkSize | None


def validate(target: str, overrides: Sequence[str], cache: Path | None) -> ValidationResult:
    """Checks the language of a recipe, the values that it searches, and that its files exist.

    Args:
        cache: With a folder the data is prepared in it and the model built, too.

    Raises:
        BmcliError: Every fault found.
    """
    loaded = load_search(target, overrides)
    try:
        students.check_student(loaded)
        require_files(loaded)
        return ValidationResult(target, _build_network(loaded, cache) if cache else None)
    except BmcliError as error:
        raise loaded.locate(error) from None


def require_files(loaded: LoadedRecipe) -> None:
    """Faults for source files of this machine that are not there, before anything is read; asks no network."""
    source = loaded.recipe.data.source
    missing = [path for path in source.local_files() if not path.exists()]  # type: ignore[attr-defined]
    if missing:
        raise BmcliError(*(fault for path in missing[:3] for fault in files.missing_file_error(path).faults))


def _build_network(loaded: LoadedRecipe, cache: Path) -> NetworkSize:
    from bmcli.workflows.evaluation import check_evaluation

    recipe = loaded.recipe
    prepared = training.prepare_data(recipe, cache)
    check_evaluation(recipe, prepared.spec)
    network = training.build_network(
        recipe,
        prepared.spec,
        prepared.split("train").targets,
        training.place_on_devices(recipe.on_one_device(), cache),
    )
    return NetworkSize(prepared.spec.counts, network.model.count_params())
