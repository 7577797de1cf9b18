"""States and histories across aggregates: own events, and those that a reducer has routed to them by a key.

Events of all aggregates have one order, (timestamp, position). A routed event is included where an own event before it
in that order named its key, so that what an aggregate comes to hold later never reaches back. Every bound of a moment
holds for both kinds: a time and a position directly, `known_at` by the positions recorded by then, and a version by the
order: nothing after the aggregate's event of that version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab._resolving import aggregates_named
from eventlab.errors import InvalidEvent, ReducerError, UnknownAggregate
from eventlab.events.clock import MAX_NS, MIN_NS, duration_ns
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.fold.drive import fold
from eventlab.fold.legs import Legs, empty_table
from eventlab.snapshots.base import Marks
from eventlab.store.contract import Selection, Store
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.history import (
    Past,
    bars,
    check_asked,
    fold_legs,
    framed,
    joined,
    moments_asked,
    read_past,
    version_at,
)
from eventlab.timetravel.reconstruct import Reconstructed, position_bound

MarkWith: TypeAlias = "str | Sequence[str]"
"""An aggregate id, a pattern in which ``*`` stands for any run of characters, or a list of these."""

_WHOLE = -1
_UNBOUND = 2**63 - 1


def state(
    store: Store,
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
    log = _Log.of(store, reducer, aggregate, mark_with)
    past = log.past
    version = version_at(store, past, aggregate, moment)
    bounds = _of_moments(store, [moment])
    merged = _merge(log, bounds)
    group, place = merged.places(bounds)
    tables = merged.tables_of(int(group[0]))
    legs, initial = _legs(tables, place), reducer.layout.initial(1)
    folded = fold(reducer.with_routed, [aggregate], initial, tables, legs, emit=True, interpret=interpret)
    marks = Marks.none(1)
    if version:
        last = slice(version - 1, version)
        marks = Marks(np.array([version]), past.position[last], past.timestamp[last])
    emitted = folded.emitted if folded.emitted is not None else folded.states
    return Reconstructed([aggregate], folded.states, emitted, marks)


def history(
    store: Store,
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

    As :func:`eventlab.timetravel.history.history`; bars go on to that of the last event, own or routed, and a row per
    handled event is one per *own* handled event, with the routed events before it.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
    """
    check_asked(at, every)
    log = _Log.of(store, reducer, aggregate, mark_with)
    past = log.past
    label: pl.Series | None = None
    if at is not None:
        label, moments = moments_asked(at)
        if isinstance(moments, np.ndarray):
            bounds = _of_times(moments)
            versions = _own_until(past, moments)
        else:
            versions = np.array([version_at(store, past, aggregate, moment) for moment in moments], np.int64)
            bounds = _of_moments(store, moments)
        merged = _merge(log, bounds)
    elif every is not None:
        step = duration_ns(every, what="every")
        merged = _merge(log, _of_times(np.array([MAX_NS])))
        label, times = bars(past, int(merged.timestamp[-1]) if len(merged.timestamp) else None, step)
        bounds, versions = _of_times(times), _own_until(past, times)
    else:
        versions = past.handled
        bounds = _of_versions(versions)
        merged = _merge(log, bounds)
    emitted = _emit(reducer.with_routed, aggregate, merged, bounds, tables=tables, interpret=interpret)
    return framed(past, label, versions, emitted)


@dataclass(frozen=True, slots=True)
class _Log:
    """The log up to where it ended when the question was asked: an aggregate's own events, and where others are.

    Others may append in between; own and routed events must be of one moment.
    """

    store: Store
    reducer: Reducer
    others: Sequence[str]
    stop: int
    past: Past

    @staticmethod
    def of(store: Store, reducer: Reducer, aggregate: str, mark_with: MarkWith) -> _Log:
        if not reducer.routed:
            raise ReducerError(
                f"{reducer.name} has no handler of routed events, so there is nothing to mark with",
                got=mark_with,
                hint='Give it one: @el.on(el.MarketData, routed="symbol"), or leave out mark_with.',
            )
        stop = store.stop_position
        columns = {name: {*read, *_keys(reducer, name)} for name, read in reducer.columns.items()}
        past = read_past(store, reducer, aggregate, columns=columns, stop_position=stop)
        others = [name for name in _named(store, mark_with) if name != aggregate]
        return _Log(store, reducer, others, stop, past)


