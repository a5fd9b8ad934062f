"""All that is found out about a trained network, from its recipe and data to plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bmcli.data import targets as target_kinds
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
from bmcli.evaluation.predictions import Predictions, find_examples, format_target, predict_points
from bmcli.explanation import activations, gradcam, gradients, permutation, sanity
from bmcli.explanation.gradcam import GradCam
from bmcli.explanation.gradients import IntegratedGradients
from bmcli.explanation.scores import TargetScore, choose_classes, loss_name
from bmcli.networks.network import Network
from bmcli.specs import Column, DataSpec, Split
from bmcli.training.predictor import Predictor

_SHARED, _AVERAGED, _COMPARED, _LOOKED_AT = 32, 256, 8, 512  # rows
_NEIGHBOURS, _AMONG = 5, 5000
MOST_DEALT = 300  # columns
_LARGEST = 64  # pixels a side of kept contributions


@dataclass(frozen=True)
class ExplanationContext:
    """What is explained.

    Args:
        build_random: Makes a network of the same shape with random weights.
        quantiles: Which ones are predicted, by target.
        train: Encoded training rows.
    """

    network: Network
    build_random: Callable[[], Network]
    spec: DataSpec
    quantiles: Mapping[str, tuple[float, ...]]
    train: Split


def explain_network(
    context: ExplanationContext, judged: Predictions, max_rows: int, repeats: int, max_examples: int
) -> Explanation:
    """Everything that can be said of a network.

    Args:
        judged: Rows that the network was not trained on, with its predictions.
        max_rows: Of those that importance is measured on, evenly spread.
        repeats: How often each column is dealt anew.
        max_examples: Examples of the most wrong, and of the most doubtful.
    """
    some = _spread_rows(len(judged.rows), max_rows)
    methods = {column.name: _AttributionMethods(context, column, context.network) for column in context.spec.targets}
    dealt = _dealt_columns(context, judged, methods)
    found = _measure_importances(Predictor(context.network), context, judged, some, repeats, dealt)
    checks = _run_sanity_checks(context, judged, some, found, methods, dealt)
    targets = tuple(
        _explain_target(
            context, judged, column, found[column.name], methods[column.name], checks[column.name], max_examples
        )
        for column in context.spec.targets
    )
    layers, similarity = activations.measure_activity(
        context.network, take_rows(judged.rows, _spread_rows(len(judged.rows), _LOOKED_AT))
    )
    return Explanation(
        split=judged.name,
        rows=len(some),
        repeats=repeats,
        targets=targets,
        layers=layers,
        similarity=tuple(tuple(round(float(value), 4) for value in row) for row in similarity),
        neighbours=_find_neighbours(context, judged, [each.row for each in targets[0].wrong]),
        left_out=len(context.spec.inputs) - len(dealt),
    )


def _dealt_columns(
    subject: ExplanationContext, judged: Predictions, methods: Mapping[str, _AttributionMethods]
) -> tuple[str, ...]:
    """The columns whose importance is measured: of very many those that add most by integrated gradients.

    To deal a column anew takes a prediction of all rows each time, and gradients tell of all columns at once.
    """
    names = tuple(column.name for column in subject.spec.inputs)
    if len(names) <= MOST_DEALT:
        return names
    some = _spread_rows(len(judged.rows), _SHARED)
    size = dict.fromkeys(names, 0.0)
    for target, method in methods.items():
        chosen = choose_classes(method.column, judged.predictions[target][some])
        sizes = gradients.mean_magnitudes(method.gradients(take_rows(judged.rows, some), chosen))
        total = sum(sizes.values()) or 1.0
        for name in size.keys() & sizes.keys():
            size[name] += sizes[name] / total
    largest = set(sorted(names, key=lambda name: -size[name])[:MOST_DEALT])
    return tuple(name for name in names if name in largest)


def take_rows(rows: Split, some: np.ndarray) -> Split:
    """Some of the rows, in memory."""
    return Split(
        {name: np.asarray(cells[some]) for name, cells in rows.inputs.items()},
        {name: np.asarray(cells[some]) for name, cells in rows.targets.items()},
    )


def _spread_rows(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype("int64"))


def _measure_importances(
    predict: permutation.Predict,
    subject: ExplanationContext,
    judged: Predictions,
    some: np.ndarray,
    repeats: int,
    dealt: Sequence[str],
) -> dict[str, tuple[PermutationImportance, ...]]:
    truth = {name: values[some] for name, values in judged.truth.items()}
    rows = take_rows(judged.rows, some)
    return permutation.measure_importances(
        rows, truth, subject.spec.targets, subject.quantiles, predict, repeats, dealt
    )


def _explain_target(
    subject: ExplanationContext,
    judged: Predictions,
    column: Column,
    importances: tuple[PermutationImportance, ...],
    method: _AttributionMethods,
    checks: tuple[SanityCheck, ...],
    most: int,
) -> TargetExplanation:
    quantiles = subject.quantiles.get(column.name, ())
    predictions = judged.predictions[column.name]
    picked = find_examples(column, judged.truth[column.name], predictions, most, quantiles)
    some = _spread_rows(len(judged.rows), _SHARED)
    overall = method.gradients(take_rows(judged.rows, some), choose_classes(column, predictions[some]))
    return TargetExplanation(
        target=column.name,
        loss=loss_name(column, quantiles),
        importances=importances,
        shares=_to_shares(gradients.mean_magnitudes(overall)),
        wrong=method.explained(judged, picked.wrong),
        least_confident=method.explained(judged, picked.least_confident),
        sanity=checks,
    )


def _to_shares(sizes: Mapping[str, float]) -> tuple[FeatureAttribution, ...]:
    total = sum(sizes.values()) or 1.0
    return tuple(
        FeatureAttribution(name, size / total) for name, size in sorted(sizes.items(), key=lambda item: -item[1])
    )


class _AttributionMethods:
    """What explains single answers of one network to one target."""

    def __init__(self, subject: ExplanationContext, column: Column, network: Network) -> None:
        self.spec, self.column = subject.spec, column
        self.quantiles = subject.quantiles.get(column.name, ())
        score = TargetScore(column, network.objectives[column.name], self.quantiles)
        average = take_rows(subject.train, _spread_rows(len(subject.train), _AVERAGED))
        self.gradients = IntegratedGradients(network, subject.spec, score, average)
        maps = gradcam.find_maps(network)
        self.grad_cam = None if maps is None else GradCam(network, score, maps)

    def explained(self, judged: Predictions, rows: tuple[int, ...]) -> tuple[ExampleExplanation, ...]:
        """Some rows, with what speaks for the answers that they got."""
        if not rows:
            return ()
        places = np.array(rows)
        encoded, predictions = take_rows(judged.rows, places), judged.predictions[self.column.name][places]
        chosen = choose_classes(self.column, predictions)
        found = self.gradients(encoded, chosen)
        heat = None if self.grad_cam is None else self.grad_cam(encoded, chosen)
        point = predict_points(self.column, predictions, self.quantiles)
        truth = judged.truth[self.column.name][places]
        image, text = self._first_column("image"), self._first_column("text")
        sums = found.sum_by_feature()
        return tuple(
            ExampleExplanation(
                row=int(row),
                truth=format_target(self.column, truth[i]),
                prediction=format_target(self.column, point[i]),
                explained=self.column.classes[chosen[i]] if self.column.classes else self.column.name,
                features={name: _round_digits(float(values[i])) for name, values in sums.items()},
                text=text.name if text else "",
                words=_words(text, encoded, found, i) if text else (),
                image=image.name if image else "",
                pixels=_pixels(image, found, i) if image else (),
                grad_cam=() if heat is None else _picture(np.atleast_2d(gradcam.normalize_heat(heat[i]))),
                completeness_gap=_round_digits(float(found.completeness_gaps[i])),
            )
            for i, row in enumerate(rows)
        )

    def _first_column(self, kind: str) -> Column | None:
        return next((column for column in self.spec.inputs if column.kind == kind), None)


def _pixels(column: Column, found: gradients.Attribution, row: int) -> PixelMap:
    own = found.select_column(column.name)
    return () if own is None else _picture(_downscale(own[row].sum(axis=-1)))


def _words(column: Column, encoded: Split, found: gradients.Attribution, row: int) -> tuple[tuple[str, float], ...]:
    own = found.select_column(column.name)
    if own is None or not gradients.has_terms(column):
        return ()
    words = gradients.attribute_terms(column, encoded.inputs[column.name][row], own[row])
    return tuple((term, _round_digits(value)) for term, value in words)


def _downscale(pixels: np.ndarray) -> np.ndarray:
    """Sums over blocks, if there are too many pixels to be kept."""
    block = -(-max(pixels.shape) // _LARGEST)
    padded = np.pad(pixels, [(0, -side % block) for side in pixels.shape])
    height, width = (side // block for side in padded.shape)
    sums: np.ndarray = padded.reshape(height, block, width, block).sum(axis=(1, 3))
    return sums


def _picture(values: np.ndarray) -> PixelMap:
    return tuple(tuple(_round_digits(float(value)) for value in row) for row in values)


def _round_digits(value: float) -> float:
    """Four digits, which a file and a picture need no more of."""
    return float(f"{value:.4g}")


def _run_sanity_checks(
    subject: ExplanationContext,
    judged: Predictions,
    some: np.ndarray,
    found: Mapping[str, tuple[PermutationImportance, ...]],
    methods: Mapping[str, _AttributionMethods],
    dealt: Sequence[str],
) -> dict[str, tuple[SanityCheck, ...]]:
    """Every method on networks with random weights, by target."""
    network = subject.build_random()
    predict = Predictor(network)
    others = {column.name: _AttributionMethods(subject, column, network) for column in subject.spec.targets}
    usual = {name: _attribute_rows(judged, method, method) for name, method in methods.items()}
    left: dict[str, list[float]] = {name: [] for name in methods}
    compared: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    for number in range(sanity.RANDOM_NETWORKS):
        sanity.shuffle_weights(network, number)
        by_chance = _measure_importances(predict, subject, judged, some, 1, dealt)
        for name, method in methods.items():
            left[name].append(sanity.compute_remaining_share(found[name], by_chance[name]))
            compared[name].append(
                sanity.compute_correlations(usual[name], _attribute_rows(judged, method, others[name]))
            )
    return {name: _build_verdicts(left[name], compared[name]) for name in methods}


def _attribute_rows(
    judged: Predictions, chooses: _AttributionMethods, method: _AttributionMethods
) -> sanity.RowAttributions:
    """What a network's methods say of the classes that another one's answers are."""
    some = _spread_rows(len(judged.rows), _COMPARED)
    chosen = choose_classes(chooses.column, judged.predictions[chooses.column.name][some])
    rows = take_rows(judged.rows, some)
    return method.gradients(rows, chosen), None if method.grad_cam is None else method.grad_cam(rows, chosen)


_OF_RANDOM = "with those of networks with random weights"


def _build_verdicts(left: list[float], correlations: list[tuple[float, ...]]) -> tuple[SanityCheck, ...]:
    told = (
        ("permutation importance", permutation.PAPER,
         "importance of all columns to networks with random weights, as a share of that to the trained one"),
        ("integrated gradients", gradients.PAPER, f"rank correlation of contributions {_OF_RANDOM}"),
        ("Grad-CAM", gradcam.PAPER, f"rank correlation of heats {_OF_RANDOM}"),
    )  # fmt: skip
    values = np.mean([(share, *each) for share, each in zip(left, correlations, strict=True)], axis=0)
    return tuple(
        SanityCheck(method, paper, figure, _round_digits(float(value)), sanity.LIMIT)
        for (method, paper, figure), value in zip(told, values, strict=False)
    )


def _find_neighbours(
    subject: ExplanationContext, judged: Predictions, rows: list[int]
) -> tuple[NearestNeighbours, ...]:
    """For some rows the training rows that the network takes for the most similar."""
    if not rows:
        return ()
    column = subject.spec.targets[0]
    among = _spread_rows(len(subject.train), _AMONG)
    train = take_rows(subject.train, among)
    of = activations.embeddings(subject.network, take_rows(judged.rows, np.array(rows)))
    places, cosines = activations.find_nearest(of, activations.embeddings(subject.network, train), _NEIGHBOURS)
    decoded = target_kinds.kind_of(column).decode(train.targets[column.name], column)
    return tuple(
        NearestNeighbours(
            row,
            format_target(column, judged.truth[column.name][row]),
            tuple(
                (int(among[place]), _round_digits(float(cosine)), format_target(column, decoded[place]))
                for place, cosine in zip(places[i], cosines[i], strict=True)
            ),
        )
        for i, row in enumerate(rows)
    )
