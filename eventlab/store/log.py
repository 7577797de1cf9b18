"""The store: one append-only log, in a directory or in memory. Composes catalog, segments and tail."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
import polars as pl

from eventlab.errors import InvalidEvent, NotAStore, ReadOnlyStore, StoreError
from eventlab.events.frame import EventFrame
from eventlab.events.types import EventType
from eventlab.store import catalog as catalogs
from eventlab.store import public
from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog import Catalog, Durability
from eventlab.store.contract import Batch, Head, Late, Receipt, Selection
from eventlab.store.handlers import Handler, Handlers
from eventlab.store.reader import Reader, Want
from eventlab.store.segments import Runs, SegmentFile, Segments
from eventlab.store.vault import DirectoryVault, MemoryVault, Vault
from eventlab.store.verify import Report, verify_log
from eventlab.store.view import Knowledge, View
from eventlab.store.writer import Writer, mismatch

Clock = Callable[[], int]


class EventLog:
    """An embedded store, made by :meth:`open`; :class:`eventlab.store.contract.Store` says what it promises."""

    def __init__(self, catalog: Catalog, vault: Vault, clock: Clock) -> None:
        self._catalog = catalog
        self._vault = vault
        self._lock = threading.RLock()
        self._knowledge = Knowledge(catalog)
        self._segments = Segments(vault, catalog.where)
        self._reader = Reader(self._segments, self._knowledge.names)
        self._handlers = Handlers()
        self._writer = Writer(catalog, vault, self._knowledge, self._reader, clock)
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
        """
        if durability not in ("full", "relaxed"):
            raise StoreError("unknown durability", got=durability, expected="'full' or 'relaxed'")
        ticking = time.time_ns if clock is None else clock
        if str(path) == ":memory:":
            if read_only:
                raise StoreError("a store in memory is always new, so it cannot be opened read_only")
            return cls(catalogs.open_memory(), MemoryVault(), ticking)
        if not isinstance(path, (str, os.PathLike)):
            raise NotAStore("not a path", got=path, expected="a directory's path, or ':memory:'")
        directory = Path(path)
        catalog = catalogs.open_directory(directory, read_only=read_only, durability=durability, wait=wait)
        store = cls(catalog, DirectoryVault(directory / catalogs.SEGMENTS_NAME), ticking)
        if not read_only:
            store._writer.sweep()
        return store

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
    def path(self) -> str:
        """The directory, or ``:memory:``."""
        return self._catalog.where

    @property
    def stop_position(self) -> int:
        return self._view().stop_position

    @property
    def head_digest(self) -> str | None:
        """Digest of the last commit, hexadecimal; None for an empty store."""
        with self._lock:
            self._view()
            return None if self._knowledge.digest is None else self._knowledge.digest.hex()

    def _view(self) -> View:
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                self._knowledge.refresh()
            return self._knowledge.view()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise ReadOnlyStore(f"{self.path}: opened with read_only=True", hint="Open it without to append.")

    # -- event types

    def register(self, declared: EventType) -> None:
        with self._lock:
            self._check_open()
            known = self.types().get(declared.name)
            if known is None:
                self._check_writable()
                self._writer.register(declared)
            elif known != declared:
                raise mismatch(declared, known)

    def types(self) -> Mapping[str, EventType]:
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                self._knowledge.refresh_types()
            return MappingProxyType(dict(self._knowledge.types))

    # -- writing

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        expected: Mapping[str, int] | None = None,
        late: Late = "reject",
        source: tuple[str, int] | None = None,
    ) -> Receipt:
        if late not in ("reject", "clamp"):
            raise InvalidEvent("unknown way to treat late events", got=late, expected="'reject' or 'clamp'")
        with self._lock:
            self._check_writable()
            receipt, blocks = self._writer.commit(batches, expected or {}, late, source)
            frames = [
                (block.type.name, self._frame(block, public.default_columns(block.type)))
                for block in sorted(blocks, key=lambda block: int(block.position[0]))
                if self._handlers.wants(block.type.name)
            ]
            self._handlers.enqueue(frames)
        self._handlers.dispatch()
        return receipt

    def seal(self) -> int:
        """Turn the tail into segment files; returns how many events that were."""
        with self._lock:
            self._check_writable()
            return self._writer.seal()

    def subscribe(self, name: str, handler: Handler) -> Callable[[], None]:
        with self._lock:
            return self._handlers.subscribe(name, handler)

    # -- ingested sources

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        """The receipt of a source's chunk that was committed before."""
        with self._lock:
            self._view()
            return self._writer.chunk_receipt(identity, chunk)

    def source_receipt(self, identity: str) -> str | None:
        """What :meth:`finish_source` kept; None for a source unknown or unfinished."""
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                row = self._catalog.execute("SELECT receipt FROM sources WHERE identity = ?", (identity,)).fetchone()
            return None if row is None else row[0]

    def finish_source(self, identity: str, receipt: str) -> None:
        """Record that all of a source is in the store."""
        with self._lock:
            self._check_writable()
            self._writer.finish_source(identity, receipt)

    # -- heads and moments

    def heads(self, aggregates: Collection[str] | None = None) -> list[Head]:
        query = "SELECT name, version, position, timestamp FROM aggregates"
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                if aggregates is None:
                    return [Head(*row) for row in self._catalog.execute(f"{query} ORDER BY name")]
                query += " WHERE name = ?"
                rows = (self._catalog.execute(query, (name,)).fetchone() for name in sorted(set(aggregates)))
                return [Head(*row) for row in rows if row is not None]

    def aggregate_ids(self, pattern: str = "*") -> list[str]:
        matches = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL).fullmatch
        self._view()
        if "*" not in pattern:
            return [pattern] if pattern in self._knowledge.numbers else []
        return sorted(name for name in self._knowledge.names if matches(name))

    def position_at(self, known_at: int) -> int:
        query = (
            "SELECT first_position, events, recorded_at FROM commits WHERE first_position <= ? "
            "ORDER BY first_position DESC LIMIT 1"
        )
        with self._lock:
            low, high = 0, self._view().stop_position  # events below low are known, events from high on are not
            with self._catalog.reading():
                while low < high:
                    first, events, recorded_at = self._catalog.execute(query, ((low + high) // 2,)).fetchone()
                    low, high = (first + events, high) if recorded_at <= known_at else (low, first)
            return low

    def recorded_at(self, positions: Int64Array) -> Int64Array:
        """Commit times, ns UTC, of events at ascending positions."""
        if len(positions) == 0:
            return np.empty(0, dtype=np.int64)
        query = (
            "SELECT first_position, recorded_at FROM commits WHERE first_position <= ? AND first_position >= "
            "(SELECT max(first_position) FROM commits WHERE first_position <= ?) ORDER BY first_position"
        )
        with self._lock, self._catalog.reading():
            rows = self._catalog.execute(query, (int(positions[-1]), int(positions[0]))).fetchall()
        commits = np.array(rows, dtype=np.int64).reshape(-1, 2)
        recorded: Int64Array = commits[np.searchsorted(commits[:, 0], positions, "right") - 1, 1]
        return recorded

    # -- reading

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        view, want = self._wanted(selection)
        return self._reader.frames(view, want)

    def _wanted(self, selection: Selection) -> tuple[View, Want]:
        with self._lock:
            view = self._view()
            numbers = self._knowledge.numbers
            for name, columns in selection.columns.items():
                known = self._knowledge.types.get(name)
                if known is not None:
                    for column in columns:
                        known.field(column)
            stop = view.stop_position if selection.stop_position is None else selection.stop_position
            stop = min(stop, view.stop_position)
            after = {numbers[name]: version for name, version in selection.after_version.items() if name in numbers}
            until = (selection.until_version, selection.until_time)
            if selection.aggregates is None:
                return view, Want(selection.columns, selection.others, None, after, stop, self._runs_of_file, *until)
            chosen = sorted({numbers[name] for name in selection.aggregates if name in numbers})
            with self._catalog.reading():
                runs = self._knowledge.runs_of_aggregates(chosen, after, stop)
            array = np.array(chosen, dtype=np.int64)
            return view, Want(
                selection.columns, selection.others, array, after, stop, lambda file: runs.get(file.no), *until
            )

    def _runs_of_file(self, file: SegmentFile) -> Runs:
        with self._lock:
            self._check_open()
            return self._knowledge.runs_of_file(file)

    def rows(
        self,
        declared: EventType,
        *,
        aggregates: Sequence[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pl.DataFrame]:
        wanted = tuple(public.frame_schema(declared, columns))
        payload = [name for name in wanted if name not in public.ENVELOPE_TYPES]
        extra = [name for name in public.STORED_EXTRA if name in wanted]
        view, want = self._wanted(Selection(columns={declared.name: payload}, aggregates=aggregates))
        blocks = self._reader.blocks(view, declared.name, want, extra, start=start, stop=stop)
        return (self._frame(block, wanted) for block in blocks)

    def _frame(self, block: Block, columns: Sequence[str]) -> pl.DataFrame:
        return public.to_frame(
            block,
            columns,
            name_of=self._knowledge.names.__getitem__,
            store_id=self.store_id,
            recorded_at=self.recorded_at,
        )

    def find(self, event_id: str) -> pl.DataFrame | None:
        """The event with this id, supplied or computed, as a frame of one row with all columns; None if there is none.

        A computed id does not say where its event is: ids are computed until one fits, about a million a second.
        """
        with self._lock:
            self._view()
            with self._catalog.reading():
                block = self._writer.identities.find(event_id)
        return None if block is None else self._frame(block, public.all_columns(block.type))

    # -- audit

    def verify(self) -> Report:
        """Read everything back and prove it; see :func:`eventlab.store.verify.verify_log`."""
        with self._lock:
            self._check_open()
            return verify_log(self._catalog, self._segments, self._knowledge)

    def bytes_on_disk(self) -> int:
        """Bytes of all the store's files; of what is kept in memory for ``:memory:``."""
        with self._lock:
            self._check_open()
            if self.path != ":memory:":
                return sum(_size(file) for file in Path(self.path).rglob("*"))
            pages, size = (
                self._catalog.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
            )
            files = self._catalog.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0]
            return int(pages * size + files)

    def count_commits(self) -> int:
        """Number of commits."""
        with self._lock:
            self._check_open()
            with self._catalog.reading():
                return int(self._catalog.execute("SELECT count(*) FROM commits").fetchone()[0])

    def count_aggregates(self) -> int:
        """Number of aggregates."""
        self._view()
        return len(self._knowledge.names)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self.read_only:
                self._catalog.tidy()
            try:
                self._catalog.close()
            except sqlite3.Error as error:
                raise catalogs.translated(error, self.path) from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:  # SQLite's own files come and go with other processes
        return 0
