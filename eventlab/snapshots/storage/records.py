"""The format of snapshot files: consecutive records, each a head of 64 bytes and Arrow record batches.

    head       magic, kind, format, lengths and checksums of both parts, owner, the head's own checksum
    envelope   Arrow: aggregate_id, version, position, timestamp, latest; a row for each snapshot
    states     Arrow: the reducer's state in columns, with the rows of the envelope

Records begin at multiples of 64 bytes. A reader skips what is no complete record, so that damage costs only the
snapshots that it hits. Envelopes list the snapshots without reading any state.
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
class SnapshotRecord:
    """A record's place in its file, and its head.

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
    """The id of one reducer's snapshots, by its file's prefix, in one store."""
    return hashlib.sha256(f"{store_id}\0{prefix}".encode()).digest()[:16]


def encoded(kind: Kind, envelope: bytes, states: Part, owner: bytes) -> list[Part]:
    """A record's bytes, in consecutive parts."""
    said = (_MAGIC, _KINDS.index(kind), FORMAT, len(envelope), zlib.crc32(envelope), len(states), zlib.crc32(states))
    head = _HEAD.pack(*said, owner, 0)[:-4]
    head += zlib.crc32(head).to_bytes(4, "little")
    return [part for filled in (head, envelope, states) for part in (filled, bytes(_padded(len(filled)) - len(filled)))]


def _padded(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED


def log_bytes(stop_position: int, digest: bytes) -> bytes:
    """Encode where the log ended."""
    return _POSITION.pack(stop_position) + digest


def log_of(content: bytes) -> tuple[int, bytes]:
    """Decode where the log ended."""
    return _POSITION.unpack_from(content)[0], content[_POSITION.size :]


def envelope_bytes(aggregates: Sequence[str], marks: Marks) -> bytes:
    """Encode the envelope of snapshots."""
    arrays = [pa.array(aggregates, pa.string()), *(pa.array(getattr(marks, name)) for name in MARKS)]
    content: bytes = pa.RecordBatch.from_arrays(arrays, schema=_ENVELOPE).serialize().to_pybytes()
    return content


def envelope_of(content: bytes) -> tuple[list[str], Marks]:
    """Decode an envelope: the aggregate of each snapshot, and what it includes."""
    batch = pa.ipc.read_record_batch(pa.py_buffer(content), _ENVELOPE)
    return batch.column(0).to_pylist(), Marks(*(batch.column(name).to_numpy() for name in MARKS))


def scan(
    read: Callable[[int, int], bytes], start: int, size: int, owner: bytes
) -> Iterator[SnapshotRecord | tuple[int, str]]:
    """The records of a file from `start` on, and for each part that is none, its offset and the reason."""
    at = start
    while at < size:
        found = head_at(read, at, size, owner)
        if isinstance(found, SnapshotRecord):
            yield found
            at = found.stop
            continue
        yield at, found
        at = _next(read, at + _ALIGNED, size)


def head_at(read: Callable[[int, int], bytes], offset: int, size: int, owner: bytes) -> SnapshotRecord | str:
    """The record that begins at an offset, or the reason why there is none."""
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
    return SnapshotRecord(_KINDS[kind], offset, stop, envelope, envelope_crc, states, states_crc)


def _next(read: Callable[[int, int], bytes], at: int, size: int) -> int:
    """The offset at which the next head may begin."""
    while at < size:
        piece = read(at, _LOOK)
        found = piece.find(_MAGIC)
        while found >= 0 and found % _ALIGNED:
            found = piece.find(_MAGIC, found + 1)
        if found >= 0:
            return at + found
        at += _LOOK
    return size
