"""How a state developed: a row per handled event, per requested moment, or per bar, in one pass over the events.

Events stream by, a stretch of versions at a time. Each moment is told in the stretch behind whose last event it does
not lie, so that neither the events nor their envelope are ever in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events.clock import duration_ns
from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.fold.drive import emission_schema, fold
from eventlab.fold.legs import Legs, rows_until, tables_of
from eventlab.store.contract import Head, Selection, Store
from eventlab.timetravel.moments import UNBOUND, Bounds, bars, check_asked, moments_asked
from eventlab.timetravel.reconstruct import heads_of


def history(
    store: Store,
    reducer: Reducer,
    aggregate: str,
    *,
    at: Any = None,
    every: Any = None,
    tables: bool = False,
    interpret: bool | None = None,
) -> pl.DataFrame:
    """The development of one aggregate's state.

    Parameters
    ----------
    at : iterable of as_of, optional
        A row for each moment, in the order given, duplicates kept: versions, times, or `AsOf`.
    every : str or timedelta, optional
        A row at each multiple of this duration since the epoch, from the first event's bar to the last's. The row at t
        includes events up to and including t.
    tables : bool
        Also give tables, as lists of structs.

    Returns
    -------
    polars.DataFrame
        Columns `at` (where asked for moments), `version`, `position`, `timestamp`, then fields and properties.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError
    """
    check_asked(at, every)
    (head,) = heads_of(store, [aggregate])
    label: pl.Series | None = None
    open_moments: _Open | None = None
    if at is not None:
        label, moments = moments_asked(at)
        open_moments = _Open.of(Bounds.of(store, head, moments))
    step = None if every is None else duration_ns(every, what="every")
    rows, states = _Rows(reducer, tables), reducer.layout.initial(1)
    for stretch in _stretches(store, reducer, head):
        if step is not None and open_moments is None:
            label, times = bars(int(stretch.timestamp[0]), head.timestamp, step)
            open_moments = _Open.of(Bounds.of_times(times))
        if open_moments is None:
            stops, more = stretch.handled(reducer), not stretch.last
            rows.rows_of(stretch, stops)
        else:
            reached, versions = open_moments.take(stretch)
            stops, more = rows.moments_of(stretch, reached, versions), len(open_moments) > 0
        legs, table = _legs(reducer, stretch, stops, onward=more), tables_of(reducer, stretch.frame)
        states, found = fold_legs(reducer, aggregate, states, table, legs, tables=tables, interpret=interpret)
        rows.add(found, len(stops))
        if not more:
            break
    return rows.framed(label)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Successive events of one aggregate.

    Attributes
    ----------
    before : Head
        The event before the first; version 0 where there is none.
    position, timestamp : int64 array
        The envelope by version, from that after `before`.
    last : bool
        No more are to come.
    """

    frame: EventFrame
    before: Head
    position: Int64Array
    timestamp: Int64Array
    last: bool

    @property
    def end(self) -> Head:
        """The last event."""
        version = self.before.version + len(self.position)
        return Head(self.before.aggregate_id, version, int(self.position[-1]), int(self.timestamp[-1]))

    def handled(self, reducer: Reducer) -> Int64Array:
        """Versions that the reducer handles, ascending."""
        own = [table.version for name, table in self.frame.tables.items() if name in reducer.handlers]
        return own[0] if len(own) == 1 else np.sort(np.concatenate(own)) if own else np.empty(0, np.int64)

    def marks(self, versions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Positions and timestamps of versions, which may be the one before the first."""
        rows = versions - self.before.version - 1
        position, timestamp = self.position[rows], self.timestamp[rows]  # -1, the last, for the one before
        earlier = rows < 0
        if earlier.any():
            position[earlier], timestamp[earlier] = self.before.position, self.before.timestamp
        return position, timestamp


def _stretches(store: Store, reducer: Reducer, head: Head) -> Iterator[_Stretch]:
    """The events of an aggregate up to its head."""
    selection = Selection(
        reducer.columns, others=True, aggregates=[head.aggregate_id], stop_position=head.position + 1,
        types=reducer.event_types,
    )  # fmt: skip
    end = Head(head.aggregate_id, 0, 0, 0)
    for frame in store.frames(selection):
        tables = [table for table in frame.tables.values() if len(table)]
        if len(tables) == 1:
            position, timestamp = tables[0].position, tables[0].timestamp
        else:
            position, timestamp = (np.empty(sum(map(len, tables)), np.int64) for _ in range(2))
            for table in tables:  # versions are gapless, so they index the envelope
                rows = table.version - end.version - 1
                position[rows], timestamp[rows] = table.position, table.timestamp
        stretch = _Stretch(frame, end, position, timestamp, end.version + len(position) == head.version)
        end = stretch.end
        yield stretch


@dataclass
class _Open:
    """Moments that are not reached yet, by time.

    Attributes
    ----------
    moments : int64 array
        Their numbers among those that were asked for.
    bounds : Bounds
        Theirs, in the same order.
    by_time : bool
        Nothing but event times bounds them.
    """

    moments: Int64Array
    bounds: Bounds
    by_time: bool

    @staticmethod
    def of(bounds: Bounds) -> _Open:
        by_time = bool((bounds.version == UNBOUND).all() and (bounds.stop == UNBOUND).all())
        if _ascends(bounds.time):
            return _Open(np.arange(len(bounds)), bounds, by_time)
        order = np.argsort(bounds.time, kind="stable")
        return _Open(order, bounds[order], by_time)

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, stretch: _Stretch) -> tuple[Int64Array, Int64Array]:
        """Moments that are reached within a stretch, and the last version that each includes."""
        end = stretch.end
        if self.by_time and not stretch.last:
            # At the last event's own time more may follow.
            done: Any = slice(0, int(np.searchsorted(self.bounds.time, end.timestamp)))
            left: Any = slice(done.stop, None)
            versions = self.bounds[done].versions(stretch.before.version, stretch.position, stretch.timestamp)
        else:
            versions = self.bounds.versions(stretch.before.version, stretch.position, stretch.timestamp)
            done = (versions < end.version) | stretch.last
            left, versions = ~done, versions[done]
        reached = self.moments[done]
        self.moments, self.bounds = self.moments[left], self.bounds[left]
        return reached, versions


def _ascends(values: Int64Array) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def _legs_to(versions: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Ascending versions to emit something at, and the place among them of each version."""
    if not _ascends(versions):
        return np.unique(versions, return_inverse=True)
    begins = np.ones(len(versions), np.bool_)
    begins[1:] = versions[1:] != versions[:-1]
    if 2 * np.count_nonzero(begins) > len(versions):  # to emit a few twice takes less than to spread what was emitted
        return versions, np.arange(len(versions))
    return versions[begins], np.cumsum(begins) - 1


@dataclass
class _Rows:
    """A history in the making: what was emitted, and the rows that it goes to."""

    reducer: Reducer
    tables: bool
    emitted: list[pa.RecordBatch] = field(default_factory=list)
    versions: list[Int64Array] = field(default_factory=list)
    marks: list[tuple[Int64Array, Int64Array]] = field(default_factory=list)
    moments: list[Int64Array] = field(default_factory=list)
    places: list[Int64Array] = field(default_factory=list)
    count: int = 0

    def rows_of(self, stretch: _Stretch, versions: Int64Array) -> None:
        """A row for each version."""
        self.versions.append(versions)
        self.marks.append(stretch.marks(versions))

    def moments_of(self, stretch: _Stretch, reached: Int64Array, versions: Int64Array) -> Int64Array:
        """A row for each moment reached; gives the versions at which something must be emitted, ascending."""
        self.rows_of(stretch, versions)
        stops, place = _legs_to(versions)
        self.moments.append(reached)
        self.places.append(place + self.count)
        return stops

    def add(self, found: Sequence[pa.RecordBatch], stops: int) -> None:
        """What a fold emitted at its first `stops` legs; with tables there is a batch a leg."""
        self.emitted += found[:stops] if self.tables else [batch.slice(0, stops) for batch in found]
        self.count += stops

    def framed(self, label: pl.Series | None) -> pl.DataFrame:
        emitted = pl.DataFrame(pl.from_arrow(joined(self.reducer, self.emitted, tables=self.tables)))
        versions = _whole(self.versions)
        position, timestamp = (_whole([marks[at] for marks in self.marks]) for at in range(2))
        if label is not None:
            moments, place = _whole(self.moments), _whole(self.places)
            if not _ascends(moments):
                order = np.argsort(moments)  # back into the order in which they were asked for
                versions, position, timestamp, place = versions[order], position[order], timestamp[order], place[order]
            if len(place) != len(emitted) or not _ascends(place):
                emitted = emitted[place]
        return with_envelope(label, versions, position, timestamp, emitted)


def _whole(pieces: Sequence[Int64Array]) -> Int64Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int64), *pieces])


