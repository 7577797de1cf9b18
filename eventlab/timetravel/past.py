"""All events of one aggregate at once, for what has to be merged with others'."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from eventlab.events.frame import EventFrame, Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.store.contract import Selection, Store


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

    @staticmethod
    def read(
        store: Store, reducer: Reducer, aggregate: str, columns: Mapping[str, Collection[str]], stop_position: int
    ) -> Past:
        """The events below a position."""
        selection = Selection(
            columns, others=True, aggregates=[aggregate], stop_position=stop_position, types=reducer.event_types
        )
        frames = list(store.frames(selection))
        tables = [(name, table) for frame in frames for name, table in frame.tables.items()]
        head = max((int(table.version[-1]) for _, table in tables if len(table)), default=0)
        position, timestamp = np.empty(head, np.int64), np.empty(head, np.int64)
        for _, table in tables:  # versions are gapless, so they index the envelope
            position[table.version - 1], timestamp[table.version - 1] = table.position, table.timestamp
        own = [table.version for name, table in tables if name in reducer.handlers]
        return Past(frames, position, timestamp, np.sort(np.concatenate(own)) if own else np.empty(0, np.int64))
