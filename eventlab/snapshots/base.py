"""Where a reconstruction begins: portable states and the last events they include."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from eventlab.events.frame import Int64Array
from eventlab.fold.declaration import Reducer


@dataclass(frozen=True, slots=True)
class Marks:
    """The last event included in each state, handled or not: version 0 and position -1 where there is none."""

    version: Int64Array
    position: Int64Array
    timestamp: Int64Array

    @staticmethod
    def none(count: int) -> Marks:
        return Marks(np.zeros(count, np.int64), np.full(count, -1, np.int64), np.zeros(count, np.int64))


@dataclass(frozen=True, slots=True)
class Base:
    """Where a reconstruction begins: portable states and what they include."""

    states: pa.RecordBatch
    marks: Marks

    @staticmethod
    def initial(reducer: Reducer, count: int) -> Base:
        return Base(reducer.layout.initial(count), Marks.none(count))


def put(states: pa.RecordBatch, part: pa.RecordBatch, members: Int64Array) -> pa.RecordBatch:
    """`states` with the rows `members` replaced by those of `part`."""
    take = np.arange(states.num_rows)
    take[members] = states.num_rows + np.arange(len(members))
    both = pa.Table.from_batches([states, part]).take(pa.array(take)).combine_chunks()
    return both.to_batches()[0]
