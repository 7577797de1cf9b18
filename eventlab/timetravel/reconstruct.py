"""States at a moment, from events alone or from a snapshot and the events after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import AsOfError
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.executors import Executor
from eventlab.fold.fold import derive, fold
from eventlab.fold.stops import Stops, leading, tables_of, upper_bounds
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.policy.rules import Read
from eventlab.snapshots.states import Base, Marks, put
from eventlab.store.api import UNBOUND, Selection, Store
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.moments import heads_of, position_bound


@dataclass(frozen=True, slots=True)
class Reconstructed:
    """States of several aggregates at one moment, one row each."""

    aggregates: Sequence[str]
    states: pa.RecordBatch
    emitted: pa.RecordBatch
    """Records and properties, as a fold emits them."""
    marks: Marks


def reconstruct(
    store: Store,
    reducer: Reducer,
    aggregates: Sequence[str],
    moment: AsOf,
    *,
    snapshots: Snapshots | None = None,
    interpret: bool | None = None,
    executor: Executor | None = None,
) -> Reconstructed:
    """The states of aggregates at a moment.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError
    """
    (found,) = reconstruct_all(
        store, [reducer], aggregates, moment, snapshots=snapshots, interpret=interpret, executor=executor
    )
    return found


def reconstruct_all(
    store: Store,
    reducers: Sequence[Reducer],
    aggregates: Sequence[str],
    moment: AsOf,
    *,
    snapshots: Snapshots | None = None,
    interpret: bool | None = None,
    executor: Executor | None = None,
) -> list[Reconstructed]:
    """What `reconstruct` gives for each of several reducers, in one pass over the events.

    Snapshots are used where all reducers have them at the same versions, as one reducer always does.
    """
    if not reducers:
        return []
    begin = perf_counter()
    stop = position_bound(store, moment)
    bases = _bases(reducers, aggregates, moment, stop, snapshots)
    marks = bases[0].marks
    after = {a: int(v) for a, v in zip(aggregates, marks.version, strict=True) if v}
    selection = Selection(
        _columns_of(reducers),
        others=True,
        aggregates=aggregates,
        after_version=after,
        stop_position=stop,
        until_version=moment.version,
        until_time=moment.time_ns,
        types={name: declared for reducer in reducers for name, declared in reducer.event_types.items()},
    )
    watched = snapshots is not None and snapshots.policy.on_read and len(reducers) == len(aggregates) == 1
    ascends = not watched or store.times_ascend_in(aggregates[0])
    included = int(marks.version.sum())
    emitted: list[pa.RecordBatch | None] = [None] * len(reducers)
    index = {aggregate: at for at, aggregate in enumerate(aggregates)}
    for frame in store.frames(selection):
        members = np.array([index[aggregate] for aggregate in frame.aggregates], np.int64)
        for at, reducer in enumerate(reducers):
            bases[at], emitted[at] = advance(
                reducer, bases[at], frame, members, moment, emit=True, interpret=interpret, executor=executor
            )
        if not ascends:
            included += _count(frame, moment)
    if not bases[0].marks.version.all():  # of those that have no events by then, some may have none at all
        heads_of(store, aggregates)
    if moment.version is not None:
        _check_versions(store, aggregates, moment, bases[0].marks)
    if watched and snapshots is not None:
        read = Read(int(bases[0].marks.version[0]), int(marks.version[0]), perf_counter() - begin)
        if ascends or included == read.version:  # else it is not the state of a version
            snapshots.after_read(reducers[0], aggregates[0], bases[0] if ascends else None, read)
    return [
        Reconstructed(
            aggregates,
            base.states,
            derive(reducer, aggregates, base.states, interpret=interpret) if last is None else last,
            base.marks,
        )
        for reducer, base, last in zip(reducers, bases, emitted, strict=True)
    ]


def _bases(
    reducers: Sequence[Reducer], aggregates: Sequence[str], moment: AsOf, stop: int, snapshots: Snapshots | None
) -> list[Base]:
    if snapshots is not None:
        found = [
            snapshots.latest(reducer, aggregates, version=moment.version, time=moment.time_ns, stop_position=stop)
            for reducer in reducers
        ]
        if all(np.array_equal(base.marks.version, found[0].marks.version) for base in found):
            return found
    return [Base.initial(reducer, len(aggregates)) for reducer in reducers]


def _columns_of(reducers: Sequence[Reducer]) -> dict[str, tuple[str, ...]]:
    """The payload columns that any of the reducers may read, by event type name."""
    wanted: dict[str, dict[str, None]] = {}
    for reducer in reducers:
        for name, columns in reducer.columns.items():
            wanted.setdefault(name, {}).update(dict.fromkeys(columns))
    return {name: tuple(columns) for name, columns in wanted.items()}


def advance(
    reducer: Reducer,
    base: Base,
    frame: EventFrame,
    members: Int64Array,
    moment: AsOf,
    *,
    emit: bool = False,
    interpret: bool | None = None,
    executor: Executor | None = None,
) -> tuple[Base, pa.RecordBatch | None]:
    """Fold a frame's events that a moment includes into the rows `members` of states.

    Also gives what the fold emitted, where that was asked for and the frame had all of the aggregates.
    """
    ends, scattered = _ends(frame, moment)
    if scattered.any():  # by back-dated events: these aggregates are folded by themselves, of rows chosen one by one
        if not scattered.all():
            others = {name: np.where(scattered, frame.tables[name].offsets[:-1], rows) for name, rows in ends.items()}
            base, _ = _folded(reducer, base, frame, members, others, emit=False, interpret=interpret, executor=executor)
        numbers = np.flatnonzero(scattered)
        frame, members = _included(frame, numbers, moment), members[numbers]
        ends = {name: table.offsets[1:] for name, table in frame.tables.items()}
    return _folded(reducer, base, frame, members, ends, emit=emit, interpret=interpret, executor=executor)


def _folded(
    reducer: Reducer,
    base: Base,
    frame: EventFrame,
    members: Int64Array,
    ends: Mapping[str, Int64Array],
    *,
    emit: bool,
    interpret: bool | None,
    executor: Executor | None,
) -> tuple[Base, pa.RecordBatch | None]:
    """Fold each aggregate's rows up to those ends."""
    whole = _is_all(members, base.states.num_rows)
    part = base.states if whole else base.states.take(pa.array(members))
    stops = Stops.at_ends(reducer, frame.tables, ends, len(frame.aggregates))
    folded = fold(
        reducer, frame.aggregates, part, tables_of(reducer, frame), stops,
        emit=emit and whole, interpret=interpret, executor=executor,
    )  # fmt: skip
    states = folded.states if whole else put(base.states, folded.states, members)
    return Base(states, _advanced(base.marks, frame, members, ends)), folded.emitted


