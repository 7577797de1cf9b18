"""The states of a projection, in memory and as the content of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from eventlab.events.frame import EventFrame
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import derive
from eventlab.snapshots.states import MARKS, Base, Marks
from eventlab.timetravel.advance import advance
from eventlab.timetravel.reconstruct import Reconstructed

_FORMAT = "1"
_STATE = "state."
"""Prefix of a state's columns, which separates them from the envelope's."""


@dataclass(frozen=True, slots=True)
class FoldedStates:
    """States of all events below a position.

    Later instances share `aggregates` and `index`, which only grow: rows past `base` belong to later instances.
    """

    position: int
    aggregates: list[str]
    index: dict[str, int]
    base: Base

    @staticmethod
    def empty(reducer: Reducer) -> FoldedStates:
        return FoldedStates(0, [], {}, Base.initial(reducer, 0))

    def __len__(self) -> int:
        return len(self.base.marks.version)

    def row(self, aggregate: str) -> int | None:
        """The row of an aggregate's state."""
        row = self.index.get(aggregate)
        return row if row is not None and row < len(self) else None

    def take(self, reducer: Reducer, rows: list[int]) -> Reconstructed:
        """The states of some rows."""
        chosen = np.array(rows, np.int64)
        states = self.base.states.take(pa.array(chosen))
        aggregates = [self.aggregates[row] for row in rows]
        return Reconstructed(aggregates, states, derive(reducer, aggregates, states), self.base.marks[chosen])

    def advanced(self, reducer: Reducer, frame: EventFrame) -> FoldedStates:
        """The states after a frame's events."""
        base = self.base
        new = [aggregate for aggregate in frame.aggregates if aggregate not in self.index]
        # A failed fold may have left names without states.
        new = self.aggregates[len(self) :] + new
        if new:
            for aggregate in new:
                if self.index.setdefault(aggregate, len(self.aggregates)) == len(self.aggregates):
                    self.aggregates.append(aggregate)
            more = Base.initial(reducer, len(new))
            states = pa.Table.from_batches([base.states, more.states]).combine_chunks().to_batches()
            base = Base(states[0] if states else more.states, Marks.joined([base.marks, more.marks]))
        members = np.array([self.index[aggregate] for aggregate in frame.aggregates], np.int64)
        base, _ = advance(reducer, base, frame, members)
        last = max(int(table.position.max()) for table in frame.tables.values() if len(table))
        return FoldedStates(last + 1, self.aggregates, self.index, base)

    def encode(self, reducer: Reducer) -> memoryview:
        """The content of a checkpoint: an Arrow IPC file of one batch, a row per state with its envelope."""
        marks, states = self.base.marks, self.base.states
        envelope = [getattr(marks, name) for name in MARKS]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(self.aggregates[: len(self)], pa.string()), *map(pa.array, envelope), *states.columns],
            names=["aggregate_id", *MARKS, *(f"{_STATE}{name}" for name in states.schema.names)],
        )
        metadata = {"eventlab.projection": _FORMAT, "reducer": reducer.name, "fingerprint": reducer.fingerprint}
        schema = batch.schema.with_metadata(metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)
        return memoryview(sink.getvalue())

    @staticmethod
    def decode(reducer: Reducer, content: bytes, position: int) -> FoldedStates:
        """The inverse of `encode`. Other content raises ArrowException, or a built-in exception of Arrow's."""
        reader = pa.ipc.open_file(pa.py_buffer(content))
        metadata, schema = reader.schema.metadata or {}, reducer.layout.arrow_schema
        origin = (metadata.get(b"eventlab.projection"), metadata.get(b"fingerprint"))
        names = [name.removeprefix(_STATE) for name in reader.schema.names if name.startswith(_STATE)]
        if origin != (_FORMAT.encode(), reducer.fingerprint.encode()) or names != schema.names:
            raise ValueError("another format, or states of another reducer")
        batch = reader.get_batch(0)
        states = pa.RecordBatch.from_arrays([batch.column(f"{_STATE}{name}") for name in names], schema=schema)
        states.validate(full=True)
        aggregates = batch.column("aggregate_id").to_pylist()
        index = {aggregate: row for row, aggregate in enumerate(aggregates)}
        if len(index) != len(aggregates):
            raise ValueError("an aggregate is there twice")
        marks = Marks(*(batch.column(name).to_numpy() for name in MARKS))
        return FoldedStates(position, aggregates, index, Base(states, marks))
