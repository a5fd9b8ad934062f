"""Small pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_MAX_SIDE = 128  # pixels a side: larger ones are shown smaller than they are


def encode_data_url(pixels: np.ndarray) -> str:
    """A picture as a `data:` address, PNG.

    Args:
        pixels: `(height, width)` or `(height, width, 1 or 3)`, from 0 to 1; other numbers of channels show their mean.
    """
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, _convert_to_rgb(_downsample(pixels)), format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def scale_pixels(pixels: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Encoded pixels from 0 to 1, float32.

    Args:
        span: The lowest and the highest of the training pixels.
    """
    import numpy as np

    low, high = span
    return np.clip((pixels.astype("float32") - low) / ((high - low) or 1.0), 0.0, 1.0)


def _convert_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """`(height, width, 3)`."""
    import numpy as np

    pixels = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)


def _downsample(pixels: np.ndarray) -> np.ndarray:
    """Means of blocks, if a picture is larger than a page shows it."""
    block = -(-max(pixels.shape[:2]) // _MAX_SIDE)
    if block == 1:
        return pixels
    height, width = (side // block or 1 for side in pixels.shape[:2])
    tall, wide = (min(block, side) for side in pixels.shape[:2])
    cut = pixels[: height * tall, : width * wide]
    smaller: np.ndarray = cut.reshape(height, tall, width, wide, *pixels.shape[2:]).mean(axis=(1, 3))
    return smaller


_FOR, _AGAINST, _HEAT = (0.18, 0.5, 0.77), (0.85, 0.35, 0.11), (0.85, 0.35, 0.11)


def colour_contributions(contributions: np.ndarray) -> np.ndarray:
    """Contributions `(height, width)` as colours on white: blue speaks for, orange against."""
    import numpy as np

    # The largest few would leave the rest white.
    size = float(np.quantile(np.abs(contributions), 0.99)) or float(np.abs(contributions).max()) or 1.0
    strength = np.clip(np.abs(contributions) / size, 0, 1)[:, :, np.newaxis]
    colours = np.where((contributions > 0)[:, :, np.newaxis], _FOR, _AGAINST)
    mixed: np.ndarray = 1 - strength * (1 - colours)
    return mixed


def overlay_heatmap(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture from 0 to 1, orange where it is hot.

    Args:
        picture: `(height, width, channels)`.
        heat: From 0 to 1, of fewer pixels.
    """
    import numpy as np
    from scipy.ndimage import zoom

    grown = zoom(heat, [side / own for side, own in zip(picture.shape[:2], heat.shape, strict=True)], order=1)
    strength = np.clip(grown, 0, 1)[:, :, np.newaxis]
    mixed: np.ndarray = 0.6 * _convert_to_rgb(picture) * (1 - strength) + strength * np.array(_HEAT)
    return mixed
