"""Image input: arrays `(rows, height, width)` or `(rows, height, width, channels)`, or encoded files.

Files that TensorFlow does not decode as people see them are converted to PNG before: see `ImageHeader.is_native`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from statistics import median_low
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bmcli import limits, pictures
from bmcli.column_records import ColumnRecord, Count, Numbers, Shape, StrictRecord
from bmcli.errors import BmcliError
from bmcli.inputs import ENCODERS, EdgeCell, Feature, Guess, InputTraits, Preprocessing, check_shape, make_object_array
from bmcli.native_output import drop_native_stderr
from bmcli.quoting import quoted
from bmcli.raw_columns import (
    ColumnCells,
    FileColumn,
    RawColumn,
    RowFault,
    is_file_column,
    is_text_column,
    sample_image_headers,
)
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

_Side = Annotated[int, Field(ge=1, le=8192)]
_BATCH_ROWS = 1024
_MAX_HEADERS = 2048  # encoded pictures whose headers determine size, channels and bits
_MAX_SIDE = 96  # height and width in pixels at which a small network trains in reasonable time on a CPU
_MAX_DECODED = 2048  # encoded pictures from which statistics are computed: all would be decoded twice
_MAX_TRANSPARENT = 64  # transparent pictures by which the background is chosen
_BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}
_MIN_CONTRAST = 32.0  # of a background, at which it is not exchanged for one with more
_ALIKE = 0.02  # difference of all pixels, as a share of their range, below which pictures look the same
_MAX_PLAIN = 0.1  # share of pictures of a single colour that is not reported
_MAX_SKETCHES = 48  # pictures that `bmcli init` looks at
_MAX_SKETCHED_PIXELS = 50_000_000
_EXAMPLE_SIDE = 8  # of the picture in the example of a card
_RARE = 0.05  # share of the pictures that may have less contrast
_LUMINANCE = (0.299, 0.587, 0.114)


class Options(InputOptions):
    """One image per row: an array, or an encoded file (JPEG, PNG, BMP, WebP, TIFF, first frame of a GIF)."""

    AUGMENTED_AS: ClassVar[Literal["image", "number"] | None] = "image"

    kind: Literal["image"] = "image"
    size: tuple[_Side, _Side] | None = Field(
        default=None, description="Height and width of the network's input; by default those of the data."
    )
    fit: Literal["stretch", "pad", "crop"] = Field(
        default="stretch",
        description="How an image of another aspect ratio is resized: stretched, padded with black (pad), or "
        "cropped at the centre (crop).",
    )
    channels: Literal[1, 3, 4] | None = Field(
        default=None,
        description="1 for greyscale, 3 for colour, 4 for colour and opacity; by default 1 or 3, as the data has.",
    )
    background: Literal["auto", "white", "black", "grey"] = Field(
        default="auto",
        description="Colour behind transparent pixels of files. `auto` is white, unless that hides the shapes of some "
        "training pictures: then the one of the others that shows all of them best.",
    )
    scale: Literal["unit", "standard", "none"] = Field(
        default="unit",
        description="`unit`: pixels from 0 to 1, by the range of the training pixels, or 0 to 255 for encoded "
        "files of 8 bits; `standard`: mean 0 and standard deviation 1 per channel.",
    )
    max_megapixels: Annotated[float, Field(gt=0)] = Field(
        default=50.0, description="Largest size of an encoded image; larger ones are rejected before decoding."
    )

    @model_validator(mode="after")
    def _check_fit(self) -> Options:
        if self.fit != "stretch" and self.size is None:
            raise fault("fit", "`fit` has no effect without `size`.", "Write {kind: image, size: [64, 64], ...}.")
        return self


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise encoded files, arrays of bytes, and arrays with 1 or 3 channels."""
    if is_file_column(cells.rows):
        return _guess_size(cells.rows)
    byte_picture = cells.dtype == "uint8" and len(cells.shape) in (2, 3)
    with_channels = len(cells.shape) == 3 and cells.shape[-1] in (1, 3)
    if not byte_picture and not with_channels:
        return None
    return Guess("image", 0.9, f"pictures of {'x'.join(map(str, cells.shape))}", form="map")


