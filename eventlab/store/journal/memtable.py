"""The memtable: the events of unsealed commits, decoded from the journal's records when first read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blocks import Block, concat_blocks
from eventlab.store.journal.columns_codec import from_blob
from eventlab.store.journal.journal import Record
from eventlab.store.journal.rows_codec import ROWS, number_of, rows_block


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Adjacent unsealed commits, decoded: blocks by event type number. Immutable, so readers may keep it."""

    first_position: int
    stop_position: int
    blocks: Mapping[int, Block]

    def between(self, first: int, stop: int) -> Part:
        """The events at positions ``first:stop``."""
        first, stop = max(first, self.first_position), min(stop, self.stop_position)
        if (first, stop) == (self.first_position, self.stop_position):
            return self
        cut = {kind: block.between(first, stop) for kind, block in self.blocks.items()}
        return Part(first, stop, {kind: b for kind, b in cut.items() if len(b)})


@dataclass(frozen=True, slots=True)
class Damaged:
    """Events that are counted but cannot be read.

    Attributes
    ----------
    aggregates : frozenset of int or None
        Numbers of their aggregates; None where these are unknown.
    """

    first_position: int
    stop_position: int
    what: str
    aggregates: frozenset[int] | None = None

    def error(self, where: str) -> StoreCorrupt:
        """The error for a caller that needs them."""
        return StoreCorrupt(
            f"{where}: positions {self.first_position} to {self.stop_position - 1} are lost: {self.what}",
            hint="Restore the store from a copy. What is intact can be read.",
        )


Piece = Part | Damaged


def part_of(records: Sequence[Record], types: Mapping[int, EventType]) -> Part:
    """Adjacent intact records, decoded. Raises StoreCorrupt for bytes that it cannot have written."""
    grouped: dict[int, list[Block | list[tuple[int, bytes]]]] = {}
    for record in records:
        blob = record.blob or b""
        if blob[:1] == bytes((ROWS,)):  # rows of a type are gathered over many commits, to become arrays once
            found = grouped.setdefault(number_of(blob), [])
            if not found or isinstance(found[-1], Block):
                found.append([])
            rows = found[-1]
            if isinstance(rows, list):
                rows.append((record.first_position, blob))
            continue
        for kind, block in from_blob(blob, types).items():
            grouped.setdefault(kind, []).append(block)
    blocks = {
        kind: concat_blocks([found if isinstance(found, Block) else rows_block(found, types) for found in members])
        for kind, members in grouped.items()
    }
    return Part(records[0].first_position, records[-1].stop_position, blocks)


def merged(parts: Sequence[Part]) -> Part:
    """Adjacent parts as one."""
    if len(parts) == 1:
        return parts[0]
    grouped: dict[int, list[Block]] = {}
    for part in parts:
        for kind, block in part.blocks.items():
            grouped.setdefault(kind, []).append(block)
    return Part(
        parts[0].first_position,
        parts[-1].stop_position,
        {kind: concat_blocks(blocks) for kind, blocks in grouped.items()},
    )


class Memtable:
    """Decoded records, kept so that a read decodes only new ones.

    Parts merge like the digits of a binary counter: there are logarithmically many, and each row is copied that often.
    Reads merge them, so that a writer pays nothing for it.
    """

    def __init__(self) -> None:
        self._pieces: tuple[Piece, ...] = ()
        self._new: list[Record] = []

    def append(self, record: Record) -> None:
        """Add a record at the end."""
        self._new.append(record)

    def pieces(self, types: Mapping[int, EventType]) -> tuple[Piece, ...]:
        """In position order; neighbours may be adjacent or not."""
        if self._new:
            pieces = list(self._pieces)
            for piece in (piece for run in _runs(self._new) for piece in _decoded(run, types)):
                pieces.append(piece)
                while len(pieces) > 1:
                    before, last = pieces[-2:]
                    if isinstance(before, Damaged) or isinstance(last, Damaged) or not _fit(before, last):
                        break
                    pieces[-2:] = [merged((before, last))]
            self._pieces, self._new = tuple(pieces), []
        return self._pieces


def _decoded(run: Sequence[Record], types: Mapping[int, EventType]) -> list[Piece]:
    """Adjacent records as one part; where one of them cannot be read, each by itself."""
    if run[0].blob is None:
        return [_damaged(run[0])]
    try:
        return [part_of(run, types)]
    except StoreCorrupt:
        if len(run) == 1:
            return [_damaged(run[0])]
        return [piece for record in run for piece in _decoded([record], types)]


def _damaged(record: Record) -> Damaged:
    numbers = frozenset(number for number, *_ in record.unpacked_heads())
    return Damaged(record.first_position, record.stop_position, "a small commit is damaged in the journal", numbers)


def _fit(before: Part, last: Part) -> bool:
    adjacent = before.stop_position == last.first_position
    return adjacent and _rows(before) <= 2 * _rows(last)


def _rows(part: Part) -> int:
    return part.stop_position - part.first_position


def _runs(records: Sequence[Record]) -> list[list[Record]]:
    """Stretches of adjacent intact records; a damaged one stands alone."""
    runs: list[list[Record]] = []
    for record in records:
        last = runs[-1][-1] if runs else None
        if last is not None and None not in (last.blob, record.blob) and last.stop_position == record.first_position:
            runs[-1].append(record)
        else:
            runs.append([record])
    return runs


def adjacent_parts(pieces: Sequence[Part]) -> list[Part]:
    """Parts, with adjacent ones merged."""
    runs: list[list[Part]] = []
    for part in pieces:
        if runs and runs[-1][-1].stop_position == part.first_position:
            runs[-1].append(part)
        else:
            runs.append([part])
    return [merged(run) for run in runs]
