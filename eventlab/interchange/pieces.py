"""Frames between files and the log: cut into bounded pieces, and merged by position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import polars as pl

from eventlab.events.types import ENVELOPE, EventType

ROWS = 65_536
TEXT_BYTES = 1 << 24
"""Limits of a piece, in rows and bytes of text. A single row may have more text."""

Piece: TypeAlias = tuple[EventType, pl.DataFrame]


def columns_of(declared: EventType) -> tuple[str, ...]:
    """The exported columns of an event type, in the order of a file."""
    first, last = ENVELOPE[:4], ENVELOPE[4:]
    return (*first, *(field.name for field in declared), *last)


def bounded(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Cut frames into pieces."""
    for frame in frames:
        for part in frame.iter_slices(ROWS):
            yield from _halved(part)


def text_bytes(frame: pl.DataFrame) -> int:
    """Bytes of all text in a frame."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    return sum(int(frame[name].str.len_bytes().sum()) for name in texts)


def _halved(part: pl.DataFrame) -> Iterator[pl.DataFrame]:
    if len(part) < 2 or text_bytes(part) <= TEXT_BYTES:
        yield part
        return
    yield from _halved(part.head(len(part) // 2))
    yield from _halved(part.slice(len(part) // 2))


def merged(sources: Sequence[tuple[EventType, Iterator[pl.DataFrame]]]) -> Iterator[list[Piece]]:
    """Merge sources in position order: groups of at most one piece per type, in ascending positions.

    Each source is in position order. At most a piece of each is in memory.
    """
    heads: dict[int, pl.DataFrame] = {}

    def refill(index: int) -> None:
        frame = next((frame for frame in sources[index][1] if len(frame)), None)
        if frame is not None:
            heads[index] = frame

    for index in range(len(sources)):
        refill(index)
    while heads:
        cut = min(frame["position"][-1] for frame in heads.values())
        group: list[Piece] = []
        for index, frame in sorted(heads.items()):
            rows = int(frame["position"].search_sorted(cut, side="right"))
            if rows:
                group.append((sources[index][0], frame.head(rows)))
            if rows < len(frame):
                heads[index] = frame.slice(rows)
            else:
                del heads[index]
                refill(index)
        yield group
