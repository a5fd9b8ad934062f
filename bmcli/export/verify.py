"""Verification of artefacts: comparison with the model's predictions in a separate process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli.answers import Answers
from bmcli.export import ExportRows, Precision, Signature, WrittenModel, rows
from bmcli.export.rows import EdgeCase
from bmcli.export.worker import ENCODER_FILE, ArtefactWorker, WorkerFailed, start_worker
from bmcli.objectives import open_answers
from bmcli.recipe.export import VerifyOptions
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

BATCH_SIZE = 32
_TIE_TOLERANCE = 1e-5  # with smaller differences of the probabilities a tie can be decided either way
_INT8_IMAGE_AGREEMENT = 0.995  # required of int8 networks on pictures
_TOLERANCE, _REDUCED_TOLERANCE = 0.01, 0.1  # of numbers, in standard deviations


@dataclass(frozen=True)
class Limits:
    """Limits of the differences between an artefact and its model; None is no limit.

    Args:
        tolerance: Numbers with a smaller difference, in standard deviations, count as equal decisions.
        allowed_rows: Number of rows that may differ whatever their share, since one of few rows is over a percent.
    """

    agreement: float
    max_difference: float | None
    metric_drop: float | None
    tolerance: float = _TOLERANCE
    allowed_rows: int = 0


_DEFAULT_LIMITS: Mapping[Precision, Limits] = {
    "float32": Limits(1.0, 1e-4, 0.001),
    "float16": Limits(0.995, 0.02, 0.01, allowed_rows=1),
    "int8": Limits(0.99, None, 0.01, _REDUCED_TOLERANCE, allowed_rows=1),
    "reduced": Limits(0.99, None, 0.01, _REDUCED_TOLERANCE, allowed_rows=1),
}


def resolve_limits(options: VerifyOptions, precision: Precision, spec: DataSpec) -> Limits:
    """Resolve the limits of a recipe; `auto` is the default for a precision and the inputs."""
    defaults = _DEFAULT_LIMITS[precision]
    if precision == "int8" and any(input_kinds.get_traits(c).display == "picture" for c in spec.inputs):
        defaults = replace(defaults, agreement=_INT8_IMAGE_AGREEMENT)

    def choose(name: str) -> Any:
        value = getattr(options, name)
        return getattr(defaults, name) if value == "auto" else None if value == "none" else value

    allowed_rows = defaults.allowed_rows if options.agreement == "auto" else 0
    return Limits(
        choose("agreement"), choose("max_difference"), choose("metric_drop"), defaults.tolerance, allowed_rows
    )


@dataclass(frozen=True)
class ReferencePredictions:
    """Predictions of the model, for comparison with artefacts.

    Args:
        split: Name of the split.
        rows: Of the split.
        expected: The model's predictions of the rows, by target.
        edge_cases: Unusual rows, each with the model's predictions.
    """

    spec: DataSpec
    split: str
    rows: ExportRows
    expected: Mapping[str, np.ndarray]
    edge_cases: Sequence[tuple[EdgeCase, Mapping[str, np.ndarray]]]

    @classmethod
    def from_network(
        cls, network: Network, spec: DataSpec, split: str, rows_of_split: ExportRows
    ) -> ReferencePredictions:
        expected = rows.predict_encoded(network, rows_of_split.encoded)
        edge_cases = [
            (each, rows.predict_encoded(network, rows.encode_raw(each.raw, spec)))
            for each in rows.make_edge_cases(rows_of_split, spec)
        ]
        return cls(spec, split, rows_of_split, expected, edge_cases)

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """Answers of the outputs, by name."""
        return open_answers(self.spec)


@dataclass(frozen=True)
class Verification:
    """Result of the comparison of an artefact with its model.

    Args:
        samples: Number of compared rows of the split.
        edge_cases: Descriptions of the compared edge cases.
        agreement: Share of all these rows with equal decisions.
        max_difference: Largest difference of a probability, or of a number in standard deviations.
        metrics: Of the model and of the artefact, by name, on the rows of the split.
        failures: Reasons of a rejection, as sentences; empty if it is verified.
    """

    split: str
    samples: int
    edge_cases: tuple[str, ...]
    agreement: float | None
    max_difference: float | None
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    limits: Limits | None = None
    failures: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "edge_cases": list(self.edge_cases),
            "metrics": {
                name: {"model": model, "artefact": artefact} for name, (model, artefact) in self.metrics.items()
            },
            "limits": None if self.limits is None else vars(self.limits),
            "failures": list(self.failures),
            "verified": self.verified,
        }


def verify(
    artefact: Path,
    written: WrittenModel,
    reference: ReferencePredictions,
    limits: Limits,
    encoder_file: Path = ENCODER_FILE,
) -> Verification:
    """Load an artefact in another process, let it predict the rows, and compare."""
    try:
        with start_worker(artefact, encoder_file) as worker:
            totals = [_ComparisonTotals(limits.tolerance) for _ in range(1 + len(written.signatures))]
            predictions = _compare_answers(worker, written, reference, totals)
            bmcli_loaded = written.runtime != "keras" and worker.read_state()["bmcli_loaded"]
    except WorkerFailed as error:
        return Verification(
            reference.split, 0, (), None, None, failures=(f"It cannot be loaded and run: {error}.",), limits=limits
        )
    return _make_verification(reference, written, predictions, totals, limits, bmcli_loaded)


class _ComparisonTotals:
    """Running totals of the comparison: equal decisions, and the largest difference."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.agreements: list[np.ndarray] = []
        self.difference = 0.0
        self.not_finite = 0

    def add(
        self,
        reference: ReferencePredictions,
        expected: Mapping[str, np.ndarray],
        outputs: Mapping[tuple[str, str], Any],
    ) -> None:
        import numpy as np

        agreements = np.ones(len(next(iter(expected.values()))), bool)
        for name, answers in reference.answers.items():
            own_expected, predicted = expected[name], outputs[name, answers.served_prediction]
            scale = answers.get_scale(reference.expected[name])
            difference = np.abs(own_expected - predicted).reshape(len(agreements), -1) / scale
            self.not_finite += int((~np.isfinite(difference)).any(axis=1).sum())
            self.difference = max(self.difference, float(np.nan_to_num(difference, nan=np.inf).max(initial=0)))
            agreements &= answers.agree(own_expected, predicted, difference, self.tolerance)
            names = answers.name_decisions(predicted)
            if names is not None and (name, "decision") in outputs:
                agreements &= names == outputs[name, "decision"]
        self.agreements.append(agreements)


