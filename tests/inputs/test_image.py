from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli.errors import BmcliError
from bmcli.inputs import image
from bmcli.pictures import read_header, read_orientation
from bmcli.raw_columns import FileColumn, RowFault, to_numbers, to_texts
from bmcli.specs import Column
from tests.pictures import LYING, encoded, pixels, with_orientation


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 200, shape, "uint8")


def fit(rows: Any, **options: Any) -> Column:
    return image.fit("x", rows, image.Options(**options))


def test_bytes_stay_bytes_and_get_a_channel() -> None:
    rows = pictures(5, 4, 3)
    column = fit(rows)
    array = image.encode(rows, column)
    assert (array.shape, array.dtype) == ((5, 4, 3, 1), np.uint8)
    np.testing.assert_array_equal(array[..., 0], rows)
    assert (column.shape, column.raw_shape, column.raw_dtype) == ((4, 3, 1), (4, 3), "uint8")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "bool"])
def test_other_numbers_become_float32(dtype: str) -> None:
    rows = pictures(5, 4, 3, 3).astype(dtype)
    column = fit(rows)
    assert column.dtype == "float32"
    np.testing.assert_array_equal(image.encode(rows, column), rows.astype("float32"))


def test_pictures_are_resized_and_grey_becomes_colour() -> None:
    rows = pictures(5, 8, 6)
    column = fit(rows, size=(4, 4), channels=3)
    array = image.encode(rows, column)
    assert (array.shape, array.dtype) == ((5, 4, 4, 3), np.uint8)
    assert (array[..., 0] == array[..., 2]).all()


def test_colour_becomes_grey() -> None:
    rows = np.zeros((2, 3, 3, 3), "uint8")
    rows[..., 1] = 100
    array = image.encode(rows, fit(rows, channels=1))
    assert array.shape == (2, 3, 3, 1)
    assert set(array.ravel().tolist()) == {58}  # The weight of green is 0.587.


def test_unit_scale_is_the_range_of_the_training_pixels() -> None:
    column = fit(np.array([[[4, 12]], [[8, 20]]], "uint8"))
    assert column.state == {"offset": [4.0], "scale": [16.0], "range": [4.0, 20.0], "fit": "stretch"}


