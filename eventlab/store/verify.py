"""Proving a store: everything is read back from its bytes, and every number and digest computed anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eventlab.errors import StoreCorrupt
from eventlab.store import chain
from eventlab.store.blocks import Block, in_position_order
from eventlab.store.catalog import Catalog
from eventlab.store.public import STORED_EXTRA
from eventlab.store.segments import Segments
from eventlab.store.tail import Part, merged, part_of
from eventlab.store.view import Knowledge, Segment, View


@dataclass(frozen=True, slots=True)
class Report:
    """What was proved. `head` is the last commit's digest, hexadecimal; None for an empty store.

    There is a report only where all is well: damage raises StoreCorrupt.
    """

    events: int
    commits: int
    aggregates: int
    segments: int
    head: str | None
    ok: Literal[True] = True


@dataclass(frozen=True, slots=True)
class _Commit:
    first: int
    events: int
    recorded_at: int
    digest: bytes

    @property
    def stop(self) -> int:
        return self.first + self.events


TailRow = tuple[int, int, int, bytes]
"""First and stop position, checksum, blob."""


def verify_log(catalog: Catalog, segments: Segments, knowledge: Knowledge) -> Report:
    """Check chain, counts, gapless positions and versions, times and heads against the stored bytes.

    The catalog is read in one transaction, so that commits and seals of other processes meanwhile do not matter.

    Raises
    ------
    StoreCorrupt
        At the first proof of damage: names the file, commit or positions.
    """
    with catalog.reading():
        knowledge.refresh()
        view = knowledge.view()
        tail = catalog.execute(
            "SELECT first_position, stop_position, crc, events FROM tail ORDER BY first_position"
        ).fetchall()
        commits = [
            _Commit(*row)
            for row in catalog.execute("SELECT first_position, events, recorded_at, digest FROM commits ORDER BY 1")
        ]
        heads = catalog.execute("SELECT no, version, position, timestamp FROM aggregates ORDER BY no").fetchall()
        damage = catalog.execute("PRAGMA quick_check").fetchone()[0]
    if damage != "ok":
        raise _corrupt(catalog, "the catalog is damaged", damage, None)
    check = _Check(catalog, knowledge, len(heads))
    check.chain(commits, _stored_parts(catalog, segments, knowledge, view, tail))
    check.heads(heads)
    digest = commits[-1].digest.hex() if commits else None
    return Report(view.stop_position, len(commits), len(heads), len(view.segments), digest)


def _corrupt(catalog: Catalog, what: str, got: object, expected: object) -> StoreCorrupt:
    return StoreCorrupt(f"{catalog.where}: {what}", got=got, expected=expected, hint="Restore the store from a copy.")


def _stored_parts(
    catalog: Catalog, segments: Segments, knowledge: Knowledge, view: View, tail: Sequence[TailRow]
) -> Iterator[Part]:
    """Segments and tail as they lie on disk, in position order."""
    pieces: list[Segment | TailRow] = [*view.segments, *tail]
    for piece in sorted(pieces, key=lambda piece: piece.first_position if isinstance(piece, Segment) else piece[0]):
        if isinstance(piece, Segment):
            yield _segment_part(segments, knowledge, piece)
        else:
            yield part_of(piece, knowledge.types_by_number, catalog.where)


def _segment_part(segments: Segments, knowledge: Knowledge, segment: Segment) -> Part:
    blocks = {}
    for name, file in segment.files.items():
        payload = [field.name for field in file.type]
        runs = knowledge.runs_of_file(file)
        slab = segments.read(file, runs, payload, extra=STORED_EXTRA, exact=True)
        segments.check_runs(file, runs, slab, [knowledge.names[int(number)] for number in runs.aggregate])
        blocks[name] = in_position_order(slab, segment.first_position, segment.stop_position)
    return Part(segment.first_position, segment.stop_position, 0, 0, blocks)


class _Check:
    """Running state of the proof."""

    def __init__(self, catalog: Catalog, knowledge: Knowledge, aggregates: int) -> None:
        self._catalog = catalog
        self._knowledge = knowledge
        self._version = np.zeros(aggregates, dtype=np.int64)
        self._position = np.full(aggregates, -1, dtype=np.int64)
        self._timestamp = np.full(aggregates, np.iinfo(np.int64).min, dtype=np.int64)

    def chain(self, commits: list[_Commit], parts: Iterator[Part]) -> None:
        """Go through commits and stored parts side by side; neither need end where the other does."""
        previous, position, recorded_at = chain.GENESIS, 0, None
        held: Part | None = None
        for commit in commits:
            where = f"commit at positions {commit.first} to {commit.stop - 1}"
            if commit.first != position:
                raise self._fail("positions are not gapless", commit.first, position)
            if recorded_at is not None and commit.recorded_at <= recorded_at:
                raise self._fail(f"{where}: recorded_at does not rise", commit.recorded_at, f"above {recorded_at}")
            while held is None or held.stop_position < commit.stop:
                part = next(parts, None)
                if part is None or (held is not None and part.first_position != held.stop_position):
                    raise self._fail(f"{where}: events are missing", None, f"{commit.events} events")
                self._numbers(part)
                held = part if held is None else merged((held, part))
            digest = self._digest(held.between(commit.first, commit.stop), previous, commit)
            if digest != commit.digest:
                raise self._fail(f"{where}: the digest does not fit the events", digest.hex(), commit.digest.hex())
            held = held.between(commit.stop, held.stop_position) if held.stop_position > commit.stop else None
            previous, position, recorded_at = digest, commit.stop, commit.recorded_at
        if held is not None or next(parts, None) is not None:
            raise self._fail("there are events that no commit has", None, None)

    def _digest(self, part: Part, previous: bytes, commit: _Commit) -> bytes:
        leaves = []
        for block in part.blocks.values():
            leaves += chain.block_leaves(block, commit.first, commit.events, self._knowledge.names.__getitem__)
        return chain.commit_digest(previous, commit.first, commit.events, commit.recorded_at, leaves)

    def _numbers(self, part: Part) -> None:
        """Positions without gap, and inside each aggregate versions without gap and times that do not go back."""
        where = f"positions {part.first_position} to {part.stop_position - 1}"
        blocks: list[Block] = list(part.blocks.values())
        position = np.concatenate([block.position for block in blocks]) if blocks else np.empty(0, dtype=np.int64)
        order = np.argsort(position, kind="stable")
        if not np.array_equal(position[order], np.arange(part.first_position, part.stop_position)):
            raise self._fail(f"{where}: positions are not gapless", None, None)
        aggregate = np.concatenate([block.aggregate for block in blocks])[order]
        version = np.concatenate([block.version for block in blocks])[order]
        timestamp = np.concatenate([block.timestamp for block in blocks])[order]
        grouping = np.argsort(aggregate, kind="stable")
        aggregate, version, timestamp = aggregate[grouping], version[grouping], timestamp[grouping]
        starts = np.flatnonzero(np.diff(aggregate, prepend=-1))
        stops = np.append(starts[1:], len(aggregate))
        members = aggregate[starts]
        before_version, before_time = np.empty_like(version), np.empty_like(timestamp)
        before_version[1:], before_time[1:] = version[:-1], timestamp[:-1]
        before_version[starts], before_time[starts] = self._version[members], self._timestamp[members]
        if (version != before_version + 1).any():
            raise self._fail(f"{where}: versions are not gapless", None, None)
        if (timestamp < before_time).any():
            raise self._fail(f"{where}: event times go back", None, None)
        self._version[members], self._timestamp[members] = version[stops - 1], timestamp[stops - 1]
        self._position[members] = part.first_position + grouping[stops - 1]

    def heads(self, heads: list[tuple[int, int, int, int]]) -> None:
        for no, *head in heads:
            found = [int(self._version[no]), int(self._position[no]), int(self._timestamp[no])]
            if found != head:
                raise self._fail(f"the head of {self._knowledge.names[no]!r} does not fit its events", head, found)

    def _fail(self, what: str, got: object, expected: object) -> StoreCorrupt:
        return _corrupt(self._catalog, what, got, expected)
