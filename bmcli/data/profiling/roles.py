"""What each column is for, guessed from how it looks: input, target, split, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bmcli import parts
from bmcli.data.profiling.column_profile import ColumnProfile
from bmcli.errors import BmcliError
from bmcli.quoting import LONGEST, brief, quoted
from bmcli.raw_columns import RawColumn, to_texts

TARGET_NAMES = ("target", "label", "labels", "class", "y", "outcome", "response")
_IDENTIFIERS = ("id", "rownames", "rowname", "row", "index", "uuid", "guid", "key", "no", "number", "unnamed: 0")
_FEW_CLASSES = 20
_MOST_NAMED = 5
_CERTAIN = 0.999
_DOMINANT_SHARE = 0.95  # of one class alone, beside which certainty means little
_MAX_SIDE = 96  # pixels a side of pictures that are not much slower on a processor than they need be


@dataclass(frozen=True)
class ColumnRole:
    """What a column is for, and why.

    Args:
        kind: Its kind as input or target; empty for others.
        options: Of that kind, where they differ from the defaults.
    """

    profile: ColumnProfile
    role: Literal["input", "target", "split", "dropped"]
    kind: str = ""
    why: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.profile.name


def assign_roles(profiles: Sequence[ColumnProfile], target: str | None) -> tuple[ColumnRole, ...]:
    """A role for every column, in their order.

    Args:
        target: The column to predict, if the user says.

    Raises:
        BmcliError: It cannot be told which column is the target, or nothing is left to learn from.
    """
    split = next((look for look in profiles if look.splits and look.name != target), None)
    rest = [look for look in profiles if look is not split]
    chosen, why = pick_target(rest, target)
    roles = {chosen.name: _make_target_role(chosen, why)}
    if split is not None:
        roles[split.name] = ColumnRole(split, "split", why="its cells are names of splits")
    others = [look for look in rest if look is not chosen]
    roles |= {look.name: _make_input_role(look) for look in others}
    if not any(role.role == "input" for role in roles.values()):
        roles |= _keep_word_columns(others)
    return tuple(roles[look.name] for look in profiles)


def drop_leaks(assigned: Sequence[ColumnRole], columns: Mapping[str, RawColumn]) -> tuple[ColumnRole, ...]:
    """The same roles, but without inputs of few categories each of which belongs to one class of the target.

    What tells the target so plainly was mostly written down after it was known.
    """
    target = next(role for role in assigned if role.role == "target")
    if target.kind != "category" or target.profile.top_share > _DOMINANT_SHARE:
        return tuple(assigned)
    told = [
        role for role in assigned
        if role.role == "input" and role.kind in ("category", "boolean") and role.profile.rows_per_value >= 5
        and _certainty(columns[role.name], columns[target.name]) > _CERTAIN
    ]  # fmt: skip
    if all(role in told or role.role != "input" for role in assigned):
        return tuple(assigned)
    why = f"each of its cells goes with one class of {target.name}: is it known before the target is?"
    return tuple(_make_dropped_role(role.profile, why) if role in told else role for role in assigned)


def _certainty(column: RawColumn, target: RawColumn) -> float:
    """Share of the rows that the commonest class of each category gets right."""
    import pyarrow as pa

    pairs = pa.table({"cell": to_texts(column), "class": to_texts(target)}).group_by(["cell", "class"])
    counted = pairs.aggregate([([], "count_all")]).group_by("cell").aggregate([("count_all", "max")])
    right: int = counted["count_all_max"].to_numpy().sum()
    return right / len(column)


def pick_target(profiles: Sequence[ColumnProfile], requested: str | None) -> tuple[ColumnProfile, str]:
    """The column to predict, and why it is that one.

    Raises:
        BmcliError: There is no such column, or several would do.
    """
    if requested is not None:
        named = next((look for look in profiles if look.name == requested), None)
        if named is None:
            names = [look.name for look in profiles]
            raise BmcliError(f"no column {quoted(requested)}.", suggestion=parts.did_you_mean(requested, names))
        return named, "as you said"
    fit = [look for look in profiles if _may_be_target(look)]
    taken = {look.name.lower() for look in profiles}
    known = [name for name in TARGET_NAMES if name != "y" or "z" not in taken]  # coordinates
    by_name = [look for look in fit if look.name.lower() in known]
    if len(by_name) == 1:
        return by_name[0], "by its name"
    found = None if by_name else _pick_by_profile(fit)
    if found is None:
        raise _unclear_target_error(by_name or fit)
    return found


def _may_be_target(profile: ColumnProfile) -> bool:
    single = not (profile.is_array or profile.is_encoded or profile.is_date or profile.is_file)
    return single and profile.distinct > 1 and not _is_identifier(profile)


def _pick_by_profile(fit: Sequence[ColumnProfile]) -> tuple[ColumnProfile, str] | None:
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


def _is_class(profile: ColumnProfile) -> bool:
    """Whether a column of text has few values that come again and again."""
    return profile.is_boolean or (not profile.is_number and profile.distinct <= 100 and profile.rows_per_value >= 5)


def _unclear_target_error(candidates: Sequence[ColumnProfile]) -> BmcliError:
    if not candidates:
        return BmcliError(
            "no column can be predicted: all are constant, dates, files or identifiers.",
            suggestion="Name one with --target.",
        )
    # Targets mostly stand last or first.
    ordered = [candidates[-1], candidates[0], *(look for look in candidates[1:-1] if _is_class(look))][:6]
    names = ", ".join(dict.fromkeys(f"{brief(look.name, LONGEST)} ({_describe_values(look)})" for look in ordered))
    return BmcliError(
        f"it is not clear which column is to be predicted. Candidates: {names}.",
        suggestion=f"Say it, as --target {brief(candidates[-1].name, LONGEST)}.",
    )


def _describe_values(profile: ColumnProfile) -> str:
    return "number" if profile.is_number and profile.distinct > 2 else f"{profile.distinct:,} values"


def _make_target_role(profile: ColumnProfile, why: str) -> ColumnRole:
    """The target with its kind.

    Raises:
        BmcliError: No kind of target learns such a column.
    """
    if profile.is_array or profile.is_encoded:
        raise BmcliError(
            f"column {quoted(profile.name)} holds {'files' if profile.dtype == 'file' else 'arrays'}, "
            "expected one value a row.",
            suggestion="Name another with --target.",
        )
    if profile.distinct < 2:
        raise BmcliError(
            f"column {quoted(profile.name)}: every row has {'the same' if profile.distinct else 'no'} "
            "value, so nothing is "
            "to be learned.",
            suggestion="Name another with --target.",
        )
    if not profile.is_number:
        return _make_class_role(profile, why)
    values = f"{profile.minimum:g} to {profile.maximum:g}"
    if profile.distinct == 2 or _are_codes(profile):
        return ColumnRole(
            profile, "target", "category", f"{why}; its {profile.distinct} whole numbers are taken for classes"
        )
    if _are_counts(profile):
        return ColumnRole(profile, "target", "count", f"{why}; whole numbers from {values}, taken for counts")
    return ColumnRole(profile, "target", "number", f"{why}; numbers from {values}")


def _make_class_role(profile: ColumnProfile, why: str) -> ColumnRole:
    if profile.rows_per_value < 2 and profile.distinct > _FEW_CLASSES:
        raise BmcliError(
            f"column {quoted(profile.name)} has {profile.distinct:,} different texts in "
            f"{profile.present:,} rows: these are no "
            "classes, and no kind of target writes text.",
            suggestion="Name another with --target.",
        )
    why = f"{why}; {profile.distinct} classes, the most frequent {profile.top_share:.1%} of the rows"
    return ColumnRole(profile, "target", "category", why)


def _are_codes(profile: ColumnProfile) -> bool:
    """Whether numbers are classes: few whole ones without a gap, each of them many times."""
    few = profile.is_integer and profile.distinct <= _FEW_CLASSES and profile.rows_per_value >= 10
    return few and profile.maximum - profile.minimum + 1 == profile.distinct


def _are_counts(profile: ColumnProfile) -> bool:
    """Whether numbers count something: whole, from 0 or 1 on, and wider spread than a measure around its mean."""
    known = "count" in parts.names("data.targets")
    return known and profile.is_integer and 0 <= profile.minimum <= 1 and profile.variance > profile.mean


def _is_identifier(profile: ColumnProfile) -> bool:
    """Whether a column only tells rows apart."""
    name = profile.name.lower()
    by_name = name in _IDENTIFIERS or name.endswith(("_id", " id", ".id", "-id"))
    different = profile.rows > 1 and profile.rows_per_value < 1.05
    return profile.is_row_index or (by_name and different and (profile.is_integer or not profile.is_number))


def _make_input_role(profile: ColumnProfile) -> ColumnRole:
    """The kind of input that a column looks like, or why it is none."""
    if not profile.distinct:
        return _make_dropped_role(profile, "every cell is missing")
    if profile.distinct == 1:
        return _make_dropped_role(profile, "every cell has the same value")
    if profile.is_encoded:
        return _make_image_role(profile)
    if profile.is_array:
        return _make_array_role(profile)
    if _is_identifier(profile):
        return _make_dropped_role(profile, "it counts the rows" if profile.is_row_index else "an identifier of the row")
    if profile.is_number:
        return ColumnRole(profile, "input", "number", "numbers")
    if profile.is_picture:
        return _make_dropped_role(profile, "it names pictures that are not where it says, seen from the table")
    if profile.is_file:
        return _make_dropped_role(profile, "it names files, which this source does not open")
    if profile.likely_kind == "number":
        return _make_dropped_role(
            profile, "numbers but for a few cells; name these in `missing` of the source to use it"
        )
    if profile.likely_kind == "date" and not profile.has_mixed_dates:
        return ColumnRole(profile, "input", "date", "dates")
    if profile.is_month:
        return ColumnRole(profile, "input", "date", "months", {"format": "%Y-%m"})
    if profile.is_date or profile.has_mixed_dates:
        return _make_dropped_role(profile, "dates in several formats; name these in `inputs` to use it")
    if profile.is_boolean:
        return ColumnRole(profile, "input", profile.likely_kind, "yes or no")
    if profile.likely_kind == "text":
        words = f"{profile.mean_words:.0f} words a cell, {profile.distinct:,} of {profile.present:,} different"
        return ColumnRole(profile, "input", "text", words)
    if profile.rows_per_value < 1.05 and profile.rows > 20:
        return _make_dropped_role(profile, "nearly every row has another value")
    return ColumnRole(profile, "input", "category", f"{profile.distinct:,} categories")


def _make_image_role(profile: ColumnProfile) -> ColumnRole:
    """Encoded pictures, all brought to one size that trains in reasonable time."""
    height, width = profile.shape or (_MAX_SIDE, _MAX_SIDE)
    if profile.sizes_differ or max(height, width) > _MAX_SIDE:
        side = min(_MAX_SIDE, max(height, width))
        why = f"pictures of {'many sizes' if profile.sizes_differ else f'{height}x{width} pixels'}, made {side}x{side}"
        return ColumnRole(profile, "input", "image", why, {"size": [side, side]})
    return ColumnRole(profile, "input", "image", f"pictures of {height}x{width} pixels")


def _make_array_role(profile: ColumnProfile) -> ColumnRole:
    shape = "x".join(map(str, profile.shape))
    picture = profile.dtype == "uint8" or (len(profile.shape) == 3 and profile.shape[-1] in (1, 3))
    if len(profile.shape) in (2, 3) and picture:
        return ColumnRole(profile, "input", "image", f"pictures of {shape}")
    if len(profile.shape) == 2:
        padded = ", with missing steps" if profile.missing else ""
        return ColumnRole(
            profile, "input", "number", f"sequences of {profile.shape[0]} steps of {profile.shape[1]} numbers{padded}"
        )
    return ColumnRole(profile, "input", "number", f"arrays of {shape}")


def _make_dropped_role(profile: ColumnProfile, why: str) -> ColumnRole:
    return ColumnRole(profile, "dropped", why=why)


def _keep_word_columns(profiles: Sequence[ColumnProfile]) -> dict[str, ColumnRole]:
    """Single words that are different in nearly every row, where nothing else is there to learn from.

    Raises:
        BmcliError: There are none.
    """
    words = [look for look in profiles if look.distinct > 1 and not (look.is_number or look.is_date or look.is_file)]
    if not words:
        dropped = "; ".join(f"{quoted(look.name)}: {_make_input_role(look).why}" for look in profiles[:_MOST_NAMED])
        dropped += f"; and {len(profiles) - _MOST_NAMED} more" if len(profiles) > _MOST_NAMED else ""
        raise BmcliError(f"no column is left to learn from. {dropped or 'The target is the only column'}.")
    letters = {"tokens": "characters"}
    return {look.name: ColumnRole(look, "input", "text", "words, read by their letters", letters) for look in words}
