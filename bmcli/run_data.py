"""The description of a run's data, `data.json`."""

from __future__ import annotations

from bmcli import disk
from bmcli.runs import Run
from bmcli.specs import DataSpec


def read_data_spec(run: Run) -> DataSpec:
    """Read the description of a run's data.

    Raises:
        BmcliError: The file is missing or damaged.
    """
    return run.read_data(DataSpec)


def write_data_spec(run: Run, spec: DataSpec, with_model: bool = False) -> None:
    """Write the description of a run's data, with the SHA-256 of its recipe.

    Args:
        with_model: Add the SHA-256 of the run's model, so that a later change of the model is noticed.
    """
    digests = {
        "recipe": disk.compute_sha256(run.recipe),
        "model": disk.compute_sha256(run.model) if with_model else None,
    }
    run.write(run.data, {**spec.to_json(), **digests})
