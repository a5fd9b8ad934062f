"""Report section with the explanation of the predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bmcli import inputs as input_kinds
from bmcli.data.raw_rows import RawSplits
from bmcli.evaluation.explanation_record import (
    ExampleExplanation,
    Explanation,
    FeatureAttribution,
    LayerActivity,
    SanityCheck,
    TargetExplanation,
)
from bmcli.printable import clean
from bmcli.reports import figures, pixels
from bmcli.reports.figures import BLUE, GREY
from bmcli.reports.page import Cell, Heading, Row, format_number, make_number_cell
from bmcli.specs import PreparedData

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_BARS, _SHARES, _FEATURES, _TERMS = 25, 15, 6, 48
_MAX_NAME_LENGTH = 26


@dataclass(frozen=True)
class ColouredTerm:
    """A term with the strength of its colour from 0 to 1, and whether it supports the prediction."""

    text: str
    strength: float
    is_positive: bool


@dataclass(frozen=True)
class AnswerView:
    """One explained prediction.

    Args:
        pictures: Titles and `data:` URLs.
        words: The terms of a text by their contributions.
        heat_terms: The terms of a sequence by their Grad-CAM heat.
        features: The largest contributions, as text.
        cells: Names and cells of the example, as text.
    """

    title: str
    is_correct: bool
    pictures: tuple[tuple[str, str], ...]
    words: tuple[ColouredTerm, ...]
    heat_terms: tuple[ColouredTerm, ...]
    features: str
    cells: str


@dataclass(frozen=True)
class TargetExplanationView:
    """The explanation of a target's predictions, for the template."""

    name: str
    loss: str
    importance: Markup
    left_out: str
    insignificant: str
    shares: list[Row]
    sanity: list[Row]
    lists: list[tuple[str, list[AnswerView]]]


@dataclass(frozen=True)
class ExplanationView:
    """All results of `bmcli explain`, for the template."""

    split: str
    rows: int
    repeats: int
    left_out: int
    targets: list[TargetExplanationView]
    layers: list[Row]
    similarity: Markup
    neighbours: list[Row]
    has_heat: bool


SHARE_HEADINGS = [Heading("feature"), Heading("share of the mean absolute contributions", True)]
SANITY_HEADINGS = [
    Heading("method"), Heading("paper"), Heading("measure"), Heading("value", True), Heading("must be below", True),
    Heading("result"),
]  # fmt: skip
LAYER_HEADINGS = [
    Heading("layer"), Heading("kind"), Heading("units", True), Heading("mean", True),
    Heading("standard deviation", True), Heading("dead units", True),
]  # fmt: skip
NEIGHBOUR_HEADINGS = [Heading("example"), Heading("nearest training examples, with cosine similarity")]


def make_explanation_view(explanation: Explanation, prepared: PreparedData, raw: RawSplits) -> ExplanationView:
    """Make the view of an explanation."""
    example_views = _AnswerViews(explanation, prepared, raw)
    layers = explanation.layers
    return ExplanationView(
        split=clean(explanation.split),
        rows=explanation.rows,
        repeats=explanation.repeats,
        left_out=explanation.left_out,
        targets=[_make_target_view(target, index, example_views) for index, target in enumerate(explanation.targets)],
        layers=[_make_layer_row(layer) for layer in layers],
        similarity=_draw_similarity(layers, np.array(explanation.similarity)),
        neighbours=[
            Row((Cell(clean(f"{each.truth}, row {each.row}")), Cell("; ".join(
                clean(f"{truth} {cosine:.2f}") for _, cosine, truth in each.nearest), "long")))
            for each in explanation.neighbours
        ],
        has_heat=any(
            each.grad_cam for target in explanation.targets for each in (*target.wrong, *target.least_confident)
        ),
    )  # fmt: skip


