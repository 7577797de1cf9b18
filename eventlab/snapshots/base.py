"""Where a reconstruction begins: portable states and the last events they include."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from eventlab.events.frame import Int64Array
from eventlab.fold.reducer import Reducer


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
