"""Whether an artefact says what its model says, asked in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.data import targets as target_kinds
from bmcli.export import ExportRows, Precision, Signature, WrittenModel, rows
from bmcli.export.rows import EdgeCase
from bmcli.export.worker import ENCODER_FILE, ArtefactWorker, WorkerFailed, start_worker
from bmcli.objectives import find_median_index
from bmcli.recipe.export import VerifyOptions
from bmcli.specs import Column, DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

BATCH_SIZE = 32
_TIE_TOLERANCE = 1e-5  # probabilities that differ less are alike, and either class may be decided for
_INT8_IMAGE_AGREEMENT = 0.995  # agreement with integers
_NEAR, _NEAR_REDUCED = 0.01, 0.1  # numbers that differ less, in deviations, are decided alike


@dataclass(frozen=True)
class Limits:
    """How far an artefact may be from its model; None is not judged.

    Args:
        near: Numbers that differ less, in deviations, are decided alike.
        spared: Rows that may differ whatever share of all rows they are; of few rows one is more than a percent.
    """

    agreement: float
    max_difference: float | None
    metric_drop: float | None
    near: float = _NEAR
    spared: int = 0


_DEFAULT_LIMITS: Mapping[Precision, Limits] = {
    "float32": Limits(1.0, 1e-4, 0.001),
    "float16": Limits(0.995, 0.02, 0.01, spared=1),
    "int8": Limits(0.99, None, 0.01, _NEAR_REDUCED, spared=1),
    "reduced": Limits(0.99, None, 0.01, _NEAR_REDUCED, spared=1),
}


def resolve_limits(options: VerifyOptions, precision: Precision, spec: DataSpec) -> Limits:
    """The limits of a recipe, or those that are usual for a format and what it is given; a recipe's spare no row."""
    usual = _DEFAULT_LIMITS[precision]
    if precision == "int8" and any(column.kind == "image" for column in spec.inputs):
        usual = replace(usual, agreement=_INT8_IMAGE_AGREEMENT)

    def chosen(name: str) -> Any:
        asked = getattr(options, name)
        return getattr(usual, name) if asked == "auto" else None if asked == "none" else asked

    spared = usual.spared if options.agreement == "auto" else 0
    return Limits(chosen("agreement"), chosen("max_difference"), chosen("metric_drop"), usual.near, spared)


@dataclass(frozen=True)
class ReferencePredictions:
    """What is known of a model, to compare artefacts with.

    Args:
        rows: Of the split, and what the model says of them, by target.
        hard: Awkward rows, each with what the model says of it.
        split: Which one it is.
        quantiles: Of each target whose quantiles are predicted, which they are.
    """

    spec: DataSpec
    quantiles: Mapping[str, Sequence[float]]
    split: str
    rows: ExportRows
    expected: Mapping[str, np.ndarray]
    hard: Sequence[tuple[EdgeCase, Mapping[str, np.ndarray]]]

    @classmethod
    def from_network(
        cls,
        network: Network,
        spec: DataSpec,
        quantiles: Mapping[str, Sequence[float]],
        split: str,
        rows_of_split: ExportRows,
    ) -> ReferencePredictions:
        expected = rows.predict_encoded(network, rows_of_split.encoded)
        hard = [
            (each, rows.predict_encoded(network, rows.encode_raw(each.raw, spec)))
            for each in rows.make_edge_cases(rows_of_split, spec)
        ]
        return cls(spec, quantiles, split, rows_of_split, expected, hard)

    def deviation(self, target: Column) -> float:
        """What differences of a target are told in: 1 for probabilities."""
        return 1.0 if target.classes else float(self.expected[target.name].std()) or 1.0


