"""The description of its data that a run keeps."""

from __future__ import annotations

from bmcli import disk
from bmcli.runs import Run
from bmcli.specs import DataSpec


def read_data_spec(run: Run) -> DataSpec:
    """What the data of a run turned out to be.

    Raises:
        BmcliError: The file that tells is gone or damaged.
    """
    return run.read_data(DataSpec)


def write_data_spec(run: Run, spec: DataSpec, with_model: bool = False) -> None:
    """Writes what the data of a run turned out to be.

    Args:
        with_model: The run's model is that of this data, and is known by its digest from now on.
    """
    digests = {
        "recipe": disk.compute_sha256(run.recipe),
        "model": disk.compute_sha256(run.model) if with_model else None,
    }
    run.write(run.data, {**spec.to_json(), **digests})
