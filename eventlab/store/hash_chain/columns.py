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
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

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


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, content: Any, /) -> None: ...


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
    kind = block.type.name
    leaves: list[Leaf] = [(kind, "", schema_digest(block.type))]
    if len(block) != count:
        leaves.append((kind, "position", _fixed_leaf(INTEGER, block.position - first_position, None)))
    leaves.append((kind, "aggregate_id", _coded_leaf(block.aggregate, None, name_of)))
    leaves.append((kind, "version", _fixed_leaf(INTEGER, block.version, None)))
    leaves.append((kind, "timestamp", _fixed_leaf(INTEGER, block.timestamp, None)))
    if block.cause is not None and (valid := block.cause >= 0).any():
        leaves.append((kind, "cause", _fixed_leaf(INTEGER, np.where(valid, block.cause, 0), _partial(valid))))
    if block.event_id is not None and not is_all_null(block.event_id):
        leaves.append((kind, "event_id", _text_leaf(block.event_id.dictionary_encode())))
    if block.metadata is not None and not is_all_null(block.metadata):
        leaves.append((kind, "metadata", _text_leaf(block.metadata)))
    for name, column in block.columns.items():
        if not is_all_null(column):
            leaves.append((kind, name, _column_leaf(column)))
    return leaves


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
        self._added = 0
        self._held: Block | None = None
        kinds = {"aggregate_id": TEXT, "version": INTEGER, "timestamp": INTEGER, "cause": INTEGER}
        kinds |= {"event_id": TEXT, "metadata": TEXT} | {field.name: _kind(field.arrow_type) for field in declared}
        if rows != count:
            kinds["position"] = INTEGER
        self._hashes = {name: hashlib.sha256(_LEAF.pack(kind, rows)) for name, kind in kinds.items()}
        self._present = set(kinds) - {"cause", "event_id", "metadata", *(field.name for field in declared)}

    def add(self, block: Block) -> None:
        """The next events, in position order."""
        self._added += len(block)
        held = self._held
        if held is not None:
            missing = min(_BLOCK_ROWS - len(held), len(block))
            held, block = concat_blocks([held, block.slice(0, missing)]), block.slice(missing, len(block))
            if len(held) < _BLOCK_ROWS:
                self._held = held
                return
            self._hash(held)
        full = len(block) - len(block) % _BLOCK_ROWS
        self._hash(block.slice(0, full))
        rest = np.arange(full, len(block))
        self._held = block.take(rest) if len(rest) else None  # a copy: a slice would keep all of it

    def done(self) -> list[Leaf]:
        """The leaves; ValueError where other rows were added than announced."""
        if self._added != self._rows:
            raise ValueError(f"{self._added} rows instead of {self._rows}")
        if self._held is not None:
            self._hash(self._held)
        kind = self._type.name
        leaves = [(kind, name, leaf.digest()) for name, leaf in self._hashes.items() if name in self._present]
        return [(kind, "", schema_digest(self._type)), *leaves]

    def _hash(self, block: Block) -> None:
        rows, hashes = len(block), self._hashes
        if not rows:
            return
        if "position" in hashes:
            _add_fixed(hashes["position"], block.position - self._first, None)
        _add_codes(hashes["aggregate_id"], block.aggregate, None, self._name_of)
        _add_fixed(hashes["version"], block.version, None)
        _add_fixed(hashes["timestamp"], block.timestamp, None)
        cause = np.full(rows, -1) if block.cause is None else block.cause
        valid = cause >= 0
        _add_fixed(hashes["cause"], np.where(valid, cause, 0), _partial(valid))
        if valid.any():
            self._present.add("cause")
        nulls = pa.nulls(rows, pa.string()).dictionary_encode()
        texts = {
            "event_id": nulls if block.event_id is None else block.event_id.dictionary_encode(),
            "metadata": nulls if block.metadata is None else block.metadata,
        }
        for name, column in (*texts.items(), *block.columns.items()):
            if not is_all_null(column):
                self._present.add(name)
            if pa.types.is_dictionary(column.type):
                codes, known = text_codes(column)
                _add_codes(hashes[name], codes, known, _word_of(column.dictionary))
                continue
            values, known = _values(column)
            (_add_bools if values.dtype == np.bool_ else _add_fixed)(hashes[name], values, known)


def _word_of(words: pa.Array) -> Callable[[int], str]:
    return lambda code: str(words[code].as_py())


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
    values, valid = _values(column)
    return _bool_leaf(values, valid) if values.dtype == np.bool_ else _fixed_leaf(_kind(column.type), values, valid)


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
    if pa.types.is_dictionary(arrow_type):
        return TEXT
    return BOOL if pa.types.is_boolean(arrow_type) else FLOAT if pa.types.is_floating(arrow_type) else INTEGER


def _blocks(rows: int) -> Iterable[tuple[int, int]]:
    return ((start, min(start + _BLOCK_ROWS, rows)) for start in range(0, rows, _BLOCK_ROWS))


def _validity(valid: Mask | None, start: int, stop: int) -> bytes:
    if valid is None or valid[start:stop].all():
        return b"\0"
    return b"\1" + np.packbits(valid[start:stop], bitorder="little").tobytes()


def _fixed_leaf(kind: int, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], valid: Mask | None) -> bytes:
    rows = len(values)
    little: npt.NDArray[Any] = values
    if not values.flags.c_contiguous or sys.byteorder != "little":
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if rows <= _BLOCK_ROWS and valid is None:
        return hashlib.sha256(b"".join((_LEAF.pack(kind, rows), b"\0", little.data))).digest()
    leaf = hashlib.sha256(_LEAF.pack(kind, rows))
    _add_fixed(leaf, little, valid)
    return leaf.digest()


def _add_fixed(leaf: Hash, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], valid: Mask | None) -> None:
    little = values.dtype.newbyteorder("<")
    for start, stop in _blocks(len(values)):
        leaf.update(_validity(valid, start, stop))
        leaf.update(np.ascontiguousarray(values[start:stop], dtype=little).data)


def _bool_leaf(flags: Mask, valid: Mask | None) -> bytes:
    leaf = hashlib.sha256(_LEAF.pack(BOOL, len(flags)))
    _add_bools(leaf, flags, valid)
    return leaf.digest()


def _add_bools(leaf: Hash, flags: Mask, valid: Mask | None) -> None:
    for start, stop in _blocks(len(flags)):
        leaf.update(_validity(valid, start, stop))
        leaf.update(np.packbits(flags[start:stop], bitorder="little").tobytes())


def _text_leaf(array: pa.DictionaryArray) -> bytes:
    codes, valid = text_codes(array)
    dictionary = array.dictionary
    return _coded_leaf(codes, valid, lambda code: str(dictionary[code].as_py()))


def _coded_leaf(codes: Int64Array | npt.NDArray[np.int32], valid: Mask | None, value_of: Callable[[int], str]) -> bytes:
    leaf = hashlib.sha256(_LEAF.pack(TEXT, len(codes)))
    _add_codes(leaf, codes, valid, value_of)
    return leaf.digest()


def _add_codes(
    leaf: Hash, codes: Int64Array | npt.NDArray[np.int32], valid: Mask | None, value_of: Callable[[int], str]
) -> None:
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
