"""The built-in store: one append-only log, in a directory or in memory; what `LogReader` reads, and writing."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from eventlab.errors import NotAStore, ReadOnlyStore, StoreCorrupt, StoreError
from eventlab.events.types import EventType
from eventlab.runtime.weak_calls import weakly
from eventlab.storage.local import LocalStorage
from eventlab.storage.memory import MemoryStorage
from eventlab.store.api import Store
from eventlab.store.catalog.checkpoints import Checkpoints
from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.catalog.opening import SEGMENTS_NAME, open_directory, open_memory
from eventlab.store.catalog.read_log import ReadLog
from eventlab.store.catalog.schemas import check_writable
from eventlab.store.commit.writer import Writer
from eventlab.store.compaction.compactor import REWRITING, Compactor
from eventlab.store.disk.read_leases import FileLeases, MemoryLeases
from eventlab.store.disk.writer_lock import LOCK_NAME, Exclusive, FileLock
from eventlab.store.journal.files import JOURNALS_NAME, DirectoryJournals, MemoryJournals
from eventlab.store.log_reader import LogReader
from eventlab.store.read.subscriptions import Handler, Handlers
from eventlab.store.segments.segments import FORMATS
from eventlab.store.types import Batch, Codec, Durability, Late, Receipt, Report, Vacuumed

Clock = Callable[[], int]


class EventLog(LogReader, Store):
    """The built-in store, made by :meth:`open`. :class:`eventlab.store.api.Store` documents the methods."""

    def __init__(self, store: OpenStore, clock: Clock, *, record_reads: bool) -> None:
        super().__init__(store)
        self._exclusive = store.exclusive
        # A log that is dropped gives its files back at once, so none of its parts may keep it alive.
        self._release = weakref.finalize(self, store.release)
        self._release.atexit = False
        self._handlers = Handlers(weakly(self._default_frame), weakly(self._rows_between))
        self._followers: list[Callable[[Collection[str]], None]] = []
        self._checkpoints = Checkpoints(store.catalog, store.lock, weakly(self.digest_at))
        self._read_log = ReadLog(store.catalog, store.lock, recording=record_reads)
        self._writer = Writer(store, self._event_ids, clock, self._handlers)
        self._compactor = Compactor(store, self._segments, weakly(self._settle))

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
        """Open a store, creating it if there is none; :func:`eventlab.open` documents the parameters."""
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
                raise StoreError("a store in memory is always empty at first, so it cannot be opened read_only")
            catalog = open_memory()
            opened = OpenStore(
                catalog, MemoryStorage(), MemoryJournals(catalog.store_id), MemoryLeases(),
                Exclusive(FileLock(None), wait, ":memory:"), FileLock(None), codec,
            )  # fmt: skip
            return cls(opened, ticking, record_reads=record_reads)
        if not isinstance(path, (str, os.PathLike)):
            raise NotAStore("not a path", got=path, expected="a directory's path, or ':memory:'")
        directory = Path(path).absolute()  # the process may change its working directory
        catalog = open_directory(directory, read_only=read_only, wait=wait)
        lock = directory / LOCK_NAME
        journals = DirectoryJournals(
            directory / JOURNALS_NAME, catalog.store_id, read_only=read_only, synced=durability == "full"
        )
        opened = OpenStore(
            catalog, LocalStorage(directory / SEGMENTS_NAME), journals, FileLeases(lock),
            Exclusive(FileLock(lock, read_only=read_only), wait, str(directory)),
            FileLock(lock, read_only=read_only, byte=REWRITING), codec,
        )  # fmt: skip
        store = cls(opened, ticking, record_reads=record_reads)
        try:
            store._begin()
        except BaseException:
            with suppress(StoreError):
                store._release()
            raise
        return store

    def _begin(self) -> None:
        """Take over from a killed writer: keep its complete commits, remove files that the catalog does not name."""
        if self._catalog.damage is not None:
            return
        if self.read_only:
            free = self._exclusive.is_free()
            self._index.refresh(alone=free)
            if free and not self._exclusive.is_free():  # a writer began meanwhile, and may drop unpublished commits
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

    def _check_writable(self) -> None:
        self._check_open()
        if self._catalog.read_only:
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

    # -- writing

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        expected: Mapping[str, int] | None = None,
        late: Late = "reject",
        source: tuple[str, int] | None = None,
    ) -> Receipt:
        self._check_writable()
        with self._exclusive.held(), self._lock:
            self._check_writable()  # another thread may have closed the store
            made = self._writer.commit(batches, expected or {}, late, source)
        if made.aggregates:
            self._watch.notify(others=made.new_segments)
        self._handlers.dispatch()
        if made.new_segments:
            self._compactor.merge_due()
        if made.aggregates:
            for follower in self._followers:
                follower(made.aggregates)
        return made.receipt

    def follow(self, follower: Callable[[Collection[str]], None]) -> None:
        self._followers.append(follower)

    def seal(self) -> int:
        self._check_writable()
        with self._exclusive.held(), self._lock:
            self._check_writable()
            sealed = self._writer.seal()
        self._compactor.merge_all()
        return sealed

    def _settle(self) -> None:
        """Finish prepared commits; call before the catalog is changed."""
        self._check_writable()
        self._writer.drain()

    def archive(self, before: int | None = None) -> int:
        self._check_writable()
        with self._exclusive.held(), self._lock:
            manifest = self._manifest()
            stop = manifest.stop_position if before is None else self._commits.position_at(before - 1)
            if any(piece.first_position < stop for piece in manifest.unsealed):
                self._writer.seal()
        return self._compactor.archive(stop)

    def vacuum(self) -> Vacuumed:
        self._check_writable()
        return self._compactor.vacuum()

    def subscribe(self, name: str, handler: Handler, start: int | None = None) -> Callable[[], None]:
        with self._lock:
            undo = self._handlers.subscribe(name, handler, start, self.stop_position)
        self._handlers.dispatch()
        return undo

    # -- read models

    @property
    def checkpoints(self) -> Checkpoints:
        return self._checkpoints

    @property
    def read_log(self) -> ReadLog:
        return self._read_log

    # -- ingested sources

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        with self._lock:
            self._refresh()
            return self._writer.chunk_receipt(identity, chunk)

    def source_receipt(self, identity: str) -> str | None:
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                return self._catalog.source_receipt(identity)

    def finish_source(self, identity: str, receipt: str) -> None:
        self._check_writable()
        with self._exclusive.held(), self._lock:
            self._writer.drain()
            self._writer.finish_source(identity, receipt)

    def backup(self, path: str | Path) -> Report:
        from eventlab.store.verify.backup import copy_moment, copy_segments, new_copy

        place = Path(path).absolute()
        if Path(self.path).absolute() in (place, *place.parents):
            raise NotAStore(f"{path}: is inside the store", expected="a path outside of it")
        with new_copy(place) as partial:
            with self._hold():
                with self._lock:
                    if not self.read_only:
                        self._writer.drain()
                    names = copy_moment(self._catalog, self._index, partial)
                try:
                    copy_segments(self._open_store.storage, names, partial)
                except FileNotFoundError as error:
                    raise StoreCorrupt(f"{self.path}: a segment file is missing", got=str(error)) from error
            with EventLog.open(partial) as copy:
                return copy.verify()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._writer.drain()
            self._closed = True
            self._watch.close()
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
