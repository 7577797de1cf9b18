"""The stream of events that states of one aggregate come from: successive pieces, and where in each a fold stops.

A *place* in a piece is a number of its events, in order. Here the stream is an aggregate's own events by version, as
the store reads them; `marks/merge.py` merges events of other aggregates into it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.stops import Stops, ascends, rows_until, tables_of
from eventlab.store.api import EventReader, Head, Selection
from eventlab.timetravel.moments import Bounds


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """Successive events of a stream.

    Attributes
    ----------
    aggregate : str
    tables : mapping of str to EventTable
        A table for every event type that the reducer handles.
    before : Head
        The aggregate's own event before the piece; version 0 where there is none.
    position, timestamp : int64 array
        The envelope of the own events, by version from that after `before`.
    last : bool
        No more are to come.
    """

    tables: Mapping[str, EventTable]
    before: Head
    position: Int64Array
    timestamp: Int64Array
    last: bool

    @property
    def count(self) -> int:
        """How many events it has."""
        return len(self.position)

    @property
    def last_time(self) -> int:
        """The event time of its last event."""
        return int(self.timestamp[-1])

    @property
    def goes_back(self) -> bool:
        """Whether an event time is below the one before."""
        begins = self.before.version > 0 and int(self.timestamp[0]) < self.before.timestamp
        return begins or not ascends(self.timestamp)

    @property
    def end(self) -> Head:
        """The last own event up to the end of the piece, with its own event time."""
        if not len(self.position):
            return self.before
        version = self.before.version + len(self.position)
        return Head(self.before.aggregate_id, version, int(self.position[-1]), int(self.timestamp[-1]))

    def handled(self, names: Collection[str]) -> Int64Array:
        """The places after each own event of some types, ascending."""
        versions = [table.version for name, table in self.tables.items() if name in names]
        return (versions[0] if len(versions) == 1 else np.sort(np.concatenate(versions))) - self.before.version

    def places(self, bounds: Bounds) -> Int64Array:
        """How many events of the piece each moment includes. Event times must not go back."""
        return bounds.counts(self.before.version, self.position, self.timestamp)

    def versions(self, places: Int64Array) -> Int64Array:
        """The last own version up to each place."""
        return self.before.version + places

    def stops(self, places: Int64Array, *, onward: bool) -> Stops:
        """A stop at each of the ascending places, and one at the end of the piece where the fold goes on."""
        starts, bounds = {}, {}
        for name, table in self.tables.items():
            starts[name] = np.zeros(1, np.int64)
            only = len(table) == self.count  # all versions are of this type: they need not be looked for
            rows = places if only else rows_until(table.version, self.before.version + places)
            bounds[name] = np.append(rows, len(table)) if onward else rows
        return Stops(np.array([0, len(places) + onward]), starts, bounds)

    def marks(self, versions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Positions and timestamps of own versions, from `before` on."""
        rows = versions - self.before.version - 1
        earlier = rows < 0
        if not earlier.any():
            return self.position[rows], self.timestamp[rows]
        position, timestamp = (np.append(column, 0)[rows] for column in (self.position, self.timestamp))
        position[earlier], timestamp[earlier] = self.before.position, self.before.timestamp
        return position, timestamp


def own_pieces(store: EventReader, reducer: Reducer, head: Head) -> Iterator[StreamPiece]:
    """An aggregate's own events up to its head."""
    selection = Selection(
        reducer.columns, others=True, aggregates=[head.aggregate_id], stop_position=head.position + 1,
        types=reducer.event_types,
    )  # fmt: skip
    end = Head(head.aggregate_id, 0, 0, 0)
    for frame in store.frames(selection):
        position, timestamp = by_version([table for table in frame.tables.values() if len(table)], end.version)
        last = end.version + len(position) == head.version
        piece = StreamPiece(tables_of(reducer, frame), end, position, timestamp, last)
        end = piece.end
        yield piece


@dataclass(frozen=True, slots=True)
class OwnEvents:
    """All events of one aggregate at once, for what must know all of them before it folds the first.

    Attributes
    ----------
    frames : list of EventFrame
        To fold.
    position, timestamp : int64 array, shape (head,)
        The envelope by version, from 1.
    """

    frames: list[EventFrame]
    position: Int64Array
    timestamp: Int64Array

    @property
    def head(self) -> int:
        """The last version."""
        return len(self.position)

    def handled(self, reducer: Reducer) -> Int64Array:
        """Versions that the reducer handles, ascending."""
        tables = [table for frame in self.frames for name, table in frame.tables.items() if name in reducer.handlers]
        return np.sort(np.concatenate([np.empty(0, np.int64), *(table.version for table in tables)]))

    def until(self, version: int) -> OwnEvents:
        """The events up to a version."""
        frames = [between(frame, 0, version) for frame in self.frames]
        return OwnEvents(frames, self.position[:version], self.timestamp[:version])

    @staticmethod
    def read(
        store: EventReader,
        reducer: Reducer,
        aggregate: str,
        columns: Mapping[str, Collection[str]],
        stop_position: int,
    ) -> OwnEvents:
        """The events below a position."""
        selection = Selection(
            columns, others=True, aggregates=[aggregate], stop_position=stop_position, types=reducer.event_types
        )
        frames = list(store.frames(selection))
        return OwnEvents(frames, *by_version([table for frame in frames for table in frame.tables.values()], 0))


def by_version(tables: Sequence[EventTable], before: int) -> tuple[Int64Array, Int64Array]:
    """Positions and timestamps of all of an aggregate's events after the version `before` that tables have."""
    if len(tables) == 1:
        return tables[0].position, tables[0].timestamp
    position, timestamp = (np.empty(sum(map(len, tables)), np.int64) for _ in range(2))
    for table in tables:  # versions are gapless, so they index the envelope
        rows = table.version - before - 1
        position[rows], timestamp[rows] = table.position, table.timestamp
    return position, timestamp


def between(frame: EventFrame, after: int, until: int) -> EventFrame:
    """The events of a frame of one aggregate after one version, up to another; nothing is copied."""
    tables = {}
    for name, table in frame.tables.items():
        low, high = np.searchsorted(table.version, (after, until), side="right").tolist()
        if low < high:
            tables[name] = table.part(low, high, np.array([0, high - low]))
    return EventFrame(frame.aggregates, tables)


def _one_or_joined(pieces: Sequence[pa.Array]) -> pa.Array:
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)


def concatenated(
    tables: Sequence[EventTable], join: Callable[[Sequence[pa.Array]], pa.Array] = _one_or_joined
) -> EventTable:
    """Tables of one type, one after the other, as one aggregate's; `join` makes a column of theirs."""
    position, version, timestamp = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("position", "version", "timestamp")
    )
    columns = {name: join([table.columns[name] for table in tables]) for name in tables[0].columns}
    return EventTable(tables[0].type, np.array([0, len(version)]), position, version, timestamp, columns)
