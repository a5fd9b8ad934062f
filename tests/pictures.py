"""Encoded pictures for tests, made by TensorFlow and Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A picture of smooth colours, `(height, width, channels)`, that JPEG hardly changes."""
    draw = np.random.default_rng(seed)
    down, right = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    start, by_row, by_column = draw.uniform(0, 85, (3, channels))
    return np.round(start + by_row * down + by_column * right).astype("uint8")


def encoded(picture: np.ndarray, kind: str = "png") -> bytes:
    """The bytes of a PNG, JPEG, BMP or GIF file of a picture."""
    import tensorflow as tf

    if kind == "png":
        return tf.io.encode_png(picture).numpy()
    if kind in ("jpg", "jpeg"):
        return tf.io.encode_jpeg(picture, quality=95).numpy()
    return (bmp if kind == "bmp" else gif)(picture)


def save(picture: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a file that Pillow writes."""
    stream = io.BytesIO()
    whole = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    whole.save(stream, kind, **options)
    return stream.getvalue()


def bmp(picture: np.ndarray) -> bytes:
    """An uncompressed bitmap of 24 bits a pixel, its rows from the bottom."""
    height, width, _ = picture.shape
    rows = [row[:, ::-1].tobytes() + bytes(-3 * width % 4) for row in picture[::-1]]
    body = b"".join(rows)
    sizes = [40, width, height, 1 | 24 << 16, 0, len(body), 0, 0, 0, 0]
    head = b"".join(each.to_bytes(4, "little") for each in sizes)
    return b"BM" + b"".join(n.to_bytes(4, "little") for n in (54 + len(body), 0, 54)) + head + body


def gif(picture: np.ndarray) -> bytes:
    """A picture of 128 colours at most, its codes left uncompressed."""
    height, width, _ = picture.shape
    colours, places = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    assert len(colours) <= 128
    table = colours.astype("uint8").tobytes().ljust(3 * 128, b"\0")
    bits = "".join(f"{code:08b}"[::-1] for code in _codes(places.ravel()))
    packed = bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(part)]) + part for part in (packed[i : i + 255] for i in range(0, len(packed), 255)))
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + sides + b"\xf6\0\0" + table + b"," + bytes(4) + sides + b"\0\x07" + blocks + b"\0;"


def _codes(places: np.ndarray) -> list[int]:
    """Codes of 8 bits each, cleared before the table grows to 9."""
    codes = []
    for start in range(0, len(places), 100):
        codes += [128, *places[start : start + 100].tolist()]
    return [*codes, 129]


def write(path: Path, picture: np.ndarray, kind: str | None = None) -> Path:
    """Write a picture in the format of its ending, or in another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture, kind or path.suffix[1:]))
    return path


# For each orientation, how the pixels are stored in the file so that the upright picture is `picture`.
LYING = {
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: np.rot90(picture, 1),
    7: lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
    8: lambda picture: np.rot90(picture, -1),
}


def with_orientation(
    jpeg: bytes, orientation: int, order: Literal["little", "big"] = "little", before: bytes = b""
) -> bytes:
    """A JPEG file with a segment in which a camera notes how it lies, after other segments."""

    def numbers(*sizes: tuple[int, int]) -> bytes:
        return b"".join(value.to_bytes(size, order) for value, size in sizes)

    maker = numbers((0x010F, 2), (2, 2), (4, 4)) + b"Test"
    way = numbers((0x0112, 2), (3, 2), (1, 4), (orientation, 2)) + bytes(2)
    directory = numbers((2, 2)) + maker + way + bytes(4)
    notes = b"Exif\0\0" + (b"II" if order == "little" else b"MM") + numbers((42, 2), (8, 4)) + directory
    return jpeg[:2] + before + b"\xff\xe1" + (len(notes) + 2).to_bytes(2, "big") + notes + jpeg[2:]