def test_standard_scale_is_per_channel() -> None:
    rows = np.random.default_rng(0).normal([1, -9, 30], [1, 2, 3], (2000, 4, 4, 3))
    state = fit(rows, scale="standard").state
    np.testing.assert_allclose(state["offset"], rows.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(state["scale"], rows.std(axis=(0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("scale", ["unit", "standard", "none"])
def test_constant_pixels_are_not_divided_by_zero(scale: str) -> None:
    assert fit(np.full((3, 2, 2, 2), 0.1), scale=scale).state["scale"] == [1.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_a_fault(value: float) -> None:
    rows = np.zeros((2000, 2, 2))
    rows[1500, 1, 1] = value
    with pytest.raises(RowFault, match="expected finite pixels") as caught:
        fit(rows)
    assert caught.value.row == 1500


@pytest.mark.parametrize(
    ("rows", "received"),
    [
        (pa.chunked_array([["a.png"]]), "text"),
        (np.zeros(3), r"rows of shape \(\)"),
        (np.zeros((3, 4)), r"rows of shape \(4,\)"),
        (np.zeros((3, 0, 4)), r"rows of shape \(0, 4\)"),
    ],
)
def test_what_is_no_picture_is_a_fault(rows: Any, received: str) -> None:
    with pytest.raises(BmcliError, match=f"received {received}"):
        fit(rows)


def test_two_channels_cannot_become_three() -> None:
    with pytest.raises(BmcliError, match="2 channels cannot become 3"):
        fit(np.zeros((3, 4, 4, 2)), channels=3)


def test_pictures_of_another_size_are_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"expected rows of shape \(4, 3\), received \(5, 3\)"):
        image.encode(pictures(2, 5, 3), fit(pictures(2, 4, 3)))


def files(*content: bytes) -> FileColumn:
    return FileColumn(np.arange(len(content)), lambda row: content[row])


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "gif"])
def test_every_format_is_decoded(kind: str) -> None:
    picture = pixels(9, 14)
    rows = files(encoded(picture, kind))
    column = fit(rows)
    assert (column.shape, column.dtype, column.raw_shape, column.raw_dtype) == ((9, 14, 3), "uint8", (), "string")
    difference = np.abs(image.encode(rows, column)[0].astype("int32") - picture)
    assert difference.max() <= (10 if kind == "jpg" else 0)


def test_the_content_decides_the_format_and_not_the_name() -> None:
    rows = files(encoded(pixels(4, 4), "png"), encoded(pixels(4, 4), "jpg"))
    assert image.encode(rows, fit(rows)).shape == (2, 4, 4, 3)


def test_grey_files_have_one_channel_and_colour_among_them_makes_three() -> None:
    grey, colour = encoded(pixels(4, 4, 1), "png"), encoded(pixels(4, 4, 3), "png")
    assert fit(files(grey, grey)).shape == (4, 4, 1)
    rows = files(grey, colour)
    array = image.encode(rows, fit(rows))
    assert (array[0, ..., 0] == array[0, ..., 2]).all()
    np.testing.assert_array_equal(array[1], pixels(4, 4, 3))
    assert fit(files(grey), channels=3).shape == (4, 4, 3)


def test_encoded_pixels_go_from_0_to_255_and_nothing_is_decoded_to_know_it() -> None:
    column = fit(files(encoded(pixels(40, 40), "jpg")[:700]), size=(4, 4))
    assert (column.state["offset"], column.state["scale"]) == ([0.0] * 3, [255.0] * 3)


def test_moments_are_those_of_the_decoded_pictures() -> None:
    rows = files(*(encoded(pixels(6, 6, seed=seed)) for seed in range(4)))
    array = np.stack([pixels(6, 6, seed=seed) for seed in range(4)])
    state = fit(rows, scale="standard").state
    np.testing.assert_allclose(state["offset"], array.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(state["scale"], array.std(axis=(0, 1, 2)), rtol=1e-6)


def half_black(height: int, width: int) -> np.ndarray:
    """White, the left half black."""
    picture = np.full((height, width, 3), 255, "uint8")
    picture[:, : width // 2] = 0
    return picture


def test_pad_keeps_the_whole_picture_and_crop_its_middle() -> None:
    rows = files(encoded(half_black(10, 20)))
    padded, cropped, stretched = (
        image.encode(rows, fit(rows, size=(20, 20), fit=how))[0, ..., 0] for how in ("pad", "crop", "stretch")
    )
    assert not padded[:5].any()
    assert not padded[15:].any()
    assert (padded[7, 11:] == 255).all()
    for whole in (cropped, stretched):
        assert (whole[:, :8] == 0).all()
        assert (whole[:, 12:] == 255).all()
    asymmetric = half_black(10, 40)
    asymmetric[:, :12] = 255
    rows = files(encoded(asymmetric))
    assert image.encode(rows, fit(rows, size=(10, 10), fit="crop"))[0, 0, :3, 0].tolist() == [0, 0, 0]


def test_small_pictures_are_averages_of_large_ones() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    rows = files(encoded(np.repeat(checks[..., None], 3, axis=-1).astype("uint8")))
    array = image.encode(rows, fit(rows, size=(8, 8)))
    assert 120 < array.min() <= array.max() < 136


def test_pictures_of_several_sizes_need_a_size() -> None:
    rows = files(encoded(pixels(4, 6)), encoded(pixels(20, 5)))
    with pytest.raises(BmcliError, match="differ in size, from 4 x 6 to 20 x 5") as caught:
        fit(rows)
    assert "size: [64, 64]" in caught.value.faults[0].suggestion
    assert image.encode(rows, fit(rows, size=(8, 8))).shape == (2, 8, 8, 3)


def test_a_picture_of_another_size_than_the_training_pictures_is_a_fault() -> None:
    column = fit(files(encoded(pixels(4, 6))))
    with pytest.raises(RowFault, match="expected 4 x 6 pixels, as in the other pictures, received 6 x 4") as caught:
        image.encode(files(encoded(pixels(4, 6)), encoded(pixels(6, 4))), column)
    assert caught.value.row == 1


LARGE_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (10_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
CORRUPT = {
    "text": (
        b"no picture, just words",
        "expected a JPEG, .* or TIFF picture; the file begins with b'no picture",
    ),
    "empty": (b"", "the file is empty"),
    "100 megapixels": (LARGE_PNG, r"at most 50 megapixels, received 10000 x 10000 pixels, 100 megapixels"),
    "cut header": (LARGE_PNG[:18], "the header of the picture is damaged or cut off"),
    "no pixels": (b"GIF89a\0\0\0\0\0\0\0", "declares 0 x 0 pixels"),
    "header alone": (LARGE_PNG[:16] + bytes([0, 0, 0, 9]) * 2 + LARGE_PNG[24:], "the PNG picture is damaged"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_file_is_a_fault_of_its_row(name: str) -> None:
    content, message = CORRUPT[name]
    rows = files(encoded(pixels(4, 4)), content)
    column = fit(rows.take(np.array([0])), size=(4, 4))
    with pytest.raises(RowFault, match=message) as caught:
        image.encode(rows, column)
    assert caught.value.row == 1
    with pytest.raises(RowFault, match=message):
        image.check(rows, image.Options(size=(4, 4)))


@pytest.mark.parametrize("share", [0.4, 0.9, 0.98])
def test_a_truncated_jpeg_is_a_fault_without_a_line_of_the_jpeg_library(
    share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = encoded(pixels(64, 64), "jpg")
    column = fit(files(whole))
    capfd.readouterr()
    with pytest.raises(RowFault, match="the JPEG picture is damaged or cut off"):
        image.encode(files(whole[: int(share * len(whole))]), column)
    assert capfd.readouterr().err == ""


def test_a_jpeg_that_the_library_only_remarks_on_is_read_without_its_remark(capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded(pixels(64, 64), "jpg")
    # The library writes "Corrupt JPEG data: premature end of data segment", and goes on.
    remarked = files(whole[:-60] + bytes([0, 1, 2, 3]) * 4 + whole[-44:])
    column = fit(files(whole))
    capfd.readouterr()
    assert image.encode(remarked, column).shape == (1, 64, 64, 3)
    image.check(remarked, image.Options())
    assert capfd.readouterr().err == ""


def test_the_first_of_several_faults_is_raised() -> None:
    good = encoded(pixels(4, 4))
    column = fit(files(good))
    with pytest.raises(RowFault) as caught:
        image.encode(files(*[good] * 30, b"one", *[good] * 30, b"two"), column)
    assert caught.value.row == 30


def test_a_larger_limit_lets_larger_pictures_in() -> None:
    rows = files(encoded(pixels(20, 20)))
    with pytest.raises(RowFault, match=r"at most 0.0001 megapixels, received 20 x 20 pixels, 0.0004 megapixels"):
        fit(rows, max_megapixels=0.0001)
    assert fit(rows, max_megapixels=0.0004).shape == (20, 20, 3)


def test_a_missing_picture_is_black() -> None:
    rows = files(encoded(pixels(4, 4))).take(np.array([0, 0])).with_missing(np.array([False, True]))
    array = image.encode(rows, fit(rows))
    np.testing.assert_array_equal(array[0], pixels(4, 4))
    assert not array[1].any()
    with pytest.raises(BmcliError, match="the training rows have no picture"):
        fit(rows.with_missing(np.array([True, True])))


def test_files_cannot_be_read_as_numbers_or_words() -> None:
    rows = files(b"a", b"b")
    for read in (to_numbers, to_texts):
        with pytest.raises(RowFault, match="expected a value, received an encoded file"):
            read(rows)


def test_fit_needs_a_size() -> None:
    with pytest.raises(ValueError, match="`fit` has no effect without `size`"):
        image.Options(fit="crop")


JFIF = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"


@pytest.mark.parametrize("orientation", LYING)
@pytest.mark.parametrize(("order", "before"), [("little", b""), ("big", JFIF + b"\xff\xfe\0\x04hi")])
def test_a_photo_is_turned_upright(orientation: int, order: str, before: bytes) -> None:
    picture = pixels(18, 30)
    lying = encoded(np.ascontiguousarray(LYING[orientation](picture)), "jpg")
    noted = with_orientation(lying, orientation, order, before)
    upright = image.encode(files(noted), fit(files(noted)))[0]
    assert upright.shape == picture.shape
    assert np.abs(upright.astype("int32") - picture).max() <= 10
    plain = image.encode(files(lying), fit(files(lying)))[0]
    np.testing.assert_array_equal(LYING[orientation](upright), plain)


def test_a_photo_is_turned_before_it_is_resized() -> None:
    lying = encoded(np.ascontiguousarray(LYING[6](half_black(20, 40))), "jpg")
    rows = files(with_orientation(lying, 6))
    array = image.encode(rows, fit(rows, size=(10, 20)))[0]
    assert array[:, :9].max() < 30
    assert array[:, 11:].min() > 225


def photo() -> bytes:
    return encoded(np.ascontiguousarray(LYING[6](pixels(8, 16))), "jpg")


FIRST = b"\x08\0\0\0"  # where the directory of fields begins
HARMLESS: dict[str, tuple[bytes, bytes]] = {
    "no such way": (b"\x12\x01\x03\0\x01\0\0\0\x06", b"\x12\x01\x03\0\x01\0\0\0\x09"),
    "another field": (b"\x12\x01\x03", b"\x13\x01\x03"),
    "a directory beyond the file": (b"II*\0" + FIRST, b"II*\0\xf8\xff\xff\xff"),
    "fields beyond the file": (FIRST + b"\x02\0\x0f\x01", FIRST + b"\xff\xff\x12\x02"),
    "another sort of notes": (b"Exif", b"Exit"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_notes_without_a_meaning_leave_a_photo_as_it_is(name: str) -> None:
    noted = with_orientation(photo(), 9 if name.startswith("fields") else 6)
    assert HARMLESS[name][0] in noted
    rows = files(photo(), noted.replace(*HARMLESS[name]))
    array = image.encode(rows, fit(rows))
    np.testing.assert_array_equal(array[0], array[1])


def test_both_readers_of_notes_agree_on_damaged_ones() -> None:
    import tensorflow as tf

    from bmcli.layers.picture_decoder import _orientation

    read = tf.function(_orientation, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    draw = np.random.default_rng(0)
    for order in ("little", "big"):
        noted = with_orientation(photo(), 6, order, JFIF)
        start = noted.index(b"Exif")
        for _ in range(150):
            changed = bytearray(noted)
            usual = [0, 1, 2, 3, 6, 8, 0x12, 0xE1, 0xFF, draw.integers(256)]
            changed[draw.integers(2, start + 60)] = draw.choice(usual)
            cut = bytes(changed[: draw.integers(3, start + 90)])
            for data in (bytes(changed), cut):
                assert read(data).numpy() == read_orientation(data), data
    assert {int(read(data)) for data in (encoded(pixels(4, 4)), b"", b"\xff", b"\xff\xd8\xff\xe1")} == {1}


def test_a_gif_whose_frames_are_larger_than_its_screen_is_as_large_as_they_are() -> None:
    small = bytearray(encoded(pixels(2, 2), "gif"))
    place = 13 + 3 * 128  # after the header and the colours
    small[place + 5 : place + 9] = (60_000).to_bytes(2, "little") * 2
    with pytest.raises(RowFault, match="megapixels"):
        fit(files(bytes(small)), size=(2, 2))


def test_all_frames_of_a_gif_are_counted_together() -> None:
    one = encoded(np.zeros((1000, 1000, 3), "uint8"), "gif")
    start = 13 + 3 * 128
    many = one[:start] + one[start:-1] * 300 + one[-1:]
    assert read_header(many).frame_pixels == 300 * 10**6
    with pytest.raises(RowFault, match="expected frames of at most 200 megapixels together, received 300 megapixels"):
        fit(files(many), size=(2, 2))


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    one = encoded(pixels(8, 8), "jpg")
    with pytest.raises(RowFault, match="at most 100 scans, received 3001"):
        fit(files(one[:-2] + b"\xff\xda\x00\x02" * 3000 + one[-2:]), size=(2, 2))


def test_what_follows_a_jpeg_in_its_file_is_no_scan() -> None:
    assert read_header(encoded(pixels(8, 8), "jpg") + b"\xff\xda" * 3000).scans == 1


@pytest.mark.parametrize(
    ("screen", "frames"),
    [
        ((9, 9), [(3, 2)]),
        ((1, 1), [(3, 2)]),
        ((0, 0), [(3, 2)]),
        ((4, 4), [(3, 2), (2, 7)]),
        ((4, 4), [(3, 9), (8, 2)]),
    ],
)
def test_a_gif_is_announced_as_large_as_it_is_decoded(screen: tuple[int, int], frames: list[tuple[int, int]]) -> None:
    import tensorflow as tf

    start = 13 + 3 * 128
    parts = [encoded(pixels(height, width), "gif") for width, height in frames]
    head = bytearray(parts[0][:start])
    head[6:10] = b"".join(side.to_bytes(2, "little") for side in screen)
    data = bytes(head) + b"".join(part[start:-1] for part in parts) + b";"
    decoded = tf.io.decode_image(data, expand_animations=False)
    assert (read_header(data).height, read_header(data).width) == tuple(decoded.shape[:2])


def test_scans_of_a_large_jpeg_are_fewer() -> None:
    one = encoded(np.zeros((3000, 3000, 3), "uint8"), "jpg")
    data = one[:-2] + b"\xff\xda\x00\x02" * 25 + one[-2:]
    with pytest.raises(RowFault, match="at most 22 scans, received 26"):
        fit(files(data), size=(2, 2), max_megapixels=10.0)
