"""Successive events of one aggregate, folded with stops on the way: what histories are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold, fold_through
from eventlab.fold.result import emission_schema
from eventlab.fold.stops import Legs, ascends, rows_until, tables_of
from eventlab.store.api import EventReader, Head, Selection
from eventlab.timetravel.own_events import by_version


@dataclass(frozen=True, slots=True)
class Stretch:
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
        """The last event, with its own event time."""
        version = self.before.version + len(self.position)
        return Head(self.before.aggregate_id, version, int(self.position[-1]), int(self.timestamp[-1]))

    @property
    def goes_back(self) -> bool:
        """Whether an event time is below the one before."""
        begins = self.before.version > 0 and int(self.timestamp[0]) < self.before.timestamp
        return begins or not ascends(self.timestamp)

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


def stretches(store: EventReader, reducer: Reducer, head: Head) -> Iterator[Stretch]:
    """The events of an aggregate up to its head."""
    selection = Selection(
        reducer.columns, others=True, aggregates=[head.aggregate_id], stop_position=head.position + 1,
        types=reducer.event_types,
    )  # fmt: skip
    end = Head(head.aggregate_id, 0, 0, 0)
    for frame in store.frames(selection):
        position, timestamp = by_version([table for table in frame.tables.values() if len(table)], end.version)
        stretch = Stretch(frame, end, position, timestamp, end.version + len(position) == head.version)
        end = stretch.end
        yield stretch


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
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """The state after one aggregate's legs, and what is told at the end of each, a row a leg."""
    own = reducer.layout.tables if tables else ()
    if not own:
        folded = fold(reducer, [aggregate], states, table, legs, emit=True, interpret=interpret)
        return folded.states, cast(pa.RecordBatch, folded.emitted)
    schema = joined(reducer, [], tables=True).schema
    if not int(legs.offsets[-1]):
        return states, pa.RecordBatch.from_pylist([], schema=schema)
    folded = fold_through(reducer, aggregate, states, table, legs, emit=True, interpret=interpret)
    columns = [*cast(pa.RecordBatch, folded.emitted).columns, *(folded.states.column(held.name) for held in own)]
    return folded.states.slice(folded.states.num_rows - 1), pa.RecordBatch.from_arrays(columns, schema=schema)


def joined(reducer: Reducer, pieces: Sequence[pa.RecordBatch], *, tables: bool) -> pa.Table:
    """What was told, as one table."""
    if pieces:
        return pa.Table.from_batches(pieces)
    schema = emission_schema(reducer)
    fields = [*schema, *(table.arrow for table in reducer.layout.tables)] if tables else list(schema)
    return pa.schema(fields).empty_table()


def legs_to(reducer: Reducer, stretch: Stretch, stops: Int64Array, *, onward: bool) -> Legs:
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
