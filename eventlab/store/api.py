"""What a store promises, and the functions that every store may use to keep it.

A store implements `Store`, which is `EventReader` and writing; what `SupportsSeal`, `SupportsVerify`, `SupportsBackup`
and `SupportsReadLog` add is optional, and a store declares it by having the methods. Everything outside the store is
typed against these protocols, so ``el.Lab(store)`` takes any class that implements `Store`. `eventlab.testing` proves
that one does.

A commit goes through `check_late`, `check_batches`, `earlier_receipt`, `check_expected`, `check_clocks`,
`check_writable`, `commit_time` and `number_batches`, which gives the blocks to keep. A read goes through `Request.of`,
then `slabs` and `event_frame` for folds, or `block_rows` and `to_frame` for people. `tests/testing/list_store.py` is a
store made of these, of about three hundred lines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import polars as pl

from eventlab.events.aggregate_ids import matching
from eventlab.events.frame import EventFrame
from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog.schemas import check_writable, meaning
from eventlab.store.commit.duplicates import earlier_receipt
from eventlab.store.commit.numbering import commit_time, number_batches
from eventlab.store.commit.validate import PendingHead, check_batches, check_clocks, check_expected, check_late
from eventlab.store.ids import event_id_of, find_computed
from eventlab.store.read.frames import ENVELOPE_TYPES, all_columns, default_columns, frame_schema, to_frame
from eventlab.store.read.select import Request, at_positions, event_frame, slabs
from eventlab.store.read.select import rows as block_rows
from eventlab.store.read.subscriptions import Handlers
from eventlab.store.segments.row_group_cache import MOST_BYTES, MOST_GROUPS
from eventlab.store.types import (
    UNBOUND,
    Batch,
    Checkpoint,
    Codec,
    Commit,
    Durability,
    Head,
    Late,
    Mark,
    Receipt,
    Report,
    Selection,
    Vacuumed,
)

__all__ = [
    "ENVELOPE_TYPES", "MOST_BYTES", "MOST_GROUPS", "UNBOUND", "Batch", "Block", "Checkpoint", "CheckpointStore",
    "Codec", "Commit", "Durability", "EventReader", "Handlers", "Head", "Int64Array", "Late", "Mark", "PendingHead",
    "ReadRecorder", "Receipt", "Report", "Request", "Selection", "Store", "SupportsBackup", "SupportsReadLog",
    "SupportsSeal", "SupportsVerify", "Vacuumed", "all_columns", "at_positions", "block_rows", "check_batches",
    "check_clocks", "check_expected", "check_late", "check_writable", "commit_time", "default_columns",
    "earlier_receipt", "event_frame", "event_id_of", "find_computed", "frame_schema", "matching", "meaning",
    "number_batches", "slabs", "to_frame",
]  # fmt: skip


class EventReader(Protocol):
    """The reading half of a store: a log of events in which nothing ever changes, and which may grow.

    Positions are 0, 1, 2, …; versions are 1, 2, 3, … per aggregate; both without gaps. Each answer is that of one
    moment: a commit is in it as a whole or not at all.
    """

    @property
    def store_id(self) -> str:
        """A UUID as text, from which the ids of events are computed that were appended without one."""

    @property
    def path(self) -> str:
        """The directory of the store, in which snapshots are kept; ``:memory:`` for a store without one."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called. Then every other method raises StoreError."""

    @property
    def stop_position(self) -> int:
        """The number of events in the log, which is one past its last position."""

    @property
    def head_digest(self) -> str | None:
        """A digest of the whole log up to its last commit, hexadecimal; None for an empty log.

        Each digest is made of the one before and of the commit's events, so that it proves the history.
        """

    def types(self) -> Mapping[str, EventType]:
        """The event types in the store by name: the newest version of each, as it was written."""

    def aggregate_ids(self, pattern: str = "*") -> list[str]:
        """Aggregate ids that match a pattern in which ``*`` stands for any run of characters, sorted."""

    def aggregates_with(self, types: Collection[str]) -> set[str]:
        """At least the aggregates that have events of any of these types; reads no events."""

    def heads(self, aggregates: Collection[str] | None = None) -> list[Head]:
        """Last events and highest event times, sorted by aggregate id; an id without events is left out."""

    def times_ascend_in(self, aggregate: str) -> bool:
        """Whether no event of an aggregate goes back in time, so that every moment includes a prefix of versions."""

    def first_versions(self, aggregate: str) -> Int64Array:
        """Where a read can begin: ascending versions of an aggregate, from 1, one for each piece read at once."""

    def position_at(self, known_at: int) -> int:
        """First position not yet recorded at `known_at`: events below it have ``recorded_at <= known_at``."""

    def recorded_at(self, positions: Int64Array) -> Int64Array:
        """Commit times, ns UTC, of events at ascending positions."""

    def digest_at(self, stop_position: int) -> bytes | None:
        """The digest of the commit that ends at a position; None if none does."""

    def count_commits(self) -> int:
        """Number of commits."""

    def count_aggregates(self) -> int:
        """Number of aggregates."""

    def bytes_on_disk(self) -> int:
        """Bytes of all the store's files; of what a store without files keeps in memory."""

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        """Events in clustered form, for folds. See EventFrame.

        Raises SchemaMismatch, or MissingUpcaster, where events cannot be read in the wanted version.
        """

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
        """Events in position order, in bounded pieces, in the types handed to users; all as `declared` has them.

        Parameters
        ----------
        aggregates : sequence of str, optional
            Only these; all by default.
        start, stop : int, optional
            Event times, ns: inclusive and exclusive.
        columns : sequence of str, optional
            Payload fields and envelope columns; those of `default_columns` otherwise.
        first_position, stop_position : int, optional
            Positions: inclusive and exclusive.
        computed_ids : bool
            Give an event without a supplied id the computed one; otherwise null.
        """

    def find(self, event_id: str) -> pl.DataFrame | None:
        """The event with this id, supplied or computed, as a frame of one row with all columns; None if there is none.

        A computed id does not say where its event is, so ids are computed until one fits: about a million a second.
        """

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after commits of any process, and when the store closes; returns a function that ends it.

        A call is a hint: it may come without a commit, and from any thread.
        """

    def close(self) -> None:
        """Free everything; a second time does nothing."""


class Store(EventReader, Protocol):
    """An append-only log of events: what an `EventReader` reads, and writing."""

    def register(self, declared: EventType) -> None:
        """Make an event type known to the store before its first use.

        Raises SchemaMismatch where the store has this version with other fields, or a newer one.
        """

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        expected: Mapping[str, int] | None = None,
        late: Late = "reject",
        source: tuple[str, int] | None = None,
    ) -> Receipt:
        """Append all batches atomically and durably.

        Parameters
        ----------
        expected : mapping of str to int, optional
            The version that each named aggregate must have.
        late : {"reject", "clamp", "accept"}
            How to treat event times that go back in their aggregate.
        source : (str, int), optional
            Source identity and chunk number: a chunk that was committed before gives its receipt, and nothing is
            written.

        Returns
        -------
        Receipt
            Where every event id is there already with equal content, the first receipt, whatever `expected` says.

        Raises
        ------
        InvalidEvent, LateEvent, WrongVersion, DuplicateEvent, SchemaMismatch, ReadOnlyStore, StoreError
            Nothing was kept.
        """

    def subscribe(
        self, name: str, handler: Callable[[pl.DataFrame], None], start: int | None = None
    ) -> Callable[[], None]:
        """Call `handler` after each commit of this process with its events of type `name`; `Handlers` keeps the rules.

        With `start` it is called first with all events from that position on. Returns a function that ends it.
        """

    def follow(self, follower: Callable[[Collection[str]], None]) -> None:
        """Call `follower` after each commit of this process, with the aggregates that got events. It must not raise."""

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        """The receipt of a source's chunk that was committed before."""

    def source_receipt(self, identity: str) -> str | None:
        """The text that `finish_source` kept; None for a source that is unknown or unfinished."""

    def finish_source(self, identity: str, receipt: str) -> None:
        """Record that all of a source is in the store, with a text."""

    @property
    def checkpoints(self) -> CheckpointStore:
        """States that read models keep."""


