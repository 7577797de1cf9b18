"""Rewriting segments: small ones become one, cold ones smaller. No reader ever meets a half state.

Files are merged while others read and write. Only then the catalog exchanges their names, in one transaction:

1. read the old files, every byte checked, and compare them with what the catalog says of them;
2. write the new files, sync them and their names, read them back, and compare all events bit by bit;
3. exchange the names: new files in, old ones to the garbage;
4. remove garbage that nobody can be reading.

A process that is killed before 3 leaves files that nobody names, after it files that are garbage. A segment that does
not pass 1 stays as it is, with a warning, and the others are merged without it.
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
from eventlab.store.blocks import NO_CAUSE, Block, Int64Array, Slab, cluster_order, is_all_null, joined
from eventlab.store.catalog.database import Catalog, as_store_error
from eventlab.store.catalog.manifest import Knowledge, Segment
from eventlab.store.catalog.transaction import transaction
from eventlab.store.commit import seal as sealing
from eventlab.store.compaction import tiering as tiers
from eventlab.store.compaction.garbage import Garbage
from eventlab.store.disk.read_leases import Lease, Leases
from eventlab.store.disk.writer_lock import Exclusive, FileLock, NoLock
from eventlab.store.read.frames import STORED_EXTRA
from eventlab.store.segments.files import Vault, new_name
from eventlab.store.segments.segments import FORMATS, Runs, SegmentFile, Segments, write_segment
from eventlab.store.types import Codec, Vacuumed

REWRITING = 1 << 62
"""Byte of the file `lock` that belongs to who rewrites segments; readers' leases stay far below."""

_ROOM_FOR_JOINED_RUNS = 0.1
"""A merge that makes one run of very many may take so much more room."""

Plan = Callable[[Sequence[Segment]], "Job | None"]


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
"""New files, written but not named, and their runs, by event type number."""


class _Refused(Exception):
    """A segment that must stay as it is."""

    def __init__(self, segment: Segment, error: StoreCorrupt) -> None:
        self.segment = segment
        self.error = error


