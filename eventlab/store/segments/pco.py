"""Segment files of the archive codec: the smallest form, for events that are rarely read.

A file is the word ``ELARCH01``, the pages of its columns one column after the other, a footer, and a tail of 16 bytes:
the footer's length, that of its JSON, its CRC-32, and ``PCO1``. The footer has the place and checksum of each page, how
each column is composed, and what each row group holds; nothing in it is evaluated. Numbers of 64 bits are restored bit
for bit, also minus zero and subnormals; no event has NaN or infinities.

==========  ============================================================================================
kind        pages
==========  ============================================================================================
``int``     int64; where `based`, differences to the column `base`
``float``   float64, or with a scale, the integers that `encoding` takes exact decimals for
``bool``    zeros and ones
``text``    codes, and the words they number: one page of them a file, or one a row group
``plain``   words, one for each row that has one
==========  ============================================================================================

Pages are grouped in chunks that share statistics and encoding; an aggregate of many rows has its own row groups and
chunks. A column with nulls also has pages of zeros and ones that mark its values; only values are stored.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.types import Field
from eventlab.runtime import thread_pools as cores
from eventlab.storage.api import Storage
from eventlab.store.blocks import NO_CAUSE, TEXT, Int64Array, Slab
from eventlab.store.segments import encodings as encoding
from eventlab.store.segments import pco_pages as pages
from eventlab.store.segments.format import Index, Pieces
from eventlab.store.segments.pco_pages import FetchedPages, Numbers, Pages
from eventlab.store.segments.row_group_cache import rows_of

_MAGIC, _END = b"ELARCH01", b"PCO1"
_TAIL = 16
_ONE_DICTIONARY = 1 << 16  # bytes of words that any read of the column may be made to pay for
_TRIAL_ROWS = 32_768

Mask = npt.NDArray[np.bool_]
_Fetch = partial[Iterator[memoryview]]


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """First rows of row groups and one past the last, and the first row group of each chunk."""

    starts: Int64Array
    firsts: Int64Array

    def counts(self, valid: Mask | None) -> Int64Array:
        """Values in each row group."""
        if valid is None:
            return np.diff(self.starts)
        return np.diff(np.concatenate([[0], np.cumsum(valid)])[self.starts])

    def chunks(self, values: Numbers, valid: Mask | None) -> list[Numbers]:
        """Values by chunk; `values` are those of the valid rows."""
        return np.split(values, np.concatenate([[0], np.cumsum(self.counts(valid))])[self.firsts[1:]])


@dataclass(frozen=True, slots=True, eq=False)
class _UnpackedColumn:
    """A column before it is packed: numbers by chunk, and words."""

    kind: str
    chunks: Sequence[Numbers] = ()
    words: Sequence[pa.StringArray] = ()
    valid: Mask | None = None
    base: str | None = None
    based: Sequence[bool] = ()
    scales: Sequence[int | None] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _PackedColumn:
    """A column as it is stored in a file."""

    kind: str
    base: str | None
    based: Sequence[bool]
    scales: Sequence[int | None]
    numbers: Pages | None
    words: Pages | None
    valid: Pages | None


class Archive:
    """Files of pcodec pages. See `format.py`."""

    suffix = ".pco"

    def write(self, slab: Slab, name_of: Callable[[int], str]) -> tuple[pa.Buffer, int]:
        """Encode a slab, and return the length of the footer too; columns without a value are left out."""
        pages.codec()
        grid = _grid(slab)
        starts = grid.starts
        plans = _plans(slab, name_of, grid)
        packed = cores.ahead([partial(_packed, plan, grid) for plan in plans.values()], "columns")
        content, length = [_MAGIC], len(_MAGIC)
        described: dict[str, dict[str, Any]] = {}
        arrays: list[bytes] = []
        for name, (plan, parts) in zip(plans, packed, strict=True):
            described[name] = {"kind": plan.kind, "base": plan.base, "based": plan.based, "scales": plan.scales}
            for part, (made, packed_pages) in parts.items():
                moved = replace(made, start=length)
                described[name][part] = moved.described()
                arrays.append(moved.packed())
                content += packed_pages
                length += int(moved.sizes.sum())
        said = {"groups": len(starts) - 1, "chunks": grid.firsts.tolist(), "columns": described}
        head = json.dumps(said, separators=(",", ":")).encode()
        body = b"".join([head, starts.astype("<i8").tobytes(), _ends(slab, starts).astype("<i8").tobytes(), *arrays])
        footer = body + b"".join(
            [*(number.to_bytes(4, "little") for number in (len(body), len(head), zlib.crc32(body))), _END]
        )
        return pa.py_buffer(b"".join([*content, footer])), len(footer)

    def index(self, head: memoryview, footer: memoryview) -> Index:
        """Parse a footer whose checksum is right; `head` is the file's first `HEAD_BYTES`."""
        if head != _MAGIC:
            raise ValueError("not an archive of eventlab")
        raw = footer
        length, head_length, check = (int.from_bytes(raw[at : at + 4], "little") for at in (-16, -12, -8))
        if raw[-4:] != _END or length + _TAIL != len(raw) or zlib.crc32(raw[:length]) != check:
            raise ValueError("damaged footer")
        said, rest = json.loads(bytes(raw[:head_length])), raw[head_length:length]
        groups = said["groups"]
        starts = np.frombuffer(rest, "<i8", groups + 1).astype(np.int64)
        ends = np.frombuffer(rest[8 * (groups + 1) :], "<i8", 6 * groups).astype(np.int64).reshape(-1, 6)
        rest = rest[8 * (7 * groups + 1) :]
        columns = {}
        for name, column in said["columns"].items():
            parts: dict[str, Pages | None] = dict.fromkeys(_PARTS)
            for part in _PARTS:
                if part in column:
                    parts[part], rest = Pages.unpacked(column[part], rest)
            columns[name] = _PackedColumn(column["kind"], column["base"], column["based"], column["scales"], **parts)
        firsts = np.array(said["chunks"], dtype=np.int64)
        return Index(frozenset(columns), starts, (columns, firsts), lambda: ends)

    def read(
        self,
        storage: Storage,
        file: str,
        index: Index,
        groups: Sequence[int],
        pieces: Pieces,
        wanted: Mapping[str, Field | None],
    ) -> dict[str, Any]:
        """Decode columns."""
        reading = _ColumnReader(partial(storage.ranges, file), index, groups, wanted)

        def column(name: str, field: Field | None) -> Any:
            try:
                values = reading.column(name, field)
            except ValueError as error:
                raise ValueError(f"column {name!r}: {error}") from error
            return values if pieces is None else rows_of([values], pieces)

        work = [partial(column, name, field) for name, field in wanted.items()]
        few = len(groups) <= pages.CHUNK_PAGES
        return dict(zip(wanted, [read() for read in work] if few else cores.together(work, "columns"), strict=True))


