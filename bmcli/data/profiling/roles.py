"""What each column is for, guessed from how it looks: input, target, split, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bmcli import parts
from bmcli.data.profiling.column_profile import Look
from bmcli.errors import BmcliError
from bmcli.quoting import LONGEST, brief, quoted
from bmcli.raw_columns import Raw, texts

TARGET_NAMES = ("target", "label", "labels", "class", "y", "outcome", "response")
_IDENTIFIERS = ("id", "rownames", "rowname", "row", "index", "uuid", "guid", "key", "no", "number", "unnamed: 0")
_FEW_CLASSES = 20
_MOST_NAMED = 5
_CERTAIN = 0.999
_USUAL = 0.95  # of one class alone, beside which certainty means little
_LARGEST = 96  # pixels a side of pictures that are not much slower on a processor than they need be


@dataclass(frozen=True)
class Role:
    """What a column is for, and why.

    Args:
        kind: Its kind as input or target; empty for others.
        options: Of that kind, where they differ from the defaults.
    """

    look: Look
    role: Literal["input", "target", "split", "dropped"]
    kind: str = ""
    why: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.look.name


def assign(looks: Sequence[Look], target: str | None) -> tuple[Role, ...]:
    """A role for every column, in their order.

    Args:
        target: The column to predict, if the user says.

    Raises:
        BmcliError: It cannot be told which column is the target, or nothing is left to learn from.
    """
    split = next((look for look in looks if look.splits and look.name != target), None)
    rest = [look for look in looks if look is not split]
    chosen, why = pick_target(rest, target)
    roles = {chosen.name: _of_target(chosen, why)}
    if split is not None:
        roles[split.name] = Role(split, "split", why="its cells are names of splits")
    others = [look for look in rest if look is not chosen]
    roles |= {look.name: _of_input(look) for look in others}
    if not any(role.role == "input" for role in roles.values()):
        roles |= _spared(others)
    return tuple(roles[look.name] for look in looks)


def without_leaks(assigned: Sequence[Role], columns: Mapping[str, Raw]) -> tuple[Role, ...]:
    """The same roles, but without inputs of few categories each of which belongs to one class of the target.

    What tells the target so plainly was mostly written down after it was known.
    """
    target = next(role for role in assigned if role.role == "target")
    if target.kind != "category" or target.look.commonest > _USUAL:
        return tuple(assigned)
    told = [
        role for role in assigned
        if role.role == "input" and role.kind in ("category", "boolean") and role.look.repeats >= 5
        and _certainty(columns[role.name], columns[target.name]) > _CERTAIN
    ]  # fmt: skip
    if all(role in told or role.role != "input" for role in assigned):
        return tuple(assigned)
    why = f"each of its cells goes with one class of {target.name}: is it known before the target is?"
    return tuple(_dropped(role.look, why) if role in told else role for role in assigned)


def _certainty(column: Raw, target: Raw) -> float:
    """Share of the rows that the commonest class of each category gets right."""
    import pyarrow as pa

    pairs = pa.table({"cell": texts(column), "class": texts(target)}).group_by(["cell", "class"])
    counted = pairs.aggregate([([], "count_all")]).group_by("cell").aggregate([("count_all", "max")])
    right: int = counted["count_all_max"].to_numpy().sum()
    return right / len(column)


def pick_target(looks: Sequence[Look], asked: str | None) -> tuple[Look, str]:
    """The column to predict, and why it is that one.

    Raises:
        BmcliError: There is no such column, or several would do.
    """
    if asked is not None:
        named = next((look for look in looks if look.name == asked), None)
        if named is None:
            names = [look.name for look in looks]
            raise BmcliError(f"no column {quoted(asked)}.", suggestion=parts.did_you_mean(asked, names))
        return named, "as you said"
    fit = [look for look in looks if _may_be_target(look)]
    taken = {look.name.lower() for look in looks}
    known = [name for name in TARGET_NAMES if name != "y" or "z" not in taken]  # coordinates
    by_name = [look for look in fit if look.name.lower() in known]
    if len(by_name) == 1:
        return by_name[0], "by its name"
    found = None if by_name else _by_look(fit)
    if found is None:
        raise _unsure(by_name or fit)
    return found


def _may_be_target(look: Look) -> bool:
    single = not (look.is_array or look.is_encoded or look.is_date or look.is_file)
    return single and look.distinct > 1 and not _names_rows(look)


def _by_look(fit: Sequence[Look]) -> tuple[Look, str] | None:
    """The only column that looks like a target, or None if there are several."""
    classes = [look for look in fit if _is_class(look)]
    rest = [look for look in fit if look not in classes]
    if len(fit) == 1:
        return fit[0], "the only column that can be predicted"
    if len(classes) == 1 and (classes[0] is fit[-1] or not any(look.is_number for look in fit)):
        return classes[0], "the only column of a few classes"
    if rest and len(rest) == len(fit) and all(look.is_number for look in rest):
        return rest[-1], "the last of columns that are all numbers"
    return None


def _is_class(look: Look) -> bool:
    """Whether a column of text has few values that come again and again."""
    return look.is_boolean or (not look.is_number and look.distinct <= 100 and look.repeats >= 5)


def _unsure(candidates: Sequence[Look]) -> BmcliError:
    if not candidates:
        return BmcliError(
            "no column can be predicted: all are constant, dates, files or identifiers.",
            suggestion="Name one with --target.",
        )
    # Targets mostly stand last or first.
    ordered = [candidates[-1], candidates[0], *(look for look in candidates[1:-1] if _is_class(look))][:6]
    names = ", ".join(dict.fromkeys(f"{brief(look.name, LONGEST)} ({_told(look)})" for look in ordered))
    return BmcliError(
        f"it is not clear which column is to be predicted. Candidates: {names}.",
        suggestion=f"Say it, as --target {brief(candidates[-1].name, LONGEST)}.",
    )


def _told(look: Look) -> str:
    return "number" if look.is_number and look.distinct > 2 else f"{look.distinct:,} values"


def _of_target(look: Look, why: str) -> Role:
    """The target with its kind.

    Raises:
        BmcliError: No kind of target learns such a column.
    """
    if look.is_array or look.is_encoded:
        raise BmcliError(
            f"column {quoted(look.name)} holds {'files' if look.dtype == 'file' else 'arrays'}, "
            "expected one value a row.",
            suggestion="Name another with --target.",
        )
    if look.distinct < 2:
        raise BmcliError(
            f"column {quoted(look.name)}: every row has {'the same' if look.distinct else 'no'} value, so nothing is "
            "to be learned.",
            suggestion="Name another with --target.",
        )
    if not look.is_number:
        return _of_class(look, why)
    values = f"{look.least:g} to {look.greatest:g}"
    if look.distinct == 2 or _are_codes(look):
        return Role(look, "target", "category", f"{why}; its {look.distinct} whole numbers are taken for classes")
    if _are_counts(look):
        return Role(look, "target", "count", f"{why}; whole numbers from {values}, taken for counts")
    return Role(look, "target", "number", f"{why}; numbers from {values}")


def _of_class(look: Look, why: str) -> Role:
    if look.repeats < 2 and look.distinct > _FEW_CLASSES:
        raise BmcliError(
            f"column {quoted(look.name)} has {look.distinct:,} different texts in {look.present:,} rows: these are no "
            "classes, and no kind of target writes text.",
            suggestion="Name another with --target.",
        )
    why = f"{why}; {look.distinct} classes, the most frequent {look.commonest:.1%} of the rows"
    return Role(look, "target", "category", why)


def _are_codes(look: Look) -> bool:
    """Whether numbers are classes: few whole ones without a gap, each of them many times."""
    few = look.whole and look.distinct <= _FEW_CLASSES and look.repeats >= 10
    return few and look.greatest - look.least + 1 == look.distinct


def _are_counts(look: Look) -> bool:
    """Whether numbers count something: whole, from 0 or 1 on, and wider spread than a measure around its mean."""
    known = "count" in parts.names("data.targets")
    return known and look.whole and 0 <= look.least <= 1 and look.variance > look.mean


def _names_rows(look: Look) -> bool:
    """Whether a column only tells rows apart."""
    name = look.name.lower()
    by_name = name in _IDENTIFIERS or name.endswith(("_id", " id", ".id", "-id"))
    different = look.rows > 1 and look.repeats < 1.05
    return look.counts_rows or (by_name and different and (look.whole or not look.is_number))


def _of_input(look: Look) -> Role:
    """The kind of input that a column looks like, or why it is none."""
    if not look.distinct:
        return _dropped(look, "every cell is missing")
    if look.distinct == 1:
        return _dropped(look, "every cell has the same value")
    if look.is_encoded:
        return _of_pictures(look)
    if look.is_array:
        return _of_array(look)
    if _names_rows(look):
        return _dropped(look, "it counts the rows" if look.counts_rows else "an identifier of the row")
    if look.is_number:
        return Role(look, "input", "number", "numbers")
    if look.is_picture:
        return _dropped(look, "it names pictures that are not where it says, seen from the table")
    if look.is_file:
        return _dropped(look, "it names files, which this source does not open")
    if look.likely == "number":
        return _dropped(look, "numbers but for a few cells; name these in `missing` of the source to use it")
    if look.likely == "date" and not look.is_mixed:
        return Role(look, "input", "date", "dates")
    if look.is_month:
        return Role(look, "input", "date", "months", {"format": "%Y-%m"})
    if look.is_date or look.is_mixed:
        return _dropped(look, "dates in several formats; name these in `inputs` to use it")
    if look.is_boolean:
        return Role(look, "input", look.likely, "yes or no")
    if look.likely == "text":
        words = f"{look.words:.0f} words a cell, {look.distinct:,} of {look.present:,} different"
        return Role(look, "input", "text", words)
    if look.repeats < 1.05 and look.rows > 20:
        return _dropped(look, "nearly every row has another value")
    return Role(look, "input", "category", f"{look.distinct:,} categories")


def _of_pictures(look: Look) -> Role:
    """Encoded pictures, all brought to one size that trains in reasonable time."""
    height, width = look.shape or (_LARGEST, _LARGEST)
    if look.sizes_differ or max(height, width) > _LARGEST:
        side = min(_LARGEST, max(height, width))
        why = f"pictures of {'many sizes' if look.sizes_differ else f'{height}x{width} pixels'}, made {side}x{side}"
        return Role(look, "input", "image", why, {"size": [side, side]})
    return Role(look, "input", "image", f"pictures of {height}x{width} pixels")


def _of_array(look: Look) -> Role:
    shape = "x".join(map(str, look.shape))
    picture = look.dtype == "uint8" or (len(look.shape) == 3 and look.shape[-1] in (1, 3))
    if len(look.shape) in (2, 3) and picture:
        return Role(look, "input", "image", f"pictures of {shape}")
    if len(look.shape) == 2:
        padded = ", with missing steps" if look.missing else ""
        return Role(look, "input", "number", f"sequences of {look.shape[0]} steps of {look.shape[1]} numbers{padded}")
    return Role(look, "input", "number", f"arrays of {shape}")


def _dropped(look: Look, why: str) -> Role:
    return Role(look, "dropped", why=why)


def _spared(looks: Sequence[Look]) -> dict[str, Role]:
    """Single words that are different in nearly every row, where nothing else is there to learn from.

    Raises:
        BmcliError: There are none.
    """
    words = [look for look in looks if look.distinct > 1 and not (look.is_number or look.is_date or look.is_file)]
    if not words:
        dropped = "; ".join(f"{quoted(look.name)}: {_of_input(look).why}" for look in looks[:_MOST_NAMED])
        dropped += f"; and {len(looks) - _MOST_NAMED} more" if len(looks) > _MOST_NAMED else ""
        raise BmcliError(f"no column is left to learn from. {dropped or 'The target is the only column'}.")
    letters = {"tokens": "characters"}
    return {look.name: Role(look, "input", "text", "words, read by their letters", letters) for look in words}
