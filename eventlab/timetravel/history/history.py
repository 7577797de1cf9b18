"""How a state developed: a row per handled event, per requested moment, or per bar, in one pass over the events.

Events stream by, a piece at a time, and each moment is emitted in the piece that it lies in, so that neither the events
nor their envelope are ever in memory as a whole. That takes event times that ascend. Where an own one goes back,
moments are found as `backdated.py` says; routed ones are merged where they happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from eventlab.errors import AsOfError
from eventlab.events.clock import MAX_NS, duration_ns
from eventlab.fold.declare.reducer import Reducer
from eventlab.store.api import EventReader, Head
from eventlab.timetravel.history import backdated
from eventlab.timetravel.history.fold_to_stops import Emission, Pending
from eventlab.timetravel.marks.merge import MergedStream
from eventlab.timetravel.marks.routing import MarkWith, RoutedLog
from eventlab.timetravel.moments import Bounds, bars, heads_of, moments_asked
from eventlab.timetravel.stream import StreamPiece, own_pieces


def history(
    store: EventReader,
    reducer: Reducer,
    aggregate: str,
    *,
    at: Any = None,
    every: Any = None,
    mark_with: MarkWith | None = None,
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
    mark_with : str or sequence of str, optional
        Aggregates whose events are routed to this one. Bars then go on to that of the last event, own or routed, and
        a row per handled event is one per *own* handled event, with the routed events before it.
    tables : bool
        Also give tables, as lists of structs.

    Returns
    -------
    polars.DataFrame
        Columns `at` (where asked for moments), `version`, `position`, `timestamp`, then fields and properties.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
    """
    if at is not None and every is not None:
        raise AsOfError("history takes `at` or `every`, not both", got=f"at={at!r}, every={every!r}")
    label: pl.Series | None = None
    bounds: Bounds | None = None
    step = None if every is None else duration_ns(every, what="every")
    log = None if mark_with is None else RoutedLog.of(store, reducer, aggregate, mark_with)
    (head,) = heads_of(store, [aggregate]) if log is None else [log.head]
    if at is not None:
        label, moments = moments_asked(at)
        bounds = Bounds.of(store, head, moments)
    if log is None:
        heard, latest, last_time = reducer, _latest(head, bounds, step), head.timestamp
        pending = None if bounds is None else Pending.of(bounds)
        streams: Iterable[_Stream] = [(own_pieces(store, reducer, head), pending)]
    else:
        heard, latest = reducer.with_routed, None
        streams, last_time = _merged(log, bounds, step)
    emission, goes_back = Emission(heard, aggregate, tables=tables, interpret=interpret), False
    for pieces, requested in streams:
        emission.begin()
        pending = requested
        for piece in pieces:
            goes_back = latest is not None and piece.goes_back
            if goes_back:
                break
            if step is not None and pending is None:
                label, times = bars(int(piece.timestamp[0]), last_time, step)
                pending = Pending.of(Bounds.of_times(times))
            if not (emission.every(piece, reducer.handlers) if pending is None else emission.reach(piece, pending)):
                if latest is not None and not piece.last:
                    goes_back = backdated.reach(store, head, piece.end.version, latest)
                break
        if goes_back:
            return backdated.history(store, reducer, head, label, bounds, step, tables=tables, interpret=interpret)
    return emission.frame(label)


_Stream: TypeAlias = "tuple[Iterator[StreamPiece], Pending | None]"
"""A stream's pieces, and the moments that lie in it, where there are any."""


def _latest(head: Head, bounds: Bounds | None, step: int | None) -> int | None:
    """The latest event time that bounds a row of a history of own events; None where none does."""
    if step is not None:
        return head.timestamp
    return None if bounds is None else bounds.latest_time


def _merged(log: RoutedLog, bounds: Bounds | None, step: int | None) -> tuple[Iterable[_Stream], int]:
    """The streams of own and routed events, and the latest event time."""
    everything = Bounds.of_times(np.array([MAX_NS]))
    handled = Bounds.of_versions(log.own.handled(log.reducer))
    log, wanted = log.known(bounds if bounds is not None else handled if step is None else everything)
    stream = MergedStream.of(log, wanted)
    return (
        (part.pieces(), None if bounds is None else Pending.of(wanted, numbers))
        for part, numbers in stream.parted(wanted)
    ), stream.last_time