def _guess_size(rows: FileColumn) -> Guess:
    """Propose a size at which encoded pictures train in reasonable time, if theirs differ or are larger."""
    sizes = [(header.height, header.width) for header in sample_image_headers(rows)]
    height, width = (median_low(sides) for sides in zip(*sizes, strict=True)) if sizes else (_MAX_SIDE, _MAX_SIDE)
    warning = _describe_sketches(rows)
    sizes_differ = len(set(sizes)) > 1
    if not sizes_differ and max(height, width) <= _MAX_SIDE:
        return Guess("image", 0.9, f"pictures of {height}x{width} pixels", form="map", warning=warning)
    side = min(_MAX_SIDE, max(height, width))
    size = "several sizes" if sizes_differ else f"{height}x{width} pixels"
    why = f"pictures of {size}, resized to {side}x{side}"
    return Guess("image", 0.9, why, {"size": [side, side]}, form="map", warning=warning)


def _describe_sketches(rows: FileColumn) -> str:
    """Describe pictures that look the same, by small drawings of a sample; those that are damaged do not count.

    They are made without TensorFlow, whose start would take longer than all of `bmcli init`.
    """
    import numpy as np

    from bmcli.pictures.conversion import sketch

    sketches = []
    for row in _pick_evenly(len(rows), _MAX_SKETCHES) if len(rows) else ():
        try:
            header = pictures.read_header(data := rows.read(row))
            if header.height * header.width <= _MAX_SKETCHED_PIXELS:
                sketches.append(sketch(data))
        except (RowFault, ValueError):
            continue  # preparation reports it
    return describe_uniform(np.stack(sketches)) if sketches else ""


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the size, and the range or mean and deviation of the training pixels after resizing."""
    if is_file_column(rows):
        return _fit_encoded(name, rows, options)
    if is_text_column(rows) or rows.ndim not in (3, 4) or 0 in rows.shape[1:]:
        received = "text" if is_text_column(rows) else f"rows of shape {tuple(rows.shape[1:])}"
        raise BmcliError(
            f"column {quoted(name)}: expected (height, width) or (height, width, channels), received {received}.",
            path=f"data.inputs.{name}",
            suggestion="Read image files that a table lists by `source: {kind: image_folder, table: ...}`."
            if is_text_column(rows)
            else "",
        )
    height, width, channels = rows.shape[1:] if rows.ndim == 4 else (*rows.shape[1:], 1)
    if options.channels not in (None, channels) and (channels not in (1, 3) or options.channels == 4):
        raise BmcliError(
            f"column {quoted(name)}: {channels} channels cannot become {options.channels}.",
            path=f"data.inputs.{name}",
        )
    dtype = "uint8" if rows.dtype.name == "uint8" else "float32"
    column = Column(
        name=name,
        kind="image",
        shape=(*(options.size or (height, width)), options.channels or channels),
        dtype=dtype,
        raw_shape=tuple(rows.shape[1:]),
        raw_dtype=dtype,
        state={"fit": options.fit},
    )
    return _add_statistics(column, encode(rows, column), options.scale)


def _fit_encoded(name: str, rows: FileColumn, options: Options) -> Column:
    """Fit size, channels, bits and background on a sample of pictures, and their statistics where these are needed."""
    column = Column(
        name=name,
        kind="image",
        shape=(*(options.size or (0, 0)), options.channels or 0),
        dtype="uint8",
        raw_dtype="string",
        state={
            "fit": options.fit,
            "max_pixels": _get_max_pixels(options),
            "sized": options.size is not None,
            "background": list(_BACKGROUNDS["white"]),
            "bits": 8,
        },
    )
    present = (~rows.missing()).nonzero()[0]
    needs_pictures = options.size is None or options.channels is None
    if needs_pictures and not len(present):
        raise BmcliError(f"column {quoted(name)}: the training rows have no picture.", path=f"data.inputs.{name}")
    sample = present[_pick_evenly(len(present), _MAX_HEADERS)]
    headers = [_read_checked_header(rows, row, column)[1] for row in sample]
    if needs_pictures:
        size = options.size or _require_common_size(name, headers)
        # One colour picture makes all colour.
        channels = options.channels or max(header.channels for header in headers)
        column = replace(column, shape=(*size, channels))
    bits = max((header.bits for header in headers), default=8)
    transparent = [row for row, header in zip(sample, headers, strict=True) if header.has_alpha]
    background = _BACKGROUNDS.get(options.background) or _choose_background(rows, transparent, column)
    converted = sorted({header.format for header in headers if not header.is_native})
    state = {**column.state, "bits": bits, "background": list(background), "converted": converted}
    column = replace(column, dtype="uint8" if bits == 8 else "float32", state=state)
    if options.scale == "standard" or bits == 16:
        return _add_statistics(column, encode(rows.take(_pick_evenly(len(rows), _MAX_DECODED)), column), options.scale)
    count, span = column.shape[2], (0.0, 255.0)
    scale = [span[1] if options.scale == "unit" else 1.0] * count
    return replace(column, state={**column.state, "offset": [0.0] * count, "scale": scale, "range": list(span)})


def _choose_background(rows: FileColumn, transparent: Sequence[int], column: Column) -> tuple[int, int, int]:
    """Choose the background of transparent pictures: white, unless some of their shapes would be hidden on it.

    Args:
        transparent: Rows whose pictures may have transparent pixels.
    """
    import numpy as np

    shown = []
    for row in transparent[:: -(-len(transparent) // _MAX_TRANSPARENT)] if transparent else ():
        with drop_native_stderr():
            picture = _decode_whole(*_read_native(rows, row, column), row)
        opacity = picture[..., -1] / 255
        if opacity.min() < 1 and opacity.max() > 0:
            colours = picture[..., :3] if picture.shape[2] == 4 else picture[..., [0, 0, 0]]
            shown.append(np.average(colours @ np.array(_LUMINANCE), weights=opacity))
    if not shown:
        return _BACKGROUNDS["white"]
    contrasts = {each: float(np.quantile(np.abs(np.array(shown) - each[0]), _RARE)) for each in _BACKGROUNDS.values()}
    white = _BACKGROUNDS["white"]
    return white if contrasts[white] >= _MIN_CONTRAST else max(contrasts, key=lambda each: contrasts[each])


def _require_common_size(name: str, headers: list[pictures.ImageHeader]) -> tuple[int, int]:
    sizes = sorted({(header.height, header.width) for header in headers})
    if len(sizes) > 1:
        (low, narrow), (high, wide) = sizes[0], sizes[-1]
        raise BmcliError(
            f"column {quoted(name)}: the pictures differ in size, from {low} x {narrow} to {high} x {wide}.",
            path=f"data.inputs.{name}",
            suggestion=f"Set the size of the network's input: inputs: {{{name}: {{kind: image, size: [64, 64]}}}}.",
        )
    return sizes[0]


def _pick_evenly(count: int, limit: int) -> np.ndarray:
    """Pick up to `limit` of `count` rows, evenly spread."""
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype("int64"))


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a picture that cannot be read; encoded pictures are decoded."""
    if not is_file_column(rows):
        _check_finite(rows)
        return
    state = {"max_pixels": _get_max_pixels(options), "sized": options.size is not None, "fit": options.fit}
    size = options.size or (1, 1)
    # Nothing is fitted yet: any size and number of channels show whether a picture can be decoded.
    column = Column("", "image", (*size, options.channels or 3), "uint8", raw_dtype="string", state=state)
    decode = _compile_decoder(_get_decoder_options(column))
    _run_on_rows(rows, lambda row: _decode_picture(*_read_native(rows, row, column), row, decode))


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode pictures as unscaled pixels `(rows, height, width, channels)` of the network's size, 0 where missing."""
    import numpy as np

    if is_file_column(rows):
        return _decode_rows(rows, column)
    if is_text_column(rows) or column.raw_dtype == "string":
        expected = "encoded files" if column.raw_dtype == "string" else "arrays"
        received = "text" if is_text_column(rows) else "arrays"
        raise BmcliError(
            f"column {quoted(column.name)}: expected pictures as {expected}, as in the training rows, "
            f"received {received}."
        )
    check_shape(rows, column)
    _check_finite(rows)
    if _keeps_shape(column):
        return np.ascontiguousarray(rows, column.dtype).reshape(-1, *column.shape)
    layer = build_encoder(column)
    encoded = np.empty((len(rows), *column.shape), column.dtype)
    for start, batch in _split_batches(rows):
        encoded[start : start + len(batch)] = layer(batch.astype(column.raw_dtype)).numpy()
    return encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.image_encoder import ImageEncoder
    from bmcli.layers.picture_decoder import PictureDecoder

    if column.raw_dtype == "string":
        return PictureDecoder(*_get_decoder_options(column))
    return ImageEncoder(column.shape[:2], column.shape[2], dtype=column.dtype, fit=column.state.get("fit", "stretch"))


