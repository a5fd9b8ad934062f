"""All that is found out about a trained network, from its recipe and data to plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.evaluation.explanation_record import (
    Explained,
    Explanation,
    Importance,
    Neighbours,
    Picture,
    Sanity,
    Share,
    TargetExplanation,
)
from bmcli.evaluation.predictions import Judged, examples, points, told
from bmcli.explanation import activations, gradcam, gradients, permutation, sanity
from bmcli.explanation.gradcam import GradCam
from bmcli.explanation.gradients import IntegratedGradients
from bmcli.explanation.scores import Score, explained_classes, loss_name
from bmcli.networks.network import Network
from bmcli.specs import Column, DataSpec, Split
from bmcli.training.predictor import Predictor

_SHARED, _AVERAGED, _COMPARED, _LOOKED_AT = 32, 256, 8, 512  # rows
_NEIGHBOURS, _AMONG = 5, 5000
MOST_DEALT = 300  # columns
_LARGEST = 64  # pixels a side of kept contributions


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Args:
        random: Makes a network of the same shape with random weights.
        quantiles: Which ones are predicted, by target.
        train: Encoded training rows.
    """

    network: Network
    random: Callable[[], Network]
    spec: DataSpec
    quantiles: Mapping[str, tuple[float, ...]]
    train: Split


def explain(subject: Subject, judged: Judged, most_rows: int, repeats: int, many: int) -> Explanation:
    """Everything that can be said of a network.

    Args:
        judged: Rows that the network was not trained on, with its predictions.
        most_rows: Of those that importance is measured on, evenly spread.
        repeats: How often each column is dealt anew.
        many: Examples of the most wrong, and of the most doubtful.
    """
    some = _spread(len(judged.rows), most_rows)
    methods = {column.name: _Methods(subject, column, subject.network) for column in subject.spec.targets}
    dealt = _dealt_columns(subject, judged, methods)
    found = _importances(Predictor(subject.network), subject, judged, some, repeats, dealt)
    checks = _checks(subject, judged, some, found, methods, dealt)
    targets = tuple(
        _target(subject, judged, column, found[column.name], methods[column.name], checks[column.name], many)
        for column in subject.spec.targets
    )
    layers, similarity = activations.activity(
        subject.network, taken(judged.rows, _spread(len(judged.rows), _LOOKED_AT))
    )
    return Explanation(
        on=judged.on,
        rows=len(some),
        repeats=repeats,
        targets=targets,
        layers=layers,
        similarity=tuple(tuple(round(float(value), 4) for value in row) for row in similarity),
        neighbours=_neighbours(subject, judged, [each.row for each in targets[0].wrong]),
        left_out=len(subject.spec.inputs) - len(dealt),
    )


def _dealt_columns(subject: Subject, judged: Judged, methods: Mapping[str, _Methods]) -> tuple[str, ...]:
    """The columns whose importance is measured: of very many those that add most by integrated gradients.

    To deal a column anew takes a prediction of all rows each time, and gradients tell of all columns at once.
    """
    names = tuple(column.name for column in subject.spec.inputs)
    if len(names) <= MOST_DEALT:
        return names
    some = _spread(len(judged.rows), _SHARED)
    size = dict.fromkeys(names, 0.0)
    for target, method in methods.items():
        chosen = explained_classes(method.column, judged.predictions[target][some])
        sizes = gradients.mean_sizes(method.gradients(taken(judged.rows, some), chosen))
        total = sum(sizes.values()) or 1.0
        for name in size.keys() & sizes.keys():
            size[name] += sizes[name] / total
    largest = set(sorted(names, key=lambda name: -size[name])[:MOST_DEALT])
    return tuple(name for name in names if name in largest)


def taken(rows: Split, some: np.ndarray) -> Split:
    """Some of the rows, in memory."""
    return Split(
        {name: np.asarray(cells[some]) for name, cells in rows.inputs.items()},
        {name: np.asarray(cells[some]) for name, cells in rows.targets.items()},
    )


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype("int64"))


