"""The blobs of small commits: their columns as in memory, or their rows.

A blob starts with a byte. 1: rows of one type and aggregate, see `rows_codec.py`; 2: columns, one part per event type.

A part is a header (type number, rows, first position, aggregate, first version, number of columns), a byte for each
column that gives its encoding, and the columns. Numbers that only count up, and an aggregate that is the same for all,
are in the header and have no column. The columns are position, aggregate, version, event time, cause, event id,
metadata and the payload. All integers are little-endian.

====  =====================================================================================================
byte  a column
====  =====================================================================================================
0     without any value, or said by the header
1     8 bytes a row: float, integer, time
2     flags, a bit a row
3     codes of a closed vocabulary, 4 bytes a row
4     text: u32 number of words, their lengths as u32, the words; u8 width, a code of that width a row
====  =====================================================================================================

With 16 added, the column begins with its validity, a bit a row.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import StoreCorrupt
from eventlab.events.columns import null_column, words_array
from eventlab.events.types import EventType, Field
from eventlab.store.blocks import TEXT, Block, Int64Array, decoded, is_all_null

COLUMNS = 2
"""The first byte of a blob of columns."""

_PART = struct.Struct("<IIqqqI")
_COUNT = struct.Struct("<I")
_IN_COLUMN = -1
_ABSENT, _NUMBERS, _FLAGS, _CODES, _TEXT = range(5)
_NULLS = 16
_ENVELOPE = 7
_WIDTHS: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}

Bytes = bytes | memoryview
Pieces = list[Bytes]


def to_blob(parts: Sequence[tuple[int, Block]]) -> bytes:
    """The blocks of a commit, each with its event type's number."""
    pieces: Pieces = [bytes((COLUMNS,))]
    for number, block in parts:
        kinds = bytearray(_ENVELOPE + len(block.type.fields))
        columns: Pieces = []
        header = []
        for index, (numbers, step) in enumerate(((block.position, 1), (block.aggregate, 0), (block.version, 1))):
            first = int(numbers[0])
            if int(numbers[-1]) - first == step * (len(numbers) - 1) and (numbers[1:] - numbers[:-1] == step).all():
                header.append(first)
            else:
                header.append(_IN_COLUMN)
                kinds[index] = _NUMBERS
                columns.append(_memory(numbers))
        kinds[3] = _NUMBERS
        columns.append(_memory(block.timestamp))
        if block.cause is not None:
            kinds[4] = _NUMBERS
            columns.append(_memory(block.cause))
        if block.event_id is not None:
            kinds[5] = _put_text(block.event_id.dictionary_encode(), columns)
        if block.metadata is not None:
            kinds[6] = _put_text(block.metadata, columns)
        for index, field in enumerate(block.type, _ENVELOPE):
            kinds[index] = _put(field, block.columns[field.name], columns)
        pieces += [_PART.pack(number, len(block), *header, len(kinds)), bytes(kinds), *columns]
    return b"".join(pieces)


