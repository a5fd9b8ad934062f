"""`bmcli validate`: find the faults of a recipe without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bmcli import training
from bmcli.errors import BmcliError
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.space import load_search


@dataclass(frozen=True)
class NetworkSize:
    """The network of a recipe, the rows of each split of its data, and what had to be guessed to read them."""

    rows: Mapping[str, int]
    parameters: int
    notes: tuple[str, ...]


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
    """Check the keys and values of a recipe and of its search, and that its files exist.

    Args:
        cache: Folder in which the data is prepared to build the model, too; None to check the recipe alone.

    Raises:
        BmcliError: With all faults.
    """
    loaded = load_search(target, overrides)
    from bmcli.recipe import students  # not at the top: a recipe with faults is refused before it is needed

    try:
        students.check_student(loaded)
        require_files(loaded)
        return ValidationResult(target, _build_network(loaded, cache) if cache else None)
    except BmcliError as error:
        raise loaded.locate(error) from None


def require_files(loaded: LoadedRecipe) -> None:
    """Refuse a recipe whose source files do not exist on this machine; remote files are not checked."""
    # Not at the top: a recipe with faults is refused before they are needed.
    from bmcli.data import files
    from bmcli.data.sources import get_source

    missing = [path for path in get_source(loaded.recipe.data).local_files() if not path.exists()]
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
    return NetworkSize(prepared.spec.counts, network.model.count_params(), prepared.spec.notes)
