"""The snapshots of one reducer: an index of its file, which reads states on demand."""

from __future__ import annotations

import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from eventlab.errors import SnapshotError
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import Float64Array, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.snapshots.states import Base, Marks, Taken
from eventlab.snapshots.storage import records
from eventlab.snapshots.storage.files import Files, LockedFile, OpenFile
from eventlab.snapshots.storage.records import Part, SnapshotRecord
from eventlab.store.api import UNBOUND, EventReader

BLOCK_BYTES = 16_384
"""Bytes of states in a record, about; a larger state has a record of its own."""

_CACHE_BYTES = 16 << 20
_WORTH_REWRITING = 1 << 20

TABLE: dict[str, pl.DataType | type[pl.DataType]] = {
    "reducer": pl.String,
    "aggregate_id": pl.String,
    "version": pl.Int64,
    "position": pl.Int64,
    "timestamp": pl.Datetime("ns", "UTC"),
    "bytes": pl.Float64,
}

SUFFIX = ".snapshots"

REMOVAL = "lab.snapshots.drop() removes it; answers then come from the events."


def prefix_of(reducer: Reducer) -> str:
    """The prefix of the name of a reducer's file: the first half of its fingerprint."""
    return reducer.fingerprint[:32]


@dataclass(slots=True)
class Line:
    """The snapshots of one aggregate, by version.

    Attributes
    ----------
    marks : Marks
    block, row : int64 array
        The record of each, by its offset in the file, and the row in it.
    """

    marks: Marks
    block: Int64Array
    row: Int64Array

    def __getitem__(self, rows: npt.NDArray[np.generic]) -> Line:
        return Line(self.marks[rows], self.block[rows], self.row[rows])

    def newest(self, version: int, time: int, stop_position: int) -> int:
        """The row of the newest snapshot within all three bounds, the first two inclusive; -1 if there is none.

        A time bounds the highest event time that a snapshot includes, which never falls from one version to the next.
        """
        marks = self.marks
        rows = min(
            int(marks.version.searchsorted(version, "right")),
            int(marks.latest.searchsorted(time, "right")),
            int(marks.position.searchsorted(stop_position, "left")),
        )
        return rows - 1


class _DamagedRecord(Exception):
    """A record's states are damaged. Its argument is the record's offset."""