def _memory(numbers: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(numbers).data.cast("B")


def _put(field: Field, column: pa.Array, pieces: Pieces) -> int:
    """Add a payload column to the pieces; returns its encoding."""
    if column.null_count and is_all_null(column):
        return _ABSENT
    if field.kind == "enum":
        return _put_numbers(_CODES, column.indices, pieces)
    if field.is_text:
        return _put_text(column, pieces)
    if field.kind == "bool":
        kind = _put_validity(_FLAGS, column, pieces)
        flags = column.fill_null(False) if column.null_count else column
        pieces.append(_bits(flags))
        return kind
    return _put_numbers(_NUMBERS, column.view(pa.int64()) if field.kind == "time" else column, pieces)


def _put_validity(kind: int, column: pa.Array, pieces: Pieces) -> int:
    if not column.null_count:
        return kind
    pieces.append(_bits(column.is_valid()))
    return kind | _NULLS


def _bits(flags: pa.Array) -> bytes:
    return np.packbits(flags.to_numpy(zero_copy_only=False), bitorder="little").tobytes()


def _put_numbers(kind: int, column: pa.Array, pieces: Pieces) -> int:
    kind = _put_validity(kind, column, pieces)
    pieces.append(_memory((column.fill_null(0) if column.null_count else column).to_numpy()))
    return kind


def _put_text(column: pa.DictionaryArray, pieces: Pieces) -> int:
    if len(column.dictionary) > len(column):  # words of rows that are not here
        column = decoded(column).dictionary_encode()
    if column.null_count and is_all_null(column):
        return _ABSENT
    kind = _put_validity(_TEXT, column.indices, pieces)
    words = [word.encode() for word in column.dictionary.to_pylist()]
    width = 1 if len(words) <= 2**8 else 2 if len(words) <= 2**16 else 4
    codes = (column.indices.fill_null(0) if column.null_count else column.indices).to_numpy()
    pieces += [struct.pack(f"<I{len(words)}I", len(words), *map(len, words)), *words, bytes((width,))]
    pieces.append(_memory(codes.astype(_WIDTHS[width])))
    return kind


def from_blob(blob: bytes, types: Mapping[int, EventType]) -> dict[int, Block]:
    """The blocks of one commit by event type number. Raises StoreCorrupt for bytes that it cannot have written."""
    blocks: dict[int, Block] = {}
    try:
        if blob[0] != COLUMNS:
            raise ValueError("it is of no known form")
        source = _ByteReader(blob, 1)
        while source.at < len(blob):
            number, rows, *header, width = _PART.unpack(source.take(_PART.size))
            declared = types[number]
            kinds = bytes(source.take(width))
            if width != _ENVELOPE + len(declared.fields):
                raise ValueError("it has another number of columns than its type")
            blocks[number] = _block(declared, rows, header, kinds, source)
    except (struct.error, LookupError, ValueError, pa.ArrowException) as error:
        raise StoreCorrupt("a small commit cannot be read", got=str(error)) from error
    return blocks


class _ByteReader:
    """Reads bytes from front to back."""

    def __init__(self, blob: bytes, at: int) -> None:
        self._view = memoryview(blob)
        self.at = at

    def take(self, size: int) -> memoryview:
        if self.at + size > len(self._view):
            raise ValueError("it ends too early")
        self.at += size
        return self._view[self.at - size : self.at]

    def bits(self, rows: int) -> npt.NDArray[np.bool_]:
        packed = np.frombuffer(self.take((rows + 7) // 8), np.uint8)
        return np.unpackbits(packed, count=rows, bitorder="little").view(np.bool_)

    def nulls(self, kind: int, rows: int) -> npt.NDArray[np.bool_] | None:
        return ~self.bits(rows) if kind & _NULLS else None

    def numbers(self, kind: np.dtype[Any] | type[np.generic], rows: int) -> npt.NDArray[np.generic]:
        dtype = np.dtype(kind)
        return np.frombuffer(self.take(rows * dtype.itemsize), dtype).copy()  # aligned, and free of the blob

    def text(self, kind: int, rows: int) -> pa.DictionaryArray:
        nulls = self.nulls(kind, rows)
        (count,) = _COUNT.unpack(self.take(_COUNT.size))
        lengths = struct.unpack(f"<{count}I", self.take(4 * count))
        words = pa.array([str(self.take(length), "utf-8") for length in lengths], pa.string())
        codes = self.numbers(_WIDTHS[self.take(1)[0]], rows).astype(np.int32)
        if len(codes) and int(codes.max()) >= max(count, 1):
            raise ValueError("it has a code without a word")
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=nulls), words)


def _block(declared: EventType, rows: int, header: Sequence[int], kinds: bytes, source: _ByteReader) -> Block:
    position, aggregate, version = (
        source.numbers(np.int64, rows) if kind else np.arange(first, first + rows) if step else np.full(rows, first)
        for kind, first, step in zip(kinds[:3], header, (1, 0, 1), strict=True)
    )
    if not kinds[3]:
        raise ValueError("it has no event times")
    timestamp: Int64Array = source.numbers(np.int64, rows)  # type: ignore[assignment]
    cause = source.numbers(np.int64, rows) if kinds[4] else None
    event_id = decoded(source.text(kinds[5], rows)) if kinds[5] else None
    metadata = source.text(kinds[6], rows).cast(TEXT) if kinds[6] else None
    columns = {
        field.name: _column(field, kind, rows, source) for field, kind in zip(declared, kinds[_ENVELOPE:], strict=True)
    }
    return Block(declared, position, aggregate, version, timestamp, cause, event_id, metadata, columns)  # type: ignore[arg-type]


def _column(field: Field, kind: int, rows: int, source: _ByteReader) -> pa.Array:
    if kind == _ABSENT:
        return null_column(field, rows)
    form = kind & ~_NULLS
    if form == _TEXT:
        return source.text(kind, rows)
    nulls = source.nulls(kind, rows)
    if form == _CODES:
        codes = pa.array(source.numbers(np.int32, rows), mask=nulls)
        return pa.DictionaryArray.from_arrays(codes, words_array(field.vocabulary))
    if form == _FLAGS:
        return pa.array(source.bits(rows), mask=nulls)
    if field.kind == "float":
        return pa.array(source.numbers(np.float64, rows), pa.float64(), mask=nulls)
    return pa.array(source.numbers(np.int64, rows), pa.int64(), mask=nulls).view(field.arrow_type)
