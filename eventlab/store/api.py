"""What a store promises: the shapes that go in and come out, and the protocol that every store keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from eventlab.events.frame import EventFrame
from eventlab.events.rows import Rows
from eventlab.events.types import EventType

Late = Literal["reject", "clamp", "accept"]
"""What becomes of an event time below the highest of its aggregate: refused, raised to it, or kept as it is."""

Codec = Literal["parquet", "archive"]

UNBOUND = 2**63 - 1
"""A version or position that no event reaches."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Events of one type on their way into a commit, already checked by `events.columns`.

    Attributes
    ----------
    payload : pyarrow.RecordBatch or Rows
        As in ``type.arrow_schema``, or a few events as plain values.
    aggregate_id : str or pyarrow.DictionaryArray
        One id for all rows, or one a row (no nulls).
    timestamp : int64 array or None
        Event times in ns UTC; None takes the commit's `recorded_at`, raised to the aggregate's highest event time.
    cause : int64 array or None
        Position of each event's cause; negative for none.
    cause_row : int64 array or None
        For causes inside the commit: the cause's row among the commit's events in position order; negative for none.
    clock : str or None
        Whose clock the timestamps are by, where that is known. An aggregate keeps to one.
    event_id : pyarrow.StringArray or None
        Ids supplied by the caller, null where none was.
    metadata : mapping, pyarrow.DictionaryArray or None
        Belongs to each event of the batch; or one a row, canonical JSON, null where an event has none.
    order : int64 array or None
        Places the rows among those of the commit's other batches: positions follow ascending `order`, ties by batch
        then row. None for all batches means one batch after the other. Ascending within a batch.
    """

    type: EventType
    payload: pa.RecordBatch | Rows
    aggregate_id: str | pa.DictionaryArray
    timestamp: npt.NDArray[np.int64] | None = None
    cause: npt.NDArray[np.int64] | None = None
    event_id: pa.StringArray | None = None
    metadata: Mapping[str, str] | pa.DictionaryArray | None = None
    order: npt.NDArray[np.int64] | None = None
    cause_row: npt.NDArray[np.int64] | None = None
    clock: str | None = None

    def names(self) -> list[str]:
        """Distinct aggregate ids of the rows."""
        if isinstance(self.aggregate_id, str):
            return [self.aggregate_id] if self.payload.num_rows else []
        names: list[str] = self.aggregate_id.cast(pa.string()).unique().to_pylist()
        return names


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append did. `position` and `version` are those of its last event; times are ns UTC.

    `version` is that of the last event's aggregate. `clamped` counts event times raised by ``late="clamp"``, and
    `backdated` those kept below an earlier one of their aggregate by ``late="accept"``.
    """

    position: int
    version: int
    count: int
    first_position: int
    recorded_at: int
    clamped: int = 0
    backdated: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """A commit of the log without its events.

    `late` counts the event times that were raised to their aggregate's highest one; below 0, those kept as they are.
    `last_version` is that of the last event's aggregate.
    """

    first_position: int
    events: int
    late: int
    recorded_at: int
    last_version: int
    digest: bytes

    @property
    def stop_position(self) -> int:
        return self.first_position + self.events

    @property
    def receipt(self) -> Receipt:
        return Receipt(
            self.stop_position - 1,
            self.last_version,
            self.events,
            self.first_position,
            self.recorded_at,
            max(self.late, 0),
            max(-self.late, 0),
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of an aggregate, and its highest event time: that event's own, unless it is back-dated."""

    aggregate_id: str
    version: int
    position: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events to read. Conditions conjoin.

    Attributes
    ----------
    columns : mapping of str to collection of str
        Payload columns wanted of each event type, by type name.
    others : bool
        Also the envelopes of all further event types (their tables then have no payload columns).
    aggregates : sequence of str or None
        Only these aggregates; None for all.
    after_version : mapping of str to int
        Leave out an aggregate's events up to and including this version.
    start_position : int
        Only positions from it on.
    stop_position : int or None
        Only positions below it.
    types : mapping of str to EventType
        The version in which a type's columns are wanted, by type name. Otherwise the newer of the one declared in this
        process and the newest in the store.
    until_version, until_time, since_time : int or None
        Hints: events of a later version or event time (ns), or of an earlier event time, need not be read. Some may
        come all the same.
    """

    columns: Mapping[str, Collection[str]]
    others: bool = False
    aggregates: Sequence[str] | None = None
    after_version: Mapping[str, int] = field(default_factory=dict)
    start_position: int = 0
    stop_position: int | None = None
    until_version: int | None = None
    until_time: int | None = None
    since_time: int | None = None
    types: Mapping[str, EventType] = field(default_factory=dict)


class Store(Protocol):
    """An append-only log of events. Positions 0, 1, 2, …; versions 1, 2, 3, … per aggregate; both gapless."""

    @property
    def store_id(self) -> str: ...

    @property
    def read_only(self) -> bool: ...

    def register(self, declared: EventType) -> None:
        """Make an event type known to the store before its first use.

        Raises SchemaMismatch where the store has this version with other fields, or a newer one.
        """

    def types(self) -> Mapping[str, EventType]:
        """Event types this store has, by name: the newest version of each, as it was written."""

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        expected: Mapping[str, int] | None = None,
        late: Late = "reject",
        source: tuple[str, int] | None = None,
    ) -> Receipt:
        """Append all batches atomically and durably.

        `expected` gives the version each named aggregate must have. `source` is (source identity, chunk number):
        where that chunk was committed before, its receipt comes back and nothing is written. Where every event id
        is there already with equal content, the first receipt comes back, before `expected` is looked at.
        """

    def heads(self, aggregates: Collection[str] | None = None) -> list[Head]:
        """Last events and highest event times, sorted by aggregate id; an id without events is left out."""

    def aggregate_ids(self, pattern: str = "*") -> list[str]:
        """Aggregate ids that match a pattern in which ``*`` stands for any run of characters, sorted."""

    def position_at(self, known_at: int) -> int:
        """First position not yet recorded at `known_at`: events below it have ``recorded_at <= known_at``."""

    def times_ascend_in(self, aggregate: str) -> bool:
        """Whether no event of an aggregate goes back in time, so that every moment includes a prefix of versions."""

    @property
    def stop_position(self) -> int:
        """The number of events in the log, which is one past its last position."""

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        """Events in clustered form, for folds. See EventFrame.

        Raises SchemaMismatch, or MissingUpcaster, where a wanted type's events cannot be read in the wanted version.
        """

    def find(self, event_id: str) -> pl.DataFrame | None:
        """The event with this id, supplied or computed, as a frame of one row; None if there is none."""

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

        `first_position` and `stop_position` leave out positions before the one and from the other on. Without
        `computed_ids` an event has the id that was supplied for it, or none.
        """

    def subscribe(
        self, name: str, handler: Callable[[pl.DataFrame], None], start: int | None = None
    ) -> Callable[[], None]:
        """Call `handler` after each commit of this process with its events of type `name`; returns the undoing.

        With `start` it is called first with all those from that position on; see `handlers.py`.
        """

    def close(self) -> None: ...