_PARTS = ("numbers", "words", "valid")


def _ends(slab: Slab, starts: Int64Array) -> Int64Array:
    """See `Index.ends`."""
    events, at = slab.events, starts[:-1]
    if not len(at):
        return np.empty((0, 6), dtype=np.int64)
    return np.column_stack(
        [
            np.maximum.reduceat(events.version, at),
            np.minimum.reduceat(events.position, at),
            np.minimum.reduceat(events.timestamp, at),
            np.maximum.reduceat(events.timestamp, at),
            np.minimum.reduceat(events.version, at),
            np.maximum.reduceat(events.position, at),
        ]
    )


def _grid(slab: Slab) -> _Grid:
    """Row groups and chunks; an aggregate that fills a row group begins a new one."""
    rows = len(slab.events)
    size = encoding.row_group(rows, len(slab.aggregates))
    long = np.flatnonzero(np.diff(slab.offsets) >= encoding.ROW_GROUP)
    bounds = np.unique(np.concatenate([[0, rows], slab.offsets[long], slab.offsets[long + 1]]))
    starts: list[int] = []
    firsts: list[int] = []
    for begin, end in itertools.pairwise(bounds.tolist()):
        inside = list(range(begin, end, size))
        firsts += range(len(starts), len(starts) + len(inside), pages.CHUNK_PAGES)
        starts += inside
    return _Grid(np.array([*starts, rows], dtype=np.int64), np.array(firsts, dtype=np.int64))


