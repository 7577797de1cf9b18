"""The tail: small commits, one catalog row each, their columns as Arrow record batches without schema.

A blob holds one part per event type: u32 type number, u32 length, then the batch's IPC message, each part aligned to
eight bytes. The schema follows from the event type, which the catalog keeps once. Text lies there as plain strings,
words of a closed vocabulary as codes, aggregates as the catalog's numbers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blocks import TEXT, Block, decoded, is_all_null, joined

_PART = struct.Struct("<II")
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
def _schema(declared: EventType) -> pa.Schema:
    payload = []
    for field in declared:
        stored = pa.int32() if field.kind == "enum" else pa.string() if field.is_text else field.arrow_type
        payload.append(pa.field(f"_{field.name}", stored))
    return pa.schema(_ENVELOPE + payload)


def to_blob(parts: Sequence[tuple[int, Block]]) -> bytes:
    """The blocks of a commit, each with its event type's number."""
    pieces: list[bytes | pa.Buffer] = []
    for number, block in parts:
        message = _batch(block).serialize()
        pieces += [_PART.pack(number, message.size), message]
        pieces.append(bytes(-message.size % 8))
    return b"".join(pieces)


def _batch(block: Block) -> pa.RecordBatch:
    rows = len(block)
    arrays = [
        pa.array(block.position),
        pa.array(block.aggregate),
        pa.array(block.version),
        pa.array(block.timestamp),
        pa.nulls(rows, pa.int64()) if block.cause is None else pa.array(block.cause),
        pa.nulls(rows, pa.string()) if block.event_id is None else block.event_id,
        pa.nulls(rows, pa.string()) if block.metadata is None else decoded(block.metadata),
    ]
    for field in block.type:
        column = block.columns[field.name]
        arrays.append(column.indices if field.kind == "enum" else decoded(column) if field.is_text else column)
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(block.type))


def from_blob(blob: bytes, types: Mapping[int, EventType]) -> list[Block]:
    """The blocks of one commit. Raises StoreCorrupt where the bytes are not what was written."""
    buffer = pa.py_buffer(blob)
    blocks, start = [], 0
    try:
        while start < len(blob):
            number, size = _PART.unpack_from(blob, start)
            start += _PART.size
            batch = pa.ipc.read_record_batch(buffer.slice(start, size), _schema(types[number]))
            blocks.append(_block(types[number], batch))
            start += size + -size % 8
    except (pa.ArrowException, OSError, EOFError, struct.error, KeyError) as error:
        raise StoreCorrupt("a small commit cannot be read", got=str(error)) from error
    return blocks


def _block(declared: EventType, batch: pa.RecordBatch) -> Block:
    position, aggregate, version, timestamp, cause, event_id, metadata, *payload = batch.columns
    columns = {}
    for field, column in zip(declared, payload, strict=True):
        if field.kind == "enum":
            columns[field.name] = pa.DictionaryArray.from_arrays(column, _vocabulary(field.vocabulary))
        else:
            columns[field.name] = column.dictionary_encode() if field.is_text else column
    return Block(
        declared,
        position.to_numpy(),
        aggregate.to_numpy(),
        version.to_numpy(),
        timestamp.to_numpy(),
        None if is_all_null(cause) else cause.to_numpy(),
        None if is_all_null(event_id) else event_id,
        None if is_all_null(metadata) else pc.dictionary_encode(metadata).cast(TEXT),
        columns,
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
