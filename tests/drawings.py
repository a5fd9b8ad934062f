"""Drawings of five kinds of shapes, of any place, size, turn and colour: not to be learned from their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("circle", "cross", "square", "star", "triangle")


def _corners(kind: str, centre: np.ndarray, radius: float, turn: float) -> list[tuple[float, float]]:
    count, inner = {"circle": (40, 1.0), "square": (4, 1.0), "star": (10, 0.45), "triangle": (3, 1.0)}[kind]
    angles = turn + 2 * np.pi * np.arange(count + 1) / count
    radii = radius * np.where(np.arange(count + 1) % 2 == 1, inner, 1.0)
    return [(float(x), float(y)) for x, y in centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)]


def draw(kind: str, side: int, random: np.random.Generator) -> Image.Image:
    """Draw the outline of a shape on white."""
    scale = 2  # lines are smoothed by drawing them larger
    whole = side * scale
    picture = Image.new("RGB", (whole, whole), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    radius, turn = random.uniform(0.2, 0.4) * whole, random.uniform(0, 2 * np.pi)
    centre = random.uniform(radius, whole - radius, 2)
    colour = tuple(int(value) for value in random.integers(0, 120, 3))
    width = max(2, whole // 24)
    if kind == "cross":
        for angle in (turn, turn + np.pi / 2):
            reach = radius * np.array([np.cos(angle), np.sin(angle)])
            pen.line([tuple(centre - reach), tuple(centre + reach)], fill=colour, width=width)
    else:
        pen.line(_corners(kind, centre, radius, turn), fill=colour, width=width, joint="curve")
    return picture.resize((side, side), Image.Resampling.BOX)


def write_drawings(folder: Path, count: int, side: int, seed: int = 0) -> Path:
    """Write PNG files, a folder for each kind; `count` is that of all."""
    random = np.random.default_rng(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        file = folder / kind / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(kind, side, random).save(file)
    return folder
