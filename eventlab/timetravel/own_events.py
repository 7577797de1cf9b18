"""All events of one aggregate at once, for what has to be merged with others'."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.store.api import EventReader, Selection


@dataclass(frozen=True, slots=True)
class Past:
    """All events of one aggregate.

    Attributes
    ----------
    frames : list of EventFrame
        To fold.
    position, timestamp : int64 array, shape (head,)
        The envelope by version, from 1.
    handled : int64 array
        Versions that the reducer handles, ascending.
    """

    frames: list[EventFrame]
    position: Int64Array
    timestamp: Int64Array
    handled: Int64Array

    @property
    def head(self) -> int:
        return len(self.position)

    def until(self, version: int) -> Past:
        """The past up to a version."""
        frames = []
        for frame in self.frames:
            tables = {}
            for name, table in frame.tables.items():
                rows = np.arange(int(np.searchsorted(table.version, version, side="right")))
                tables[name] = table.take(rows, np.array([0, len(rows)]))
            frames.append(EventFrame(frame.aggregates, tables))
        handled = self.handled[self.handled <= version]
        return Past(frames, self.position[:version], self.timestamp[:version], handled)

    @staticmethod
    def read(
        store: EventReader, reducer: Reducer, aggregate: str, columns: Mapping[str, Collection[str]], stop_position: int
    ) -> Past:
        """The events below a position."""
        selection = Selection(
            columns, others=True, aggregates=[aggregate], stop_position=stop_position, types=reducer.event_types
        )
        frames = list(store.frames(selection))
        tables = [(name, table) for frame in frames for name, table in frame.tables.items()]
        position, timestamp = by_version([table for _, table in tables], 0)
        own = [table.version for name, table in tables if name in reducer.handlers]
        return Past(frames, position, timestamp, np.sort(np.concatenate(own)) if own else np.empty(0, np.int64))


def by_version(tables: Sequence[EventTable], before: int) -> tuple[Int64Array, Int64Array]:
    """Positions and timestamps of all of an aggregate's events after the version `before` that tables have."""
    if len(tables) == 1:
        return tables[0].position, tables[0].timestamp
    position, timestamp = (np.empty(sum(map(len, tables)), np.int64) for _ in range(2))
    for table in tables:  # versions are gapless, so they index the envelope
        rows = table.version - before - 1
        position[rows], timestamp[rows] = table.position, table.timestamp
    return position, timestamp


def concatenated(tables: Sequence[EventTable]) -> EventTable:
    """Tables of one type, one after the other, as one aggregate's."""
    columns = {
        name: tables[0].columns[name] if len(tables) == 1 else pa.concat_arrays([t.columns[name] for t in tables])
        for name in tables[0].columns
    }
    return EventTable(
        tables[0].type,
        np.array([0, sum(len(table) for table in tables)]),
        np.concatenate([table.position for table in tables]),
        np.concatenate([table.version for table in tables]),
        np.concatenate([table.timestamp for table in tables]),
        columns,
    )
