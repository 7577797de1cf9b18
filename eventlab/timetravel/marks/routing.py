"""Which events of other aggregates a reducer hears: those whose key an own event named before.

Events of all aggregates have one order, (timestamp, position). A routed event is included where an own event before it
in that order named its key, so that what an aggregate comes to hold later never reaches back.

Routed events that are back-dated stand where they happened. Own ones cannot: they are folded in version order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import AsOfError, InvalidEvent, ReducerError, UnknownAggregate
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.stops import ascends
from eventlab.store.api import UNBOUND, EventReader, Head, Selection
from eventlab.store.names import aggregates_named
from eventlab.timetravel.moments import Bounds, heads_of
from eventlab.timetravel.stream import OwnEvents

MarkWith: TypeAlias = "str | Sequence[str]"
"""An aggregate id, a pattern in which ``*`` stands for any run of characters, or a list of these."""


@dataclass(frozen=True, slots=True)
class RoutedLog:
    """The log as it was when the question came: an aggregate's own events, and where those routed to it are.

    Others may append in between; own and routed events must be of one moment.
    """

    store: EventReader
    reducer: Reducer
    others: Sequence[str]
    stop: int
    head: Head
    own: OwnEvents

    @staticmethod
    def of(store: EventReader, reducer: Reducer, aggregate: str, mark_with: MarkWith) -> RoutedLog:
        if not reducer.routed:
            raise ReducerError(
                f"{reducer.name} has no handler of routed events, so there is nothing to mark with",
                got=mark_with,
                hint='Give it one: @el.on(el.MarketData, routed="symbol"), or leave out mark_with.',
            )
        (head,) = heads_of(store, [aggregate])
        stop = store.stop_position
        columns = {name: {*read, *_keys(reducer, name)} for name, read in reducer.columns.items()}
        own = OwnEvents.read(store, reducer, aggregate, columns, stop)
        others = [name for name in _named(store, mark_with) if name != aggregate]
        return RoutedLog(store, reducer, others, stop, head, own)

    def known(self, bounds: Bounds) -> tuple[RoutedLog, Bounds]:
        """The log without own events that no moment can include, if back-dated ones are among those; and the bounds.

        A version that was recorded too late for a moment bounds it by that event's time: nothing else of that time is
        recorded later and included.

        Raises
        ------
        AsOfError
            A moment may include a back-dated own event: own events are folded in version order, which is then not the
            order of event times.
        """
        own, log = self.own, self
        if not ascends(own.timestamp):
            below = np.searchsorted(own.position, bounds.stop)
            version = int(np.where(bounds.version == UNBOUND, below, bounds.version).max(initial=1))
            if not ascends(own.timestamp[:version]):
                name = self.head.aggregate_id
                raise AsOfError(
                    f"{name!r} has back-dated events, which cannot be merged with others by event time",
                    hint="Leave out mark_with, or ask for what was known before them: el.AsOf(known_at=...).",
                )
            log = replace(self, own=own.until(version))
        row = np.where(bounds.version == UNBOUND, 1, np.maximum(bounds.version, 1)) - 1
        late = (bounds.version != UNBOUND) & (bounds.version > 0) & (own.position[row] >= bounds.stop)
        time = np.where(late, np.minimum(bounds.time, own.timestamp[row]), bounds.time)
        return log, Bounds(np.where(late, UNBOUND, bounds.version), time, bounds.stop)

    def runs(self, until: int, stop: int) -> Iterator[RoutedRun]:
        """The routed events up to the time `until` and below the position `stop`."""
        reducer, with_routed = self.reducer, self.reducer.with_routed
        named = {key: _NamedKeys.of(self.own, reducer, key) for key in {one.key for one in reducer.routed.values()}}
        since = min((int(keys.timestamp.min()) for keys in named.values() if len(keys.names)), default=MAX_NS)
        if not self.others or until < since:
            return
        selection = Selection(
            {name: {*with_routed.columns[name], one.key} for name, one in reducer.routed.items()},
            aggregates=self.others, stop_position=stop, until_time=None if until == MAX_NS else until, since_time=since,
            types={name: one.type for name, one in reducer.routed.items()},
        )  # fmt: skip
        for frame in self.store.frames(selection):
            for name, table in frame.tables.items():
                yield from _runs(name, table, reducer.routed[name].key, named[reducer.routed[name].key], until)


def _named(store: EventReader, mark_with: MarkWith) -> list[str]:
    patterns = [mark_with] if isinstance(mark_with, str) else mark_with
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise InvalidEvent("mark_with names aggregates", got=mark_with, expected="an id, a pattern, or a list of these")
    found: dict[str, None] = {}
    for one in patterns:
        named = aggregates_named(store, one)
        found.update(dict.fromkeys(store.aggregate_ids() if named is None else named))
        if named == []:
            raise UnknownAggregate(
                "mark_with matches no aggregate", got=one, hint="lab.store.aggregate_ids() lists them."
            )
    if not patterns:
        raise UnknownAggregate("mark_with names no aggregate", got=mark_with, hint='E.g. mark_with="market/*".')
    return list(found)


def _keys(reducer: Reducer, name: str) -> list[str]:
    """Fields of an own event type that name what the aggregate holds."""
    keys = dict.fromkeys(one.key for one in reducer.routed.values())
    return [field.name for field in reducer.event_types[name] if field.name in keys and field.is_text]


@dataclass(frozen=True, slots=True)
class _NamedKeys:
    """Keys that an aggregate's own events name, with the timestamp and position of the first event to do so."""

    names: pa.Array
    timestamp: Int64Array
    position: Int64Array

    @staticmethod
    def of(own: OwnEvents, reducer: Reducer, key: str) -> _NamedKeys:
        first: dict[str, tuple[int, int]] = {}
        for frame in own.frames:
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
        return _NamedKeys(
            pa.array(list(first), pa.string()),
            np.array([timestamp for timestamp, _ in first.values()], np.int64),
            np.array([position for _, position in first.values()], np.int64),
        )

    def numbers(self, column: pa.DictionaryArray) -> tuple[Int64Array, Int64Array]:
        """Each row's code, and for each code the place of its text among the names; -1 where it is none of them."""
        places = pc.index_in(column.dictionary, value_set=self.names).fill_null(-1).to_numpy()
        places = np.append(places, -1).astype(np.int64)
        codes = column.indices.fill_null(len(places) - 1) if column.indices.null_count else column.indices
        return codes.to_numpy(), places


