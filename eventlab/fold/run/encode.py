"""Converts portable states and Arrow columns to the flat arrays that a kernel works on, and back.

Codes, slots and ranks belong to one fold: they depend on what was loaded. Portable states have keys as text in order of
first touch, prices best first, and one bit pattern for every NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.frame import Int64Array
from eventlab.fold.declare.layout import Array, Keyed, Ladder, Layout, Queue, Scalar, filled
from eventlab.fold.native import order_kernels as walk
from eventlab.fold.native.call import writable
from eventlab.fold.native.constants import FREE, HEAD, LADDER_META, LIVE, META, NONE, NULL_TEXT, PENDING, TAIL, USED
from eventlab.fold.native.function import Function
from eventlab.fold.run.price_ranks import Codes, Ranks

_keyed_order = Function(walk.keyed_order)
_queue_order = Function(walk.queue_order)


class Dictionary:
    """The strings of a fold by code. The reducer's constants come first, so that compiled code knows their codes."""

    def __init__(self, literals: Sequence[str]) -> None:
        self.strings = list(literals)
        self._codes = {text: code for code, text in enumerate(literals)}

    def __len__(self) -> int:
        return len(self.strings)

    def encode(self, column: pa.Array) -> Codes:
        """Codes of a text column; null is NULL_TEXT."""
        codes, shift = self.shifted(column)
        return codes + np.int32(shift) if shift else codes

    def shifted(self, column: pa.Array) -> tuple[Codes, int]:
        """Numbers, and a shift: the code of a text is its number plus the shift.

        New strings get the next codes in the order of the column's dictionary, so that the column's own indices mostly
        serve as numbers, without a copy.
        """
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        lookup = np.empty(len(encoded.dictionary) + 1, np.int32)
        lookup[-1] = NULL_TEXT
        for at, text in enumerate(encoded.dictionary.to_pylist()):
            code = self._codes.setdefault(text, len(self.strings))
            if code == len(self.strings):
                self.strings.append(text)
            lookup[at] = code
        indices = encoded.indices
        if indices.null_count:
            indices = indices.fill_null(len(lookup) - 1)
        elif len(lookup) > 1 and indices.type == pa.int32() and (np.diff(lookup[:-1]) == 1).all():
            return writable(indices.to_numpy()), int(lookup[0])
        return lookup.take(indices.to_numpy(), mode="clip"), 0  # "clip" saves the check of bounds

    def decode(self, codes: npt.NDArray[np.int32]) -> pa.Array:
        """Text of codes."""
        missing = codes == NULL_TEXT
        indices = pa.array(codes, pa.int32(), mask=missing if missing.any() else None)
        return pa.array(self.strings, pa.string()).take(indices)


def numbers(column: pa.Array) -> npt.NDArray[Any]:
    """A numeric, bool or time column as a NumPy array of writable type, with nulls as handlers see them."""
    column = filled(column)
    if pa.types.is_boolean(column.type):  # Arrow packs bools into bits
        bits = np.frombuffer(column.buffers()[1], np.uint8)
        return np.unpackbits(bits, count=column.offset + len(column), bitorder="little")[column.offset :].view(np.bool_)
    return writable(column.to_numpy())