def _get_decoder_options(column: Column) -> tuple[tuple[int, ...], int, str, tuple[int, ...], int]:
    """Return the arguments of PictureDecoder for a column of files."""
    state = column.state
    background = tuple(state.get("background", _BACKGROUNDS["white"]))
    return column.shape[:2], column.shape[2], state["fit"], background, state.get("bits", 8)


def build_feature(column: Column, encoded: Any) -> Feature:
    """Scale pixels by the statistics of the training rows."""
    from bmcli.layers.scale import FixedScaling

    return Feature(column, FixedScaling(column.state["offset"], column.state["scale"])(encoded))


def describe_uniform(values: np.ndarray) -> str:
    """Describe pictures of a single colour, and pictures that are all alike; empty if nearly all are neither.

    Args:
        values: Pixels from 0 to 1, `(pictures, pixels, channels)`.
    """
    import numpy as np

    is_plain = (np.ptp(values, axis=1) == 0).all(axis=-1)
    if len(values) > 1 and (np.ptp(values, axis=0) < _ALIKE).all():
        return f"all of {len(values):,} pictures look the same."
    if is_plain.mean() > _MAX_PLAIN:
        return f"{int(is_plain.sum()):,} of {len(values):,} pictures have a single colour each."
    return ""


def get_traits(column: Column) -> InputTraits:
    return ImageTraits(column)