class Shelf:
    """A file of snapshots, and its index in memory, which follows what other processes add or replace.

    A damaged snapshot is reported once, as a warning, and then ignored. So is a snapshot of events that the log does
    not have: a store that was restored from an older copy, or lost its last commits in a power failure, may have other
    events in their place.
    """

    def __init__(self, files: Files, prefix: str, store: EventReader) -> None:
        self.prefix, self.name = prefix, prefix + SUFFIX
        self._files, self._store, self._owner = files, store, records.owner_of(prefix, store.store_id)
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._file: OpenFile | None = None
        self._which, self._size, self._end = 0, 0, 0
        self._last: SnapshotRecord | None = None
        self._of_this_log = False
        self.reducer = ""
        self.damage: dict[int, str] = {}
        self._unreported: list[str] = []
        self._records: dict[int, SnapshotRecord] = {}
        self._rows: dict[int, int] = {}
        self._lines: dict[str, Line] = {}
        self._new: dict[str, list[Line]] = {}
        self._blocks: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._blocks_bytes = 0

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._forget()

    # -- index

    def refresh(self) -> None:
        """Read what others added, replaced or removed, and warn of damage."""
        self._refresh()
        self._warn()

    def find_damage(self) -> list[str]:
        """What is damaged in the file now, without a warning."""
        self._refresh()
        return list(self.damage.values())

    def _refresh(self) -> None:
        with self._lock:
            state = self._files.state(self.name)
            if state == (self._which, self._size):
                return
            if state is None or state[0] != self._which or state[1] < self._size or not self._goes_on():
                self._forget()
            if state is None:
                return
            try:
                if self._file is None:
                    self._file = self._files.opened(self.name)
                if self._file is not None:
                    self._read_on(self._file)
            except OSError as error:
                self._forget()
                self._which, self._size = state
                self._note(0, f"cannot be read: {error}")

    def _goes_on(self) -> bool:
        """Whether the last record read is still in the file, so that others only added to it."""
        if self._file is None or self._last is None:
            return True
        return records.head_at(self._file.read, self._last.offset, self._last.stop, self._owner) == self._last

    def _read_on(self, file: OpenFile) -> None:
        """Index the records after the last complete one."""
        while True:
            self._which, size = file.state()
            broken: list[tuple[int, str]] = []
            for one in records.scan(file.read, self._end, size, self._owner):
                if isinstance(one, SnapshotRecord):
                    self._take(one, file)
                    self._end, self._last = one.stop, one
                else:
                    broken.append(one)
            trailing = [one for one in broken if one[0] >= self._end]
            unfinished = bool(trailing) and file.changing()
            if not trailing or unfinished or file.state() == (self._which, size):
                break  # else another process was writing at the end and has finished
        for one in broken[: len(broken) - len(trailing)] if unfinished else broken:
            self._note(*one)
        self._size = self._end if unfinished else size

    def _take(self, record: SnapshotRecord, file: OpenFile) -> None:
        content = file.read(*record.envelope_at)
        if zlib.crc32(content) != record.envelope_crc:
            self._note(record.offset, "is damaged")
            return
        if record.kind == "name":
            self.reducer = content.decode()
            return
        if record.kind == "log":
            stop, digest = records.log_of(content)
            self._of_this_log = self._store.digest_at(stop) == digest
            return
        if record.kind == "states" and not self._of_this_log:
            self._note(record.offset, "is of events that this log does not have")
            return
        aggregates, marks = records.envelope_of(content)
        if record.kind == "dropped":
            self._drop(aggregates, marks.version)
        else:
            self._records[record.offset], self._rows[record.offset] = record, len(aggregates)
            self._index(aggregates, marks, record.offset)

    def _note(self, offset: int, what: str) -> None:
        if offset not in self.damage:
            self.damage[offset] = f"the record at byte {offset} of {self.name} {what}"
            self._unreported.append(self.damage[offset])

    def _warn(self) -> None:
        """Warn of the damage found since the last call."""
        while self._unreported:
            warnings.warn(f"a snapshot is left aside, and replayed instead: {self._unreported.pop(0)}", stacklevel=7)

    def _index(self, aggregates: Sequence[str], marks: Marks, block: int) -> None:
        begins = [0, *(at for at in range(1, len(aggregates)) if aggregates[at] != aggregates[at - 1])]
        for low, high in zip(begins, [*begins[1:], len(aggregates)], strict=True):
            rows = np.arange(low, high)
            self._new.setdefault(aggregates[low], []).append(Line(marks[low:high], np.full(high - low, block), rows))

    def _drop(self, aggregates: Sequence[str], versions: Int64Array) -> None:
        for aggregate in dict.fromkeys(aggregates):
            gone = versions[[one == aggregate for one in aggregates]]
            line = self.line(aggregate)
            if line is not None:
                self._lines[aggregate] = line[~np.isin(line.marks.version, gone)]

    def aggregates(self) -> list[str]:
        """Aggregates with snapshots, sorted."""
        return [name for name, _ in self._all()]

    def _all(self) -> list[tuple[str, Line]]:
        """The snapshots of each aggregate that has some, by id."""
        names = sorted({*self._lines, *self._new})
        return [(name, line) for name in names if (line := self.line(name)) is not None]

    def line(self, aggregate: str) -> Line | None:
        """The snapshots of an aggregate."""
        with self._lock:
            new = self._new.pop(aggregate, None)
            if new is not None:
                old = self._lines.get(aggregate)
                several = new if old is None else [old, *new]
                joined = Line(
                    Marks.joined([one.marks for one in several]),
                    np.concatenate([one.block for one in several]),
                    np.concatenate([one.row for one in several]),
                )
                version = joined.marks.version
                if not (version[1:] > version[:-1]).all():
                    joined = joined[np.unique(version, return_index=True)[1]]
                self._lines[aggregate] = joined
            line = self._lines.get(aggregate)
            return line if line is not None and len(line.block) else None

    def versions(self, aggregate: str) -> Int64Array:
        """Versions of an aggregate's snapshots, ascending."""
        line = self.line(aggregate)
        return np.empty(0, np.int64) if line is None else line.marks.version

    def bytes_of(self, line: Line) -> Float64Array:
        """Bytes of each snapshot in the file: its share of its record."""
        blocks, place = np.unique(line.block, return_inverse=True)
        found = [(self._records[block], self._rows[block]) for block in blocks.tolist()]
        return np.array([(record.stop - record.offset) / rows for record, rows in found], np.float64)[place]

    # -- states

    def newest(self, reducer: Reducer, aggregates: Sequence[str], bounds: Sequence[tuple[int, int, int]]) -> Base:
        """For each aggregate the newest snapshot within (version, time, stop_position), else its initial state."""
        with self._lock:
            found = None
            while found is None:
                lines = [self.line(aggregate) for aggregate in aggregates]
                rows = [-1 if line is None else line.newest(*b) for line, b in zip(lines, bounds, strict=True)]
                try:
                    found = self._base(reducer, lines, rows)
                except _DamagedRecord as damage:
                    self._discard(*damage.args)  # and look again
        self._warn()
        return found

    def stored(self, reducer: Reducer, aggregate: str, version: int) -> Base:
        """The snapshot of a version that has one. Raises SnapshotError if it is damaged."""
        with self._lock:
            line = self.line(aggregate)
            row = -1 if line is None else line.newest(version, MAX_NS, UNBOUND)
            try:
                return self._base(reducer, [line], [row])
            except _DamagedRecord as damage:
                which = f"{reducer.name} for {aggregate!r} at version {version}"
                raise SnapshotError(f"the snapshot of {which} is damaged", hint=REMOVAL) from damage

    def _base(self, reducer: Reducer, lines: Sequence[Line | None], rows: Sequence[int]) -> Base:
        schema = reducer.layout.arrow_schema
        if len(rows) == 1 and rows[0] >= 0 and lines[0] is not None:  # one state: nothing is copied
            only, row = lines[0], rows[0]
            states = self._block(int(only.block[row]), schema).slice(int(only.row[row]), 1)
            return Base(states, only.marks[row : row + 1])
        base = Base.initial(reducer, len(rows))
        batches, sources = [base.states], np.arange(len(rows))
        wanted: dict[int, list[tuple[int, int]]] = {}
        for at, (line, row) in enumerate(zip(lines, rows, strict=True)):
            if line is not None and row >= 0:
                wanted.setdefault(int(line.block[row]), []).append((at, int(line.row[row])))
                base.marks.put(at, line.marks, row)
        begin = len(rows)
        for block, places in wanted.items():
            found = np.array(places, np.int64)
            batches.append(self._block(block, schema).take(pa.array(found[:, 1])))
            sources[found[:, 0]] = begin + np.arange(len(found))
            begin += len(found)
        if len(batches) == 1:
            return base
        states = pa.Table.from_batches(batches).take(pa.array(sources)).combine_chunks().to_batches()[0]
        return Base(states, base.marks)

    def _block(self, offset: int, schema: pa.Schema) -> pa.RecordBatch:
        """The states of a record. Raises _DamagedRecord."""
        batch = self._blocks.get(offset)
        if batch is not None:
            self._blocks.move_to_end(offset)
            return batch
        record = self._records[offset]
        try:
            content = b"" if self._file is None else self._file.read(*record.states_at)
        except OSError:
            content = b""
        if zlib.crc32(content) != record.states_crc:
            raise _DamagedRecord(offset)
        batch = pa.ipc.read_record_batch(pa.py_buffer(content), schema)
        self._blocks[offset] = batch
        self._blocks_bytes += len(content)
        while self._blocks_bytes > _CACHE_BYTES and len(self._blocks) > 1:
            gone, _ = self._blocks.popitem(last=False)
            self._blocks_bytes -= self._records[gone].states_length
        return batch

    def _discard(self, offset: int) -> None:
        """Drop a damaged record's snapshots from the index."""
        self._note(offset, "is damaged")
        for aggregate, line in self._all():
            if (line.block == offset).any():
                self._lines[aggregate] = line[line.block != offset]

    def table(self) -> pl.DataFrame:
        """A row for each snapshot: reducer, aggregate_id, version, position, timestamp, bytes."""
        with self._lock:
            frames = [
                pl.DataFrame(
                    {
                        "reducer": self.reducer,
                        "aggregate_id": name,
                        "version": line.marks.version,
                        "position": line.marks.position,
                        "timestamp": pl.Series(line.marks.timestamp).cast(pl.Datetime("ns", "UTC")),
                        "bytes": self.bytes_of(line),
                    }
                )
                for name, line in self._all()
            ]
        return pl.concat(frames) if frames else pl.DataFrame(schema=TABLE)

    # -- changes

    def add(self, reducer: Reducer, several: Iterable[Taken]) -> tuple[int, int]:
        """Write snapshots durably, all or none; return their number and their bytes.

        Raises
        ------
        ReadOnlyStore, StoreFull, SnapshotError
        """
        content: list[Part] = []
        begin, count = self._log_record(), 0
        for taken in several:
            content += self._blocks_of(taken)
            count += len(taken.aggregates)
        if not count:
            return 0, 0
        with self._lock, self._files.writing(self.name) as writing:
            self._refresh()
            if not self._end:
                begin = [*records.encoded("name", reducer.name.encode(), b"", self._owner), *begin]
            # After the last complete record there is only what a killed process left of one.
            writing.append(b"".join([*begin, *content]), self._end)
            self.damage = {offset: what for offset, what in self.damage.items() if offset < self._end}
            self._refresh()
        return count, sum(map(len, content))

    def _log_record(self) -> list[Part]:
        stop = self._store.stop_position
        digest = self._store.digest_at(stop)
        if digest is None:
            raise SnapshotError("no snapshots are made while the end of the log is damaged")
        return records.encoded("log", records.log_bytes(stop, digest), b"", self._owner)

    def _states(self, aggregates: Sequence[str], marks: Marks, states: pa.RecordBatch) -> list[Part]:
        envelope = records.envelope_bytes(aggregates, marks)
        return records.encoded("states", envelope, states.serialize(), self._owner)

    def _blocks_of(self, taken: Taken) -> Iterator[Part]:
        """Records of states, of about `BLOCK_BYTES` each."""
        step = max(BLOCK_BYTES * taken.states.num_rows // max(taken.states.nbytes, 1), 1)
        for at in range(0, taken.states.num_rows, step):
            rows = slice(at, at + step)
            yield from self._states(taken.aggregates[rows], taken.marks[rows], taken.states.slice(at, step))

    def evict(self, reducer: Reducer, gone: Mapping[str, Int64Array]) -> None:
        """Drop snapshots by aggregate and version. The file is rewritten if most of it is dropped.

        Raises
        ------
        ReadOnlyStore, StoreFull
        """
        with self._lock:
            names = [name for name, versions in gone.items() for _ in range(len(versions))]
            marks = Marks.none(len(names))
            marks.version[:] = np.concatenate(list(gone.values()))
            with self._files.writing(self.name) as writing:
                self._refresh()
                record = records.encoded("dropped", records.envelope_bytes(names, marks), b"", self._owner)
                writing.append(b"".join(record), self._end)
                self._refresh()
                live = sum(float(self.bytes_of(line).sum()) for _, line in self._all())
                if self._end > max(2 * live, _WORTH_REWRITING):
                    self._rewrite(writing, reducer)

    def _rewrite(self, writing: LockedFile, reducer: Reducer) -> None:
        content = [*records.encoded("name", reducer.name.encode(), b"", self._owner), *self._log_record()]
        lines_of: dict[int, list[tuple[str, Line]]] = {}
        for name, line in self._all():
            for block in np.unique(line.block).tolist():
                lines_of.setdefault(block, []).append((name, line[line.block == block]))
        for block, lines in lines_of.items():
            try:
                states = self._block(block, reducer.layout.arrow_schema)
            except _DamagedRecord:
                continue
            names = [name for name, line in lines for _ in range(len(line.row))]
            rows = np.concatenate([line.row for _, line in lines])
            content += self._states(names, Marks.joined([line.marks for _, line in lines]), states.take(pa.array(rows)))
        writing.replace(b"".join(content))
        self._refresh()
