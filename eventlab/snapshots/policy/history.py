"""An aggregate's past as policies see it. Events are read only when a policy needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.snapshots.policy.cost_model import Model
from eventlab.store.api import EventReader, Selection

_ENVELOPE_FIELDS = 3


@dataclass(frozen=True, eq=False)
class Past:
    """The past of one aggregate.

    Attributes
    ----------
    head : int
        Its last version.
    after : int
        A policy chooses versions after this one, which has a snapshot or is 0.
    timestamp, bytes : int64 array
        From version `after` on, or 1: event times, and the running total of bytes of the events after `after`. An event
        counts eight bytes for each field and part of the envelope.

    The other arguments are the store, the aggregate's id, the position from which on events do not count, and what
    gives the cost model. Without them only the number of events is known.
    """

    head: int
    after: int = 0
    _store: EventReader | None = field(default=None, repr=False)
    _aggregate: str = field(default="", repr=False)
    _stop: int = field(default=0, repr=False)
    _measure: Callable[[str], Model] | None = field(default=None, repr=False)

    @property
    def from_start(self) -> Past:
        """The same past from its beginning."""
        return replace(self, after=0)

    @property
    def model(self) -> Model:
        """The cost of reading states."""
        if self._measure is None:
            raise SnapshotError("a policy asks for costs where nothing measures them")
        return self._measure(self._aggregate)

    @property
    def starts(self) -> Int64Array:
        """The first versions of row groups."""
        return self._events_of.first_versions(self._aggregate)

    @property
    def stored_bytes(self) -> float:
        """The bytes of the events on disk or in memory, as their share of those of all events."""
        store = self._events_of
        return store.bytes_on_disk() * self.head / max(store.stop_position, 1)

    @property
    def _events_of(self) -> EventReader:
        if self._store is None:
            raise SnapshotError("a policy asks for events where nothing but a number of them is known")
        return self._store

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
        selection = Selection(
            {}, others=True, aggregates=[self._aggregate], stop_position=self._stop,
            after_version={self._aggregate: first - 1},
        )  # fmt: skip
        for frame in self._events_of.frames(selection):
            for table in frame.tables.values():
                timestamp[table.version - first] = table.timestamp
                size[table.version - first] = 8 * (_ENVELOPE_FIELDS + len(list(table.type)))
        if self.after:
            size[0] = 0
        return timestamp, size
