"""Questions about commits and heads, answered from catalog and journal together."""

from __future__ import annotations

import bisect
from collections.abc import Collection

import numpy as np

from eventlab.store.blocks import Int64Array
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.types import Commit, Head


class Commits:
    """Reads commits and heads. Call it under the store's lock, after a refresh of the index."""

    def __init__(self, catalog: Catalog, index: LogIndex) -> None:
        self._catalog = catalog
        self._index = index

    def count(self) -> int:
        """Number of commits."""
        with self._index.reading():
            self._index.check_whole()
            return self._catalog.count_commits() + len(self._index.unsealed.records)

    def heads(self, aggregates: Collection[str] | None) -> list[Head]:
        """Last events of some aggregates or of all, sorted by id; without those that have no events."""
        names = self._index.names
        with self._index.reading():
            self._index.check_whole()
            if aggregates is None:
                found = {number: (version, *last) for number, version, *last in self._catalog.heads().tolist()}
                for number, head in self._index.unsealed.heads.items():
                    found[number] = max(found.get(number, head), head)
            else:
                numbers = {self._index.numbers[name] for name in aggregates if name in self._index.numbers}
                found = {number: self._index.head(number)[:3] for number in numbers}
        made = (Head(names[number], *head) for number, head in found.items() if head[0])
        return sorted(made, key=lambda head: head.aggregate_id)

    def position_at(self, known_at: int) -> int:
        """First position not yet recorded at `known_at`."""
        self._index.check_whole()
        records = self._index.unsealed.records
        at = bisect.bisect_right(records, known_at, key=lambda record: record.recorded_at)
        known = records[at - 1].stop_position if at else 0
        low, high = 0, self._index.stop_position  # sealed commits before low are known, those from high on are not
        while low < high:
            middle = (low + high) // 2
            commit = self._catalog.commit_at(middle)
            if commit is None:
                low = middle + 1
            elif commit.recorded_at <= known_at:
                known = max(known, commit.stop_position)
                low = max(middle + 1, commit.stop_position)
            else:
                high = commit.first_position
        return known

    def recorded_at(self, positions: Int64Array) -> Int64Array:
        """Commit times, ns UTC, of events at ascending positions."""
        if len(positions) == 0:
            return np.empty(0, dtype=np.int64)
        low, high = int(positions[0]), int(positions[-1])
        records = self._index.unsealed.records
        start = max(bisect.bisect_right(records, low, key=lambda record: record.first_position) - 1, 0)
        stop = bisect.bisect_right(records, high, key=lambda record: record.first_position)
        unsealed = [(record.first_position, record.recorded_at) for record in records[start:stop]]
        commits = np.array(sorted(self._catalog.commit_times(low, high) + unsealed), dtype=np.int64).reshape(-1, 2)
        recorded: Int64Array = commits[np.searchsorted(commits[:, 0], positions, "right") - 1, 1]
        return recorded

    def of(self, position: int) -> Commit | None:
        """The commit that holds a position."""
        return self._index.unsealed.record_of(position) or self._catalog.commit_at(position)

    def digest_at(self, stop_position: int) -> bytes | None:
        """Digest of the commit that ends at a position; None where none does."""
        commit = self.of(stop_position - 1)
        return commit.digest if commit is not None and commit.stop_position == stop_position else None
