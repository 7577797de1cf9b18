"""Reading segments and unsealed commits: clustered frames for folds, rows in position order for people."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np

from eventlab.events.frame import EventFrame
from eventlab.events.types import EventType
from eventlab.runtime import thread_pools as cores
from eventlab.store.blocks import Block, Int64Array, Slab, clustered, concat_blocks, pieces_in_position_order
from eventlab.store.catalog.manifest import Manifest, Segment
from eventlab.store.journal.memtable import Damaged, Part
from eventlab.store.read import select
from eventlab.store.read.select import Request, upcast_for
from eventlab.store.segments.pruning import trim
from eventlab.store.segments.segments import Runs, SegmentFile, Segments

_KEPT_SLABS = 16
_SMALL_ROWS = 65_536
_PIECE_ROWS = 524_288

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Want(Request):
    """A request to segment files: `runs` gives the runs, by a file's number, that may hold wanted events."""

    runs: Callable[[int], Runs | None]
    _runs_in: dict[int, Runs | None] = field(default_factory=dict, repr=False)

    def runs_in(self, file: SegmentFile) -> Runs | None:
        """The runs of a file that may hold events within all bounds; None if there are none."""
        if file.no not in self._runs_in:
            self._runs_in[file.no] = self._within(self.runs(file.no))
        return self._runs_in[file.no]

    def _within(self, runs: Runs | None) -> Runs | None:
        if runs is None:
            return None
        chosen = runs.last_position >= self.start_position
        if self.until_version is not None:
            chosen &= runs.first_version <= self.until_version
        if self.until_time is not None:
            chosen &= runs.low_timestamp <= self.until_time
        if self.since_time is not None:
            chosen &= runs.high_timestamp >= self.since_time
        if chosen.all():
            return runs if len(runs) else None
        return runs.where(chosen) if chosen.any() else None


class Reader:
    """Reads segments and unsealed commits as one log."""

    def __init__(self, segments: Segments, names: Sequence[str]) -> None:
        self._segments = segments
        self._names = names
        self._slabs: OrderedDict[tuple[int, int, int], Slab] = OrderedDict()

    def frames(self, manifest: Manifest, want: Want) -> Iterator[EventFrame]:
        """One frame for each segment and for each stretch of unsealed commits between segments, in position order."""

        def of(piece: Segment | list[Part]) -> list[Slab]:
            if isinstance(piece, list):
                found = list(self._tail_slabs(piece, want))
            else:
                found = list(self._segment_slabs(piece, want))
                if piece.first_position < want.start_position:
                    found = [select.since(slab, want.start_position) for slab in found]
            return [slab for slab in found if len(slab.events)]

        for slabs in self._each(manifest, want, of):
            if slabs:
                yield select.event_frame(list(slabs), self._names)

    def _segment_slabs(self, segment: Segment, want: Want) -> Iterator[Slab]:
        for file in segment.files.values():
            upcast = want.upcast(file.type)
            runs = None if upcast is None else want.runs_in(file)
            if upcast is None or runs is None:
                continue
            yield upcast.slab(self._segments.read(file, runs, upcast.columns, bounds=want))

    def _tail_slabs(self, parts: Sequence[Part], want: Want) -> Iterator[Slab]:
        if want.numbers is not None or want.start_position > parts[0].first_position:
            yield from select.slabs([block for part in parts for block in part.blocks.values()], want)
            return
        for kind, stored in {kind: block.type for part in parts for kind, block in part.blocks.items()}.items():
            upcast = want.upcast(stored)
            if upcast is not None:
                yield upcast.slab(self._whole_tail(parts, kind, upcast.columns, want))

    def _whole_tail(self, parts: Sequence[Part], kind: int, columns: Collection[str], want: Want) -> Slab:
        key = (parts[0].first_position, parts[-1].stop_position, kind)
        slab = self._slabs.get(key)
        if slab is None:
            slab = clustered([part.blocks[kind] for part in parts if kind in part.blocks])
            self._slabs[key] = slab
            while len(self._slabs) > _KEPT_SLABS:
                self._slabs.popitem(last=False)
        slab = Slab(slab.aggregates, slab.offsets, slab.events.only(columns))
        if want.after or want.stop_position < key[1]:
            return trim(slab, want)
        return slab

    def blocks(self, manifest: Manifest, name: str, want: Want, extra: Collection[str]) -> Iterator[Block]:
        """Events of one type within all bounds, in position order."""
        columns = want.columns[name]

        def of(piece: Segment | list[Part]) -> Iterator[Block]:
            found: list[Iterator[Block]] = []
            for kind, stored in _versions(piece, name).items():
                upcast = upcast_for(stored, want.types.get(name), columns)
                if isinstance(piece, Segment):
                    blocks = self._segment_blocks(piece, piece.files[kind], want, upcast.columns, extra)
                else:
                    blocks = _tail_blocks(piece, kind, upcast.columns, want)
                within = (select.within_times(b.between(want.start_position, want.stop_position), want) for b in blocks)
                found.append(map(upcast.of, filter(len, within)))
            return chain.from_iterable(found)

        return _gathered(chain.from_iterable(self._each(manifest, want, of)))

    def _segment_blocks(
        self, segment: Segment, file: SegmentFile, want: Want, columns: Collection[str], extra: Collection[str]
    ) -> Iterator[Block]:
        runs = want.runs_in(file)
        if runs is None:
            return iter(())
        slab = self._segments.read(file, runs, columns, bounds=want, extra=extra)
        return pieces_in_position_order(slab, segment.first_position, segment.stop_position, _PIECE_ROWS)

    def _each(
        self, manifest: Manifest, want: Want, of: Callable[[Segment | list[Part]], Iterable[Found]]
    ) -> Iterator[Iterable[Found]]:
        """What `of` makes of each piece of the log, in order; nothing of pieces outside the bounds.

        Reading a whole file keeps all cores busy. Reading some aggregates of it does not, so several files are then
        read in parallel if they hold enough events; files without any are skipped.
        """

        def read(piece: Segment | Damaged | list[Part]) -> Iterable[Found]:
            if isinstance(piece, list):
                return of(piece)
            if piece.first_position >= want.stop_position or piece.stop_position <= want.start_position:
                return ()
            if not isinstance(piece, Damaged):
                return of(piece)
            if _needs(piece, want):
                raise piece.error(self._segments.where)
            return ()

        pieces = manifest.pieces()
        if want.numbers is not None:
            runs = {id(p): [want.runs_in(file) for file in p.files.values()] for p in pieces if isinstance(p, Segment)}
            pieces = [p for p in pieces if id(p) not in runs or any(found is not None for found in runs[id(p)])]
            rows = [int(found.rows.sum()) for several in runs.values() for found in several if found is not None]
            if len(rows) > 1 and sum(rows) >= _SMALL_ROWS:
                return cores.ahead((partial(read, piece) for piece in pieces), "files")
        return map(read, pieces)


