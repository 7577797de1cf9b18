"""How a state developed: a row per handled event, per requested moment, or per bar, in one pass over the events.

Events stream by, a stretch of versions at a time. Each moment is told in the stretch behind whose last event it does
not lie, so that neither the events nor their envelope are ever in memory as a whole. That takes event times that
ascend: where one is met that goes back, moments are told as `backdated.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events.clock import duration_ns
from eventlab.events.frame import Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.stops import ascends, tables_of
from eventlab.store.api import UNBOUND, EventReader
from eventlab.timetravel.history import backdated
from eventlab.timetravel.history.fold_to_stops import Stretch, fold_legs, joined, legs_to, stretches, with_envelope
from eventlab.timetravel.moments import Bounds, bars, check_asked, moments_asked
from eventlab.timetravel.reconstruct import heads_of


def history(
    store: EventReader,
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
    asked: Bounds | int | None = None
    if at is not None:
        label, moments = moments_asked(at)
        asked = Bounds.of(store, head, moments)
    elif every is not None:
        asked = duration_ns(every, what="every")
    open_moments = _Open.of(asked) if isinstance(asked, Bounds) else None
    latest = asked.latest_time if isinstance(asked, Bounds) else None if asked is None else head.timestamp
    rows, states = _Rows(reducer, tables), reducer.layout.initial(1)
    goes_back = False
    for stretch in stretches(store, reducer, head):
        goes_back = latest is not None and stretch.goes_back
        if goes_back:
            break
        if isinstance(asked, int) and open_moments is None:
            label, times = bars(int(stretch.timestamp[0]), head.timestamp, asked)
            open_moments = _Open.of(Bounds.of_times(times))
        if open_moments is None:
            stops, more = stretch.handled(reducer), not stretch.last
            rows.rows_of(stretch, stops)
        else:
            reached, versions = open_moments.take(stretch)
            stops, more = rows.moments_of(stretch, reached, versions), len(open_moments) > 0
        legs, table = legs_to(reducer, stretch, stops, onward=more), tables_of(reducer, stretch.frame)
        states, found = fold_legs(reducer, head.aggregate_id, states, table, legs, tables=tables, interpret=interpret)
        rows.add(found, len(stops))
        if not more:
            if latest is not None and not stretch.last:
                goes_back = backdated.reach(store, head, stretch.end.version, latest)
            break
    if goes_back and asked is not None:
        return backdated.history(store, reducer, head, label, asked, tables=tables, interpret=interpret)
    return rows.framed(label)


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
        if ascends(bounds.time):
            return _Open(np.arange(len(bounds)), bounds, by_time)
        order = np.argsort(bounds.time, kind="stable")
        return _Open(order, bounds[order], by_time)

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, stretch: Stretch) -> tuple[Int64Array, Int64Array]:
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


def _legs_to(versions: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Ascending versions to emit something at, and the place among them of each version."""
    if not ascends(versions):
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

    def rows_of(self, stretch: Stretch, versions: Int64Array) -> None:
        """A row for each version."""
        self.versions.append(versions)
        self.marks.append(stretch.marks(versions))

    def moments_of(self, stretch: Stretch, reached: Int64Array, versions: Int64Array) -> Int64Array:
        """A row for each moment reached; gives the versions at which something must be emitted, ascending."""
        self.rows_of(stretch, versions)
        stops, place = _legs_to(versions)
        self.moments.append(reached)
        self.places.append(place + self.count)
        return stops

    def add(self, found: pa.RecordBatch, stops: int) -> None:
        """What a fold told at its first `stops` legs."""
        self.emitted.append(found.slice(0, stops))
        self.count += stops

    def framed(self, label: pl.Series | None) -> pl.DataFrame:
        emitted = pl.DataFrame(pl.from_arrow(joined(self.reducer, self.emitted, tables=self.tables)))
        versions = _whole(self.versions)
        position, timestamp = (_whole([marks[at] for marks in self.marks]) for at in range(2))
        if label is not None:
            moments, place = _whole(self.moments), _whole(self.places)
            if not ascends(moments):
                order = np.argsort(moments)  # back into the order in which they were asked for
                versions, position, timestamp, place = versions[order], position[order], timestamp[order], place[order]
            if len(place) != len(emitted) or not ascends(place):
                emitted = emitted[place]
        return with_envelope(label, versions, position, timestamp, emitted)


def _whole(pieces: Sequence[Int64Array]) -> Int64Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int64), *pieces])