class Compactor:
    """Rewrites segments and removes what is left over.

    Call it without the store's lock and without the right to write: it takes both when it needs them, for moments.
    """

    def __init__(
        self,
        catalog: Catalog,
        vault: Vault,
        knowledge: Knowledge,
        segments: Segments,
        garbage: Garbage,
        leases: Leases,
        *,
        exclusive: Exclusive,
        right: FileLock | NoLock,
        lock: threading.RLock,
        settle: Callable[[], None],
        codec: Codec,
    ) -> None:
        self._catalog = catalog
        self._vault = vault
        self._knowledge = knowledge
        self._segments = segments
        self._garbage = garbage
        self._leases = leases
        self._exclusive = exclusive
        self._right = right
        self._lock = lock
        self._settle = settle
        self._codec = codec
        self._turn = threading.Lock()
        self._damaged: set[int] = set()
        self._better_apart: set[int] = set()

    # -- what callers ask for

    def merge_due(self) -> None:
        """Merge what is due by itself. What fails is a warning: nothing was asked for, and nothing is lost."""
        try:
            self._run(lambda segments: self._merge(segments, tiers.due), wait=0.0)
        except (StoreFull, StoreLocked):
            return  # the next one tries again
        except StoreError as error:
            warnings.warn(f"segments were not merged: {error}", DamagedSegment, stacklevel=3)

    def merge_all(self) -> None:
        """Merge all that is worth it."""
        self._damaged.clear()
        self._run(lambda segments: self._merge(segments, tiers.wanted), wait=0.0)

    def archive(self, stop_position: int) -> int:
        """Rewrite what lies wholly before a position with the archive codec; returns how many events that were.

        Raises
        ------
        StoreLocked
            Another process is rewriting segments, and was not done in the time that the store waits for others.
        """
        self._damaged.clear()
        return self._run(lambda segments: self._archive(segments, stop_position), self._exclusive.wait)

    def vacuum(self) -> Vacuumed:
        """Remove all files that are in nobody's way, and give the catalog's free pages back."""
        with self._alone(0.0) as alone, self._exclusive.held(), self._lock:
            self._settle()
            before = _size(self._catalog)
            swept = self._garbage.sweep() if alone and self._knowledge.damage is None else Vacuumed()
            done = self._garbage.collect()
            self._catalog.tidy()
            freed = max(before - _size(self._catalog), 0)
        return Vacuumed(
            swept.files + done.files, swept.bytes + done.bytes + freed, done.leased_files, done.leased_bytes
        )

    def begin(self) -> None:
        """Remove what a killed process left. Call it while this process alone may write."""
        if self._knowledge.damage is not None:  # what nobody names may be what is lost
            return
        with self._alone(0.0) as alone:
            if alone:
                self._garbage.sweep()
        with contextlib.suppress(StoreError):  # the next one tries again
            self._garbage.collect()

    def close(self) -> None:
        self._right.close()

    @contextlib.contextmanager
    def _alone(self, wait: float) -> Iterator[bool]:
        """Be the only one who rewrites segments; tells whether it came to that."""
        if not self._turn.acquire(timeout=wait):
            yield False
            return
        try:
            taken = self._right.acquire(wait)
            try:
                yield taken
            finally:
                if taken:
                    self._right.release()
        finally:
            self._turn.release()

    # -- planning

    def _merge(
        self, segments: Sequence[Segment], choose: Callable[[Sequence[int | None], int], tiers.Stretch | None]
    ) -> Job | None:
        may = [self._codec == "archive" or not _is_archived(segment) for segment in segments]
        return self._job(segments, may, choose, self._codec)

    def _archive(self, segments: Sequence[Segment], stop_position: int) -> Job | None:
        cold = [segment.stop_position <= stop_position for segment in segments]
        job = self._job(segments, cold, tiers.wanted, "archive")
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
        choose: Callable[[Sequence[int | None], int], tiers.Stretch | None],
        codec: Codec,
    ) -> Job | None:
        chosen: list[int | None] = []
        members: list[Segment | None] = []
        before = None
        for segment, allowed in zip(segments, may, strict=True):
            if before is not None and before != segment.first_position:  # the tail, or something lost, lies between
                chosen.append(None)
                members.append(None)
            before = segment.stop_position
            fit = allowed and segment.first_position not in self._damaged | self._better_apart
            chosen.append(segment.stop_position - segment.first_position if fit else None)
            members.append(segment)
        found = choose(chosen, sealing.SEGMENT_ROWS)
        if found is None:
            return None
        return Job([segment for segment in members[slice(*found)] if segment is not None], codec)

    # -- rewriting

    def _run(self, plan: Plan, wait: float) -> int:
        """Do jobs until there are none; returns the events whose codec changed."""
        changed, jobs = 0, 0
        with self._alone(wait) as alone:
            if not alone and wait:
                raise StoreLocked(f"{self._catalog.where}: another process is rewriting segments", hint="Wait for it.")
            while alone and (found := self._next(plan)) is not None:
                job, runs, lease = found
                with lease:
                    try:
                        made = self._write(job, runs)
                    except _Refused as refused:
                        self._damaged.add(refused.segment.first_position)
                        warnings.warn(f"left as it is: {refused.error}", DamagedSegment, stacklevel=4)
                        continue
                if self._takes_more_room(job, runs, made):
                    self._better_apart.update(segment.first_position for segment in job.segments)
                    for file, _ in made.values():
                        self._vault.remove(file.name)
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

    def _next(self, plan: Plan) -> tuple[Job, Mapping[int, Runs], Lease] | None:
        with self._lock:
            self._settle()
            lease = self._leases.hold(self._knowledge.generation)
            try:
                self._knowledge.refresh()
                job = plan(self._knowledge.view().segments)
                if job is None:
                    lease.release()
                    return None
                files = [file for segment in job.segments for file in segment.files.values()]
                return job, {file.no: self._knowledge.runs_of_file(file) for file in files}, lease
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
                content = write_segment(block, self._knowledge.names.__getitem__, job.codec)
                file = SegmentFile(
                    0, first, stop, block.type, new_name(first, content.suffix), content.rows, content.content.size,
                    content.footer_bytes, content.footer_crc,
                )  # fmt: skip
                written.append(file.name)
                self._vault.write(file.name, content.content)
                made[kind] = file, content.runs
                del content
                self._prove(block, *made[kind])
            for segment in job.segments:
                if not seen[segment.first_position - first : segment.stop_position - first].all():
                    raise _Refused(segment, self._corrupt(segment, "events are missing"))
            self._vault.sync()
        except BaseException as error:
            for name in written:
                self._vault.remove(name)
            if isinstance(error, OSError) and not isinstance(error, StoreError):
                raise as_store_error(error, self._catalog.where) from error
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
        whole = joined(blocks)
        del blocks
        order = cluster_order(whole.aggregate)
        return whole if order is None else whole.take(order)

    def _read_file(self, segment: Segment, file: SegmentFile, runs: Runs) -> Block:
        names = self._knowledge.names
        ends = np.cumsum(runs.rows)
        whole = len(runs) > 0 and np.array_equal(runs.row, ends - runs.rows) and ends[-1] == file.rows
        if not whole or runs.aggregate[0] < 0 or runs.aggregate[-1] >= len(names) or runs.rows.min() < 1:
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
        """Read a new file back: what replaces events must hold them, bit by bit."""
        runs = Runs.of(table)
        slab = self._segments.read(file, runs, list(block.columns), extra=STORED_EXTRA, exact=True)
        names = self._knowledge.names
        self._segments.check_runs(file, runs, slab, [names[number] for number in runs.aggregate.tolist()])
        wrong = differing(block, slab)
        if wrong is not None:
            raise StoreError(
                f"{self._catalog.where}: {wrong!r} of a rewritten segment was read back otherwise than written",
                hint="The segments before it were kept. Check the machine's memory and disk.",
            )

    def _exchange(self, job: Job, made: _Made) -> None:
        """Name the new files in place of the old ones: from this commit on, and not before, they are the log."""
        try:
            self._exclusive.enter()
        except BaseException:
            for file, _ in made.values():
                self._vault.remove(file.name)
            raise
        try:
            with self._lock:
                self._settle()
                try:
                    self._knowledge.learn_segment(self._named(job, made))
                except BaseException:  # the commit may stand all the same
                    self._knowledge.forget()
                    raise
                self._garbage.collect()
        finally:
            self._exclusive.leave()

    def _named(self, job: Job, made: _Made) -> Segment:
        first, stop = job.first_position, job.stop_position
        old = [file for segment in job.segments for file in segment.files.values()]
        execute = self._catalog.execute
        with transaction(self._catalog, self._vault, self._knowledge) as written:
            written += [file.name for file, _ in made.values()]
            known = {file.no for segment in self._knowledge.view().segments for file in segment.files.values()}
            if not known.issuperset(file.no for file in old):
                raise StoreError(
                    f"{self._catalog.where}: segments were rewritten by somebody else meanwhile",
                    hint="Nothing was changed. Try again.",
                )
            execute("UPDATE segments SET stop_position = ? WHERE first_position = ?", (stop, first))
            files = {kind: sealing.name_file(self._catalog, kind, *new) for kind, new in made.items()}
            self._garbage.drop(old, max(file.no for file in files.values()))
            execute("DELETE FROM segments WHERE first_position > ? AND first_position < ?", (first, stop))
        return Segment(first, stop, files)

    def _corrupt(self, segment: Segment, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._catalog.where}: positions {segment.first_position} to {segment.stop_position - 1}: {what}",
            hint="Restore the store from a copy.",
        )