class CheckpointStore(Protocol):
    """Checkpoints of read models, by name and fingerprint of the reducer. They are derived and disposable."""

    def load(self, name: str, fingerprint: str) -> Checkpoint | None:
        """The checkpoint, with the reason if it cannot be used; None if there is none."""

    def others(self, name: str, fingerprint: str) -> bool:
        """Whether there are checkpoints of this name by another fingerprint."""

    def save(
        self,
        name: str,
        fingerprint: str,
        position: int,
        state: memoryview,
        *,
        had: bool,
        discard: Mark | None,
        supersede: bool,
    ) -> bool:
        """Replace a checkpoint by a later one, atomically; returns whether one as late is there now.

        A later one, which another process saved, stays.

        Parameters
        ----------
        position : int
            The end of a commit. At others nothing is saved.
        had : bool
            Whether the caller had a checkpoint before. If it is gone and there are others of its name, the name was
            taken over, and nothing is saved.
        discard : Mark or None
            One that was found unusable, which is replaced whatever its position.
        supersede : bool
            Remove those of other fingerprints with the same change.

        Raises
        ------
        StoreLocked, StoreFull, ReadOnlyStore
            Nothing was changed.
        """


class ReadRecorder(Protocol):
    """Which past states were asked for, so that snapshots can be planned for real reads."""

    @property
    def recording(self) -> bool:
        """Whether `record` keeps anything."""

    def record(self, reducer: str, aggregate_id: str, version: int, head: int) -> None:
        """Keep that a state was asked for: the reducer's name, and the aggregate's last version at that time."""

    def frame(self) -> pl.DataFrame:
        """All reads that are kept, oldest first: columns reducer, aggregate_id, version, head."""


@runtime_checkable
class SupportsSeal(Protocol):
    """A store that rewrites small commits as large files. Reads and digests stay the same."""

    def seal(self) -> int:
        """Turn small commits into segment files, merge small files, and return the events of the small commits."""

    def archive(self, before: int | None = None) -> int:
        """Rewrite files wholly recorded before a moment, ns UTC, with the archive codec; returns how many events.

        None means all, small commits too.
        """

    def vacuum(self) -> Vacuumed:
        """Remove files that nothing needs and nobody is reading, and give the catalog's free pages back."""


@runtime_checkable
class SupportsVerify(Protocol):
    """A store that can prove its history."""

    def verify(self) -> Report:
        """Read everything back and compute every number and digest anew.

        Raises
        ------
        StoreCorrupt
            Something is damaged; its `report` has all of it, and what was proved all the same.
        """


@runtime_checkable
class SupportsBackup(Protocol):
    """A store that copies itself while others use it."""

    def backup(self, path: str | Path) -> Report:
        """Copy the store as it is now into a new directory, and return the proof of the copy."""


@runtime_checkable
class SupportsReadLog(Protocol):
    """A store that can keep which past states were asked for."""

    @property
    def read_log(self) -> ReadRecorder:
        """Which past states were asked for."""
