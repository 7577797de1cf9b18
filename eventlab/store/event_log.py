"""The store: one append-only log, in a directory or in memory. Composes catalog, journal and segments."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self, get_args

import numpy as np
import polars as pl

from eventlab.errors import InvalidEvent, NotAStore, ReadOnlyStore, StoreCorrupt, StoreError
from eventlab.events.frame import EventFrame
from eventlab.events.types import EventType
from eventlab.store.api import Batch, Codec, Head, Late, Receipt, Selection
from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog.checkpoints import Checkpoints
from eventlab.store.catalog.commits import Commits
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.manifest import Manifest
from eventlab.store.catalog.opening import CATALOG_NAME, SEGMENTS_NAME, Durability, open_directory, open_memory
from eventlab.store.catalog.read_log import ReadLog
from eventlab.store.catalog.schemas import check_wanted, check_writable, meaning
from eventlab.store.commit.seal import Sealer
from eventlab.store.commit.writer import Writer
from eventlab.store.compaction.compactor import REWRITING, Compactor
from eventlab.store.compaction.garbage import Garbage, Vacuumed
from eventlab.store.disk.read_leases import FileLeases, Lease, Leases, MemoryLeases, leased
from eventlab.store.disk.writer_lock import LOCK_NAME, Exclusive, FileLock, NoLock
from eventlab.store.journal.files import JOURNALS_NAME, DirectoryJournals, Journals, MemoryJournals
from eventlab.store.read import frames as public
from eventlab.store.read import reader
from eventlab.store.read.commit_watch import News
from eventlab.store.read.reader import Reader, Want
from eventlab.store.read.subscriptions import Handler, Handlers
from eventlab.store.segments.files import DirectoryVault, MemoryVault, Vault
from eventlab.store.segments.segments import FORMATS, Runs, SegmentFile, Segments
from eventlab.store.verify.backup import Target, copy_moment, copy_segments
from eventlab.store.verify.log import Report, verify_log

Clock = Callable[[], int]


class EventLog:
    """An embedded store, made by :meth:`open`; :class:`eventlab.store.api.Store` says what it promises."""

    def __init__(
        self,
        catalog: Catalog,
        vault: Vault,
        journals: Journals,
        exclusive: Exclusive,
        rewriting: FileLock | NoLock,
        leases: Leases,
        codec: Codec,
        clock: Clock,
        *,
        record_reads: bool,
    ) -> None:
        self._catalog = catalog
        self._vault = vault
        self._journals = journals
        self._exclusive = exclusive
        self._leases = leases
        self._lock = threading.RLock()
        self._index = LogIndex(catalog, journals)
        self._commits = Commits(catalog, self._index)
        self._segments = Segments(vault, catalog.where)
        self._reader = Reader(self._segments, self._index.names)
        self._handlers = Handlers(self._default_frame, self._rows_between)
        self._followers: list[Callable[[Collection[str]], None]] = []
        self._news = News(None if catalog.where == ":memory:" else Path(catalog.where, CATALOG_NAME))
        self._checkpoints = Checkpoints(catalog, self._lock, self.digest_at)
        self._read_log = ReadLog(catalog, self._lock, recording=record_reads)
        self._writer = Writer(
            catalog,
            vault,
            journals,
            self._index,
            self._reader,
            Sealer(catalog, vault, journals, self._index, codec),
            clock,
            exclusive,
            self._lock,
            self._handlers,
        )
        self._compactor = Compactor(
            catalog, vault, self._index, self._segments,
            Garbage(catalog, vault, journals, self._index, leases), leases,
            exclusive=exclusive, right=rewriting, lock=self._lock, settle=self._settle, codec=codec,
        )  # fmt: skip
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        clock: Clock | None = None,
        read_only: bool = False,
        durability: Durability = "full",
        wait: float = 10.0,
        codec: Codec = "parquet",
        record_reads: bool = False,
    ) -> Self:
        """Open a store, making it where there is none.

        Parameters
        ----------
        path : str or Path
            A directory, or ``":memory:"``.
        clock : callable, optional
            Gives nanoseconds since the epoch, UTC; the system's by default.
        read_only : bool
            Read without writing anything.
        durability : {"full", "relaxed"}
            ``"full"`` syncs every commit to disk; ``"relaxed"`` may lose the last ones when the power fails, but stays
            consistent.
        wait : float
            Seconds to wait for another writer.
        codec : {"parquet", "archive"}
            How new segment files are written; both are read alike. ``"archive"`` takes less room and more time.
        record_reads : bool
            Keep which past states are asked for; see :attr:`read_log`.
        """
        if durability not in ("full", "relaxed"):
            raise StoreError("unknown durability", got=durability, expected="'full' or 'relaxed'")
        if codec not in FORMATS:
            raise StoreError("unknown codec", got=codec, expected=" or ".join(map(repr, FORMATS)))
        if record_reads and read_only:
            raise ReadOnlyStore(
                f"{path}: reads are recorded in the store, and it is opened read-only",
                hint="Leave out record_reads or read_only.",
            )
        ticking = time.time_ns if clock is None else clock
        if str(path) == ":memory:":
            if read_only:
                raise StoreError("a store in memory is always new, so it cannot be opened read_only")
            catalog = open_memory()
            return cls(
                catalog, MemoryVault(), MemoryJournals(catalog.store_id), Exclusive(NoLock(), wait, ":memory:"),
                NoLock(), MemoryLeases(), codec, ticking, record_reads=record_reads,
            )  # fmt: skip
        if not isinstance(path, (str, os.PathLike)):
            raise NotAStore("not a path", got=path, expected="a directory's path, or ':memory:'")
        directory = Path(path)
        catalog = open_directory(directory, read_only=read_only, wait=wait)
        lock = directory / LOCK_NAME
        exclusive = Exclusive(FileLock(lock, read_only=read_only), wait, str(path))
        journals = DirectoryJournals(
            directory / JOURNALS_NAME, catalog.store_id, read_only=read_only, synced=durability == "full"
        )
        store = cls(
            catalog, DirectoryVault(directory / SEGMENTS_NAME), journals, exclusive,
            FileLock(lock, read_only=read_only, byte=REWRITING), FileLeases(lock), codec, ticking,
            record_reads=record_reads,
        )  # fmt: skip
        try:
            store._begin()
        except BaseException:
            with suppress(StoreError):
                store._release()
            raise
        return store

    def _begin(self) -> None:
        """Take what a killed writer left: its last commits where they are whole, its files where nobody names them."""
        if self._catalog.damage is not None:
            return
        if self.read_only:
            free = self._exclusive.is_free()
            self._index.refresh(alone=free)
            if free and not self._exclusive.is_free():  # a writer began meanwhile: what is not published may not stay
                self._index.forget()
                self._index.refresh()
        elif self._exclusive.try_enter():
            try:
                self._index.refresh(alone=True)
                if self._index.journal is not None:
                    self._index.journal.recover()
                self._compactor.begin()
            finally:
                self._exclusive.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store_id(self) -> str:
        return self._catalog.store_id

    @property
    def read_only(self) -> bool:
        return self._catalog.read_only

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def path(self) -> str:
        """The directory, or ``:memory:``."""
        return self._catalog.where

    @property
    def stop_position(self) -> int:
        with self._lock:
            self._refresh()
            return self._index.stop_position

    @property
    def head_digest(self) -> str | None:
        """Digest of the last commit, hexadecimal; None for an empty store."""
        with self._lock:
            self._refresh()
            if self._index.digest is None:
                self._index.check_whole()
                return None
            return self._index.digest.hex()

    def _manifest(self) -> Manifest:
        with self._lock:
            self._refresh()
            return self._index.manifest()

    def _refresh(self) -> None:
        self._check_open()
        self._index.refresh()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")
        self._catalog.check()

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise ReadOnlyStore(f"{self.path}: opened with read_only=True", hint="Open it without to append.")

    # -- event types

    def register(self, declared: EventType) -> None:
        known = self.types().get(declared.name)
        check_writable([declared], () if known is None else [known])
        if known is None or known.schema_version < declared.schema_version:
            self._check_writable()
            with self._exclusive.held(), self._lock:
                self._writer.drain()
                self._writer.register(declared)

    def types(self) -> Mapping[str, EventType]:
        with self._lock:
            self._check_open()
            self._index.refresh()
            return MappingProxyType(dict(self._index.types))

    # -- writing

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        expected: Mapping[str, int] | None = None,
        late: Late = "reject",
        source: tuple[str, int] | None = None,
    ) -> Receipt:
        if late not in get_args(Late):
            ways = " or ".join(map(repr, get_args(Late)))
            raise InvalidEvent("unknown way to treat late events", got=late, expected=ways)
        self._check_writable()
        with self._exclusive.held(), self._lock:
            self._check_writable()  # another thread may have closed the store
            made = self._writer.commit(batches, expected or {}, late, source)
        if made.aggregates:
            self._news.tell(others=made.new_segments)
        self._handlers.dispatch()
        if made.new_segments:
            self._compactor.merge_due()
        if made.aggregates:
            for follower in self._followers:
                follower(made.aggregates)
        return made.receipt

    def follow(self, follower: Callable[[Collection[str]], None]) -> None:
        """Call `follower` after each commit made here, with the aggregates that got events. It must not raise."""
        self._followers.append(follower)

    def seal(self) -> int:
        """Turn all unsealed commits into segments and merge small ones; returns how many events were unsealed."""
        self._check_writable()
        with self._exclusive.held(), self._lock:
            self._check_writable()
            sealed = self._writer.seal()
        self._compactor.merge_all()
        return sealed

    def _settle(self) -> None:
        """Before the catalog is changed: what is prepared must not be left in between."""
        self._check_writable()
        self._writer.drain()

    def archive(self, before: int | None = None) -> int:
        """Rewrite segments that were wholly recorded before a moment, ns UTC, with the archive codec.

        Returns the number of events. None means all, unsealed ones too.
        """
        self._check_writable()
        with self._exclusive.held(), self._lock:
            manifest = self._manifest()
            stop = manifest.stop_position if before is None else self._commits.position_at(before - 1)
            if any(piece.first_position < stop for piece in manifest.unsealed):
                self._writer.seal()
        return self._compactor.archive(stop)

    def vacuum(self) -> Vacuumed:
        """Remove files that nothing needs and nobody is reading, and give the catalog's free pages back."""
        self._check_writable()
        return self._compactor.vacuum()

    def subscribe(self, name: str, handler: Handler, start: int | None = None) -> Callable[[], None]:
        with self._lock:
            stop = self.stop_position
            if start is not None and (isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= stop):
                raise InvalidEvent("start is not a position of the log", got=start, expected=f"0 to {stop}")
            undo = self._handlers.subscribe(name, handler, start, stop)
        self._handlers.dispatch()
        return undo

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after commits of any process, and when this store closes; returns the undoing.

        It is a hint: it may come without a commit, and from any thread.
        """
        with self._lock:
            self._check_open()
            return self._news.listen(listener)

    # -- read models

    @property
    def checkpoints(self) -> Checkpoints:
        """States that read models keep."""
        return self._checkpoints

    @property
    def read_log(self) -> ReadLog:
        """Which past states were asked for."""
        return self._read_log

    # -- ingested sources

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        """The receipt of a source's chunk that was committed before."""
        with self._lock:
            self._refresh()
            return self._writer.chunk_receipt(identity, chunk)

    def source_receipt(self, identity: str) -> str | None:
        """What :meth:`finish_source` kept; None for a source unknown or unfinished."""
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                return self._catalog.source_receipt(identity)

    def finish_source(self, identity: str, receipt: str) -> None:
        """Record that all of a source is in the store."""
        self._check_writable()
        with self._exclusive.held(), self._lock:
            self._writer.drain()
            self._writer.finish_source(identity, receipt)

    # -- heads and moments

    def heads(self, aggregates: Collection[str] | None = None) -> list[Head]:
        with self._lock:
            self._refresh()
            return self._commits.heads(aggregates)

    def aggregate_ids(self, pattern: str = "*") -> list[str]:
        matches = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL).fullmatch
        self._manifest()
        if "*" not in pattern:
            return [pattern] if pattern in self._index.numbers else []
        return sorted(name for name in self._index.names if matches(name))

    def aggregates_with(self, types: Collection[str]) -> set[str]:
        """Those that have events of any of these types, told without reading any."""
        with self._hold():
            manifest = self._manifest()
            numbers = reader.aggregates_with(manifest, types, self._runs_of_file)
            names = self._index.names
            return set(names) if numbers is None else {names[number] for number in numbers.tolist()}

    def position_at(self, known_at: int) -> int:
        with self._lock:
            self._refresh()
            return self._commits.position_at(known_at)

    def recorded_at(self, positions: Int64Array) -> Int64Array:
        """Commit times, ns UTC, of events at ascending positions."""
        with self._lock:
            self._refresh()
            return self._commits.recorded_at(positions)

    def digest_at(self, stop_position: int) -> bytes | None:
        """Digest of the commit that ends at a position; None where none does."""
        with self._lock:
            self._refresh()
            return self._commits.digest_at(stop_position)

    # -- reading

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        return leased(self._hold(), lambda: self._reader.frames(*self._wanted(selection)))

    def times_ascend_in(self, aggregate: str) -> bool:
        with self._lock:
            self._refresh()
            return self._index.numbers.get(aggregate) not in self._index.backdated

    def first_versions(self, aggregate: str) -> Int64Array:
        """Where what is decoded at once begins: ascending versions of an aggregate, one a row group of its files."""
        with self._hold():
            manifest, want = self._wanted(Selection({}, others=True, aggregates=[aggregate]))
            files = [file for segment in manifest.segments for file in segment.files.values()]
            runs = [(file, found) for file in files if (found := want.runs(file)) is not None]
            starts = [self._segments.first_versions(*one) for one in runs]
        return np.unique(np.concatenate([np.ones(1, np.int64), *starts]))

    def _hold(self) -> Lease:
        """A lease, to be taken before the manifest that it protects."""
        with self._lock:
            self._check_open()
            return self._leases.hold(self._index.generation)

    def _wanted(self, selection: Selection) -> tuple[Manifest, Want]:
        with self._lock:
            manifest = self._manifest()
            numbers = self._index.numbers
            types = self._types_of(selection)
            stop = manifest.stop_position if selection.stop_position is None else selection.stop_position
            stop = min(stop, manifest.stop_position)
            after = {numbers[name]: version for name, version in selection.after_version.items() if name in numbers}
            until = (selection.until_version, selection.until_time)
            bounds = (*until, selection.start_position, types, selection.since_time)
            if selection.aggregates is None:
                runs_of = self._runs_of_file
                late = set(self._index.backdated)
                return manifest, Want(selection.columns, selection.others, None, after, stop, runs_of, *bounds, late)
            chosen = sorted({numbers[name] for name in selection.aggregates if name in numbers})
            runs = self._index.runs_of_aggregates(chosen, after, stop, selection.until_version)
            manifest = self._index.manifest()
            array, late = np.array(chosen, dtype=np.int64), self._index.backdated.intersection(chosen)
            return manifest, Want(
                selection.columns, selection.others, array, after, stop, lambda file: runs.get(file.no), *bounds, late
            )

    def _types_of(self, selection: Selection) -> dict[str, EventType]:
        """The versions in which payload columns are wanted, of types that the store has."""
        newest = self._index.types
        types = {
            name: selection.types.get(name) or meaning(name, newest)
            for name, columns in selection.columns.items()
            if columns and name in newest
        }
        for name, declared in types.items():
            for column in selection.columns[name]:
                declared.field(column)
        check_wanted(types, self._index.types_by_number.values())
        return types

    def _runs_of_file(self, file: SegmentFile) -> Runs:
        with self._lock:
            self._check_open()
            return self._index.runs_of_file(file)

    def rows(
        self,
        declared: EventType,
        *,
        aggregates: Sequence[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
        columns: Sequence[str] | None = None,
        first_position: int = 0,
        stop_position: int | None = None,
        computed_ids: bool = True,
    ) -> Iterator[pl.DataFrame]:
        wanted = tuple(public.frame_schema(declared, columns))
        payload = [name for name in wanted if name not in public.ENVELOPE_TYPES]
        extra = [name for name in public.STORED_EXTRA if name in wanted]

        def begin() -> Iterator[pl.DataFrame]:
            columns, types = {declared.name: payload}, {declared.name: declared}
            manifest, want = self._wanted(
                Selection(columns, aggregates=aggregates, stop_position=stop_position, types=types)
            )
            blocks = self._reader.blocks(
                manifest, declared.name, want, extra, first_position=first_position, start=start, stop=stop
            )
            return map(partial(self._frame, columns=wanted, computed_ids=computed_ids), blocks)

        return leased(self._hold(), begin)

    def _rows_between(self, name: str, first: int, stop: int) -> Iterator[pl.DataFrame]:
        declared = meaning(name, self.types())
        wanted = public.default_columns(declared)
        payload = [field.name for field in declared]
        with self._hold():
            manifest, want = self._wanted(
                Selection(columns={name: payload}, stop_position=stop, types={name: declared})
            )
            for block in self._reader.blocks(manifest, name, want, ("cause",), first_position=first):
                yield self._frame(block, wanted)

    def _default_frame(self, block: Block) -> pl.DataFrame:
        return self._frame(block, public.default_columns(block.type))

    def _frame(self, block: Block, columns: Sequence[str], *, computed_ids: bool = True) -> pl.DataFrame:
        return public.to_frame(
            block,
            columns,
            computed_ids=computed_ids,
            name_of=self._index.names.__getitem__,
            store_id=self.store_id,
            recorded_at=self.recorded_at,
        )

    def find(self, event_id: str) -> pl.DataFrame | None:
        """The event with this id, supplied or computed, as a frame of one row with all columns; None if there is none.

        A computed id does not say where its event is: ids are computed until one fits, about a million a second.
        """
        with self._lock, self._hold():
            self._manifest()
            with self._catalog.reading():
                block = self._writer.event_ids.find(event_id)
        return None if block is None else self._frame(block, public.all_columns(block.type))

    # -- audit

    def verify(self) -> Report:
        """Read everything back and prove it; see :func:`eventlab.store.verify.log.verify_log`."""
        with self._lock, self._hold():
            return verify_log(self._catalog, self._segments, self._index)

    def backup(self, path: str | Path) -> Report:
        """Copy the store as it is now into a new directory; what comes back is the proof of the copy.

        Others go on reading and writing. The copy is built beside its place, proven, and only then given its name.
        """
        place = Path(path).absolute()
        if Path(self.path).absolute() in (place, *place.parents):
            raise NotAStore(f"{path}: lies inside the store", expected="a path outside of it")
        target = Target(place)
        try:
            with self._hold():
                with self._lock:
                    if not self.read_only:
                        self._writer.drain()
                    names = copy_moment(self._catalog, self._index, target.partial)
                try:
                    copy_segments(self._vault, names, target.partial)
                except FileNotFoundError as error:
                    raise StoreCorrupt(f"{self.path}: a segment file is missing", got=str(error)) from error
            with EventLog.open(target.partial) as copy:
                report = copy.verify()
            target.finish()
        except BaseException:
            target.discard()
            raise
        return report

    def bytes_on_disk(self) -> int:
        """Bytes of all the store's files; of what is kept in memory for ``:memory:``."""
        with self._lock:
            self._check_open()
            if self.path != ":memory:":
                return sum(_size(file) for file in Path(self.path).rglob("*"))
            journal = 0 if self._index.journal is None else len(self._index.journal.content())
            return self._catalog.size() + self._catalog.bytes_of_files() + journal

    def count_commits(self) -> int:
        """Number of commits."""
        with self._lock:
            self._check_open()
            self._refresh()
            return self._commits.count()

    def count_aggregates(self) -> int:
        """Number of aggregates."""
        self._manifest()
        return len(self._index.names)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._writer.drain()
            self._closed = True
            self._news.close()
            try:
                self._read_log.close()
                if not self.read_only and self._catalog.damage is None and self._exclusive.try_enter():
                    try:
                        self._index.refresh(alone=True)
                        if self._index.journal is not None:
                            self._index.journal.settle()
                            self._index.journal.trim()
                        self._catalog.tidy()
                    finally:
                        self._exclusive.leave()
            finally:
                self._release()

    def _release(self) -> None:
        self._index.close()
        self._exclusive.close()
        self._compactor.close()
        self._catalog.close()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:  # SQLite's own files come and go with other processes
        return 0