def canonical(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floats with one NaN; anything else as it is. -0.0 is kept."""
    if values.dtype.kind == "f":
        nan = np.isnan(values)
        if np.count_nonzero(nan):  # for the few values of a state three times as fast as nan.any()
            values = np.where(nan, np.nan, values)
    return values


def _scalar_in(scalar: Scalar, column: pa.Array, dictionary: Dictionary) -> npt.NDArray[Any]:
    return dictionary.encode(column) if scalar.kind == "text" else column.to_numpy(zero_copy_only=False)


def _scalar_out(scalar: Scalar, values: npt.NDArray[Any], dictionary: Dictionary) -> pa.Array:
    if scalar.kind == "text":
        return dictionary.decode(np.ascontiguousarray(values))
    return pa.array(canonical(np.ascontiguousarray(values)))


def records_in(layout: Layout, states: pa.RecordBatch, dictionary: Dictionary) -> npt.NDArray[Any]:
    """The record part of portable states, shape (states,)."""
    records = np.zeros(states.num_rows, layout.dtype)
    for field in layout.record:
        column = states.column(field.name)
        if isinstance(field, Scalar):
            records[field.name] = _scalar_in(field, column, dictionary)
        else:
            flat = column.flatten().to_numpy(zero_copy_only=False)
            records[field.name] = flat.reshape(states.num_rows, field.length)
    return records


def fields_out(layout: Layout, values: Iterable[npt.NDArray[Any]], dictionary: Dictionary) -> list[pa.Array]:
    """Portable columns of the record's fields."""
    columns: list[pa.Array] = []
    for field, given in zip(layout.record, values, strict=True):
        if isinstance(field, Array):
            flat = pa.array(canonical(np.ascontiguousarray(given).reshape(-1)))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.arrow.type))
        else:
            columns.append(_scalar_out(field, given, dictionary))
    return columns


def _list_parts(column: pa.ListArray) -> tuple[Int64Array, pa.StructArray]:
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.flatten()


def _links(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], int]:
    """Rows as 32-bit words, links first, and the number of words a row."""
    return rows.view(np.int32), rows.itemsize // 4


def _starts(lengths: Int64Array) -> Int64Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _concat(several: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], Int64Array]:
    """Arrays of one dtype as one, and where each begins."""
    dtype = several[0].dtype
    words = np.concatenate([one.view(np.int32) for one in several])  # NumPy compares record dtypes field by field
    return words.view(dtype), _starts(np.array([len(one) for one in several]))


def _rows_in(
    table: Keyed, values: pa.StructArray, rows: npt.NDArray[Any], place: Int64Array, dictionary: Dictionary
) -> None:
    for column in table.columns:
        rows[column.name][place] = _scalar_in(column, values.field(column.name), dictionary)


def _rows_out(table: Keyed, keys: Codes, rows: npt.NDArray[Any], offsets: Int64Array, dictionary: Dictionary) -> Any:
    columns = [dictionary.decode(keys)]
    columns += [_scalar_out(column, rows[column.name], dictionary) for column in table.columns]
    kind = table.arrow.type
    values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)


@dataclass
class KeyedScratch:
    """Arrays behind a KeyedView for all aggregates: ``rows[base[a]:base[a + 1]]`` are aggregate a's."""

    rows: npt.NDArray[Any]
    slots: Codes
    meta: Int64Array
    base: Int64Array

    @staticmethod
    def of(
        dtype: np.dtype[Any], offsets: Int64Array, keys: Codes, capacity: Int64Array, codes: int
    ) -> tuple[KeyedScratch, Int64Array]:
        """Space for every aggregate, with its rows linked, and the place of each row."""
        counts = np.diff(offsets)
        base = _starts(np.maximum(capacity, counts))
        rows = np.empty(int(base[-1]), dtype)
        slot = np.arange(len(keys)) - np.repeat(offsets[:-1], counts)
        place = slot + np.repeat(base[:-1], counts)
        last = slot == np.repeat(counts - 1, counts)
        rows["_key"][place] = keys
        rows["_next"][place] = np.where(last, -1, slot + 1)
        rows["_previous"][place] = slot - 1
        meta = np.zeros((len(counts), META), np.int64)
        meta[:, HEAD] = np.where(counts, 0, NONE)
        meta[:, TAIL] = counts - 1
        meta[:, FREE] = meta[:, PENDING] = NONE
        meta[:, USED] = meta[:, LIVE] = counts
        return KeyedScratch(rows, np.full(codes, -1, np.int32), meta.reshape(-1), base), place

    def arguments(self, first: int) -> tuple[npt.NDArray[Any], ...]:
        """A kernel's arguments from an aggregate on. Each call gets its own map of keys to rows: several may run."""
        return self.rows, self.slots.copy(), self.meta[META * first :], self.base[first:]

    def copied(self) -> KeyedScratch:
        """A copy of the only aggregate's rows."""
        used = int(self.meta[USED])
        return KeyedScratch(self.rows[:used].copy(), self.slots[:0], self.meta.copy(), _starts(np.array([used])))

    @staticmethod
    def concat(several: Sequence[KeyedScratch]) -> KeyedScratch:
        """One scratch for the aggregates of several, as far as `in_order` needs it."""
        rows, base = _concat([one.rows for one in several])
        return KeyedScratch(rows, several[0].slots, np.concatenate([one.meta for one in several]), base)

    def in_order(self) -> tuple[Int64Array, Int64Array]:
        """Offsets per aggregate and row numbers in order of first touch."""
        offsets = _starts(self.meta.reshape(-1, META)[:, LIVE])
        order = np.empty(int(offsets[-1]), np.int64)
        _keyed_order(*_links(self.rows), self.meta, self.base, offsets, order)
        return offsets, order


