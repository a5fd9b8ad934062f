"""The part of a report that tells why a model answers as it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bmcli.console import clean
from bmcli.data.raw_rows import RawRows
from bmcli.evaluation.explanation_record import Explained, Explanation, LayerActivity, Sanity, Share, TargetExplanation
from bmcli.reports import figures, pixels
from bmcli.reports.figures import BLUE, GREY
from bmcli.reports.page import Cell, Heading, Row, number, number_cell
from bmcli.specs import Column, Prepared

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_BARS, _SHARES, _FEATURES, _TERMS = 25, 15, 6, 48
_NAME = 26


@dataclass(frozen=True)
class Word:
    """A term with the strength of its colour, from 0 to 1, and whether it speaks for the answer."""

    text: str
    strength: float
    speaks_for: bool


@dataclass(frozen=True)
class ShownAnswer:
    """One explained answer.

    Args:
        pictures: Titles and `data:` addresses.
        heated: The terms of a sequence by how much a convolution looked at them.
        features: What adds most to it, in words.
        cells: Of the example, name and text.
    """

    title: str
    good: bool
    pictures: tuple[tuple[str, str], ...]
    words: tuple[Word, ...]
    heated: tuple[Word, ...]
    features: str
    cells: str


@dataclass(frozen=True)
class ShownTarget:
    """How a target's answers came about, for the template."""

    name: str
    loss: str
    importance: Markup
    untold: str
    shares: list[Row]
    sanity: list[Row]
    lists: list[tuple[str, list[ShownAnswer]]]


@dataclass(frozen=True)
class ShownExplanation:
    """Everything of `bmcli explain`, for the template."""

    on: str
    rows: int
    repeats: int
    left_out: int
    targets: list[ShownTarget]
    layers: list[Row]
    similarity: Markup
    neighbours: list[Row]
    has_heat: bool


SHARES_HEAD = [Heading("feature"), Heading("share of the contributions", True)]
SANITY_HEAD = [
    Heading("method"), Heading("paper"), Heading("compared"), Heading("value", True), Heading("has to be below", True),
    Heading("verdict"),
]  # fmt: skip
LAYERS_HEAD = [
    Heading("layer"), Heading("kind"), Heading("units", True), Heading("mean", True), Heading("spread", True),
    Heading("dead units", True),
]  # fmt: skip
NEIGHBOURS_HEAD = [Heading("example"), Heading("its nearest training examples, with cosine")]


def shown(explanation: Explanation, prepared: Prepared, raw: RawRows) -> ShownExplanation:
    """The explanation as a page shows it."""
    answers = _Answers(explanation, prepared, raw)
    layers = explanation.layers
    return ShownExplanation(
        on=clean(explanation.on),
        rows=explanation.rows,
        repeats=explanation.repeats,
        left_out=explanation.left_out,
        targets=[_target(target, place, answers) for place, target in enumerate(explanation.targets)],
        layers=[_layer_row(layer) for layer in layers],
        similarity=_similarity(layers, np.array(explanation.similarity)),
        neighbours=[
            Row((Cell(clean(f"{each.truth}, row {each.row}")), Cell("; ".join(
                clean(f"{truth} {cosine:.2f}") for _, cosine, truth in each.nearest), "long")))
            for each in explanation.neighbours
        ],
        has_heat=any(each.heat for target in explanation.targets for each in (*target.wrong, *target.doubtful)),
    )  # fmt: skip


def _target(target: TargetExplanation, place: int, answers: _Answers) -> ShownTarget:
    untold = [each.column for each in target.importances if not each.told]
    lists = (("Most wrong", target.wrong), ("Most doubtful", target.doubtful))
    return ShownTarget(
        name=clean(target.target),
        loss=target.loss,
        importance=_importance(target, f"importance-{place}"),
        untold=", ".join(map(clean, untold)),
        shares=[_share_row(share) for share in target.shares[:_SHARES]],
        sanity=[_sanity_row(check) for check in target.sanity],
        lists=[(title, [answers.shown(each) for each in found]) for title, found in lists if found],
    )


def _share_row(share: Share) -> Row:
    return Row((Cell(clean(share.feature)), number_cell(share.share, f"{100 * share.share:.1f} %")))


def _sanity_row(check: Sanity) -> Row:
    verdict = Cell("passed") if check.passed else Cell("does not tell this network from random ones", "failed")
    return Row(
        (
            Cell(check.method),
            Cell(check.paper),
            Cell(check.figure, "long"),
            number_cell(check.value),
            number_cell(check.limit),
            verdict,
        )
    )


def _layer_row(layer: LayerActivity) -> Row:
    dead = number_cell(layer.dead, f"{layer.dead} ({100 * layer.dead / layer.units:.0f} %)" if layer.dead else "0")
    numbers = (number_cell(layer.units), number_cell(layer.mean), number_cell(layer.spread), dead)
    return Row((Cell(clean(layer.name)), Cell(layer.kind), *numbers))


