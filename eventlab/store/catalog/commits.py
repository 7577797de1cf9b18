"""Questions about commits and heads, answered from catalog and journal together."""

from __future__ import annotations

import bisect
from collections.abc import Collection

import numpy as np

from eventlab.store.blocks import Int64Array
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.manifest import Knowledge
from eventlab.store.types import Head


class Commits:
    """Reads; call under the store's lock, after a refresh. What takes catalog and journal together sees them as one."""

    def __init__(self, catalog: Catalog, knowledge: Knowledge) -> None:
        self._catalog = catalog
        self._knowledge = knowledge

    def count(self) -> int:
        """Number of commits."""
        with self._knowledge.reading():
            self._knowledge.check_whole()
            sealed = self._catalog.execute("SELECT count(*) FROM commits").fetchone()[0]
            return int(sealed) + len(self._knowledge.ledger.records)

    def heads(self, aggregates: Collection[str] | None) -> list[Head]:
        """Last events of some aggregates or of all, sorted by id; without those that have no events."""
        names = self._knowledge.names
        with self._knowledge.reading():
            self._knowledge.check_whole()
            if aggregates is None:
                found = dict.fromkeys(range(len(names)), (0, -1, 0))
                for no, *head in self._catalog.execute("SELECT no, version, position, timestamp FROM aggregates"):
                    found[no] = tuple(head)
                for no, head in self._knowledge.ledger.heads.items():
                    found[no] = max(found[no], head)
            else:
                numbers = {self._knowledge.numbers[name] for name in aggregates if name in self._knowledge.numbers}
                found = {no: self._knowledge.head(no)[:3] for no in numbers}
        made = (Head(names[no], *head) for no, head in found.items() if head[0])
        return sorted(made, key=lambda head: head.aggregate_id)

    def position_at(self, known_at: int) -> int:
        """First position not yet recorded at `known_at`."""
        query = (
            "SELECT first_position, events, recorded_at FROM commits WHERE first_position <= ? "
            "ORDER BY first_position DESC LIMIT 1"
        )
        self._knowledge.check_whole()
        records = self._knowledge.ledger.records
        at = bisect.bisect_right(records, known_at, key=lambda record: record.recorded_at)
        known = records[at - 1].stop_position if at else 0
        low, high = 0, self._knowledge.stop_position  # sealed commits that begin below low are known, from high on not
        while low < high:
            middle = (low + high) // 2
            row = self._catalog.execute(query, (middle,)).fetchone()
            if row is None:
                low = middle + 1
                continue
            first, events, recorded_at = row
            if recorded_at <= known_at:
                known = max(known, first + events)
                low = max(middle + 1, first + events)
            else:
                high = first
        return known

    def recorded_at(self, positions: Int64Array) -> Int64Array:
        """Commit times, ns UTC, of events at ascending positions."""
        if len(positions) == 0:
            return np.empty(0, dtype=np.int64)
        low, high = int(positions[0]), int(positions[-1])
        rows = self._catalog.execute(
            "SELECT first_position, recorded_at FROM commits WHERE first_position <= ? AND first_position >= "
            "coalesce((SELECT max(first_position) FROM commits WHERE first_position <= ?), 0)",
            (high, low),
        ).fetchall()
        records = self._knowledge.ledger.records
        start = max(bisect.bisect_right(records, low, key=lambda record: record.first_position) - 1, 0)
        stop = bisect.bisect_right(records, high, key=lambda record: record.first_position)
        rows += [(record.first_position, record.recorded_at) for record in records[start:stop]]
        commits = np.array(sorted(rows), dtype=np.int64).reshape(-1, 2)
        recorded: Int64Array = commits[np.searchsorted(commits[:, 0], positions, "right") - 1, 1]
        return recorded

    def digest_at(self, stop_position: int) -> bytes | None:
        """Digest of the commit that ends at a position; None where none does."""
        row = self._catalog.execute(
            "SELECT events + first_position, digest FROM commits WHERE first_position < ? "
            "ORDER BY first_position DESC LIMIT 1",
            (stop_position,),
        ).fetchone()
        if row is not None and row[0] == stop_position:
            return bytes(row[1])
        record = self._knowledge.ledger.record_of(stop_position - 1)
        return record.digest if record is not None and record.stop_position == stop_position else None
