"""States moved on by the events of a frame, up to a version and an event time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.clock import MAX_NS
from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.executors import Executor
from eventlab.fold.fold import fold
from eventlab.fold.stops import Stops, leading, upper_bounds
from eventlab.snapshots.states import Base, Marks, put
from eventlab.store.api import UNBOUND


def advance(
    reducer: Reducer,
    base: Base,
    frame: EventFrame,
    members: Int64Array,
    *,
    version: int | None = None,
    time: int | None = None,
    emit: bool = False,
    interpret: bool | None = None,
    executor: Executor | None = None,
) -> tuple[Base, pa.RecordBatch | None]:
    """Fold a frame's events into the rows `members` of states, up to a version and an event time (ns), inclusive.

    Also gives what the fold emits, with `emit` and where the frame has all of the aggregates.
    """
    ends, scattered = _ends(frame, version, time)
    if scattered.any():  # by back-dated events: these aggregates are folded by themselves, from rows chosen one by one
        if not scattered.all():
            others = {name: np.where(scattered, frame.tables[name].offsets[:-1], rows) for name, rows in ends.items()}
            base, _ = _folded(reducer, base, frame, members, others, emit=False, interpret=interpret, executor=executor)
        numbers = np.flatnonzero(scattered)
        frame, members = _included(frame, numbers, version, time), members[numbers]
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
    of_all = np.array_equal(members, np.arange(base.states.num_rows))
    part = base.states if of_all else base.states.take(pa.array(members))
    folded = fold(
        reducer, frame.aggregates, part, *Stops.of_frame(reducer, frame, ends),
        emit=emit and of_all, interpret=interpret, executor=executor,
    )  # fmt: skip
    states = folded.states if of_all else put(base.states, folded.states, members)
    return Base(states, _advanced(base.marks, frame, members, ends)), folded.emitted


def _included(frame: EventFrame, numbers: Int64Array, version: int | None, time: int | None) -> EventFrame:
    """The events of some of a frame's aggregates up to a version and a time."""
    tables = {}
    for name, table in frame.tables.items():
        chosen = np.zeros(len(table), np.bool_)
        for low, high in zip(table.offsets[numbers], table.offsets[numbers + 1], strict=True):
            chosen[low:high] = True
        rows = np.flatnonzero(chosen & _inside(table, version, time))
        ends = np.searchsorted(rows, table.offsets[numbers + 1])
        tables[name] = table.take(rows, np.concatenate([[0], ends]))
    return EventFrame([frame.aggregates[number] for number in numbers], tables)


def count_until(frame: EventFrame, version: int | None, time: int | None) -> int:
    """How many events a frame has up to a version and a time."""
    return sum(int(_inside(table, version, time).sum()) for table in frame.tables.values())


def _inside(table: EventTable, version: int | None, time: int | None) -> npt.NDArray[np.bool_]:
    last = UNBOUND if version is None else version
    return (table.version <= last) & (table.timestamp <= (MAX_NS if time is None else time))


def _ends(
    frame: EventFrame, version: int | None, time: int | None
) -> tuple[dict[str, Int64Array], npt.NDArray[np.bool_]]:
    """One past the last row up to a version and a time, per type and aggregate; and which aggregates have gaps there.

    Those have rows that are not included before others that are.
    """
    ends, scattered = {}, np.zeros(len(frame.aggregates), np.bool_)
    for name, table in frame.tables.items():
        starts, stops = table.offsets[:-1], table.offsets[1:]
        if version is not None:
            stops = upper_bounds(table.version, starts, stops, version)
        if time is not None:
            stops, gaps = leading(table.timestamp, starts, stops, time)
            scattered |= gaps
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
