"""Write waves.npz for waves.yaml: 4,000 noisy waves of 96 steps in 4 shapes, of any frequency and phase.

python make_waves.py [FILE]
"""

import sys
from pathlib import Path

import numpy as np

ROWS, STEPS = 4_000, 96
SHAPES = ("sine", "square", "triangle", "saw-tooth")
NOISE = 0.4


def main(path: Path) -> None:
    """Write waves with 2 to 6 periods and a random phase each; all have the same power."""
    random = np.random.default_rng(0)
    labels = random.integers(len(SHAPES), size=ROWS)
    periods, start = random.uniform(2, 6, size=(ROWS, 1)), random.uniform(size=(ROWS, 1))
    phase = (periods * np.arange(STEPS) / STEPS + start) % 1
    waves = np.stack([np.sin(2 * np.pi * phase), np.sign(phase - 0.5), 4 * abs(phase - 0.5) - 1, 2 * phase - 1])
    chosen = waves[labels, np.arange(ROWS)]
    x = chosen / chosen.std(axis=1, keepdims=True) + random.normal(scale=NOISE, size=(ROWS, STEPS))
    np.savez_compressed(path, x=x[..., None].astype(np.float32), y=np.array(SHAPES)[labels])
    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("waves.npz"))
