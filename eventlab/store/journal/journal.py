"""The journal: small commits, one record each, in a preallocated file.

An append is one write and one fdatasync for all records at hand; SQLite needs a page or more per table and takes twice
as long. All integers are little-endian.

======  ================================================================================================
offset  head of the file
======  ================================================================================================
0       ``eventlab journal``, u32 format, 4 bytes zero, 16 bytes store id, 16 bytes zero, u32 CRC-32 of these
64      the published end: u64 offset of the end, u64 of the end that was synced, u64 stop position, u32 CRC-32
128     the first record
======  ================================================================================================

A record is its header, its heads (four i64 each: aggregate number, version and position of the last event the commit
has of it, and the highest event time the aggregate has reached with it), its extras (JSON: what the next seal adds to
the catalog), its blob (see `columns_codec.py`), and zeros up to a multiple of eight. The header's CRC covers heads and
extras too, so that a damaged blob still tells which events are lost. `link` is the beginning of the digest of the
record before it in the file: the remains of an older, failed append never look like a continuation.

Zeros are written after the last record of an append, so that no remains of a longer, failed one can follow it.

The end is published after the sync, and becomes durable with the next one. Readers stop at the published end. Records
past it are complete and synced when a power failure came in between, so the next process that opens the journal, with
no writer alive, takes those that are whole. A record inside the synced end that does not fit is damage, never the end
of the log; past it, the first record that is not whole is the end: its writer was killed, or the power failed, before
it was acknowledged.
"""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventlab.errors import StoreCorrupt, StoreFull
from eventlab.store.journal.journal_file import DiskFile, MemoryFile
from eventlab.store.types import Commit

_MAGIC = b"eventlab journal"
_FORMAT = 1
_HEAD = struct.Struct("<16sI4x16s16x")
_END = struct.Struct("<QQQ")
_END_AT = 64
_START = 128
_CRC = struct.Struct("<I")

_RECORD_MAGIC = b"evR1"
_RECORD = struct.Struct("<4sIIIQIiqq8s32sI")
_HEAD_SIZE = _RECORD.size + _CRC.size
_STOP = bytes(8)
HEAD = struct.Struct("<qqqq")
"""An aggregate after a commit: number, version, position, highest event time."""

_LEAST_ROOM, _MOST_ROOM = 256 * 1024, 1024 * 1024
_TRIES = 100

Extras = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Record(Commit):
    """A small commit with its events.

    Attributes
    ----------
    heads : bytes
        Packed `HEAD` structures.
    extras : mapping
        ``new``: names of aggregates the catalog does not have yet, numbered upwards from ``from``; ``clocks``: of
        aggregates by number; ``backdated``: aggregates that get their first back-dated event; ``source``: identity and
        chunk; ``ids``: whether events have supplied ids.
    blob : bytes or None
        None where it is damaged.
    """

    heads: bytes
    extras: Extras
    blob: bytes | None

    def unpacked_heads(self) -> Iterator[tuple[int, int, int, int]]:
        """Aggregate number, version, position and highest event time, one for each aggregate."""
        return HEAD.iter_unpack(self.heads)

    def packed(self, link: bytes) -> bytes:
        """The record's bytes in the file, after a record whose digest begins with `link`."""
        blob = self.blob or b""
        extras = json.dumps(self.extras, separators=(",", ":"), ensure_ascii=False).encode() if self.extras else b""
        header = _RECORD.pack(
            _RECORD_MAGIC, len(self.heads), len(extras), len(blob), self.first_position, self.events, self.late,
            self.recorded_at, self.last_version, link, self.digest, zlib.crc32(blob),
        )  # fmt: skip
        crc = zlib.crc32(extras, zlib.crc32(self.heads, zlib.crc32(header)))
        size = _HEAD_SIZE + len(self.heads) + len(extras) + len(blob)
        return b"".join((header, _CRC.pack(crc), self.heads, extras, blob, bytes(-size % 8)))


@dataclass(frozen=True, slots=True)
class Lost:
    """An unreadable part of the journal, up to a position; None where its end is unknown."""

    stop_position: int | None
    what: str


def empty(store_id: str) -> bytes:
    """The content of a new journal."""
    head = _HEAD.pack(_MAGIC, _FORMAT, uuid.UUID(store_id).bytes)
    return (head + _CRC.pack(zlib.crc32(head))).ljust(_END_AT, b"\0") + _end(_START, _START, 0)


def _end(offset: int, synced: int, stop_position: int) -> bytes:
    end = _END.pack(offset, synced, stop_position)
    return (end + _CRC.pack(zlib.crc32(end))).ljust(_START - _END_AT, b"\0")


