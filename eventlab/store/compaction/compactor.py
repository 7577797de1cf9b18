"""Rewriting segments: small ones become one, cold ones smaller. Readers see either the old or the new files.

Files are merged while others read and write:

1. read the old files, check every byte, and compare them with the catalog;
2. write the new files, sync them and their names, read them back, and compare all events bit by bit;
3. replace the old files by the new ones in the catalog, in one transaction;
4. remove old files that no reader uses.

A process that is killed before 3 leaves files that the catalog does not name, after it files that it names as dropped.
A segment that fails 1 stays as it is, with a warning, and the others are merged without it.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import DamagedSegment, StoreCorrupt, StoreError, StoreFull, StoreLocked
from eventlab.store.blocks import NO_CAUSE, Block, Int64Array, Slab, cluster_order, concat_blocks, is_all_null
from eventlab.store.catalog.connection import translating
from eventlab.store.catalog.manifest import Segment
from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.commit import seal
from eventlab.store.compaction import tiering
from eventlab.store.compaction.garbage import Garbage
from eventlab.store.disk.read_leases import Lease
from eventlab.store.read.frames import STORED_EXTRA
from eventlab.store.segments.files import discard
from eventlab.store.segments.segments import FORMATS, Runs, SegmentFile, Segments, write_segment
from eventlab.store.types import Codec, Vacuumed

REWRITING = 1 << 62
"""Byte of the file `lock` for the right to rewrite segments; readers' leases stay far below."""

_ROOM_FOR_JOINED_RUNS = 0.1
"""A merge that makes one run of very many may take so much more room."""

Planner = Callable[[Sequence[Segment]], "Job | None"]


@dataclass(frozen=True, slots=True)
class Job:
    """Adjacent segments to be written as one."""

    segments: Sequence[Segment]
    codec: Codec

    @property
    def first_position(self) -> int:
        return self.segments[0].first_position

    @property
    def stop_position(self) -> int:
        return self.segments[-1].stop_position


_Made = dict[int, tuple[SegmentFile, Int64Array]]
"""New files, which the catalog does not name yet, and their runs, by event type number."""


class _Refused(Exception):
    """A segment that must stay as it is."""

    def __init__(self, segment: Segment, error: StoreCorrupt) -> None:
        self.segment = segment
        self.error = error


