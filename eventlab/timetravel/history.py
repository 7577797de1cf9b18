"""How a state developed: a row per handled event, per requested moment, or per bar, in one pass over the events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import AsOfError
from eventlab.events.clock import MAX_NS, duration_ns
from eventlab.events.frame import EventFrame, Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.fold.drive import emission_schema, fold
from eventlab.fold.legs import Legs, tables_of
from eventlab.store.contract import Selection, Store
from eventlab.timetravel.asof import AsOf, as_of
from eventlab.timetravel.reconstruct import require

MOST_BARS = 10_000_000
"""So many rows `every` gives; more would fill the memory rather than help."""


@dataclass(frozen=True, slots=True)
class _Past:
    """All events of one aggregate: frames to fold, and the envelope by version."""

    frames: list[EventFrame]
    position: Int64Array
    timestamp: Int64Array
    handled: Int64Array
    """Versions that the reducer handles, ascending."""

    @property
    def head(self) -> int:
        return len(self.position)


def _read(store: Store, reducer: Reducer, aggregate: str) -> _Past:
    require(store, [aggregate])
    selection = Selection(reducer.columns, others=True, aggregates=[aggregate], types=reducer.event_types)
    frames = list(store.frames(selection))
    tables = [(name, table) for frame in frames for name, table in frame.tables.items()]
    head = max((int(table.version[-1]) for _, table in tables if len(table)), default=0)
    position, timestamp = np.empty(head, np.int64), np.empty(head, np.int64)
    for _, table in tables:  # versions are gapless, so they index the envelope
        position[table.version - 1], timestamp[table.version - 1] = table.position, table.timestamp
    own = [table.version for name, table in tables if name in reducer.handlers]
    return _Past(frames, position, timestamp, np.sort(np.concatenate(own)) if own else np.empty(0, np.int64))


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
    if at is not None and every is not None:
        raise AsOfError("history takes `at` or `every`, not both", got=f"at={at!r}, every={every!r}")
    past = _read(store, reducer, aggregate)
    label: pl.Series | None = None
    if at is not None:
        label, wanted = _moments(store, past, aggregate, at)
    elif every is not None:
        label, wanted = _bars(past, duration_ns(every, what="every"))
    else:
        wanted = past.handled
    stops, row = np.unique(wanted, return_inverse=True)
    emitted = _emit(reducer, aggregate, past, stops, tables=tables, interpret=interpret)
    taken = pl.DataFrame(pl.from_arrow(emitted))
    if label is not None:
        taken = taken[row]
    columns = [] if label is None else [label.alias("at")]
    return pl.DataFrame([*columns, *_envelope(past, wanted), *taken.get_columns()])


def _envelope(past: _Past, versions: Int64Array) -> list[pl.Series]:
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


def _moments(store: Store, past: _Past, aggregate: str, at: Any) -> tuple[pl.Series, Int64Array]:
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
            return label, np.searchsorted(past.timestamp, times, side="right").astype(np.int64)
        at = series.to_list()
    moments = [as_of(moment) for moment in at]
    wanted = np.array([_version_at(store, past, aggregate, moment) for moment in moments], np.int64)
    return _label(moments), wanted


def _label(moments: Sequence[AsOf]) -> pl.Series:
    if all(m == AsOf(version=m.version) and m.version is not None for m in moments) and moments:
        return pl.Series("at", [m.version for m in moments], pl.Int64)
    times = pl.Series("at", [m.time_ns for m in moments], pl.Int64)
    return times.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")


def _version_at(store: Store, past: _Past, aggregate: str, moment: AsOf) -> int:
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


def _bars(past: _Past, step: int) -> tuple[pl.Series, Int64Array]:
    if past.head:
        first, last = -(-int(past.timestamp[0]) // step), -(-int(past.timestamp[-1]) // step)
        if last - first >= MOST_BARS:
            raise AsOfError("too many bars", got=last - first + 1, expected=f"at most {MOST_BARS}")
        if last * step > MAX_NS:
            raise AsOfError("the last bar would end after the year 2262")
        times = np.arange(first, last + 1, dtype=np.int64) * step
    else:
        times = np.empty(0, np.int64)
    label = pl.Series("at", times, pl.Int64).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    return label, np.searchsorted(past.timestamp, times, side="right").astype(np.int64)


def _emit(
    reducer: Reducer, aggregate: str, past: _Past, stops: Int64Array, *, tables: bool, interpret: bool | None
) -> pa.Table:
    """What the state is after each of the ascending versions `stops`."""
    pieces: list[pa.RecordBatch] = []
    states = reducer.layout.initial(1)
    for reached, frame, last in _stretches(past, stops):
        legs = _legs(reducer, frame, reached, onward=not last)
        table = tables_of(reducer, frame)
        if tables:
            for at, leg in enumerate(legs.of_aggregate(0)):
                folded = fold(reducer, [aggregate], states, table, leg, emit=True, interpret=interpret)
                states = folded.states
                if at < len(reached):
                    pieces.append(_with_tables(reducer, folded.emitted, states))
        else:
            folded = fold(reducer, [aggregate], states, table, legs, emit=True, interpret=interpret)
            states = folded.states
            if folded.emitted is not None:
                pieces.append(folded.emitted.slice(0, len(reached)))
        if last:
            break
    if not pieces:
        schema = emission_schema(reducer)
        fields = [*schema, *(table.arrow for table in reducer.layout.tables)] if tables else list(schema)
        return pa.schema(fields).empty_table()
    return pa.Table.from_batches(pieces)


def _stretches(past: _Past, stops: Int64Array) -> Iterator[tuple[Int64Array, EventFrame, bool]]:
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