@dataclass(frozen=True, slots=True)
class RoutedRun:
    """Routed events of one type and aggregate that ascend by (timestamp, position): rows ``low:high`` of a table.

    Attributes
    ----------
    named : int64 array, shape (1,) or (high - low,)
        Position of the own event that named the key: of all rows, or of each.
    """

    name: str
    table: EventTable
    low: int
    high: int
    named: Int64Array

    def __len__(self) -> int:
        return self.high - self.low

    @property
    def timestamp(self) -> Int64Array:
        return self.table.timestamp[self.low : self.high]

    @property
    def needs(self) -> Int64Array:
        """The lowest position below which each event is not included yet.

        That is its own, or a later one that named its key: an event recorded first may have happened later.
        """
        return np.maximum(self.table.position[self.low : self.high], self.named)

    def below(self, stop: int) -> RoutedRun:
        """The events that are included below a position."""
        return _taken(self.name, self.table, self.low + np.flatnonzero(self.needs < stop), self.named)


def _taken(name: str, table: EventTable, rows: Int64Array, named: Int64Array) -> RoutedRun:
    """Some rows of a table in this order, with the positions that named their keys."""
    return RoutedRun(name, table.take(rows, np.array([0, len(rows)])), 0, len(rows), named)


def _runs(name: str, table: EventTable, key: str, named: _NamedKeys, until: int) -> Iterator[RoutedRun]:
    """The rows of a table that are included, and not after a time.

    Mostly all rows of an aggregate have one key and ascend: then they are included from some row on, found by search.
    """
    codes, places = named.numbers(table.columns[key])
    for low, high in zip(table.offsets[:-1].tolist(), table.offsets[1:].tolist(), strict=True):
        if low == high:
            continue
        timestamp, own_codes = table.timestamp[low:high], codes[low:high]
        if not ascends(timestamp) or (own_codes != own_codes[0]).any():
            yield from _chosen(name, table, low, places[own_codes], named, until)
            continue
        place = int(places[own_codes[0]])
        if place < 0:
            continue
        since, position = int(named.timestamp[place]), named.position[place : place + 1]
        first, after = (low + np.searchsorted(timestamp, since, side=side) for side in ("left", "right"))
        first += np.searchsorted(table.position[first:after], position[0], side="right")
        end = low + np.searchsorted(timestamp, until, side="right")
        if first < end:
            yield RoutedRun(name, table, int(first), int(end), position)


def _chosen(
    name: str, table: EventTable, low: int, places: Int64Array, named: _NamedKeys, until: int
) -> Iterator[RoutedRun]:
    """The rows from `low` on that are included, of an aggregate with several keys or with back-dated events."""
    high = low + len(places)
    chosen = np.flatnonzero((places >= 0) & (table.timestamp[low:high] <= until))
    places, rows = places[chosen], low + chosen
    timestamp, position = table.timestamp[rows], table.position[rows]
    since, naming = named.timestamp[places], named.position[places]
    after = (timestamp > since) | ((timestamp == since) & (position > naming))
    rows, naming = rows[after], naming[after]
    if len(rows):
        order = np.lexsort((table.position[rows], table.timestamp[rows]))
        yield _taken(name, table, rows[order], naming[order])
