"""Teacher ensembles: the teachers of a student, with their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bmcli.distillation.input_adapters import build_adapter
from bmcli.distillation.student_loss import DistillationLoss
from bmcli.distillation.teachers import (
    BATCH_SIZE,
    TeacherPredictor,
    list_layer_pairs,
    list_output_forms,
    load_teachers,
)
from bmcli.distillation.transfer_set import TeacherInputs, TransferSet, load_transfer_set
from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.recipe.distill import DistillationOptions, TransferOptions
from bmcli.recipe.schema import Recipe
from bmcli.specs import PreparedData


@dataclass(frozen=True)
class TeacherEnsemble:
    """The teachers of a student, loaded before it is built.

    Args:
        recipe, prepared: The student's.
        predictor: None without teachers, such as for a baseline on the rows of a student.
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
        """Load the teachers.

        Raises:
            BmcliError: A teacher cannot be loaded, or does not fit the student.
        """
        predictor = None
        if distillation.teachers:
            teachers = load_teachers(distillation, recipe, prepared.spec, placement)
            predictor = TeacherPredictor(
                teachers, distillation, list_output_forms(recipe), list_layer_pairs(distillation)
            )
        return cls(recipe, distillation, prepared, placement, predictor, cache)

    @cached_property
    def transfer_set(self) -> TransferSet:
        """The training rows of the student, with cached teacher outputs unless augmentation changes the inputs."""
        return load_transfer_set(self.recipe, self.distillation, self.prepared, self.predictor, self.cache)

    def build_loss(self, network: Network) -> DistillationLoss:
        """Build the loss of the student.

        Raises:
            BmcliError: A layer does not exist, or cannot be compared.
        """
        predictor = None if self.transfer_set.folder else self.predictor
        adapters = [build_adapter(teacher, self.prepared.spec) for teacher in (predictor.teachers if predictor else ())]
        teacher_weights = self.predictor.merged_weights if self.predictor else ()
        loss = DistillationLoss(
            network, self.recipe, self.distillation, self.placement, predictor, adapters, self.transfer_set.shapes,
            teacher_weights,
        )  # fmt: skip
        loss.note = self.note
        return loss

    @property
    def note(self) -> str:
        """The way in which the teachers' outputs are computed, as a sentence; empty without teachers."""
        if self.predictor is None:
            return ""
        if self.transfer_set.folder is None:
            return "the teacher predicts in every step, since data.augment changes its inputs"
        rows = len(self.transfer_set.prepared.split("train"))
        return f"the teacher's outputs for {rows:,} rows were computed once and are cached"

    def predict_outputs(self, split: str) -> dict[str, np.ndarray]:
        """Predict the rows of a split with the ensemble as one network, by target, `(rows, width)`."""
        assert self.predictor is not None, "the ensemble has no teachers"
        rows = TeacherInputs(self.recipe, self.prepared, TransferOptions())
        inputs = rows.encode(split, self.predictor.teachers)
        batches = [
            self.predictor.merge_outputs(
                self.predictor.predict_arrays(inputs, slice(start, start + BATCH_SIZE))["outputs"]
            )
            for start in range(0, len(self.prepared.split(split)), BATCH_SIZE)
        ]
        return {name: np.concatenate([np.asarray(batch[name]) for batch in batches]) for name in batches[0]}
