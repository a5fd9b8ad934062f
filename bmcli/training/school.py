"""Teachers and what they say, ready for a student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bmcli.recipe.distill import TaughtOptions
from bmcli.recipe.schema import Recipe
from bmcli.specs import Prepared
from bmcli.training import teachers as opening
from bmcli.training import transfer, views
from bmcli.training.network import Network
from bmcli.training.strategy import Placement
from bmcli.training.teachers import BATCH, Asking
from bmcli.training.teaching import TaughtLesson
from bmcli.training.transfer import Known, RowsOfTeachers


@dataclass(frozen=True)
class School:
    """The teachers of a student, opened before it is built.

    Args:
        asking: None without teachers, as for a baseline that learns from the rows of a student.
    """

    recipe: Recipe
    taught: TaughtOptions
    placement: Placement
    asking: Asking | None
    known: Known

    @classmethod
    def opened(
        cls, recipe: Recipe, taught: TaughtOptions, prepared: Prepared, placement: Placement, cache: Path
    ) -> School:
        """Opens the teachers, and has them tell once of all rows what they will say of them in every epoch.

        Raises:
            BmcliError: A teacher cannot be opened, or does not suit the student.
        """
        asking = None
        if taught.teachers:
            found = opening.opened(taught, recipe, prepared.spec, placement)
            asking = Asking(found, taught, opening.forms_of(recipe), opening.asked_layers(taught))
        return cls(recipe, taught, placement, asking, transfer.known(recipe, taught, prepared, asking, cache))

    def lesson(self, network: Network) -> TaughtLesson:
        """What the student learns from.

        Raises:
            BmcliError: A layer is not there, or cannot be compared.
        """
        asking = None if self.known.folder else self.asking
        seen = [views.of(teacher, self.known.prepared.spec) for teacher in asking.teachers] if asking else []
        shares = self.asking.merged_shares if self.asking else ()
        lesson = TaughtLesson(
            network, self.recipe, self.taught, self.placement, asking, seen, self.known.shapes, shares
        )  # fmt: skip
        lesson.words = self.words
        return lesson

    @property
    def words(self) -> str:
        """How the teachers tell what they say, as a sentence."""
        if self.asking is None:
            return ""
        count = len(self.known.prepared.split("train"))
        if self.known.folder is None:
            return "the teacher is asked in every step, since data.augment changes what it sees"
        return f"what the teacher says of {count:,} rows was computed once: {self.known.folder}"

    def outputs(self, split: str) -> dict[str, np.ndarray]:
        """What the teachers say together of the rows of a split, as one would, by target, `(rows, width)`."""
        assert self.asking is not None, "a student without teachers asks nobody"
        prepared = self.known.prepared
        rows = RowsOfTeachers(self.recipe, prepared, self.taught.transfer)
        inputs = rows.inputs_of_teachers(split, self.asking.teachers)
        count = len(prepared.split(split))
        found = [
            self.asking.merged(self.asking.ask_all(inputs, slice(start, start + BATCH))["outputs"])
            for start in range(0, count, BATCH)
        ]
        return {name: np.concatenate([np.asarray(batch[name]) for batch in found]) for name in found[0]}
