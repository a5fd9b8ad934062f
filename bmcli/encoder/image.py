"""Encoder of pictures; files of them are decoded by Pillow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], "float32")
JPEG, EXIF, ORIENTATION = b"\xff\xd8\xff", b"Exif\0\0", 0x0112
EXIF_SEARCH_BYTES = 2**17
PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")


def encode(column: Mapping[str, Any], cells: Any) -> Any:
    """Encode cells of one column of pictures."""
    cells = [cells] if isinstance(cells, (bytes, str, os.PathLike)) else cells
    pictures = [_encode_picture(column, _read_picture(column, cell)) for cell in cells]
    return np.stack(pictures) if pictures else np.zeros((0, *column["shape"]))


def _read_picture(column: Mapping[str, Any], cell: Any) -> np.ndarray:
    """Read a cell as pixels; a missing one has none."""
    if cell is None or (isinstance(cell, (bytes, str)) and not cell):
        return np.zeros((0, 0, 1), "uint8")
    if isinstance(cell, (str, os.PathLike)):
        cell = Path(cell).read_bytes()
    if isinstance(cell, bytes):
        return decode_picture(cell, column["state"].get("bits", 8), column["state"].get("max_pixels", 0))
    return np.asarray(cell)


def decode_picture(data: bytes, bits: int = 8, max_pixels: int = 0) -> np.ndarray:
    """Decode a file to the pixels that the training saw, `(height, width, channels)`, upright and with transparency.

    Args:
        data: The bytes of a JPEG, PNG, BMP, GIF, WebP or TIFF file; of several frames the first counts.
        bits: 8 for uint8; 16 for uint16, to which files of 8 bits are scaled.
        max_pixels: Largest number of pixels; 0 for any.

    Raises:
        ValueError: The file is damaged or too large, or Pillow cannot decode all bits of its pixels.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError("Files of pictures are decoded by Pillow: pip install pillow") from None
    with Image.open(BytesIO(data), formats=PICTURE_FORMATS) as image:
        if max_pixels and image.width * image.height > max_pixels:
            raise ValueError(f"expected at most {max_pixels:,} pixels, received {image.width} x {image.height}")
        if bits == 16 and image.format == "PNG" and data[24] == 16 and data[25]:  # depth and type of the header
            raise ValueError("Pillow decodes colours of 16 bits to 8: give the pixels as an array of uint16 instead")
        image.load()
        # Only these formats were turned in training: a PNG is always taken as upright.
        upright = ImageOps.exif_transpose(image) if image.format in ("TIFF", "WEBP") else image
        pixels = _read_pixels(upright)
    pixels = _turn_upright(pixels, read_orientation(data)) if data.startswith(JPEG) else pixels
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if bits == 16:
        return pixels if pixels.dtype == np.uint16 else pixels.astype("uint16") * np.uint16(257)
    return (pixels >> 8).astype("uint8") if pixels.dtype == np.uint16 else pixels


def _read_pixels(image: Any) -> np.ndarray:
    """Read the pixels of an image of Pillow: uint8, or uint16 for grey of more than 8 bits."""
    if image.mode == "CMYK":
        inks = np.asarray(image).astype("int32")
        return np.asarray((255 - inks[..., :3]) * (255 - inks[..., 3:]) // 255).astype("uint8")
    if image.mode == "F":
        raise ValueError("pixels of floating point are not read from files")
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"expected pixels from 0 to 65535, received {levels.min()} to {levels.max()}")
        return levels.astype("uint16")
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image if image.mode in ("L", "LA", "RGB", "RGBA") else image.convert(
        "L" if image.mode == "1" else "RGB"
    ))  # fmt: skip


def read_orientation(data: bytes) -> int:
    """Read the Exif orientation of a JPEG picture: 1 is upright, 2 to 8 are mirrored or rotated, from 5 on by 90°."""
    data, place = data[:EXIF_SEARCH_BYTES], 2
    while (
        place + 4 <= len(data) and data[place] == 0xFF and (data[place + 1] == 0xFE or 0xE0 <= data[place + 1] < 0xF0)
    ):
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == EXIF:
            return _parse_orientation(data[place + 10 :])
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 1


