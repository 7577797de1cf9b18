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
    """

    type: EventType
    offsets: Int64Array
    position: Int64Array
    version: Int64Array
    timestamp: Int64Array
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

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
        )

    def part(self, low: int, high: int, offsets: Int64Array) -> EventTable:
        """The rows ``low:high`` as a table with other offsets; nothing is copied."""
        return EventTable(
            self.type,
            offsets,
            self.position[low:high],
            self.version[low:high],
            self.timestamp[low:high],
            {name: column[low:high] for name, column in self.columns.items()},
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