def _named(store: Store, mark_with: MarkWith) -> list[str]:
    asked = [mark_with] if isinstance(mark_with, str) else mark_with
    if not isinstance(asked, Sequence) or not all(isinstance(one, str) for one in asked):
        raise InvalidEvent("mark_with names aggregates", got=mark_with, expected="an id, a pattern, or a list of these")
    found: dict[str, None] = {}
    for one in asked:
        named = aggregates_named(store, one)
        found.update(dict.fromkeys(store.aggregate_ids() if named is None else named))
        if named == []:
            raise UnknownAggregate(
                "mark_with matches no aggregate", got=one, hint="lab.store.aggregate_ids() lists them."
            )
    if not asked:
        raise UnknownAggregate("mark_with names no aggregate", got=mark_with, hint='E.g. mark_with="market/*".')
    return list(found)


def _keys(reducer: Reducer, name: str) -> list[str]:
    """Fields of an own event type that name what the aggregate holds."""
    keys = dict.fromkeys(one.key for one in reducer.routed.values())
    return [field.name for field in reducer.event_types[name] if field.name in keys and field.is_text]


# -- moments


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Moments as numbers, one an element of each array.

    Attributes
    ----------
    version : int64 array
        Nothing after the own event of this version; `_UNBOUND` for no such bound.
    time : int64 array
        Nothing with a later event time.
    stop : int64 array
        Nothing with this position or a higher one.
    """

    version: Int64Array
    time: Int64Array
    stop: Int64Array


def _of_times(times: Int64Array) -> _Bounds:
    unbound = np.full(len(times), _UNBOUND)
    return _Bounds(unbound, times, unbound)


def _of_versions(versions: Int64Array) -> _Bounds:
    return _Bounds(versions, np.full(len(versions), MAX_NS), np.full(len(versions), _UNBOUND))


def _of_moments(store: Store, moments: Sequence[AsOf]) -> _Bounds:
    return _Bounds(
        np.array([_UNBOUND if m.version is None else m.version for m in moments], np.int64),
        np.array([MAX_NS if m.time_ns is None else m.time_ns for m in moments], np.int64),
        np.array([position_bound(store, m) for m in moments], np.int64),
    )


def _own_until(past: Past, times: Int64Array) -> Int64Array:
    return np.searchsorted(past.timestamp, times, side="right").astype(np.int64)


def _latest(past: Past, bounds: _Bounds) -> int:
    """The latest event time that any of the moments includes."""
    of_version = np.concatenate([[MIN_NS], past.timestamp])
    bounded = bounds.version != _UNBOUND
    time = of_version[np.where(bounded, bounds.version, 0)]
    return int(np.where(bounded, np.minimum(time, bounds.time), bounds.time).max(initial=MIN_NS))


# -- what is routed


@dataclass(frozen=True, slots=True)
class _Held:
    """Keys that an aggregate's own events name, and the first event to do so."""

    names: pa.Array
    timestamp: Int64Array
    position: Int64Array

    @staticmethod
    def of(past: Past, reducer: Reducer, key: str) -> _Held:
        first: dict[str, tuple[int, int]] = {}
        for frame in past.frames:
            for name, table in frame.tables.items():
                if name not in reducer.handlers or key not in _keys(reducer, name):
                    continue
                column = table.columns[key]
                codes, rows = np.unique(column.indices.fill_null(-1).to_numpy(), return_index=True)
                for code, row in zip(codes.tolist(), rows.tolist(), strict=True):
                    if code >= 0:
                        text = column.dictionary[code].as_py()
                        at = (int(table.timestamp[row]), int(table.position[row]))
                        first[text] = min(at, first.get(text, at))
        return _Held(
            pa.array(list(first), pa.string()),
            np.array([timestamp for timestamp, _ in first.values()], np.int64),
            np.array([position for _, position in first.values()], np.int64),
        )

    def codes(self, column: pa.DictionaryArray) -> npt.NDArray[np.int64]:
        """The place of each row's key among the names; -1 where it is none of them."""
        lookup = pc.index_in(column.dictionary, value_set=self.names).fill_null(-1).to_numpy()
        lookup = np.append(lookup, -1).astype(np.int64)
        indices = column.indices.fill_null(len(lookup) - 1) if column.indices.null_count else column.indices
        codes: npt.NDArray[np.int64] = lookup[indices.to_numpy()]
        return codes


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events of one type in the one order, and the lowest position below which each is included.

    That is the event's own, or a later one's that named its key: an event recorded first may have happened later.
    """

    table: EventTable
    needs: Int64Array


def _routed(log: _Log, until: int, stop: int) -> dict[str, list[_Rows]]:
    """Routed events by type, in stretches, up to the time `until` and below the position `stop`."""
    reducer, with_routed = log.reducer, log.reducer.with_routed
    held = {key: _Held.of(log.past, reducer, key) for key in {one.key for one in reducer.routed.values()}}
    found: dict[str, list[_Rows]] = {name: [] for name in reducer.routed}
    since = min((int(keys.timestamp.min()) for keys in held.values() if len(keys.names)), default=MAX_NS)
    if not log.others or until < since:
        return found
    selection = Selection(
        {name: {*with_routed.columns[name], one.key} for name, one in reducer.routed.items()},
        aggregates=log.others,
        stop_position=stop,
        until_time=None if until == MAX_NS else until,
        since_time=since,
        types={name: one.type for name, one in reducer.routed.items()},
    )
    for frame in log.store.frames(selection):
        for name, table in frame.tables.items():
            key = reducer.routed[name].key
            rows = _chosen(table, held[key], held[key].codes(table.columns[key]), until)
            if len(rows.table):
                found[name].append(rows)
    return found


def _chosen(table: EventTable, held: _Held, codes: npt.NDArray[np.int64], until: int) -> _Rows:
    """The rows whose key was named before them, and not after a time."""
    rows = np.flatnonzero((codes >= 0) & (table.timestamp <= until))
    codes, timestamp, position = codes[rows], table.timestamp[rows], table.position[rows]
    since, named = held.timestamp[codes], held.position[codes]
    after = (timestamp > since) | ((timestamp == since) & (position > named))
    return _Rows(_taken(table, rows[after]), np.maximum(position, named)[after])


def _taken(table: EventTable, rows: Int64Array) -> EventTable:
    if len(rows) == len(table) and bool((rows[1:] > rows[:-1]).all()):
        return table
    columns = {name: column.take(pa.array(rows)) for name, column in table.columns.items()}
    place = None if table.place is None else table.place[rows]
    return replace(
        table,
        offsets=np.array([0, len(rows)]),
        position=table.position[rows],
        version=table.version[rows],
        timestamp=table.timestamp[rows],
        columns=columns,
        place=place,
    )


def _concatenated(tables: Sequence[EventTable]) -> EventTable:
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


# -- one order


@dataclass(frozen=True, slots=True)
class _Merged:
    """Own and routed events in one order, as the tables of one aggregate.

    Attributes
    ----------
    timestamp, needs : int64 array, shape (events,)
        Of the event at each place.
    own : int64 array, shape (head,)
        The place of the aggregate's own event of each version, from 1.
    tables : mapping of str to EventTable
        By event type; `EventTable.place` says where a row stands.
    """

    timestamp: Int64Array
    needs: Int64Array
    own: Int64Array
    tables: Mapping[str, EventTable]

    def places(self, bounds: _Bounds) -> tuple[Int64Array, Int64Array]:
        """How far each moment reaches: the tables it is folded from, and one past its last place.

        Most logs are written in the order of event times, so that what was recorded by a position is a beginning of the
        order: then all moments are legs of one fold, of the tables `_WHOLE`. Where it is not, moments of one position
        have tables to themselves, named by it.
        """
        before = np.concatenate([[0], self.own + 1])
        bounded = bounds.version != _UNBOUND
        place = np.searchsorted(self.timestamp, bounds.time, side="right")
        of_version = before[np.where(bounded, bounds.version, 0)]
        place = np.where(bounded, np.minimum(place, of_version), place).astype(np.int64)
        group = np.full(len(place), _WHOLE)
        if len(self.needs) and bool((bounds.stop <= self.needs.max()).any()):
            beginning = np.searchsorted(np.maximum.accumulate(self.needs), bounds.stop)
            scattered = beginning != np.searchsorted(np.sort(self.needs), bounds.stop)
            group = np.where(scattered, bounds.stop, _WHOLE)
            place = np.where(scattered, place, np.minimum(place, beginning))
        return group, place

    def tables_of(self, group: int) -> Mapping[str, EventTable]:
        """Tables of a group that `places` gave."""
        if group == _WHOLE:
            return self.tables
        return {
            name: _taken(table, np.flatnonzero(self.needs[table.merged_by] < group))
            for name, table in self.tables.items()
        }


def _legs(tables: Mapping[str, EventTable], stops: Int64Array) -> Legs:
    """A leg to each of the ascending places."""
    bounds = {name: np.searchsorted(table.merged_by, stops).astype(np.int64) for name, table in tables.items()}
    return Legs(np.array([0, len(stops)]), dict.fromkeys(tables, np.zeros(1, np.int64)), bounds)


def _merge(log: _Log, bounds: _Bounds) -> _Merged:
    """Everything that the moments may include, in order."""
    reducer, past = log.reducer, log.past
    routed = _routed(log, _latest(past, bounds), min(log.stop, int(bounds.stop.max(initial=0))))
    rows = [piece for pieces in routed.values() for piece in pieces]
    timestamp = np.concatenate([past.timestamp, *(piece.table.timestamp for piece in rows)])
    position = np.concatenate([past.position, *(piece.table.position for piece in rows)])
    needs = np.concatenate([past.position, *(piece.needs for piece in rows)])
    order = np.lexsort((position, timestamp))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    own = place[: past.head]
    tables = {}
    for name in reducer.handlers:
        pieces = [frame.tables[name] for frame in past.frames if len(frame.tables.get(name, ()))]
        table = _concatenated(pieces) if pieces else empty_table(reducer, name, 1)
        tables[name] = replace(table, place=own[table.version - 1])
    done = past.head
    for name, found in routed.items():
        table = _concatenated([piece.table for piece in found]) if found else empty_table(reducer.with_routed, name, 1)
        stands = place[done : done + len(table)]
        done += len(table)
        table = replace(table, place=stands)
        tables[name] = _taken(table, np.argsort(stands, kind="stable"))
    return _Merged(timestamp[order], needs[order], own, tables)


def _emit(
    reducer: Reducer, aggregate: str, merged: _Merged, bounds: _Bounds, *, tables: bool, interpret: bool | None
) -> pl.DataFrame:
    """What the state is at each moment."""
    group, place = merged.places(bounds)
    pieces: list[pa.RecordBatch] = []
    row, done = np.empty(len(place), np.int64), 0
    for number in np.unique(group).tolist():
        members = np.flatnonzero(group == number)
        stops, inverse = np.unique(place[members], return_inverse=True)
        row[members] = done + inverse
        done += len(stops)
        table = merged.tables_of(number)
        initial = reducer.layout.initial(1)
        legs = _legs(table, stops)
        _, found = fold_legs(reducer, aggregate, initial, table, legs, tables=tables, interpret=interpret)
        pieces += found
    return pl.DataFrame(pl.from_arrow(joined(reducer, pieces, tables=tables)))[row]
