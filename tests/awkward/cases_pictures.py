"""Folders of pictures: formats, transparency, depth, and files that are no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from tests.awkward.case import Case
from tests.pictures import save

Shape = tuple[np.ndarray, tuple[int, ...]]
"""Where the shape of a picture is, boolean `(height, width)`, and its colour."""

_PICTURES = 30
_SIDE = 12


def _shapes() -> list[tuple[str, Shape]]:
    """Names of files, each in the folder of its class, and their shapes: discs and bars of several colours."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    found = []
    for number in range(_PICTURES):
        centre = random.integers(4, 8, 2)
        is_disc = number % 2 == 0
        down, across = rows - centre[0], columns - centre[1]
        mask = down**2 + across**2 <= 9 if is_disc else (abs(down) <= 1) & (abs(across) <= 4)
        colour = tuple(int(value) for value in random.integers(0, 100, 3))
        # The names do not tell the format: the content does.
        found.append((f"pictures/{'disc' if is_disc else 'bar'}/{number:02}.png", (mask, colour)))
    return found


def _paint(shape: Shape, background: int = 255, lighter: int = 0) -> Image.Image:
    mask, colour = shape
    pixels = np.full((*mask.shape, 3), background, "uint8")
    pixels[mask] = np.array(colour) + lighter
    return Image.fromarray(pixels)


def _paint_grey(shape: Shape) -> Image.Image:
    return Image.fromarray(np.where(shape[0], shape[1][0], 255).astype("uint8"))


def _paint_transparent(shape: Shape, lighter: int = 0) -> Image.Image:
    mask, colour = shape
    pixels = np.zeros((*mask.shape, 4), "uint8")
    pixels[mask] = (*(np.array(colour) + lighter), 255)
    return Image.fromarray(pixels)


def _paint_palette(shape: Shape) -> Image.Image:
    """Paint with a palette of white, the colour and black."""
    picture = Image.fromarray(shape[0].astype("uint8"), "P")
    picture.putpalette([255, 255, 255, *shape[1], 0, 0, 0])
    return picture


def _paint_two_levels(shape: Shape) -> Image.Image:
    return Image.fromarray(np.where(shape[0], 0, 255).astype("uint8"))


def _lay_on_its_side(picture: Image.Image, kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(picture.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)


def _save_all(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Save a picture, and another one behind it."""
    return save(picture, kind, save_all=True, append_images=[picture.transpose(Image.Transpose.ROTATE_90)], **options)


def _png(picture: Image.Image) -> bytes:
    return save(picture, "PNG")


def _files(write: Callable[[Shape], bytes], others: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    return {name: write(shape) for name, shape in _shapes()} | dict(others or {})


def _case(name: str, write: Callable[[Shape], bytes], clean: Callable[[Shape], bytes] | None = None) -> Case:
    """Make the case of pictures that are written in another way than as PNG files of colours."""
    return Case(name, _files(write), _files(clean or (lambda shape: _png(_paint(shape)))), target="", data="pictures")


def _left_out_case(name: str, *others: str, content: bytes = b"\0") -> Case:
    """Make the case of files beside the pictures that are no data."""
    clean = _files(lambda shape: _png(_paint(shape)))
    return Case(name, {**clean, **dict.fromkeys(others, content)}, clean, target="", data="pictures")


_COPY = _png(_paint(_shapes()[0][1]))

CASES: list[Case] = [
    _left_out_case("pictures with the hidden files of a Mac", "pictures/bar/._01.png", "pictures/.DS_Store"),
    _left_out_case("pictures unpacked on a Mac", "pictures/__MACOSX/bar/._01.png", "pictures/__MACOSX/bar/01.png"),
    _left_out_case(
        "pictures with checkpoints of a notebook",
        "pictures/.ipynb_checkpoints/01-checkpoint.png",
        "pictures/bar/.ipynb_checkpoints/01-checkpoint.png",
        content=_COPY,
    ),
    _left_out_case("pictures with files of Windows", "pictures/bar/Thumbs.db", "pictures/disc/desktop.ini"),
    _left_out_case("pictures with a page about them", "pictures/README.md", "pictures/LICENSE"),
    _left_out_case(
        "pictures with texts among them", "pictures/bar/notes.txt", "pictures/disc/01.xml", content=b"words"
    ),
    _case("pictures whose shape is in the alpha channel", lambda shape: _png(_paint_transparent(shape))),
    _case(
        "light pictures whose shape is in the alpha channel",
        lambda shape: _png(_paint_transparent(shape, lighter=150)),
        lambda shape: _png(_paint(shape, background=0, lighter=150)),
    ),
    _case(
        "grey pictures with alpha",
        lambda shape: _png(_paint_transparent((shape[0], (shape[1][0],) * 3)).convert("LA")),
        lambda shape: _png(_paint_grey(shape)),
    ),
    _case("pictures with a palette", lambda shape: _png(_paint_palette(shape))),
    _case("pictures with a transparent palette", lambda shape: save(_paint_palette(shape), "PNG", transparency=0)),
    _case(
        "grey pictures with a transparent level",
        lambda shape: save(_paint_grey(shape), "PNG", transparency=255),
        lambda shape: _png(_paint_grey(shape)),
    ),
    _case(
        "pictures of 1 bit",
        lambda shape: _png(_paint_two_levels(shape).convert("1")),
        lambda shape: _png(_paint_two_levels(shape)),
    ),
    _case(
        "BMP of 1 bit",
        lambda shape: save(_paint_two_levels(shape).convert("1"), "BMP"),
        lambda shape: _png(_paint_two_levels(shape)),
    ),
    _case("BMP with a palette", lambda shape: save(_paint_palette(shape), "BMP")),
    _case("BMP of 32 bits", lambda shape: save(_paint(shape).convert("RGBA"), "BMP")),
    _case("TIFF", lambda shape: save(_paint(shape), "TIFF")),
    _case("compressed TIFF", lambda shape: save(_paint(shape), "TIFF", compression="tiff_lzw")),
    _case(
        "scanned TIFF",
        lambda shape: save(_paint_two_levels(shape).convert("1"), "TIFF", compression="group4"),
        lambda shape: _png(_paint_two_levels(shape)),
    ),
    _case("TIFF of several pages", lambda shape: _save_all(_paint(shape), "TIFF")),
    _case("TIFF that lies on its side", lambda shape: _lay_on_its_side(_paint(shape), "TIFF")),
    _case("WebP", lambda shape: save(_paint(shape), "WEBP", lossless=True)),
    _case("WebP with alpha", lambda shape: save(_paint_transparent(shape), "WEBP", lossless=True)),
    _case("animated WebP", lambda shape: _save_all(_paint(shape), "WEBP", lossless=True)),
    _case("WebP that lies on its side", lambda shape: _lay_on_its_side(_paint(shape), "WEBP", lossless=True)),
    _case("animated GIF", lambda shape: _save_all(_paint_palette(shape), "GIF")),
    _case("transparent GIF", lambda shape: save(_paint_palette(shape), "GIF", transparency=0)),
    _case(
        "grey pictures among coloured ones",
        lambda shape: _png(_paint_grey(shape) if shape[1][1] % 2 else _paint(shape)),
        lambda shape: _png(_paint_grey(shape).convert("RGB") if shape[1][1] % 2 else _paint(shape)),
    ),
]