def _make_target_view(target: TargetExplanation, index: int, example_views: _AnswerViews) -> TargetExplanationView:
    insignificant = [each.column for each in target.importances if not each.is_significant]
    lists = (("Most wrong", target.wrong), ("Least confident", target.least_confident))
    return TargetExplanationView(
        name=clean(target.target),
        loss=target.loss,
        importance=_draw_importance(target, f"importance-{index}"),
        left_out=_describe_left_out(target),
        insignificant=", ".join(map(clean, insignificant)),
        shares=[_make_share_row(share) for share in target.shares[:_SHARES]],
        sanity=[_make_sanity_row(check) for check in target.sanity],
        lists=[
            (title, [example_views.make_view(each, target.target) for each in examples])
            for title, examples in lists
            if examples
        ],
    )


def _describe_left_out(target: TargetExplanation) -> str:
    """Describe the columns that the figure of importance has no bar for; empty if it has one for each."""
    rest = target.compute_importance_shares()[_BARS:]
    if not rest:
        return ""
    return f"{len(rest):,} more columns have {100 * sum(rest):.1f} % of the importance; explanation.json lists all."


def _make_share_row(share: FeatureAttribution) -> Row:
    return Row((Cell(clean(share.feature)), make_number_cell(share.share, f"{100 * share.share:.1f} %")))


def _make_sanity_row(check: SanityCheck) -> Row:
    verdict = Cell("passed") if check.passed else Cell("failed", "failed")
    return Row(
        (
            Cell(check.method),
            Cell(check.paper),
            Cell(check.figure, "long"),
            make_number_cell(check.value),
            make_number_cell(check.limit),
            verdict,
        )
    )


def _make_layer_row(layer: LayerActivity) -> Row:
    dead = make_number_cell(layer.dead, f"{layer.dead} ({100 * layer.dead / layer.units:.0f} %)" if layer.dead else "0")
    numbers = (
        make_number_cell(layer.units),
        make_number_cell(layer.mean),
        make_number_cell(layer.standard_deviation),
        dead,
    )
    return Row((Cell(clean(layer.name)), Cell(layer.kind), *numbers))


def _draw_importance(target: TargetExplanation, figure_id: str) -> Markup:
    """Draw the increase in the loss as a bar for each column, grey where it is not significant."""
    importances, shares = target.importances[:_BARS], target.compute_importance_shares()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        for index, (each, share) in enumerate(zip(importances, shares, strict=False)):
            axes.barh(index, max(each.increase, 0.0), 0.7, color=BLUE if each.is_significant else GREY)
            axes.plot([each.low, each.high], [index, index], color="black", linewidth=1)
            axes.annotate(f"{100 * share:.1f} %", (1.01, index), xycoords=("axes fraction", "data"), va="center")
        axes.set_yticks(
            range(len(importances)), [figures.shorten(clean(each.column), _MAX_NAME_LENGTH) for each in importances]
        )
        axes.set_ylim(len(importances) - 0.4, -0.6)
        axes.axvline(0, color="black", linewidth=0.7)
        axes.set_xlabel(f"increase in {target.loss}")

    alt_text = f"permutation importance of each column for {clean(target.target)}"
    return figures.render_svg(figure_id, alt_text, (7.2, 0.8 + 0.24 * len(importances)), draw)


def _draw_similarity(layers: tuple[LayerActivity, ...], values: np.ndarray) -> Markup:
    side = max(2.0, 0.32 * len(layers))

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        colours = LinearSegmentedColormap.from_list("cka", [(0.18, 0.5, 0.77, 0.0), (0.18, 0.5, 0.77, 1.0)])
        axes.pcolormesh(values, cmap=colours, vmin=0, vmax=1, edgecolors=(0.5, 0.5, 0.5, 0.25), linewidth=0.5)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        names = [figures.shorten(clean(layer.name), _MAX_NAME_LENGTH) for layer in layers]
        middles = np.arange(len(layers)) + 0.5
        axes.set_xticks(middles, names, rotation=90)
        axes.set_yticks(middles, names)
        axes.tick_params(length=0)
        if len(layers) <= 12:
            for row, column in np.ndindex(values.shape):
                label = f"{values[row, column]:.2f}".replace("0.", ".", 1)
                axes.text(column + 0.5, row + 0.5, label, ha="center", va="center", fontsize=6.5)

    return figures.render_svg("similarity", "similarity of layers", (side + 2.0, side + 1.8), draw)