def with_envelope(
    label: pl.Series | None, versions: Int64Array, position: Int64Array, timestamp: Int64Array, emitted: pl.DataFrame
) -> pl.DataFrame:
    """A history's rows: `at` where moments were asked for, the envelope of the last own event, and what was emitted."""
    series = [
        pl.Series("version", versions, pl.Int64),
        pl.Series("position", position, pl.Int64),
        pl.Series("timestamp", timestamp, pl.Int64).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
    ]
    none = versions == 0
    if none.any():
        missing = pl.Series(none)
        series[1:] = [pl.select(pl.when(~missing).then(column)).to_series().alias(column.name) for column in series[1:]]
    return pl.DataFrame([*([] if label is None else [label.alias("at")]), *series, *emitted.get_columns()])


def fold_legs(
    reducer: Reducer,
    aggregate: str,
    states: pa.RecordBatch,
    table: Mapping[str, EventTable],
    legs: Legs,
    *,
    tables: bool,
    interpret: bool | None,
) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
    """The state after one aggregate's legs, and what it was at the end of each: with `tables`, a batch a leg."""
    if not tables:
        folded = fold(reducer, [aggregate], states, table, legs, emit=True, interpret=interpret)
        return folded.states, [] if folded.emitted is None else [folded.emitted]
    pieces = []
    for leg in legs.of_aggregate(0):
        folded = fold(reducer, [aggregate], states, table, leg, emit=True, interpret=interpret)
        states = folded.states
        pieces.append(_with_tables(reducer, folded.emitted, states))
    return states, pieces


