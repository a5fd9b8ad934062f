"""Figures of reports: the common style, and figures as SVG elements of a page."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from bmcli.number_texts import write_number, write_ticks

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Each has a contrast of at least 3 to 1 to the background of both the light and the dark page.
BLUE, ORANGE, RED, GREY = "#2f7fc4", "#d9591c", "#d64545", "#868e96"
_LABEL_GAP = 3.0  # pixels between labels of an axis
RAMP = (GREY, BLUE, ORANGE)
"""Colours from the worst to the best."""

STYLE: dict[str, Any] = {
    # Black becomes the colour of the page's text; see `_adapt_to_page`.
    **{f"{part}.color": "black" for part in ("text", "xtick", "ytick")},
    **{"axes.edgecolor": "black", "axes.labelcolor": "black"},
    **{"figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"},
    **{"font.family": "DejaVu Sans", "font.size": 9.0, "axes.titlesize": 9.0, "axes.labelsize": 9.0},
    **{"xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.fontsize": 8.0, "legend.frameon": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "lines.linewidth": 1.5},
    # A fixed salt makes ids, and so the bytes of equal figures, the same; without math, `$` in names is a dollar sign.
    **{"svg.fonttype": "none", "svg.hashsalt": "bmcli", "text.parse_math": False, "axes.unicode_minus": True},
    **{"axes.formatter.useoffset": False, "axes.formatter.use_mathtext": False},
}


def render_svg(figure_id: str, alt_text: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Markup:
    """Render a figure as an SVG element of a page, with text as text; equal figures give equal bytes.

    Args:
        figure_id: Prefix of the ids of its elements, unique on the page.
        alt_text: Description for screen readers.
        size: Width and height in inches.
        draw: Draws into an empty figure.
    """
    import io

    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    svg_file = io.StringIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the fonts of the browser draw the text
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)  # no pyplot, which keeps figures in global state
        draw(figure)
        _write_ticks(figure)
        _separate_labels(figure)
        figure.savefig(svg_file, format="svg", metadata={"Date": None})
    return Markup(_adapt_to_page(svg_file.getvalue(), figure_id, alt_text))


def _write_ticks(figure: Figure) -> None:
    """Write the numbers of linear axes as everywhere else, instead of with a common factor such as 1e6."""
    from matplotlib.ticker import Formatter, ScalarFormatter

    class NumberFormatter(Formatter):
        def __call__(self, value: float, position: int | None = None) -> str:
            return write_number(value)

        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return write_ticks(values)

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if type(axis.get_major_formatter()) is ScalarFormatter:
                axis.set_major_formatter(NumberFormatter())


def _separate_labels(figure: Figure) -> None:
    """Thin out or turn the labels of horizontal axes that overlap."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    figure.draw_without_rendering()
    for axes in figure.axes:
        is_fixed = isinstance(axes.xaxis.get_major_locator(), FixedLocator)
        for ticks in (4, 3, 2) if not is_fixed else ():
            if not has_overlaps(axes):
                break
            axes.xaxis.set_major_locator(MaxNLocator(ticks))
            figure.draw_without_rendering()
        if is_fixed and has_overlaps(axes):
            axes.tick_params("x", labelrotation=90)
            figure.draw_without_rendering()


def list_labels(axis: Axis) -> list[Text]:
    """List the labels of an axis that are drawn; matplotlib also keeps those of ticks beyond its ends."""
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    return [
        label
        for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if low - margin <= tick <= high + margin and label.get_text()
    ]


def has_overlaps(axes: Axes) -> bool:
    """Whether labels of the horizontal axis of a drawn figure touch each other."""
    boxes = sorted((label.get_window_extent() for label in list_labels(axes.xaxis)), key=lambda box: box.x0)
    return any(left.x1 + _LABEL_GAP > right.x0 for left, right in itertools.pairwise(boxes))


def _adapt_to_page(svg_text: str, figure_id: str, alt_text: str) -> str:
    """Turn an SVG file into an element of a page: with unique ids, the page's text colour for black, and its fonts."""
    root = ElementTree.fromstring(svg_text)
    for parent in list(root.iter()):
        for child in list(parent):
            if _strip_namespace(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _strip_namespace(element.tag)
        element.attrib = {
            _strip_namespace(key): _adapt_attribute(_strip_namespace(key), value, figure_id)
            for key, value in element.attrib.items()
        }
    _, _, width, height = root.attrib["viewBox"].split()
    pixels = float(width) * 4 / 3
    root.attrib = {
        "class": "drawn",
        "role": "img",
        "aria-label": alt_text,
        "viewBox": root.attrib["viewBox"],
        "width": f"{pixels:.0f}",
        "height": f"{float(height) * 4 / 3:.0f}",
        # Text of a smaller figure is not legible, so a narrow page scrolls instead.
        "style": f"min-width: {0.7 * pixels:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _adapt_attribute(key: str, value: str, figure_id: str) -> str:
    if key == "id":
        return f"{figure_id}-{value}"
    if key == "href":
        return value.replace("#", f"#{figure_id}-", 1)
    if key == "clip-path":
        return value.replace("url(#", f"url(#{figure_id}-", 1)
    if key == "style":
        value = re.sub(r"\b(fill|stroke): #000000", r"\1: currentColor", value)
        return re.sub(r"font-family: [^;]*;? ?", "", value)
    return value


def _strip_namespace(name: str) -> str:
    """Strip the namespace of a name, which an element of an HTML page does not need."""
    return name.rpartition("}")[2]


def make_colour_map() -> Any:
    """Make a colour map from the worst (0) to the best (1)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("bmcli", RAMP)


def spans_magnitudes(values: Sequence[float]) -> bool:
    """Whether values span enough orders of magnitude for a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 20


def find_outlier_limit(values: Sequence[float], worst_is_high: bool) -> float | None:
    """Find the end of an axis that excludes a few very bad values; None if there are none."""
    if len(values) < 5:
        return None
    ordered = sorted(values, reverse=not worst_is_high)
    best, upper_quartile, worst = ordered[0], ordered[len(ordered) * 3 // 4], ordered[-1]
    limit = best + 4 * (upper_quartile - best)
    return limit if upper_quartile != best and abs(worst - best) > 2 * abs(limit - best) else None


def set_integer_ticks(axes: Axes) -> None:
    """Restrict the ticks of the horizontal axis to integers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def shorten(text: str, max_length: int) -> str:
    """Replace the middle of a long text by an ellipsis."""
    if len(text) <= max_length:
        return text
    head = (max_length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (max_length - 1 - head) :]}"


def draw_grid(axes: Axes) -> None:
    """Draw a faint grid behind the data."""
    axes.grid(True, color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