def _plans(slab: Slab, name_of: Callable[[int], str], grid: _Grid) -> dict[str, Callable[[], _UnpackedColumn]]:
    events = slab.events
    names = pa.array([name_of(int(number)) for number in slab.aggregates], pa.string())
    codes = pa.array(np.repeat(np.arange(len(names), dtype=np.int32), np.diff(slab.offsets)))
    plans: dict[str, Callable[[], _UnpackedColumn]] = {
        "position": partial(_integers, events.position, None, grid),
        "aggregate_id": lambda: _text(pa.DictionaryArray.from_arrays(codes, names), grid),
        "version": partial(_integers, events.version, None, grid),
        "timestamp": partial(_integers, events.timestamp, None, grid),
    }
    cause = events.cause
    if cause is not None and (cause >= 0).any():
        plans["cause"] = lambda: _integers(cause, cause >= 0, grid, "position", events.position)
    stored = {"event_id": events.event_id, "metadata": events.metadata, **events.columns}
    for name, column in stored.items():
        if column is not None and column.null_count < len(column):
            plans[name] = _planner(column, grid, events.timestamp)
    return plans


def _planner(column: pa.Array, grid: _Grid, timestamp: Int64Array) -> Callable[[], _UnpackedColumn]:
    if pa.types.is_dictionary(column.type):
        return partial(_text, column, grid)
    if pa.types.is_string(column.type):
        return partial(_plain, column, grid)
    if pa.types.is_boolean(column.type):
        return partial(_flags, column, grid)
    if pa.types.is_floating(column.type):
        return partial(_floats, column, grid)
    if pa.types.is_timestamp(column.type):
        times = column.view(pa.int64()).fill_null(0).to_numpy()
        return partial(_integers, times, _valid(column), grid, "timestamp", timestamp)
    return partial(_integers, column.fill_null(0).to_numpy(), _valid(column), grid)


def _flags(column: pa.Array, grid: _Grid) -> _UnpackedColumn:
    valid = _valid(column)
    flags = column.drop_null().to_numpy(zero_copy_only=False).astype(np.uint16)
    return _UnpackedColumn("bool", grid.chunks(flags, valid), valid=valid)


def _floats(column: pa.Array, grid: _Grid) -> _UnpackedColumn:
    valid = _valid(column)
    chunks: list[Numbers] = []
    scales: list[int | None] = []
    for values in grid.chunks(column.drop_null().to_numpy(), valid):
        decimals = encoding.encode(pa.array(values))
        exact = pa.types.is_decimal(decimals.type)
        raw = encoding.raw(decimals) if exact else values
        better = exact and _smaller(raw, values)
        chunks.append(raw if better else values)
        scales.append(decimals.type.scale if better else None)
    return _UnpackedColumn("float", chunks, valid=valid, scales=scales)


def _integers(
    values: Int64Array, valid: Mask | None, grid: _Grid, base: str | None = None, other: Int64Array | None = None
) -> _UnpackedColumn:
    """Integers, or differences to the column `base` in chunks where these are smaller."""
    if valid is not None and valid.all():
        valid = None
    chunks: list[Numbers] = grid.chunks(_present(values, valid), valid)
    based: list[bool] = []
    if other is not None:
        for index, near in enumerate(grid.chunks(_present(other, valid), valid)):
            differences = chunks[index] - near  # wraps around, and back when read
            based.append(_smaller(differences, chunks[index]))
            if based[-1]:
                chunks[index] = differences
    return _UnpackedColumn("int", chunks, valid=valid, base=base if any(based) else None, based=based)


