"""The states of a projection in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from eventlab.events.frame import EventFrame
from eventlab.fold.declare.reducer import Reducer
from eventlab.projections import checkpoint_format
from eventlab.snapshots.states import Base, Marks
from eventlab.timetravel.advance import advance

_FORMAT = "1"


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

    def take(self, rows: list[int]) -> tuple[list[str], Base]:
        """The aggregates and states of some rows."""
        chosen = np.array(rows, np.int64)
        states = self.base.states.take(pa.array(chosen))
        aggregates = [self.aggregates[row] for row in rows]
        return aggregates, Base(states, self.base.marks[chosen])

    def at(self, position: int) -> FoldedStates:
        """The same states at a later position, if none of their events is in between."""
        return replace(self, position=position)

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
            base = _concatenated(base, Base.initial(reducer, len(new)))
        members = np.array([self.index[aggregate] for aggregate in frame.aggregates], np.int64)
        base, _ = advance(reducer, base, frame, members)
        last = max(int(table.position.max()) for table in frame.tables.values() if len(table))
        return FoldedStates(last + 1, self.aggregates, self.index, base)

    def encode(self, reducer: Reducer) -> memoryview:
        """The content of a checkpoint."""
        metadata = {"eventlab.projection": _FORMAT, "reducer": reducer.name, "fingerprint": reducer.fingerprint}
        aggregates = self.aggregates[: len(self)]
        return memoryview(checkpoint_format.encode(metadata, aggregates, self.base.marks, self.base.states))

    @staticmethod
    def decode(reducer: Reducer, content: bytes, position: int) -> FoldedStates:
        """The inverse of `encode`. Other content raises ValueError, or an error of `checkpoint_format.decode`."""
        stored = checkpoint_format.decode(pa.py_buffer(content))
        origin = (stored.metadata.get("eventlab.projection"), stored.metadata.get("fingerprint"), stored.states.schema)
        if origin != (_FORMAT, reducer.fingerprint, reducer.layout.arrow_schema):
            raise ValueError("another format, or states of another reducer")
        stored.states.validate(full=True)
        index = {aggregate: row for row, aggregate in enumerate(stored.aggregates)}
        if len(index) != len(stored.aggregates):
            raise ValueError("an aggregate is there twice")
        return FoldedStates(position, stored.aggregates, index, Base(stored.states, stored.marks))


def _concatenated(base: Base, more: Base) -> Base:
    states = pa.Table.from_batches([base.states, more.states]).combine_chunks().to_batches()
    marks = Marks.joined([base.marks, more.marks])
    return Base(states[0] if states else more.states, marks)
