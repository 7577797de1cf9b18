"""Reading: clustered frames for folds and rows in position order for people, from segments and tail alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eventlab.events.frame import EventFrame, EventTable
from eventlab.store.blocks import Block, Int64Array, Slab, clustered, in_position_order, joined
from eventlab.store.segments import Runs, SegmentFile, Segments, trim
from eventlab.store.tail import Part
from eventlab.store.view import Segment, View

_KEPT_SLABS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """A resolved request: aggregates by number, columns by event type name.

    `numbers` None means all aggregates. `runs` gives the runs of a file that may hold wanted events.
    """

    columns: Mapping[str, Collection[str]]
    others: bool
    numbers: Int64Array | None
    after: Mapping[int, int]
    stop_position: int
    runs: Callable[[SegmentFile], Runs | None]
    until_version: int | None = None
    until_time: int | None = None


class Reader:
    """Composes segments and tail into what a store hands out."""

    def __init__(self, segments: Segments, names: Sequence[str]) -> None:
        self._segments = segments
        self._names = names
        self._slabs: OrderedDict[tuple[int, int, str], Slab] = OrderedDict()

    def frames(self, view: View, want: Want) -> Iterator[EventFrame]:
        """One frame a segment, and one for each stretch of tail between segments, in position order."""
        for piece in view.pieces():
            if isinstance(piece, Segment):
                slabs = list(self._segment_slabs(piece, want)) if piece.first_position < want.stop_position else []
            else:
                slabs = list(self._tail_slabs(piece, want))
            slabs = [slab for slab in slabs if len(slab.events)]
            if slabs:
                yield self._frame(slabs)

    def _segment_slabs(self, segment: Segment, want: Want) -> Iterator[Slab]:
        for name, file in segment.files.items():
            columns = want.columns.get(name, () if want.others else None)
            runs = None if columns is None else want.runs(file)
            if columns is None or runs is None:
                continue
            chosen = np.ones(len(runs), dtype=bool)
            if want.until_version is not None:
                chosen &= runs.first_version <= want.until_version
            if want.until_time is not None:
                chosen &= runs.first_timestamp <= want.until_time
            runs = runs.where(chosen)
            if not len(runs):
                continue
            yield self._segments.read(
                file,
                runs,
                columns,
                after=want.after,
                stop_position=want.stop_position,
                stop=None if want.until_time is None else want.until_time + 1,
                until_version=want.until_version,
            )

    def _tail_slabs(self, parts: Sequence[Part], want: Want) -> Iterator[Slab]:
        for name in dict.fromkeys(name for part in parts for name in part.blocks):
            columns = want.columns.get(name, () if want.others else None)
            if columns is None:
                continue
            if want.numbers is None:
                yield self._whole_tail(parts, name, columns, want)
                continue
            blocks = [_chosen(part.blocks[name], columns, want.numbers, want) for part in parts if name in part.blocks]
            blocks = [block for block in blocks if len(block)]
            if blocks:
                yield clustered(joined(blocks))

    def _whole_tail(self, parts: Sequence[Part], name: str, columns: Collection[str], want: Want) -> Slab:
        key = (parts[0].first_position, parts[-1].stop_position, name)
        slab = self._slabs.get(key)
        if slab is None:
            slab = clustered(joined([part.blocks[name] for part in parts if name in part.blocks]))
            self._slabs[key] = slab
            while len(self._slabs) > _KEPT_SLABS:
                self._slabs.popitem(last=False)
        slab = Slab(slab.aggregates, slab.offsets, slab.events.only(columns))
        if want.after or want.stop_position < key[1]:
            return trim(slab, want.after, want.stop_position)
        return slab

    def _frame(self, slabs: Sequence[Slab]) -> EventFrame:
        union = slabs[0].aggregates
        if any(not np.array_equal(slab.aggregates, union) for slab in slabs[1:]):
            union = np.unique(np.concatenate([slab.aggregates for slab in slabs]))
        tables = {}
        for slab in slabs:
            events = slab.events
            offsets = slab.offsets
            if slab.aggregates is not union:
                counts = np.zeros(len(union) + 1, dtype=np.int64)
                counts[1 + np.searchsorted(union, slab.aggregates)] = np.diff(slab.offsets)
                offsets = np.cumsum(counts)
            tables[events.type.name] = EventTable(
                events.type, offsets, events.position, events.version, events.timestamp, events.columns
            )
        return EventFrame([self._names[number] for number in union.tolist()], tables)

    def blocks(
        self,
        view: View,
        name: str,
        want: Want,
        extra: Collection[str],
        *,
        first_position: int = 0,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Block]:
        """Events of one type in position order, from a position on, with event times in ``start:stop``."""
        columns = want.columns[name]
        for piece in view.pieces():
            block: Block | None = None
            if isinstance(piece, Segment):
                overlaps = piece.first_position < want.stop_position and piece.stop_position > first_position
                if overlaps and name in piece.files:
                    block = self._segment_block(piece, piece.files[name], want, columns, extra, start, stop)
            else:
                block = _tail_block(piece, name, columns, want)
            if block is None:
                continue
            block = _timed(block.between(first_position, want.stop_position), start, stop)
            if len(block):
                yield block

    def _segment_block(
        self,
        segment: Segment,
        file: SegmentFile,
        want: Want,
        columns: Collection[str],
        extra: Collection[str],
        start: int | None,
        stop: int | None,
    ) -> Block | None:
        runs = want.runs(file)
        if runs is None:
            return None
        chosen = np.ones(len(runs), dtype=bool)
        if start is not None:
            chosen &= runs.last_timestamp >= start
        if stop is not None:
            chosen &= runs.first_timestamp < stop
        runs = runs.where(chosen)
        if not len(runs):
            return None
        slab = self._segments.read(
            file, runs, columns, after=want.after, stop_position=want.stop_position, extra=extra, start=start, stop=stop
        )
        return in_position_order(slab, segment.first_position, segment.stop_position)


def _tail_block(parts: Sequence[Part], name: str, columns: Collection[str], want: Want) -> Block | None:
    blocks = [part.blocks[name] for part in parts if name in part.blocks]
    if want.numbers is None:
        blocks = [block.only(columns) for block in blocks]
    else:
        blocks = [_chosen(block, columns, want.numbers, want) for block in blocks]
    blocks = [block for block in blocks if len(block)]
    return joined(blocks) if blocks else None


def _chosen(block: Block, columns: Collection[str], numbers: Int64Array, want: Want) -> Block:
    block = block.between(0, want.stop_position).only(columns)
    if len(numbers) == 1:
        wanted = block.aggregate == numbers[0]
        floor = want.after.get(int(numbers[0]), 0)
        if floor:
            wanted &= block.version > floor
    else:
        wanted = np.isin(block.aggregate, numbers)
        if want.after:
            known, places = np.unique(block.aggregate, return_inverse=True)
            floors = np.array([want.after.get(int(number), 0) for number in known], dtype=np.int64)
            wanted &= block.version > floors[places]
    return _rows(block, np.flatnonzero(wanted))


def _timed(block: Block, start: int | None, stop: int | None) -> Block:
    if start is None and stop is None:
        return block
    wanted = np.ones(len(block), dtype=bool)
    if start is not None:
        wanted &= block.timestamp >= start
    if stop is not None:
        wanted &= block.timestamp < stop
    return _rows(block, np.flatnonzero(wanted))


def _rows(block: Block, rows: Int64Array) -> Block:
    if len(rows) == 0:
        return block.slice(0, 0)
    low, high = int(rows[0]), int(rows[-1]) + 1
    return block.slice(low, high) if high - low == len(rows) else block.take(rows)
