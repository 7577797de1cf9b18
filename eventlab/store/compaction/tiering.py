"""Which segments are worth merging. Segments are given by their numbers of events, in position order.

Automatic merging is tiered. A segment of ``n`` events is on tier ``floor(log n)`` to the base `FANOUT`. Where `FANOUT`
segments of one tier lie side by side, with none of a higher one between them, they become one, and whatever smaller
ones lie between them too: the result is on a higher tier, so every merge lifts every event it writes. Segments of
`SMALL_ROWS` and more are left alone. An event that came in a segment of ``n`` is therefore rewritten at most
``ceil(log(SMALL_ROWS / n))`` times: six times where it was sealed all by itself, twice or less where it came in a seal
of the ordinary size.

Merging on request is thorough: all segments under half of what a segment may hold are merged as far as they fit, but
where one holds more than `SMALL_ROWS` events, only when at least as many are added to it. So each request rewrites
fewer than `SMALL_ROWS` events that it need not, and otherwise an event's segment doubles whenever it is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

FANOUT = 8
SMALL_ROWS = 262_144

Span = tuple[int, int]
"""Segments ``start:stop`` of the given ones."""


def tier(rows: int) -> int:
    """The tier of a segment: 0 for fewer than `FANOUT` events, 1 for fewer than its square, and so on."""
    found, bound = 0, FANOUT
    while rows >= bound:
        found, bound = found + 1, bound * FANOUT
    return found


def due(sizes: Sequence[int | None], limit: int) -> Span | None:
    """The next merge that is due by itself; None where none is.

    Parameters
    ----------
    sizes : sequence of int or None
        Events of each segment; None for one that must stay as it is.
    limit : int
        What a segment may hold at most.
    """
    for start, stop in _neighbours(sizes, lambda size: size < SMALL_ROWS and 2 * size < limit):
        tiers = [tier(size or 0) for size in sizes[start:stop]]
        for level in sorted(set(tiers)):
            for begin, end in _neighbours(tiers, lambda found, level=level: found <= level):  # type: ignore[misc]
                if tiers[begin:end].count(level) < FANOUT:
                    continue
                for first, last in _packed(sizes, start + begin, start + end, limit):
                    rows = _sum(sizes, first, last)
                    if last - first > 1 and (tier(rows) > level or 2 * rows >= limit):
                        return first, last
    return None


def wanted(sizes: Sequence[int | None], limit: int) -> Span | None:
    """The next merge of a thorough clean-up; None where all is done."""
    for start, stop in _neighbours(sizes, lambda size: 2 * size < limit):
        for first, last in _packed(sizes, start, stop, limit):
            found = _worthwhile(sizes, first, last)
            if found is not None:
                return found
    return None


def _worthwhile(sizes: Sequence[int | None], start: int, stop: int) -> Span | None:
    if stop - start < 2:
        return None
    largest = max(range(start, stop), key=lambda index: sizes[index] or 0)
    most = sizes[largest] or 0
    if most < SMALL_ROWS or _sum(sizes, start, stop) >= 2 * most:
        return start, stop
    return _worthwhile(sizes, start, largest) or _worthwhile(sizes, largest + 1, stop)


def _sum(sizes: Sequence[int | None], start: int, stop: int) -> int:
    return sum(size or 0 for size in sizes[start:stop])


def _neighbours(sizes: Sequence[int | None], may: Callable[[int], bool]) -> Iterator[Span]:
    """The longest spans of neighbours that may all be merged."""
    start = None
    for index, size in enumerate([*sizes, None]):
        if size is not None and may(size):
            start = index if start is None else start
        elif start is not None:
            yield start, index
            start = None


def _packed(sizes: Sequence[int | None], start: int, stop: int, limit: int) -> Iterator[Span]:
    """A span in pieces that each fit into one segment."""
    rows = 0
    for index in range(start, stop):
        size = sizes[index] or 0
        if index > start and rows + size > limit:
            yield start, index
            start, rows = index, 0
        rows += size
    yield start, stop
