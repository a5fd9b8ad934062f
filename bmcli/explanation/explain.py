"""Explanation of a trained network: importance, attributions, sanity checks, layers and neighbours, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bmcli import inputs as input_kinds
from bmcli.answers import Answers
from bmcli.evaluation.explanation_record import (
    ExampleExplanation,
    Explanation,
    FeatureAttribution,
    NearestNeighbours,
    PermutationImportance,
    PixelMap,
    SanityCheck,
    TargetExplanation,
)
from bmcli.evaluation.predictions import Predictions, find_examples
from bmcli.explanation import activations, gradcam, gradients, permutation, sanity
from bmcli.explanation.gradcam import GradCam
from bmcli.explanation.gradients import IntegratedGradients
from bmcli.explanation.scores import TargetScore
from bmcli.networks.network import Network
from bmcli.objectives import open_answers
from bmcli.specs import Column, DataSpec, Split
from bmcli.training.predictor import Predictor

_ATTRIBUTED_ROWS, _BASELINE_ROWS, _SANITY_ROWS, _ACTIVITY_ROWS = 32, 256, 8, 512
_MAX_NEIGHBOURS, _MAX_CANDIDATES = 5, 5000  # nearest training rows, among this many of them
MAX_PERMUTED_COLUMNS = 300  # of more columns, those with the largest attributions are permuted
_MAX_SIDE = 64  # pixels of a side of kept contributions


@dataclass(frozen=True)
class ExplanationContext:
    """The network to explain, with its data.

    Args:
        build_random: Builds a network of the same shape with random weights.
        train: Encoded training rows.
    """

    network: Network
    build_random: Callable[[], Network]
    spec: DataSpec
    train: Split

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """Answers of the outputs, by name."""
        return open_answers(self.spec)


def explain_network(
    context: ExplanationContext, predicted: Predictions, max_rows: int, repeats: int, max_examples: int
) -> Explanation:
    """Explain a network and its predictions.

    Args:
        predicted: Rows that the network was not trained on, with its predictions.
        max_rows: Maximum number of rows for permutation importance, evenly spread.
        repeats: Permutations of each column.
        max_examples: Number of most wrong and of least confident examples.
    """
    sample = _spread_rows(len(predicted.rows), max_rows)
    methods_by_target = {
        name: _AttributionMethods(context, answers, context.network) for name, answers in context.answers.items()
    }
    permuted = _select_permuted_columns(context, predicted, methods_by_target)
    importances = _measure_importances(Predictor(context.network), context, predicted, sample, repeats, permuted)
    sanity_checks = _run_sanity_checks(context, predicted, sample, importances, methods_by_target, permuted)
    targets = tuple(
        _explain_target(
            context,
            predicted,
            importances[name],
            methods_by_target[name],
            sanity_checks[name],
            max_examples,
        )
        for name in context.answers
    )
    layers, similarity = activations.measure_activity(
        context.network, take_rows(predicted.rows, _spread_rows(len(predicted.rows), _ACTIVITY_ROWS))
    )
    return Explanation(
        split=predicted.name,
        rows=len(sample),
        repeats=repeats,
        targets=targets,
        layers=layers,
        similarity=tuple(tuple(round(float(value), 4) for value in row) for row in similarity),
        neighbours=_find_neighbours(context, predicted, [each.row for each in targets[0].wrong]),
        left_out=len(context.spec.inputs) - len(permuted),
    )


def _select_permuted_columns(
    context: ExplanationContext, predicted: Predictions, methods: Mapping[str, _AttributionMethods]
) -> tuple[str, ...]:
    """Select the columns whose importance is measured: of very many, those with the largest integrated gradients.

    Each permutation needs predictions of all rows, whereas gradients cover all columns at once.
    """
    names = tuple(column.name for column in context.spec.inputs)
    if len(names) <= MAX_PERMUTED_COLUMNS:
        return names
    sample = _spread_rows(len(predicted.rows), _ATTRIBUTED_ROWS)
    total_sizes = dict.fromkeys(names, 0.0)
    for target, method in methods.items():
        chosen = method.answers.choose_scores(predicted.predictions[target][sample])
        sizes = gradients.compute_mean_magnitudes(method.gradients(take_rows(predicted.rows, sample), chosen))
        total = sum(sizes.values()) or 1.0
        for name in total_sizes.keys() & sizes.keys():
            total_sizes[name] += sizes[name] / total
    largest = set(sorted(names, key=lambda name: -total_sizes[name])[:MAX_PERMUTED_COLUMNS])
    return tuple(name for name in names if name in largest)


def take_rows(rows: Split, indices: np.ndarray) -> Split:
    """Load some of the rows into memory."""
    return Split(
        {name: np.asarray(cells[indices]) for name, cells in rows.inputs.items()},
        {name: np.asarray(cells[indices]) for name, cells in rows.targets.items()},
    )


def _spread_rows(count: int, max_rows: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, max_rows)).round().astype("int64"))


def _measure_importances(
    predict: permutation.Predict,
    context: ExplanationContext,
    predicted: Predictions,
    sample: np.ndarray,
    repeats: int,
    permuted: Sequence[str],
) -> dict[str, tuple[PermutationImportance, ...]]:
    truth = {name: values[sample] for name, values in predicted.truth.items()}
    rows = take_rows(predicted.rows, sample)
    return permutation.measure_importances(rows, truth, context.answers, predict, repeats, permuted)


def _explain_target(
    context: ExplanationContext,
    predicted: Predictions,
    importances: tuple[PermutationImportance, ...],
    method: _AttributionMethods,
    checks: tuple[SanityCheck, ...],
    max_examples: int,
) -> TargetExplanation:
    answers = method.answers
    truth, predictions = predicted.truth[answers.name], predicted.predictions[answers.name]
    examples = find_examples(answers, truth, predictions, max_examples)
    sample = _spread_rows(len(predicted.rows), _ATTRIBUTED_ROWS)
    attribution = method.gradients(take_rows(predicted.rows, sample), answers.choose_scores(predictions[sample]))
    return TargetExplanation(
        target=answers.name,
        loss=answers.compute_row_losses(truth[sample], predictions[sample]).name,
        importances=importances,
        shares=_to_shares(gradients.compute_mean_magnitudes(attribution)),
        wrong=method.explain_rows(predicted, examples.wrong),
        least_confident=method.explain_rows(predicted, examples.least_confident),
        sanity=checks,
    )


def _to_shares(sizes: Mapping[str, float]) -> tuple[FeatureAttribution, ...]:
    total = sum(sizes.values()) or 1.0
    return tuple(
        FeatureAttribution(name, size / total) for name, size in sorted(sizes.items(), key=lambda item: -item[1])
    )


class _AttributionMethods:
    """Attribution methods for one target of one network."""

    def __init__(self, context: ExplanationContext, answers: Answers, network: Network) -> None:
        self.spec, self.answers = context.spec, answers
        score = TargetScore(answers.name, network)
        average = take_rows(context.train, _spread_rows(len(context.train), _BASELINE_ROWS))
        self.gradients = IntegratedGradients(network, context.spec, score, average)
        maps = gradcam.find_maps(network)
        self.grad_cam = None if maps is None else GradCam(network, score, maps)

    def explain_rows(self, predicted: Predictions, rows: tuple[int, ...]) -> tuple[ExampleExplanation, ...]:
        """Explain the predictions of some rows."""
        if not rows:
            return ()
        indices = np.array(rows)
        encoded, predictions = take_rows(predicted.rows, indices), predicted.predictions[self.answers.name][indices]
        chosen = self.answers.choose_scores(predictions)
        attribution = self.gradients(encoded, chosen)
        heat = None if self.grad_cam is None else self.grad_cam(encoded, chosen)
        point = self.answers.predict_points(predictions)
        truth = predicted.truth[self.answers.name][indices]
        image, text = self._find_displayed("picture"), self._find_displayed("text")
        sums = attribution.sum_by_feature()
        return tuple(
            ExampleExplanation(
                row=int(row),
                truth=self.answers.format_value(truth[i]),
                prediction=self.answers.format_value(point[i]),
                explained_output=self.answers.name_score(int(chosen[i])),
                features={name: _round_digits(float(values[i])) for name, values in sums.items()},
                text=text.name if text else "",
                words=_make_words(text, encoded, attribution, i) if text else (),
                image=image.name if image else "",
                pixels=_make_pixel_map(image, attribution, i) if image else (),
                grad_cam=() if heat is None else _to_pixel_map(np.atleast_2d(gradcam.normalize_heat(heat[i]))),
                completeness_gap=_round_digits(float(attribution.completeness_gaps[i])),
            )
            for i, row in enumerate(rows)
        )

    def _find_displayed(self, display: str) -> Column | None:
        """Find the first input that is shown as a picture or as a text."""
        shown = (column for column in self.spec.inputs if input_kinds.get_traits(column).display == display)
        return next(shown, None)


def _make_pixel_map(column: Column, attribution: gradients.Attribution, row: int) -> PixelMap:
    contributions = attribution.select_column(column.name)
    if contributions is None or contributions.ndim != 4:
        return ()
    return _to_pixel_map(_downscale(contributions[row].sum(axis=-1)))


def _make_words(
    column: Column, encoded: Split, attribution: gradients.Attribution, row: int
) -> tuple[tuple[str, float], ...]:
    contributions = attribution.select_column(column.name)
    if contributions is None:
        return ()
    words = input_kinds.get_traits(column).attribute_terms(encoded.inputs[column.name][row], contributions[row])
    return tuple((term, _round_digits(value)) for term, value in words)


def _downscale(pixels: np.ndarray) -> np.ndarray:
    """Sum over blocks of pixels, if the picture is large."""
    block = -(-max(pixels.shape) // _MAX_SIDE)
    padded = np.pad(pixels, [(0, -side % block) for side in pixels.shape])
    height, width = (side // block for side in padded.shape)
    sums: np.ndarray = padded.reshape(height, block, width, block).sum(axis=(1, 3))
    return sums


def _to_pixel_map(values: np.ndarray) -> PixelMap:
    return tuple(tuple(_round_digits(float(value)) for value in row) for row in values)


def _round_digits(value: float) -> float:
    """Round to four digits, which are enough for the record and its pictures."""
    return float(f"{value:.4g}")


def _run_sanity_checks(
    context: ExplanationContext,
    predicted: Predictions,
    sample: np.ndarray,
    importances: Mapping[str, tuple[PermutationImportance, ...]],
    methods: Mapping[str, _AttributionMethods],
    permuted: Sequence[str],
) -> dict[str, tuple[SanityCheck, ...]]:
    """Check every method against networks with random weights, by target."""
    network = context.build_random()
    predict = Predictor(network)
    random_methods = {name: _AttributionMethods(context, answers, network) for name, answers in context.answers.items()}
    attributions = {name: _attribute_rows(predicted, method, method) for name, method in methods.items()}
    remaining_shares: dict[str, list[float]] = {name: [] for name in methods}
    correlations: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    for number in range(sanity.RANDOM_NETWORKS):
        sanity.shuffle_weights(network, number)
        random_importances = _measure_importances(predict, context, predicted, sample, 1, permuted)
        for name, method in methods.items():
            remaining_shares[name].append(sanity.compute_remaining_share(importances[name], random_importances[name]))
            correlations[name].append(
                sanity.compute_correlations(
                    attributions[name], _attribute_rows(predicted, method, random_methods[name])
                )
            )
    return {name: _make_checks(remaining_shares[name], correlations[name]) for name in methods}


def _attribute_rows(
    predicted: Predictions, score_method: _AttributionMethods, method: _AttributionMethods
) -> sanity.RowAttributions:
    """Attribute the scores that a method chooses for its network, by the same or by another network."""
    sample = _spread_rows(len(predicted.rows), _SANITY_ROWS)
    answers = score_method.answers
    chosen = answers.choose_scores(predicted.predictions[answers.name][sample])
    rows = take_rows(predicted.rows, sample)
    return method.gradients(rows, chosen), None if method.grad_cam is None else method.grad_cam(rows, chosen)


def _make_checks(remaining_shares: list[float], correlations: list[tuple[float, ...]]) -> tuple[SanityCheck, ...]:
    descriptions = (
        ("permutation importance", permutation.PAPER,
         "total importance with random weights, as a share of that with trained weights"),
        ("integrated gradients", gradients.PAPER,
         "rank correlation of the contributions with trained and random weights"),
        ("Grad-CAM", gradcam.PAPER, "rank correlation of the heat maps with trained and random weights"),
    )  # fmt: skip
    values = np.mean([(share, *each) for share, each in zip(remaining_shares, correlations, strict=True)], axis=0)
    return tuple(
        SanityCheck(method, paper, figure, _round_digits(float(value)), sanity.LIMIT)
        for (method, paper, figure), value in zip(descriptions, values, strict=False)
    )


def _find_neighbours(
    context: ExplanationContext, predicted: Predictions, rows: list[int]
) -> tuple[NearestNeighbours, ...]:
    """Find the training rows with the most similar embeddings for some rows."""
    if not rows:
        return ()
    answers = next(iter(context.answers.values()))
    candidates = _spread_rows(len(context.train), _MAX_CANDIDATES)
    train = take_rows(context.train, candidates)
    embeddings = activations.compute_embeddings(context.network, take_rows(predicted.rows, np.array(rows)))
    positions, cosines = activations.find_nearest(
        embeddings, activations.compute_embeddings(context.network, train), _MAX_NEIGHBOURS
    )
    decoded = answers.read_truth(train)
    return tuple(
        NearestNeighbours(
            row,
            answers.format_value(predicted.truth[answers.name][row]),
            tuple(
                (int(candidates[index]), _round_digits(float(cosine)), answers.format_value(decoded[index]))
                for index, cosine in zip(positions[i], cosines[i], strict=True)
            ),
        )
        for i, row in enumerate(rows)
    )
