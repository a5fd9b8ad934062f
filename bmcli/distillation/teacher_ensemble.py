"""Teachers and what they say, ready for a student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bmcli.distillation import input_adapters, transfer_set
from bmcli.distillation import teachers as opening
from bmcli.distillation.student_loss import DistillationLoss
from bmcli.distillation.teachers import BATCH_SIZE, TeacherPredictor
from bmcli.distillation.transfer_set import TeacherInputs, TransferSet
from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.recipe.distill import DistillationOptions, TransferOptions
from bmcli.recipe.schema import Recipe
from bmcli.specs import PreparedData


@dataclass(frozen=True)
class TeacherEnsemble:
    """The teachers of a student, opened before it is built.

    Args:
        recipe, prepared: The student's.
        predictor: None without teachers, as for a baseline that learns from the rows of a student.
    """

    recipe: Recipe
    distillation: DistillationOptions
    prepared: PreparedData
    placement: Placement
    predictor: TeacherPredictor | None
    cache: Path

    @classmethod
    def load_teachers(
        cls,
        recipe: Recipe,
        distillation: DistillationOptions,
        prepared: PreparedData,
        placement: Placement,
        cache: Path,
    ) -> TeacherEnsemble:
        """Opens the teachers.

        Raises:
            BmcliError: A teacher cannot be opened, or does not suit the student.
        """
        asking = None
        if distillation.teachers:
            found = opening.load_teachers(distillation, recipe, prepared.spec, placement)
            asking = TeacherPredictor(
                found, distillation, opening.list_output_forms(recipe), opening.list_layer_pairs(distillation)
            )
        return cls(recipe, distillation, prepared, placement, asking, cache)

    @cached_property
    def known(self) -> TransferSet:
        """What is learned from; what teachers will say of it in every epoch is asked once."""
        return transfer_set.load_transfer_set(self.recipe, self.distillation, self.prepared, self.predictor, self.cache)

    def build_loss(self, network: Network) -> DistillationLoss:
        """What the student learns from.

        Raises:
            BmcliError: A layer is not there, or cannot be compared.
        """
        asking = None if self.known.folder else self.predictor
        seen = (
            [input_adapters.build_adapter(teacher, self.prepared.spec) for teacher in asking.teachers] if asking else []
        )
        shares = self.predictor.merged_weights if self.predictor else ()
        loss = DistillationLoss(
            network, self.recipe, self.distillation, self.placement, asking, seen, self.known.shapes, shares
        )  # fmt: skip
        loss.note = self.note
        return loss

    @property
    def note(self) -> str:
        """How the teachers tell what they say, as a sentence."""
        if self.predictor is None:
            return ""
        if self.known.folder is None:
            return "the teacher is asked in every step, since data.augment changes what it sees"
        return (
            f"what the teacher says of {len(self.known.prepared.split('train')):,} rows was computed once, and is kept"
        )

    def predict_outputs(self, split: str) -> dict[str, np.ndarray]:
        """What the teachers say together of the rows of a split, as one would, by target, `(rows, width)`."""
        assert self.predictor is not None, "a student without teachers asks nobody"
        rows = TeacherInputs(self.recipe, self.prepared, TransferOptions())
        inputs = rows.encode(split, self.predictor.teachers)
        found = [
            self.predictor.merge_outputs(
                self.predictor.predict_arrays(inputs, slice(start, start + BATCH_SIZE))["outputs"]
            )
            for start in range(0, len(self.prepared.split(split)), BATCH_SIZE)
        ]
        return {name: np.concatenate([np.asarray(batch[name]) for batch in found]) for name in found[0]}
