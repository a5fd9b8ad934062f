"""Conversion of pictures that TensorFlow does not decode to PNG, by Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_FORMATS = ("BMP", "GIF", "TIFF", "WEBP")
_KEPT_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
_MAX_VALUE = 2**16 - 1
_SKETCH_SIZE = (16, 16)


def convert_to_png(data: bytes, max_pixels: int) -> bytes:
    """Convert the first frame of a picture to PNG, upright, without loss: 8 or 16 bits, transparency included.

    Args:
        data: The bytes of a file.
        max_pixels: Largest number of pixels; the size that counts is that of the header that Pillow reads.

    Raises:
        ValueError: The file is damaged, too large, or has pixels that PNG cannot hold; with a message for the user.
    """
    from PIL import Image, ImageOps

    # Sizes are checked here and by the caller. Pillow's own limit would warn of pictures that a recipe allows.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"expected at most {max_pixels / 1e6:g} megapixels, received {image.size}.")
            image.load()
            # GIF and BMP have no orientation.
            upright = ImageOps.exif_transpose(image) if image.format in ("TIFF", "WEBP") else image
            converted = _convert_mode(upright)
            output = BytesIO()
            converted.save(output, "PNG", compress_level=1)
    except ValueError:
        raise
    except Exception as error:  # Pillow raises errors of any type for damaged files.
        raise ValueError("the picture is damaged or cut off.") from error
    return output.getvalue()


def sketch(data: bytes) -> np.ndarray:
    """Draw a small version of a picture, `(256, 4)`: red, green, blue and opacity from 0 to 1.

    Args:
        data: The bytes of a file, whose size the caller has checked.

    Raises:
        ValueError: The file is damaged.
    """
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(BytesIO(data)) as image:
            image.draft("RGB", _SKETCH_SIZE)  # of JPEG: the decoder leaves out most of the pixels
            if image.mode.startswith(("I", "F")):
                grey = np.asarray(image, "float32")
                low, high = float(grey.min()), float(grey.max())
                levels = (grey - low) / (high - low or 1.0) * 255
                small = Image.fromarray(levels.astype("uint8")).convert("RGBA")
            else:
                small = image.convert("RGBA")
            # Pixels behind full transparency do not count.
            small = small.convert("RGBa").resize(_SKETCH_SIZE, Image.Resampling.BOX)
            drawn = np.asarray(small.convert("RGBA"), "float32")
    except Exception as error:  # Pillow raises errors of any type for damaged files.
        raise ValueError("the picture is damaged or cut off.") from error
    return drawn.reshape(-1, 4) / 255


def _convert_mode(image: Image) -> Image:
    """Convert to a mode that PNG has."""
    if image.mode in _KEPT_MODES:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        return _convert_integers(image)
    if image.mode == "F":
        raise ValueError(
            "pixels of floating point are not read from files. Save the pictures as an array in an NPZ file."
        )
    is_transparent = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
    return image.convert("RGBA" if is_transparent else "RGB")


def _convert_integers(image: Image) -> Image:
    """Convert grey pixels of 32 bits, or of 16 in another byte order, to 16 bits."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if values.min() < 0 or values.max() > _MAX_VALUE:
        raise ValueError(f"expected pixels from 0 to {_MAX_VALUE}, received {values.min()} to {values.max()}.")
    return Image.fromarray(values.astype("uint16"))
