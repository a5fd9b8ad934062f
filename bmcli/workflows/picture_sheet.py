"""Draw a sheet of training pictures as the network sees them, for `bmcli plan --pictures`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, training
from bmcli import inputs as input_kinds
from bmcli.errors import BmcliError
from bmcli.objectives import open_answers
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, PreparedData

if TYPE_CHECKING:
    import numpy as np

COLUMNS, ROWS = 6, 4


def check_file(file: Path) -> None:
    """Refuse a file that exists or does not end in .png, before anything is measured."""
    if file.suffix.lower() != ".png":
        raise BmcliError(f"expected a file ending in .png, received {file.name}.")
    if file.exists():
        raise BmcliError(f"{file} exists already.", suggestion="Name another file.")
    if not file.absolute().parent.is_dir():
        raise BmcliError(f"{file.parent}: no such folder.")


def draw_sheet(recipe: Recipe, prepared: PreparedData, file: Path, cache: Path) -> None:
    """Draw the first training pictures in the order of the first epoch, augmented as in training.

    Raises:
        BmcliError: No input is a picture.
    """
    drawn = (column for column in prepared.spec.inputs if input_kinds.get_traits(column).display == "picture")
    column = next(drawn, None)
    if column is None:
        raise BmcliError(
            "no input is a picture, so there is nothing to draw.",
            path="data.inputs",
            suggestion="Leave out --pictures.",
        )
    pictures, titles = _augment_pictures(recipe, prepared, column, cache)
    with disk.create_new_file(file) as temporary:
        _make_figure(pictures, titles).savefig(temporary, dpi=120)


def _make_figure(pictures: np.ndarray, titles: list[str]) -> Any:
    """Draw pictures side by side, each below its target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // COLUMNS)
    # A figure of its own class instead of `pyplot`, which keeps every figure and may look for a display.
    figure = Figure(figsize=(1.6 * COLUMNS, 1.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(pictures):
            axes.imshow(pictures[number], cmap="gray", vmin=0, vmax=1)
            axes.set_title(titles[number], fontsize=7, parse_math=False)
    return figure


def _augment_pictures(
    recipe: Recipe, prepared: PreparedData, column: Column, cache: Path
) -> tuple[np.ndarray, list[str]]:
    """Return pictures `(n, height, width, channels)` between 0 and 1, and a title for each."""
    import numpy as np

    training.place_on_devices(recipe.on_one_device(), cache)
    from bmcli.training import augmentation, sampler  # after the start, which keeps TensorFlow quiet

    split = prepared.split("train")
    rows = np.asarray(sampler.Sampler(recipe, prepared).epoch_order(0)[: COLUMNS * ROWS])
    draw = input_kinds.get_traits(column).draw
    pixels = np.stack([draw(each) for each in augmentation.augment_pictures(recipe, prepared, rows)[column.name]])
    answers = next(iter(open_answers(prepared.spec).values()))
    values = answers.read_truth(split, rows)
    return pixels, [_shorten(answers.format_value(value)) for value in values]


def _shorten(text: str) -> str:
    """Shorten a title."""
    return text if len(text) <= 20 else text[:17] + "..."
