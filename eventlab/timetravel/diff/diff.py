"""What changed between two moments of an aggregate, and which events did it.

The events that make the difference are those that only one of the two moments includes. If each moment includes a
prefix of the aggregate's events, they lie between two versions; moments that differ in `known_at` may differ anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from html import escape
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from eventlab.events.clock import MAX_NS
from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold
from eventlab.fold.stops import Stops, rows_until, tables_of
from eventlab.snapshots.collection import Snapshots
from eventlab.store.api import UNBOUND, EventReader, Selection, frame_schema
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.diff import changes
from eventlab.timetravel.moments import position_bound
from eventlab.timetravel.reconstruct import Reconstructed, reconstruct
from eventlab.timetravel.state import State

BoolArray = npt.NDArray[np.bool_]

_SHOWN_ROWS = 10
_EMITTED_BYTES = 2**26
"""Size of what one fold emits."""

_ENVELOPE = ("version", "position", "timestamp", "event_type", "cause", "recorded_at")
_COUNTS = ("changed_by", "first_position", "last_position")
_COUNTED = pl.Schema({"field": pl.String, "place": pl.Int64, **dict.fromkeys(_COUNTS, pl.Int64)})


@dataclass(frozen=True)
class Difference:
    """What changed from one moment to another, and the events that did it. Made by :meth:`eventlab.Lab.diff`.

    Attributes
    ----------
    before, after : State
        The states at the two moments, in the order of the arguments.
    changes : polars.DataFrame
        A row for each value that differs; see :meth:`eventlab.Lab.diff`.
    count : int
        Events that one moment includes and the other does not.
    """

    before: State
    after: State
    changes: pl.DataFrame
    count: int
    _read: Callable[[], pl.DataFrame] = field(repr=False, compare=False)

    @cached_property
    def events(self) -> pl.DataFrame:
        """The events that only one of the moments includes, in version order; read on first use.

        Columns version, position, timestamp, event_type, cause and recorded_at, then the payload columns of all types
        that occur, null where an event's type has none; a column that two types have in different types is text.
        """
        return self._read()

    def _title(self) -> str:
        one, other = self.before, self.after
        return (
            f"{one.reducer.name} of {one.aggregate_id}: version {one.version} to {other.version}, "
            f"{self.count:,} events, {len(self.changes):,} changes"
        )

    def __repr__(self) -> str:
        with pl.Config(tbl_rows=_SHOWN_ROWS, tbl_cols=-1, fmt_str_lengths=30, tbl_width_chars=160):
            return f"{self._title()}\n{self.changes}" if len(self.changes) else self._title()

    def _repr_html_(self) -> str:
        head = self.changes.head(_SHOWN_ROWS)
        more = f" (first {_SHOWN_ROWS} shown)" if len(self.changes) > _SHOWN_ROWS else ""
        return f"<b>{escape(self._title())}{more}</b>{head._repr_html_()}"


def diff(
    store: EventReader,
    reducer: Reducer,
    aggregate: str,
    a: AsOf,
    b: AsOf,
    *,
    snapshots: Snapshots | None = None,
    interpret: bool | None = None,
) -> Difference:
    """What changed between two moments of an aggregate, and which events did it.

    Raises
    ------
    UnknownAggregate, AsOfError, FoldError, ReducerError
    """

    def state(moment: AsOf) -> Reconstructed:
        return reconstruct(store, reducer, [aggregate], moment, snapshots=snapshots, interpret=interpret)

    one, other = (_Side.of(store, moment, state) for moment in (a, b))
    before, after = one.found, other.found
    shared = _shared(store, aggregate, one, other)
    found = changes.changes(reducer, (before.states, before.emitted), (after.states, after.emitted))
    wanted = [name for name in before.emitted.schema.names if name in found["field"]]
    attribution = _Attribution(reducer, aggregate, interpret, wanted)
    for side, against in ((one, other), (other, one)):
        if side.version > shared:
            base = against.found if against.version == shared else state(replace(side.moment, version=shared))
            attribution.follow(store, base, side, against)
    return Difference(
        State(reducer, before),
        State(reducer, after),
        attribution.attached(found),
        attribution.count,
        partial(_events, store, aggregate, one, other, attribution.first, attribution.stop),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two moments, and the state there.

    Attributes
    ----------
    moment : AsOf
        Limited to a position, so that events appended later are not included.
    stop : int
        One past the last position that it may include.
    """

    moment: AsOf
    stop: int
    found: Reconstructed

    @staticmethod
    def of(store: EventReader, moment: AsOf, state: Callable[[AsOf], Reconstructed]) -> _Side:
        stop = min(position_bound(store, moment), store.stop_position)
        if stop:
            moment = replace(moment, position=stop - 1, known_at=None)
        return _Side(moment, stop, state(moment))

    @property
    def version(self) -> int:
        """Of the last event included."""
        return int(self.found.marks.version[0])

    def includes(self, version: Int64Array, position: Int64Array, timestamp: Int64Array) -> BoolArray:
        """Which events it includes."""
        last = UNBOUND if self.moment.version is None else self.moment.version
        time = MAX_NS if self.moment.time_ns is None else self.moment.time_ns
        return (version <= last) & (position < self.stop) & (timestamp <= time)


