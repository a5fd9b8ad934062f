"""Agreement of an artefact with its model: limits, comparisons, and their description in words.

Every artefact has to pass three comparisons:

- Use: is the answer the same to a person? Classes must be equal. Numbers must be equal within a share of the
  interquartile range of the model's predictions, which outliers do not stretch as they do a standard deviation; and
  their R2 with the model's predictions as truth must be near 1.
- Arithmetic: is the difference as small as the format can make it? Rounding errors of a sum grow with its terms,
  so the limit grows with the largest output of the network, such as a logit: a network with logits of 100 cannot have
  the last digits of one with logits of 1.
- Quality: does a metric against the truth stay?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli.export import Precision
from bmcli.quoting import quoted
from bmcli.recipe.export import VerifyOptions
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers

_INT8_IMAGE_AGREEMENT = 0.995  # required of int8 networks on pictures
_TOLERANCE, _REDUCED_TOLERANCE = 0.01, 0.1  # of numbers, in interquartile ranges


@dataclass(frozen=True)
class RoundingLimit:
    """Largest difference that rounding explains: a share of the scale of an output, within bounds.

    Args:
        relative: Share of the scale. A float32 is rounded by up to 6e-8 of it, a float16 weight by up to 5e-4; the sums
            of some layers make it more than a hundred times, and a few times, as much.
        least: Limit of small outputs, since inner sums may be larger than the output.
        most: Limit of large outputs, for whose size rounding is no excuse any more.
    """

    relative: float
    least: float
    most: float

    def compute(self, scale: float) -> float:
        return min(max(self.relative * scale, self.least), self.most)


@dataclass(frozen=True)
class Limits:
    """Limits of the differences between an artefact and its model; None is no limit.

    Args:
        agreement: Least share of rows with the same answer.
        tolerance: Numbers with a smaller difference, in interquartile ranges, count as the same answer.
        allowed_rows: Number of rows that may differ whatever their share, since one of few rows is over a percent.
        rounding: Limit of the difference by the scale of the output, unless `max_difference` is given.
        max_difference: The same as a number.
        model_r2: Least R2 of numbers with those of the model as truth.
        metric_drop: Largest decrease of a metric.
    """

    agreement: float
    rounding: RoundingLimit | None
    metric_drop: float | None
    model_r2: float | None
    tolerance: float = _TOLERANCE
    allowed_rows: int = 0
    max_difference: float | None = None

    def limit_difference(self, scale: float) -> float | None:
        """Compute the largest difference of an output.

        Args:
            scale: As in `OutputComparison`.
        """
        if self.max_difference is not None:
            return self.max_difference
        return None if self.rounding is None else self.rounding.compute(scale)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "rounding": None if self.rounding is None else vars(self.rounding)}


_DEFAULT_LIMITS: Mapping[Precision, Limits] = {
    "float32": Limits(1.0, RoundingLimit(1e-5, 1e-4, 0.01), 0.001, 0.9999),
    "float16": Limits(0.995, RoundingLimit(2e-3, 0.02, 0.1), 0.01, 0.999, allowed_rows=1),
    "int8": Limits(0.99, None, 0.01, 0.99, _REDUCED_TOLERANCE, allowed_rows=1),
    "reduced": Limits(0.99, None, 0.01, 0.99, _REDUCED_TOLERANCE, allowed_rows=1),
}


def resolve_limits(options: VerifyOptions, precision: Precision, spec: DataSpec) -> Limits:
    """Resolve the limits of a recipe; `auto` is the default for a precision and the inputs."""
    limits = _DEFAULT_LIMITS[precision]
    if precision == "int8" and any(input_kinds.get_traits(c).display == "picture" for c in spec.inputs):
        limits = replace(limits, agreement=_INT8_IMAGE_AGREEMENT)
    if options.agreement != "auto":
        limits = replace(limits, agreement=options.agreement, allowed_rows=0)
    if options.max_difference != "auto":
        largest = None if options.max_difference == "none" else options.max_difference
        limits = replace(limits, rounding=None, max_difference=largest)
    if options.model_r2 != "auto":
        limits = replace(limits, model_r2=None if options.model_r2 == "none" else options.model_r2)
    if options.metric_drop != "auto":
        limits = replace(limits, metric_drop=None if options.metric_drop == "none" else options.metric_drop)
    return limits


@dataclass(frozen=True)
class OutputComparison:
    """The predictions of one output of an artefact beside the model's.

    Args:
        same: Description of equal answers, such as `the same class`.
        unit: Of the differences, such as `interquartile ranges`.
        difference: The largest one; None if it is not finite.
        scale: Largest size of the outputs of the network, such as logits, and of its predictions in the same unit.
        limit: Of the difference; None for no limit.
        r2: R2 of numbers with the model's as truth; None for other answers.
    """

    same: str
    unit: str
    difference: float | None
    scale: float
    limit: float | None
    r2: float | None

    @property
    def share_of_limit(self) -> float:
        """The difference as a share of its limit, by which the outputs of an artefact are ordered."""
        if self.difference is None:
            return float("inf")
        return self.difference / self.limit if self.limit else self.difference


def compare_output(
    answers: Answers, expected: np.ndarray, predicted: np.ndarray, difference: float, magnitude: float, limits: Limits
) -> OutputComparison:
    """Compare the predictions of one output.

    Args:
        expected, predicted: Of the model and of the artefact, for the rows of the split.
        difference: The largest one over these rows and all others.
        magnitude: Largest size of the outputs of the network, from which the predictions are computed.
    """
    import numpy as np

    size = answers.measure_differences(expected, np.zeros_like(expected), expected)
    scale = max(magnitude, float(size.max(initial=0)))
    return OutputComparison(
        answers.describe_agreement(limits.tolerance),
        answers.difference_unit,
        difference if np.isfinite(difference) else None,
        scale,
        limits.limit_difference(scale),
        answers.compute_model_r2(expected, predicted),
    )


def list_failures(
    limits: Limits,
    outputs: Mapping[str, OutputComparison],
    metrics: Mapping[str, tuple[float, float]],
    rows: int,
    differing: int,
) -> Iterator[str]:
    """List what exceeds its limit, as sentences.

    Args:
        rows, differing: Number of compared rows, and of those with another answer.
    """
    agreement = 1 - differing / rows
    if agreement < limits.agreement and differing > limits.allowed_rows:
        yield (
            f"Its decisions agree with the model's in {agreement:.2%} of {rows} rows, expected at least "
            f"{limits.agreement:.2%}."
        )
    for name, each in outputs.items():
        if each.limit is not None and each.difference is not None and each.difference > each.limit:
            yield (
                f"The largest difference of {quoted(name)} is {each.difference:.2g} {each.unit}, expected at most "
                f"{each.limit:.2g}."
            )
        if each.r2 is not None and limits.model_r2 is not None and not each.r2 >= limits.model_r2:
            yield (
                f"R2 of {quoted(name)} with the model's predictions as truth is {each.r2:.4f}, expected at least "
                f"{limits.model_r2:g}."
            )
    for name, (model, artefact) in metrics.items():
        if limits.metric_drop is not None and model - artefact > limits.metric_drop:
            yield (
                f"{name} is {artefact:.4f}, {model - artefact:.4f} below the model's; expected at most "
                f"{limits.metric_drop:g}."
            )


def summarize(
    limits: Limits,
    outputs: Mapping[str, OutputComparison],
    metrics: Mapping[str, tuple[float, float]],
    rows: int,
    differing: int,
    skipped: Sequence[str],
) -> Iterator[str]:
    """Describe each comparison beside its limit, and what was not compared, as sentences.

    Args:
        skipped: Descriptions of the edge cases that the artefact does not accept.
    """
    spared = f", or all but {limits.allowed_rows} row" if limits.allowed_rows else ""
    yield (
        f"{rows - differing:,} of {rows:,} rows have the same answer, {1 - differing / rows:.2%}; at least "
        f"{limits.agreement:.2%}{spared}."
    )
    for name, each in outputs.items():
        found = "not finite" if each.difference is None else f"{each.difference:.2g}"
        yield f"{quoted(name)}: the same answer is {each.same}."
        yield f"{quoted(name)}: the largest difference is {found} {each.unit}, {_describe_limit(limits, each)}."
        if each.r2 is not None:
            least = "no limit" if limits.model_r2 is None else f"at least {limits.model_r2:g}"
            yield f"{quoted(name)}: R2 with the model's predictions as truth is {each.r2:.5f}, {least}."
    for name, (model, artefact) in metrics.items():
        drop = "no limit" if limits.metric_drop is None else f"at most {limits.metric_drop:g} below the model's"
        yield f"{name}: {artefact:.4f}, of the model {model:.4f}; {drop}."
    if skipped:
        yield f"Not compared, since the artefact takes one size of pictures: {'; '.join(skipped)}."


def _describe_limit(limits: Limits, comparison: OutputComparison) -> str:
    if comparison.limit is None:
        return "no limit"
    if limits.rounding is None:
        return f"at most {comparison.limit:.2g}"
    law, scale = limits.rounding, comparison.scale
    bound = f"at least {law.least:g}" if comparison.limit <= law.least else f"at most {law.most:g}"
    return f"at most {comparison.limit:.2g} ({law.relative:g} of the largest output, {scale:.3g}, and {bound})"