def _compare_answers(
    worker: ArtefactWorker,
    written: WrittenModel,
    reference: ReferencePredictions,
    totals_by_signature: Sequence[_ComparisonTotals],
) -> dict[str, np.ndarray]:
    """Predict the rows of the split with the artefact, by target, and compare the outputs of all signatures.

    Args:
        totals_by_signature: One for the edge cases, then one for each signature.
    """
    import numpy as np

    default = written.signatures[0]
    predictions: dict[str, list[np.ndarray]] = {name: [] for name in reference.answers}
    for signature, totals in zip(written.signatures, totals_by_signature[1:], strict=True):
        for inputs, positions in _iterate_batches(reference, signature, default):
            outputs = worker.predict(inputs, signature.name)
            totals.add(reference, {name: values[positions] for name, values in reference.expected.items()}, outputs)
            if signature is default:
                for name, answers in reference.answers.items():
                    predictions[name].append(outputs[name, answers.served_prediction])
    for edge_case, expected in reference.edge_cases:
        if _accepts(default, edge_case):
            totals_by_signature[0].add(
                reference, expected, worker.predict(rows.decode_files(edge_case.raw, default, reference.spec))
            )
    return {name: np.concatenate(values) for name, values in predictions.items()}


def _accepts(signature: Signature, edge_case: EdgeCase) -> bool:
    """Whether a signature accepts an edge case: not all accept pictures of other sizes."""
    return not edge_case.is_resized or not any(
        signature_input.form == "raw" and len(signature_input.shape) > 1 and None not in signature_input.shape
        for signature_input in signature.inputs
    )


