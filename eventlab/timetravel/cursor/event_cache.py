"""A cache of one aggregate's decoded events, in blocks of versions and of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from eventlab.events.frame import EventFrame, EventTable, Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.store.api import EventReader, Head, Selection
from eventlab.timetravel.stream import between, by_version, concatenated

VERSIONS = 16_384
"""Versions of a block, as many as a row group has rows. For an order book, folding a block takes a third of the time
that copying the state into a fold and out of it takes."""

BYTES = 64 * 2**20
"""Size of the cache: more than a million changes of a book."""


@dataclass(frozen=True, slots=True)
class CachedEvents:
    """Successive events of one aggregate.

    Attributes
    ----------
    before : int
        The version before its first.
    frame : EventFrame
    position, timestamp : int64 array
        The envelope by version, from that after `before`.
    size : int
        In bytes, at most: of one event type the envelope by version is the table's own.
    """

    before: int
    frame: EventFrame
    position: Int64Array
    timestamp: Int64Array
    size: int

    @staticmethod
    def of(before: int, frames: Sequence[EventFrame]) -> CachedEvents:
        """The events of successive frames, copied: a slice would keep its whole segment in memory."""
        found: dict[str, list[EventTable]] = {}
        for frame in frames:
            for name, table in frame.tables.items():
                found.setdefault(name, []).append(table)
        tables = {name: concatenated(several, _copied_column) for name, several in found.items()}
        position, timestamp = by_version(list(tables.values()), before)
        size = 5 * position.nbytes + sum(c.nbytes for table in tables.values() for c in table.columns.values())
        return CachedEvents(before, EventFrame(frames[0].aggregates, tables), position, timestamp, size)

    @property
    def end(self) -> int:
        """The last version."""
        return self.before + len(self.position)


class EventCache:
    """The events of one aggregate, with the columns that a reducer reads.

    A block lasts from a multiple of `VERSIONS` to the next, or to the aggregate's head. Those that were asked for
    last are kept, up to `BYTES`.

    Attributes
    ----------
    size : int
        In bytes.
    """

    def __init__(self, store: EventReader, reducer: Reducer, aggregate: str) -> None:
        self._store, self._reducer, self._aggregate = store, reducer, aggregate
        self._kept: OrderedDict[int, CachedEvents] = OrderedDict()
        self.size = 0

    def in_memory(self, version: int, head: Head) -> CachedEvents | None:
        """The block with the version after this one, if it is cached and not missing newer events."""
        block = self._kept.get(version // VERSIONS)
        if block is None or block.end < min(block.before + VERSIONS, head.version):
            return None
        self._kept.move_to_end(version // VERSIONS)
        return block

    def after(self, version: int, until: int, head: Head) -> Iterator[CachedEvents]:
        """The blocks with the versions after one, up to another, from memory or else from the store."""
        number, stop = version // VERSIONS, -(-until // VERSIONS)
        if version == until:
            return
        while number < stop:
            block = self.in_memory(number * VERSIONS, head)
            if block is not None:
                number += 1
                yield block
                continue
            missing = number + 1
            while missing < stop and self.in_memory(missing * VERSIONS, head) is None:
                missing += 1
            for found in self._read(number, missing, head):
                self._keep(found)
                yield found
            number = missing

    def _read(self, number: int, stop: int, head: Head) -> Iterator[CachedEvents]:
        """Blocks by number, in one pass over the store."""
        first, end = number * VERSIONS, min(stop * VERSIONS, head.version)
        selection = Selection(
            self._reducer.columns, others=True, aggregates=[self._aggregate],
            after_version={self._aggregate: first} if first else {}, until_version=end,
            stop_position=head.position + 1, types=self._reducer.event_types,
        )  # fmt: skip
        pieces: list[EventFrame] = []
        for frame in self._store.frames(selection):
            last = max(int(table.version[-1]) for table in frame.tables.values() if len(table))
            while first < end:
                until = min(first + VERSIONS, end)
                pieces.append(between(frame, first, until))
                if last < until:
                    break
                yield CachedEvents.of(first, pieces)
                first, pieces = until, []

    def _keep(self, block: CachedEvents) -> None:
        number = block.before // VERSIONS
        old = self._kept.pop(number, None)
        self._kept[number] = block
        self.size += block.size - (old.size if old is not None else 0)
        while self.size > BYTES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self.size -= gone.size


def _copied_column(pieces: Sequence[pa.Array]) -> pa.Array:
    column = pa.concat_arrays(pieces)  # a copy, also of one piece
    # A slice of a large dictionary mostly has strings of other blocks.
    if pa.types.is_dictionary(column.type) and len(column.dictionary) > len(column):
        return pc.dictionary_encode(column.cast(pa.string()))
    return column
