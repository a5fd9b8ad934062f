"""Write vectors.npz for vectors.yaml: 20,000 vectors of 100 numbers in 10 classes that no plane separates.

python make_vectors.py [FILE]
"""

import sys
from pathlib import Path

import numpy as np

ROWS, WIDTH, CLASSES, CENTRES = 20_000, 100, 10, 3


def main(path: Path) -> None:
    """Write classes that are mixtures of three clouds around random centres."""
    random = np.random.default_rng(0)
    centres = random.normal(scale=0.42, size=(CLASSES, CENTRES, WIDTH))
    y = random.integers(CLASSES, size=ROWS)
    x = centres[y, random.integers(CENTRES, size=ROWS)] + random.normal(size=(ROWS, WIDTH))
    np.savez_compressed(path, x=x.astype(np.float32), y=y)
    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("vectors.npz"))
