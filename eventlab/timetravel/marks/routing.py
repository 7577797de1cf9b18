"""Own events, and those that a reducer has routed to an aggregate by a key, in one order.

Events of all aggregates have one order, (timestamp, position). A routed event is included where an own event before it
in that order named its key, so that what an aggregate comes to hold later never reaches back.

Routed events that are back-dated stand where they happened. Own ones cannot: they are folded in version order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import AsOfError, InvalidEvent, ReducerError, UnknownAggregate
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.stops import ascends, empty_table
from eventlab.store.api import UNBOUND, EventReader, Head, Selection
from eventlab.store.names import aggregates_named
from eventlab.timetravel.moments import Bounds
from eventlab.timetravel.own_events import Past, concatenated
from eventlab.timetravel.reconstruct import heads_of

MarkWith: TypeAlias = "str | Sequence[str]"
"""An aggregate id, a pattern in which ``*`` stands for any run of characters, or a list of these."""


@dataclass(frozen=True, slots=True)
class Log:
    """The log up to where it ended when the question was asked: an aggregate's own events, and where others are.

    Others may append in between; own and routed events must be of one moment.
    """

    store: EventReader
    reducer: Reducer
    others: Sequence[str]
    stop: int
    head: Head
    past: Past

    @staticmethod
    def of(store: EventReader, reducer: Reducer, aggregate: str, mark_with: MarkWith) -> Log:
        if not reducer.routed:
            raise ReducerError(
                f"{reducer.name} has no handler of routed events, so there is nothing to mark with",
                got=mark_with,
                hint='Give it one: @el.on(el.MarketData, routed="symbol"), or leave out mark_with.',
            )
        (head,) = heads_of(store, [aggregate])
        stop = store.stop_position
        columns = {name: {*read, *_keys(reducer, name)} for name, read in reducer.columns.items()}
        past = Past.read(store, reducer, aggregate, columns, stop)
        others = [name for name in _named(store, mark_with) if name != aggregate]
        return Log(store, reducer, others, stop, head, past)

    def known(self, bounds: Bounds) -> Log:
        """The log without own events that none of the moments can include, where back-dated ones are among those.

        Raises
        ------
        AsOfError
            There are some among the others: own events are folded in version order, which is then not the one order.
        """
        past = self.past
        if ascends(past.timestamp):
            return self
        below = np.searchsorted(past.position, bounds.stop)
        version = int(np.where(bounds.version == UNBOUND, below, bounds.version).max(initial=1))
        if not ascends(past.timestamp[:version]):
            raise AsOfError(
                f"{self.head.aggregate_id!r} has back-dated events, which cannot be merged with others by event time",
                hint="Leave out mark_with, or ask for what was known before them: el.AsOf(known_at=...).",
            )
        return replace(self, past=past.until(version))


def _named(store: EventReader, mark_with: MarkWith) -> list[str]:
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

    def codes(self, column: pa.DictionaryArray) -> Int64Array:
        """The place of each row's key among the names; -1 where it is none of them."""
        lookup = pc.index_in(column.dictionary, value_set=self.names).fill_null(-1).to_numpy()
        lookup = np.append(lookup, -1).astype(np.int64)
        indices = column.indices.fill_null(len(lookup) - 1) if column.indices.null_count else column.indices
        codes: Int64Array = lookup[indices.to_numpy()]
        return codes


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events of one type in the one order, and the lowest position below which each is included.

    That is the event's own, or a later one's that named its key: an event recorded first may have happened later.
    """

    table: EventTable
    needs: Int64Array


def _routed(log: Log, until: int, stop: int) -> dict[str, list[_Rows]]:
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


def _chosen(table: EventTable, held: _Held, codes: Int64Array, until: int) -> _Rows:
    """The rows whose key was named before them, and not after a time."""
    rows = np.flatnonzero((codes >= 0) & (table.timestamp <= until))
    codes, timestamp, position = codes[rows], table.timestamp[rows], table.position[rows]
    since, named = held.timestamp[codes], held.position[codes]
    after = (timestamp > since) | ((timestamp == since) & (position > named))
    return _Rows(_taken(table, rows[after]), np.maximum(position, named)[after])


def _taken(table: EventTable, rows: Int64Array) -> EventTable:
    if len(rows) == len(table) and bool((rows[1:] > rows[:-1]).all()):
        return table
    return table.take(rows, np.array([0, len(rows)]))


@dataclass(frozen=True, slots=True)
class Merged:
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

    def below(self, stop: int) -> Mapping[str, EventTable]:
        """The tables with what is included below a position only."""
        return {
            name: _taken(table, np.flatnonzero(self.needs[table.merged_by] < stop))
            for name, table in self.tables.items()
        }


def merge(log: Log, until: int, stop: int) -> Merged:
    """The events up to the time `until` and below the position `stop`, and all own ones, in order."""
    reducer, past = log.reducer, log.past
    routed = _routed(log, until, min(log.stop, stop))
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
        table = concatenated(pieces) if pieces else empty_table(reducer, name, 1)
        tables[name] = replace(table, place=own[table.version - 1])
    done = past.head
    for name, found in routed.items():
        table = concatenated([piece.table for piece in found]) if found else empty_table(reducer.with_routed, name, 1)
        stands = place[done : done + len(table)]
        done += len(table)
        table = replace(table, place=stands)
        tables[name] = _taken(table, np.argsort(stands, kind="stable"))
    return Merged(timestamp[order], needs[order], own, tables)
