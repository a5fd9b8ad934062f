"""Small pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_MAX_SIDE = 128  # pixels; larger pictures are reduced


def encode_data_url(pixels: np.ndarray) -> str:
    """Encode a picture as a PNG in a `data:` URL.

    Args:
        pixels: `(height, width)` or `(height, width, 1 or 3)`, from 0 to 1; other numbers of channels show their mean.
    """
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, _convert_to_rgb(_downsample(pixels)), format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _convert_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert a picture to `(height, width, 3)`."""
    import numpy as np

    pixels = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)


def _downsample(pixels: np.ndarray) -> np.ndarray:
    """Average blocks of pixels, if the picture is large."""
    block = -(-max(pixels.shape[:2]) // _MAX_SIDE)
    if block == 1:
        return pixels
    height, width = (side // block or 1 for side in pixels.shape[:2])
    block_height, block_width = (min(block, side) for side in pixels.shape[:2])
    cropped = pixels[: height * block_height, : width * block_width]
    means: np.ndarray = cropped.reshape(height, block_height, width, block_width, *pixels.shape[2:]).mean(axis=(1, 3))
    return means


_FOR, _AGAINST, _HEAT = (0.18, 0.5, 0.77), (0.85, 0.35, 0.11), (0.85, 0.35, 0.11)


def colour_contributions(contributions: np.ndarray) -> np.ndarray:
    """Draw contributions `(height, width)` in colours on white: blue for, orange against the prediction."""
    import numpy as np

    # Scaled by a quantile, since a few large contributions would leave the rest white.
    scale = float(np.quantile(np.abs(contributions), 0.99)) or float(np.abs(contributions).max()) or 1.0
    strength = np.clip(np.abs(contributions) / scale, 0, 1)[:, :, np.newaxis]
    colours = np.where((contributions > 0)[:, :, np.newaxis], _FOR, _AGAINST)
    blended: np.ndarray = 1 - strength * (1 - colours)
    return blended


def overlay_heatmap(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a picture with an orange heat map, from 0 to 1.

    Args:
        picture: `(height, width, channels)`.
        heat: From 0 to 1, in a lower resolution.
    """
    import numpy as np
    from scipy.ndimage import zoom

    enlarged = zoom(
        heat, [side / heat_side for side, heat_side in zip(picture.shape[:2], heat.shape, strict=True)], order=1
    )
    strength = np.clip(enlarged, 0, 1)[:, :, np.newaxis]
    blended: np.ndarray = 0.6 * _convert_to_rgb(picture) * (1 - strength) + strength * np.array(_HEAT)
    return blended
