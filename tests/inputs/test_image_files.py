"""Files of pictures as people have them: every kind is seen as people see it, in all three implementations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bmcli import encoder
from bmcli.errors import BmcliError
from bmcli.inputs import get_traits, image
from bmcli.pictures import read_header
from bmcli.raw_columns import ColumnCells, FileColumn, RowFault
from bmcli.specs import Column
from tests.pictures import encoded, pixels, save

RGB = pixels(6, 8)
GREY = pixels(6, 8, 1)[..., 0]
WHITE, BLACK = 255, 0


def files(*content: bytes) -> FileColumn:
    return FileColumn(np.arange(len(content)), lambda row: content[row])


def fit(*content: bytes, **options: Any) -> Column:
    return image.fit("x", files(*content), image.Options(**options))


def see(content: bytes, **options: Any) -> np.ndarray:
    """Fit on one file, and return its pixels as the network gets them, the same in all implementations."""
    column = fit(content, **options)
    return encode_alike(column, [content])[0]


def encode_alike(column: Column, content: Sequence[bytes]) -> np.ndarray:
    """Encode files by NumPy's path, the layer of served models and the encoder beside artefacts; all must agree."""
    rows = files(*content)
    array = image.encode(rows, column)
    traits = get_traits(column)
    served = traits.to_serving_array(rows)
    np.testing.assert_array_equal(image.build_encoder(column)(served).numpy(), array)
    described = {**vars(column), "shape": list(column.shape)}
    for cells in (served, content):  # converted to PNG where TensorFlow does not decode them, and as people have them
        np.testing.assert_allclose(encoder.encode(described, cells), array, atol=1 if column.dtype == "uint8" else 0.01)
    return array


def glyph(colour: int) -> Image.Image:
    """A square of one grey in the middle of a transparent picture."""
    picture = np.zeros((6, 8, 4), "uint8")
    picture[2:4, 3:6] = (colour, colour, colour, 255)
    return Image.fromarray(picture)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_of_12_bits_keeps_all_of_its_levels(kind: str) -> None:
    levels = np.arange(0, 4096, 85, dtype="uint16")[:48].reshape(6, 8)
    content = save(levels, kind)
    column = fit(content)
    np.testing.assert_array_equal(encode_alike(column, [content])[0, ..., 0], levels.astype("float32"))
    assert (column.dtype, column.state["offset"], column.state["scale"]) == ("float32", [0.0], [3995.0])
    feature = image.build_feature(column, image.encode(files(content), column)).tensor
    assert len(np.unique(feature)) == 48
    assert (float(np.min(feature)), float(np.max(feature))) == (0.0, 1.0)


def test_the_range_of_16_bits_is_that_of_all_training_pictures() -> None:
    dark, light = np.full((4, 4), 100, "uint16"), np.full((4, 4), 4000, "uint16")
    column = fit(save(dark, "PNG"), save(light, "PNG"))
    assert column.state["range"] == [100.0, 4000.0]


def test_pictures_of_8_bits_beside_those_of_16_have_the_same_black_and_white() -> None:
    deep = np.full((6, 8), 65535, "uint16")
    shallow = np.full((6, 8, 3), 255, "uint8")
    content = [save(deep, "PNG"), encoded(shallow), encoded(shallow, "jpg"), save(shallow, "BMP")]
    array = encode_alike(fit(*content), content)
    assert array.shape == (4, 6, 8, 3)
    assert set(array.ravel().tolist()) == {65535.0}


def test_a_picture_of_16_bits_among_those_of_8_is_scaled_like_them() -> None:
    column = fit(encoded(GREY[..., None]))
    array = encode_alike(column, [save((GREY * np.uint16(257)), "PNG")])
    np.testing.assert_array_equal(array[0, ..., 0], GREY)