class Compactor:
    """Rewrites segments and removes the old files.

    Call it without the store's lock and without the right to write: it takes both for moments.
    """

    def __init__(self, store: OpenStore, segments: Segments, settle: Callable[[], None]) -> None:
        self._store = store
        self._catalog, self._storage, self._index = store.catalog, store.storage, store.index
        self._segments = segments
        self._garbage = Garbage(store)
        self._lock = store.lock
        self._settle = settle
        self._turn = threading.Lock()
        self._damaged: set[int] = set()
        self._better_apart: set[int] = set()

    # -- what callers ask for

    def merge_due(self) -> None:
        """Merge segments that are due. A failure is only a warning: no caller asked for it, and no event is lost."""
        try:
            self._run(lambda segments: self._merge(segments, tiering.due), wait=0.0)
        except (StoreFull, StoreLocked):
            return  # the next one tries again
        except StoreError as error:
            warnings.warn(f"segments were not merged: {error}", DamagedSegment, stacklevel=3)

    def merge_all(self) -> None:
        """Merge all segments that are worth it."""
        self._damaged.clear()
        self._run(lambda segments: self._merge(segments, tiering.wanted), wait=0.0)

    def archive(self, stop_position: int) -> int:
        """Rewrite segments before a position with the archive codec; returns their number of events.

        Raises
        ------
        StoreLocked
            Another process is rewriting segments, and was not done in the time that the store waits for others.
        """
        self._damaged.clear()
        return self._run(lambda segments: self._archive(segments, stop_position), self._store.exclusive.wait)

    def vacuum(self) -> Vacuumed:
        """Remove all files that no reader needs, and give the catalog's free pages back."""
        with self._alone(0.0) as alone, self._store.exclusive.held(), self._lock:
            self._settle()
            before = self._catalog.size()
            swept = self._garbage.sweep() if alone and self._index.damage is None else Vacuumed()
            done = self._garbage.collect()
            self._catalog.tidy()
            freed = max(before - self._catalog.size(), 0)
        return Vacuumed(
            swept.files + done.files, swept.bytes + done.bytes + freed, done.leased_files, done.leased_bytes
        )

    def begin(self) -> None:
        """Remove files of a killed process. Call it while no other process may write."""
        if self._index.damage is not None:  # a file that the catalog does not name may hold the lost events
            return
        with self._alone(0.0) as alone:
            if alone:
                self._garbage.sweep()
        with contextlib.suppress(StoreError):  # the next one tries again
            self._garbage.collect()

    @contextlib.contextmanager
    def _alone(self, wait: float) -> Iterator[bool]:
        """Take the right to rewrite segments; gives whether it was free."""
        if not self._turn.acquire(timeout=wait):
            yield False
            return
        try:
            taken = self._store.rewriting.acquire(wait)
            try:
                yield taken
            finally:
                if taken:
                    self._store.rewriting.release()
        finally:
            self._turn.release()

    # -- planning

    def _merge(
        self, segments: Sequence[Segment], choose: Callable[[Sequence[int | None], int], tiering.Span | None]
    ) -> Job | None:
        may = [self._store.codec == "archive" or not _is_archived(segment) for segment in segments]
        return self._job(segments, may, choose, self._store.codec)

    def _archive(self, segments: Sequence[Segment], stop_position: int) -> Job | None:
        cold = [segment.stop_position <= stop_position for segment in segments]
        job = self._job(segments, cold, tiering.wanted, "archive")
        if job is not None:
            return job
        for segment, may in zip(segments, cold, strict=True):
            if may and not _is_archived(segment) and segment.first_position not in self._damaged:
                return Job((segment,), "archive")
        return None

    def _job(
        self,
        segments: Sequence[Segment],
        may: Sequence[bool],
        choose: Callable[[Sequence[int | None], int], tiering.Span | None],
        codec: Codec,
    ) -> Job | None:
        chosen: list[int | None] = []
        members: list[Segment | None] = []
        before = None
        for segment, allowed in zip(segments, may, strict=True):
            if before is not None and before != segment.first_position:  # unsealed or lost events are between
                chosen.append(None)
                members.append(None)
            before = segment.stop_position
            fit = allowed and segment.first_position not in self._damaged | self._better_apart
            chosen.append(segment.stop_position - segment.first_position if fit else None)
            members.append(segment)
        found = choose(chosen, seal.SEGMENT_ROWS)
        if found is None:
            return None
        return Job([segment for segment in members[slice(*found)] if segment is not None], codec)

    # -- rewriting

    def _run(self, plan: Planner, wait: float) -> int:
        """Do jobs until there are none; returns the events whose codec changed."""
        changed, jobs = 0, 0
        with self._alone(wait) as alone:
            if not alone and wait:
                raise StoreLocked(f"{self._catalog.where}: another process is rewriting segments", hint="Wait for it.")
            while alone and (found := self._next(plan)) is not None:
                job, runs, lease = found
                with lease, translating(self._catalog.where):
                    try:
                        made = self._write(job, runs)
                    except _Refused as refused:
                        self._damaged.add(refused.segment.first_position)
                        warnings.warn(f"left as it is: {refused.error}", DamagedSegment, stacklevel=4)
                        continue
                if self._takes_more_room(job, runs, made):
                    self._better_apart.update(segment.first_position for segment in job.segments)
                    discard(self._storage, [file.name for file, _ in made.values()])
                    continue
                self._exchange(job, made)
                jobs += 1
                changed += sum(s.stop_position - s.first_position for s in job.segments if _codec(s) != job.codec)
            if jobs:
                with self._lock:
                    self._catalog.tidy()
        return changed

    @staticmethod
    def _takes_more_room(job: Job, runs: Mapping[int, Runs], made: _Made) -> bool:
        """Markets that are very unlike lie smaller in files of their own, whose encodings fit each of them.

        Where runs of the same aggregates become one, reading these is quicker, which is worth some room.
        """
        if any(_codec(segment) != job.codec for segment in job.segments):
            return False
        old = sum(file.bytes for segment in job.segments for file in segment.files.values())
        joined = 1 - sum(len(table) for _, table in made.values()) / sum(len(before) for before in runs.values())
        return sum(file.bytes for file, _ in made.values()) > old * (1 + _ROOM_FOR_JOINED_RUNS * joined)

    def _next(self, plan: Planner) -> tuple[Job, Mapping[int, Runs], Lease] | None:
        with self._lock:
            self._settle()
            lease = self._store.leases.hold(self._index.generation)
            try:
                self._index.refresh()
                job = plan(self._index.manifest().segments)
                if job is None:
                    lease.release()
                    return None
                files = [file for segment in job.segments for file in segment.files.values()]
                return job, {file.no: self._index.runs_of_file(file.no) for file in files}, lease
            except BaseException:
                lease.release()
                raise

    def _write(self, job: Job, runs: Mapping[int, Runs]) -> _Made:
        """Write and prove the files of a job, one event type after the other."""
        first, stop = job.first_position, job.stop_position
        seen = np.zeros(stop - first, dtype=np.bool_)
        made: _Made = {}
        written: list[str] = []
        try:
            for kind in sorted({kind for segment in job.segments for kind in segment.files}):
                block = self._read(job, kind, runs, seen)
                content = write_segment(block, self._index.names.__getitem__, job.codec)
                file = content.file(first, stop, block.type)
                written.append(file.name)
                self._storage.write(file.name, [content.content])
                made[kind] = file, content.runs
                del content
                self._prove(block, *made[kind])
            for segment in job.segments:
                if not seen[segment.first_position - first : segment.stop_position - first].all():
                    raise _Refused(segment, self._corrupt(segment, "events are missing"))
            self._storage.sync()
        except BaseException:
            discard(self._storage, written)
            raise
        return made

    def _read(self, job: Job, kind: int, runs: Mapping[int, Runs], seen: npt.NDArray[np.bool_]) -> Block:
        """All events of a type, clustered by aggregate; their positions are marked in `seen`."""
        blocks = []
        for segment in job.segments:
            file = segment.files.get(kind)
            if file is None:
                continue
            try:
                block = self._read_file(segment, file, runs[file.no])
            except StoreCorrupt as error:
                raise _Refused(segment, error) from error
            places = block.position - job.first_position
            if seen[places].any():
                raise _Refused(segment, self._corrupt(segment, "positions are there twice"))
            seen[places] = True
            blocks.append(block)
        events = concat_blocks(blocks)
        del blocks
        order = cluster_order(events.aggregate)
        return events if order is None else events.take(order)

    def _read_file(self, segment: Segment, file: SegmentFile, runs: Runs) -> Block:
        names = self._index.names
        ends = np.cumsum(runs.rows)
        complete = len(runs) > 0 and np.array_equal(runs.row, ends - runs.rows) and ends[-1] == file.rows
        if not complete or runs.aggregate[0] < 0 or runs.aggregate[-1] >= len(names) or runs.rows.min() < 1:
            raise self._corrupt(segment, f"the catalog does not know of all rows of {file.name}")
        slab = self._segments.read(file, runs, [part.name for part in file.type], extra=STORED_EXTRA, exact=True)
        self._segments.check_runs(file, runs, slab, [names[number] for number in runs.aggregate.tolist()])
        places = slab.events.position - segment.first_position
        there = np.zeros(segment.stop_position - segment.first_position, dtype=np.bool_)
        if places.min() >= 0 and places.max() < len(there):
            there[places] = True
        if np.count_nonzero(there) != len(places):
            raise self._corrupt(segment, f"{file.name} holds other positions")
        return replace(slab.events, aggregate=np.repeat(slab.aggregates, np.diff(slab.offsets)))

    def _prove(self, block: Block, file: SegmentFile, table: Int64Array) -> None:
        """Read a new file back: it must hold the same events, bit by bit."""
        runs = Runs.of(table)
        slab = self._segments.read(file, runs, list(block.columns), extra=STORED_EXTRA, exact=True)
        names = self._index.names
        self._segments.check_runs(file, runs, slab, [names[number] for number in runs.aggregate.tolist()])
        wrong = differing(block, slab)
        if wrong is not None:
            raise StoreError(
                f"{self._catalog.where}: {wrong!r} of a rewritten segment was read back otherwise than written",
                hint="The segments before it were kept. Check the machine's memory and disk.",
            )

    def _exchange(self, job: Job, made: _Made) -> None:
        """Replace the old files by the new ones in the catalog."""
        with contextlib.ExitStack() as entered:
            try:
                entered.enter_context(self._store.exclusive.held())
            except BaseException:
                discard(self._storage, [file.name for file, _ in made.values()])
                raise
            entered.enter_context(self._lock)
            self._settle()
            try:
                self._index.learn_segment(self._replaced(job, made))
            except BaseException:  # the commit may stand all the same
                self._index.forget()
                raise
            self._garbage.collect()

    def _replaced(self, job: Job, made: _Made) -> Segment:
        first, stop = job.first_position, job.stop_position
        old = [file for segment in job.segments for file in segment.files.values()]
        with self._store.transaction() as written:
            written += [file.name for file, _ in made.values()]
            known = {file.no for segment in self._index.manifest().segments for file in segment.files.values()}
            if not known.issuperset(file.no for file in old):
                raise StoreError(
                    f"{self._catalog.where}: another process rewrote the segments meanwhile",
                    hint="Nothing was changed. Try again.",
                )
            return Segment(first, stop, self._catalog.merge_segments(first, stop, old, made))

    def _corrupt(self, segment: Segment, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._catalog.where}: positions {segment.first_position} to {segment.stop_position - 1}: {what}",
            hint="Restore the store from a copy.",
        )


