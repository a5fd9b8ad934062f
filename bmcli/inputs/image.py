"""Image input: arrays `(rows, height, width)` or `(rows, height, width, channels)`, or encoded files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from statistics import median_low
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli import limits, pictures
from bmcli.errors import BmcliError
from bmcli.inputs import EdgeCell, Feature, Guess, InputTraits, Preprocessing, check_shape, make_object_array
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
_MAX_HEADERS = 256  # encoded pictures whose headers determine size and channels
_MAX_SIDE = 96  # height and width in pixels at which a small network trains in reasonable time on a CPU
_MAX_DECODED = 2048  # encoded pictures from which mean and deviation are computed: all would be decoded twice


class Options(InputOptions):
    """One image per row: an array, or an encoded file (JPEG, PNG, BMP, first frame of a GIF)."""

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
    channels: Literal[1, 3] | None = Field(
        default=None, description="1 for greyscale, 3 for colour; by default that of the data."
    )
    scale: Literal["unit", "standard", "none"] = Field(
        default="unit",
        description="`unit`: pixels from 0 to 1, by the range of the training pixels, or 0 to 255 for encoded "
        "files; `standard`: mean 0 and standard deviation 1 per channel.",
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
    sizes_differ = len(set(sizes)) > 1
    if not sizes_differ and max(height, width) <= _MAX_SIDE:
        return Guess("image", 0.9, f"pictures of {height}x{width} pixels", form="map")
    side = min(_MAX_SIDE, max(height, width))
    size = "several sizes" if sizes_differ else f"{height}x{width} pixels"
    return Guess("image", 0.9, f"pictures of {size}, resized to {side}x{side}", {"size": [side, side]}, form="map")


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
    if options.channels not in (None, channels) and channels not in (1, 3):
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
    """Fit size and channels from the headers of a sample of pictures, mean and deviation from a larger sample."""
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
        },
    )
    if options.size is None or options.channels is None:
        present = (~rows.missing()).nonzero()[0]
        if not len(present):
            raise BmcliError(f"column {quoted(name)}: the training rows have no picture.", path=f"data.inputs.{name}")
        sample = present[_pick_evenly(len(present), _MAX_HEADERS)]
        headers = [_read_checked_header(rows, row, column)[1] for row in sample]
        size = options.size or _require_common_size(name, headers)
        channels = options.channels or max(
            header.channels for header in headers
        )  # One colour picture makes all colour.
        column = replace(column, shape=(*size, channels))
    if options.scale == "standard":
        return _add_statistics(column, encode(rows.take(_pick_evenly(len(rows), _MAX_DECODED)), column), options.scale)
    count, span = column.shape[2], (0.0, 255.0)
    scale = [span[1] if options.scale == "unit" else 1.0] * count
    return replace(column, state={**column.state, "offset": [0.0] * count, "scale": scale, "range": list(span)})


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
    decode = _compile_decoder(size, column.shape[2], options.fit)
    _run_on_rows(rows, lambda row: _decode_picture(*_read_checked_header(rows, row, column), row, decode))


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

    fitted = column.state.get("fit", "stretch")
    if column.raw_dtype == "string":
        return PictureDecoder(column.shape[:2], column.shape[2], fitted)
    return ImageEncoder(column.shape[:2], column.shape[2], dtype=column.dtype, fit=fitted)


def build_feature(column: Column, encoded: Any) -> Feature:
    """Scale pixels by the statistics of the training rows."""
    from bmcli.layers.scale import FixedScaling

    return Feature(column, FixedScaling(column.state["offset"], column.state["scale"])(encoded))


def get_traits(column: Column) -> InputTraits:
    return ImageTraits(column)


class ImageTraits(InputTraits):
    """Traits of a column of pictures."""

    display = "picture"
    baseline = "zero_cell"  # black
    has_numpy_encoder = True

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
        return "JPEG, PNG, BMP or GIF" if self._is_file else ""

    @property
    def accepts_files(self) -> bool:
        # Files can have the same pixels as arrays of bytes.
        return self.column.raw_dtype == "uint8" and self.column.shape[2] in (1, 3)

    def describe_cells(self) -> str:
        content = f"the bytes of a {self.file_formats} file" if self._is_file else "pixels"
        low, high = self._span
        size = "x".join(map(str, self.column.shape))
        return f"{content}; the network sees {size}, trained on values from {low:g} to {high:g}"

    def summarize(self) -> str:
        return f"{' by '.join(map(str, self.column.shape))} pixels"

    def draw(self, encoded: np.ndarray) -> np.ndarray:
        import numpy as np

        low, high = self._span
        # The range is empty if all training pixels are equal, and exceeded by some augmentations.
        return np.clip((encoded.astype("float32") - low) / ((high - low) or 1.0), 0.0, 1.0)

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

    def decode_files(self, cells: np.ndarray) -> Any:
        """Decode pictures to uint8, in upright orientation; a missing one is empty."""
        import numpy as np

        from bmcli.layers.picture_decoder import decode_upright

        decoded = [decode_upright(data).numpy() if data else np.zeros((0, 0, 1), "uint8") for data in cells]
        return np.stack(decoded) if len({each.shape for each in decoded}) == 1 else decoded

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

    decode = _compile_decoder(column.shape[:2], column.shape[2], column.state["fit"])
    decoded = np.zeros((len(rows), *column.shape), "uint8")

    def fill(row: int) -> None:
        data, header = _read_checked_header(rows, row, column)
        _check_size(header, row, column)
        decoded[row] = _decode_picture(data, header, row, decode)

    _run_on_rows(rows, fill)
    return decoded


def _run_on_rows(rows: FileColumn, work: Callable[[int], object]) -> None:
    """Run a function for every row that is not missing, in threads; raise the fault of the first row that has one."""
    present = (~rows.missing()).nonzero()[0]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "bmcli-decode") as threads:
        for _ in threads.map(work, present.tolist()):
            pass  # `map` raises an exception only when its result is taken; it takes them in the order of the rows.


@cache
def _compile_decoder(size: tuple[int, int], channels: int, fit: str) -> Callable[[bytes], Any]:
    """Compile the decoder of one picture, by the layer of the served model."""
    from bmcli.layers import tf
    from bmcli.layers.picture_decoder import PictureDecoder

    signature = [tf.TensorSpec((), tf.string)]
    decode: Callable[[bytes], Any] = tf.function(
        PictureDecoder(size, channels, fit).decode, input_signature=signature, autograph=False
    )
    return decode


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
            f"Give {column.name} a size: {{kind: image, size: [{height}, {width}]}}.",
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
            f"If this size is intended, give {column.name} max_megapixels: {-(-pixels // 10**6)}.",
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
