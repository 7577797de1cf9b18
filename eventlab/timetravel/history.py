"""How a state developed: a row per handled event, per requested moment, or per bar, in one pass over the events."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import AsOfError
from eventlab.events.clock import MAX_NS, duration_ns
from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.fold.drive import emission_schema, fold
from eventlab.fold.legs import Legs, tables_of
from eventlab.store.contract import Selection, Store
from eventlab.timetravel.asof import AsOf, as_of
from eventlab.timetravel.reconstruct import require

MOST_BARS = 10_000_000
"""So many rows `every` gives; more would fill the memory rather than help."""


@dataclass(frozen=True, slots=True)
class Past:
    """All events of one aggregate.

    Attributes
    ----------
    frames : list of EventFrame
        To fold.
    position, timestamp : int64 array, shape (head,)
        The envelope by version, from 1.
    handled : int64 array
        Versions that the reducer handles, ascending.
    """

    frames: list[EventFrame]
    position: Int64Array
    timestamp: Int64Array
    handled: Int64Array

    @property
    def head(self) -> int:
        return len(self.position)


def read_past(
    store: Store,
    reducer: Reducer,
    aggregate: str,
    *,
    columns: Mapping[str, Collection[str]] | None = None,
    stop_position: int | None = None,
) -> Past:
    """All events of an aggregate below a position; payload columns are those the reducer reads, or `columns`.

    Raises
    ------
    UnknownAggregate
    """
    require(store, [aggregate])
    wanted = reducer.columns if columns is None else columns
    selection = Selection(
        wanted, others=True, aggregates=[aggregate], stop_position=stop_position, types=reducer.event_types
    )
    frames = list(store.frames(selection))
    tables = [(name, table) for frame in frames for name, table in frame.tables.items()]
    head = max((int(table.version[-1]) for _, table in tables if len(table)), default=0)
    position, timestamp = np.empty(head, np.int64), np.empty(head, np.int64)
    for _, table in tables:  # versions are gapless, so they index the envelope
        position[table.version - 1], timestamp[table.version - 1] = table.position, table.timestamp
    own = [table.version for name, table in tables if name in reducer.handlers]
    return Past(frames, position, timestamp, np.sort(np.concatenate(own)) if own else np.empty(0, np.int64))


def history(
    store: Store,
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
    past = read_past(store, reducer, aggregate)
    label: pl.Series | None = None
    if at is not None:
        label, moments = moments_asked(at)
        wanted = _versions(store, past, aggregate, moments)
    elif every is not None:
        last = int(past.timestamp[-1]) if past.head else None
        label, times = bars(past, last, duration_ns(every, what="every"))
        wanted = _versions(store, past, aggregate, times)
    else:
        wanted = past.handled
    stops, row = np.unique(wanted, return_inverse=True)
    emitted = _emit(reducer, aggregate, past, stops, tables=tables, interpret=interpret)
    taken = pl.DataFrame(pl.from_arrow(emitted))
    return framed(past, label, wanted, taken if label is None else taken[row])


def check_asked(at: object, every: object) -> None:
    """Raise AsOfError for two ways to ask for rows at once."""
    if at is not None and every is not None:
        raise AsOfError("history takes `at` or `every`, not both", got=f"at={at!r}, every={every!r}")


def framed(past: Past, label: pl.Series | None, versions: Int64Array, emitted: pl.DataFrame) -> pl.DataFrame:
    """A history's rows: `at` where moments were asked for, the envelope of the last own event, and what was emitted."""
    columns = [] if label is None else [label.alias("at")]
    return pl.DataFrame([*columns, *_envelope(past, versions), *emitted.get_columns()])


def _envelope(past: Past, versions: Int64Array) -> list[pl.Series]:
    none = versions == 0
    last = np.maximum(versions - 1, 0)
    position = past.position[last] if past.head else np.zeros(len(versions), np.int64)
    timestamp = past.timestamp[last] if past.head else position
    series = [
        pl.Series("version", versions, pl.Int64),
        pl.Series("position", position, pl.Int64),
        pl.Series("timestamp", timestamp, pl.Int64).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
    ]
    if none.any():
        missing = pl.Series(none)
        series[1:] = [pl.select(pl.when(~missing).then(column)).to_series().alias(column.name) for column in series[1:]]
    return series


def moments_asked(at: Any) -> tuple[pl.Series, Int64Array | list[AsOf]]:
    """The column `at`, and the moments: event times in ns where all are, in a series or array."""
    if isinstance(at, str | AsOf | int) or not isinstance(at, Iterable):
        raise AsOfError("`at` takes a list of moments", got=at, hint="For one moment use lab.state(..., as_of=...).")
    if isinstance(at, pl.Series | np.ndarray):
        series = pl.Series("at", at)
        if isinstance(series.dtype, pl.Datetime):
            ns = series.dt.cast_time_unit("ns").to_physical()
            if ns.null_count():
                raise AsOfError("`at` holds a null")
            if series.dtype.time_zone is None and isinstance(at, pl.Series):  # NumPy's are UTC by definition
                raise AsOfError(
                    "`at` holds naive datetimes", got=series.dtype, expected="datetimes with a time zone",
                    hint='Name it: at.dt.replace_time_zone("UTC").',
                )  # fmt: skip
            times = ns.to_numpy()
            label = pl.Series("at", times).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
            return label, times
        at = series.to_list()
    moments = [as_of(moment) for moment in at]
    return _label(moments), moments


