"""Proving a store: every event is read back from its bytes, and every number and digest computed anew.

Segments are read one at a time, and a commit that spans several is hashed piece by piece, so memory is bounded by a
segment. Damage does not end the proof: the events after it are proven as far as they can be without the lost ones.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pyarrow as pa

from eventlab.errors import EventlabError, StoreCorrupt
from eventlab.store.blocks import Block, Int64Array, cluster_order, in_position_order, running_maxima
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.manifest import Manifest, Segment
from eventlab.store.catalog.opening import CATALOG_NAME
from eventlab.store.hash_chain import columns as chain
from eventlab.store.journal.files import JOURNALS_NAME
from eventlab.store.journal.memtable import Damaged, Part
from eventlab.store.read.frames import STORED_EXTRA
from eventlab.store.segments.segments import SegmentFile, Segments
from eventlab.store.types import Commit, Damage, Report
from eventlab.store.verify.catalog import CatalogClaims

_MOST_DAMAGE = 100
_NONE = np.iinfo(np.int64).min
_UNREADABLE = (sqlite3.Error, LookupError, TypeError, ValueError, OverflowError, struct.error, pa.ArrowException)


def verify_log(catalog: Catalog, segments: Segments, index: LogIndex) -> Report:
    """Check chain, counts, gapless positions and versions, times, heads, ids and the catalog's tables.

    Commits and seals of other processes meanwhile do not matter: the proof is of the log as it was at the beginning.

    Raises
    ------
    StoreCorrupt
        Something is damaged. The message names the first file, commit or positions, and says how far the log is sound;
        `StoreCorrupt.report` lists all damage, and what was proved.
    """
    with index.reading():
        manifest = index.manifest()
        claims = CatalogClaims(catalog, index, manifest.stop_position)
    check = _LogCheck(catalog, segments, index, manifest, claims)
    with check.naming(CATALOG_NAME, 0, manifest.stop_position):
        check.pieces()
        check.heads()
        check.ids()
    return check.report()


class _LogCheck:
    """Running state of the proof."""

    def __init__(
        self, catalog: Catalog, segments: Segments, index: LogIndex, manifest: Manifest, claims: CatalogClaims
    ) -> None:
        self._where = catalog.where
        self._segments = segments
        self._index = index
        self._manifest = manifest
        self._claims = claims
        count = len(claims.heads)
        self._version = np.zeros(count, dtype=np.int64)
        self._position = np.full(count, -1, dtype=np.int64)
        self._timestamp = np.full(count, _NONE, dtype=np.int64)
        self._unsure = np.zeros(count, dtype=np.bool_)  # aggregates that lost an unknown number of events
        self._is_whole = True  # whether none did so far
        self._backdated = np.empty(0, dtype=np.int64)  # positions in the part at hand
        self._commits = claims.commits()
        self._next = next(self._commits, None)
        self._previous = chain.GENESIS
        self._recorded_at: int | None = None
        self._position_done = 0
        self._open: _Spanning | None = None
        self._damage: list[Damage] = []
        self._more = 0
        self._commits_seen = self._proven_events = self._proven_commits = 0
        for what in claims.problems:
            self.found(what, 0, 0, CATALOG_NAME)
        journal = index.journal
        if journal is not None and journal.head_damage is not None:
            self.found(journal.head_damage, 0, 0, f"{JOURNALS_NAME}/{index.journal_name}")

    def found(self, what: str, first: int, stop: int, file: str | None = None) -> None:
        """Note damage."""
        if len(self._damage) < _MOST_DAMAGE:
            self._damage.append(Damage(what, first, stop, file))
        else:
            self._more += 1

    @contextmanager
    def naming(self, file: str | None, first: int, stop: int) -> Iterator[None]:
        """Note errors that a damaged catalog or file raises as damage."""
        try:
            yield
        except EventlabError as error:
            got = "" if error.got is None else f": {error.got}"
            self.found(error.what.removeprefix(f"{self._where}: ") + got, first, stop, file)
        except _UNREADABLE as error:
            self.found(f"cannot be read ({type(error).__name__}: {error})", first, stop, file)

    # -- pieces

    def pieces(self) -> None:
        """Go through segments and unsealed commits in position order, and through the catalog's commits with them."""
        position = 0
        for part in self._manifest.parts():
            if part.first_position != position:
                self._lost("events are missing" if part.first_position > position else "positions are there twice",
                           position, part.first_position, None)  # fmt: skip
            if isinstance(part, Damaged):
                file = f"{JOURNALS_NAME}/{self._index.journal_name}"
                self._lost(part.what, part.first_position, part.stop_position, file, part.aggregates)
            elif isinstance(part, Segment):
                self._segment(part)
            else:
                self._part(part)
            position = part.stop_position
        if position != self._manifest.stop_position:
            self._lost("events are missing", position, self._manifest.stop_position, None)
        while self._next is not None:
            self._wrong(self._next, "a commit has no events", None)
            self._advance(self._next, proven=False)

    def _segment(self, segment: Segment) -> None:
        before = len(self._damage) + self._more
        first, stop = segment.first_position, segment.stop_position
        blocks: dict[int, Block] = {}
        for kind, file in segment.files.items():
            with self.naming(f"segments/{PurePath(file.name).name}", first, stop):
                blocks[kind] = self._file(segment, file)
        if len(self._damage) + self._more == before:
            self._part(Part(first, stop, blocks))
            return
        for file in segment.files.values():
            with self.naming(CATALOG_NAME, first, stop):
                self._believe(file)
        self._skip(first, stop)

    def _file(self, segment: Segment, file: SegmentFile) -> Block:
        payload = [part.name for part in file.type]
        runs = self._index.runs_of_file(file.no)
        slab = self._segments.read(file, runs, payload, extra=STORED_EXTRA, exact=True)
        names = self._index.names
        self._segments.check_runs(file, runs, slab, [names[number] for number in runs.aggregate.tolist()])
        position = slab.events.position
        if len(position) != file.rows:
            raise StoreCorrupt("the catalog does not know of all its rows", got=len(position), expected=file.rows)
        if len(position) and not (segment.first_position <= position.min() <= position.max() < segment.stop_position):
            raise StoreCorrupt("it holds other positions than its segment")
        return in_position_order(slab, segment.first_position, segment.stop_position)

    def _believe(self, file: SegmentFile) -> None:
        """Take the aggregates' heads after an unreadable file from the catalog."""
        runs = self._index.runs_of_file(file.no)
        known = (runs.aggregate >= 0) & (runs.aggregate < len(self._version))
        runs = runs.where(known)
        later = runs.last_version > self._version[runs.aggregate]
        at = runs.aggregate[later]
        self._version[at], self._position[at] = runs.last_version[later], runs.last_position[later]
        self._timestamp[at] = np.maximum(self._timestamp[at], runs.high_timestamp[later])

    def _lost(
        self, what: str, first: int, stop: int, file: str | None, aggregates: frozenset[int] | None = None
    ) -> None:
        self.found(what, first, stop, file)
        self._is_whole = False
        if aggregates is None:
            self._unsure[:] = True
        else:
            self._unsure[list(aggregates)] = True
        self._skip(first, stop)

    def _skip(self, first: int, stop: int) -> None:
        """Leave out the commits that have events in ``first:stop``, and believe what the catalog says of them."""
        self._open = None
        while self._next is not None and self._next.first_position < stop:
            if self._next.stop_position > stop:
                self._open = _Spanning(None)  # its other events are checked, its digest cannot be
                return
            self._advance(self._next, proven=False)

    def _part(self, part: Part) -> None:
        """Check events that were read, and the commits they are of."""
        first, stop = part.first_position, part.stop_position
        done = False
        with self.naming(None, first, stop):
            versions = self._numbers(part)
            if versions is not None:
                for what in self._claims.check_ids(part):
                    self.found(what, first, stop, CATALOG_NAME)
                self._digests(part, versions)
                done = True
        if not done:
            self._skip(first, stop)

    def _digests(self, part: Part, versions: Int64Array) -> None:
        first, stop = part.first_position, part.stop_position
        while self._next is not None and self._next.first_position < stop:
            commit = self._next
            if self._open is None and commit.first_position >= first and commit.stop_position <= stop:
                blocks = part.between(commit.first_position, commit.stop_position).blocks.values()
                leaves: list[chain.Leaf] | None = [
                    leaf
                    for block in blocks
                    for leaf in chain.block_leaves(block, commit.first_position, commit.events, self._name)
                ]
                backdated = self._backdated_in(commit.first_position, commit.stop_position)
            else:
                if self._open is None:
                    hashes = self._spanned(commit) if commit.first_position >= first else None
                    self._open = _Spanning(hashes)
                begin, end = max(first, commit.first_position), min(stop, commit.stop_position)
                self._open.add(part.between(begin, end))
                self._open.backdated += self._backdated_in(begin, end)
                if commit.stop_position > stop:
                    return
                leaves, backdated = self._open.leaves(), self._open.backdated
                self._open = None
            last_version = int(versions[commit.stop_position - 1 - first])
            proven = leaves is not None and self._fits(commit, leaves, last_version, backdated)
            self._advance(commit, proven=proven)

    def _backdated_in(self, first: int, stop: int) -> int:
        """How many events of the part at hand go back in time, among some positions."""
        low, high = np.searchsorted(self._backdated, (first, stop))
        return int(high - low)

    def _spanned(self, commit: Commit) -> dict[int, chain.Leaves] | None:
        """Hashes for a commit in several segments, by event type number."""
        rows: dict[int, int] = {}
        types = self._index.types_by_number
        for part in self._manifest.parts():
            low, high = max(part.first_position, commit.first_position), min(part.stop_position, commit.stop_position)
            if isinstance(part, Damaged) or low >= high:
                continue
            members = part.files if isinstance(part, Segment) else part.blocks
            for kind, member in members.items():
                if not isinstance(member, SegmentFile):
                    found = len(member.between(low, high))
                elif (low, high) == (part.first_position, part.stop_position):
                    found = member.rows
                else:
                    found = self._rows_between(member, low, high)
                rows[kind] = rows.get(kind, 0) + found
        return {
            kind: chain.Leaves(types[kind], commit.first_position, commit.events, count, self._name)
            for kind, count in rows.items()
            if count
        }

    def _rows_between(self, file: SegmentFile, low: int, high: int) -> int:
        position = self._segments.read(file, self._index.runs_of_file(file.no), (), exact=True).events.position
        return int(((position >= low) & (position < high)).sum())

    def _fits(self, commit: Commit, leaves: list[chain.Leaf], last_version: int, backdated: int) -> bool:
        first, events = commit.first_position, commit.events
        if chain.commit_digest(self._previous, first, events, commit.recorded_at, leaves) != commit.digest:
            self._wrong(commit, "the commit's digest does not fit its events", None)
            return False
        if last_version != commit.last_version:
            self._wrong(commit, "the commit's last version does not fit its events", CATALOG_NAME)
            return False
        claimed = max(-commit.late, 0)
        if backdated > claimed or (self._is_whole and backdated < claimed):
            what = f"event times of {backdated} events go back, where the commit says {claimed}"
            self._wrong(commit, what, CATALOG_NAME)
            return False
        return True

    def _wrong(self, commit: Commit, what: str, file: str | None) -> None:
        self.found(what, commit.first_position, commit.stop_position, file)

    def _advance(self, commit: Commit, *, proven: bool) -> None:
        if self._recorded_at is not None and commit.recorded_at <= self._recorded_at:
            self._wrong(commit, "the commit's recorded_at does not rise", None)
            proven = False
        first, done = commit.first_position, self._position_done
        if first != done:
            self.found("commits do not follow each other without gap", done, first, CATALOG_NAME)
        self._commits_seen += 1
        if proven:
            self._proven_commits += 1
            self._proven_events += commit.events
        self._previous, self._recorded_at, self._position_done = commit.digest, commit.recorded_at, commit.stop_position
        self._next = next(self._commits, None)

    def _name(self, number: int) -> str:
        return self._index.names[number]

    # -- numbers

    def _numbers(self, part: Part) -> Int64Array | None:
        """Positions without gap, and inside each aggregate versions without gap; notes which event times go back.

        Gives every event's version in position order; None where the positions do not fit.
        """
        first, stop = part.first_position, part.stop_position
        blocks = list(part.blocks.values())
        place = np.concatenate([block.position for block in blocks]) - first if blocks else np.empty(0, dtype=np.int64)
        seen = np.zeros(stop - first, dtype=np.bool_)
        if len(place) == stop - first and place.min() >= 0 and place.max() < stop - first:
            seen[place] = True
        if not seen.all():
            self.found("positions are not gapless", first, stop)
            return None
        aggregate, version, timestamp = (np.empty(stop - first, dtype=np.int64) for _ in range(3))
        aggregate[place] = np.concatenate([block.aggregate for block in blocks])
        version[place] = np.concatenate([block.version for block in blocks])
        timestamp[place] = np.concatenate([block.timestamp for block in blocks])
        if aggregate.min() < 0 or aggregate.max() >= len(self._version):
            self.found("it has events of aggregates that the catalog does not know", first, stop)
            return None
        self._grouped(first, stop, aggregate, version, timestamp)
        return version

    def _grouped(self, first: int, stop: int, aggregate: Int64Array, version: Int64Array, time: Int64Array) -> None:
        order = cluster_order(aggregate)
        at = np.arange(len(aggregate)) if order is None else order
        aggregate, version, time = aggregate[at], version[at], time[at]
        starts = np.flatnonzero(np.diff(aggregate, prepend=-1))
        ends = np.append(starts[1:], len(aggregate)) - 1
        members = aggregate[starts]
        sure = ~self._unsure[members]
        before = np.empty_like(version)
        before[1:] = version[:-1]
        before[starts] = np.where(sure, self._version[members], version[starts] - 1)
        wrong = version != before + 1
        if wrong.any():
            name = self._name(int(aggregate[int(np.argmax(wrong))]))
            self.found(f"versions of {name!r} are not gapless", first, stop)
        highest = np.where(sure, self._timestamp[members], _NONE)
        reached = running_maxima(time, starts, highest)
        late = np.flatnonzero(time < reached)
        self._backdated = first + np.sort(at[late])
        for number in sorted(set(aggregate[late].tolist()) - self._index.backdated):
            self.found(f"event times of {self._name(number)!r} go back, which the catalog does not say", first, stop)
        self._version[members], self._timestamp[members] = version[ends], reached[ends]
        self._position[members] = first + at[ends]
        self._unsure[members] = False

    def heads(self) -> None:
        """Every aggregate stands where its last event does."""
        heads = self._claims.heads
        found = np.column_stack([self._version, self._position, self._timestamp])
        known = self._version > 0
        wrong = ((found != heads).any(axis=1) & known) | (~known & (heads[:, 0] != 0))
        for number in np.flatnonzero(wrong & ~self._unsure).tolist():
            self.found(f"the head of {self._name(number)!r} does not fit its events", 0, 0, CATALOG_NAME)

    def ids(self) -> None:
        """Every id of the catalog is that of an event."""
        if not self._damage and (count := self._claims.ids_without_events()):
            self.found(f"there are {count} event ids that no event has", 0, 0, CATALOG_NAME)

    # -- the result

    def report(self) -> Report:
        """The result; raises StoreCorrupt with it where there is damage."""
        events = self._manifest.stop_position
        affected = [piece.first_position for piece in self._damage if piece.stop_position > piece.first_position]
        report = Report(
            events, self._commits_seen, len(self._version), len(self._manifest.segments),
            self._claims.head_digest, not self._damage, self._proven_events, self._proven_commits,
            min(affected, default=events), tuple(self._damage),
        )  # fmt: skip
        if report.ok:
            return report
        count = len(self._damage) + self._more
        others = "" if count == 1 else f", and {count - 1} more"
        error = StoreCorrupt(
            f"{self._where}: {self._damage[0]}{others}; {self._proven_events} of {events} events are proven, and all "
            f"before position {report.sound_until}",
            hint="Restore the store from a copy. What is intact can be read.",
        )
        error.report = report
        raise error


@dataclass(eq=False)
class _Spanning:
    """A commit whose events come in several pieces. Without `hashes` they cannot be proven to be its own."""

    hashes: dict[int, chain.Leaves] | None
    backdated: int = 0

    def add(self, part: Part) -> None:
        if self.hashes is not None:
            for kind, block in part.blocks.items():
                self.hashes[kind].add(block)

    def leaves(self) -> list[chain.Leaf] | None:
        if self.hashes is None:
            return None
        return [leaf for hashing in self.hashes.values() for leaf in hashing.done()]
