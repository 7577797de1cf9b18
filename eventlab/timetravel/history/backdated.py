"""Histories of aggregates whose event times go back.

The events up to a time T are then a prefix, in which no event is later than T, and back-dated events after it: the
*extras* of the moment. The prefixes of all moments are one fold with stops, the trunk. A moment with extras continues
from its stop with the extras alone, on a branch. Moments with the same prefix mostly add to each other's extras, and
then share a branch, which has a stop for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold
from eventlab.fold.stops import Stops, empty_table
from eventlab.store.api import EventReader, Head, Selection
from eventlab.timetravel.history.fold_to_stops import Emission, Pending, with_envelope
from eventlab.timetravel.moments import Bounds, bars
from eventlab.timetravel.stream import OwnEvents, concatenated, own_pieces

_ROWS_AT_ONCE = 1_000_000
"""Extras are copied for each branch; this many rows of them are in memory at once."""


def reach(store: EventReader, head: Head, version: int, time: int) -> bool:
    """Whether an event after a version has an event time of at most `time`.

    Files are not read if the lowest event times that the store keeps of them exclude it.
    """
    selection = Selection(
        {}, others=True, aggregates=[head.aggregate_id], after_version={head.aggregate_id: version},
        stop_position=head.position + 1, until_time=time,
    )  # fmt: skip
    tables = (table for frame in store.frames(selection) for table in frame.tables.values())
    return any(bool((table.timestamp <= time).any()) for table in tables)


def history(
    store: EventReader,
    reducer: Reducer,
    head: Head,
    label: pl.Series | None,
    bounds: Bounds | None,
    step: int | None,
    *,
    tables: bool,
    interpret: bool | None,
) -> pl.DataFrame:
    """A row for each moment, as :func:`eventlab.timetravel.history.history.history` gives it.

    The moments are those within `bounds`, which `label` names, or the ends of bars of `step` ns.
    """
    own = OwnEvents.read(store, reducer, head.aggregate_id, {}, head.position + 1)
    if step is not None:
        label, times = bars(int(own.timestamp.min()), head.timestamp, step)
        bounds = Bounds.of_times(times)
    plan = _BranchPlan.of(own, bounds or Bounds.of_times(np.empty(0, np.int64)))
    with_tables = tables or (bool(reducer.layout.tables) and len(plan.branches) > 0)
    emission = Emission(reducer, head.aggregate_id, tables=tables, interpret=interpret)
    on_trunk = Emission(reducer, head.aggregate_id, tables=with_tables, interpret=interpret)
    trunk, extras = _trunk(store, on_trunk, head, plan)
    batches = trunk.select(emission.schema.names).to_batches()
    batches += _fold_branches(emission, plan, trunk, extras)
    emitted = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches, schema=emission.schema)))
    last = np.maximum(plan.version - 1, 0)
    return with_envelope(label, plan.version, own.position[last], own.timestamp[last], emitted[plan.row])


@dataclass(frozen=True, slots=True)
class _Branch:
    """Moments that continue from one stop of the trunk, each with the extras of the one before and more.

    Attributes
    ----------
    stop : int
        Number of the stop.
    extras : int64 array
        Versions of the extras of the last moment, ascending.
    counts : int64 array
        How many of them each moment includes, ascending.
    """

    stop: int
    extras: Int64Array
    counts: Int64Array


@dataclass(frozen=True, slots=True)
class _BranchPlan:
    """Which stops and branches emit the states at all moments.

    Attributes
    ----------
    stops : int64 array
        Versions to emit a state at on the trunk, ascending.
    branches : sequence of _Branch
        In the order in which they emit, after the stops.
    row : int64 array, shape (moments,)
        The number of the emitted row of each moment.
    version : int64 array, shape (moments,)
        The last version that a moment includes.
    """

    stops: Int64Array
    branches: Sequence[_Branch]
    row: Int64Array
    version: Int64Array

    @staticmethod
    def of(own: OwnEvents, bounds: Bounds) -> _BranchPlan:
        cap = np.minimum(np.minimum(np.searchsorted(own.position, bounds.stop), bounds.version), own.head)
        highest = np.maximum.accumulate(own.timestamp)
        first = np.minimum(np.searchsorted(highest, bounds.time, side="right"), cap)
        stops, row = np.unique(first, return_inverse=True)
        row, version = row.astype(np.int64), first.copy()
        back = _Backdated.of(own.timestamp, highest)
        # The range of back-dated events that has all after `first`, up to `cap`, and not later than the time.
        low, high = (np.searchsorted(back.version, one, side="right") for one in (first, cap))
        high = np.minimum(high, np.searchsorted(back.lowest, bounds.time, side="right"))
        some = np.flatnonzero(low < high)
        some = some[np.lexsort((bounds.time[some], cap[some], first[some]))]
        ends = (np.diff(first[some]) != 0) | (np.diff(cap[some]) != 0)
        branches: list[_Branch] = []
        count = len(stops)
        for group in np.split(some, np.flatnonzero(ends) + 1) if len(some) else []:
            place = int(row[group[0]])
            for branch, members, numbers in back.branches(
                place, int(low[group[0]]), int(high[group].max()), group, bounds
            ):
                branches.append(branch)
                row[members] = count + numbers
                version[members] = branch.extras[branch.counts[numbers] - 1]
                count += len(branch.counts)
        return _BranchPlan(stops, branches, row, version)


@dataclass(frozen=True, slots=True)
class _Backdated:
    """The events whose time is below an earlier one's, by version, and the lowest time from each of them on."""

    version: Int64Array
    timestamp: Int64Array
    lowest: Int64Array

    @staticmethod
    def of(timestamp: Int64Array, highest: Int64Array) -> _Backdated:
        rows = np.flatnonzero(timestamp < highest)
        times = timestamp[rows]
        return _Backdated(rows + 1, times, np.minimum.accumulate(times[::-1])[::-1])

    def branches(
        self, stop: int, low: int, high: int, group: Int64Array, bounds: Bounds
    ) -> Iterator[tuple[_Branch, Int64Array, Int64Array]]:
        """Chains of moments with the same first events, by ascending time, of extras among ``low:high``.

        With a branch come its moments, and for each the number of its count. Moments without extras are left out.
        """
        times, versions = self.timestamp[low:high], self.version[low:high]
        order = np.argsort(times, kind="stable")
        times, versions = times[order], versions[order]
        reached = np.searchsorted(times, bounds.time[group], side="right")
        cuts = np.unique(reached[reached > 0])
        if not len(cuts):
            return
        least = np.minimum.reduceat(versions[: cuts[-1]], np.concatenate([[0], cuts[:-1]]))
        most = np.maximum.accumulate(versions)[cuts - 1]
        begins = np.flatnonzero(np.concatenate([[True], least[1:] < most[:-1]]))
        for begin, end in zip(begins, [*begins[1:], len(cuts)], strict=True):
            counts = cuts[begin:end]
            inside = (reached >= counts[0]) & (reached <= counts[-1])
            branch = _Branch(stop, np.sort(versions[: counts[-1]]), counts)
            yield branch, group[inside], np.searchsorted(counts, reached[inside])


