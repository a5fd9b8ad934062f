"""Write images with several shapes in each, and a table of the shapes, for shapes.yaml.

python make_shapes.py [FOLDER]
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PICTURES, SIDE = 2_000, 32
SHAPES = ("circle", "square", "triangle", "cross")


def main(folder: Path) -> None:
    """Draw each shape with probability 0.4, at a random position and in a random grey; shapes may overlap."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "shapes.csv", "w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow(["file", "shapes"])
        for number in range(PICTURES):
            shapes = [shape for shape in SHAPES if random.random() < 0.4]
            Image.fromarray(picture(shapes, random)).save(folder / f"{number:04}.png")
            rows.writerow([f"{number:04}.png", ";".join(shapes)])
    print(f"wrote {PICTURES} images and {folder / 'shapes.csv'}")


def picture(shapes: list[str], random: np.random.Generator) -> np.ndarray:
    """Draw grey pixels `(SIDE, SIDE)` with outlines of the shapes, and noise."""
    canvas = Image.new("L", (SIDE, SIDE), 40)
    draw = ImageDraw.Draw(canvas)
    for shape in shapes:
        radius = int(random.integers(4, 8))
        x, y = (int(place) for place in random.integers(radius, SIDE - radius, size=2))
        grey, box = int(random.integers(120, 256)), (x - radius, y - radius, x + radius, y + radius)
        if shape == "circle":
            draw.ellipse(box, outline=grey)
        elif shape == "square":
            draw.rectangle(box, outline=grey)
        elif shape == "triangle":
            draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], outline=grey)
        else:
            draw.line([(x - radius, y), (x + radius, y)], fill=grey)
            draw.line([(x, y - radius), (x, y + radius)], fill=grey)
    noisy = np.asarray(canvas) + random.normal(scale=10, size=(SIDE, SIDE))
    return noisy.clip(0, 255).astype("uint8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("shapes"))