def _shared(store: EventReader, aggregate: str, one: _Side, other: _Side) -> int:
    """The highest version up to which both sides include the same events."""
    if one.moment.time_ns is None and other.moment.time_ns is None:
        return min(one.version, other.version)  # positions rise with versions
    high = max(one.version, other.version)
    stop = max(one.stop, other.stop)
    for frame in store.frames(
        Selection({}, others=True, aggregates=[aggregate], until_version=high, stop_position=stop)
    ):
        unlike = [
            int(table.version[differ.argmax()])
            for table in frame.tables.values()
            if (differ := _included(one, table) ^ _included(other, table)).any()
        ]
        if unlike:
            return min(unlike) - 1
    return high


def _included(side: _Side, table: EventTable) -> BoolArray:
    return side.includes(table.version, table.position, table.timestamp)


def _rows_where(table: EventTable, rows: BoolArray) -> EventTable:
    """Some rows of a table of one aggregate."""
    return table if rows.all() else table.take(np.flatnonzero(rows), np.array([0, np.count_nonzero(rows)]))


@dataclass
class _Attribution:
    """The events that make the difference, and which of the changed fields each of them changed.

    Attributes
    ----------
    wanted : list of str
        Fields and properties that differ, tables left out.
    count, first, stop : int
        How many events there are; the first of their positions, and one past the last.
    """

    reducer: Reducer
    aggregate: str
    interpret: bool | None
    wanted: Sequence[str]
    counts: dict[str, _ChangeCount] = field(default_factory=dict)
    count: int = 0
    first: int = UNBOUND
    stop: int = 0

    def follow(self, store: EventReader, base: Reconstructed, side: _Side, other: _Side) -> None:
        """Fold one side's events from a state that both share; those that the other side does not include count."""
        states, emitted = base.states, base.emitted
        shared = int(base.marks.version[0])
        selection = Selection(
            self.reducer.columns, others=True, aggregates=[self.aggregate], after_version={self.aggregate: shared},
            stop_position=side.stop, until_version=side.version, until_time=side.moment.time_ns,
            types=self.reducer.event_types,
        )  # fmt: skip
        for frame in store.frames(selection):
            own = {name: _rows_where(table, _included(side, table)) for name, table in frame.tables.items()}
            alone = {name: ~_included(other, table) for name, table in own.items()}
            for name, table in own.items():
                positions = table.position[alone[name]]
                if len(positions):
                    self.count += len(positions)
                    self.first, self.stop = min(self.first, int(positions[0])), max(self.stop, int(positions[-1]) + 1)
            if self.wanted:
                states, emitted = self._fold(states, emitted, EventFrame(frame.aggregates, own), alone)

    def _fold(
        self, states: pa.RecordBatch, before: pa.RecordBatch, frame: EventFrame, alone: Mapping[str, BoolArray]
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """The state after a frame; changes are counted after each event."""
        tables = tables_of(self.reducer, frame)
        handled = [name for name, table in tables.items() if len(table)]
        if not handled:
            return states, before
        version, position, alone_at = (
            np.concatenate(columns)
            for columns in zip(*((tables[n].version, tables[n].position, alone[n]) for n in handled), strict=True)
        )
        if len(handled) > 1:
            order = np.argsort(version)
            version, position, alone_at = version[order], position[order], alone_at[order]
        starts = {name: np.zeros(1, np.int64) for name in tables}
        step = max(1, _EMITTED_BYTES // self.reducer.layout.dtype.itemsize)
        for low in range(0, len(version), step):
            some = slice(low, low + step)
            bounds = {name: rows_until(table.version, version[some]) for name, table in tables.items()}
            stops = Stops(np.array([0, len(version[some])]), starts, bounds)
            folded = fold(self.reducer, [self.aggregate], states, tables, stops, emit=True, interpret=self.interpret)
            starts = {name: rows[-1:] for name, rows in bounds.items()}
            states, emitted = folded.states, cast(pa.RecordBatch, folded.emitted)
            for name in self.wanted:
                column = before.column(name)
                count = self.counts.get(name) or self.counts.setdefault(name, _ChangeCount.of(column))
                count.add(column, emitted.column(name), position[some], alone_at[some])
            before = emitted.slice(emitted.num_rows - 1)
        return states, before

    def attached(self, found: pl.DataFrame) -> pl.DataFrame:
        """The changes with the events that made them."""
        rows = [count.frame(name) for name, count in self.counts.items()]
        known = pl.concat([pl.DataFrame(schema=_COUNTED), *rows])
        return found.join(known, on=["field", "place"], how="left", nulls_equal=True, maintain_order="left")


@dataclass
class _ChangeCount:
    """How often a field, or each element of an array, was changed.

    Attributes
    ----------
    count, first, last : int64 array, shape (elements,)
        Events; the first of their positions and the last.
    """

    is_array: bool
    count: Int64Array
    first: Int64Array
    last: Int64Array

    @staticmethod
    def of(column: pa.Array) -> _ChangeCount:
        is_array = pa.types.is_fixed_size_list(column.type)
        length = column.type.list_size if is_array else 1
        return _ChangeCount(is_array, np.zeros(length, np.int64), np.full(length, UNBOUND), np.full(length, -1))

    def add(self, before: pa.Array, after: pa.Array, position: Int64Array, counts: BoolArray) -> None:
        """Count changes by successive events, given the value before the first and the values after each."""
        length = len(self.count)
        values = pl.concat(
            [pl.Series("v", column.flatten() if self.is_array else column) for column in (before, after)]
        )
        unlike = changes.differs(pl.col("v"), pl.col("v").shift(length), values.dtype)
        changed = values.to_frame().select(unlike).to_series()[length:].to_numpy().reshape(-1, length)
        changed = changed & counts[:, None]
        some = changed.any(axis=0)
        self.count += changed.sum(axis=0)
        earliest = position[changed.argmax(axis=0)]
        latest = position[len(position) - 1 - changed[::-1].argmax(axis=0)]
        self.first = np.where(some, np.minimum(self.first, earliest), self.first)
        self.last = np.where(some, np.maximum(self.last, latest), self.last)

    def frame(self, name: str) -> pl.DataFrame:
        place = np.arange(len(self.count)) if self.is_array else [None]
        columns = ([name] * len(self.count), place, self.count, self.first, self.last)
        frame = pl.DataFrame(dict(zip(_COUNTED, columns, strict=True)), schema=_COUNTED)
        return frame.with_columns(pl.when(pl.col("changed_by") > 0).then(pl.col("first_position", "last_position")))


def _events(store: EventReader, aggregate: str, one: _Side, other: _Side, first: int, stop: int) -> pl.DataFrame:
    """The events of all types between two positions that only one side includes."""
    pieces = []
    for declared in store.types().values():
        columns = [*_ENVELOPE, *(payload.name for payload in declared)]
        pieces.append(pl.DataFrame(schema=frame_schema(declared, _ENVELOPE)))
        rows = store.rows(declared, aggregates=[aggregate], columns=columns, first_position=first, stop_position=stop)
        for piece in rows if first < stop else ():
            envelope = [piece[name].to_physical().to_numpy() for name in ("version", "position", "timestamp")]
            pieces.append(piece.filter(one.includes(*envelope) ^ other.includes(*envelope)))
    columns_seen = {column for piece in pieces for column in piece.schema.items()}
    texts = [name for name, count in Counter(name for name, _ in columns_seen).items() if count > 1]
    alike = [piece.with_columns(pl.col(name).cast(pl.String) for name in texts if name in piece) for piece in pieces]
    return pl.concat(alike, how="diagonal").sort("version")