def _codec(segment: Segment) -> Codec:
    return "archive" if _is_archived(segment) else "parquet"


def _is_archived(segment: Segment) -> bool:
    return not any(file.name.endswith(FORMATS["parquet"].suffix) for file in segment.files.values())


def differing(block: Block, slab: Slab) -> str | None:
    """The first column of some events that is not the same, bit by bit, in a slab; None where all are."""
    events = slab.events
    fixed = {
        "position": (block.position, events.position),
        "version": (block.version, events.version),
        "timestamp": (block.timestamp, events.timestamp),
        "aggregate_id": (block.aggregate, np.repeat(slab.aggregates, np.diff(slab.offsets))),
        "cause": (_causes(block), _causes(events)),
    }
    wrong = next((name for name, (written, found) in fixed.items() if not np.array_equal(written, found)), None)
    if wrong is not None:
        return wrong
    texts = {"event_id": (block.event_id, events.event_id), "metadata": (block.metadata, events.metadata)}
    columns = {name: (column, events.columns[name]) for name, column in block.columns.items()}
    return next((name for name, (written, found) in (texts | columns).items() if not _same(written, found)), None)


def _causes(block: Block) -> npt.NDArray[np.int64]:
    if block.cause is None:
        return np.full(len(block), NO_CAUSE, dtype=np.int64)
    return np.where(block.cause < 0, NO_CAUSE, block.cause)


def _same(written: pa.Array | None, found: pa.Array | None) -> bool:
    """Whether two columns hold the same values; none at all is the same as nulls only."""
    if written is None or found is None:
        return all(array is None or is_all_null(array) for array in (written, found))
    if pa.types.is_dictionary(written.type):
        if written.dictionary.equals(found.dictionary):
            return bool(written.indices.equals(found.indices))
        written, found = written.cast(written.type.value_type), found.cast(written.type.value_type)
    elif pa.types.is_floating(written.type):  # -0.0 is not 0.0
        written, found = written.view(pa.int64()), found.view(pa.int64())
    return bool(written.equals(found))
