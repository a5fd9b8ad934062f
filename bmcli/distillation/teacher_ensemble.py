"""Teachers and what they say, ready for a student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bmcli.distillation import input_adapters, transfer_set
from bmcli.distillation import teachers as opening
from bmcli.distillation.student_loss import DistillationLoss
from bmcli.distillation.teachers import BATCH, Asking
from bmcli.distillation.transfer_set import Known, RowsOfTeachers
from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.recipe.distill import TaughtOptions, TransferOptions
from bmcli.recipe.schema import Recipe
from bmcli.specs import Prepared


@dataclass(frozen=True)
class School:
    """The teachers of a student, opened before it is built.

    Args:
        recipe, prepared: The student's.
        asking: None without teachers, as for a baseline that learns from the rows of a student.
    """

    recipe: Recipe
    taught: TaughtOptions
    prepared: Prepared
    placement: Placement
    asking: Asking | None
    cache: Path

    @classmethod
    def opened(
        cls, recipe: Recipe, taught: TaughtOptions, prepared: Prepared, placement: Placement, cache: Path
    ) -> School:
        """Opens the teachers.

        Raises:
            BmcliError: A teacher cannot be opened, or does not suit the student.
        """
        asking = None
        if taught.teachers:
            found = opening.opened(taught, recipe, prepared.spec, placement)
            asking = Asking(found, taught, opening.forms_of(recipe), opening.asked_layers(taught))
        return cls(recipe, taught, prepared, placement, asking, cache)

    @cached_property
    def known(self) -> Known:
        """What is learned from; what teachers will say of it in every epoch is asked once."""
        return transfer_set.known(self.recipe, self.taught, self.prepared, self.asking, self.cache)

    def loss(self, network: Network) -> DistillationLoss:
        """What the student learns from.

        Raises:
            BmcliError: A layer is not there, or cannot be compared.
        """
        asking = None if self.known.folder else self.asking
        seen = [input_adapters.of(teacher, self.prepared.spec) for teacher in asking.teachers] if asking else []
        shares = self.asking.merged_shares if self.asking else ()
        loss = DistillationLoss(
            network, self.recipe, self.taught, self.placement, asking, seen, self.known.shapes, shares
        )  # fmt: skip
        loss.note = self.words
        return loss

    @property
    def words(self) -> str:
        """How the teachers tell what they say, as a sentence."""
        if self.asking is None:
            return ""
        if self.known.folder is None:
            return "the teacher is asked in every step, since data.augment changes what it sees"
        return (
            f"what the teacher says of {len(self.known.prepared.split('train')):,} rows was computed once, and is kept"
        )

    def outputs(self, split: str) -> dict[str, np.ndarray]:
        """What the teachers say together of the rows of a split, as one would, by target, `(rows, width)`."""
        assert self.asking is not None, "a student without teachers asks nobody"
        rows = RowsOfTeachers(self.recipe, self.prepared, TransferOptions())
        inputs = rows.inputs_of_teachers(split, self.asking.teachers)
        found = [
            self.asking.merged(self.asking.ask_all(inputs, slice(start, start + BATCH))["outputs"])
            for start in range(0, len(self.prepared.split(split)), BATCH)
        ]
        return {name: np.concatenate([np.asarray(batch[name]) for batch in found]) for name in found[0]}
