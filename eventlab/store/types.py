"""What goes into a store and what comes out of it: batches, receipts, heads, selections, checkpoints, reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.rows import Row, Rows
from eventlab.events.types import EventType

Late = Literal["reject", "clamp", "accept"]
"""How a commit treats an event time below the highest of its aggregate: refuse it, raise it to that, or keep it."""

Codec = Literal["parquet", "archive"]
"""How a segment file is written."""

Durability = Literal["full", "relaxed"]
"""Whether a commit that returned survives a power failure, or only a crash of the process."""

UNBOUND = 2**63 - 1
"""A version or position that no event reaches."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Events of one type for a commit, already checked by `events.columns`.

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
        The clock that the timestamps come from, if known. An aggregate never mixes two.
    event_id : pyarrow.StringArray or None
        Ids supplied by the caller, null where none was.
    metadata : mapping, pyarrow.DictionaryArray or None
        The metadata of every event of the batch; or one a row, canonical JSON, null where an event has none.
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


@dataclass(slots=True, eq=False)
class NumberedRows:
    """A few plain events of one aggregate and of one type, with their numbers and times.

    `kind` is the type's number, `aggregate` the aggregate's. Causes are negative where there is none.
    """

    type: EventType
    kind: int
    aggregate_id: str
    aggregate: int
    rows: Sequence[Row]
    first_position: int
    first_version: int
    recorded_at: int
    timestamps: Sequence[int]
    causes: Sequence[int] | None
    metadata: str | None


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


@dataclass(frozen=True, slots=True)
class Mark:
    """Identifies a saved checkpoint without its state."""

    position: int
    digest: bytes
    saved_at: int
    crc: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All events below `mark.position`, folded into `state`; `unusable` says why it cannot be used."""

    mark: Mark
    state: bytes = field(repr=False)
    unusable: str | None = None


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What a vacuum removed, and of the dropped files, how many are still being read and stay."""

    files: int = 0
    bytes: int = 0
    leased_files: int = 0
    leased_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written: events ``first_position:stop_position``, and the file, if one is known.

    The range is empty where no event is affected.
    """

    what: str
    first_position: int
    stop_position: int
    file: str | None = None

    def __str__(self) -> str:
        where = f" (positions {self.first_position} to {self.stop_position - 1})" * (
            self.stop_position > self.first_position
        )
        return f"{'' if self.file is None else self.file + ': '}{self.what}{where}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was proved.

    Attributes
    ----------
    events, commits, aggregates, segments : int
        How many there are.
    head : str or None
        The last commit's digest, hexadecimal; None for an empty store.
    ok : bool
        Whether all of it was proved. Where it was not, the report comes with the StoreCorrupt that is raised.
    proven_events, proven_commits : int
        Of those, how many were proved.
    sound_until : int
        Everything below this position was proved without exception.
    damage : tuple of Damage
        What is damaged, in the order it was found; the first hundred.
    """

    events: int
    commits: int
    aggregates: int
    segments: int
    head: str | None
    ok: bool = True
    proven_events: int = 0
    proven_commits: int = 0
    sound_until: int = 0
    damage: tuple[Damage, ...] = ()
