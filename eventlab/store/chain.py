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

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array, is_all_null, text_codes

GENESIS = bytes(32)

_MAGIC = b"eventlab commit 1\0"
_BLOCK_ROWS = 65_536
_FLOAT, _INTEGER, _BOOL, _TEXT = 1, 2, 3, 4
_HEADER = struct.Struct("<QQqI")
_LENGTH = struct.Struct("<I")
_LEAF = struct.Struct("<BQ")

Leaf = tuple[str, str, bytes]
Mask = npt.NDArray[np.bool_]


def commit_digest(previous: bytes, first_position: int, count: int, recorded_at: int, leaves: Iterable[Leaf]) -> bytes:
    """Digest of a commit from the one before it and the leaves of its columns."""
    ordered = sorted((kind.encode(), column.encode(), leaf) for kind, column, leaf in leaves)
    parts = [_MAGIC, previous, _HEADER.pack(first_position, count, recorded_at, len(ordered))]
    for kind, column, leaf in ordered:
        parts += [_LENGTH.pack(len(kind)), kind, _LENGTH.pack(len(column)), column, leaf]
    return hashlib.sha256(b"".join(parts)).digest()


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
    kind = block.type.name
    leaves: list[Leaf] = [(kind, "", schema_digest(block.type))]
    if len(block) != count:
        leaves.append((kind, "position", _fixed_leaf(_INTEGER, block.position - first_position, None)))
    leaves.append((kind, "aggregate_id", _coded_leaf(block.aggregate, None, name_of)))
    leaves.append((kind, "version", _fixed_leaf(_INTEGER, block.version, None)))
    leaves.append((kind, "timestamp", _fixed_leaf(_INTEGER, block.timestamp, None)))
    if block.cause is not None and (valid := block.cause >= 0).any():
        leaves.append((kind, "cause", _fixed_leaf(_INTEGER, np.where(valid, block.cause, 0), _partial(valid))))
    if block.event_id is not None and not is_all_null(block.event_id):
        leaves.append((kind, "event_id", _text_leaf(block.event_id.dictionary_encode())))
    if block.metadata is not None and not is_all_null(block.metadata):
        leaves.append((kind, "metadata", _text_leaf(block.metadata)))
    for name, column in block.columns.items():
        if not is_all_null(column):
            leaves.append((kind, name, _column_leaf(column)))
    return leaves


@lru_cache(maxsize=256)
def _digest_of_schema(schema_json: str) -> bytes:
    return hashlib.sha256(schema_json.encode()).digest()


_schema_digests: dict[int, tuple[EventType, bytes]] = {}


def schema_digest(declared: EventType) -> bytes:
    """SHA-256 of an event type's schema in canonical JSON."""
    known = _schema_digests.get(id(declared))
    if known is None or known[0] is not declared:  # by identity: writing the JSON out costs more than a small commit
        known = _schema_digests[id(declared)] = (declared, _digest_of_schema(declared.schema_json()))
    return known[1]


def _partial(valid: Mask) -> Mask | None:
    return None if valid.all() else valid


def _column_leaf(column: pa.Array) -> bytes:
    if pa.types.is_dictionary(column.type):
        return _text_leaf(column)
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    if pa.types.is_boolean(column.type):
        flags = column if valid is None else column.fill_null(False)
        return _bool_leaf(flags.to_numpy(zero_copy_only=False), valid)
    if pa.types.is_floating(column.type):
        filled = column if valid is None else column.fill_null(0.0)
        return _fixed_leaf(_FLOAT, filled.to_numpy(), valid)
    numbers = column if pa.types.is_int64(column.type) else column.view(pa.int64())
    filled = numbers if valid is None else numbers.fill_null(0)
    return _fixed_leaf(_INTEGER, filled.to_numpy(), valid)


def _blocks(rows: int) -> Iterable[tuple[int, int]]:
    return ((start, min(start + _BLOCK_ROWS, rows)) for start in range(0, rows, _BLOCK_ROWS))


def _validity(valid: Mask | None, start: int, stop: int) -> bytes:
    if valid is None or valid[start:stop].all():
        return b"\0"
    return b"\1" + np.packbits(valid[start:stop], bitorder="little").tobytes()


def _fixed_leaf(kind: int, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], valid: Mask | None) -> bytes:
    rows = len(values)
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    leaf = hashlib.sha256(_LEAF.pack(kind, rows))
    for start, stop in _blocks(rows):
        leaf.update(_validity(valid, start, stop))
        leaf.update(little[start:stop].data)
    return leaf.digest()


def _bool_leaf(flags: Mask, valid: Mask | None) -> bytes:
    leaf = hashlib.sha256(_LEAF.pack(_BOOL, len(flags)))
    for start, stop in _blocks(len(flags)):
        leaf.update(_validity(valid, start, stop))
        leaf.update(np.packbits(flags[start:stop], bitorder="little").tobytes())
    return leaf.digest()


def _text_leaf(array: pa.DictionaryArray) -> bytes:
    codes, valid = text_codes(array)
    dictionary = array.dictionary
    return _coded_leaf(codes, valid, lambda code: str(dictionary[code].as_py()))


def _coded_leaf(codes: Int64Array | npt.NDArray[np.int32], valid: Mask | None, value_of: Callable[[int], str]) -> bytes:
    leaf = hashlib.sha256(_LEAF.pack(_TEXT, len(codes)))
    for start, stop in _blocks(len(codes)):
        leaf.update(_validity(valid, start, stop))
        here = codes[start:stop]
        present = None if valid is None else valid[start:stop]
        distinct, dense = _first_appearance(here if present is None else here[present])
        leaf.update(_LENGTH.pack(len(distinct)))
        for code in distinct:
            text = value_of(code).encode()
            leaf.update(_LENGTH.pack(len(text)) + text)
        width = np.dtype("u1" if len(distinct) <= 2**8 else "<u2" if len(distinct) <= 2**16 else "<u4")
        spread = dense.astype(width)
        if present is not None:
            spread = np.zeros(len(here), dtype=width)
            spread[present] = dense
        leaf.update(bytes((width.itemsize,)) + spread.tobytes())
    return leaf.digest()


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