def _importance(target: TargetExplanation, drawn: str) -> Markup:
    """By how much the loss rises, a bar for each column; grey where it is not told from nothing."""
    found = target.importances[:_BARS]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.light_grid(axes)
        for place, each in enumerate(found):
            axes.barh(place, max(each.increase, 0.0), 0.7, color=BLUE if each.told else GREY)
            axes.plot([each.low, each.high], [place, place], color="black", linewidth=1)
        axes.set_yticks(range(len(found)), [figures.shortened(clean(each.column), _NAME) for each in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.axvline(0, color="black", linewidth=0.7)
        axes.set_xlabel(f"rise of the {target.loss}")

    told = f"How much {clean(target.target)} needs each column"
    return figures.svg(drawn, told, (7.2, 0.8 + 0.24 * len(found)), draw)


def _similarity(layers: tuple[LayerActivity, ...], values: np.ndarray) -> Markup:
    side = max(2.0, 0.32 * len(layers))

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        colours = LinearSegmentedColormap.from_list("cka", [(0.18, 0.5, 0.77, 0.0), (0.18, 0.5, 0.77, 1.0)])
        axes.pcolormesh(values, cmap=colours, vmin=0, vmax=1, edgecolors=(0.5, 0.5, 0.5, 0.25), linewidth=0.5)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        names = [figures.shortened(clean(layer.name), _NAME) for layer in layers]
        middles = np.arange(len(layers)) + 0.5
        axes.set_xticks(middles, names, rotation=90)
        axes.set_yticks(middles, names)
        axes.tick_params(length=0)
        if len(layers) <= 12:
            for row, column in np.ndindex(values.shape):
                told = f"{values[row, column]:.2f}".replace("0.", ".", 1)
                axes.text(column + 0.5, row + 0.5, told, ha="center", va="center", fontsize=6.5)

    return figures.svg("similarity", "Similarity of layers", (side + 2.0, side + 1.8), draw)


class _Answers:
    """Makes what is shown of single answers, with the data they are about."""

    def __init__(self, explanation: Explanation, prepared: Prepared, raw: RawRows) -> None:
        self._on, self._spec, self._raw = explanation.on, prepared.spec, raw
        self._inputs: Mapping[str, np.ndarray] = prepared.split(explanation.on).inputs

    def shown(self, each: Explained) -> ShownAnswer:
        good = each.truth == each.answer
        about = "" if each.explained in (each.answer, each.truth) else f" (explained: {each.explained})"
        return ShownAnswer(
            title=clean(f"{each.truth}, " + ("right" if good else f"predicted {each.answer}") + about),
            good=good,
            pictures=tuple(self._pictures(each)),
            words=_words(each),
            heated=self._heated(each),
            features=_strongest(each.features) if len(each.features) > 1 else "",
            cells="" if each.image or each.text else self._cells(each),
        )

    def _pictures(self, each: Explained) -> Iterator[tuple[str, str]]:
        if not each.image:
            return
        column: Column = self._spec.input(each.image)
        span = (float(column.state["range"][0]), float(column.state["range"][1]))
        seen = pixels.scaled(np.asarray(self._inputs[each.image][each.row]), span)
        yield "seen", pixels.address(seen)
        if each.pixels:
            yield "for and against", pixels.address(pixels.for_and_against(np.array(each.pixels)))
        if len(each.heat) > 1:
            yield "looked at", pixels.address(pixels.under_heat(seen, np.array(each.heat)))

    def _heated(self, each: Explained) -> tuple[Word, ...]:
        """The terms by the heat of the step they stand at, of which there may be fewer than terms."""
        if not each.words or len(each.heat) != 1 or self._spec.input(each.text).state["bag"]:
            return ()
        (heat,), steps = each.heat, self._spec.input(each.text).shape[0]
        places = [min(len(heat) - 1, i * len(heat) // steps) for i in range(len(each.words))]
        pairs = zip(each.words, places, strict=True)
        return tuple(Word(clean(text), max(0.0, heat[at]), False) for (text, _), at in pairs)[:_TERMS]

    def _cells(self, each: Explained) -> str:
        names = [name for name in each.features if name in self._raw.columns][:12]
        cells = [self._raw.cells(name, self._on, np.array([each.row]))[0] for name in names]
        return ", ".join(clean(f"{name} {cell or 'missing'}") for name, cell in zip(names, cells, strict=True))


def _words(each: Explained) -> tuple[Word, ...]:
    most = max((abs(value) for _, value in each.words), default=0.0) or 1.0
    return tuple(Word(clean(text), abs(value) / most, value > 0) for text, value in each.words[:_TERMS])


def _strongest(features: Mapping[str, float]) -> str:
    ordered = sorted(features.items(), key=lambda item: -abs(item[1]))[:_FEATURES]
    return ", ".join(f"{clean(name)} {'+' if value > 0 else ''}{number(value)}" for name, value in ordered)