_Byte = Annotated[int, Field(ge=0, le=255)]


class ImageState(StrictRecord):
    """What is fitted to a column of pictures."""

    fit: Literal["stretch", "pad", "crop"]
    offset: Numbers
    scale: Numbers
    range: tuple[float, float]
    max_pixels: Count = 0
    sized: bool = True
    background: tuple[_Byte, _Byte, _Byte] = (255, 255, 255)
    bits: Literal[8, 16] = 8
    converted: tuple[str, ...] = ()


class ImageRecord(ColumnRecord):
    """A column of pictures."""

    kind: Literal["image"]
    shape: Annotated[Shape, Field(min_length=3, max_length=3)]
    dtype: Literal["uint8", "float32"]
    raw_dtype: Literal["string", "uint8", "float32"]
    state: ImageState  # type: ignore[assignment]  # of this kind

    @model_validator(mode="after")
    def _check_raw_shape(self) -> Self:
        if len(self.raw_shape) not in ((0,) if self.raw_dtype == "string" else (2, 3)):
            raise ValueError(f"raw_shape does not fit pictures in {self.raw_dtype}")
        return self


class ImageTraits(InputTraits):
    """Traits of a column of pictures."""

    display = "picture"
    baseline = "zero_cell"  # black
    record = ImageRecord
    encoder_file = ENCODERS / "image.py"

    @property
    def _span(self) -> tuple[float, float]:
        """Minimum and maximum of the training pixels."""
        low, high = self.column.state["range"]
        return float(low), float(high)

    @property
    def _is_file(self) -> bool:
        return self.column.raw_dtype == "string"

    @property
    def preprocessing(self) -> Preprocessing:
        return "tensorflow" if self._is_file else "picture"

    @property
    def open_shape(self) -> tuple[int | None, ...]:
        return self.column.raw_shape if self._is_file else (None, None, *self.column.raw_shape[2:])

    @property
    def file_formats(self) -> str:
        return pictures.SERVED_FORMATS if self._is_file else ""

    @property
    def accepts_files(self) -> bool:
        # Files can have the same pixels as arrays of bytes.
        return self.column.raw_dtype == "uint8" and self.column.shape[2] in (1, 3)

    def describe_cells(self) -> str:
        content = f"the bytes of a {self.file_formats} file" if self._is_file else "pixels"
        converted = self.column.state.get("converted", ())
        # A served model does not read these formats, or would not see them as in training.
        first = f" (convert others to PNG first, such as {', '.join(converted)} of training)" if converted else ""
        return f"{content}{first}; {self._describe_pixels()}"

    def describe_outside_cells(self) -> str:
        if not self._is_file:
            return self.describe_cells()
        return f"the bytes or the path of a {pictures.FORMATS} file; {self._describe_pixels()}"

    def _describe_pixels(self) -> str:
        low, high = self._span
        size = "x".join(map(str, self.column.shape))
        return f"the network sees {size}, trained on values from {low:g} to {high:g}"

    def summarize(self) -> str:
        return f"{' by '.join(map(str, self.column.shape))} pixels"

    def describe_flaw(self, encoded: np.ndarray) -> str:
        low, high = self._span
        values = encoded.astype("float32").reshape(len(encoded), -1, encoded.shape[-1])
        return describe_uniform(values / ((high - low) or 1.0))

    def draw(self, encoded: np.ndarray) -> np.ndarray:
        import numpy as np

        low, high = self._span
        # The range is empty if all training pixels are equal, and exceeded by some augmentations.
        drawn: np.ndarray = np.clip((encoded.astype("float32") - low) / ((high - low) or 1.0), 0.0, 1.0)
        if drawn.shape[-1] == 4:
            return drawn[..., :3] * drawn[..., 3:] + (1 - drawn[..., 3:])
        return drawn

    def to_unit_range(self, encoded: Any) -> Any:
        """Convert pixels to float32 values from 0 to 1."""
        from bmcli.layers import tf

        low, high = self._span
        return (tf.cast(encoded, tf.float32) - low) / ((high - low) or 1.0)

    def from_unit_range(self, values: Any) -> Any:
        """Convert values from 0 to 1 to pixels; bytes become bytes again, as the network expects them."""
        from bmcli.layers import tf

        low, high = self._span
        values = values * ((high - low) or 1.0) + low
        return tf.saturate_cast(tf.round(values), tf.uint8) if self.column.dtype == "uint8" else values

    def build_conversion(self, other: Column) -> Callable[[Any], Any] | None:
        """Build the conversion to another size and another range of pixels."""
        from bmcli.layers import tf

        if other.kind != self.column.kind or other.shape[-1] != self.column.shape[-1]:
            return None

        def convert(pixels: Any) -> Any:
            values = self.to_unit_range(pixels)
            if self.column.shape != other.shape:
                values = tf.image.resize(values, other.shape[:2])
            return ImageTraits(other).from_unit_range(values)

        return convert

    def to_serving_array(self, rows: RawColumn) -> np.ndarray:
        """Convert pictures as a served model takes them; files that it would not decode are converted to PNG."""
        if not self._is_file or not is_file_column(rows):
            return super().to_serving_array(rows)
        is_missing = rows.missing()
        return make_object_array(
            [b"" if is_missing[row] else _read_native(rows, row, self.column)[0] for row in range(len(rows))]
        )

    def read_array(self, rows: RawColumn) -> np.ndarray:
        import numpy as np

        return np.asarray(rows)

    def make_missing_cell(self, cell: np.ndarray) -> np.ndarray | None:
        return make_object_array([b""]) if self._is_file else None

    def make_edge_cells(self, cell: np.ndarray) -> Iterator[EdgeCell]:
        """Make pictures of other sizes, as arrays or as files."""
        import numpy as np

        height, width = self.column.shape[:2]
        for size in ((2 * height + 1, width + 3), (max(1, height // 2), max(1, width // 3))):
            if self._is_file:
                resized = make_object_array([_make_png_file(size, self.column.shape[2])])
            else:
                rows, columns = (np.arange(new) * old // new for new, old in zip(size, cell.shape[1:3], strict=True))
                resized = cell[:, rows][:, :, columns]
            yield EdgeCell(f"a picture of {size[0]} x {size[1]}", resized, is_resized=True)

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        if self._is_file:
            return make_object_array([_make_png_file(self.column.shape[:2], self.column.shape[2])] * count)
        shape = (count, *(size or 1 for size in self.column.raw_shape))
        return generator.uniform(*self._span, shape).astype(self.column.raw_dtype)

    def make_example_cell(self) -> Any:
        if self._is_file:
            return _make_png_file((_EXAMPLE_SIDE, _EXAMPLE_SIDE), self.column.shape[2])
        return super().make_example_cell()

    def build_file_encoder(self) -> keras.layers.Layer:
        from bmcli.layers.picture_decoder import PictureDecoder

        return PictureDecoder(self.column.shape[:2], self.column.shape[2], self.column.state["fit"])


def _make_png_file(size: Sequence[int], channels: int) -> bytes:
    """Make a PNG file of a smooth pattern."""
    import numpy as np

    from bmcli.layers import tf

    row_indices, column_indices = np.mgrid[0 : size[0], 0 : size[1]]
    values = (row_indices[..., None] * 3 + column_indices[..., None] * (1 + np.arange(channels))) % 256
    encoded: bytes = tf.io.encode_png(values.astype("uint8")).numpy()
    return encoded


def _decode_rows(rows: FileColumn, column: Column) -> np.ndarray:
    """Decode the pictures of encoded files."""
    import numpy as np

    decode = _compile_decoder(_get_decoder_options(column))
    decoded = np.zeros((len(rows), *column.shape), column.dtype)

    def fill(row: int) -> None:
        data, header = _read_native(rows, row, column)
        _check_size(header, row, column)
        decoded[row] = _decode_picture(data, header, row, decode)

    _run_on_rows(rows, fill)
    return decoded


def _run_on_rows(rows: FileColumn, work: Callable[[int], object]) -> None:
    """Run a function for every row that is not missing, in threads; raise the fault of the first row that has one."""
    present = (~rows.missing()).nonzero()[0]
    with drop_native_stderr(), ThreadPoolExecutor(len(os.sched_getaffinity(0)), "bmcli-decode") as threads:
        for _ in threads.map(work, present.tolist()):
            pass  # `map` raises an exception only when its result is taken; it takes them in the order of the rows.


@cache
def _compile_decoder(options: tuple[tuple[int, ...], int, str, tuple[int, ...], int]) -> Callable[[bytes], Any]:
    """Compile the decoder of one picture, by the layer of the served model."""
    from bmcli.layers import tf
    from bmcli.layers.picture_decoder import PictureDecoder

    signature = [tf.TensorSpec((), tf.string)]
    decode: Callable[[bytes], Any] = tf.function(
        PictureDecoder(*options).decode, input_signature=signature, autograph=False
    )
    return decode


def _decode_whole(data: bytes, header: pictures.ImageHeader, row: int) -> np.ndarray:
    """Decode a picture in its own size and channels, uint8."""
    from bmcli.layers.picture_decoder import decode_upright

    return _decode_picture(data, header, row, decode_upright)


def _decode_picture(data: bytes, header: pictures.ImageHeader, row: int, decode: Callable[[bytes], Any]) -> np.ndarray:
    from bmcli.layers import tf

    try:
        picture: np.ndarray = decode(data).numpy()
    except tf.errors.OpError:
        raise RowFault(row, f"the {header.format.upper()} picture is damaged or cut off.") from None
    return picture


def _check_size(header: pictures.ImageHeader, row: int, column: Column) -> None:
    """Refuse a picture of another size than the others, if the recipe sets no size."""
    height, width = column.shape[:2]
    if not column.state["sized"] and (header.height, header.width) != (height, width):
        raise RowFault(
            row,
            f"expected {height} x {width} pixels, as in the other pictures, received {header.height} x {header.width}.",
            option=f"Give {column.name} a size: {{kind: image, size: [{height}, {width}]}}.",
        )


def _read_checked_header(rows: FileColumn, row: int, column: Column) -> tuple[bytes, pictures.ImageHeader]:
    """Read the bytes of a picture and its header; refuse a picture that would take too much memory or time."""
    data = rows.read(row)
    try:
        header = pictures.read_header(data)
    except ValueError as error:
        raise RowFault(row, str(error)) from None
    pixels, max_pixels = header.height * header.width, column.state["max_pixels"]
    if pixels > max_pixels:
        raise RowFault(
            row,
            f"expected a picture of at most {max_pixels / 1e6:g} megapixels, received {header.height} x {header.width} "
            f"pixels, {pixels / 1e6:.3g} megapixels.",
            option=f"If this size is intended, give {column.name} max_megapixels: {-(-pixels // 10**6)}.",
        )
    if header.frame_pixels > limits.MAX_GIF_SIZE_FACTOR * max_pixels:
        raise RowFault(
            row,
            f"expected frames of at most {limits.MAX_GIF_SIZE_FACTOR * max_pixels / 1e6:g} megapixels together, "
            f"received {header.frame_pixels / 1e6:.3g} megapixels.",
            "Save only the first frame.",
        )
    # Decoding takes time in proportion to scans times pixels, so a small picture may have more scans than a large one.
    scans = min(limits.MAX_JPEG_SCANS, limits.MAX_SCANNED_FACTOR * max_pixels // pixels)
    if header.scans > scans:
        message = f"expected a JPEG picture of at most {scans} scans, received {header.scans}."
        raise RowFault(row, message, "Save it again with an image editor.")
    return data, header


def _read_native(rows: FileColumn, row: int, column: Column) -> tuple[bytes, pictures.ImageHeader]:
    """Read the bytes of a picture, converted to PNG if TensorFlow does not decode its kind, and its header."""
    data, header = _read_checked_header(rows, row, column)
    if not header.is_native:
        from bmcli.pictures.conversion import convert_to_png

        try:
            data = convert_to_png(data, column.state["max_pixels"])
        except ValueError as error:
            raise RowFault(row, f"{header.format.upper()}: {error}") from None
    return data, header


def _get_max_pixels(options: Options) -> int:
    return int(options.max_megapixels * 1e6)


def _check_finite(rows: np.ndarray) -> None:
    import numpy as np

    for start, batch in _split_batches(rows):
        if not np.isfinite(batch).all():
            row = start + int(np.argwhere(~np.isfinite(batch))[0][0])
            raise RowFault(row, "expected finite pixels, received infinite ones or NaN.")


def _keeps_shape(column: Column) -> bool:
    return column.raw_shape in (column.shape, column.shape[:2] if column.shape[2] == 1 else None)


def _add_statistics(column: Column, pixels: np.ndarray, scale: str) -> Column:
    """Add range, offset and scale of the pixels to the state of the column."""
    offset, factor = _compute_pixel_statistics(pixels, scale)
    span = [float(pixels.min()), float(pixels.max())]
    return replace(column, state={**column.state, "offset": offset, "scale": factor, "range": span})


def _compute_pixel_statistics(pixels: np.ndarray, scale: str) -> tuple[list[float], list[float]]:
    """Compute offset and scale of every channel, in batches: a float64 copy of all pixels may not fit into memory."""
    import numpy as np

    channels = pixels.shape[-1]
    if scale == "none":
        return [0.0] * channels, [1.0] * channels
    low, high = float(pixels.min()), float(pixels.max())
    if scale == "unit" or low == high:
        return [low] * channels, [high - low or 1.0] * channels
    count = pixels[..., 0].size
    mean = sum(batch.sum(axis=(0, 1, 2), dtype="float64") for _, batch in _split_batches(pixels)) / count
    squares = sum(np.square(batch - mean).sum(axis=(0, 1, 2)) for _, batch in _split_batches(pixels)) / count
    # Rounding can make the deviation of a constant channel differ from 0, so minimum and maximum are compared, too.
    constant = (pixels.min(axis=(0, 1, 2)) == pixels.max(axis=(0, 1, 2))) | (squares == 0)
    return mean.tolist(), np.where(constant, 1.0, np.sqrt(squares)).tolist()


def _split_batches(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), _BATCH_ROWS):
        yield start, rows[start : start + _BATCH_ROWS]
