"""EventFrame: the columns that the store hands to folds, per event type and clustered by aggregate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.types import EventType

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EventTable:
    """Rows of one event type.

    Attributes
    ----------
    type : EventType
    offsets : int64 array, shape (aggregates + 1,)
        Rows of the frame's aggregate ``a`` are ``offsets[a]:offsets[a + 1]``, in version order.
    position, version, timestamp : int64 array, shape (rows,)
        The envelope. Timestamps are ns since the epoch, UTC; they ascend in an aggregate unless events are back-dated.
    columns : mapping of str to pyarrow.Array
        The selected payload columns, in the field's canonical Arrow type, one chunk each.
    place : int64 array, shape (rows,), optional
        Set where a fold merges events of several aggregates: each row's rank over all tables, ascending. Without it
        types are merged by version.
    """

    type: EventType
    offsets: Int64Array
    position: Int64Array
    version: Int64Array
    timestamp: Int64Array
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    place: Int64Array | None = None

    @property
    def merged_by(self) -> Int64Array:
        """The key that orders rows of different types."""
        return self.version if self.place is None else self.place

    def __len__(self) -> int:
        return len(self.version)

    def take(self, rows: Int64Array, offsets: Int64Array) -> EventTable:
        """A table of some rows, in which aggregate ``a`` has rows ``offsets[a]:offsets[a + 1]``."""
        chosen = pa.array(rows)
        return EventTable(
            self.type,
            offsets,
            self.position[rows],
            self.version[rows],
            self.timestamp[rows],
            {name: column.take(chosen) for name, column in self.columns.items()},
            None if self.place is None else self.place[rows],
        )


@dataclass(frozen=True, slots=True)
class EventFrame:
    """A contiguous part of the log: all events of the selected types and aggregates.

    A read yields frames in position order; a later frame has higher versions of an aggregate than an earlier one.

    Attributes
    ----------
    aggregates : sequence of str
        Distinct aggregate ids; `EventTable.offsets` follows this order.
    tables : mapping of str to EventTable
        By event type name. A type without rows may be absent.
    """

    aggregates: Sequence[str]
    tables: Mapping[str, EventTable]

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables.values())
