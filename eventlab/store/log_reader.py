"""The reading half of the built-in store: reads catalog, journal and segments as one log."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeVar

import numpy as np
import polars as pl

from eventlab.errors import StoreError
from eventlab.events.aggregate_ids import matching
from eventlab.events.frame import EventFrame
from eventlab.events.types import EventType
from eventlab.store.api import EventReader
from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog.commits import Commits
from eventlab.store.catalog.manifest import Manifest
from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.catalog.opening import CATALOG_NAME
from eventlab.store.catalog.schemas import meaning
from eventlab.store.commit.event_ids import EventIds
from eventlab.store.disk.read_leases import Lease, leased
from eventlab.store.read import frames as public
from eventlab.store.read import reader
from eventlab.store.read.commit_watch import CommitWatch
from eventlab.store.read.reader import Reader, Want
from eventlab.store.segments.segments import Runs, Segments
from eventlab.store.types import Head, Report, Selection

ItemT = TypeVar("ItemT")


class LogReader(EventReader):
    """Reads a log. :class:`eventlab.store.api.EventReader` documents the methods."""

    def __init__(self, store: OpenStore) -> None:
        self._open_store = store
        self._catalog = catalog = store.catalog
        self._index = store.index
        self._lock = store.lock
        self._commits = Commits(catalog, self._index)
        self._segments = Segments(store.storage, catalog.where)
        self._reader = Reader(self._segments, self._index.names)
        self._event_ids = EventIds(catalog, self._index, self._reader)
        self._watch = CommitWatch(None if catalog.where == ":memory:" else Path(catalog.where, CATALOG_NAME))
        self._closed = False

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
        return self._catalog.where

    @property
    def stop_position(self) -> int:
        with self._lock:
            self._refresh()
            return self._index.stop_position

    @property
    def head_digest(self) -> str | None:
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
        if self._catalog.damage is not None:
            raise copy.copy(self._catalog.damage)  # without the traceback of the last time

    def types(self) -> Mapping[str, EventType]:
        with self._lock:
            self._refresh()
            return MappingProxyType(dict(self._index.types))

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            self._check_open()
            return self._watch.listen(listener)

    # -- heads and moments

    def heads(self, aggregates: Collection[str] | None = None) -> list[Head]:
        with self._lock:
            self._refresh()
            return self._commits.heads(aggregates)

    def aggregate_ids(self, pattern: str = "*") -> list[str]:
        self._manifest()
        if "*" not in pattern:
            return [pattern] if pattern in self._index.numbers else []
        return matching(self._index.names, pattern)

    def aggregates_with(self, types: Collection[str]) -> set[str]:
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
        with self._lock:
            self._refresh()
            return self._commits.recorded_at(positions)

    def digest_at(self, stop_position: int) -> bytes | None:
        with self._lock:
            self._refresh()
            return self._commits.digest_at(stop_position)

    # -- reading

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        return self._leased(lambda: self._reader.frames(*self._wanted(selection)))

    def times_ascend_in(self, aggregate: str) -> bool:
        with self._lock:
            self._refresh()
            return self._index.numbers.get(aggregate) not in self._index.backdated

    def first_versions(self, aggregate: str) -> Int64Array:
        with self._hold():
            manifest, want = self._wanted(Selection({}, others=True, aggregates=[aggregate]))
            files = [file for segment in manifest.segments for file in segment.files.values()]
            runs = [(file, found) for file in files if (found := want.runs(file.no)) is not None]
            starts = [self._segments.first_versions(*one) for one in runs]
        return np.unique(np.concatenate([np.ones(1, np.int64), *starts]))

    def _hold(self) -> Lease:
        """A lease; take it before the manifest whose files it protects."""
        with self._lock:
            self._check_open()
            return self._open_store.leases.hold(self._index.generation)

    def _leased(self, begin: Callable[[], Iterator[ItemT]]) -> Iterator[ItemT]:
        with self._lock:
            self._check_open()
            return leased(self._open_store.leases, self._index.generation, begin)

    def _wanted(self, selection: Selection) -> tuple[Manifest, Want]:
        with self._lock:
            self._refresh()
            known = self._index
            backdated, runs = set(known.backdated), dict[int, Runs]()
            want = Want.of(
                selection, known.numbers, known.types, known.types_by_number.values(), known.stop_position,
                runs=self._runs_of_file if selection.aggregates is None else runs.get, backdated=backdated,
            )  # fmt: skip
            if want.numbers is not None:
                chosen = want.numbers.tolist()
                runs.update(known.runs_of_aggregates(chosen, want))
                backdated.intersection_update(chosen)
            return known.manifest(), want

    def _runs_of_file(self, number: int) -> Runs:
        with self._lock:
            self._check_open()
            return self._index.runs_of_file(number)

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
            selection = Selection(
                {declared.name: payload}, aggregates=aggregates, start_position=first_position,
                stop_position=stop_position, since_time=start, until_time=None if stop is None else stop - 1,
                types={declared.name: declared},
            )  # fmt: skip
            manifest, want = self._wanted(selection)
            blocks = self._reader.blocks(manifest, declared.name, want, extra)
            return map(partial(self._frame, columns=wanted, computed_ids=computed_ids), blocks)

        return self._leased(begin)

    def _rows_between(self, name: str, first: int, stop: int) -> Iterator[pl.DataFrame]:
        return self.rows(meaning(name, self.types()), first_position=first, stop_position=stop)

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
        with self._lock, self._hold():
            self._manifest()
            with self._catalog.reading():
                block = self._event_ids.find(event_id)
        return None if block is None else self._frame(block, public.all_columns(block.type))

    # -- audit

    def verify(self) -> Report:
        from eventlab.store.verify.log import verify_log

        with self._lock, self._hold():
            return verify_log(self._catalog, self._segments, self._index)

    def bytes_on_disk(self) -> int:
        with self._lock:
            self._check_open()
            if self.path != ":memory:":
                return sum(_size(file) for file in Path(self.path).rglob("*"))
            journal = 0 if self._index.journal is None else len(self._index.journal.content())
            return self._catalog.size() + self._catalog.bytes_of_files() + journal

    def count_commits(self) -> int:
        with self._lock:
            self._refresh()
            return self._commits.count()

    def count_aggregates(self) -> int:
        self._manifest()
        return len(self._index.names)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:  # SQLite's own files come and go with other processes
        return 0
