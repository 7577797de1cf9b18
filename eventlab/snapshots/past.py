"""What a policy may ask about an aggregate's past; read only when it does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.store.contract import Head, Selection, Store

_ENVELOPE_FIELDS = 3


@dataclass(frozen=True, eq=False)
class Past:
    """The past of one aggregate.

    Attributes
    ----------
    head : int
        Its last version.
    after : int
        What a policy chooses lies behind this version, at which there is a snapshot, or nothing at all.
    timestamp, bytes : int64 array
        From version `after` on, or 1: event times, and bytes of the events behind `after` so far, each of which counts
        eight for each field and part of the envelope.
    """

    head: int
    after: int = 0
    _store: Store | None = field(default=None, repr=False)
    _reducer: Reducer | None = field(default=None, repr=False)
    _aggregate: str = field(default="", repr=False)
    _stop: int = field(default=0, repr=False)

    @staticmethod
    def of(store: Store, reducer: Reducer, head: Head, after: int, stop: int) -> Past:
        """The past of a store's aggregate behind a version and below a position."""
        return Past(head.version, after, store, reducer, head.aggregate_id, stop)

    @property
    def whole(self) -> Past:
        """The same past from its beginning."""
        return replace(self, after=0)

    @cached_property
    def timestamp(self) -> Int64Array:
        return self._events[0]

    @cached_property
    def bytes(self) -> Int64Array:
        return np.cumsum(self._events[1])

    @cached_property
    def _events(self) -> tuple[Int64Array, Int64Array]:
        first = max(self.after, 1)
        timestamp, size = (np.zeros(self.head - first + 1, np.int64) for _ in range(2))
        if self._store is None:
            raise SnapshotError("a policy asks for events where nothing but a number of them is known")
        selection = Selection(
            {}, others=True, aggregates=[self._aggregate], stop_position=self._stop,
            after_version={self._aggregate: first - 1},
        )  # fmt: skip
        for frame in self._store.frames(selection):
            for table in frame.tables.values():
                timestamp[table.version - first] = table.timestamp
                size[table.version - first] = 8 * (_ENVELOPE_FIELDS + len(list(table.type)))
        if self.after:
            size[0] = 0
        return timestamp, size
