"""States and histories across aggregates: of own events, and those that a reducer has routed to them by a key.

Every bound of a moment holds for both kinds: a time and a position directly, `known_at` by the positions recorded by
then, and a version by the order of all events: nothing after the aggregate's own event of that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events.clock import MAX_NS, MIN_NS, duration_ns
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold
from eventlab.fold.stops import Legs
from eventlab.snapshots.states import Marks
from eventlab.store.api import UNBOUND, EventReader
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.history.fold_to_stops import fold_legs, joined, with_envelope
from eventlab.timetravel.marks.routing import Log, MarkWith, Merged, merge
from eventlab.timetravel.moments import Bounds, bars, check_asked, moments_asked
from eventlab.timetravel.own_events import Past
from eventlab.timetravel.reconstruct import Reconstructed

_WHOLE = -1


def state(
    store: EventReader,
    reducer: Reducer,
    aggregate: str,
    moment: AsOf,
    mark_with: MarkWith,
    *,
    interpret: bool | None = None,
) -> Reconstructed:
    """The state of one aggregate at a moment, with what `mark_with` routes to it. Always a full replay.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
    """
    log = Log.of(store, reducer, aggregate, mark_with)
    bounds = Bounds.of(store, log.head, [moment])
    log = log.known(bounds)
    past = log.past
    version = int(bounds.versions(0, past.position, past.timestamp)[0])
    merged = _merged(log, bounds)
    group, place = _places(merged, bounds)
    tables = _tables(merged, int(group[0]))
    legs, initial = _legs(tables, place), reducer.layout.initial(1)
    folded = fold(reducer.with_routed, [aggregate], initial, tables, legs, emit=True, interpret=interpret)
    marks = Marks.none(1)
    if version:
        last = slice(version - 1, version)
        marks = Marks(np.array([version]), past.position[last], past.timestamp[last], past.timestamp[last])
    emitted = folded.emitted if folded.emitted is not None else folded.states
    return Reconstructed([aggregate], folded.states, emitted, marks)


def history(
    store: EventReader,
    reducer: Reducer,
    aggregate: str,
    mark_with: MarkWith,
    *,
    at: Any = None,
    every: Any = None,
    tables: bool = False,
    interpret: bool | None = None,
) -> pl.DataFrame:
    """The development of one aggregate's state, with what `mark_with` routes to it.

    As :func:`eventlab.timetravel.history.history.history`; bars go on to that of the last event, own or routed, and
    a row per handled event is one per *own* handled event, with the routed events before it.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
    """
    check_asked(at, every)
    log = Log.of(store, reducer, aggregate, mark_with)
    label: pl.Series | None = None
    if at is not None:
        label, moments = moments_asked(at)
        bounds = Bounds.of(store, log.head, moments)
    elif every is not None:
        bounds = Bounds.of_times(np.array([MAX_NS]))
    else:
        bounds = Bounds.of_versions(log.past.handled)
    log = log.known(bounds)
    past, merged = log.past, _merged(log, bounds)
    if every is not None:
        step = duration_ns(every, what="every")
        label, times = bars(int(past.timestamp[0]), int(merged.timestamp[-1]), step)
        bounds = Bounds.of_times(times)
    emitted = _emit(reducer.with_routed, aggregate, merged, bounds, tables=tables, interpret=interpret)
    versions = bounds.versions(0, past.position, past.timestamp)
    last = np.maximum(versions - 1, 0)
    return with_envelope(label, versions, past.position[last], past.timestamp[last], emitted)


def _latest(past: Past, bounds: Bounds) -> int:
    """The latest event time that any of the moments includes."""
    of_version = np.concatenate([[MIN_NS], past.timestamp])
    bounded = bounds.version != UNBOUND
    time = of_version[np.where(bounded, bounds.version, 0)]
    return int(np.where(bounded, np.minimum(time, bounds.time), bounds.time).max(initial=MIN_NS))


def _merged(log: Log, bounds: Bounds) -> Merged:
    """Everything that the moments may include, in order."""
    return merge(log, _latest(log.past, bounds), int(bounds.stop.max(initial=0)))


def _places(merged: Merged, bounds: Bounds) -> tuple[Int64Array, Int64Array]:
    """How far each moment reaches: the tables it is folded from, and one past its last place.

    Most logs are written in the order of event times, so that what was recorded by a position is a beginning of the
    order: then all moments are legs of one fold, of the tables `_WHOLE`. Where it is not, moments of one position have
    tables to themselves, named by it.
    """
    before = np.concatenate([[0], merged.own + 1])
    bounded = bounds.version != UNBOUND
    place = np.searchsorted(merged.timestamp, bounds.time, side="right")
    of_version = before[np.where(bounded, bounds.version, 0)]
    place = np.where(bounded, np.minimum(place, of_version), place).astype(np.int64)
    group = np.full(len(place), _WHOLE)
    if len(merged.needs) and bool((bounds.stop <= merged.needs.max()).any()):
        beginning = np.searchsorted(np.maximum.accumulate(merged.needs), bounds.stop)
        scattered = beginning != np.searchsorted(np.sort(merged.needs), bounds.stop)
        group = np.where(scattered, bounds.stop, _WHOLE)
        place = np.where(scattered, place, np.minimum(place, beginning))
    return group, place


def _tables(merged: Merged, group: int) -> Mapping[str, EventTable]:
    """Tables of a group that `_places` gave."""
    return merged.tables if group == _WHOLE else merged.below(group)


def _legs(tables: Mapping[str, EventTable], stops: Int64Array) -> Legs:
    """A leg to each of the ascending places."""
    bounds = {name: np.searchsorted(table.merged_by, stops).astype(np.int64) for name, table in tables.items()}
    return Legs(np.array([0, len(stops)]), dict.fromkeys(tables, np.zeros(1, np.int64)), bounds)


def _emit(
    reducer: Reducer, aggregate: str, merged: Merged, bounds: Bounds, *, tables: bool, interpret: bool | None
) -> pl.DataFrame:
    """What the state is at each moment."""
    group, place = _places(merged, bounds)
    pieces: list[pa.RecordBatch] = []
    row, done = np.empty(len(place), np.int64), 0
    for number in np.unique(group).tolist():
        members = np.flatnonzero(group == number)
        stops, inverse = np.unique(place[members], return_inverse=True)
        row[members] = done + inverse
        done += len(stops)
        table = _tables(merged, number)
        initial = reducer.layout.initial(1)
        legs = _legs(table, stops)
        _, found = fold_legs(reducer, aggregate, initial, table, legs, tables=tables, interpret=interpret)
        pieces.append(found)
    return pl.DataFrame(pl.from_arrow(joined(reducer, pieces, tables=tables)))[row]
