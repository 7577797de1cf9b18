"""Encodings of a column in a Parquet file: exact scaled decimals, the coarsest exact time unit, the smallest encoding.

All of them are lossless to the bit: `decode(encode(x))` is `x`, or the column is stored unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.events.columns import words_array
from eventlab.events.types import Field

Encoding = Literal["DICTIONARY", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", "PLAIN"]

ROW_GROUP = 16_384
"""Rows of a row group, the least that is decoded; a quarter of it if aggregates have fewer rows in a file."""

_MAX_EXACT = 2**53
_MAX_SCALE = 18
_PRECISION = 18  # DECIMAL of more than nine digits is stored as INT64, which deltas work on
_TRIAL_ROWS = 16_384
_COST_OF_COMPRESSION = 1.0625
"""Weight of a byte that zstd must unpack: in a small read that takes more time than all other decoding."""

_UNITS = (("ms", 1_000_000), ("us", 1_000), ("ns", 1))
UNIT_NS = {"s": 1_000_000_000, **dict(_UNITS)}
_PLAIN = {pa.int64(): np.dtype(np.int64), pa.float64(): np.dtype(np.float64)}


def row_group(rows: int, aggregates: int) -> int:
    """Rows of each row group of a file. With few rows per aggregate, decoding those of others would take longest."""
    return ROW_GROUP if rows >= aggregates * ROW_GROUP else max(ROW_GROUP // 4, 1)


def encode(array: pa.Array) -> pa.Array:
    """Convert a canonical column to its stored type."""
    if pa.types.is_floating(array.type):
        return _as_decimal(array)
    if pa.types.is_timestamp(array.type):
        values, validity = _numbers(array.view(pa.int64()))
        return encode_times(values, validity)
    return array


def encode_times(values: npt.NDArray[np.int64], validity: pa.Buffer | None = None) -> pa.Array:
    """Convert nanoseconds UTC to the coarsest of ms, us and ns that is exact. Nulls are zeros, marked in `validity`."""
    for unit, size in _UNITS:
        if size == 1 or ((values[:64] % size == 0).all() and (values % size == 0).all()):
            scaled = values if size == 1 else values // size
            return _wrapped(scaled, validity, pa.timestamp(unit, tz="UTC"))
    raise AssertionError("every time is a whole number of nanoseconds")


def _as_decimal(array: pa.Array) -> pa.Array:
    values, validity = _numbers(array)
    scale = _scale_of(values[:: max(len(values) // 256, 1)], 0)
    while scale is not None:
        raw = _scaled(values, scale)
        if raw is not None:
            return _wrapped(raw, validity, pa.decimal64(_PRECISION, scale))
        tried = values
        if len(values) > ROW_GROUP:  # some rows that failed give the next scale; the column is tried if these fit
            with np.errstate(over="ignore"):
                tried = values[np.rint(values * 10.0**scale) / 10.0**scale != values][:256]
        scale = _scale_of(tried, scale + 1)
    return array


def _scale_of(values: npt.NDArray[np.float64], least: int) -> int | None:
    return next((scale for scale in range(least, _MAX_SCALE + 1) if _scaled(values, scale) is not None), None)


def _scaled(values: npt.NDArray[np.float64], scale: int) -> npt.NDArray[np.int64] | None:
    """``values * 10**scale`` as integers if dividing them restores every value bit by bit, else None."""
    power = 10.0**scale
    with np.errstate(over="ignore"):
        raw = np.rint(values * power)
        # Both operands are exact below 2**53 and 10**22, so readers' division is correctly rounded.
        if len(raw) and not (np.abs(raw).max() <= _MAX_EXACT and (raw / power == values).all()):
            return None
    if np.signbit(values[values == 0.0]).any():
        return None
    return raw.astype(np.int64)


def _numbers(array: pa.Array) -> tuple[npt.NDArray[Any], pa.Buffer | None]:
    """Values with zeros for nulls, and the validity bitmap realigned to bit 0."""
    if not array.null_count:
        return array.to_numpy(), None
    return array.fill_null(0).to_numpy(), _bitmap(array.is_valid().to_numpy(zero_copy_only=False))


def _bitmap(valid: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _wrapped(values: npt.NDArray[Any], validity: pa.Buffer | None, wanted: pa.DataType) -> pa.Array:
    contiguous = np.ascontiguousarray(values)
    return pa.Array.from_buffers(wanted, len(values), [validity, pa.py_buffer(contiguous)])


@dataclass(frozen=True, slots=True)
class Encodings:
    """The encoding of each column of a file, and the columns that are not compressed."""

    by_column: Mapping[str, Encoding]
    uncompressed: Collection[str] = ()

    def writer(self, sink: pa.NativeFile, schema: pa.Schema, statistics: list[str]) -> pq.ParquetWriter:
        """A Parquet writer with these encodings. Pages have checksums."""
        chosen = {name: kind for name, kind in self.by_column.items() if kind != "DICTIONARY"}
        return pq.ParquetWriter(
            sink,
            schema,
            compression={name: "NONE" if name in self.uncompressed else "zstd" for name in schema.names},
            compression_level=dict.fromkeys(set(schema.names).difference(self.uncompressed), 3),
            use_dictionary=[name for name, kind in self.by_column.items() if kind == "DICTIONARY"],
            column_encoding=chosen or None,
            write_statistics=statistics,
            write_page_checksum=True,
            store_decimal_as_integer=True,
            dictionary_pagesize_limit=1 << 19,
        )


def _candidates(wanted: pa.DataType) -> tuple[Encoding, ...]:
    if pa.types.is_dictionary(wanted) or pa.types.is_string(wanted):
        return ("DICTIONARY",)
    if pa.types.is_boolean(wanted):
        return ("PLAIN",)
    if pa.types.is_floating(wanted):
        return ("BYTE_STREAM_SPLIT", "DICTIONARY", "PLAIN")
    return ("DELTA_BINARY_PACKED", "DICTIONARY", "BYTE_STREAM_SPLIT")


def choose_encodings(table: pa.Table, fixed: Mapping[str, Encoding]) -> Encodings:
    """Choose the encoding of each column that makes a sample smallest, compressed only if that pays."""
    start = max((table.num_rows - _TRIAL_ROWS) // 2, 0)
    sample = table.slice(start, _TRIAL_ROWS)
    candidates = {f.name: (fixed[f.name],) if f.name in fixed else _candidates(f.type) for f in table.schema}
    best: dict[str, Encoding] = {name: kinds[0] for name, kinds in candidates.items()}
    costs: dict[str, float] = {}
    plain: set[str] = set()
    for turn in range(max((len(kinds) for kinds in candidates.values()), default=0)):
        trial = {name: kinds[turn] for name, kinds in candidates.items() if len(kinds) > turn}
        for name, (compressed, raw_size) in _trial_sizes(sample.select(list(trial)), Encodings(trial)).items():
            cost = min(raw_size, compressed * _COST_OF_COMPRESSION)
            if cost < costs.get(name, math.inf):
                best[name], costs[name] = trial[name], cost
                (plain.add if cost == raw_size else plain.discard)(name)
    return Encodings(best, plain)


def _trial_sizes(sample: pa.Table, encodings: Encodings) -> dict[str, tuple[int, int]]:
    """Bytes of each column, compressed and uncompressed."""
    if not sample.num_columns or not sample.num_rows:
        return {}
    sink = pa.BufferOutputStream()
    with encodings.writer(sink, sample.schema, []) as writer:
        writer.write_table(sample)
    group = pq.read_metadata(pa.BufferReader(sink.getvalue())).row_group(0)
    columns = (group.column(index) for index in range(group.num_columns))
    return {column.path_in_schema: (column.total_compressed_size, column.total_uncompressed_size) for column in columns}


def decode(stored: pa.ChunkedArray, wanted: Field) -> pa.Array:
    """A stored column in its canonical type, one chunk."""
    kind = stored.type
    if pa.types.is_decimal(kind):
        return _wrapped(numbers(stored, np.float64), _validity(stored), pa.float64())
    if pa.types.is_timestamp(kind):
        return _wrapped(numbers(stored, np.int64), _validity(stored), wanted.arrow_type)
    if wanted.is_text:
        return _recoded(one_text(stored), wanted)
    if kind != wanted.arrow_type:
        raise ValueError(f"column {wanted.name!r} is {kind}, not {wanted.arrow_type}")
    return one_chunk(stored)


def one_chunk(stored: pa.ChunkedArray) -> pa.Array:
    """A column in one chunk, copied only if it has several."""
    return stored.chunk(0) if stored.num_chunks == 1 else stored.combine_chunks()


def one_text(stored: pa.ChunkedArray) -> pa.DictionaryArray:
    """A text column in one chunk, dictionary-encoded without repeated or unused-by-design entries."""
    if not pa.types.is_dictionary(stored.type):
        stored = stored.dictionary_encode()
    for chunk in stored.chunks:
        # No checksum covers a dictionary page's count of words, which Arrow trusts.
        codes = (chunk.indices.drop_null() if chunk.null_count else chunk.indices).to_numpy()
        if len(codes) and codes.max() >= len(chunk.dictionary):
            raise ValueError("a code without a word")
    return one_chunk(stored.unify_dictionaries() if stored.num_chunks > 1 else stored)


def _recoded(text: pa.DictionaryArray, wanted: Field) -> pa.DictionaryArray:
    if wanted.kind != "enum":
        return text
    vocabulary = words_array(wanted.vocabulary)
    if text.dictionary.equals(vocabulary):
        return text
    words = {word: code for code, word in enumerate(wanted.vocabulary)}
    try:
        codes = pa.array([words[word] for word in text.dictionary.to_pylist()], pa.int32())
    except KeyError as error:
        raise ValueError(f"column {wanted.name!r} holds {error.args[0]!r}, a word outside its vocabulary") from None
    return pa.DictionaryArray.from_arrays(codes.take(text.indices), vocabulary)


def numbers(stored: pa.ChunkedArray, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A stored column of decimals as float64, or of times as int64 nanoseconds."""
    values = np.empty(len(stored), dtype=dtype)
    numbers_into(stored, values)
    return values


