"""Which rows a fold takes, and where it pauses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.reducer import Reducer

_FEW = 64
"""Up to so many aggregates, bounds are found by binary search; beyond, by one pass over the column."""


@dataclass(frozen=True, slots=True)
class Legs:
    """Where each aggregate's fold begins, pauses and ends, as row numbers in the tables.

    Attributes
    ----------
    offsets : int64 array, shape (aggregates + 1,)
        Aggregate a's legs are ``offsets[a]:offsets[a + 1]``.
    starts : mapping of str to int64 array, shape (aggregates,)
        First row to fold, per event type.
    bounds : mapping of str to int64 array, shape (legs,)
        One past the last row of each leg, per event type; ascending inside an aggregate.
    """

    offsets: Int64Array
    starts: Mapping[str, Int64Array]
    bounds: Mapping[str, Int64Array]

    @property
    def ends(self) -> dict[str, Int64Array]:
        """One past the last row of each aggregate, per event type."""
        has = np.diff(self.offsets) > 0
        last = np.maximum(self.offsets[1:] - 1, 0)
        return {
            name: np.where(has, bounds[last] if len(bounds) else 0, self.starts[name])
            for name, bounds in self.bounds.items()
        }


def upper_bounds(values: Int64Array, starts: Int64Array, ends: Int64Array, limits: Int64Array | int) -> Int64Array:
    """In stretches of ascending values: one past the last row at or below a stretch's limit."""
    limits = np.broadcast_to(np.asarray(limits, np.int64), starts.shape)
    if len(starts) <= _FEW:
        spans = zip(starts, ends, limits, strict=True)
        return np.array([lo + np.searchsorted(values[lo:hi], limit, side="right") for lo, hi, limit in spans], np.int64)
    each = np.repeat(limits, ends - starts)
    rows = np.arange(len(each)) + np.repeat(
        starts - np.concatenate([[0], np.cumsum(ends - starts)[:-1]]), ends - starts
    )
    below: npt.NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(values[rows] <= each)])
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends - starts)])
    return starts + below[first[1:]] - below[first[:-1]]


def empty_table(reducer: Reducer, name: str, count: int) -> EventTable:
    """No events of a type, for `count` aggregates."""
    declared = reducer.event_types[name]
    none = np.empty(0, np.int64)
    columns = {column: pa.array([], declared.field(column).arrow_type) for column in reducer.columns[name]}
    return EventTable(declared, np.zeros(count + 1, np.int64), none, none, none, columns)


def tables_of(reducer: Reducer, frame: EventFrame) -> dict[str, EventTable]:
    """A table for every event type the reducer handles."""
    count = len(frame.aggregates)
    return {name: frame.tables.get(name) or empty_table(reducer, name, count) for name in reducer.handlers}
