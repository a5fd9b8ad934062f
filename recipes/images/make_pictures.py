"""Write scikit-learn's digits as PNG files for pictures.yaml, a folder for each split and in it for each class.

python make_pictures.py [FOLDER]
"""

import sys
from pathlib import Path

from PIL import Image


def main(root: Path) -> None:
    """Write every fifth image for the test: FOLDER/train/7/0012.png, FOLDER/test/3/0015.png."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for row, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / ("test" if row % 5 == 0 else "train") / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(folder / f"{row:04}.png")
    print(f"wrote {len(digits.target)} images to {root}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("pictures"))