@dataclass(frozen=True)
class Verification:
    """How an artefact compares with its model.

    Args:
        samples: Rows of the split that were compared.
        hard: Awkward rows that were compared, by what is awkward.
        agreement: Share of all these rows that are decided alike.
        max_difference: Largest difference of a probability, or of a number in deviations of the predictions.
        metrics: Of the model and of the artefact, by name, on the rows of the split.
        failures: Why it is rejected, as sentences; none if it is not.
    """

    split: str
    samples: int
    hard: tuple[str, ...]
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
            "hard": list(self.hard),
            "metrics": {name: {"model": m, "artefact": a} for name, (m, a) in self.metrics.items()},
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
    """Loads an artefact in another process, asks it about the rows, and compares."""
    try:
        with start_worker(artefact, encoder_file) as worker:
            compared = [_ComparisonTotals(limits.near) for _ in range(1 + len(written.signatures))]
            answers = _compare_answers(worker, written, reference, compared)
            alien = written.runtime != "keras" and worker.state()["alien"]
    except WorkerFailed as error:
        return Verification(
            reference.split, 0, (), None, None, failures=(f"It cannot be loaded and run: {error}.",), limits=limits
        )
    return _make_verification(reference, written, answers, compared, limits, alien)


class _ComparisonTotals:
    """Rows compared so far: how many were decided alike, and the largest difference."""

    def __init__(self, near: float) -> None:
        self.near = near
        self.alike: list[np.ndarray] = []
        self.difference = 0.0
        self.not_finite = 0

    def add(
        self, reference: ReferencePredictions, expected: Mapping[str, np.ndarray], given: Mapping[tuple[str, str], Any]
    ) -> None:
        import numpy as np

        alike = np.ones(len(next(iter(expected.values()))), bool)
        for target in reference.spec.targets:
            wanted, found = expected[target.name], get_prediction(given, target)
            difference = np.abs(wanted - found).reshape(len(alike), -1) / reference.deviation(target)
            self.not_finite += int((~np.isfinite(difference)).any(axis=1).sum())
            self.difference = max(self.difference, float(np.nan_to_num(difference, nan=np.inf).max(initial=0)))
            alike &= _agree(target, wanted, found, difference, self.near)
            if (target.name, "decision") in given:
                alike &= _name_decisions(target, found) == given[target.name, "decision"]
        self.alike.append(alike)


def get_prediction(given: Mapping[tuple[str, str], np.ndarray], target: Column) -> np.ndarray:
    """What an artefact says of a target, in the form of a network's predictions."""
    for role in ("probabilities", "quantiles", "number"):
        if (target.name, role) in given:
            return given[target.name, role]
    raise KeyError(target.name)


def _agree(target: Column, expected: np.ndarray, found: np.ndarray, difference: np.ndarray, near: float) -> np.ndarray:
    """Whether each row is decided alike, `(rows,)`; a tie may be decided either way."""
    import numpy as np

    if not target.classes:
        return np.asarray((difference <= near).all(axis=1))
    point = target_kinds.kind_of(target).predict_point
    same = point(expected, target) == point(found, target)
    same = same.all(axis=1) if same.ndim == 2 else same
    return np.asarray(same | (difference <= _TIE_TOLERANCE).all(axis=1))


def _name_decisions(target: Column, found: np.ndarray) -> np.ndarray:
    """The decisions that follow from probabilities, as an artefact names them."""
    import numpy as np

    point = target_kinds.kind_of(target).predict_point(found, target)
    if point.ndim == 2:
        sign = target.state["separator"]
        names = [sign.join(n for n, there in zip(target.classes, row, strict=True) if there) for row in point.tolist()]
    else:
        names = [target.classes[place] for place in point.tolist()]
    return np.array([name.encode() for name in names], object)


def _compare_answers(
    worker: ArtefactWorker,
    written: WrittenModel,
    reference: ReferencePredictions,
    compared: Sequence[_ComparisonTotals],
) -> dict[str, np.ndarray]:
    """What the artefact says of the rows of the split, by target; all it says is compared.

    Args:
        compared: One for the awkward rows, then one for each signature.
    """
    import numpy as np

    usual = written.signatures[0]
    answers: dict[str, list[np.ndarray]] = {target.name: [] for target in reference.spec.targets}
    for signature, against in zip(written.signatures, compared[1:], strict=True):
        for cells, places in _iterate_batches(reference, signature, usual):
            given = worker.predict(cells, signature.name)
            against.add(reference, {name: values[places] for name, values in reference.expected.items()}, given)
            if signature is usual:
                for target in reference.spec.targets:
                    answers[target.name].append(get_prediction(given, target))
    for hard, expected in reference.hard:
        if _accepts(usual, hard):
            compared[0].add(
                reference, expected, worker.predict(rows.decode_picture_files(hard.raw, usual, reference.spec))
            )
    return {name: np.concatenate(values) for name, values in answers.items()}