def _label(moments: Sequence[AsOf]) -> pl.Series:
    if all(m == AsOf(version=m.version) and m.version is not None for m in moments) and moments:
        return pl.Series("at", [m.version for m in moments], pl.Int64)
    times = pl.Series("at", [m.time_ns for m in moments], pl.Int64)
    return times.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")


def _versions(store: Store, past: Past, aggregate: str, moments: Int64Array | list[AsOf]) -> Int64Array:
    if isinstance(moments, np.ndarray):
        return np.searchsorted(past.timestamp, moments, side="right").astype(np.int64)
    return np.array([version_at(store, past, aggregate, moment) for moment in moments], np.int64)


def version_at(store: Store, past: Past, aggregate: str, moment: AsOf) -> int:
    """The highest version a moment includes."""
    version = past.head
    if moment.version is not None:
        if moment.version > past.head:
            raise AsOfError(
                f"version lies past the head of {aggregate!r}", got=moment.version, expected=f"at most {past.head}"
            )
        version = moment.version
    if moment.time_ns is not None:
        version = min(version, int(np.searchsorted(past.timestamp, moment.time_ns, side="right")))
    if moment.position is not None:
        if moment.position >= store.stop_position:
            raise AsOfError(
                "position lies past the end of the log", got=moment.position, expected=f"below {store.stop_position}"
            )
        version = min(version, int(np.searchsorted(past.position, moment.position, side="right")))
    if moment.known_at_ns is not None:
        known = store.position_at(moment.known_at_ns)
        version = min(version, int(np.searchsorted(past.position, known, side="left")))
    return version


def bars(past: Past, until: int | None, step: int) -> tuple[pl.Series, Int64Array]:
    """The column `at`, and the times at which bars end, from that of the first event to that of the time `until`."""
    if until is not None:
        first, last = -(-int(past.timestamp[0]) // step), -(-until // step)
        if last - first >= MOST_BARS:
            raise AsOfError("too many bars", got=last - first + 1, expected=f"at most {MOST_BARS}")
        if last * step > MAX_NS:
            raise AsOfError("the last bar would end after the year 2262")
        times = np.arange(first, last + 1, dtype=np.int64) * step
    else:
        times = np.empty(0, np.int64)
    label = pl.Series("at", times, pl.Int64).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    return label, times


def _emit(
    reducer: Reducer, aggregate: str, past: Past, stops: Int64Array, *, tables: bool, interpret: bool | None
) -> pa.Table:
    """What the state is after each of the ascending versions `stops`."""
    pieces: list[pa.RecordBatch] = []
    states = reducer.layout.initial(1)
    for reached, frame, last in _stretches(past, stops):
        legs = _legs(reducer, frame, reached, onward=not last)
        table = tables_of(reducer, frame)
        states, found = fold_legs(reducer, aggregate, states, table, legs, tables=tables, interpret=interpret)
        pieces += found[: len(reached)] if tables else [batch.slice(0, len(reached)) for batch in found]
        if last:
            break
    return joined(reducer, pieces, tables=tables)


def fold_legs(
    reducer: Reducer,
    aggregate: str,
    states: pa.RecordBatch,
    table: Mapping[str, EventTable],
    legs: Legs,
    *,
    tables: bool,
    interpret: bool | None,
) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
    """The state after one aggregate's legs, and what it was at the end of each: with `tables`, a batch a leg."""
    if not tables:
        folded = fold(reducer, [aggregate], states, table, legs, emit=True, interpret=interpret)
        return folded.states, [] if folded.emitted is None else [folded.emitted]
    pieces = []
    for leg in legs.of_aggregate(0):
        folded = fold(reducer, [aggregate], states, table, leg, emit=True, interpret=interpret)
        states = folded.states
        pieces.append(_with_tables(reducer, folded.emitted, states))
    return states, pieces


def joined(reducer: Reducer, pieces: Sequence[pa.RecordBatch], *, tables: bool) -> pa.Table:
    """What was emitted, as one table."""
    if pieces:
        return pa.Table.from_batches(pieces)
    schema = emission_schema(reducer)
    fields = [*schema, *(table.arrow for table in reducer.layout.tables)] if tables else list(schema)
    return pa.schema(fields).empty_table()


def _stretches(past: Past, stops: Int64Array) -> Iterator[tuple[Int64Array, EventFrame, bool]]:
    """Frames with the stops that fall into each: the state before any event counts to the first."""
    done = 0
    for frame in past.frames:
        highest = max(int(table.version[-1]) for table in frame.tables.values() if len(table))
        upto = int(np.searchsorted(stops, highest, side="right"))
        yield stops[done:upto], frame, upto == len(stops)
        done = upto


def _legs(reducer: Reducer, frame: EventFrame, reached: Int64Array, *, onward: bool) -> Legs:
    """A leg to each stop, and one to the end of the frame where more stops follow."""
    starts, bounds = {}, {}
    for name, table in tables_of(reducer, frame).items():
        starts[name] = np.zeros(1, np.int64)
        rows = np.searchsorted(table.version, reached, side="right").astype(np.int64)
        bounds[name] = np.append(rows, len(table)) if onward else rows
    return Legs(np.array([0, len(reached) + onward]), starts, bounds)


def _with_tables(reducer: Reducer, emitted: pa.RecordBatch | None, states: pa.RecordBatch) -> pa.RecordBatch:
    columns = [] if emitted is None else list(zip(emitted.schema, emitted.columns, strict=True))
    columns += [(table.arrow, states.column(table.name)) for table in reducer.layout.tables]
    return pa.RecordBatch.from_arrays([c for _, c in columns], schema=pa.schema([f for f, _ in columns]))