def numbers_into(stored: pa.ChunkedArray, out: npt.NDArray[Any]) -> None:
    """Decode a column of decimals, times or plain numbers as float64 or int64; nulls become any number."""
    kind, start = stored.type, 0
    for chunk in stored.chunks:
        stop = start + len(chunk)
        if pa.types.is_decimal(kind):
            np.divide(raw(chunk), 10.0**kind.scale, out=out[start:stop])
        elif pa.types.is_timestamp(kind):
            np.multiply(raw(chunk), UNIT_NS[kind.unit], out=out[start:stop])
        elif len(chunk):
            if kind not in _PLAIN or _PLAIN[kind] != out.dtype:
                raise ValueError(f"a column of {kind}, not {out.dtype}")
            out[start:stop] = np.frombuffer(chunk.buffers()[1], out.dtype, chunk.offset + len(chunk))[chunk.offset :]
        start = stop


def wrapped(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None, wanted: pa.DataType) -> pa.Array:
    """Numbers as a column, null where not `valid`."""
    return _wrapped(values, None if valid is None else _bitmap(valid), wanted)


def integers(stored: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A stored integer column without nulls."""
    return np.asarray(one_chunk(stored).to_numpy(zero_copy_only=False))


def raw(chunk: pa.Array) -> npt.NDArray[np.int64]:
    """The 64-bit integers behind a decimal64 or timestamp array. PyArrow's own decimal cast is inexact."""
    if len(chunk) == 0:
        return np.empty(0, dtype=np.int64)
    if chunk.type.bit_width != 64:
        raise ValueError(f"a decimal column is wider than it was written: {chunk.type}, not decimal64")
    return np.frombuffer(chunk.buffers()[1], dtype=np.int64, count=chunk.offset + len(chunk))[chunk.offset :]


def _validity(stored: pa.ChunkedArray) -> pa.Buffer | None:
    if not stored.null_count:
        return None
    if stored.num_chunks == 1 and stored.chunk(0).offset == 0:
        return stored.chunk(0).buffers()[0]
    return _bitmap(stored.is_valid().to_numpy())