def _size(catalog: Catalog) -> int:
    pages, size = (int(catalog.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size"))
    return pages * size


def _codec(segment: Segment) -> Codec:
    return "archive" if _is_archived(segment) else "parquet"


def _is_archived(segment: Segment) -> bool:
    return not any(file.name.endswith(FORMATS["parquet"].suffix) for file in segment.files.values())


def differing(block: Block, slab: Slab) -> str | None:
    """What of some events is not the same, bit by bit, in a slab; None where all is."""
    events = slab.events
    fixed = {
        "position": (block.position, events.position),
        "version": (block.version, events.version),
        "timestamp": (block.timestamp, events.timestamp),
        "aggregate_id": (block.aggregate, np.repeat(slab.aggregates, np.diff(slab.offsets))),
        "cause": (_causes(block), _causes(events)),
    }
    wrong = next((name for name, (kept, found) in fixed.items() if not np.array_equal(kept, found)), None)
    if wrong is not None:
        return wrong
    texts = {"event_id": (block.event_id, events.event_id), "metadata": (block.metadata, events.metadata)}
    columns = {name: (column, events.columns[name]) for name, column in block.columns.items()}
    return next((name for name, (kept, found) in (texts | columns).items() if not _same(kept, found)), None)


def _causes(block: Block) -> npt.NDArray[np.int64]:
    if block.cause is None:
        return np.full(len(block), NO_CAUSE, dtype=np.int64)
    return np.where(block.cause < 0, NO_CAUSE, block.cause)


def _same(kept: pa.Array | None, found: pa.Array | None) -> bool:
    """Whether two columns hold the same values; none at all is the same as nulls only."""
    if kept is None or found is None:
        return all(array is None or is_all_null(array) for array in (kept, found))
    if pa.types.is_dictionary(kept.type):
        if kept.dictionary.equals(found.dictionary):
            return bool(kept.indices.equals(found.indices))
        kept, found = kept.cast(kept.type.value_type), found.cast(kept.type.value_type)
    elif pa.types.is_floating(kept.type):  # -0.0 is not 0.0
        kept, found = kept.view(pa.int64()), found.view(pa.int64())
    return bool(kept.equals(found))
