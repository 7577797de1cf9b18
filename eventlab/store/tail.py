"""The tail: small commits, one catalog row each, their columns as Arrow record batches without schema.

A blob starts with a byte: 0 for plain, 1 for LZ4 after the u64 length of the plain form. That holds one part per
event type: the header below, a bit for each of the type's columns that is there, then the batch's IPC message of these
columns, header and message each padded to eight bytes. The schema follows from the event type, which the catalog keeps
once. Text lies there as plain strings, words of a closed vocabulary as codes, aggregates as the catalog's numbers. A
column without any value is left out, and so are numbers that only count up, which the header's first ones say.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blocks import TEXT, Block, decoded, is_all_null, joined, null_column

_PART = struct.Struct("<IIQqqq")  # type number, bytes of the message, rows; first position, aggregate, first version
_LENGTH = struct.Struct("<Q")
_PLAIN, _LZ4 = 0, 1
_COMPRESS_FROM = 4_096
_IN_COLUMN = -1
_ENVELOPE = [
    pa.field("position", pa.int64()),
    pa.field("aggregate", pa.int64()),
    pa.field("version", pa.int64()),
    pa.field("timestamp", pa.int64()),
    pa.field("cause", pa.int64()),
    pa.field("event_id", pa.string()),
    pa.field("metadata", pa.string()),
]


@lru_cache(maxsize=256)
def _fields(declared: EventType) -> tuple[pa.Field, ...]:
    payload = []
    for field in declared:
        stored = pa.int32() if field.kind == "enum" else pa.string() if field.is_text else field.arrow_type
        payload.append(pa.field(f"_{field.name}", stored))
    return (*_ENVELOPE, *payload)


@lru_cache(maxsize=1024)
def _schema(declared: EventType, present: int) -> pa.Schema:
    return pa.schema([field for bit, field in enumerate(_fields(declared)) if present >> bit & 1])


def to_blob(parts: Sequence[tuple[int, Block]]) -> bytes:
    """The blocks of a commit, each with its event type's number."""
    pieces: list[bytes | pa.Buffer] = []
    for number, block in parts:
        header, present, arrays = _stored(block)
        message = pa.RecordBatch.from_arrays(arrays, schema=_schema(block.type, present)).serialize()
        bits = present.to_bytes((len(_fields(block.type)) + 7) // 8, "little")
        pieces += [_PART.pack(number, message.size, len(block), *header), bits, bytes(-(_PART.size + len(bits)) % 8)]
        pieces += [message, bytes(-message.size % 8)]
    plain = b"".join(pieces)
    if len(plain) < _COMPRESS_FROM:
        return bytes((_PLAIN,)) + plain
    squeezed: bytes = pa.compress(plain, codec="lz4_raw", asbytes=True)
    return bytes((_LZ4,)) + _LENGTH.pack(len(plain)) + squeezed


def _stored(block: Block) -> tuple[tuple[int, int, int], int, list[pa.Array]]:
    """First numbers for the header, which columns are there, and these."""
    columns: list[pa.Array | None] = [None, None, None, pa.array(block.timestamp)]
    header = []
    for index, (numbers, step) in enumerate(((block.position, 1), (block.aggregate, 0), (block.version, 1))):
        first = int(numbers[0])
        if int(numbers[-1]) - first == step * (len(numbers) - 1) and (numbers[1:] - numbers[:-1] == step).all():
            header.append(first)
        else:
            header.append(_IN_COLUMN)
            columns[index] = pa.array(numbers)
    columns.append(None if block.cause is None else pa.array(block.cause))
    columns.append(block.event_id)
    columns.append(None if block.metadata is None else decoded(block.metadata))
    for field in block.type:
        column = block.columns[field.name]
        if is_all_null(column):
            columns.append(None)
        else:
            columns.append(column.indices if field.kind == "enum" else decoded(column) if field.is_text else column)
    present = sum(1 << bit for bit, column in enumerate(columns) if column is not None)
    return (header[0], header[1], header[2]), present, [column for column in columns if column is not None]


def from_blob(blob: bytes, types: Mapping[int, EventType]) -> list[Block]:
    """The blocks of one commit. Raises StoreCorrupt where the bytes are not what was written."""
    blocks: list[Block] = []
    try:
        if blob[0] == _LZ4:
            (length,) = _LENGTH.unpack_from(blob, 1)
            plain = pa.decompress(blob[1 + _LENGTH.size :], decompressed_size=length, codec="lz4_raw")
        else:
            plain = pa.py_buffer(blob[1:])
        view, start = memoryview(plain), 0
        while start < len(view):
            number, size, rows, *header = _PART.unpack_from(view, start)
            declared = types[number]
            width = (len(_fields(declared)) + 7) // 8
            present = int.from_bytes(view[start + _PART.size : start + _PART.size + width], "little")
            start += _PART.size + width + -(_PART.size + width) % 8
            batch = pa.ipc.read_record_batch(plain.slice(start, size), _schema(declared, present))
            blocks.append(_block(declared, batch, present, rows, header))
            start += size + -size % 8
    except (pa.ArrowException, OSError, EOFError, struct.error, LookupError, ValueError) as error:
        raise StoreCorrupt("a small commit cannot be read", got=str(error)) from error
    return blocks


def _block(declared: EventType, batch: pa.RecordBatch, present: int, rows: int, header: Sequence[int]) -> Block:
    stored = iter(batch.columns)
    columns = [next(stored) if present >> bit & 1 else None for bit in range(len(_fields(declared)))]
    position, aggregate, version = (
        (np.arange(first, first + rows) if step else np.full(rows, first)) if column is None else column.to_numpy()
        for column, first, step in zip(columns[:3], header, (1, 0, 1), strict=True)
    )
    timestamp, cause, event_id, metadata = columns[3:7]
    if timestamp is None:
        raise StoreCorrupt("a small commit has no event times")
    payload = {}
    for field, column in zip(declared, columns[7:], strict=True):
        if column is None:
            payload[field.name] = null_column(field, rows)
        elif field.kind == "enum":
            payload[field.name] = pa.DictionaryArray.from_arrays(column, _vocabulary(field.vocabulary))
        else:
            payload[field.name] = column.dictionary_encode() if field.is_text else column
    return Block(
        declared,
        position,
        aggregate,
        version,
        timestamp.to_numpy(),
        None if cause is None else cause.to_numpy(),
        event_id,
        None if metadata is None else pc.dictionary_encode(metadata).cast(TEXT),
        payload,
    )


@lru_cache(maxsize=256)
def _vocabulary(words: tuple[str, ...]) -> pa.Array:
    return pa.array(words, pa.string())


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A decoded stretch of the tail: blocks by event type name. Immutable, so readers may keep it."""

    first_position: int
    stop_position: int
    commits: int
    bytes: int
    blocks: Mapping[str, Block]

    def between(self, first: int, stop: int) -> Part:
        """The part of this stretch that lies in ``first:stop``; its commits are not counted anew."""
        first, stop = max(first, self.first_position), min(stop, self.stop_position)
        if (first, stop) == (self.first_position, self.stop_position):
            return self
        cut = {name: block.between(first, stop) for name, block in self.blocks.items()}
        return Part(first, stop, self.commits, self.bytes, {name: b for name, b in cut.items() if len(b)})


def part_of(row: tuple[int, int, int, bytes], types: Mapping[int, EventType], where: str) -> Part:
    """A row of the catalog's tail, decoded: first and stop position, checksum, blob. Raises StoreCorrupt."""
    first, stop, crc, blob = row
    if zlib.crc32(blob) != crc:
        raise StoreCorrupt(
            f"{where}: the commit at positions {first} to {stop - 1} is damaged in the catalog",
            hint="Restore the store from a copy.",
        )
    return Part(first, stop, 1, len(blob), {block.type.name: block for block in from_blob(blob, types)})


def merged(parts: Sequence[Part]) -> Part:
    """Adjacent parts as one."""
    if len(parts) == 1:
        return parts[0]
    grouped: dict[str, list[Block]] = {}
    for part in parts:
        for name, block in part.blocks.items():
            grouped.setdefault(name, []).append(block)
    return Part(
        parts[0].first_position,
        parts[-1].stop_position,
        sum(part.commits for part in parts),
        sum(part.bytes for part in parts),
        {name: joined(blocks) for name, blocks in grouped.items()},
    )


class TailCache:
    """What this process has decoded of the tail, kept so that a read decodes only what is new.

    Parts merge like the digits of a binary counter: there are logarithmically many, and each row is copied that often.
    They do so when read, so that a writer pays nothing for it.
    """

    def __init__(self) -> None:
        self._parts: tuple[Part, ...] = ()
        self._new: list[Part] = []
        self.commits = self.bytes = self.rows = 0

    def append(self, new: Sequence[Part]) -> None:
        """Add parts at the end."""
        self._new += new
        self._count(new)

    def _count(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.commits += part.commits
            self.bytes += part.bytes
            self.rows += _rows(part)

    @property
    def parts(self) -> tuple[Part, ...]:
        """In position order; neighbours may be adjacent or not."""
        if self._new:
            parts = [*self._parts, *adjacent_runs(self._new)]
            while len(parts) > 1:
                before, last = parts[-2:]
                if before.stop_position != last.first_position or _rows(before) > 2 * _rows(last):
                    break
                parts[-2:] = [merged((before, last))]
            self._parts, self._new = tuple(parts), []
        return self._parts

    def drop(self, first: int, stop: int) -> None:
        """Forget positions ``first:stop``, which a segment now holds."""
        kept: list[Part] = []
        for part in self.parts:
            if part.stop_position <= first or part.first_position >= stop:
                kept.append(part)
                continue
            kept += [part.between(part.first_position, first)] if part.first_position < first else []
            kept += [part.between(stop, part.stop_position)] if part.stop_position > stop else []
        self._parts = tuple(kept)
        self.commits = self.bytes = self.rows = 0
        self._count(kept)


def _rows(part: Part) -> int:
    return part.stop_position - part.first_position


def _adjacent(parts: Sequence[Part]) -> list[list[Part]]:
    runs: list[list[Part]] = []
    for part in parts:
        if runs and runs[-1][-1].stop_position == part.first_position:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def adjacent_runs(parts: Sequence[Part]) -> list[Part]:
    """Parts joined where nothing lies between them."""
    return [merged(run) for run in _adjacent(parts)]