def aggregates_with(manifest: Manifest, types: Collection[str], runs_of: Callable[[int], Runs]) -> Int64Array | None:
    """Numbers of the aggregates that have events of some types; None if lost events may be of any aggregate."""
    found = [np.empty(0, np.int64)]
    for piece in manifest.pieces():
        if isinstance(piece, Damaged):
            if piece.aggregates is None:
                return None
            found.append(np.array(sorted(piece.aggregates), np.int64))
        elif isinstance(piece, Segment):
            found += [runs_of(file.no).aggregate for file in piece.files.values() if file.type.name in types]
        else:
            blocks = [block for part in piece for block in part.blocks.values() if block.type.name in types]
            found += [block.aggregate for block in blocks]
    return np.unique(np.concatenate(found))


def _gathered(blocks: Iterator[Block]) -> Iterator[Block]:
    """The blocks, with small neighbours concatenated: a frame of few rows costs as much as one of thousands.

    A block may be a whole segment, so none stays in memory here while the next is read.
    """
    small: list[Block] = []
    rows = 0
    for block in blocks:
        if small and rows + len(block) > _SMALL_ROWS:
            yield concat_blocks(small)
            small, rows = [], 0
        small.append(block)
        rows += len(block)
        del block
        if rows > _SMALL_ROWS:
            rows = 0
            yield small.pop()
    if small:
        yield concat_blocks(small)


def _needs(piece: Damaged, want: Want) -> bool:
    """Whether a request may want lost events."""
    if piece.aggregates is None or want.numbers is None:
        return True
    return not piece.aggregates.isdisjoint(want.numbers.tolist())


def _versions(piece: Segment | Sequence[Part], name: str) -> dict[int, EventType]:
    """The versions of a type in a segment or stretch of tail, by number.

    They come in position order: a store takes no older one after a newer, so they lie apart.
    """
    if isinstance(piece, Segment):
        found = {kind: file.type for kind, file in piece.files.items() if file.type.name == name}
    else:
        found = {kind: block.type for part in piece for kind, block in part.blocks.items() if block.type.name == name}
    return dict(sorted(found.items(), key=lambda one: one[1].schema_version))


def _tail_blocks(parts: Sequence[Part], kind: int, columns: Collection[str], want: Want) -> Iterator[Block]:
    blocks = [select.wanted_rows(part.blocks[kind], columns, want) for part in parts if kind in part.blocks]
    blocks = [block for block in blocks if len(block)]
    return iter((concat_blocks(blocks),) if blocks else ())
