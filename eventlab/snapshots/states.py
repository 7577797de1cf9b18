"""Portable states with the last events that they include: reconstructions begin at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from eventlab.events.frame import Int64Array
from eventlab.fold.declare.reducer import Reducer

MARKS = ("version", "position", "timestamp", "latest")
_BEFORE_ALL = np.int64(-(2**63))


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """The last event included in each state, handled or not: version 0 and position -1 where there is none.

    Attributes
    ----------
    latest : int64 array
        The highest event time included. Only where an event was back-dated it is another than `timestamp`.
    """

    version: Int64Array
    position: Int64Array
    timestamp: Int64Array
    latest: Int64Array

    @staticmethod
    def none(count: int) -> Marks:
        nothing = np.zeros(count, np.int64)
        return Marks(nothing, np.full(count, -1, np.int64), nothing.copy(), np.full(count, _BEFORE_ALL))

    def __getitem__(self, rows: Any) -> Marks:
        return Marks(self.version[rows], self.position[rows], self.timestamp[rows], self.latest[rows])

    def put(self, row: int, other: Marks, at: int) -> None:
        """Replace a row by another's."""
        for name in MARKS:
            getattr(self, name)[row] = getattr(other, name)[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Marks):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in MARKS)

    __hash__ = None  # type: ignore[assignment]

    @staticmethod
    def joined(several: Sequence[Marks]) -> Marks:
        """One after the other."""
        return Marks(*(np.concatenate([getattr(marks, name) for marks in several]) for name in MARKS))


@dataclass(frozen=True, slots=True)
class Base:
    """Where a reconstruction begins: portable states and what they include."""

    states: pa.RecordBatch
    marks: Marks

    @staticmethod
    def initial(reducer: Reducer, count: int) -> Base:
        return Base(reducer.layout.initial(count), Marks.none(count))


@dataclass(frozen=True, slots=True)
class Taken:
    """States to keep, of one aggregate after the other, ascending by version."""

    aggregates: Sequence[str]
    marks: Marks
    states: pa.RecordBatch


def put(states: pa.RecordBatch, part: pa.RecordBatch, members: Int64Array) -> pa.RecordBatch:
    """`states` with the rows `members` replaced by those of `part`."""
    take = np.arange(states.num_rows)
    take[members] = states.num_rows + np.arange(len(members))
    both = pa.Table.from_batches([states, part]).take(pa.array(take)).combine_chunks()
    return both.to_batches()[0]