def _iterate_batches(
    reference: ReferencePredictions, signature: Signature, default: Signature
) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
    """Yield the inputs of a signature in batches, with their positions.

    The default signature takes raw cells, some of which the encoder may convert; others take the forms in their inputs.
    """
    import numpy as np

    has_files = any(
        each.form == "encoded" and input_kinds.get_traits(reference.spec.input(each.column)).file_formats
        for each in default.inputs
    )
    size = 1 if has_files else BATCH_SIZE  # decoded files, such as pictures, differ in size
    for start in range(0, len(reference.rows), size):
        positions = np.arange(start, min(start + size, len(reference.rows)))
        if signature is default:
            raw = {name: values[positions] for name, values in reference.rows.raw.items()}
            yield rows.decode_files(raw, signature, reference.spec), positions
        else:
            yield (
                {each.column: _select_cells(reference, each.column, each.form, positions) for each in signature.inputs},
                positions,
            )


def _select_cells(reference: ReferencePredictions, column: str, form: str, positions: Any) -> np.ndarray:
    if form == "encoded":
        return reference.rows.encoded[column][positions]
    raw = reference.rows.raw[column][positions]
    return _encode_png_files(raw) if form == "encoded_image" else raw


def _encode_png_files(pictures: np.ndarray) -> np.ndarray:
    """Encode arrays of pictures as PNG files, without loss."""
    import numpy as np

    from bmcli.layers import tf

    files = np.empty(len(pictures), object)
    files[:] = [tf.io.encode_png(each if each.ndim == 3 else each[..., None]).numpy() for each in pictures]
    return files


def _make_verification(
    reference: ReferencePredictions,
    written: WrittenModel,
    predictions: Mapping[str, np.ndarray],
    totals: Sequence[_ComparisonTotals],
    limits: Limits,
    bmcli_loaded: bool,
) -> Verification:
    import numpy as np

    agreements = np.concatenate([part for each in totals for part in each.agreements])
    difference = max(each.difference for each in totals)
    metrics = {
        name: (model, artefact)
        for answers in reference.answers.values()
        for name, model, artefact in _compare_quality(answers, reference, predictions[answers.name])
    }
    failures = ["It needs bmcli, which is not part of the artefact."] if bmcli_loaded else []
    not_finite = sum(each.not_finite for each in totals)
    if not_finite:
        failures.append(f"{not_finite} of its predictions are not finite.")
    agreement = float(agreements.mean())
    if agreement < limits.agreement and np.count_nonzero(~agreements) > limits.allowed_rows:
        failures.append(
            f"Its decisions agree with the model's in {agreement:.2%} of {len(agreements)} rows, expected at least "
            f"{limits.agreement:.2%}."
        )
    if limits.max_difference is not None and difference > limits.max_difference:
        failures.append(f"The largest difference is {difference:.2g}, expected at most {limits.max_difference:.2g}.")
    for name, (model, artefact) in metrics.items():
        if limits.metric_drop is not None and model - artefact > limits.metric_drop:
            failures.append(
                f"{name} is {artefact:.4f}, {model - artefact:.4f} below the model's; expected at most "
                f"{limits.metric_drop:g}."
            )
    return Verification(
        reference.split,
        len(reference.rows),
        tuple(
            edge_case.description for edge_case, _ in reference.edge_cases if _accepts(written.signatures[0], edge_case)
        ),
        agreement,
        difference if np.isfinite(difference) else None,
        metrics,
        limits,
        tuple(failures),
    )


def _compare_quality(
    answers: Answers, reference: ReferencePredictions, predictions: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """Compute a metric of the model and of the artefact, with its name, where both have it."""
    truth = answers.decode(reference.rows.truth[answers.name])
    model, artefact = (answers.compute_quality(truth, each) for each in (reference.expected[answers.name], predictions))
    if model is not None and artefact is not None:
        prefix = f"{answers.name}/" if len(reference.answers) > 1 else ""
        yield prefix + model.name, model.value, artefact.value
