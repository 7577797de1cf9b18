"""Pruning: which row groups hold the wanted rows, and which rows are left between versions and positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from eventlab.store.blocks import Int64Array, Slab
from eventlab.store.types import UNBOUND


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ReadBounds:
    """Which events of some aggregates a read wants.

    Events up to `after` and from `stop_position` on are left out one by one. By the other bounds only row groups
    without a wanted row are left out.

    Attributes
    ----------
    after : mapping of int to int
        By aggregate number: leave out versions up to and including this one.
    stop_position : int
        Leave out positions from this one on.
    until_version, until_time, since_time, start_position : int
        Row groups with later versions, later or earlier event times, or earlier positions only may be left out.
    backdated : collection of int
        The aggregates that have back-dated events, whose event times do not all ascend.
    """

    after: Mapping[int, int] = field(default_factory=dict)
    stop_position: int = UNBOUND
    until_version: int | None = None
    until_time: int | None = None
    start_position: int = 0
    since_time: int | None = None
    backdated: Collection[int] = ()

    def floors(self, aggregates: Int64Array) -> Int64Array:
        """For each of some aggregates the version up to which its events are left out."""
        return np.array([self.after.get(number, 0) for number in aggregates.tolist()], np.int64)


def groups_and_pieces(
    group_rows: Int64Array, low: Int64Array, high: Int64Array
) -> tuple[list[int], list[tuple[int, int]] | None]:
    """Row groups that hold the ranges ``low:high``, and the pieces to take of the rows read; None to take all.

    If every range is empty, there are no groups, and nothing to cut.
    """
    if len(low) == 1 and low[0] < high[0]:
        return _of_one(group_rows, int(low[0]), int(high[0]))
    if len(low) and low[0] == 0 and high[-1] == group_rows[-1] and np.array_equal(low[1:], high[:-1]):
        return list(range(len(group_rows) - 1)), None  # the whole file, of however many aggregates
    wanted = np.zeros(len(group_rows) - 1, dtype=bool)
    some = high > low
    first = np.searchsorted(group_rows, low[some], "right") - 1
    last = np.searchsorted(group_rows, high[some], "left")
    for start, stop in zip(first, last, strict=True):
        wanted[start:stop] = True
    groups = np.flatnonzero(wanted)
    sizes = np.diff(group_rows)
    # The first row of each row group among the rows read, minus its first row in the file.
    shift = np.zeros(len(wanted), dtype=np.int64)
    shift[groups] = np.cumsum(sizes[groups]) - sizes[groups] - group_rows[groups]
    pieces: list[tuple[int, int]] = []
    for start, stop, group in zip(low[some], high[some], first, strict=True):
        begin = int(start + shift[group])
        end = begin + int(stop - start)
        if pieces and pieces[-1][1] == begin:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((begin, end))
    if not pieces or pieces == [(0, int(sizes[groups].sum()))]:
        return groups.tolist(), None
    return groups.tolist(), pieces


def _of_one(group_rows: Int64Array, low: int, high: int) -> tuple[list[int], list[tuple[int, int]] | None]:
    """`groups_and_pieces` for one range that is not empty: the usual read, of one aggregate."""
    first = int(np.searchsorted(group_rows, low, "right")) - 1
    last = int(np.searchsorted(group_rows, high, "left"))
    begin = int(group_rows[first])
    complete = (low, high) == (begin, int(group_rows[last]))
    return list(range(first, last)), None if complete else [(low - begin, high - begin)]


def trim(slab: Slab, bounds: ReadBounds) -> Slab:
    """A slab without versions up to `bounds.after` and positions from `bounds.stop_position` on."""
    events = slab.events
    if len(slab.aggregates) == 1:
        start = 0
        if floor := bounds.after.get(int(slab.aggregates[0]), 0):
            start = int(np.searchsorted(events.version, floor, "right"))
        stop = int(np.searchsorted(events.position, bounds.stop_position, "left"))
        cut = events.slice(start, max(start, stop))
        return Slab(slab.aggregates[: len(cut)], np.unique([0, len(cut)]), cut)
    counts = np.diff(slab.offsets)
    wanted = events.position < bounds.stop_position
    if bounds.after:
        wanted &= events.version > np.repeat(bounds.floors(slab.aggregates), counts)
    if wanted.all() and counts.all():
        return slab
    left = np.diff(np.concatenate([[0], np.cumsum(wanted)])[slab.offsets])
    some = left > 0
    offsets = np.concatenate([[0], np.cumsum(left[some])])
    return Slab(slab.aggregates[some], offsets, events.take(np.flatnonzero(wanted)))