@pytest.mark.parametrize(("colour", "behind"), [(20, WHITE), (250, BLACK)])
def test_a_shape_in_the_alpha_channel_is_seen(colour: int, behind: int) -> None:
    for kind in ("PNG", "WEBP", "TIFF"):
        array = see(save(glyph(colour), kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert set(array[2:4, 3:6].ravel().tolist()) == {colour}, kind
        assert array[0, 0].tolist() == [behind] * 3, kind


def test_a_background_shows_dark_and_light_shapes_alike() -> None:
    content = [save(glyph(colour), "PNG") for colour in (0, 255)]
    assert encode_alike(fit(*content), content)[:, 0, 0].tolist() == [[128] * 3] * 2


def test_half_transparent_pixels_are_mixed_with_the_background() -> None:
    picture = np.full((4, 4, 4), 100, "uint8")
    picture[..., 3] = 51
    assert see(save(picture, "PNG"), background="white")[0, 0].tolist() == [224] * 3
    assert see(save(picture, "PNG"), background="black")[0, 0].tolist() == [20] * 3
    assert see(save(picture, "PNG"), background="grey", channels=1)[0, 0, 0] in (122, 121)


def test_opaque_pictures_are_not_changed_by_a_background() -> None:
    opaque = np.concatenate([RGB, np.full((6, 8, 1), 255, "uint8")], axis=-1)
    np.testing.assert_array_equal(see(save(opaque, "PNG"), background="black"), RGB)


def test_alpha_is_kept_as_a_fourth_channel() -> None:
    for content, alpha in ((save(glyph(9), "PNG"), [0, 255]), (encoded(RGB), [255]), (encoded(GREY[..., None]), [255])):
        array = see(content, channels=4)
        assert array.shape == (6, 8, 4)
        assert sorted(set(array[..., 3].ravel().tolist())) == alpha
    drawn = get_traits(fit(save(glyph(9), "PNG"), channels=4)).draw(see(save(glyph(9), "PNG"), channels=4))
    assert drawn.shape == (6, 8, 3)
    assert drawn[0, 0].tolist() == [1.0] * 3


def _palette(transparent: bool, colours: int) -> Image.Image:
    places = np.arange(48, dtype="uint8").reshape(6, 8) % colours
    picture = Image.fromarray(places, "P")
    picture.putpalette([200, 0, 0, *[value for each in range(1, colours) for value in (0, 10 * each, 255)]])
    if transparent:
        picture.info["transparency"] = 0
    return picture


@pytest.mark.parametrize("colours", [2, 4, 16, 20])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_has_colours_and_transparency(colours: int, kind: str) -> None:
    plain, transparent = (see(save(_palette(each, colours), kind), background="white") for each in (False, True))
    assert plain[0, 0].tolist() == [200, 0, 0]
    assert transparent[0, 0].tolist() == [255] * 3
    assert plain[0, 1].tolist() == transparent[0, 1].tolist() == [0, 10, 255]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_colour_of_a_png_may_stand_for_transparency(mode: str) -> None:
    picture = np.full((4, 4, 3), 60, "uint8")
    picture[0, 0] = 7
    content = save(Image.fromarray(picture).convert(mode), "PNG", transparency=7 if mode == "L" else (7, 7, 7))
    array = see(content, background="white")
    assert set(array[0, 0].tolist()) == {255}
    assert set(array[0, 1].tolist()) == {60}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_every_depth_of_bmp_is_decoded(mode: str) -> None:
    picture = Image.fromarray(np.where(RGB > 60, 255, 0).astype("uint8") if mode == "1" else RGB)
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
    wanted = np.asarray(picture.convert("L" if mode in "1L" else "RGB")).reshape(6, 8, -1)
    np.testing.assert_array_equal(see(save(picture, "BMP")), wanted)


def make_bmp(bits: int, compression: int, body: bytes, palette: bytes = b"") -> bytes:
    """A BMP file of 4 x 2 pixels."""
    sizes = [40, 4, 2, 1 | bits << 16, compression, len(body), 0, 0, len(palette) // 4, 0]
    head = b"".join(each.to_bytes(4, "little") for each in sizes) + palette
    places = (14 + len(head) + len(body), 0, 14 + len(head))
    return b"BM" + b"".join(n.to_bytes(4, "little") for n in places) + head + body


COLOURS = bytes([0, 0, 200, 0, 0, 200, 0, 0, 200, 0, 0, 0])  # red, green and blue, in the order of BMP


@pytest.mark.parametrize(
    "content",
    [
        make_bmp(4, 0, bytes([0x01, 0x20, 0, 0, 0x12, 0x01, 0, 0]), COLOURS),
        make_bmp(8, 0, bytes([0, 1, 2, 0, 1, 2, 0, 1]), COLOURS),
        make_bmp(8, 1, bytes([1, 0, 1, 1, 1, 2, 1, 0, 0, 0, 1, 1, 1, 2, 1, 0, 1, 1, 0, 1]), COLOURS),
    ],
    ids=["4 bits", "8 bits", "run lengths"],
)
def test_a_bmp_with_a_palette_has_its_colours(content: bytes) -> None:
    red, green, blue = [200, 0, 0], [0, 200, 0], [0, 0, 200]
    assert see(content).tolist() == [[green, blue, red, green], [red, green, blue, red]]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "P"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_is_decoded(mode: str, compression: str | None) -> None:
    picture = Image.fromarray(RGB)
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
    wanted = np.asarray(picture.convert("L" if mode in "1L" else "RGB")).reshape(6, 8, -1)
    np.testing.assert_array_equal(see(save(picture, "TIFF", compression=compression)), wanted)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_the_first_of_several_pictures_counts_in_its_upright_orientation(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    first, second = Image.fromarray(np.rot90(RGB).copy()), Image.fromarray(np.zeros((8, 6, 3), "uint8"))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = save(first, kind, exif=exif, save_all=True, append_images=[second], **options)
    header = read_header(content)
    assert (header.height, header.width) == (6, 8)
    np.testing.assert_array_equal(see(content), RGB)


def test_a_gif_is_its_first_frame() -> None:
    first, second = _palette(False, 4), Image.fromarray(np.zeros((6, 8, 3), "uint8"))
    content = save(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(see(content), np.asarray(first.convert("RGB")))


def test_a_jpeg_for_printing_has_its_colours() -> None:
    colour = Image.new("RGB", (16, 16), (200, 40, 90))
    array = see(save(colour.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(array.astype(int) - [200, 40, 90]).max() <= 6


OTHERS = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC pictures are not read. Convert them to JPEG first"),
    "AVIF": (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF pictures are not read. Convert them to JPEG first"),
    "web page": (b"\n<!DOCTYPE html><html>", "the file is a web page, probably of a download that failed"),
    "SVG": (b'<?xml version="1.0"?><svg/>', "drawings in SVG have no pixels. Convert them to PNG first"),
    "empty": (b"", "the file is empty"),
    "WebP, cut off": (save(RGB, "WEBP")[:40], "WEBP: the picture is damaged or cut off"),
    "TIFF, cut off": (save(RGB, "TIFF")[:-40], "the picture is damaged or cut off"),
    "TIFF of floats": (save(GREY.astype("float32"), "TIFF"), "TIFF: pixels of floating point are not read"),
    "other RIFF": (b"RIFF\x10\0\0\0WAVEfmt ", "the header of the picture is damaged or cut off"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_read_says_what_it_is(name: str) -> None:
    content, message = OTHERS[name]
    rows = files(encoded(RGB), content)
    with pytest.raises(RowFault, match=message) as caught:
        image.encode(rows, fit(encoded(RGB)))
    assert caught.value.row == 1
    with pytest.raises(RowFault, match=message):
        image.check(rows, image.Options())


@pytest.mark.parametrize(
    "content",
    [
        save(RGB, "WEBP"),
        save(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
        save(RGB, "TIFF"),
        save(_palette(True, 4), "GIF"),
        save(_palette(False, 4), "BMP"),
    ],
    ids=["WebP", "animated WebP", "TIFF", "transparent GIF", "BMP with a palette"],
)
def test_a_served_model_refuses_a_file_that_it_would_see_differently(content: bytes) -> None:
    import tensorflow as tf

    layer = image.build_encoder(fit(encoded(RGB)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a JPEG, PNG, BMP or GIF file"):
        layer(np.array([content], object))


def test_the_description_of_a_model_names_the_formats_to_convert() -> None:
    column = fit(save(RGB, "TIFF"), encoded(RGB))
    assert "convert others to PNG first, such as tiff of training" in get_traits(column).describe_cells()


def test_a_large_picture_of_a_converted_format_is_refused_before_it_is_decoded() -> None:
    for kind in ("TIFF", "WEBP"):
        with pytest.raises(RowFault, match=r"at most 0.0001 megapixels, received 20 x 20 pixels"):
            fit(save(pixels(20, 20), kind), max_megapixels=0.0001)


def test_a_gif_with_a_huge_screen_is_refused() -> None:
    content = bytearray(save(_palette(True, 4), "GIF"))
    content[6:10] = (60_000).to_bytes(2, "little") * 2
    with pytest.raises(RowFault, match="megapixels"):
        image.encode(files(bytes(content)), fit(encoded(RGB), size=(4, 4)))


def test_arrays_keep_four_channels() -> None:
    rows = np.zeros((3, 4, 4, 4), "uint8")
    assert image.fit("x", rows, image.Options(channels=4)).shape == (4, 4, 4)
    with pytest.raises(BmcliError, match="3 channels cannot become 4"):
        image.fit("x", rows[..., :3], image.Options(channels=4))


def test_a_header_of_every_kind_survives_a_cut_anywhere() -> None:
    for kind in ("TIFF", "WEBP", "BMP", "GIF", "PNG"):
        content = save(RGB, kind)
        for end in range(len(content)):
            with suppress(ValueError):
                read_header(content[:end])


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_noise(20, 6, 6, 3), ""),
        (np.repeat(_noise(1, 6, 6, 3), 20, axis=0), "all of 20 pictures look the same."),
        (np.zeros((20, 6, 6, 1), "uint8"), "all of 20 pictures look the same."),
        (
            np.concatenate([_noise(15, 6, 6, 3), np.repeat(_noise(5, 1, 1, 3), 36, axis=1).reshape(5, 6, 6, 3)]),
            "5 of 20 pictures have a single colour each.",
        ),
    ],
    ids=["noise", "copies", "black", "plain"],
)
def test_pictures_without_a_difference_are_a_flaw(rows: np.ndarray, message: str) -> None:
    column = image.fit("x", rows, image.Options())
    assert get_traits(column).describe_flaw(image.encode(rows, column)) == message
    content = [save(each[..., 0] if each.shape[-1] == 1 else each, "PNG") for each in rows]
    guess = image.guess(ColumnCells("x", files(*content)))
    assert guess is not None
    assert guess.warning == message


def test_shapes_in_the_alpha_channel_are_no_flaw() -> None:
    content = [save(glyph(0), "PNG"), save(glyph(0).transpose(Image.Transpose.ROTATE_90).resize((8, 6)), "PNG")]
    guess = image.guess(ColumnCells("x", files(*content, b"damaged")))
    assert guess is not None
    assert guess.warning == ""
