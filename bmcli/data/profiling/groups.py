"""Columns that identify what several rows belong to, such as a patient, by their names and their numbers of rows.

Rows of one patient are alike. If some are in the training set and others in the test set, a model is tested on what it
has seen; and the number of a patient has no meaning for the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bmcli import inputs as input_kinds
from bmcli.quoting import quoted
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import PreparedData

if TYPE_CHECKING:
    from bmcli.data.checks import Finding

_ENTITIES = frozenset((
    "patient", "proband", "subject", "person", "participant", "respondent", "donor", "user", "customer",
    "client", "consumer", "member", "visitor", "account", "household", "family", "student", "pupil", "teacher",
    "employee", "driver", "player", "speaker", "author", "writer", "owner", "session", "visit", "encounter",
    "admission", "episode", "device", "machine", "engine", "sensor", "vehicle", "car", "truck", "trip",
    "animal", "mouse", "specimen", "sample", "case", "loan", "contract", "policy", "order", "invoice", "basket",
    "group", "cluster", "kunde", "kunden", "patienten", "nutzer", "haushalt", "gruppe",
))  # fmt: skip
"""What rows may belong to, where an identifier is named after it."""
_ENTITIES_ALONE = frozenset((
    "patient", "proband", "subject", "participant", "respondent", "donor", "user", "customer", "client",
    "household", "speaker", "person", "session", "device", "pupil", "student", "patienten", "nutzer",
))  # fmt: skip
"""Those whose name alone is that of an identifier, if the cells are codes."""
_CATALOGUES = frozenset((
    "type", "kind", "category", "class", "status", "state", "country", "region", "county", "city", "town",
    "district", "zip", "postal", "area", "color", "colour", "size", "level", "grade", "brand", "model",
    "product", "item", "article", "movie", "film", "book", "song", "genre", "store", "shop", "department",
    "branch", "language", "currency", "channel", "source", "day", "week", "month", "quarter", "year", "hour",
    "time", "date", "weekday", "season", "team", "league",
))  # fmt: skip
"""What an identifier is a category of: there are few, and a model meets the same ones again."""
_IDENTIFIER_WORDS = frozenset(["id", "ids", "uuid", "guid", "key", "no", "nr", "num", "number", "code", "hash"])
_SURE_WORDS = frozenset(["id", "ids", "uuid", "guid"])
_CODE = re.compile(r"(?=.*\d)[\w.:-]+|[0-9a-fA-F-]{8,}")
_MIN_ROWS_PER_GROUP = 1.05
_MAX_SHARE = 0.5  # of the rows of one group
_FEW, _SOME, _MANY = 5, 10, 20  # groups that are necessary, by how sure the name is
_MIN_GROUPS_PER_ROW = 0.005


def is_group(name: str, rows: int, distinct: int, top_share: float, example: str) -> bool:
    """Whether a column identifies groups of rows.

    Args:
        rows: Number of cells.
        distinct: Number of distinct cells.
        top_share: Share of the most frequent one.
        example: A cell; a number is a code.
    """
    if distinct < _FEW or rows < _MIN_ROWS_PER_GROUP * distinct or top_share > _MAX_SHARE:
        return False
    words = [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+|[0-9]+", name)]
    if not words or set(words[-2:]) & _CATALOGUES:
        return False
    last = words[-1]
    if last.endswith("id") and last[:-2] in _ENTITIES:
        return True
    if last in _IDENTIFIER_WORDS and set(words[:-1]) & _ENTITIES:
        return True
    if last in _SURE_WORDS:
        return distinct >= max(_MANY, _MIN_GROUPS_PER_ROW * rows)
    return last in _ENTITIES_ALONE and distinct >= _SOME and _CODE.fullmatch(example) is not None


def find_divided_groups(prepared: PreparedData) -> Iterator[Finding]:
    """Find inputs that identify groups of rows, of which other splits have rows as well as training."""
    import numpy as np

    from bmcli.data.checks import Finding

    train = prepared.split("train").inputs
    for column in prepared.spec.inputs:
        traits = input_kinds.get_traits(column)
        # As categories, identifiers may be meant: a recommender is for the users that it knows.
        if not traits.is_number or column.shape != (1,):
            continue
        values, counts = np.unique(np.asarray(train[column.name]), return_counts=True)
        if not is_group(column.name, int(counts.sum()), len(values), float(counts.max() / counts.sum()), "1"):
            continue
        for split in ("validation", "test"):
            others = (
                np.asarray(prepared.split(split).inputs[column.name]) if prepared.spec.counts[split] else values[:0]
            )
            shared = int(np.isin(others, values).sum())
            if shared:
                yield Finding(
                    "groups",
                    f"column {quoted(column.name)} identifies rows that belong together, but is an input, and "
                    f"{shared:,} of {len(others):,} {split} rows have one that training rows have, too: the {split} "
                    "score is that of known ones, and may be far lower for new ones.",
                    f"Write `split: {{group: {write_scalar(column.name)}}}`, which also takes it out of the inputs.",
                    {"split": split, "column": column.name, "rows": shared, "of": len(others)},
                )
                break