def _parse_orientation(exif: bytes) -> int:
    """Parse the orientation from a directory of fields of 12 bytes: tag, type, count, value."""

    def read_number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size].ljust(size, b"\0"), order)

    order: Any = "little" if exif.startswith(b"II") else "big"
    first = read_number(4, 4) + 2
    for place in range(first, first + 12 * read_number(first - 2, 2), 12):
        if read_number(place, 2) == ORIENTATION:
            orientation = read_number(place + 8, 2)
            return orientation if 1 <= orientation <= 8 else 1
    return 1


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels `(height, width, ...)` upright: a transposition, then a flip of columns, then one of rows."""
    pixels = np.swapaxes(pixels, 0, 1) if orientation >= 5 else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def _encode_picture(column: Mapping[str, Any], picture: np.ndarray) -> np.ndarray:
    """Convert one picture to the size and the channels of the network."""
    state, channels = column["state"], column["shape"][2]
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.size == 0:
        return np.zeros(column["shape"], column["dtype"])  # a missing picture
    if column["raw_dtype"] != "string":
        return _resize(_convert_channels(picture, channels), column["shape"][:2], state.get("fit", "stretch"), False)
    if channels < 4:
        picture = _lay_on_background(picture, state["background"])
    picture = picture.astype(column["dtype"])
    resized = _resize(picture, column["shape"][:2], state["fit"], antialias=True)
    if channels < 4:
        return _convert_channels(resized, channels)
    alpha = resized[..., -1:] if resized.shape[2] in (2, 4) else np.full_like(resized[..., -1:], 2 ** state["bits"] - 1)
    colours = resized[..., :3] if resized.shape[2] > 2 else np.repeat(resized[..., :1], 3, axis=2)
    return np.concatenate([colours, alpha], axis=2)


def _lay_on_background(picture: np.ndarray, background: Sequence[int]) -> np.ndarray:
    """Lay a picture on a background of red, green and blue, where it has two or four channels."""
    if picture.shape[2] % 2:
        return picture
    largest = np.iinfo(picture.dtype).max
    colours = picture[..., :3] if picture.shape[2] == 4 else np.repeat(picture[..., :1], 3, axis=2)
    alpha = picture[..., -1:].astype("float32") / np.float32(largest)
    behind = np.array(background, "float32") * np.float32(largest // 255)
    laid = np.rint(colours.astype("float32") * alpha + behind * (1 - alpha))
    return np.clip(laid, 0, largest).astype(picture.dtype)


def _convert_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    if channels == 3 and picture.shape[2] == 1:
        return np.repeat(picture, 3, axis=2)
    if channels != 1 or picture.shape[2] != 3:
        return picture
    if picture.dtype != np.uint8:
        return (picture * GREY_WEIGHTS).sum(axis=2, keepdims=True)
    # As in tf.image.rgb_to_grayscale: uint8 is scaled by 1 / 255, and converted back by the maximum plus 0.5.
    grey = (picture.astype("float32") * np.float32(1 / 255) * GREY_WEIGHTS).sum(axis=2, keepdims=True)
    return np.clip(grey * np.float32(255.5), 0, 255).astype("uint8")


def _resize(picture: np.ndarray, size: Sequence[int], fit: str, antialias: bool) -> np.ndarray:
    """Resize a picture bilinearly."""
    if picture.shape[:2] == tuple(size):
        return picture
    if fit == "crop":
        picture = _crop_centre(picture, *size)
    whole = np.array(picture.shape[:2], "float64")
    ratio = max(whole / size)
    inner = [max(1, int(side)) for side in np.floor(whole / ratio)] if fit == "pad" else list(size)
    pixels = picture.astype("float32")
    if antialias:
        resized = np.swapaxes(_average_rows(np.swapaxes(_average_rows(pixels, inner[0]), 0, 1), inner[1]), 0, 1)
    else:
        down, across = (_compute_resize_weights(old, new) for old, new in zip(picture.shape[:2], inner, strict=True))
        resized = np.einsum("yh,hwc,xw->yxc", down, pixels, across, optimize=True)
    if fit == "pad":
        first = [max(0, int(edge)) for edge in np.floor((np.array(size) - whole / ratio) / 2)]
        framed = np.zeros((*size, picture.shape[2]), "float32")
        framed[first[0] : first[0] + inner[0], first[1] : first[1] + inner[1]] = resized
        resized = framed
    return np.clip(np.rint(resized), 0, 255).astype("uint8") if picture.dtype == np.uint8 else resized


def _average_rows(picture: np.ndarray, new: int) -> np.ndarray:
    """Resize the height of a picture by averages of neighbouring rows.

    All steps are in float32, and in the order of TensorFlow's ScaleAndTranslate, so that the result has the same bits.
    """
    size, one, half = len(picture), np.float32(1), np.float32(0.5)
    ratio = one / (np.float32(new) / np.float32(size))
    radius = max(ratio, one)
    centres = (np.arange(new, dtype="float32") + half) * ratio
    first = np.maximum(np.ceil(centres - radius - half), 0).astype(int)
    last = np.minimum(np.floor(centres + radius - half), size - 1).astype(int)
    places = first[:, None] + np.arange(int((last - first).max()) + 1)
    distances = np.abs((places.astype("float32") + half - centres[:, None]) * (one / radius))
    weights = np.where(places > last[:, None], np.float32(0), np.maximum(np.float32(0), one - distances))
    sums, averages = np.zeros(new, "float32"), np.zeros((new, *picture.shape[1:]), "float32")
    for step in range(weights.shape[1]):
        sums += weights[:, step]
    weights *= (one / sums)[:, None]
    for step, rows in enumerate(np.minimum(places, size - 1).T):
        averages += weights[:, step, None, None] * picture[rows]
    return averages


def _compute_resize_weights(size: int, new: int) -> np.ndarray:
    """Compute the weight of each old row in each new one by linear interpolation, `(new, size)`."""
    centres = (np.arange(new) + 0.5) * size / new
    distances = np.abs(np.arange(size) + 0.5 - np.clip(centres, 0.5, size - 0.5)[:, None])
    weights = np.maximum(0, 1 - distances)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def _crop_centre(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop the largest central window with the ratio of `height` to `width`."""
    whole = np.array(picture.shape[:2])
    window = np.rint(whole[::-1].astype("float32") * np.array([height / width, width / height], "float32")).astype(int)
    window = np.clip(window, 1, whole)
    first = (whole - window) // 2
    return picture[first[0] : first[0] + window[0], first[1] : first[1] + window[1]]
