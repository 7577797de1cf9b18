"""The digest of a commit: what proves that a history was not rewritten. Its format is permanent.

A commit's digest is SHA-256 over, in this order, all integers little-endian:

=====================  ==============================================================================================
``eventlab commit 1``  these 17 bytes and a zero byte
previous               the digest of the commit before, 32 bytes; zeros for the first
first position         u64
events                 u64
recorded_at            i64
leaves                 u32, their number
each leaf              event type and column, each as u32 length and UTF-8; the leaf's digest, 32 bytes
=====================  ==============================================================================================

Leaves are sorted by (event type, column) as UTF-8. For each event type in the commit there is one named ``""`` that
holds SHA-256 of the type's schema as canonical JSON, and one for each of ``position``, ``aggregate_id``, ``version``,
``timestamp``, ``cause``, ``event_id``, ``metadata`` and the payload fields. A column without any value has no leaf, and
``position``, as the offset from the commit's first, has one only where the type's events are not the whole commit.

A column's leaf is SHA-256 over u8 kind (1 float, 2 integer or time, 3 bool, 4 text), u64 rows, then the rows in
position order in blocks of 65,536. Each block is

- u8: 1 where it has nulls, followed by its validity as bits, lowest first, padded to bytes; else 0;
- float, integer, time: 8 bytes a row (IEEE 754 binary64; two's complement; times are ns UTC), zero where null;
- bool: bits, lowest first, padded to bytes, zero where null;
- text: u32 number of distinct values; these in order of first appearance, each as u32 length and UTF-8; u8 width (1, 2
  or 4: the first that holds that number less one); a code of that width a row, zero where null.

Nothing here depends on how events lie on disk, so sealing keeps the chain; and leaves can be published or a column
erased while the proof of the others stands.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array, concat_blocks, is_all_null, text_codes

GENESIS = bytes(32)

_MAGIC = b"eventlab commit 1\0"
_BLOCK_ROWS = 65_536
FLOAT, INTEGER, BOOL, TEXT = 1, 2, 3, 4
"""Kinds of columns."""

_HEADER = struct.Struct("<QQqI")
_LENGTH = struct.Struct("<I")
_LEAF = struct.Struct("<BQ")

Leaf = tuple[str, str, bytes]
Mask = npt.NDArray[np.bool_]


def commit_digest(previous: bytes, first_position: int, count: int, recorded_at: int, leaves: Iterable[Leaf]) -> bytes:
    """Digest of a commit from the one before it and the leaves of its columns."""
    ordered = sorted((kind.encode(), column.encode(), kind, column, leaf) for kind, column, leaf in leaves)
    parts = [header(previous, first_position, count, recorded_at, len(ordered))]
    parts += [leaf_prefix(kind, column) + leaf for _, _, kind, column, leaf in ordered]
    return hashlib.sha256(b"".join(parts)).digest()


def header(previous: bytes, first_position: int, count: int, recorded_at: int, leaves: int) -> bytes:
    """What a commit's digest covers before its leaves."""
    return _MAGIC + previous + _HEADER.pack(first_position, count, recorded_at, leaves)


@lru_cache(maxsize=4096)
def leaf_prefix(kind: str, column: str) -> bytes:
    """What a commit's digest covers of a leaf before the leaf's own digest."""
    names = (kind.encode(), column.encode())
    return b"".join(_LENGTH.pack(len(name)) + name for name in names)


def block_leaves(block: Block, first_position: int, count: int, name_of: Callable[[int], str]) -> list[Leaf]:
    """Leaves of one event type's part of a commit.

    Parameters
    ----------
    block : Block
        All of the commit's events of this type, with all payload columns that hold a value.
    first_position, count : int
        The whole commit's.
    name_of : callable
        Aggregate id of an aggregate's number.
    """
    leaves = Leaves(block.type, first_position, count, len(block), name_of)
    leaves.hash(block)
    return leaves.done()


class Leaves:
    """Leaves of one event type's part of a commit that comes in pieces: as `block_leaves`, without all of it at once.

    Parameters
    ----------
    declared : EventType
    first_position, count : int
        The whole commit's.
    rows : int
        How many of its events are of this type.
    name_of : callable
        Aggregate id of an aggregate's number.
    """

    def __init__(
        self, declared: EventType, first_position: int, count: int, rows: int, name_of: Callable[[int], str]
    ) -> None:
        self._type, self._first, self._rows, self._name_of = declared, first_position, rows, name_of
        self._is_part = rows != count
        self._hashed = 0
        self._held: Block | None = None
        self._columns: dict[str, _ColumnHash] = {}

    def add(self, block: Block) -> None:
        """The next events, in position order."""
        held = self._held
        if held is not None:
            missing = min(_BLOCK_ROWS - len(held), len(block))
            held, block = concat_blocks([held, block.slice(0, missing)]), block.slice(missing, len(block))
            if len(held) < _BLOCK_ROWS:
                self._held = held
                return
            self.hash(held)
        full = len(block) - len(block) % _BLOCK_ROWS
        self.hash(block.slice(0, full))
        rest = np.arange(full, len(block))
        self._held = block.take(rest) if len(rest) else None  # a copy: a slice would keep all of it

    def hash(self, block: Block) -> None:
        """The next events: full blocks, or all that are left."""
        if not len(block):
            return
        if self._is_part:
            self._add("position", INTEGER, block.position - self._first)
        self._add("aggregate_id", TEXT, block.aggregate, None, self._name_of)
        self._add("version", INTEGER, block.version)
        self._add("timestamp", INTEGER, block.timestamp)
        if block.cause is not None and (valid := block.cause >= 0).any():
            self._add("cause", INTEGER, np.where(valid, block.cause, 0), valid)
        event_id = None if block.event_id is None else block.event_id.dictionary_encode()
        for name, column in {"event_id": event_id, "metadata": block.metadata, **block.columns}.items():
            if column is None or is_all_null(column):
                continue
            if pa.types.is_dictionary(column.type):
                self._add(name, TEXT, *text_codes(column), _word_of(column.dictionary))
            else:
                self._add(name, _kind(column.type), *_values(column))
        self._hashed += len(block)

    def done(self) -> list[Leaf]:
        """The leaves; ValueError where other rows were added than announced."""
        if self._held is not None:
            self.hash(self._held)
        if self._hashed != self._rows:
            raise ValueError(f"{self._hashed} rows instead of {self._rows}")
        kind = self._type.name
        leaves = [(kind, name, column.digest(self._rows)) for name, column in self._columns.items()]
        return [(kind, "", schema_digest(self._type)), *leaves]

    def _add(
        self,
        name: str,
        kind: int,
        values: npt.NDArray[Any],
        valid: Mask | None = None,
        word_of: Callable[[int], str] = str,
    ) -> None:
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = _ColumnHash(kind, self._rows)
        column.add_nulls(self._hashed)
        column.add(values, valid, word_of)


