"""The state of an aggregate with what other aggregates' events mark: the merged stream with one stop."""

from __future__ import annotations

from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.result import joined
from eventlab.snapshots.states import Marks
from eventlab.store.api import Store
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.history.fold_to_stops import Emission, Pending
from eventlab.timetravel.marks.merge import MergedStream
from eventlab.timetravel.marks.routing import MarkWith, RoutedLog
from eventlab.timetravel.moments import Bounds
from eventlab.timetravel.reconstruct import Reconstructed


def marked(
    store: Store,
    reducer: Reducer,
    aggregate: str,
    moment: AsOf,
    mark_with: MarkWith,
    *,
    interpret: bool | None = None,
) -> Reconstructed:
    """The state of one aggregate at a moment, with what `mark_with` routes to it. Always a full replay.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
    """
    log = RoutedLog.of(store, reducer, aggregate, mark_with)
    bounds = Bounds.of(store, log.head, [moment])
    stream = MergedStream.of(log.known(bounds), bounds)
    (part,) = [part for part, numbers in stream.parted(bounds) if len(numbers)]
    emission, pending = Emission(reducer.with_routed, aggregate, tables=False, interpret=interpret), Pending.of(bounds)
    emission.begin()
    for piece in part.pieces():
        if not emission.reach(piece, pending):
            break
    version, (position, timestamp) = emission.versions[-1], emission.marks[-1]
    marks = Marks(version, position, timestamp, timestamp) if version[0] else Marks.none(1)
    return Reconstructed([aggregate], emission.states, joined(emission.emitted), marks)