class Journal:
    """One journal file, read from its beginning to its published end, and appended to."""

    def __init__(self, file: DiskFile | MemoryFile, store_id: str, where: str, *, synced: bool) -> None:
        self._file = file
        self._synced = synced
        self._where = where
        self._offset = _START
        self._link = bytes(8)
        self._stop = self.counted = 0
        self._durable = _START
        self._room = file.size()
        self._end = b""
        self.head_damage: str | None = None
        self._check_head(store_id)

    def _check_head(self, store_id: str) -> None:
        if self._file.size() < _START:
            raise StoreCorrupt(f"{self._where}: the journal is cut off", hint="Restore the store from a copy.")
        head = self._file.read_at(0, _HEAD.size + _CRC.size)
        if len(head) < _HEAD.size + _CRC.size or head[_HEAD.size :] != _CRC.pack(zlib.crc32(head[: _HEAD.size])):
            self.head_damage = "the journal's head is damaged"
            return
        _, form, owner = _HEAD.unpack(head[: _HEAD.size])
        if owner != uuid.UUID(store_id).bytes:
            raise StoreCorrupt(
                f"{self._where}: the journal belongs to another store",
                got=str(uuid.UUID(bytes=owner)),
                expected=store_id,
                hint="Restore the store from a copy.",
            )
        if form != _FORMAT:
            raise StoreCorrupt(f"{self._where}: a journal of an unknown format", got=form, expected=_FORMAT)

    # -- reading

    def _published(self) -> tuple[int, int, int] | None:
        """The published end: offset, synced offset and position. None where it is damaged."""
        for _ in range(_TRIES):  # a reader may meet a writer half-way through these bytes
            end = self._file.read_at(_END_AT, _END.size + _CRC.size)
            if len(end) == _END.size + _CRC.size and end[_END.size :] == _CRC.pack(zlib.crc32(end[: _END.size])):
                self._end = end
                return _END.unpack(end[: _END.size])
        self._end = b""
        return None

    def has_more(self) -> bool:
        """Whether there are records to read, published or left by a writer that was killed before it did."""
        if self._file.read_at(_END_AT, _END.size + _CRC.size) != self._end:
            return True
        return self._file.read_at(self._offset, len(_RECORD_MAGIC)) == _RECORD_MAGIC

    def read(self, *, beyond: bool = False) -> list[Record | Lost]:
        """Records that are new since the last call, up to the published end; past it where `beyond`.

        Read past it only where no other process is writing.
        """
        published = self._published()
        if published is None:
            if self.head_damage is not None:
                raise StoreCorrupt(
                    f"{self._where}: the beginning of the journal is damaged", hint="Restore the store from a copy."
                )
            self.head_damage = "the journal's published end is damaged"
            return list(self._scan(self._file.size(), None, None))
        offset, self._durable, stop = published
        if offset < self._offset:
            raise StoreCorrupt(f"{self._where}: the journal became shorter", hint="Open the store again.")
        found = list(self._scan(offset, self._durable, stop))
        if self._offset >= offset:
            self.counted = self._stop = max(self._stop, stop)
        if beyond:
            found += self._scan(self._file.size(), self._offset, None)
        return found

    def _scan(self, stop: int, synced: int | None, stop_position: int | None) -> Iterator[Record | Lost]:
        """The next records up to `stop`. One that does not fit is lost before `synced`, and the end after it.

        Where `synced` is None, it is the end if no record follows.
        """
        base = self._offset
        if base >= stop:
            return
        content = memoryview(self._file.read_at(base, stop - base))
        at = 0
        while at < len(content):
            found = _record_at(content, at)
            if found is not None and found[1] == self._link:
                record, _, size = found
                if record.blob is None and self._is_end(content, at + size, base + at, synced):
                    return
                at += size
                self._offset, self._link, self._stop = base + at, record.digest[:8], record.stop_position
                yield record
                continue
            if synced is not None and base + at >= synced:
                return
            later = _next_record(content, at + 8)
            if later is not None:
                at, (record, self._link, _) = later
                yield Lost(record.first_position, "a header in the journal is damaged")
            elif synced is None:
                return
            else:
                self._offset = stop
                yield Lost(stop_position, "the end of the journal is damaged")
                return
        if synced is not None and base + len(content) < min(stop, synced):
            self._offset = stop
            yield Lost(stop_position, "the end of the journal is missing")

    @staticmethod
    def _is_end(content: memoryview, following: int, offset: int, synced: int | None) -> bool:
        """Whether a damaged blob is the torn last write of a killed writer, and not a loss."""
        return offset >= synced if synced is not None else _record_at(content, following) is None

    # -- writing

    def append(self, records: Sequence[Record]) -> None:
        """Write records after all that were read, durably, and publish them: all of them or none."""
        link, parts = self._link, []
        for record in records:
            parts.append(record.packed(link))
            link = record.digest[:8]
        parts.append(_STOP)
        content = b"".join(parts)
        start, end = self._offset, self._offset + len(content)
        stop, before = end - len(_STOP), (self._offset, self._durable, self._stop)
        published = (stop, stop if self._synced else self._durable, records[-1].stop_position)
        try:
            if end > self._room:
                self._room = self._file.size()  # another process may have made room since, and filled it
            if end > self._room:
                grown = min(max(self._room, _LEAST_ROOM), _MOST_ROOM)
                self._file.allocate(self._room, max(end - self._room, grown))
                self._room = self._file.size()
            self._file.write_at(content, start, synced=self._synced)
        except BaseException as error:
            self._undo(start, error)
            raise
        try:
            self._publish(*published)
        except Exception as error:
            self._undo(start, error, before)
            raise
        except BaseException:  # an interrupt leaves it standing: others may have read it
            self._publish(*published)
            raise
        self._offset, self._link = stop, link

    def _undo(self, start: int, error: BaseException, published: tuple[int, int, int] | None = None) -> None:
        try:
            # The records may be whole in the file: without the first header no reader takes them for commits.
            self._file.write_at(bytes(_HEAD_SIZE), start)
            if published is not None:
                self._publish(*published)
            if self._synced:
                self._file.sync()
        except OSError as second:
            raise StoreFull(
                f"{self._where}: a write failed, and so did undoing it",
                got=f"{error}; {second}",
                hint="Repair the disk, open the store again, and read which events it has.",
            ) from second

    def _publish(self, offset: int, synced: int, stop_position: int) -> None:
        end = _end(offset, synced, stop_position)
        self._file.write_at(end, _END_AT)
        self._end = end[: _END.size + _CRC.size]
        self._durable, self._stop = synced, stop_position

    def note(self, stop_position: int) -> None:
        """Publish that the log goes on in the catalog, up to a position.

        Otherwise the loss of the last transactions of the catalog's write-ahead log would go unnoticed.
        """
        try:
            self._publish(self._offset, self._durable, stop_position)
        except BaseException:
            self._publish(self._offset, self._durable, stop_position)  # not half of it
            raise

    def recover(self) -> None:
        """Make all records that were read durable and publish them. Call it while no other process may write."""
        published = self._published()
        if published is None or published[0] != self._offset:
            self.force()

    def settle(self) -> None:
        """Make appends durable that did not wait for it."""
        if self._durable < self._offset:
            self.force()

    def force(self) -> None:
        """Make everything durable and publish it."""
        self._file.sync()
        self._publish(self._offset, self._offset, self._stop)

    def trim(self) -> None:
        """Give reserved room back. Call it while no other process may write."""
        if self._file.size() > self._offset:
            self._file.truncate(self._offset)
            self._room = self._offset

    def content(self) -> bytes:
        """All bytes up to the last record that was read: a complete journal."""
        end = _end(self._offset, self._offset, self._stop)
        return self._file.read_at(0, _END_AT) + end + self._file.read_at(_START, self._offset - _START)

    def close(self) -> None:
        self._file.close()


