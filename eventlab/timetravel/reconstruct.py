"""States at a moment: from a snapshot and the events after it, from all events, or with what other aggregates mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from eventlab.errors import AsOfError
from eventlab.events.clock import MAX_NS
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.executors import Executor
from eventlab.fold.fold import derive
from eventlab.fold.result import concat_batches
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.policy.rules import Read
from eventlab.snapshots.states import Base, Marks
from eventlab.store.api import UNBOUND, EventReader, Selection
from eventlab.timetravel.advance import advance, count_until
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.moments import Bounds, heads_of, position_bound

if TYPE_CHECKING:
    from eventlab.timetravel.marks.routing import MarkWith


@dataclass(frozen=True, slots=True)
class Reconstructed:
    """States of several aggregates at one moment, one row each."""

    aggregates: Sequence[str]
    states: pa.RecordBatch
    emitted: pa.RecordBatch
    """Records and properties, as a fold emits them."""
    marks: Marks


def reconstruct(
    store: EventReader,
    reducer: Reducer,
    aggregates: Sequence[str],
    moment: AsOf,
    *,
    mark_with: MarkWith | None = None,
    snapshots: Snapshots | None = None,
    interpret: bool | None = None,
) -> Reconstructed:
    """The states of aggregates at a moment; with `mark_with`, of the events that it routes to each as well.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
    """
    task = StatesTask.of(store, [reducer], aggregates, moment, mark_with=mark_with, interpret=interpret)
    (found,) = task.run(store, snapshots)
    return found


@dataclass(frozen=True, slots=True)
class StatesTask:
    """States at a moment as work to be done: plain data that another process can take, as its outcome is.

    Attributes
    ----------
    reducers : tuple of Reducer
        All of them in one pass over the events. Pickled, a reducer is the name by which it is imported.
    aggregates : tuple of str
    version, time : int or None
        The last version of each aggregate, and the last event time (ns), that the states include.
    stop_position : int
        Nothing from this position on.
    mark_with : str or sequence of str, optional
        Aggregates whose events are routed to these. The states are then always folded from the first event.
    interpret : bool, optional
    """

    reducers: tuple[Reducer, ...]
    aggregates: tuple[str, ...]
    version: int | None
    time: int | None
    stop_position: int
    mark_with: MarkWith | None = None
    interpret: bool | None = None

    @staticmethod
    def of(
        store: EventReader,
        reducers: Sequence[Reducer],
        aggregates: Sequence[str],
        moment: AsOf,
        *,
        mark_with: MarkWith | None = None,
        interpret: bool | None = None,
    ) -> StatesTask:
        """The task of a moment in a store.

        Raises
        ------
        AsOfError
        """
        stop, time = position_bound(store, moment), moment.time_ns
        return StatesTask(tuple(reducers), tuple(aggregates), moment.version, time, stop, mark_with, interpret)

    def run(
        self, store: EventReader, snapshots: Snapshots | None = None, executor: Executor | None = None
    ) -> list[Reconstructed]:
        """The states, for each reducer.

        Snapshots are used where all reducers have them at the same versions, as one reducer always does.

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError, InvalidEvent
        """
        if self.mark_with is not None:
            return [self._marked(store, reducer, self.mark_with) for reducer in self.reducers]
        if not self.reducers:
            return []
        begin = perf_counter()
        bases = self._bases(snapshots)
        marks = bases[0].marks
        watched = snapshots is not None and snapshots.policy.on_read and len(self.reducers) == len(self.aggregates) == 1
        ascends = not watched or store.times_ascend_in(self.aggregates[0])
        included = int(marks.version.sum())
        emitted: list[pa.RecordBatch | None] = [None] * len(bases)
        index = {aggregate: at for at, aggregate in enumerate(self.aggregates)}
        for frame in store.frames(self._selection(marks)):
            members = np.array([index[aggregate] for aggregate in frame.aggregates], np.int64)
            for at, reducer in enumerate(self.reducers):
                bases[at], emitted[at] = advance(
                    reducer, bases[at], frame, members,
                    version=self.version, time=self.time, emit=True, interpret=self.interpret, executor=executor,
                )  # fmt: skip
            if not ascends:
                included += count_until(frame, self.version, self.time)
        self._check(store, bases[0].marks)
        if watched and snapshots is not None:
            read = Read(int(bases[0].marks.version[0]), int(marks.version[0]), perf_counter() - begin)
            if ascends or included == read.version:  # else it is not the state of a version
                snapshots.after_read(self.reducers[0], self.aggregates[0], bases[0] if ascends else None, read)
        found = []
        for reducer, base, last in zip(self.reducers, bases, emitted, strict=True):
            values = derive(reducer, self.aggregates, base.states, interpret=self.interpret) if last is None else last
            found.append(Reconstructed(self.aggregates, base.states, values, base.marks))
        return found

    def _bases(self, snapshots: Snapshots | None) -> list[Base]:
        """Where the reducers begin: at snapshots of the same versions, or before any event."""
        if snapshots is not None:
            found = [
                snapshots.latest(
                    reducer, self.aggregates, version=self.version, time=self.time, stop_position=self.stop_position
                )
                for reducer in self.reducers
            ]
            if all(np.array_equal(base.marks.version, found[0].marks.version) for base in found):
                return found
        return [Base.initial(reducer, len(self.aggregates)) for reducer in self.reducers]

    def _selection(self, marks: Marks) -> Selection:
        """The events after those that states include, with the columns that any of the reducers may read."""
        columns: dict[str, dict[str, None]] = {}
        for reducer in self.reducers:
            for name, read in reducer.columns.items():
                columns.setdefault(name, {}).update(dict.fromkeys(read))
        after = {a: int(v) for a, v in zip(self.aggregates, marks.version, strict=True) if v}
        return Selection(
            {name: tuple(read) for name, read in columns.items()}, others=True, aggregates=self.aggregates,
            after_version=after, stop_position=self.stop_position, until_version=self.version, until_time=self.time,
            types={name: declared for reducer in self.reducers for name, declared in reducer.event_types.items()},
        )  # fmt: skip

    def _check(self, store: EventReader, marks: Marks) -> None:
        """Raise UnknownAggregate for an aggregate without events, AsOfError for one that does not reach the version."""
        if marks.version.all() and (self.version is None or bool((marks.version == self.version).all())):
            return
        for head in heads_of(store, self.aggregates):
            if self.version is not None and head.version < self.version:
                what = f"version lies past the head of {head.aggregate_id!r}"
                raise AsOfError(what, got=self.version, expected=f"at most {head.version}")

    def _marked(self, store: EventReader, reducer: Reducer, mark_with: MarkWith) -> Reconstructed:
        """The state of the one aggregate: a merged stream with one stop."""
        # Loaded here: a process that asks for plain states starts a hundredth quicker.
        from eventlab.timetravel.history.fold_to_stops import Emission, Pending
        from eventlab.timetravel.marks.merge import MergedStream
        from eventlab.timetravel.marks.routing import RoutedLog

        (aggregate,) = self.aggregates
        log = RoutedLog.of(store, reducer, aggregate, mark_with)
        bounds = Bounds(
            np.array([UNBOUND if self.version is None else self.version]),
            np.array([MAX_NS if self.time is None else self.time]),
            np.array([self.stop_position]),
        )
        log, bounds = log.known(Bounds.of(store, log.head, bounds))
        stream = MergedStream.of(log, bounds)
        (part,) = [part for part, numbers in stream.parted(bounds) if len(numbers)]
        emission = Emission(reducer.with_routed, aggregate, tables=False, interpret=self.interpret)
        emission.begin()
        pending = Pending.of(bounds)
        for piece in part.pieces():
            if not emission.reach(piece, pending):
                break
        version, (position, timestamp) = emission.versions[-1], emission.marks[-1]
        marks = Marks(version, position, timestamp, timestamp) if version[0] else Marks.none(1)
        return Reconstructed(self.aggregates, emission.states, concat_batches(emission.emitted), marks)
