"""The stored form of snapshots: records one after the other, each a head of 64 bytes and Arrow record batches.

    head       magic, kind, format, lengths and checksums of both parts, whose it is, a checksum of its own
    envelope   Arrow: aggregate_id, version, position, timestamp, latest; one row a snapshot
    states     Arrow: the reducer's state in columns, a row for each of the envelope's

Records begin at multiples of 64 bytes. What is not a record, or not whole, is passed over to the next one, so damage
costs the snapshots that it hits. The envelope says what there is without reading any state.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import pyarrow as pa

from eventlab.snapshots.states import MARKS, Marks

FORMAT = 1

_MAGIC = b"EVLABSNP"
_HEAD = struct.Struct("<8sHHIIQI16sI")
_ALIGNED = 64
_LOOK = 1 << 20
_POSITION = struct.Struct("<q")

Part: TypeAlias = "bytes | pa.Buffer"

Kind = Literal["name", "states", "dropped", "log"]
"""``name``: the reducer's name, as text, in the envelope's place. ``dropped``: an envelope whose snapshots are gone.
``log``: where the log ended, and the digest of the commit there, when the states behind it were added."""

_KINDS: tuple[Kind, ...] = get_args(Kind)
_ENVELOPE = pa.schema(
    [pa.field("aggregate_id", pa.string(), False), *(pa.field(name, pa.int64(), False) for name in MARKS)]
)


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record lies in its file, and what its head says.

    Attributes
    ----------
    offset, stop : int
        Its first byte, and one past its last.
    """

    kind: Kind
    offset: int
    stop: int
    envelope_length: int
    envelope_crc: int
    states_length: int
    states_crc: int

    @property
    def envelope_at(self) -> tuple[int, int]:
        """Offset and length."""
        return self.offset + _ALIGNED, self.envelope_length

    @property
    def states_at(self) -> tuple[int, int]:
        """Offset and length."""
        return self.offset + _ALIGNED + _padded(self.envelope_length), self.states_length


def owner_of(prefix: str, store_id: str) -> bytes:
    """What tells the snapshots of one reducer, by its file's prefix, in one store from all others."""
    return hashlib.sha256(f"{store_id}\0{prefix}".encode()).digest()[:16]


def encoded(kind: Kind, envelope: bytes, states: Part, owner: bytes) -> list[Part]:
    """A record's bytes, in parts that follow one another."""
    said = (_MAGIC, _KINDS.index(kind), FORMAT, len(envelope), zlib.crc32(envelope), len(states), zlib.crc32(states))
    head = _HEAD.pack(*said, owner, 0)[:-4]
    head += zlib.crc32(head).to_bytes(4, "little")
    return [part for filled in (head, envelope, states) for part in (filled, bytes(_padded(len(filled)) - len(filled)))]


def _padded(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED


def log_bytes(stop_position: int, digest: bytes) -> bytes:
    """Where the log ended."""
    return _POSITION.pack(stop_position) + digest


def log_of(content: bytes) -> tuple[int, bytes]:
    """Where the log ended, from its bytes."""
    return _POSITION.unpack_from(content)[0], content[_POSITION.size :]


def envelope_bytes(aggregates: Sequence[str], marks: Marks) -> bytes:
    """The envelope of snapshots."""
    arrays = [pa.array(aggregates, pa.string()), *(pa.array(getattr(marks, name)) for name in MARKS)]
    content: bytes = pa.RecordBatch.from_arrays(arrays, schema=_ENVELOPE).serialize().to_pybytes()
    return content


def envelope_of(content: bytes) -> tuple[list[str], Marks]:
    """The aggregate of each snapshot and what it includes, from the envelope's bytes."""
    batch = pa.ipc.read_record_batch(pa.py_buffer(content), _ENVELOPE)
    return batch.column(0).to_pylist(), Marks(*(batch.column(name).to_numpy() for name in MARKS))


def scan(read: Callable[[int, int], bytes], start: int, size: int, owner: bytes) -> Iterator[Record | tuple[int, str]]:
    """The records of a file from a place on, and for each stretch that is none, its offset and what is wrong there."""
    at = start
    while at < size:
        found = head_at(read, at, size, owner)
        if isinstance(found, Record):
            yield found
            at = found.stop
            continue
        yield at, found
        at = _next(read, at + _ALIGNED, size)


def head_at(read: Callable[[int, int], bytes], offset: int, size: int, owner: bytes) -> Record | str:
    """The record that begins at a place of a file, or what is wrong there."""
    content = read(offset, _ALIGNED)
    if len(content) < _ALIGNED or content[:8] != _MAGIC:
        return "is damaged"
    _, kind, form, envelope, envelope_crc, states, states_crc, whose, crc = _HEAD.unpack(content[: _HEAD.size])
    if zlib.crc32(content[: _HEAD.size - 4]) != crc:
        return "is damaged"
    if form != FORMAT or kind >= len(_KINDS):
        return f"is of format {form}, which this eventlab does not read"
    if whose != owner:
        return "is of another store or reducer"
    stop = offset + _ALIGNED + _padded(envelope) + _padded(states)
    if stop > size:
        return "is cut short"
    return Record(_KINDS[kind], offset, stop, envelope, envelope_crc, states, states_crc)


def _next(read: Callable[[int, int], bytes], at: int, size: int) -> int:
    """Where the next head may begin."""
    while at < size:
        piece = read(at, _LOOK)
        found = piece.find(_MAGIC)
        while found >= 0 and found % _ALIGNED:
            found = piece.find(_MAGIC, found + 1)
        if found >= 0:
            return at + found
        at += _LOOK
    return size
