"""Which rows a fold takes, and where it pauses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.native import order_kernels as walk
from eventlab.fold.native.arrays import writable
from eventlab.fold.native.function import Function

_FEW = 64
"""Up to so many aggregates, bounds are found by binary search; beyond, by one pass over the column."""
_MANY = 50_000
"""From so many on, values in ascending order are looked for by going on from the one before."""

_AT_ONCE = 65_536  # so that what is compared stays near the processor

_rows_until = Function(walk.rows_until)


@dataclass(frozen=True)
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

    @cached_property
    def ends(self) -> dict[str, Int64Array]:
        """One past the last row of each aggregate, per event type."""
        last, has = self.offsets[1:] - 1, self.offsets[1:] > self.offsets[:-1]
        if has.all():
            return {name: bounds[last] for name, bounds in self.bounds.items()}
        last = np.maximum(last, 0)
        return {
            name: np.where(has, bounds[last] if len(bounds) else 0, self.starts[name])
            for name, bounds in self.bounds.items()
        }

    def alone(self, a: int) -> Legs:
        """The legs of one aggregate, as those of a fold of nothing else."""
        own = slice(int(self.offsets[a]), int(self.offsets[a + 1]))
        starts = {name: rows[a : a + 1] for name, rows in self.starts.items()}
        return Legs(
            np.array([0, own.stop - own.start]), starts, {name: rows[own] for name, rows in self.bounds.items()}
        )

    def of_aggregate(self, a: int) -> Iterator[Legs]:
        """Each leg of one aggregate by itself: the second begins where the first ends."""
        begin = {name: rows[a : a + 1] for name, rows in self.starts.items()}
        for leg in range(int(self.offsets[a]), int(self.offsets[a + 1])):
            ends = {name: bounds[leg : leg + 1] for name, bounds in self.bounds.items()}
            yield Legs(np.array([0, 1]), begin, ends)
            begin = ends


def narrowed(tables: Mapping[str, EventTable], legs: Legs) -> tuple[dict[str, EventTable], Legs]:
    """Tables cut to the rows that the legs touch, and the legs in their row numbers; nothing is copied."""
    cut, starts, bounds = dict(tables), dict(legs.starts), dict(legs.bounds)
    for name, last in legs.ends.items():
        table, first = tables[name], legs.starts[name]
        if len(last) and first.min() == 0 and last.max() == len(table):
            continue
        some = last > first
        low, high = (int(first[some].min()), int(last[some].max())) if some.any() else (0, 0)
        cut[name] = EventTable(
            table.type,
            np.clip(table.offsets - low, 0, high - low),
            table.position[low:high],
            table.version[low:high],
            table.timestamp[low:high],
            {column: values[low:high] for column, values in table.columns.items()},
            None if table.place is None else table.place[low:high],
        )
        starts[name], bounds[name] = (np.clip(rows[name] - low, 0, high - low) for rows in (starts, bounds))
    whole = all(cut[name] is table for name, table in tables.items())
    return cut, legs if whole else Legs(legs.offsets, starts, bounds)


def upper_bounds(values: Int64Array, starts: Int64Array, stops: Int64Array, limit: int) -> Int64Array:
    """One past the last row at or below a limit, in each of the ascending stretches ``starts:stops``."""
    return _bounded(values, starts, stops, limit)[0]


def leading(
    values: Int64Array, starts: Int64Array, stops: Int64Array, limit: int
) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
    """As `upper_bounds`, of stretches that need not ascend, and of which rows at or below the limit are not the first.

    The bound of such a stretch means nothing.
    """
    ends, below = _bounded(values, starts, stops, limit)
    if below is not None:
        return ends, below[ends] - below[starts] < ends - starts
    spans = zip(starts, ends, stops, strict=True)
    scattered = [
        bool((low < end and values[low:end].max() > limit) or (end < high and values[end:high].min() <= limit))
        for low, end, high in spans
    ]
    return ends, np.array(scattered, np.bool_)


def _bounded(
    values: Int64Array, starts: Int64Array, stops: Int64Array, limit: int
) -> tuple[Int64Array, Int64Array | None]:
    """The bounds, and where all rows were compared for them, how many up to each are at or below the limit."""
    if len(starts) <= _FEW:
        spans = zip(starts, stops, strict=True)
        found = [low + np.searchsorted(values[low:high], limit, side="right") for low, high in spans]
        return np.array(found, np.int64), None
    below: Int64Array = np.concatenate([np.zeros(1, np.int64), np.cumsum(values <= limit)])
    return starts + below[stops] - below[starts], below


def ascends(values: Int64Array) -> bool:
    """Whether no value is below the one before; looks no further than the first that is."""
    for low in range(0, len(values) - 1, _AT_ONCE):
        piece = values[low : low + _AT_ONCE + 1]
        if (piece[1:] < piece[:-1]).any():
            return False
    return True


def rows_until(values: Int64Array, sought: Int64Array) -> Int64Array:
    """One past the last of the ascending values at or below each of `sought`."""
    if len(sought) < _MANY or not bool((sought[1:] >= sought[:-1]).all()):
        return np.searchsorted(values, sought, side="right").astype(np.int64)
    rows = np.empty(len(sought), np.int64)
    _rows_until(writable(values), writable(sought), rows)
    return rows


def warm() -> None:
    """Have what finds rows compiled and kept."""
    none = np.empty(0, np.int64)
    _rows_until(none, none, none)


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