def _smaller(one: Numbers, other: Numbers) -> bool:
    """Whether a sample of numbers packs into fewer bytes than the same rows of `other`."""
    start = max((len(one) - _TRIAL_ROWS) // 2, 0)
    sample = slice(start, start + _TRIAL_ROWS)
    return pages.packed_size(one[sample]) < pages.packed_size(other[sample])


def _text(column: pa.DictionaryArray, grid: _Grid) -> _UnpackedColumn:
    valid = _valid(column)
    codes = column.indices.drop_null().to_numpy()
    used, places = np.unique(codes, return_inverse=True)
    words = column.dictionary.take(pa.array(used))
    if words.nbytes <= _ONE_DICTIONARY:
        return _UnpackedColumn("text", grid.chunks(places.astype(np.uint32), valid), [words], valid)
    counts = grid.counts(valid)
    parts, stops = [], np.cumsum(counts)
    local = np.empty(len(codes), dtype=np.uint32)
    for stop, count in zip(stops.tolist(), counts.tolist(), strict=True):
        used, local[stop - count : stop] = np.unique(places[stop - count : stop], return_inverse=True)
        parts.append(words.take(pa.array(used)))
    return _UnpackedColumn("text", grid.chunks(local, valid), parts, valid)


def _plain(column: pa.StringArray, grid: _Grid) -> _UnpackedColumn:
    valid = _valid(column)
    counts = grid.counts(valid)
    present, stops = column.drop_null(), np.cumsum(counts)
    parts = [present.slice(stop - count, count) for stop, count in zip(stops.tolist(), counts.tolist(), strict=True)]
    return _UnpackedColumn("plain", words=parts, valid=valid)


def _valid(column: pa.Array) -> Mask | None:
    return column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None


def _present(values: Numbers, valid: Mask | None) -> Numbers:
    return values if valid is None else values[valid]


def _packed(
    made: Callable[[], _UnpackedColumn], grid: _Grid
) -> tuple[_UnpackedColumn, dict[str, tuple[Pages, list[bytes]]]]:
    plan, parts = made(), {}
    if plan.chunks:
        parts["numbers"] = pages.pack_numbers(plan.chunks, grid.counts(plan.valid), grid.firsts)
    if plan.words:
        parts["words"] = pages.pack_words(plan.words)
    if plan.valid is not None:
        flags = grid.chunks(plan.valid.astype(np.uint16), None)
        parts["valid"] = pages.pack_numbers(flags, grid.counts(None), grid.firsts)
    return plan, parts


# -- reading


class _ColumnReader:
    """Columns of some row groups of a file. Its pages are read at once, when it is made."""

    def __init__(self, fetch: _Fetch, index: Index, groups: Sequence[int], wanted: Collection[str]) -> None:
        self._columns: Mapping[str, _PackedColumn] = index.inside[0]
        self._firsts: Int64Array = index.inside[1]
        self._groups = list(groups)
        self._starts = index.group_rows
        self._rows = int(np.diff(self._starts)[self._groups].sum())
        self._integers: dict[str, Int64Array] = {}
        self._pages = self._fetched(fetch, wanted)

    def _fetched(self, fetch: _Fetch, wanted: Collection[str]) -> Mapping[tuple[str, str], FetchedPages]:
        """The pages of each part of a column. Columns that store differences need the one that these refer to."""
        bases = {column.base for name in wanted if (column := self._columns[name]).base is not None}
        pages = {
            (name, part): packed
            for name in sorted({*wanted, *bases})
            for part in _PARTS
            if (packed := getattr(self._columns[name], part)) is not None
        }
        numbers = {
            key: [0] if key[1] == "words" and packed.one_for_all else self._groups for key, packed in pages.items()
        }
        contents = fetch([place for key, packed in pages.items() for place in packed.ranges(numbers[key])])
        return {
            key: FetchedPages(packed, numbers[key], list(itertools.islice(contents, len(numbers[key]))))
            for key, packed in pages.items()
        }

    def column(self, name: str, field: Field | None) -> Any:
        """A column in the types that `format.py` says."""
        if name in ("position", "version", "timestamp"):
            return self._base(name)
        column = self._columns[name]
        valid = self._numbers(name, "valid").astype(bool) if column.valid is not None else None
        if name == "cause":
            return _spread(self._values(name, valid), valid, NO_CAUSE)
        if column.kind == "text":
            return self._text(name, valid, field)
        if column.kind == "plain":
            return self._plain(name, valid)
        if field is None or field.is_text or column.kind != _KINDS[field.kind]:
            raise ValueError(f"holds {column.kind}, not {field.kind if field else 'text'}")
        values = _spread(self._values(name, valid), valid, 0)
        if column.kind == "bool":
            return pa.array(values.astype(bool), mask=None if valid is None else ~valid)
        return encoding.wrapped(values, valid, field.arrow_type)

    def _part(self, name: str, part: str) -> FetchedPages:
        found = self._pages.get((name, part))
        if found is None:
            raise ValueError(f"pages of {part} are missing")
        return found

    def _chunks(self, name: str, part: str) -> list[tuple[int, Numbers]]:
        return pages.unpack_numbers(self._part(name, part), self._firsts)

    def _numbers(self, name: str, part: str) -> Numbers:
        parts = [numbers for _, numbers in self._chunks(name, part)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _base(self, name: str) -> Int64Array:
        """A column of integers without nulls, which others may store differences to."""
        if name not in self._integers:
            self._integers[name] = self._numbers(name, "numbers")
        return self._integers[name]

    def _values(self, name: str, valid: Mask | None) -> Numbers:
        """Values without nulls."""
        column = self._columns[name]
        found = self._chunks(name, "numbers")
        ends = np.concatenate([[0], np.cumsum([len(numbers) for _, numbers in found])]).astype(np.int64)
        values = np.empty(int(ends[-1]), dtype=np.float64 if column.kind == "float" else np.int64)
        base = None if column.base is None else _present(self._base(column.base), valid)
        for (chunk, numbers), start, stop in zip(found, ends, ends[1:], strict=False):
            out = values[start:stop]
            scale = column.scales[chunk] if column.scales else None
            if scale is not None:
                np.divide(numbers, 10.0**scale, out=out)
            elif base is not None and column.based[chunk]:
                np.add(numbers, base[start:stop], out=out)
            else:
                out[:] = numbers
        return values

    def _text(self, name: str, valid: Mask | None, field: Field | None) -> pa.DictionaryArray:
        numbers = _spread(self._numbers(name, "numbers"), valid, 0)
        codes = pa.array(numbers.astype(np.int32), mask=None if valid is None else ~valid)
        words = self._part(name, "words")
        ends = np.cumsum(np.diff(self._starts)[self._groups]).tolist()
        if words.pages.one_for_all:
            ends = [self._rows]
        chunks, begin = [], 0
        for end, known in zip(ends, pages.unpack_words(words), strict=True):
            chunks.append(pa.DictionaryArray.from_arrays(codes.slice(begin, end - begin), known))
            begin = end
        stored = pa.chunked_array(chunks, TEXT)
        return encoding.one_text(stored) if field is None else encoding.decode(stored, field)

    def _plain(self, name: str, valid: Mask | None) -> pa.StringArray:
        words = pa.chunked_array(pages.unpack_words(self._part(name, "words")), pa.string())
        if valid is None:
            return encoding.one_chunk(words)
        places = np.cumsum(valid) - 1
        return encoding.one_chunk(words.take(pa.array(places, mask=~valid)))


def _spread(values: Numbers, valid: Mask | None, null: int) -> Numbers:
    """Values at their rows."""
    if valid is None:
        return values
    spread = np.full(len(valid), null, dtype=values.dtype)
    spread[valid] = values
    return spread


_KINDS = {"float": "float", "int": "int", "time": "int", "bool": "bool"}
