"""Verification of artefacts: comparison with the model's predictions in a separate process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.answers import Answers
from bmcli.export import ExportRows, Signature, WrittenModel, agreement, rows
from bmcli.export.agreement import Limits, OutputComparison
from bmcli.export.rows import EdgeCase
from bmcli.export.worker import ENCODER_FILE, ArtefactWorker, WorkerFailed, start_worker
from bmcli.export.writing import ExpectedWriting, compare_writing
from bmcli.objectives import open_answers
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

BATCH_SIZE = 32


@dataclass(frozen=True)
class ReferencePredictions:
    """Predictions of the model, for comparison with artefacts.

    Args:
        split: Name of the split.
        rows: Of the split.
        expected: The model's predictions of the rows, by target.
        edge_cases: Unusual rows, each with the model's predictions.
        magnitudes: Largest size of the outputs of the network, such as logits, by target.
    """

    spec: DataSpec
    split: str
    rows: ExportRows
    expected: Mapping[str, np.ndarray]
    edge_cases: Sequence[tuple[EdgeCase, Mapping[str, np.ndarray]]]
    magnitudes: Mapping[str, float]

    @classmethod
    def from_network(
        cls, network: Network, spec: DataSpec, split: str, rows_of_split: ExportRows
    ) -> ReferencePredictions:
        expected, magnitudes = rows.predict_encoded(network, rows_of_split.encoded)
        edge_cases = []
        for each in rows.make_edge_cases(rows_of_split, spec):
            predictions, sizes = rows.predict_encoded(network, rows.encode_raw(each.raw, spec))
            edge_cases.append((each, predictions))
            magnitudes = {name: max(size, sizes[name]) for name, size in magnitudes.items()}
        return cls(spec, split, rows_of_split, expected, edge_cases, magnitudes)

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
        metrics: Of the model and of the artefact, by name, on the rows of the split.
        outputs: The predictions of each target beside the model's.
        failures: Reasons of a rejection, as sentences; empty if it is verified.
        summary: What was compared beside its limits, and what was not, as sentences.
    """

    split: str
    samples: int
    edge_cases: tuple[str, ...]
    agreement: float | None
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outputs: Mapping[str, OutputComparison] = field(default_factory=dict)
    limits: Limits | None = None
    failures: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        return not self.failures

    @property
    def max_difference(self) -> float | None:
        """Difference of the output that is nearest to its limit; None if there is none, or it is not finite."""
        nearest = max(self.outputs.values(), key=lambda each: each.share_of_limit, default=None)
        return None if nearest is None else nearest.difference

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "edge_cases": list(self.edge_cases),
            "max_difference": self.max_difference,
            "metrics": {
                name: {"model": model, "artefact": artefact} for name, (model, artefact) in self.metrics.items()
            },
            "outputs": {name: vars(each) for name, each in self.outputs.items()},
            "limits": None if self.limits is None else self.limits.to_json(),
            "failures": list(self.failures),
            "summary": list(self.summary),
            "verified": self.verified,
        }


def verify(
    artefact: Path,
    written: WrittenModel,
    reference: ReferencePredictions,
    limits: Limits,
    expected: ExpectedWriting | None,
    encoder_file: Path = ENCODER_FILE,
) -> Verification:
    """Load an artefact in another process, let it predict the rows, and compare.

    Args:
        expected: What its network writes; None for an artefact that writes nothing.
    """
    try:
        with start_worker(artefact, encoder_file) as worker:
            totals = _ComparisonTotals(limits.tolerance)
            predictions = _compare_answers(worker, written, reference, totals)
            writing = (
                None
                if expected is None or written.writing is None
                else compare_writing(worker, written.writing, expected, limits)
            )
            bmcli_loaded = written.runtime != "keras" and worker.read_state()["bmcli_loaded"]
    except WorkerFailed as error:
        return Verification(
            reference.split, 0, (), None, failures=(f"It cannot be loaded and run: {error}.",), limits=limits
        )
    verification = _make_verification(reference, written, predictions, totals, limits, bmcli_loaded)
    if writing is None:
        return verification
    return replace(
        verification,
        failures=(*verification.failures, *writing.failures),
        summary=(*verification.summary, *writing.summary),
    )