def joined(reducer: Reducer, pieces: Sequence[pa.RecordBatch], *, tables: bool) -> pa.Table:
    """What was emitted, as one table."""
    if pieces:
        return pa.Table.from_batches(pieces)
    schema = emission_schema(reducer)
    fields = [*schema, *(table.arrow for table in reducer.layout.tables)] if tables else list(schema)
    return pa.schema(fields).empty_table()


def _legs(reducer: Reducer, stretch: _Stretch, stops: Int64Array, *, onward: bool) -> Legs:
    """A leg to each version of `stops`, and one to the end of the stretch where more are to come."""
    starts, bounds = {}, {}
    for name, table in tables_of(reducer, stretch.frame).items():
        starts[name] = np.zeros(1, np.int64)
        if len(table) == len(stretch.position):  # all versions are of this type: they need not be looked for
            rows = np.maximum(stops - stretch.before.version, 0)
        else:
            rows = rows_until(table.version, stops)
        bounds[name] = np.append(rows, len(table)) if onward else rows
    return Legs(np.array([0, len(stops) + onward]), starts, bounds)


def _with_tables(reducer: Reducer, emitted: pa.RecordBatch | None, states: pa.RecordBatch) -> pa.RecordBatch:
    columns = [] if emitted is None else list(zip(emitted.schema, emitted.columns, strict=True))
    columns += [(table.arrow, states.column(table.name)) for table in reducer.layout.tables]
    return pa.RecordBatch.from_arrays([c for _, c in columns], schema=pa.schema([f for f, _ in columns]))