def _importances(
    predict: permutation.Predict,
    subject: Subject,
    judged: Judged,
    some: np.ndarray,
    repeats: int,
    dealt: Sequence[str],
) -> dict[str, tuple[Importance, ...]]:
    truth = {name: values[some] for name, values in judged.truth.items()}
    rows = taken(judged.rows, some)
    return permutation.importances(rows, truth, subject.spec.targets, subject.quantiles, predict, repeats, dealt)


def _target(
    subject: Subject,
    judged: Judged,
    column: Column,
    importances: tuple[Importance, ...],
    method: _Methods,
    checks: tuple[Sanity, ...],
    most: int,
) -> TargetExplanation:
    quantiles = subject.quantiles.get(column.name, ())
    predictions = judged.predictions[column.name]
    picked = examples(column, judged.truth[column.name], predictions, most, quantiles)
    some = _spread(len(judged.rows), _SHARED)
    overall = method.gradients(taken(judged.rows, some), explained_classes(column, predictions[some]))
    return TargetExplanation(
        target=column.name,
        loss=loss_name(column, quantiles),
        importances=importances,
        shares=_shares(gradients.mean_sizes(overall)),
        wrong=method.explained(judged, picked.wrong),
        doubtful=method.explained(judged, picked.doubtful),
        sanity=checks,
    )


def _shares(sizes: Mapping[str, float]) -> tuple[Share, ...]:
    total = sum(sizes.values()) or 1.0
    return tuple(Share(name, size / total) for name, size in sorted(sizes.items(), key=lambda item: -item[1]))


class _Methods:
    """What explains single answers of one network to one target."""

    def __init__(self, subject: Subject, column: Column, network: Network) -> None:
        self.spec, self.column = subject.spec, column
        self.quantiles = subject.quantiles.get(column.name, ())
        score = Score(column, network.objectives[column.name], self.quantiles)
        average = taken(subject.train, _spread(len(subject.train), _AVERAGED))
        self.gradients = IntegratedGradients(network, subject.spec, score, average)
        maps = gradcam.has_maps(network)
        self.cam = None if maps is None else GradCam(network, score, maps)

    def explained(self, judged: Judged, rows: tuple[int, ...]) -> tuple[Explained, ...]:
        """Some rows, with what speaks for the answers that they got."""
        if not rows:
            return ()
        places = np.array(rows)
        encoded, predictions = taken(judged.rows, places), judged.predictions[self.column.name][places]
        chosen = explained_classes(self.column, predictions)
        found = self.gradients(encoded, chosen)
        heat = None if self.cam is None else self.cam(encoded, chosen)
        point = points(self.column, predictions, self.quantiles)
        truth = judged.truth[self.column.name][places]
        image, text = self._first("image"), self._first("text")
        sums = found.by_feature()
        return tuple(
            Explained(
                row=int(row),
                truth=told(self.column, truth[i]),
                answer=told(self.column, point[i]),
                explained=self.column.classes[chosen[i]] if self.column.classes else self.column.name,
                features={name: _short(float(values[i])) for name, values in sums.items()},
                text=text.name if text else "",
                words=_words(text, encoded, found, i) if text else (),
                image=image.name if image else "",
                pixels=_pixels(image, found, i) if image else (),
                heat=() if heat is None else _picture(np.atleast_2d(gradcam.normalized(heat[i]))),
                gap=_short(float(found.gaps[i])),
            )
            for i, row in enumerate(rows)
        )

    def _first(self, kind: str) -> Column | None:
        return next((column for column in self.spec.inputs if column.kind == kind), None)


def _pixels(column: Column, found: gradients.Attribution, row: int) -> Picture:
    own = found.of(column.name)
    return () if own is None else _picture(_smaller(own[row].sum(axis=-1)))


def _words(column: Column, encoded: Split, found: gradients.Attribution, row: int) -> tuple[tuple[str, float], ...]:
    own = found.of(column.name)
    if own is None or not gradients.has_terms(column):
        return ()
    words = gradients.terms(column, encoded.inputs[column.name][row], own[row])
    return tuple((term, _short(value)) for term, value in words)


