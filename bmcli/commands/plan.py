"""`bmcli plan`: how fast a recipe trains here, measured, and on more or other machines, predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import machine, training
from bmcli.data.preparation import prepare
from bmcli.errors import BmcliError
from bmcli.recipe.load import Loaded, load
from bmcli.recipe.schema import Recipe
from bmcli.specs import DataSpec, Prepared

if TYPE_CHECKING:
    from bmcli.training.measure import Measured
    from bmcli.training.scaling import Cluster, ClusterOptions, Step

REPLICAS = (1, 2, 8, 64, 1024)


@dataclass(frozen=True)
class Plan:
    """How long a recipe takes.

    Args:
        spec: What the data is.
        device: What was measured: a processor, or an accelerator.
        parameters: Numbers in the network.
        per_replica_batch: Examples of each replica if the batch grows with them (weak scaling), else None.
        here: A step on this machine with one replica.
        on: What the steps are predicted for.
        steps: For each number of replicas that was asked for.
        notes: What limits the predictions.
    """

    name: str
    spec: DataSpec
    device: str
    parameters: int
    jit: bool
    per_replica_batch: int | None
    measured: Measured
    here: Step
    on: Cluster
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One object: `measured` holds what was measured and `steps` what was predicted from it, both in seconds."""
        found, on = self.measured, self.on
        return {
            "recipe": self.name,
            "rows": dict(self.spec.counts),
            "inputs": {column.name: list(column.shape) for column in self.spec.inputs},
            "targets": [column.name for column in self.spec.targets],
            "parameters": self.parameters,
            "work": {**asdict(found.work), "device_bytes": found.work.device_bytes},
            "measured": {
                "device": self.device,
                "jit": self.jit,
                "step_s_by_batch": {str(batch): seconds for batch, seconds in found.seconds.items()},
                "fixed_s": found.cluster.compute.fixed,
                "example_s": found.cluster.compute.slope,
                "input_bytes_per_s": found.cluster.input,
                "snapshot_s": found.snapshot_s,
                "write_s": found.write_s,
                "network": asdict(found.network) if found.network else None,
                "step": _step(self.here),
            },
            "on": {
                "name": on.name,
                "compute": {"fixed_s": on.compute.fixed, "example_s": on.compute.slope, "measured": on.measured},
                "network": asdict(on.network) if math.isfinite(on.network.bandwidth) else None,
                "inside": asdict(on.inside) if on.inside else None,
                "replicas_per_host": on.replicas_per_host,
                "overlap": on.overlap,
            },
            "per_replica_batch": self.per_replica_batch,
            "steps": [_step(step) for step in self.steps],
            "notes": list(self.notes),
        }


def _step(step: Step) -> Mapping[str, Any]:
    return {**asdict(step), "seconds": step.seconds}


def plan(
    target: str,
    overrides: Sequence[str],
    replicas: Sequence[int],
    on: str,
    per_replica_batch: int | None,
    cache: Path,
) -> Plan:
    """Measures a step of a recipe on this machine, and predicts it for some numbers of replicas.

    Args:
        on: `this` for more machines like this one, the name of a built-in description, or a file with one.
        per_replica_batch: Let the batch grow with the replicas, so many examples each; by default the recipe's batch is
            divided among them.
        cache: Where prepared data and measurements of this machine are kept.

    Raises:
        BmcliError: The recipe or the description is at fault.
    """
    from bmcli.training import scaling

    if min(replicas) < 1:
        raise BmcliError(f"expected replicas from 1, received {min(replicas)}.")
    options = scaling.find_cluster(on)
    loaded = load(target, overrides)
    try:
        return _plan(loaded, options, replicas, on, per_replica_batch, cache)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _plan(
    loaded: Loaded,
    options: ClusterOptions | None,
    replicas: Sequence[int],
    on: str,
    per_replica_batch: int | None,
    cache: Path,
) -> Plan:
    from bmcli.training import scaling

    asked = loaded.recipe
    prepared = prepare(asked.data, asked.targets(), asked.seed, cache / "prepared")
    measured, about = _measured(asked, prepared, options is None and max(replicas) > 1, cache)
    work, here = measured.work, measured.cluster
    precision = asked.train.precision
    cluster = here if options is None else scaling.described(on, options, work, precision, here)
    steps = tuple(scaling.predict(work, cluster, count, per_replica_batch) for count in replicas)
    notes = [*scaling.warnings(work, cluster, steps), *_limits(measured, cluster, replicas)]
    return Plan(
        name=asked.name,
        spec=prepared.spec,
        per_replica_batch=per_replica_batch,
        measured=measured,
        here=scaling.predict(work, here, 1),
        on=cluster,
        steps=steps,
        notes=tuple(notes),
        **about,
    )


def _measured(asked: Recipe, prepared: Prepared, with_network: bool, cache: Path) -> tuple[Measured, dict[str, Any]]:
    """What was measured of one replica, and what it was measured on."""
    if asked.runtime.strategy == "tpu":
        raise BmcliError(
            "a TPU is not measured.", path="runtime.strategy",
            suggestion="Plan with runtime.strategy=auto and --on tpu-v4.",
        )  # fmt: skip
    recipe = asked.on_one_device()
    placement = training.placed(recipe, cache)
    from bmcli.training import measure  # after the start, which keeps TensorFlow quiet
    from bmcli.training.loop import Trainer

    link = measure.network(cache) if with_network else None  # while this process does nothing else
    split = prepared.split("train")
    network = training.built(recipe, prepared.spec, split.targets, placement)
    trainer = Trainer(recipe, network, prepared, placement, None, cache)
    about = {
        "device": machine.processor() if placement.on_cpu else placement.device,
        "parameters": network.model.count_params(),
        "jit": trainer.steps.compilation.jit,
    }
    return measure.measure(trainer, split, link), about


def _limits(measured: Measured, cluster: Cluster, replicas: Sequence[int]) -> list[str]:
    """What the predictions rest on."""
    notes = []
    if not cluster.measured and measured.loops:
        notes.append("the network has loops, whose operations are not counted: it will be slower than predicted.")
    if not cluster.measured:
        notes.append("the accelerator's peak and links are nominal; its efficiency and overhead are assumptions.")
    if measured.network is not None:
        notes.append("the network is the loopback of this machine between two processes, each with half of its cores.")
    if max(replicas) > 1:
        notes.append("no other work, no stragglers, no ragged last batch; validation and evaluation come on top.")
    return notes