def keyed_in(
    table: Keyed, column: pa.ListArray, capacity: Int64Array, dictionary: Dictionary, codes: int
) -> KeyedScratch:
    """A keyed table's portable column as arrays, with space for `capacity` rows an aggregate."""
    offsets, values = _list_parts(column)
    scratch, place = KeyedScratch.of(
        table.row_dtype, offsets, dictionary.encode(values.field(table.key)), capacity, codes
    )
    _rows_in(table, values, scratch.rows, place, dictionary)
    return scratch


def keyed_out(table: Keyed, scratch: KeyedScratch, dictionary: Dictionary) -> Any:
    """A keyed table's arrays as a portable column, in order of first touch."""
    offsets, order = scratch.in_order()
    rows = scratch.rows.take(order)
    return _rows_out(table, np.ascontiguousarray(rows["_key"]), rows, offsets, dictionary)


@dataclass
class QueueScratch:
    """Arrays behind a QueueView: an index by key and a pool of rows, both per aggregate."""

    index: KeyedScratch
    pool: npt.NDArray[Any]
    meta: Int64Array
    base: Int64Array

    def arguments(self, first: int) -> tuple[npt.NDArray[Any], ...]:
        return *self.index.arguments(first), self.pool, self.meta[META * first :], self.base[first:]

    def copied(self) -> QueueScratch:
        """A copy of the only aggregate's rows."""
        used = int(self.meta[USED])
        return QueueScratch(self.index.copied(), self.pool[:used].copy(), self.meta.copy(), _starts(np.array([used])))

    @staticmethod
    def concat(several: Sequence[QueueScratch]) -> QueueScratch:
        """One scratch for the aggregates of several, as far as `queue_out` needs it."""
        index = KeyedScratch.concat([one.index for one in several])
        pool, base = _concat([one.pool for one in several])
        return QueueScratch(index, pool, np.concatenate([one.meta for one in several]), base)


