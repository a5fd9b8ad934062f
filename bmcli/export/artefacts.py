"""Artefacts that are opened again: to predict with them, and to measure them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.console import native_noise_hidden
from bmcli.errors import ArtefactRejected
from bmcli.export import Signature, card, encoder, rows, runner
from bmcli.export.verify import predicted
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import numpy as np

_BATCH = 256


@dataclass(frozen=True)
class Opened:
    """An artefact whose files are as they were written.

    Args:
        card: As its JSON has it.
        source: How the source of the training rows was read, as a recipe writes it.
    """

    folder: Path
    card: Mapping[str, Any]
    spec: DataSpec
    source: Mapping[str, Any]

    @property
    def quantiles(self) -> dict[str, Sequence[float]]:
        """Of each target whose quantiles are predicted, which they are."""
        return {target["name"]: target["quantiles"] for target in self.card["targets"] if "quantiles" in target}

    @property
    def signature(self) -> Signature:
        """The usual one."""
        return card.written_from(self.card).signatures[0]

    def start(self) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """Loads it; a function from raw cells by column to predictions by target.

        Raises:
            ArtefactRejected: It cannot be loaded.
        """
        try:
            with native_noise_hidden():
                loaded = runner.Artefact(self.folder, encoder)
        except Exception as error:  # a runtime raises anything
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise ArtefactRejected(f"{self.folder}: cannot be loaded: {reason}") from None
        return lambda raw: self._say(loaded, raw)

    def _say(self, loaded: runner.Artefact, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        count = len(next(iter(raw.values())))
        found: dict[str, list[np.ndarray]] = {target.name: [] for target in self.spec.targets}
        for start in range(0, count, _BATCH):
            some = {name: values[start : start + _BATCH] for name, values in raw.items()}
            given = loaded.predict(rows.opened(some, self.signature, self.spec))
            for target in self.spec.targets:
                found[target.name].append(predicted(given, target))
        return {name: np.concatenate(values) for name, values in found.items()}


def is_one(folder: Path) -> bool:
    """Whether a folder is that of an artefact."""
    return (folder / card.CARD).is_file()


def opened(folder: Path) -> Opened:
    """An artefact by its folder.

    Raises:
        ArtefactRejected: A file is missing, or is not what was written.
    """
    values = card.read(folder)
    try:
        described = json.loads((folder / card.PREPROCESSING).read_bytes())
        source = _tupled(described.pop("source"))
        return Opened(folder, values, DataSpec.from_json(described), source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ArtefactRejected(f"{folder / card.PREPROCESSING}: missing or damaged.") from None


def _tupled(value: Any) -> Any:
    """JSON with tuples in the place of lists, as options take them."""
    if isinstance(value, dict):
        return {key: _tupled(each) for key, each in value.items()}
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value