def _included(frame: EventFrame, numbers: Int64Array, moment: AsOf) -> EventFrame:
    """The events of some of a frame's aggregates that a moment includes."""
    tables = {}
    for name, table in frame.tables.items():
        chosen = np.zeros(len(table), np.bool_)
        for low, high in zip(table.offsets[numbers], table.offsets[numbers + 1], strict=True):
            chosen[low:high] = True
        rows = np.flatnonzero(chosen & _inside(table, moment))
        ends = np.searchsorted(rows, table.offsets[numbers + 1])
        tables[name] = table.take(rows, np.concatenate([[0], ends]))
    return EventFrame([frame.aggregates[number] for number in numbers], tables)


def _count(frame: EventFrame, moment: AsOf) -> int:
    """How many of a frame's events a moment includes."""
    return sum(int(_inside(table, moment).sum()) for table in frame.tables.values())


def _inside(table: EventTable, moment: AsOf) -> npt.NDArray[np.bool_]:
    """Which rows a moment includes by version and event time; positions past its bound are not read."""
    last = UNBOUND if moment.version is None else moment.version
    time = MAX_NS if moment.time_ns is None else moment.time_ns
    return (table.version <= last) & (table.timestamp <= time)


def _is_all(members: Int64Array, count: int) -> bool:
    return len(members) == count and bool((members == np.arange(count)).all())


def _check_versions(store: Store, aggregates: Sequence[str], moment: AsOf, marks: Marks) -> None:
    if bool((marks.version == moment.version).all()):
        return
    for head in store.heads(aggregates):
        if moment.version is not None and head.version < moment.version:
            raise AsOfError(
                f"version lies past the head of {head.aggregate_id!r}",
                got=moment.version,
                expected=f"at most {head.version}",
            )


def _ends(frame: EventFrame, moment: AsOf) -> tuple[dict[str, Int64Array], npt.NDArray[np.bool_]]:
    """One past the last row that the moment includes, per event type and aggregate; and where others lie before it."""
    ends, scattered = {}, np.zeros(len(frame.aggregates), np.bool_)
    for name, table in frame.tables.items():
        starts, stops = table.offsets[:-1], table.offsets[1:]
        if moment.version is not None:
            stops = upper_bounds(table.version, starts, stops, moment.version)
        if moment.time_ns is not None:
            stops, among = leading(table.timestamp, starts, stops, moment.time_ns)
            scattered |= among
        ends[name] = stops
    return ends, scattered


def _advanced(marks: Marks, frame: EventFrame, members: Int64Array, ends: Mapping[str, Int64Array]) -> Marks:
    version, position, timestamp = marks.version.copy(), marks.position.copy(), marks.timestamp.copy()
    latest = marks.latest.copy()
    for name, table in frame.tables.items():
        some = ends[name] > table.offsets[:-1]
        rows, at = ends[name][some] - 1, members[some]
        latest[at] = np.maximum(latest[at], table.timestamp[rows])
        newer = table.version[rows] > version[at]
        rows, at = rows[newer], at[newer]
        version[at], position[at], timestamp[at] = table.version[rows], table.position[rows], table.timestamp[rows]
    return Marks(version, position, timestamp, latest)