class _AnswerViews:
    """Views of single predictions, with the rows that they belong to."""

    def __init__(self, explanation: Explanation, prepared: PreparedData, raw: RawSplits) -> None:
        self._on, self._spec, self._raw = explanation.split, prepared.spec, raw
        self._inputs = prepared.split(explanation.split).inputs

    def make_view(self, answer: ExampleExplanation, target: str) -> AnswerView:
        is_correct = answer.truth == answer.prediction
        # A number has no class that contributions could be for.
        note = "" if answer.explained_output == target else f" (contributions to {answer.explained_output})"
        return AnswerView(
            title=clean(f"{answer.truth}, " + ("correct" if is_correct else f"predicted {answer.prediction}") + note),
            is_correct=is_correct,
            pictures=tuple(self._iterate_pictures(answer)),
            words=_make_terms(answer),
            heat_terms=self._make_heat_terms(answer),
            features=_format_strongest(answer.features) if len(answer.features) > 1 else "",
            cells="" if answer.image or answer.text else self._format_cells(answer),
        )

    def _iterate_pictures(self, answer: ExampleExplanation) -> Iterator[tuple[str, str]]:
        if not answer.image:
            return
        draw = input_kinds.get_traits(self._spec.input(answer.image)).draw
        picture = draw(np.asarray(self._inputs[answer.image][answer.row]))
        yield "input", pixels.encode_data_url(picture)
        if answer.pixels:
            yield "contributions", pixels.encode_data_url(pixels.colour_contributions(np.array(answer.pixels)))
        if len(answer.grad_cam) > 1:
            yield "Grad-CAM", pixels.encode_data_url(pixels.overlay_heatmap(picture, np.array(answer.grad_cam)))

    def _make_heat_terms(self, answer: ExampleExplanation) -> tuple[ColouredTerm, ...]:
        """Colour terms by the heat at their step; pooling can leave fewer steps than terms."""
        if not answer.words or len(answer.grad_cam) != 1:
            return ()
        column = self._spec.input(answer.text)
        if input_kinds.get_traits(column).form != "steps":
            return ()
        (heat,), steps = answer.grad_cam, column.shape[0]
        indices = [min(len(heat) - 1, i * len(heat) // steps) for i in range(len(answer.words))]
        pairs = zip(answer.words, indices, strict=True)
        return tuple(ColouredTerm(clean(text), max(0.0, heat[index]), False) for (text, _), index in pairs)[:_TERMS]

    def _format_cells(self, answer: ExampleExplanation) -> str:
        names = [name for name in answer.features if name in self._raw.columns][:12]
        cells = [self._raw.cells(name, self._on, np.array([answer.row]))[0] for name in names]
        return ", ".join(clean(f"{name} {cell or 'missing'}") for name, cell in zip(names, cells, strict=True))


def _make_terms(answer: ExampleExplanation) -> tuple[ColouredTerm, ...]:
    largest = max((abs(value) for _, value in answer.words), default=0.0) or 1.0
    return tuple(ColouredTerm(clean(text), abs(value) / largest, value > 0) for text, value in answer.words[:_TERMS])


def _format_strongest(features: Mapping[str, float]) -> str:
    ordered = sorted(features.items(), key=lambda item: -abs(item[1]))[:_FEATURES]
    return ", ".join(f"{clean(name)} {'+' if value > 0 else ''}{format_number(value)}" for name, value in ordered)