def _record_at(content: memoryview, at: int) -> tuple[Record, bytes, int] | None:
    """The record at an offset, its link and its size in the file; None where its header does not fit."""
    if at + _HEAD_SIZE > len(content) or content[at : at + 4] != _RECORD_MAGIC:
        return None
    fields = _RECORD.unpack_from(content, at)
    _, heads_size, extras_size, blob_size, first, events, late, recorded_at, last_version, link, digest, crc = fields
    extras_at = at + _HEAD_SIZE + heads_size
    blob_at = extras_at + extras_size
    stop = blob_at + blob_size
    if stop > len(content) or heads_size % HEAD.size:
        return None
    covered = zlib.crc32(content[at + _HEAD_SIZE : blob_at], zlib.crc32(content[at : at + _RECORD.size]))
    if _CRC.unpack_from(content, at + _RECORD.size)[0] != covered:
        return None
    try:
        extras = json.loads(bytes(content[extras_at:blob_at])) if extras_size else {}
    except ValueError:
        return None
    blob = bytes(content[blob_at:stop])
    intact = zlib.crc32(blob) == crc
    record = Record(
        first, events, late, recorded_at, last_version, digest, bytes(content[at + _HEAD_SIZE : extras_at]), extras,
        blob if intact else None,
    )  # fmt: skip
    return record, link, stop - at + -(stop - at) % 8


def _next_record(content: memoryview, at: int) -> tuple[int, tuple[Record, bytes, int]] | None:
    """The first place from `at` on where a record's header fits."""
    blob = content.obj if isinstance(content.obj, bytes) else bytes(content)
    while (at := blob.find(_RECORD_MAGIC, at)) >= 0:
        found = _record_at(content, at)
        if found is not None:
            return at, found
        at += 1
    return None