def _smaller(pixels: np.ndarray) -> np.ndarray:
    """Sums over blocks, if there are too many pixels to be kept."""
    block = -(-max(pixels.shape) // _LARGEST)
    padded = np.pad(pixels, [(0, -side % block) for side in pixels.shape])
    height, width = (side // block for side in padded.shape)
    sums: np.ndarray = padded.reshape(height, block, width, block).sum(axis=(1, 3))
    return sums


def _picture(values: np.ndarray) -> Picture:
    return tuple(tuple(_short(float(value)) for value in row) for row in values)


def _short(value: float) -> float:
    """Four digits, which a file and a picture need no more of."""
    return float(f"{value:.4g}")


def _checks(
    subject: Subject,
    judged: Judged,
    some: np.ndarray,
    found: Mapping[str, tuple[Importance, ...]],
    methods: Mapping[str, _Methods],
    dealt: Sequence[str],
) -> dict[str, tuple[Sanity, ...]]:
    """Every method on networks with random weights, by target."""
    network = subject.random()
    predict = Predictor(network)
    others = {column.name: _Methods(subject, column, network) for column in subject.spec.targets}
    usual = {name: _compared(judged, method, method) for name, method in methods.items()}
    left: dict[str, list[float]] = {name: [] for name in methods}
    compared: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    for number in range(sanity.NETWORKS):
        sanity.deal_weights(network, number)
        by_chance = _importances(predict, subject, judged, some, 1, dealt)
        for name, method in methods.items():
            left[name].append(sanity.share_left(found[name], by_chance[name]))
            compared[name].append(sanity.correlations(usual[name], _compared(judged, method, others[name])))
    return {name: _verdicts(left[name], compared[name]) for name in methods}


def _compared(judged: Judged, chooses: _Methods, method: _Methods) -> sanity.Compared:
    """What a network's methods say of the classes that another one's answers are."""
    some = _spread(len(judged.rows), _COMPARED)
    chosen = explained_classes(chooses.column, judged.predictions[chooses.column.name][some])
    rows = taken(judged.rows, some)
    return method.gradients(rows, chosen), None if method.cam is None else method.cam(rows, chosen)


_OF_RANDOM = "with those of networks with random weights"


def _verdicts(left: list[float], correlations: list[tuple[float, ...]]) -> tuple[Sanity, ...]:
    told = (
        ("permutation importance", permutation.PAPER,
         "importance of all columns to networks with random weights, as a share of that to the trained one"),
        ("integrated gradients", gradients.PAPER, f"rank correlation of contributions {_OF_RANDOM}"),
        ("Grad-CAM", gradcam.PAPER, f"rank correlation of heats {_OF_RANDOM}"),
    )  # fmt: skip
    values = np.mean([(share, *each) for share, each in zip(left, correlations, strict=True)], axis=0)
    return tuple(
        Sanity(method, paper, figure, _short(float(value)), sanity.LIMIT)
        for (method, paper, figure), value in zip(told, values, strict=False)
    )


def _neighbours(subject: Subject, judged: Judged, rows: list[int]) -> tuple[Neighbours, ...]:
    """For some rows the training rows that the network takes for the most similar."""
    if not rows:
        return ()
    column = subject.spec.targets[0]
    among = _spread(len(subject.train), _AMONG)
    train = taken(subject.train, among)
    of = activations.embeddings(subject.network, taken(judged.rows, np.array(rows)))
    places, cosines = activations.nearest(of, activations.embeddings(subject.network, train), _NEIGHBOURS)
    decoded = target_kinds.kind_of(column).decode(train.targets[column.name], column)
    return tuple(
        Neighbours(
            row,
            told(column, judged.truth[column.name][row]),
            tuple(
                (int(among[place]), _short(float(cosine)), told(column, decoded[place]))
                for place, cosine in zip(places[i], cosines[i], strict=True)
            ),
        )
        for i, row in enumerate(rows)
    )
