"""Answers with classes: one class of several, one category of several in order, or any number of labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bmcli.answers import (
    Answers,
    AnswerTable,
    Baseline,
    ExampleScores,
    Quality,
    RowValues,
    ServedAnswer,
    ServedRole,
    TruthDistribution,
)
from bmcli.answers.decisions import CalibratedOutput, Decision, TemperatureScaling
from bmcli.answers.figures import AnswerFigure, Curve, Curves, make_reliability_diagram
from bmcli.data import targets as target_kinds
from bmcli.metrics import calibration, classification, multi_label, ordinal, threshold
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.classification import ClassMetrics, ConfusionMatrix
from bmcli.metrics.info import SHARE, MetricInfo
from bmcli.metrics.ranking_curves import RankingCurves, compute_ranking_curves
from bmcli.metrics.threshold import ThresholdChoice
from bmcli.metrics.weighted_metrics import WeightedMetrics
from bmcli.quoting import quoted
from bmcli.specs import OutputSpec

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CURVES = 6  # in a figure; more colours would be too similar
_FLOOR = 1e-7  # of a probability before its logarithm
_TIE_TOLERANCE = 1e-4  # a tie of probabilities can be decided either way


class ClassAnswers(Answers, ABC):
    """What answers with probabilities `(rows, classes)` have in common."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.output.names

    @property
    @abstractmethod
    def is_independent(self) -> bool:
        """Whether each probability is that of a separate event, so that they do not add up to 1."""

    @abstractmethod
    def get_true_probabilities(self, truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Get the probability of what is true, `(rows,)` or `(rows, labels)`."""

    def predict_as_integers(
        self, truth: np.ndarray, predictions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Get truth and point predictions as integers, and probabilities in single precision."""
        probabilities = np.asarray(predictions).astype(np.float32, copy=False)
        return np.asarray(truth).astype(np.int64), self.predict_points(probabilities), probabilities

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        true_probabilities = self.get_true_probabilities(truth, predictions.astype(np.float64))
        losses = -np.log(np.maximum(true_probabilities, _FLOOR))
        return RowValues("log loss", losses.mean(axis=1) if losses.ndim == 2 else losses)

    def compute_class_metrics(self, truth: np.ndarray, predictions: np.ndarray) -> tuple[ClassMetrics, ...]:
        truth, predicted, probabilities = self.predict_as_integers(truth, predictions)
        return classification.compute_metrics_by_class(truth, predicted, probabilities, self.classes)

    def get_distribution(self, truth: np.ndarray) -> TruthDistribution | None:
        counts = target_kinds.kind_of(self.target).count_classes(truth, self.target)
        return None if counts is None else TruthDistribution(self.classes, counts)

    def list_figures(
        self, truth: np.ndarray, predictions: np.ndarray, calibration: Calibration | None
    ) -> Sequence[AnswerFigure]:
        curves = compute_ranking_curves(self.classes, truth, predictions, self.positive)
        ranked = sorted(curves, key=lambda each: each.roc_auc)[:MAX_CURVES]
        if not ranked:
            return ()
        suffix = " of the classes with the lowest ROC AUC" if len(self.classes) > len(ranked) > 1 else ""
        suffix = suffix if self.positive is None else f" of {quoted(self.classes[self.positive])}"
        return (
            _make_roc(ranked, f"ROC{suffix}"),
            _make_precision_recall(ranked, f"Precision and recall{suffix}"),
            *([make_reliability_diagram(calibration)] if calibration else []),
        )

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        """Make a column of the answer and one of each probability, such as `species_probability_Gentoo`."""
        import pyarrow as pa

        probabilities = {
            f"{self.name}_probability_{name}": pa.array(predictions[:, index])
            for index, name in enumerate(self.classes)
        }
        return AnswerTable({self.name: self.make_truth_column(self.predict_points(predictions)), **probabilities})

    def choose_scores(self, predictions: np.ndarray) -> np.ndarray:
        return self.predict_points(predictions).astype("int32")

    def check_output(self) -> None:
        distinct = len(set(self.classes))
        if self.classes != self.target.classes or self.output.shape != (distinct,) or not distinct:
            raise ValueError(f"the classes of the output {self.name!r} are not those of its target")
        if not all(isinstance(value, self.state_types.get(key, ())) for key, value in self.output.state.items()):
            raise ValueError(f"the state of the output {self.name!r} is not that of {self.output.objective}")

    @property
    def state_types(self) -> Mapping[str, type]:
        """Type of each value that the state may have."""
        return {"temperature": float}

    def list_served(self) -> tuple[ServedAnswer, ...]:
        count = (len(self.classes),)
        return (
            ServedAnswer("decision", "", (), "string"),
            ServedAnswer("classes", "_classes", count, "string"),
            ServedAnswer("probabilities", "_probabilities", count, "float32"),
        )

    @property
    def served_prediction(self) -> ServedRole:
        return "probabilities"

    def name_decisions(self, predictions: np.ndarray) -> np.ndarray:
        texts = self.make_truth_column(self.predict_points(predictions)).to_pylist()
        return np.array([text.encode() for text in texts], object)

    @property
    def difference_unit(self) -> str:
        return "in a probability"

    def describe_agreement(self, tolerance: float) -> str:
        return "the same class"

    def agree(
        self, expected: np.ndarray, predicted: np.ndarray, differences: np.ndarray, tolerance: float
    ) -> np.ndarray:
        is_equal = self.predict_points(expected) == self.predict_points(predicted)
        is_equal = is_equal.all(axis=1) if is_equal.ndim == 2 else is_equal
        return np.asarray(is_equal | (differences <= _TIE_TOLERANCE).all(axis=1))

    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> Quality:
        return Quality("accuracy", float((self.predict_points(predictions) == truth).mean()))

    def calibrate(self, options: Any, truth: np.ndarray | None, predictions: np.ndarray | None) -> CalibratedOutput:
        """Fit the temperature, if the options have `calibrate: temperature`."""
        state, decision, messages = dict(self.output.state), Decision(self.name, 0), []
        if truth is not None and predictions is not None:
            decision = replace(decision, rows=len(truth))
            if options.calibrate == "temperature":
                scaling, predictions = self.fit_temperature(truth, predictions)
                state["temperature"] = scaling.temperature
                decision = replace(decision, temperature_scaling=scaling)
                messages.append(f"temperature {scaling.temperature:.3f}, fitted on {len(truth):,} validation rows")
        calibrated = CalibratedOutput(replace(self.output, state=state), decision, tuple(messages))
        return self.choose_threshold(options, calibrated, truth, predictions)

    def choose_threshold(
        self, options: Any, calibrated: CalibratedOutput, truth: np.ndarray | None, predictions: np.ndarray | None
    ) -> CalibratedOutput:
        """Add a threshold where the objective has one.

        Args:
            predictions: With the temperature, since the threshold applies to scaled probabilities.
        """
        return calibrated

    def fit_temperature(self, truth: np.ndarray, unscaled: np.ndarray) -> tuple[TemperatureScaling, np.ndarray]:
        """Fit a temperature; returns its effect and the scaled probabilities."""
        independent, truth = self.is_independent, truth.astype(np.int64)
        temperature = calibration.fit_temperature(truth, unscaled, independent)
        scaled = calibration.rescale_probabilities(unscaled, temperature, independent)
        losses = tuple(calibration.compute_log_loss(truth, each, independent) for each in (unscaled, scaled))
        before, after = (self.measure_calibration(truth, each) for each in (unscaled, scaled))
        assert before is not None, "probabilities that a temperature scales have a calibration"
        assert after is not None
        return TemperatureScaling(temperature, (losses[0], losses[1]), before, after), scaled


@dataclass(frozen=True)
class SingleClassAnswers(ClassAnswers):
    """What answers with one class for each row have in common."""

    @property
    def is_independent(self) -> bool:
        return False

    def check(self, truth: np.ndarray, predictions: np.ndarray) -> None:
        super().check(truth, predictions)
        _check_indices(self.name, truth, len(self.classes))
        # Half precision rounds each probability by up to 0.4 %.
        sums = predictions.sum(axis=1, dtype=np.float64)
        if predictions.min() < 0 or np.abs(sums - 1).max() > 0.01:
            raise ValueError(
                f"Target {self.name!r}: expected probabilities that add up to 1, "
                f"received sums from {sums.min():g} to {sums.max():g}"
            )

    def format_value(self, value: np.ndarray) -> str:
        return self.classes[int(value)]

    def get_true_probabilities(self, truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        return np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        return RowValues("accuracy", self.predict_points(predictions) == truth, SHARE)

    def count_confusions(self, truth: np.ndarray, predictions: np.ndarray) -> ConfusionMatrix:
        truth, predicted, _ = self.predict_as_integers(truth, predictions)
        return classification.confusion_matrix(truth, predicted, len(self.classes))

    def measure_calibration(self, truth: np.ndarray, predictions: np.ndarray) -> Calibration:
        return calibration.measure_classes(truth.astype(np.int64), predictions, self.classes, self.positive)

    @property
    def has_one_class(self) -> bool:
        return True

    @property
    def positive(self) -> int | None:
        """Index of the last of two classes, the higher one if they are in order; None for other numbers of classes."""
        return 1 if len(self.classes) == 2 else None

    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score by the probability of the true class, and by the margin between the two most probable classes."""
        top_two = np.sort(predictions, axis=1)[:, -2:]
        errors = -self.get_true_probabilities(truth, predictions)
        return ExampleScores(errors, top_two[:, 0] - top_two[:, 1], self.predict_points(predictions) == truth)

    def compute_confidence(self, predictions: np.ndarray) -> np.ndarray:
        return self.get_true_probabilities(self.predict_points(predictions), predictions)

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        """Measure the shares of the classes as probabilities, so that the class with the largest one is predicted."""
        shares = np.bincount(truth, minlength=len(self.classes)) / len(truth)
        name = quoted(self.classes[int(self.predict_points(shares[np.newaxis])[0])])
        metrics = self.measure_constant(shares, truth, top_k)
        if "calibration_error" in metrics:
            metrics["calibration_error"] = 0.0  # shares of the same rows, which single precision rounds
        return Baseline(f"always {name}", metrics, "accuracy")

    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        import pyarrow as pa

        return pa.array(self.classes, pa.string()).take(pa.array(truth))


@dataclass(frozen=True)
class CategoryAnswers(SingleClassAnswers):
    """One of several classes without an order. State: `positive`, a class, and `threshold`, both of two classes."""

    @property
    def positive(self) -> int | None:
        """Index of the positive one of two classes, the last if the output has none; None for other numbers."""
        name = self.output.state.get("positive")
        return super().positive if name is None else self.classes.index(name)

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Predict the most probable class, the first in a tie.

        With a threshold for two classes, predict the positive one when its probability reaches the threshold.
        """
        if "threshold" not in self.output.state:
            return predictions.argmax(axis=1)
        positive = self._get_positive()
        is_reached = predictions[:, positive] >= self.output.state["threshold"]
        return np.where(is_reached, positive, 1 - positive)

    def _get_positive(self) -> int:
        assert self.positive is not None, "a threshold belongs to two classes"
        return self.positive

    def align_positive(self, output: OutputSpec) -> CategoryAnswers:
        state = dict(self.output.state)
        name = output.state.get("positive")
        if name not in self.classes or name == state.get("positive"):
            return self
        if "threshold" in state:
            # The other class is predicted from the lowest number above 1 - threshold on.
            state["threshold"] = np.nextafter(1.0 - np.asarray(state["threshold"]), 2.0)
        return replace(self, output=replace(self.output, state={**state, "positive": name}))

    def check_output(self) -> None:
        super().check_output()
        state = self.output.state
        if {"threshold", "positive"} & set(state) and len(self.classes) != 2:
            raise ValueError(f"the output {self.name!r} has a threshold or a positive class without two classes")
        if "positive" in state and state["positive"] not in self.classes:
            raise ValueError(f"the positive class of the output {self.name!r} is none of its classes")

    @property
    def state_types(self) -> Mapping[str, type]:
        return {**super().state_types, "threshold": float, "positive": str}

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        if "threshold" in self.output.state:
            # A threshold is chosen for the model's probabilities; it could decide against the majority.
            state = {name: value for name, value in self.output.state.items() if name != "threshold"}
            return replace(self, output=replace(self.output, state=state)).measure_baseline(truth, top_k)
        return super().measure_baseline(truth, top_k)

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return classification.list_metrics(len(self.classes), top_k)

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        truth, predicted, probabilities = self.predict_as_integers(truth, predictions)
        return classification.make_weighted_metrics(truth, probabilities, self.classes, top_k, predicted, self.positive)

    def describe_decision(self) -> str:
        if "threshold" in self.output.state:
            name = quoted(self.classes[self._get_positive()])
            return f"{name} if its probability is at least {self.output.state['threshold']:.6g}"
        return "the most probable class"

    def write_answer(self, prediction: str, names: str) -> str:
        if "threshold" in self.output.state:
            return f"{names}[int({prediction}[1] >= {self.output.state['threshold']!r})]"
        return f"{names}[int({prediction}.argmax())]"

    def pool(self, outputs: Sequence[tuple[OutputSpec, int]]) -> CategoryAnswers:
        """Give each row the threshold of the network that predicted it."""
        if "threshold" not in self.output.state:
            return self
        aligned = [(replace(self, output=output).align_positive(self.output), rows) for output, rows in outputs]
        thresholds = [np.full(rows, each.output.state["threshold"]) for each, rows in aligned]
        state = {**self.output.state, "threshold": np.concatenate(thresholds)}
        return replace(self, output=replace(self.output, state=state))

    def choose_threshold(
        self, options: Any, calibrated: CalibratedOutput, truth: np.ndarray | None, predictions: np.ndarray | None
    ) -> CalibratedOutput:
        if options.threshold is None:
            return calibrated
        if isinstance(options.threshold, float):
            return replace(calibrated, output=_set_threshold(calibrated, options.threshold))
        assert truth is not None, "a threshold is chosen on validation rows"
        assert predictions is not None
        positive = self._get_positive()
        chosen = _choose_threshold(options.threshold, truth == positive, predictions[:, positive])
        decision = replace(calibrated.decision, positive=self.classes[positive], threshold=chosen)
        return CalibratedOutput(
            _set_threshold(calibrated, chosen.value), decision, (*calibrated.messages, decision.summary)
        )


def _set_threshold(calibrated: CalibratedOutput, value: float) -> OutputSpec:
    return replace(calibrated.output, state={**calibrated.output.state, "threshold": value})


def _choose_threshold(options: Any, positive: np.ndarray, scores: np.ndarray) -> ThresholdChoice:
    if options.goal == "f1":
        return threshold.maximize_f1(positive, scores)
    if options.goal == "cost":
        return threshold.minimize_cost(positive, scores, options.false_positive, options.false_negative)
    return threshold.maximize_recall(positive, scores, options.precision)


@dataclass(frozen=True)
class OrderedAnswers(SingleClassAnswers):
    """One of several categories in order."""

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Predict the median category: the highest whose probability of being reached exceeds 0.5 (Shi et al. 2021).

        The median minimises the expected distance in ranks.
        """
        above = 1 - np.cumsum(predictions[:, :-1], axis=1, dtype="float64")
        return (above > 0.5).sum(axis=1)

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return ordinal.METRICS

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        return ordinal.make_weighted_metrics(*self.predict_as_integers(truth, predictions))

    def describe_decision(self) -> str:
        return "the highest class with a probability above 0.5 to be reached"

    def write_answer(self, prediction: str, names: str) -> str:
        return f'{names}[int((1 - {prediction}[:-1].cumsum(dtype="float64") > 0.5).sum())]'


@dataclass(frozen=True)
class LabelAnswers(ClassAnswers):
    """Any number of several labels. State: `separator` of the labels in a cell."""

    @property
    def is_independent(self) -> bool:
        return True

    def check(self, truth: np.ndarray, predictions: np.ndarray) -> None:
        super().check(truth, predictions)
        _check_indices(self.name, truth, 2)
        if predictions.min() < 0 or predictions.max() > 1:
            raise ValueError(
                f"Target {self.name!r}: expected probabilities from 0 to 1, "
                f"received {predictions.min():g} to {predictions.max():g}"
            )

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Predict each label whose probability exceeds 0.5."""
        return (predictions > 0.5).astype("uint8")

    def format_value(self, value: np.ndarray) -> str:
        return ", ".join(name for name, is_present in zip(self.classes, value, strict=True) if is_present) or "none"

    def check_output(self) -> None:
        super().check_output()
        if "separator" not in self.output.state:
            raise ValueError(f"the output {self.name!r} has labels without a separator")

    @property
    def state_types(self) -> Mapping[str, type]:
        return {**super().state_types, "separator": str}

    def get_true_probabilities(self, truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        return np.where(truth, probabilities, 1 - probabilities)

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        """Measure the shares of the labels as probabilities, so that those of most rows are predicted."""
        shares = truth.mean(axis=0)
        labels = self.format_value(self.predict_points(shares))
        return Baseline(f"always {labels}", self.measure_constant(shares, truth, top_k), "log_loss")

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return multi_label.METRICS

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        return multi_label.make_weighted_metrics(*self.predict_as_integers(truth, predictions))

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        return RowValues("subset_accuracy", (self.predict_points(predictions) == truth).all(axis=1), SHARE)

    def measure_calibration(self, truth: np.ndarray, predictions: np.ndarray) -> Calibration:
        return calibration.measure_labels(truth, predictions)

    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score by the mean log loss, and by the distance of the nearest probability from one half."""
        losses = -np.log(np.clip(self.get_true_probabilities(truth, predictions), 1e-12, 1)).mean(axis=1)
        is_correct = (self.predict_points(predictions) == truth).all(axis=1)
        return ExampleScores(losses, -np.abs(predictions - 0.5).min(axis=1), is_correct)

    def compute_confidence(self, predictions: np.ndarray) -> np.ndarray:
        """Compute the lowest probability of the answers for the labels of each row."""
        return np.maximum(predictions, 1 - predictions).min(axis=1)

    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        """Join the labels of each row in one cell, with the separator that the data uses."""
        import pyarrow as pa

        separator = self.output.state["separator"]
        return pa.array(
            [
                separator.join(name for name, is_set in zip(self.classes, row, strict=True) if is_set)
                for row in truth.tolist()
            ],
            pa.string(),
        )

    def choose_scores(self, predictions: np.ndarray) -> np.ndarray:
        """Choose the most probable label."""
        return predictions.argmax(axis=1).astype("int32")

    def describe_decision(self) -> str:
        return "every label more probable than 0.5"

    def write_answer(self, prediction: str, names: str) -> str:
        return f"[name for name, probability in zip({names}, {prediction}) if probability > 0.5]"

    def describe_agreement(self, tolerance: float) -> str:
        return "the same labels"


def _check_indices(name: str, truth: np.ndarray, limit: int) -> None:
    if truth.min() < 0 or truth.max() >= limit:
        raise ValueError(f"Target {name!r}: expected indices below {limit}, received {truth.min()} to {truth.max()}")


def _make_roc(ranked: Sequence[RankingCurves], title: str) -> Curves:
    return Curves(
        title,
        "false positive rate",
        "true positive rate",
        tuple(Curve(each.name, f"{each.roc_auc:.3f}", each.false_rates, each.true_rates) for each in ranked),
        legend="area under the curve",
        has_diagonal=True,
    )


def _make_precision_recall(ranked: Sequence[RankingCurves], title: str) -> Curves:
    """Make precision against recall, with the share of the class, the precision of guessing, for reference."""
    curves = tuple(
        Curve(each.name, f"{each.average_precision:.3f}", each.recalls, each.precisions, each.share) for each in ranked
    )
    return Curves(title, "recall", "precision", curves, legend="average precision", has_steps=True)
