"""Own events and routed ones as one stream, ordered by (timestamp, position), a bounded piece at a time.

Each aggregate's events ascend already, so they are runs to be merged. Event times that cut the stream into pieces of
about equal length are found first, from a sample of each run; then a piece is the same stretch of time of every run.
Nothing but the order of its rows is made for a fold: columns stay as they were decoded, or are copied run by run.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from eventlab.events.clock import MAX_NS, MIN_NS
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.native import order_kernels
from eventlab.fold.native.function import Function
from eventlab.fold.stops import Stops, empty_table, entries, kind_bits, rows_until
from eventlab.store.api import UNBOUND, Head
from eventlab.timetravel.marks.routing import RoutedLog, RoutedRun
from eventlab.timetravel.moments import Bounds
from eventlab.timetravel.stream import OwnEvents, Piece, concatenated

PIECE_EVENTS = 262_144
"""Events of a piece, about: what is made for one stays near the processor, and folding one takes longer than a call."""
_SAMPLE_STEPS = 16, 2_048
"""Rows of a run from one sampled time to the next, at least and at most."""

_merge_runs = Function(order_kernels.merge_runs)


@dataclass(frozen=True, slots=True)
class MergedPiece(Piece):
    """Successive events of a merged stream.

    Attributes
    ----------
    order : int64 array, shape (events,)
        As in `Stops.order`.
    times : int64 array, shape (events,)
        Event times in that order.
    own : int64 array
        Which of the events are the aggregate's own, ascending.
    needs : int64 array, shape (events,), optional
        `RoutedRun.needs` in that order, where moments are bound by a position.
    """

    order: Int64Array
    times: Int64Array
    own: Int64Array
    needs: Int64Array | None = None

    @property
    def count(self) -> int:
        return len(self.times)

    @property
    def last_time(self) -> int:
        return int(self.times[-1])

    @property
    def goes_back(self) -> bool:
        return False

    def handled(self, names: Collection[str]) -> Int64Array:
        return self.own[Piece.handled(self, names) - 1] + 1

    def places(self, bounds: Bounds) -> Int64Array:
        places = rows_until(self.times, bounds.time)
        if (bounds.version != UNBOUND).any():
            after_own = np.concatenate([[0], self.own + 1, [self.count]])
            number = np.clip(bounds.version - self.before.version, 0, len(after_own) - 1)
            places = np.minimum(places, after_own[number])
        if self.needs is not None:  # how many of the first events were all recorded below each position
            places = np.minimum(places, np.searchsorted(np.maximum.accumulate(self.needs), bounds.stop))
        return places

    def versions(self, places: Int64Array) -> Int64Array:
        return self.before.version + np.searchsorted(self.own, places)

    def stops(self, places: Int64Array, *, onward: bool) -> Stops:
        return Stops.merged(self.order, np.append(places, self.count) if onward else places)


@dataclass(frozen=True)
class MergedStream:
    """Own and routed events of an aggregate in one order.

    Attributes
    ----------
    reducer : Reducer
        With its routed handlers.
    runs : sequence of RoutedRun
        Types in the order of the handlers.
    bounded : bool
        Whether moments are bound by a position, within the stream.
    """

    reducer: Reducer
    head: Head
    own: OwnEvents
    runs: Sequence[RoutedRun]
    bounded: bool = False

    @staticmethod
    def of(log: RoutedLog, bounds: Bounds) -> MergedStream:
        """All events that any of the moments may include, and all own ones."""
        until, stop = _latest(log.own, bounds), min(log.stop, int(bounds.stop.max(initial=0)))
        kinds = list(log.reducer.with_routed.handlers)
        runs = sorted(log.runs(until, stop), key=lambda run: kinds.index(run.name))
        return MergedStream(log.reducer.with_routed, log.head, log.own, runs)

    @property
    def last_time(self) -> int:
        """The latest event time."""
        return max([int(self.own.timestamp[-1]), *(int(run.timestamp[-1]) for run in self.runs)])

    def parted(self, bounds: Bounds) -> Iterator[tuple[MergedStream, Int64Array]]:
        """The streams that the moments lie in, with the numbers of those in each.

        Most logs are written in the order of event times, so that what was recorded by a position is a beginning of the
        order. Where it is not, moments of one position have a stream of their own.
        """
        if not (bounds.stop != UNBOUND).any() or not (bounds.stop <= self._needs.max()).any():
            yield self, np.arange(len(bounds))
            return
        stream = replace(self, bounded=True)
        beginnings = stream.whole.places(replace(Bounds.of_times(np.full(len(bounds), MAX_NS)), stop=bounds.stop))
        scattered = beginnings != np.searchsorted(np.sort(self._needs), bounds.stop)
        yield stream, np.flatnonzero(~scattered)
        for position in np.unique(bounds.stop[scattered]).tolist():
            own = self.own.until(int(np.searchsorted(self.own.position, position)))
            runs = [below for run in self.runs if len(below := run.below(position))]
            yield replace(self, own=own, runs=runs), np.flatnonzero(scattered & (bounds.stop == position))

    def pieces(self) -> Iterator[Piece]:
        """The stream, a piece at a time, each to be folded before the next is asked for: they share memory."""
        if self.bounded:
            yield self.whole
            return
        cuts, space, before = self._cuts(), _Space(), self._before
        for number in range(1, cuts.shape[1]):
            first, end = cuts[:, number - 1], cuts[:, number]
            piece = self._piece(first, end, before, space, last=number == cuts.shape[1] - 1)
            before = piece.end
            yield piece

    @cached_property
    def whole(self) -> MergedPiece:
        """The stream as one piece that says when each event was recorded."""
        ends, space = np.array([self.own.head, *map(len, self.runs)], np.int64), _Space()
        piece = self._piece(np.zeros_like(ends), ends, self._before, space, last=True)
        needs: Int64Array = self._needs[space.rows()]
        return replace(piece, needs=needs)

    @property
    def _before(self) -> Head:
        return Head(self.head.aggregate_id, 0, 0, 0)

    @cached_property
    def _needs(self) -> Int64Array:
        return np.concatenate([self.own.position, *(run.needs for run in self.runs)])

    @cached_property
    def _own_tables(self) -> Mapping[str, EventTable]:
        """The own events by type, of those that are handled."""
        tables = {}
        for name in self.reducer.handlers:
            if name not in self.reducer.routed:
                pieces = [frame.tables[name] for frame in self.own.frames if len(frame.tables.get(name, ()))]
                tables[name] = concatenated(pieces) if pieces else empty_table(self.reducer, name, 1)
        return tables

    @cached_property
    def _own_entries(self) -> Int64Array:
        """Entries of the own events by version."""
        kinds = len(self.reducer.handlers)
        found = np.full(self.own.head, kinds)
        for kind, table in enumerate(self._own_tables.values()):
            found[table.version - 1] = entries(np.arange(len(table)), kind, kinds)
        return found

    def _cuts(self) -> Int64Array:
        """Where pieces begin and end in the own events and in each run, shape (1 + runs, pieces + 1).

        A sample has each n-th time of every run, which stands for n events.
        """
        times = [self.own.timestamp, *(run.timestamp for run in self.runs)]
        step = int(np.clip(PIECE_EVENTS // (2 * len(times)), *_SAMPLE_STEPS))
        sample = np.sort(np.concatenate([one[step - 1 :: step] for one in times]))
        events = max(PIECE_EVENTS // step, 1)
        cuts = np.unique(sample[events - 1 :: events])
        cuts = cuts[cuts < self.last_time]  # so that every piece has an event
        inner = [np.searchsorted(one, cuts, side="right") for one in times]
        return np.array([[0, *rows, len(one)] for rows, one in zip(inner, times, strict=True)], np.int64)

    def _piece(self, first: Int64Array, end: Int64Array, before: Head, space: _Space, *, last: bool) -> MergedPiece:
        """The own events and those of each run from `first` up to `end`."""
        low, high = int(first[0]), int(end[0])
        kinds, bits = len(self.reducer.handlers), kind_bits(len(self.reducer.handlers))
        tables: dict[str, EventTable] = {}
        shift = np.zeros(kinds + 1, np.int64)
        for kind, (name, table) in enumerate(self._own_tables.items()):
            begin, stop = np.searchsorted(table.version, (low, high), side="right").tolist()
            tables[name], shift[kind] = table.part(begin, stop, np.array([0, stop - begin])), begin << bits
        own = self._own_entries[low:high]
        chosen: dict[str, list[EventTable]] = {name: [] for name in self.reducer.routed}
        for number in np.flatnonzero(end[1:] > first[1:]).tolist():
            run, rows = self.runs[number], end[number + 1] - first[number + 1]
            begin = run.low + int(first[number + 1])
            chosen[run.name].append(run.table.part(begin, begin + int(rows), np.array([0, rows])))
        columns = self.own.timestamp[low:high], self.own.position[low:high], own - shift[own & ((1 << bits) - 1)]
        space.gather(columns, [table for several in chosen.values() for table in several])
        done = high - low
        for kind, (name, several) in enumerate(chosen.items(), len(tables)):
            rows = sum(map(len, several))
            tables[name] = self._routed_table(name, several, space, done, done + rows)
            space.number(done, done + rows, kind, kinds)
            done += rows
        times, order, places = space.merged(high - low)
        return MergedPiece(tables, before, columns[1], columns[0], last, order, times, places)

    def _routed_table(self, name: str, several: Sequence[EventTable], space: _Space, low: int, high: int) -> EventTable:
        """Tables of one type as one, whose envelope was gathered as ``low:high``."""
        if not several:
            return empty_table(self.reducer, name, 1)
        wanted = self.reducer.columns[name]
        columns = {column: pa.concat_arrays([table.columns[column] for table in several]) for column in wanted}
        position, version, timestamp = (space.column(one, low, high) for one in ("position", "version", "timestamp"))
        return EventTable(several[0].type, np.array([0, high - low]), position, version, timestamp, columns)


class _Space:
    """Memory that pieces of a stream are merged in, one after the other: new memory costs as much as the merging."""

    _WIDE = ("timestamp", "position", "version", "entries", "times", "spare_times", "merged", "order")

    def __init__(self) -> None:
        self._numbers = np.empty(0, np.int64)
        self._memory: dict[str, Int64Array] = {}
        self._rows, self._spare_rows = (np.empty(0, np.int32) for _ in range(2))
        self._ends: list[int] = []

    def gather(self, own: tuple[Int64Array, Int64Array, Int64Array], routed: Sequence[EventTable]) -> None:
        """Timestamps, positions and entries of own events, and after them the envelope of tables, each of one run."""
        self._ends = list(itertools.accumulate([len(own[0]), *map(len, routed)]))
        count = self._ends[-1]
        if count > len(self._numbers):
            self._numbers = np.arange(count)
            self._memory = {name: np.empty(count, np.int64) for name in self._WIDE}
            self._rows, self._spare_rows = (np.empty(count, np.int32) for _ in range(2))
        for name, column in zip(("timestamp", "position", "version"), (*own[:2], own[0]), strict=True):
            np.concatenate([column, *(getattr(table, name) for table in routed)], out=self._memory[name][:count])
        self._memory["entries"][: len(own[2])] = own[2]

    def column(self, name: str, low: int, high: int) -> Int64Array:
        """What was gathered of an envelope column."""
        return self._memory[name][low:high]

    def number(self, low: int, high: int, kind: int, kinds: int) -> None:
        """Make the rows ``low:high`` the entries of an event type, from its first row on."""
        entries(self._numbers[: high - low], kind, kinds, out=self._memory["entries"][low:high])

    def merged(self, own: int) -> tuple[Int64Array, Int64Array, Int64Array]:
        """The event times in order, the entries in that order, and the places of the first `own` rows."""
        return self._merge(self._memory["entries"], self._memory["order"], np.empty(own, np.int64))

    def rows(self) -> Int64Array:
        """The rows in order, numbered as they were gathered."""
        return self._merge(self._numbers, np.empty(self._ends[-1], np.int64), np.empty(0, np.int64))[1]

    def _merge(
        self, entry: Int64Array, order: Int64Array, own: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        count = self._ends[-1]
        timestamp, position, times, spare, merged = (
            self._memory[name][:count] for name in ("timestamp", "position", "times", "spare_times", "merged")
        )
        rows, spare_rows, order = self._rows[:count], self._spare_rows[:count], order[:count]
        bounds = np.unique([0, *self._ends])
        _merge_runs(timestamp, position, entry[:count], bounds, times, rows, spare, spare_rows, merged, order, own)
        return merged, order, own


def _latest(own: OwnEvents, bounds: Bounds) -> int:
    """The latest event time that any of the moments includes."""
    of_version = np.concatenate([[MIN_NS], own.timestamp])
    bounded = bounds.version != UNBOUND
    time = of_version[np.where(bounded, bounds.version, 0)]
    return int(np.where(bounded, np.minimum(time, bounds.time), bounds.time).max(initial=MIN_NS))
