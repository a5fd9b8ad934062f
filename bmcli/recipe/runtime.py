"""Section `runtime`: devices and execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from bmcli.recipe.fields import (
    Duration,
    Options,
    Size,
    fault_at,
)


class RuntimeOptions(Options):
    """Devices and execution; results differ at most in rounding errors."""

    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = Field(
        default="auto",
        description="`auto` uses what is available: a cluster of workers, a TPU, all GPUs, or the CPU. `mirrored` "
        "uses several devices of one machine, `multi_worker` several processes.",
    )
    replicas: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Number of devices of `mirrored`; by default all GPUs. Without a GPU the CPU is divided, for "
        "tests.",
    )
    cluster: Literal["auto", "tf_config", "slurm", "kubernetes"] = Field(
        default="auto",
        description="How workers of `multi_worker` find each other: the variable TF_CONFIG, Slurm, or Kubernetes.",
    )
    tpu: str | None = Field(
        default=None,
        description="Name or address of the TPU; by default that of the variable TPU_NAME, or the `local` one.",
    )
    start_timeout: Duration = Field(default=120.0, description="How long workers wait for each other to start.")
    feed: Literal["auto", "resident", "streaming"] = Field(
        default="auto",
        description="`resident` keeps the training rows in device memory, `streaming` reads them from disk; `auto` "
        "streams data larger than `memory`.",
    )
    memory: Literal["auto"] | Size = Field(
        default="auto", description="Maximum memory of resident rows, such as 4GiB; `auto` is a quarter of the memory."
    )
    jit: Literal["auto"] | bool = Field(
        default="auto",
        description="Compile the training step with XLA; `auto` measures once per machine and model.",
    )
    jit_steps: Literal["auto", 1, 2, 4, 8] = Field(
        default="auto",
        description="Number of steps that XLA compiles as one program, for short steps on one device; `auto` "
        "measures 1 and 8.",
    )

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> RuntimeOptions:
        for option, strategies in STRATEGY_OPTIONS.items():
            unusual = getattr(self, option) != type(self).model_fields[option].default
            if unusual and self.strategy not in strategies:
                raise fault_at(
                    (option,), f"`{option}` does nothing with strategy {self.strategy}.",
                    f"It belongs to strategy {strategies[0]}.",
                )  # fmt: skip
        if self.memory != "auto" and self.feed != "auto":
            raise fault_at(("memory",), f"`memory` does nothing with feed {self.feed}.", "It belongs to feed auto.")
        if self.jit_steps != "auto" and self.jit is False:
            raise fault_at(
                ("jit_steps",), "`jit_steps` does nothing with jit false.", "It belongs to jit true or auto."
            )
        return self


STRATEGY_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "replicas": ("mirrored",),
    "cluster": ("multi_worker", "auto"),
    "start_timeout": ("multi_worker", "auto"),
    "tpu": ("tpu", "auto"),
}
"""The strategies with which an option of `runtime` has an effect; the others have one with all strategies."""
