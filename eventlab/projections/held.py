"""What a projection has in memory, and its stored form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from eventlab.events.frame import EventFrame
from eventlab.fold.declare.reducer import Reducer
from eventlab.projections import form
from eventlab.snapshots.states import Base, Marks
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.reconstruct import advance

_FORMAT = "1"
_LATEST = AsOf()


@dataclass(frozen=True, slots=True)
class Held:
    """States of all events below a position.

    `aggregates` and `index` only grow, and are shared by later ones: rows past `base` are not of this one.
    """

    position: int
    aggregates: list[str]
    index: dict[str, int]
    base: Base

    @staticmethod
    def empty(reducer: Reducer) -> Held:
        return Held(0, [], {}, Base.initial(reducer, 0))

    def __len__(self) -> int:
        return len(self.base.marks.version)

    def row(self, aggregate: str) -> int | None:
        """Where an aggregate's state is."""
        row = self.index.get(aggregate)
        return row if row is not None and row < len(self) else None

    def take(self, rows: list[int]) -> tuple[list[str], Base]:
        """Some rows, and whose they are."""
        chosen = np.array(rows, np.int64)
        states = self.base.states.take(pa.array(chosen))
        aggregates = [self.aggregates[row] for row in rows]
        return aggregates, Base(states, self.base.marks[chosen])

    def at(self, position: int) -> Held:
        """The same states, where no event of theirs lies between."""
        return replace(self, position=position)

    def advanced(self, reducer: Reducer, frame: EventFrame) -> Held:
        """With a frame's events folded in."""
        base = self.base
        new = [aggregate for aggregate in frame.aggregates if aggregate not in self.index]
        # A fold that failed may have left names behind which have no state yet.
        new = self.aggregates[len(self) :] + new
        if new:
            for aggregate in new:
                if self.index.setdefault(aggregate, len(self.aggregates)) == len(self.aggregates):
                    self.aggregates.append(aggregate)
            base = _joined(base, Base.initial(reducer, len(new)))
        members = np.array([self.index[aggregate] for aggregate in frame.aggregates], np.int64)
        base, _ = advance(reducer, base, frame, members, _LATEST)
        last = max(int(table.position.max()) for table in frame.tables.values() if len(table))
        return Held(last + 1, self.aggregates, self.index, base)

    def encode(self, reducer: Reducer) -> memoryview:
        """The content of a checkpoint."""
        described = {"eventlab.projection": _FORMAT, "reducer": reducer.name, "fingerprint": reducer.fingerprint}
        return memoryview(form.encode(described, self.aggregates[: len(self)], self.base.marks, self.base.states))

    @staticmethod
    def decode(reducer: Reducer, content: bytes, position: int) -> Held:
        """From a checkpoint's content. Raises ValueError, and what `form.decode` does, where it is something else."""
        kept = form.decode(pa.py_buffer(content))
        said = (kept.described.get("eventlab.projection"), kept.described.get("fingerprint"), kept.states.schema)
        if said != (_FORMAT, reducer.fingerprint, reducer.layout.arrow_schema):
            raise ValueError("another format, or another reducer's states")
        kept.states.validate(full=True)
        index = {aggregate: row for row, aggregate in enumerate(kept.aggregates)}
        if len(index) != len(kept.aggregates):
            raise ValueError("an aggregate twice")
        return Held(position, kept.aggregates, index, Base(kept.states, kept.marks))


def _joined(base: Base, more: Base) -> Base:
    states = pa.Table.from_batches([base.states, more.states]).combine_chunks().to_batches()
    marks = Marks.joined([base.marks, more.marks])
    return Base(states[0] if states else more.states, marks)
