"""Takes states at chosen versions of many aggregates, in one fold over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold, fold_through
from eventlab.fold.result import concat_batches
from eventlab.fold.stops import Stops, tables_of
from eventlab.snapshots.states import Base, Marks, Taken, put
from eventlab.store.api import UNBOUND, EventReader, Selection
from eventlab.store.blocks import running_maxima


def take_states(
    store: EventReader,
    reducer: Reducer,
    aggregates: Sequence[str],
    versions: Sequence[Int64Array],
    stop: int,
    base: Base | None = None,
) -> Iterator[Taken]:
    """Fold aggregates once, and give their states at the ascending versions of each.

    The fold begins at the first events, or at the states of `base`, all of whose versions lie below those wanted.
    Positions from `stop` on are left out, and so are versions that lie there.
    """
    index = {aggregate: at for at, aggregate in enumerate(aggregates)}
    base = base or Base.initial(reducer, len(aggregates))
    states, latest, ascend = base.states, base.marks.latest.copy(), all(map(store.times_ascend_in, aggregates))
    selection = Selection(
        reducer.columns, others=True, aggregates=aggregates, stop_position=stop, types=reducer.event_types,
        after_version={a: int(v) for a, v in zip(aggregates, base.marks.version, strict=True) if v},
        until_version=max((int(v[-1]) for v in versions if len(v)), default=0),
    )  # fmt: skip
    for frame in store.frames(selection):
        members = np.array([index[aggregate] for aggregate in frame.aggregates], np.int64)
        wanted = _WantedVersions.of(frame, [versions[at] for at in members])
        part = states.take(pa.array(members))
        taken, part = _fold_to_versions(reducer, frame, part, wanted)
        states = put(states, part, members)
        highest = {
            name: table.timestamp if ascend else _running(table, latest[members])
            for name, table in frame.tables.items()
        }
        marks = wanted.marks(frame, highest, latest[members])
        latest[members] = _at_end(frame, highest, latest[members])
        if taken is not None:
            yield Taken([frame.aggregates[at] for at in wanted.owner], marks, taken)


@dataclass(frozen=True, slots=True)
class _WantedVersions:
    """The wanted versions that lie in a frame: aggregate a's are ``version[offsets[a]:offsets[a + 1]]``."""

    version: Int64Array
    offsets: Int64Array
    owner: Int64Array
    """The aggregate of each stop, by its number in the frame."""
    rows: Mapping[str, Int64Array]
    """One past the last row at or below each stop, by table."""
    onward: npt.NDArray[np.bool_]
    """Whether an aggregate has stops in later frames: else its fold ends at its last one."""

    @staticmethod
    def of(frame: EventFrame, wanted: Sequence[Int64Array]) -> _WantedVersions:
        low, high = np.full(len(wanted), UNBOUND), np.zeros(len(wanted), np.int64)
        for table in frame.tables.values():
            some = np.flatnonzero(np.diff(table.offsets))
            low[some] = np.minimum(low[some], table.version[table.offsets[some]])
            high[some] = np.maximum(high[some], table.version[table.offsets[some + 1] - 1])
        inside = [
            v[np.searchsorted(v, lo) : np.searchsorted(v, hi, side="right")]
            for v, lo, hi in zip(wanted, low, high, strict=True)
        ]
        version, offsets = np.concatenate(inside), np.cumsum([0, *map(len, inside)], dtype=np.int64)
        onward = np.array([len(v) > 0 and bool(v[-1] > hi) for v, hi in zip(wanted, high, strict=True)], bool)
        owner = np.repeat(np.arange(len(inside)), np.diff(offsets))
        rows = {name: _rows_until(table, version, offsets, owner) for name, table in frame.tables.items()}
        return _WantedVersions(version, offsets, owner, rows, onward)

    def stops(self, tables: Mapping[str, EventTable]) -> Stops:
        """A stop at each version, and one more where each aggregate's fold goes on from."""
        bounds = {}
        for name, table in tables.items():
            rows = self.rows.get(name, np.zeros(len(self.version), np.int64))
            reached = table.offsets[:-1].copy()
            some = np.diff(self.offsets) > 0
            reached[some] = rows[self.offsets[1:][some] - 1]
            bounds[name] = np.insert(rows, self.offsets[1:], np.where(self.onward, table.offsets[1:], reached))
        starts = {name: table.offsets[:-1] for name, table in tables.items()}
        return Stops(self.offsets + np.arange(len(self.offsets)), starts, bounds)

    def marks(self, frame: EventFrame, highest: Mapping[str, Int64Array], before: Int64Array) -> Marks:
        """The envelope of the events at the stops.

        `highest` has each aggregate's highest event time up to each row, by table, and `before` that of earlier frames.
        """
        marks = Marks.none(len(self.version))
        marks.version[:], marks.latest[:] = self.version, before[self.owner]
        for name, table in frame.tables.items():
            last = self.rows[name] - 1
            some = last >= table.offsets[:-1][self.owner]
            marks.latest[some] = np.maximum(marks.latest[some], highest[name][last[some]])
            found = some.copy()
            found[some] = table.version[last[some]] == self.version[some]
            marks.position[found], marks.timestamp[found] = table.position[last[found]], table.timestamp[last[found]]
        return marks