class _ColumnHash:
    """The hash of a column that holds a value, by blocks of its rows."""

    def __init__(self, kind: int, rows: int) -> None:
        self._kind = kind
        self._hash = hashlib.sha256(_LEAF.pack(kind, rows))
        self._rows = 0

    def add(self, values: npt.NDArray[Any], valid: Mask | None, word_of: Callable[[int], str]) -> None:
        """Rows from the start of a block on: numbers, flags, or codes of words."""
        self._rows += len(values)
        little = values.dtype.newbyteorder("<")
        for start in range(0, len(values), _BLOCK_ROWS):
            here = values[start : start + _BLOCK_ROWS]
            present = None if valid is None else valid[start : start + _BLOCK_ROWS]
            if present is None or present.all():
                present = None
                self._hash.update(b"\0")
            else:
                self._hash.update(b"\1" + np.packbits(present, bitorder="little").tobytes())
            if self._kind == TEXT:
                self._hash.update(_words(here, present, word_of))
            elif self._kind == BOOL:
                self._hash.update(np.packbits(here, bitorder="little").tobytes())
            else:
                self._hash.update(np.ascontiguousarray(here, dtype=little).data)

    def add_nulls(self, until: int) -> None:
        """Nulls for the rows up to this one that were not added."""
        if rows := until - self._rows:
            self.add(np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.bool_), str)

    def digest(self, rows: int) -> bytes:
        """The column's leaf."""
        self.add_nulls(rows)
        return self._hash.digest()


def _words(codes: npt.NDArray[Any], present: Mask | None, word_of: Callable[[int], str]) -> bytes:
    """A block of text: its distinct words in order of first appearance, and the place of each row's word."""
    distinct, dense = _first_appearance(codes if present is None else codes[present])
    words = [word_of(code).encode() for code in distinct]
    width = np.dtype("u1" if len(distinct) <= 2**8 else "<u2" if len(distinct) <= 2**16 else "<u4")
    spread = dense.astype(width)
    if present is not None:
        spread = np.zeros(len(codes), dtype=width)
        spread[present] = dense
    parts = [part for word in words for part in (_LENGTH.pack(len(word)), word)]
    return b"".join((_LENGTH.pack(len(words)), *parts, bytes((width.itemsize,)), spread.tobytes()))


def _word_of(words: pa.Array) -> Callable[[int], str]:
    return lambda code: str(words[code].as_py())


@lru_cache(maxsize=256)
def schema_digest(declared: EventType) -> bytes:
    """SHA-256 of an event type's schema in canonical JSON."""
    return hashlib.sha256(declared.schema_json().encode()).digest()


def _values(column: pa.Array) -> tuple[npt.NDArray[Any], Mask | None]:
    """The values of a column that is not text, zero where null, and its validity (None where nothing is null)."""
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    if pa.types.is_boolean(column.type):
        flags = column if valid is None else column.fill_null(False)
        return flags.to_numpy(zero_copy_only=False), valid
    if pa.types.is_floating(column.type):
        return (column if valid is None else column.fill_null(0.0)).to_numpy(), valid
    numbers = column if pa.types.is_int64(column.type) else column.view(pa.int64())
    return (numbers if valid is None else numbers.fill_null(0)).to_numpy(), valid


def _kind(arrow_type: pa.DataType) -> int:
    return BOOL if pa.types.is_boolean(arrow_type) else FLOAT if pa.types.is_floating(arrow_type) else INTEGER


def _first_appearance(codes: npt.NDArray[np.int64] | npt.NDArray[np.int32]) -> tuple[Sequence[int], Int64Array]:
    """Distinct codes in order of first appearance, and every row's place among them."""
    rows = len(codes)
    if rows == 0:
        return [], np.empty(0, dtype=np.int64)
    low, high = int(codes.min()), int(codes.max())
    if low == high:
        return [low], np.zeros(rows, dtype=np.int64)
    if high - low > 4 * rows + 1024:
        values, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return [int(value) for value in values[order]], rank[inverse]
    shifted = codes - low
    first = np.full(high - low + 1, rows, dtype=np.int64)
    first[shifted[::-1]] = np.arange(rows - 1, -1, -1)  # of repeated targets the last one assigned stays
    used = np.flatnonzero(first < rows)
    ordered = used[np.argsort(first[used])]
    rank = np.empty(high - low + 1, dtype=np.int64)
    rank[ordered] = np.arange(len(ordered))
    return [int(code) + low for code in ordered], rank[shifted]