class _ComparisonTotals:
    """Running totals of the comparison: equal decisions, and the largest difference of each target."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.agreements: list[np.ndarray] = []
        self.differences: dict[str, float] = {}
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
            difference = answers.measure_differences(own_expected, predicted, reference.expected[name])
            self.not_finite += int((~np.isfinite(difference)).any(axis=1).sum())
            largest = float(np.nan_to_num(difference, nan=np.inf).max(initial=0))
            self.differences[name] = max(self.differences.get(name, 0.0), largest)
            agreements &= answers.agree(own_expected, predicted, difference, self.tolerance)
            names = answers.name_decisions(predicted)
            if names is not None and (name, "decision") in outputs:
                agreements &= names == outputs[name, "decision"]
        self.agreements.append(agreements)


def _compare_answers(
    worker: ArtefactWorker,
    written: WrittenModel,
    reference: ReferencePredictions,
    totals: _ComparisonTotals,
) -> dict[str, np.ndarray]:
    """Predict the rows of the split with the artefact, by target, and compare the outputs of all signatures."""
    import numpy as np

    default = written.signatures[0]
    predictions: dict[str, list[np.ndarray]] = {name: [] for name in reference.answers}
    for signature in written.signatures:
        for inputs, positions in _iterate_batches(reference, signature, default):
            outputs = worker.predict(inputs, signature.name)
            totals.add(reference, {name: values[positions] for name, values in reference.expected.items()}, outputs)
            if signature is default:
                for name, answers in reference.answers.items():
                    predictions[name].append(outputs[name, answers.served_prediction])
    for edge_case, expected in reference.edge_cases:
        if _accepts(default, edge_case):
            totals.add(reference, expected, worker.predict(edge_case.raw))
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

    for start in range(0, len(reference.rows), BATCH_SIZE):
        positions = np.arange(start, min(start + BATCH_SIZE, len(reference.rows)))
        if signature is default:
            yield {name: values[positions] for name, values in reference.rows.raw.items()}, positions
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
    totals: _ComparisonTotals,
    limits: Limits,
    bmcli_loaded: bool,
) -> Verification:
    import numpy as np

    agreements = np.concatenate(totals.agreements)
    rows, differing = len(agreements), int(np.count_nonzero(~agreements))
    metrics = {
        name: (model, artefact)
        for answers in reference.answers.values()
        for name, model, artefact in _compare_quality(answers, reference, predictions[answers.name])
    }
    outputs = {
        name: agreement.compare_output(
            answers, reference.expected[name], predictions[name], totals.differences[name], reference.magnitudes[name],
            limits,
        )
        for name, answers in reference.answers.items()
    }  # fmt: skip
    failures = ["It needs bmcli, which is not part of the artefact."] if bmcli_loaded else []
    if totals.not_finite:
        failures.append(f"{totals.not_finite} of its predictions are not finite.")
    failures += agreement.list_failures(limits, outputs, metrics, rows, differing)
    default = written.signatures[0]
    return Verification(
        reference.split,
        len(reference.rows),
        tuple(each.description for each, _ in reference.edge_cases if _accepts(default, each)),
        1 - differing / rows,
        metrics,
        outputs,
        limits,
        tuple(failures),
        tuple(
            agreement.summarize(
                limits, outputs, metrics, rows, differing,
                [each.description for each, _ in reference.edge_cases if not _accepts(default, each)],
            )
        ),
    )  # fmt: skip


def _compare_quality(
    answers: Answers, reference: ReferencePredictions, predictions: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """Compute a metric of the model and of the artefact, with its name, where both have it."""
    truth = answers.decode(reference.rows.truth[answers.name])
    model, artefact = (answers.compute_quality(truth, each) for each in (reference.expected[answers.name], predictions))
    if model is not None and artefact is not None:
        prefix = f"{answers.name}/" if len(reference.answers) > 1 else ""
        yield prefix + model.name, model.value, artefact.value
