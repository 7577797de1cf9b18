"""One fold over a stream of events, with stops on the way: what histories and marked states are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold, fold_through
from eventlab.fold.result import emission_schema
from eventlab.fold.stops import Stops, ascends
from eventlab.store.api import UNBOUND
from eventlab.timetravel.moments import Bounds
from eventlab.timetravel.stream import StreamPiece


@dataclass
class Pending:
    """Moments that a stream has not reached yet, by time.

    Attributes
    ----------
    moments : int64 array
        Their numbers in the order of the request.
    bounds : Bounds
        Theirs, in the same order.
    by_time : bool
        Nothing but event times bounds them.
    """

    moments: Int64Array
    bounds: Bounds
    by_time: bool

    @staticmethod
    def of(bounds: Bounds, moments: Int64Array | None = None) -> Pending:
        """All moments, or those of some numbers."""
        moments = np.arange(len(bounds)) if moments is None else moments
        if len(moments) < len(bounds):
            bounds = bounds[moments]
        if not ascends(bounds.time):
            order = np.argsort(bounds.time, kind="stable")
            moments, bounds = moments[order], bounds[order]
        return Pending(moments, bounds, bool((bounds.version == UNBOUND).all() and (bounds.stop == UNBOUND).all()))

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, piece: StreamPiece) -> tuple[Int64Array, Int64Array]:
        """The moments that are reached within a piece, and the place of each in it."""
        if self.by_time and not piece.last:
            # At the last event's own time more may follow.
            done: Any = slice(0, int(np.searchsorted(self.bounds.time, piece.last_time)))
            left: Any = slice(done.stop, None)
            places = piece.places(self.bounds[done])
        else:
            places = piece.places(self.bounds)
            done = (places < piece.count) | piece.last
            left, places = ~done, places[done]
        reached = self.moments[done]
        self.moments, self.bounds = self.moments[left], self.bounds[left]
        return reached, places


@dataclass
class Emission:
    """What a fold over one aggregate's stream emits, and the rows of a history that it goes to.

    Attributes
    ----------
    states : pyarrow.RecordBatch
        The state where the fold is now.
    """

    reducer: Reducer
    aggregate: str
    tables: bool
    interpret: bool | None
    states: pa.RecordBatch = field(init=False)
    emitted: list[pa.RecordBatch] = field(default_factory=list)
    versions: list[Int64Array] = field(default_factory=list)
    marks: list[tuple[Int64Array, Int64Array]] = field(default_factory=list)
    moments: list[Int64Array] = field(default_factory=list)
    rows: list[Int64Array] = field(default_factory=list)
    count: int = 0

    def begin(self) -> None:
        """Begin with a stream, after another or as the first."""
        self.states = self.reducer.layout.initial(1)

    def every(self, piece: StreamPiece, names: Collection[str]) -> bool:
        """Fold a piece with a stop after each own event of some types; gives whether more pieces are to come."""
        places = piece.handled(names)
        self._fold(piece, places, places, more=not piece.last)
        return not piece.last

    def reach(self, piece: StreamPiece, pending: Pending) -> bool:
        """Fold a piece with a stop at each moment in it; gives whether moments are left for later pieces."""
        moments, places = pending.take(piece)
        stops, row = _distinct(places)
        self.moments.append(moments)
        self.rows.append(row + self.count)
        self._fold(piece, places, stops, more=len(pending) > 0)
        return len(pending) > 0

    def _fold(self, piece: StreamPiece, places: Int64Array, stops: Int64Array, *, more: bool) -> None:
        versions = piece.versions(places)
        self.versions.append(versions)
        self.marks.append(piece.marks(versions))
        if len(stops) or more:
            self.states, found = self.fold(self.states, piece.tables, piece.stops(stops, onward=more))
            self.emitted.append(found.slice(0, len(stops)))
            self.count += len(stops)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of what is emitted: fields, properties, and on demand tables."""
        tables = self.reducer.layout.tables if self.tables else ()
        return pa.schema([*emission_schema(self.reducer), *(table.arrow for table in tables)])

    def fold(
        self, states: pa.RecordBatch, tables: Mapping[str, EventTable], stops: Stops
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """The state after one aggregate's stops, and what is emitted at each: a row a stop."""
        own = self.reducer.layout.tables if self.tables else ()
        if not own:
            folded = fold(self.reducer, [self.aggregate], states, tables, stops, emit=True, interpret=self.interpret)
            return folded.states, cast(pa.RecordBatch, folded.emitted)
        if not int(stops.offsets[-1]):
            return states, pa.RecordBatch.from_pylist([], schema=self.schema)
        folded = fold_through(self.reducer, self.aggregate, states, tables, stops, emit=True, interpret=self.interpret)
        columns = [*cast(pa.RecordBatch, folded.emitted).columns, *(folded.states.column(one.name) for one in own)]
        return folded.states.slice(folded.states.num_rows - 1), pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def frame(self, label: pl.Series | None) -> pl.DataFrame:
        """The rows: those of moments in the order of the request, others in the order of the stream."""
        emitted = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(self.emitted, schema=self.schema)))
        versions = _concatenated(self.versions)
        position, timestamp = (_concatenated([marks[at] for marks in self.marks]) for at in range(2))
        if label is not None:
            moments, row = _concatenated(self.moments), _concatenated(self.rows)
            if not ascends(moments):
                order = np.argsort(moments)
                versions, position, timestamp, row = versions[order], position[order], timestamp[order], row[order]
            if len(row) != len(emitted) or not ascends(row):
                emitted = emitted[row]
        return with_envelope(label, versions, position, timestamp, emitted)


def _distinct(places: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Ascending places to emit something at, and the number among them of each place."""
    if not ascends(places):
        return np.unique(places, return_inverse=True)
    begins = np.ones(len(places), np.bool_)
    begins[1:] = places[1:] != places[:-1]
    if 2 * np.count_nonzero(begins) > len(places):  # to emit a few twice takes less than to spread what was emitted
        return places, np.arange(len(places))
    return places[begins], np.cumsum(begins) - 1


def _concatenated(pieces: Sequence[Int64Array]) -> Int64Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int64), *pieces])


def with_envelope(
    label: pl.Series | None, versions: Int64Array, position: Int64Array, timestamp: Int64Array, emitted: pl.DataFrame
) -> pl.DataFrame:
    """A history's rows: `at` for requested moments, the envelope of the last own event, and what was emitted."""
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