def _accepts(signature: Signature, edge_case: EdgeCase) -> bool:
    """Whether a signature takes an awkward row: not all take pictures of other sizes."""
    return not edge_case.resized or not any(
        given.form == "raw" and len(given.shape) > 1 and None not in given.shape for given in signature.inputs
    )


def _iterate_batches(
    reference: ReferencePredictions, signature: Signature, usual: Signature
) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
    """The rows as a signature takes them, and which they are.

    The usual one takes raw cells, of which it may leave some to the encoder; others take what they say.
    """
    import numpy as np

    of_files = any(
        rows.holds_picture_files(reference.spec.input(each.column)) and each.form == "encoded" for each in usual.inputs
    )
    size = 1 if of_files else BATCH_SIZE  # decoded pictures differ in size
    for start in range(0, len(reference.rows), size):
        places = np.arange(start, min(start + size, len(reference.rows)))
        if signature is usual:
            raw = {name: values[places] for name, values in reference.rows.raw.items()}
            yield rows.decode_picture_files(raw, signature, reference.spec), places
        else:
            yield (
                {each.column: _select_cells(reference, each.column, each.form, places) for each in signature.inputs},
                places,
            )


def _select_cells(reference: ReferencePredictions, column: str, form: str, places: Any) -> np.ndarray:
    if form == "encoded":
        return reference.rows.encoded[column][places]
    raw = reference.rows.raw[column][places]
    return _encode_png_files(raw) if form == "encoded_image" else raw


def _encode_png_files(pictures: np.ndarray) -> np.ndarray:
    """Arrays of pictures as files without loss."""
    import numpy as np

    from bmcli.layers import tf

    files = np.empty(len(pictures), object)
    files[:] = [tf.io.encode_png(each if each.ndim == 3 else each[..., None]).numpy() for each in pictures]
    return files


def _make_verification(
    reference: ReferencePredictions,
    written: WrittenModel,
    answers: Mapping[str, np.ndarray],
    compared: Sequence[_ComparisonTotals],
    limits: Limits,
    alien: bool,
) -> Verification:
    import numpy as np

    alike = np.concatenate([part for each in compared for part in each.alike])
    difference = max(each.difference for each in compared)
    metrics = {
        name: (model, artefact)
        for target in reference.spec.targets
        for name, model, artefact in _compare_metric(target, reference, answers[target.name])
    }
    failures = ["It loaded bmcli, which others do not have."] if alien else []
    not_finite = sum(each.not_finite for each in compared)
    if not_finite:
        failures.append(f"{not_finite} of its predictions are not finite.")
    agreement = float(alike.mean())
    if agreement < limits.agreement and np.count_nonzero(~alike) > limits.spared:
        failures.append(f"It decides alike in {agreement:.2%} of {len(alike)} rows, expected {limits.agreement:.2%}.")
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
        tuple(hard.description for hard, _ in reference.hard if _accepts(written.signatures[0], hard)),
        agreement,
        difference if np.isfinite(difference) else None,
        metrics,
        limits,
        tuple(failures),
    )


def _compare_metric(
    target: Column, reference: ReferencePredictions, predictions: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """Accuracy of classes, or R2 of numbers that vary, of the model and of the artefact."""
    import numpy as np

    kind = target_kinds.kind_of(target)
    truth = kind.decode(reference.rows.truth[target.name], target)
    prefix = f"{target.name}/" if len(reference.spec.targets) > 1 else ""
    wanted = reference.expected[target.name]
    if target.classes:
        model, artefact = (float((kind.predict_point(each, target) == truth).mean()) for each in (wanted, predictions))
        yield f"{prefix}accuracy", model, artefact
    elif len(truth) > 1 and np.ptp(truth) > 0 and np.isfinite(predictions).all() and np.isfinite(wanted).all():
        if wanted.ndim == 2:
            at = find_median_index(reference.quantiles[target.name])
            wanted, predictions = wanted[:, at], predictions[:, at]
        model, artefact = (1 - np.square(truth - each).mean() / truth.var() for each in (wanted, predictions))
        yield f"{prefix}r2", float(model), float(artefact)