def _rows_until(table: EventTable, versions: Int64Array, offsets: Int64Array, owner: Int64Array) -> Int64Array:
    """One past the last row of an aggregate at or below each of its versions, ``offsets[a]:offsets[a + 1]`` of them."""
    first, end = table.offsets[:-1], table.offsets[1:]
    some = np.flatnonzero(end > first)
    lowest = np.zeros(len(first), np.int64)
    lowest[some] = table.version[first[some]]
    if (table.version[end[some] - 1] - lowest[some] == end[some] - first[some] - 1).all():  # no gaps to look out for
        rows: Int64Array = np.clip(first[owner] + versions - lowest[owner] + 1, first[owner], end[owner])
        return rows
    found = np.empty(len(versions), np.int64)
    for a in np.flatnonzero(np.diff(offsets)):
        own, (low, high) = slice(*offsets[a : a + 2]), table.offsets[a : a + 2]
        found[own] = low + np.searchsorted(table.version[low:high], versions[own], side="right")
    return found


def _running(table: EventTable, before: Int64Array) -> Int64Array:
    """The highest event time of an aggregate up to each row, and before the table."""
    some = np.flatnonzero(np.diff(table.offsets))
    return running_maxima(table.timestamp, table.offsets[some], before[some])


def _at_end(frame: EventFrame, highest: Mapping[str, Int64Array], before: Int64Array) -> Int64Array:
    """The highest event time of each aggregate up to the end of a frame."""
    found = before.copy()
    for name, table in frame.tables.items():
        some = np.flatnonzero(np.diff(table.offsets))
        found[some] = np.maximum(found[some], highest[name][table.offsets[some + 1] - 1])
    return found


def _fold_to_versions(
    reducer: Reducer, frame: EventFrame, states: pa.RecordBatch, wanted: _WantedVersions
) -> tuple[pa.RecordBatch | None, pa.RecordBatch]:
    """States at the wanted versions, and those from which later frames go on."""
    tables, ids = tables_of(reducer, frame), list(frame.aggregates)
    stops = wanted.stops(tables)
    if not reducer.layout.tables:  # a record is the whole state, and the kernel emits records as it goes
        folded = fold(reducer, ids, states, tables, stops, emit=True)
        emitted = folded.emitted.select(reducer.layout.arrow_schema.names)  # type: ignore[union-attr]
        if len(ids) == 1:
            emitted = emitted.slice(0, len(wanted.version))
        else:
            emitted = emitted.take(pa.array(np.delete(np.arange(int(stops.offsets[-1])), stops.offsets[1:] - 1)))
        return pa.RecordBatch.from_arrays(emitted.columns, schema=reducer.layout.arrow_schema), folded.states
    through = [
        fold_through(reducer, aggregate, states.slice(a, 1), tables, stops.of_aggregate(a)).states
        for a, aggregate in enumerate(ids)
    ]
    taken = concat_batches([found.slice(0, found.num_rows - 1) for found in through])
    return taken if taken.num_rows else None, concat_batches([found.slice(found.num_rows - 1) for found in through])