def _trunk(
    store: EventReader, emission: Emission, head: Head, plan: _BranchPlan
) -> tuple[pa.Table, Mapping[str, EventTable]]:
    """What the trunk emits at its stops, and the extras of all branches by event type, in version order."""
    used = np.unique(np.concatenate([np.empty(0, np.int64), *(branch.extras for branch in plan.branches)]))
    last = int(used.max(initial=0))
    reducer = emission.reducer
    extras: dict[str, list[EventTable]] = {name: [] for name in reducer.handlers}
    emission.begin()
    pending = Pending.of(Bounds.of_versions(plan.stops))
    for piece in own_pieces(store, reducer, head):
        if len(pending):
            emission.reach(piece, pending)
        for name, rows in extras.items():
            table = piece.tables[name]
            wanted = np.flatnonzero(np.isin(table.version, used))
            if len(wanted):
                rows.append(table.take(wanted, np.array([0, len(wanted)])))
        if not len(pending) and piece.end.version >= last:
            break
    found = {name: concatenated(rows) if rows else empty_table(reducer, name, 1) for name, rows in extras.items()}
    return pa.Table.from_batches(emission.emitted, schema=emission.schema), found


def _fold_branches(
    emission: Emission, plan: _BranchPlan, trunk: pa.Table, extras: Mapping[str, EventTable]
) -> Iterator[pa.RecordBatch]:
    """What the branches emit, in their order: they are folded side by side, as aggregates are."""
    reducer, schema = emission.reducer, emission.reducer.layout.arrow_schema
    for some in _batches(plan.branches):
        begin = trunk.select(schema.names).take(pa.array([branch.stop for branch in some])).combine_chunks()
        states = pa.RecordBatch.from_arrays(begin.to_batches()[0].columns, schema=schema)
        chosen = {name: _chosen(table, some) for name, table in extras.items()}
        stops = _stops(chosen, some)
        if emission.tables:
            for number in range(len(some)):
                yield emission.fold(states.slice(number, 1), chosen, stops.of_aggregate(number))[1]
        else:
            ids = [emission.aggregate] * len(some)
            folded = fold(reducer, ids, states, chosen, stops, emit=True, interpret=emission.interpret)
            yield cast(pa.RecordBatch, folded.emitted)


def _batches(branches: Sequence[_Branch]) -> Iterator[Sequence[_Branch]]:
    done = np.cumsum([len(branch.extras) for branch in branches])
    begin = 0
    while begin < len(branches):
        before = int(done[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(done, before + _ROWS_AT_ONCE, side="right")), begin + 1)
        yield branches[begin:end]
        begin = end


def _chosen(table: EventTable, branches: Sequence[_Branch]) -> EventTable:
    """The extras of each branch, as those of an aggregate."""
    versions = np.concatenate([branch.extras for branch in branches])
    owner = np.repeat(np.arange(len(branches)), [len(branch.extras) for branch in branches])
    rows = np.searchsorted(table.version, versions)
    there = rows < len(table)
    there[there] = table.version[rows[there]] == versions[there]
    return table.take(rows[there], np.searchsorted(owner[there], np.arange(len(branches) + 1)))


def _stops(tables: Mapping[str, EventTable], branches: Sequence[_Branch]) -> Stops:
    """A stop at each moment of each branch."""
    bounds = {}
    for name, table in tables.items():
        spans = zip(branches, table.offsets[:-1], table.offsets[1:], strict=True)
        bounds[name] = np.concatenate(
            [
                low + np.searchsorted(table.version[low:high], branch.extras[branch.counts - 1], side="right")
                for branch, low, high in spans
            ]
        )
    starts = {name: table.offsets[:-1] for name, table in tables.items()}
    return Stops(np.cumsum([0, *(len(branch.counts) for branch in branches)]), starts, bounds)
