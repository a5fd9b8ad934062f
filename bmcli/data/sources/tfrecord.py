"""TFRecord files whose records are `tf.train.Example`, with or without gzip."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bmcli import limits, parts, pictures
from bmcli.data import files
from bmcli.data.sources import SourceRows, TableOptions, TablePaths, locate_row, repeat_split_names
from bmcli.data.tables import PartlyReadableColumns
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import FileColumn, RawColumn, UnreadableColumn
from bmcli.recipe import fields
from bmcli.recipe.nodes import write_scalar

if TYPE_CHECKING:
    import numpy as np

_FEWER_FEATURES = "Write numbers that belong together as one feature of many values, or select some by `features`."
_RECORD_HEADER_BYTES = 12  # before the data of a record: its length, and the checksum of the length
_RECORD_FOOTER_BYTES = 4  # after the data: its checksum
_SHORT_RECORD_BYTES = 2**12  # After longer records only the next header is read, after shorter ones a window:
_WINDOW_BYTES = 2**16
_LISTS = {
    "float": "float_list",
    "int": "int64_list",
    "text": "bytes_list",
    "image": "bytes_list",
    "uint8": "bytes_list",
}
_Size = Annotated[int, Field(ge=1)]


class FeatureOptions(fields.Options):
    """Type and shape of a feature of the examples."""

    type: Literal["float", "int", "text", "image", "uint8"] = Field(
        description="Type of the values: floats, integers, UTF-8 text, an encoded image, or the bytes of an array."
    )
    shape: tuple[_Size, ...] = Field(
        default=(), description="Shape of the array in each row, for float, int and uint8; by default a single number."
    )


class Options(TableOptions):
    """TFRecord files of `tf.train.Example` with floats, integers, text or encoded images."""

    ENDINGS: ClassVar[tuple[str, ...]] = (".tfrecord", ".tfrecords")

    kind: Literal["tfrecord"] = "tfrecord"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as data.tfrecord-*, a list of these, or one of these per split."
    )
    features: Mapping[str, FeatureOptions] | None = Field(
        default=None,
        description="Features to read, such as {image: {type: image}, label: {type: int}}. By default all, with the "
        "types and shapes of the first example.",
    )


@dataclass(frozen=True)
class _RecordPosition:
    """Position of a record in its file.

    Args:
        number: Number of the record in its file, from 0.
        offset: Offset of the record's data in the decompressed file.
        size: Bytes of the record's data.
        compressed: Whether the file is compressed, so that it cannot be read from the middle.
    """

    path: Path
    number: int
    offset: int
    size: int
    compressed: bool

    def __str__(self) -> str:
        return f"{files.format_path(self.path)} record {self.number + 1}"


def read(options: Options) -> SourceRows:
    """Read floats and integers as arrays, text as text, and pictures as encoded files, whose bytes are read later."""
    lengths: dict[str | None, int] = {}
    by_file: list[tuple[Path, int]] = []
    records: list[_RecordPosition] = []
    gathered: dict[str, _FeatureColumn] = {}
    for split, file in options.tables():
        if not isinstance(file, Path):
            raise files.file_error(
                file, "expected a local file, received an address.", "Copy the file to this machine."
            )
        before = len(records)
        for record, features in _read_examples(file):
            _add_features(gathered, record, features, options.features, len(records))
            records.append(record)
        if len(records) == before:
            raise files.file_error(file, "has no records.")
        by_file.append((file, len(records) - before))
        lengths[split] = lengths.get(split, 0) + by_file[-1][1]
    unreadable = {name: column.error for name, column in gathered.items() if column.error is not None}
    columns = {
        name: column.to_column(len(records), records) for name, column in gathered.items() if name not in unreadable
    }
    return SourceRows(
        PartlyReadableColumns(columns, unreadable),
        repeat_split_names(lengths),
        describe_row=lambda row: _describe_row(by_file, row),
        count=len(records),
    )


def _describe_row(by_file: Sequence[tuple[Path, int]], row: int) -> str:
    file, row = locate_row(by_file, row)
    return f"{files.format_path(file)} record {row + 1}"


def _is_compressed(path: Path) -> bool:
    with files.open_file(path) as file:
        return file.read(2) == b"\x1f\x8b"  # the magic number of gzip


def _read_examples(path: Path) -> Iterator[tuple[_RecordPosition, Mapping[str, Any]]]:
    """Read the features of every example of a file; TensorFlow compares the checksums."""
    from google.protobuf.message import DecodeError

    from bmcli.layers import tf

    compressed = _is_compressed(path)
    _check_lengths(path, compressed)
    number, offset = 0, 0
    try:
        for tensor in tf.data.TFRecordDataset(str(path), compression_type="GZIP" if compressed else ""):
            data = tensor.numpy()
            record = _RecordPosition(path, number, offset + _RECORD_HEADER_BYTES, len(data), compressed)
            yield record, tf.train.Example.FromString(data).features.feature
            number, offset = number + 1, record.offset + len(data) + _RECORD_FOOTER_BYTES
    except tf.errors.OpError:
        raise _damaged_record_error(path, number + 1) from None
    except DecodeError:
        raise files.file_error(path, f"record {number + 1} is not a tf.train.Example.") from None


def _check_lengths(path: Path, compressed: bool) -> None:
    """Raise BmcliError if a record is longer than the rest of its file.

    TensorFlow allocates whatever length a record declares, and ends the process if it cannot.
    """
    number, is_whole = _scan_gzip_file(path) if compressed else _scan_plain_file(path)
    if not is_whole:
        raise _damaged_record_error(path, number)


def _damaged_record_error(path: Path, number: int) -> BmcliError:
    return files.file_error(path, f"record {number} is damaged or cut off, or this is not a TFRecord file.")


def _scan_plain_file(path: Path) -> tuple[int, bool]:
    """Count the records of a file by their headers; also return whether the last record is complete."""
    number = place = start = record_bytes = 0
    data = b""  # part of the file from `start` on: one header, or many where records are short
    with files.open_file(path) as file:
        handle, end = file.fileno(), os.fstat(file.fileno()).st_size
        while place < end:
            if place + _RECORD_HEADER_BYTES > start + len(data):
                data, start = (
                    os.pread(
                        handle, _RECORD_HEADER_BYTES if record_bytes > _SHORT_RECORD_BYTES else _WINDOW_BYTES, place
                    ),
                    place,
                )
            record_bytes = int.from_bytes(data[place - start : place - start + 8], "little")
            number, place = number + 1, place + _RECORD_HEADER_BYTES + record_bytes + _RECORD_FOOTER_BYTES
    return number, place == end


def _scan_gzip_file(path: Path) -> tuple[int, bool]:
    """Count the records of a gzip file as `_scan_plain_file` does, decompressing it in chunks."""
    number, left, head = 0, 0, b""  # `left`: bytes of the current record and its checksum that are still to come
    for chunk in files.read_chunks(path):
        place = 0
        while place < len(chunk):
            skipped = min(left, len(chunk) - place)
            place, left = place + skipped, left - skipped
            if left:
                break
            taken = chunk[place : place + _RECORD_HEADER_BYTES - len(head)]
            head, place = head + taken, place + len(taken)
            if len(head) == _RECORD_HEADER_BYTES:
                number, left, head = number + 1, int.from_bytes(head[:8], "little") + _RECORD_FOOTER_BYTES, b""
    return number + bool(head), not left and not head


class _FeatureColumn:
    """The cells of one feature, collected example by example."""

    def __init__(self, name: str, feature: FeatureOptions) -> None:
        self.name, self.feature = name, feature
        self.error: UnreadableColumn | None = None  # why the cells have no common form
        self.rows: list[int] = []
        self.cells: list[Any] = []

    def add(self, row: int, record: _RecordPosition, values: Any) -> None:
        """Add the values of an example."""
        read = self._read_numbers if self.feature.type in ("float", "int") else self._read_bytes
        self.cells.append(read(record, values))
        self.rows.append(row)

    def _read_numbers(self, record: _RecordPosition, values: Any) -> np.ndarray:
        import numpy as np

        numbers = np.array(values, "float32" if self.feature.type == "float" else "int64")
        count = math.prod(self.feature.shape)
        if len(numbers) != count:
            expected = "one number" if count == 1 else f"{count} numbers"
            raise self._make_error(record, f"expected {expected}, received {len(numbers)}.")
        return numbers.reshape(self.feature.shape)

    def _read_bytes(self, record: _RecordPosition, values: Any) -> Any:
        if len(values) != 1:
            raise self._make_error(record, f"expected one text, received {len(values)}.")
        data: bytes = values[0]
        if self.feature.type == "uint8":
            return self._read_array(record, data)
        if self.feature.type == "image":
            # The bytes of a compressed file are kept, because it cannot be read again from the middle.
            return data if record.compressed else None
        try:
            return data.decode()
        except UnicodeDecodeError:
            name = write_scalar(self.name)
            hint = f"If it is an array, write features: {{{name}: {{type: uint8, shape: [28, 28]}}, ...}}."
            raise self._make_error(record, "is neither a picture nor text in UTF-8.", hint) from None

    def _read_array(self, record: _RecordPosition, data: bytes) -> np.ndarray:
        import numpy as np

        count = math.prod(self.feature.shape)
        if len(data) != count:
            raise self._make_error(record, f"expected {count} bytes, received {len(data)}.")
        return np.frombuffer(data, "uint8").reshape(self.feature.shape)

    def _make_error(self, record: _RecordPosition, message: str, suggestion: str = "") -> BmcliError:
        return _record_error(record, f"feature {quoted(self.name)}: {message}", suggestion)

    def to_column(self, count: int, records: list[_RecordPosition]) -> RawColumn:
        """Build the column of all rows; it is missing in rows without the feature."""
        import numpy as np
        import pyarrow as pa

        places = np.array(self.rows, "int64")
        if self.feature.type == "image":
            positions = np.full(count, -1, "int64")
            positions[places] = np.arange(len(places))
            return FileColumn(positions, self._make_reader([records[row] for row in self.rows]))
        if self.feature.type == "text":
            texts: list[str | None] = [None] * count
            for row, cell in zip(self.rows, self.cells, strict=True):
                texts[row] = cell
            return pa.chunked_array([pa.array(texts, pa.string())])
        cells = np.stack(self.cells)
        if len(places) == count:
            return cells
        column = np.full((count, *cells.shape[1:]), np.nan, "float32" if cells.dtype == np.float32 else "float64")
        column[places] = cells
        return column

    def _make_reader(self, records: list[_RecordPosition]) -> Callable[[int], bytes]:
        def read(position: int) -> bytes:
            from bmcli.layers import tf

            kept = self.cells[position]
            if kept is not None:
                return bytes(kept)
            record = records[position]
            with files.open_file(record.path) as file:
                file.seek(record.offset)
                example = tf.train.Example.FromString(file.read(record.size))
            return bytes(example.features.feature[self.name].bytes_list.value[0])

        return read


def _add_features(
    gathered: dict[str, _FeatureColumn],
    record: _RecordPosition,
    features: Mapping[str, Any],
    requested: Mapping[str, FeatureOptions] | None,
    row: int,
) -> None:
    """Add the features of an example to their columns, and begin a column for each new feature."""
    if requested is not None:
        gathered.update({name: _FeatureColumn(name, requested[name]) for name in requested if name not in gathered})
        if row == 0 and (lacking := [name for name in requested if name not in features]):
            hint = parts.did_you_mean(lacking[0], features)
            raise _record_error(record, f"the first example has no feature {quoted(lacking[0])}.", hint)
    for name in requested if requested is not None else sorted(features):
        kind = features[name].WhichOneof("kind") if name in features else None
        values = getattr(features[name], kind).value if kind else ()
        if not len(values):
            continue
        if name not in gathered:
            gathered[name] = _FeatureColumn(name, _infer_feature(kind, values))
        if gathered[name].error is None:
            _add_values(gathered[name], record, kind, values, row, is_requested=requested is not None)
    if len(gathered) > limits.MAX_COLUMNS:
        message = f"expected at most {limits.MAX_COLUMNS:,} features, received more."
        raise _record_error(record, message, _FEWER_FEATURES)


def _add_values(
    column: _FeatureColumn, record: _RecordPosition, kind: str | None, values: Any, row: int, is_requested: bool
) -> None:
    """Add the values of an example to their column, which is unreadable from then on if they do not fit.

    Raises:
        BmcliError: They do not fit a feature that is requested.
    """
    expected = _LISTS[column.feature.type]
    try:
        if kind != expected:
            raise _record_error(record, f"feature {quoted(column.name)}: expected a {expected}, received a {kind}.")
        column.add(row, record, values)
    except BmcliError as error:
        if is_requested:
            raise
        column.error = UnreadableColumn.of(error)


def _infer_feature(kind: Any, values: Any) -> FeatureOptions:
    """Infer type and shape of a feature from its first example."""
    if kind == "bytes_list":
        return FeatureOptions(type="image" if _is_picture(values[0]) else "text")
    shape = () if len(values) == 1 else (len(values),)
    return FeatureOptions(type="float" if kind == "float_list" else "int", shape=shape)


def _is_picture(data: bytes) -> bool:
    try:
        pictures.read_header(data)
    except ValueError:
        return False
    return True


def _record_error(record: _RecordPosition, message: str, suggestion: str = "") -> BmcliError:
    return BmcliError(f"{record}: {message}", path=files.RECIPE_PATH, suggestion=suggestion)