def queue_in(
    table: Queue,
    column: pa.ListArray,
    keys_capacity: Int64Array,
    pushes: Int64Array,
    dictionary: Dictionary,
    codes: int,
    index_dtype: np.dtype[Any],
) -> QueueScratch:
    """A queue's portable column as arrays, with space for `pushes` more rows an aggregate."""
    offsets, values = _list_parts(column)
    counts = np.diff(offsets)
    keys = dictionary.encode(values.field(table.key))
    owner = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(len(keys)) - np.repeat(offsets[:-1], counts)
    # A key's rows are adjacent: a run begins where the aggregate or the key changes.
    begins = np.ones(len(keys), bool)
    begins[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
    heads = np.flatnonzero(begins)
    lengths = np.diff(np.append(heads, len(keys)))
    index_offsets = _starts(np.bincount(owner[heads], minlength=len(counts)).astype(np.int64))
    index, place = KeyedScratch.of(index_dtype, index_offsets, keys[heads], keys_capacity, codes)
    index.rows["first"][place] = slot[heads]
    index.rows["last"][place] = slot[heads] + lengths - 1
    index.rows["count"][place] = lengths
    base = _starts(counts + pushes)
    pool = np.empty(int(base[-1]), table.row_dtype)
    at = slot + np.repeat(base[:-1], counts)
    ends = np.zeros(len(keys), bool)
    ends[heads + lengths - 1] = True
    pool["_next"][at] = np.where(ends, -1, slot + 1)
    _rows_in(table, values, pool, at, dictionary)
    meta = np.full((len(counts), META), NONE, np.int64)
    meta[:, USED] = counts
    return QueueScratch(index, pool, meta.reshape(-1), base)


def queue_out(table: Queue, scratch: QueueScratch, dictionary: Dictionary) -> Any:
    """A queue's arrays as a portable column: by key in order of first touch, oldest first."""
    key_offsets, key_rows = scratch.index.in_order()
    entries = scratch.index.rows.take(key_rows)  # for records twenty times as fast as an index
    counts, first = (np.ascontiguousarray(entries[name]) for name in ("count", "first"))
    order = np.empty(int(counts.sum()), np.int64)
    _queue_order(*_links(scratch.pool), first, counts, key_offsets, scratch.base, order)
    keys = np.repeat(np.ascontiguousarray(entries["_key"]), counts)
    return _rows_out(table, keys, scratch.pool.take(order), _starts(counts)[key_offsets], dictionary)


@dataclass
class LadderScratch:
    """Arrays behind a LadderView: prices best first and a size per price, per aggregate."""

    prices: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    meta: Int64Array
    base: Int64Array

    def arguments(self, first: int) -> tuple[npt.NDArray[Any], ...]:
        return self.prices, self.sizes, self.meta[LADDER_META * first :], self.base[first:]

    def copied(self) -> LadderScratch:
        """A copy of the only aggregate's levels."""
        levels = _levels(self.sizes)
        return LadderScratch(self.prices[levels], self.sizes[levels], self.meta[:0], _starts(np.array([len(levels)])))

    @staticmethod
    def concat(several: Sequence[LadderScratch]) -> LadderScratch:
        """One scratch for the aggregates of several, as far as `ladder_out` needs it."""
        prices, base = _concat([one.prices for one in several])
        return LadderScratch(prices, np.concatenate([one.sizes for one in several]), several[0].meta, base)


def _levels(sizes: npt.NDArray[np.float64]) -> Int64Array:
    """Ranks that have a level; a NaN size counts. Finding bools is eight times as fast as finding floats."""
    return np.flatnonzero(sizes != 0.0)


def ladder_levels(column: pa.ListArray) -> tuple[Int64Array, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Offsets, prices and sizes of a ladder's portable column."""
    offsets, values = _list_parts(column)
    return offsets, values.field("price").to_numpy(), values.field("size").to_numpy()


def ladder_in(ladder: Ladder, column: pa.ListArray, ranks: Ranks) -> LadderScratch:
    """A ladder's portable column as sizes by rank."""
    offsets, prices, sizes = ladder_levels(column)
    flat = np.zeros(len(ranks.ascending))
    for a in np.flatnonzero(np.diff(offsets)):
        low, high = ranks.base[a], ranks.base[a + 1]
        rank = np.searchsorted(ranks.ascending[low:high], prices[offsets[a] : offsets[a + 1]])
        place = high - 1 - rank if ladder.side == "bid" else low + rank
        flat[place] = sizes[offsets[a] : offsets[a + 1]]
    ordered = ranks.descending if ladder.side == "bid" else ranks.ascending
    return LadderScratch(ordered, flat, np.zeros(LADDER_META * (len(ranks.base) - 1), np.int64), ranks.base)


def ladder_out(ladder: Ladder, scratch: LadderScratch) -> Any:
    """A ladder's sizes as a portable column, best first."""
    levels = _levels(scratch.sizes)
    offsets = np.searchsorted(levels, scratch.base)
    kind = ladder.arrow.type
    values = pa.StructArray.from_arrays(
        [pa.array(scratch.prices[levels]), pa.array(canonical(scratch.sizes[levels]))], fields=list(kind.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)
