"""Own events and routed ones as one stream, ordered by (timestamp, position), a bounded piece at a time.

Each aggregate's events ascend already, so they are runs to be merged. Event times that cut the stream into pieces of
about equal length are found first, from a sample of each run; then a piece is the same stretch of time of every run.
Nothing but the order of its rows is made for a fold: columns stay as they were decoded, or are copied run by run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
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
from eventlab.timetravel.stream import OwnEvents, StreamPiece, concatenated

PIECE_WINDOWS, WINDOW_EVENTS = 8, 32_768
"""Windows of time that a piece has, and about how many events a window has: so many are merged within the processor's
cache, and folding a piece takes longer than what each fold begins and ends with."""
_FEW = 4_096
"""Fewer events are sorted: that takes less time than a new process takes to load the kernel."""
_SAMPLE_STEPS = 16, 2_048
"""Rows of a run from one sampled time to the next, at least and at most."""

_merge_runs = Function(order_kernels.merge_runs)


@dataclass(frozen=True, slots=True)
class MergedPiece(StreamPiece):
    """Successive events of a merged stream.

    Attributes
    ----------
    order : int64 array, shape (events,)
        As in `Stops.order`.
    times : int64 array, shape (events,)
        Event times in that order.
    own : int64 array
        Which of the events are the aggregate's own, ascending.
    needs : int64 array, shape (events,) or (0,)
        `RoutedRun.needs` in that order, where the stream is bounded.
    """

    order: Int64Array
    times: Int64Array
    own: Int64Array
    needs: Int64Array

    @property
    def count(self) -> int:
        return len(self.times)

    @property
    def last_time(self) -> int:
        return int(self.times[-1])

    def handled(self, names: Collection[str]) -> Int64Array:
        return self.own[StreamPiece.handled(self, names) - 1] + 1

    def places(self, bounds: Bounds) -> Int64Array:
        places = rows_until(self.times, bounds.time)
        if (bounds.version != UNBOUND).any():
            after_own = np.concatenate([[0], self.own + 1, [self.count]])
            number = np.clip(bounds.version - self.before.version, 0, len(after_own) - 1)
            places = np.minimum(places, after_own[number])
        if len(self.needs):  # how many of the first events were all recorded below each position
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
        bounded = bounds.version != UNBOUND
        of_version = np.concatenate([[MIN_NS], log.own.timestamp])[np.where(bounded, bounds.version, 0)]
        time = np.where(bounded, np.minimum(of_version, bounds.time), bounds.time)
        until, stop = int(time.max(initial=MIN_NS)), min(log.stop, int(bounds.stop.max(initial=0)))
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
        stream, latest = replace(self, bounded=True), np.full(len(bounds), MAX_NS)
        (piece,) = stream.pieces()
        beginnings = piece.places(Bounds(np.full(len(bounds), UNBOUND), latest, bounds.stop))
        scattered = beginnings != np.searchsorted(np.sort(self._needs), bounds.stop)
        yield stream, np.flatnonzero(~scattered)
        for position in np.unique(bounds.stop[scattered]).tolist():
            own = self.own.until(int(np.searchsorted(self.own.position, position)))
            runs = [below for run in self.runs if len(below := run.below(position))]
            yield replace(self, own=own, runs=runs), np.flatnonzero(scattered & (bounds.stop == position))

    def pieces(self) -> Iterator[StreamPiece]:
        """The stream, a piece at a time, each to be folded before the next is asked for: they share memory."""
        cuts, space, before = self._cuts(), _Space(), Head(self.head.aggregate_id, 0, 0, 0)
        for window in range(0, len(cuts) - 1, PIECE_WINDOWS):
            last = window + PIECE_WINDOWS >= len(cuts) - 1
            piece = self._piece(cuts[window : window + PIECE_WINDOWS + 1], before, space, last=last)
            before = piece.end
            yield piece

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
        """Where windows of time begin and end in the own events and in each run, shape (windows + 1, 1 + runs).

        A sample has each n-th time of every run, which stands for n events. A bounded stream is one window.
        """
        times = [self.own.timestamp, *(run.timestamp for run in self.runs)]
        if self.bounded:
            return np.array([np.zeros(len(times)), [len(one) for one in times]], np.int64)
        step = int(np.clip(WINDOW_EVENTS // (2 * len(times)), *_SAMPLE_STEPS))
        sample = np.sort(np.concatenate([one[step - 1 :: step] for one in times]))
        events = max(WINDOW_EVENTS // step, 1)
        cuts = np.unique(sample[events - 1 :: events])
        cuts = cuts[cuts < self.last_time]  # so that every window has an event
        inner = [np.searchsorted(one, cuts, side="right") for one in times]
        return np.array([[0, *rows, len(one)] for rows, one in zip(inner, times, strict=True)], np.int64).T

    def _piece(self, cuts: Int64Array, before: Head, space: _Space, *, last: bool) -> MergedPiece:
        """The events of successive windows, each from one row of `cuts` up to the next."""
        first, end = cuts[0], cuts[-1]
        low, high = int(first[0]), int(end[0])
        own = StreamPiece({}, before, self.own.position[low:high], self.own.timestamp[low:high], last)
        tables, own_entries = self._own_part(low, high)
        parts: dict[str, list[EventTable]] = {name: [] for name in self.reducer.routed}
        has = np.flatnonzero(end > first)
        for number in has[has > 0].tolist():
            run, rows = self.runs[number - 1], int(end[number] - first[number])
            begin = run.low + int(first[number])
            parts[run.name].append(run.table.part(begin, begin + rows, np.array([0, rows])))
        routed = [table for several in parts.values() for table in several]
        sizes = (end - first)[has]
        count, windows = int(sizes.sum()), cuts[:, has] - first[has] + (np.cumsum(sizes) - sizes)
        numbers, timestamp, position, version, entry, merged, order, *work = space.of(count)
        np.concatenate([own.timestamp, *(table.timestamp for table in routed)], out=timestamp)
        np.concatenate([own.position, *(table.position for table in routed)], out=position)
        np.concatenate([own.position, *(table.version for table in routed)], out=version)
        entry[: own.count], begin = own_entries, own.count
        for kind, (name, several) in enumerate(parts.items(), len(tables)):
            stop = begin + sum(map(len, several))
            envelope = position[begin:stop], version[begin:stop], timestamp[begin:stop]
            tables[name] = self._routed_table(name, several, envelope)
            entries(numbers[: stop - begin], kind, len(self.reducer.handlers), out=entry[begin:stop])
            begin = stop
        places, needs = np.empty(own.count, np.int64), np.empty(count if self.bounded else 0, np.int64)
        if count < _FEW:
            by_time = np.lexsort((position, timestamp))
            merged[:], order[:], places = timestamp[by_time], entry[by_time], np.flatnonzero(by_time < own.count)
            needs = self._needs[by_time] if self.bounded else needs
        else:
            work = [windows.reshape(-1), np.empty(len(has) + 1, np.int64), *work, merged]
            _merge_runs(timestamp, position, entry, *work, order, places)
            if self.bounded:
                _merge_runs(timestamp, position, self._needs, *work, needs, places)
        return MergedPiece(tables, before, own.position, own.timestamp, last, order, merged, places, needs)

    def _own_part(self, low: int, high: int) -> tuple[dict[str, EventTable], Int64Array]:
        """The tables of the own events after the version `low`, up to `high`, and the entries of all of these."""
        bits = kind_bits(len(self.reducer.handlers))
        tables, shift = {}, np.zeros(len(self.reducer.handlers) + 1, np.int64)
        for kind, (name, table) in enumerate(self._own_tables.items()):
            begin, stop = np.searchsorted(table.version, (low, high), side="right").tolist()
            tables[name], shift[kind] = table.part(begin, stop, np.array([0, stop - begin])), begin << bits
        found = self._own_entries[low:high]
        return tables, found - shift[found & ((1 << bits) - 1)]

    def _routed_table(
        self, name: str, several: Sequence[EventTable], envelope: tuple[Int64Array, Int64Array, Int64Array]
    ) -> EventTable:
        """Tables of one type as one, with its position, version and timestamp."""
        if not several:
            return empty_table(self.reducer, name, 1)
        wanted = self.reducer.columns[name]
        columns = {column: pa.concat_arrays([table.columns[column] for table in several]) for column in wanted}
        return EventTable(several[0].type, np.array([0, len(envelope[0])]), *envelope, columns)


class _Space:
    """Memory that pieces of a stream are merged in, one after the other: new memory costs as much as the merging."""

    def __init__(self) -> None:
        self._wide, self._narrow = np.empty((9, 0), np.int64), np.empty((2, 0), np.int32)

    def of(self, count: int) -> list[npt.NDArray[Any]]:
        """Seven columns of a piece, of which the first has the numbers from 0, and what `merge_runs` works in."""
        if count > self._wide.shape[1]:
            self._wide, self._narrow = np.empty((9, count), np.int64), np.empty((2, count), np.int32)
            self._wide[0] = np.arange(count)
        *columns, times, spare_times = self._wide[:, :count]
        return [*columns, times, self._narrow[0, :count], spare_times, self._narrow[1, :count]]


def warm() -> None:
    """Have the kernel that merges runs compiled and kept."""
    none, narrow, two = np.empty(0, np.int64), np.empty(0, np.int32), np.zeros(2, np.int64)
    _merge_runs(none, none, none, two, two, none, narrow, none, narrow, none, none, none)
