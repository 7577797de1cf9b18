"""Which rows a fold takes, in which order, and where it stops to emit."""

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
from eventlab.fold.native.call import writable
from eventlab.fold.native.function import Function

_FEW = 64
"""Up to so many aggregates, bounds are found by binary search; beyond, by one pass over the column."""
_MANY = 50_000
"""From so many on, values in ascending order are looked for by going on from the one before."""

_AT_ONCE = 65_536  # so that what is compared stays near the processor

_rows_until = Function(walk.rows_until)


MERGED = ""
"""The key of `Stops.starts` and `Stops.bounds` where rows follow a merged order."""


@dataclass(frozen=True)
class Stops:
    """Where each aggregate's fold begins, stops and ends, as row numbers in the tables or places in a merged order.

    Attributes
    ----------
    offsets : int64 array, shape (aggregates + 1,)
        Aggregate a's stops are ``offsets[a]:offsets[a + 1]``.
    starts : mapping of str to int64 array, shape (aggregates,)
        First row to fold, per event type.
    bounds : mapping of str to int64 array, shape (stops,)
        One past the last row of each stop, per event type; ascending inside an aggregate.
    order : int64 array, optional
        Rows of several event types merged into one order, as `entries` makes them. `starts` and `bounds` then count
        places in it, under the one key `MERGED`. Without it, types are merged by version.
    """

    offsets: Int64Array
    starts: Mapping[str, Int64Array]
    bounds: Mapping[str, Int64Array]
    order: Int64Array | None = None

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

    @property
    def events(self) -> Int64Array:
        """How many events each aggregate's fold takes, and one more for each of its stops."""
        counts = np.diff(self.offsets)
        for name, ends in self.ends.items():
            counts = counts + np.maximum(ends - self.starts[name], 0)
        return counts

    def rows(self, tables: Mapping[str, EventTable]) -> tuple[Mapping[str, Int64Array], Mapping[str, Int64Array]]:
        """The first row of each aggregate and one past its last, per event type; no fewer than are folded."""
        if self.order is None:
            return self.starts, self.ends
        return (
            {name: table.offsets[:-1] for name, table in tables.items()},
            {name: table.offsets[1:] for name, table in tables.items()},
        )

    def of_aggregate(self, a: int) -> Stops:
        """The stops of one aggregate, as those of a fold of nothing else."""
        own = slice(int(self.offsets[a]), int(self.offsets[a + 1]))
        starts = {name: rows[a : a + 1] for name, rows in self.starts.items()}
        bounds = {name: rows[own] for name, rows in self.bounds.items()}
        return Stops(np.array([0, own.stop - own.start]), starts, bounds, self.order)

    def one_by_one(self) -> Iterator[Stops]:
        """The stops of the only aggregate as folds of one stop each: the second begins where the first ends."""
        begin = self.starts
        for at in range(int(self.offsets[1])):
            ends = {name: bounds[at : at + 1] for name, bounds in self.bounds.items()}
            yield Stops(np.array([0, 1]), begin, ends, self.order)
            begin = ends

    @staticmethod
    def of_frame(
        reducer: Reducer, frame: EventFrame, ends: Mapping[str, Int64Array]
    ) -> tuple[dict[str, EventTable], Stops]:
        """A frame's tables, and one stop for each of its aggregates, one past its last row of each event type."""
        tables = tables_of(reducer, frame)
        starts = {name: table.offsets[:-1] for name, table in tables.items()}
        bounds = {name: ends.get(name, starts[name]) for name in tables}
        return tables, Stops(np.arange(len(frame.aggregates) + 1), starts, bounds)

    @staticmethod
    def without_events(reducer: Reducer, count: int) -> Stops:
        """One stop for each of `count` aggregates, before any event."""
        nothing = np.zeros(count, np.int64)
        rows = dict.fromkeys([MERGED] if reducer.takes_merged_order else reducer.handlers, nothing)
        return Stops(np.arange(count + 1), rows, rows, nothing[:0] if reducer.takes_merged_order else None)

    @staticmethod
    def merged(order: Int64Array, places: Int64Array) -> Stops:
        """Stops of one aggregate after so many events of a merged order each."""
        return Stops(np.array([0, len(places)]), {MERGED: np.zeros(1, np.int64)}, {MERGED: places}, order)


def kind_bits(kinds: int) -> int:
    """How many low bits of an entry hold the number of its event type; one number more than `kinds` fits."""
    return kinds.bit_length()


def entries(rows: Int64Array, kind: int, kinds: int, out: Int64Array | None = None) -> Int64Array:
    """Rows of the event type number `kind` of `kinds`, as `Stops.order` holds them; type `kinds` is not handled."""
    found: Int64Array = np.left_shift(rows, kind_bits(kinds), out=out)
    return np.bitwise_or(found, kind, out=found)


def narrowed(tables: Mapping[str, EventTable], stops: Stops) -> tuple[dict[str, EventTable], Stops]:
    """Tables cut to the rows that are folded, and the stops in their row numbers; nothing is copied."""
    if stops.order is not None:
        low, high = int(stops.starts[MERGED].min(initial=0)), int(stops.ends[MERGED].max(initial=0))
        starts, bounds = ({MERGED: places[MERGED] - low} for places in (stops.starts, stops.bounds))
        return dict(tables), Stops(stops.offsets, starts, bounds, stops.order[low:high])
    cut, starts, bounds = dict(tables), dict(stops.starts), dict(stops.bounds)
    for name, last in stops.ends.items():
        table, first = tables[name], stops.starts[name]
        if len(last) and first.min() == 0 and last.max() == len(table):
            continue
        some = last > first
        low, high = (int(first[some].min()), int(last[some].max())) if some.any() else (0, 0)
        cut[name] = table.part(low, high, np.clip(table.offsets - low, 0, high - low))
        starts[name], bounds[name] = (np.clip(rows[name] - low, 0, high - low) for rows in (starts, bounds))
    unchanged = all(cut[name] is table for name, table in tables.items())
    return cut, stops if unchanged else Stops(stops.offsets, starts, bounds)


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
