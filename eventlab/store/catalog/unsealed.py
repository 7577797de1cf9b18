"""What the journal says beyond the catalog: commits, heads, new aggregates, clocks, ids and ingested chunks."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

from eventlab.events.types import EventType
from eventlab.store.catalog.database import Catalog
from eventlab.store.journal.journal import Record
from eventlab.store.journal.memtable import part_of
from eventlab.store.types import Receipt


def receipt_of(record: Record) -> Receipt:
    """The receipt of a commit in the journal."""
    return Receipt.of(record.first_position, record.events, record.recorded_at, record.last_version, record.late)


class Ledger:
    """Grows record by record until the tail is sealed; then the catalog says it all, and the ledger is empty."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.heads: dict[int, tuple[int, int, int]] = {}
        self.clocks: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.chunks: dict[tuple[str, int], Record] = {}
        self.backdated: set[int] = set()
        self.rows = self.bytes = 0
        self._ids: dict[str, int] = {}
        self._unread: list[Record] = []

    def learn(self, record: Record) -> None:
        """Take in the next record."""
        self.records.append(record)
        self.rows += record.events
        self.bytes += 0 if record.blob is None else len(record.blob)
        for number, version, position, timestamp in record.unpacked_heads():
            self.heads[number] = (version, position, timestamp)
        if not record.extras:
            return
        first = record.extras.get("from", 0)
        self.names.update(enumerate(record.extras.get("new", ()), first))
        self.clocks.update((int(number), clock) for number, clock in record.extras.get("clocks", {}).items())
        self.backdated.update(record.extras.get("backdated", ()))
        if "source" in record.extras:
            identity, chunk = record.extras["source"]
            self.chunks[identity, chunk] = record
        if record.extras.get("ids"):
            self._unread.append(record)

    def record_of(self, position: int) -> Record | None:
        """The commit that an event came with; None where it is not the journal's."""
        at = bisect.bisect_right(self.records, position, key=lambda record: record.first_position) - 1
        return self.records[at] if at >= 0 and position < self.records[at].stop_position else None

    def ids(self, types: Mapping[int, EventType]) -> Mapping[str, int]:
        """Positions of supplied ids."""
        while self._unread:
            for block in part_of(self._unread[-1:], types).blocks.values():
                if block.event_id is not None:
                    pairs = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
                    self._ids.update((given, position) for given, position in pairs if given is not None)
            self._unread.pop()
        return self._ids

    def write_names(self, catalog: Catalog) -> None:
        """Put the aggregates only the journal has into the catalog, inside a transaction.

        Whoever adds further ones does this first, so that the catalog's numbers have no gaps.
        """
        catalog.executemany(
            "INSERT INTO aggregates VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (no) DO NOTHING",
            [(no, name, *self.heads[no], self.clocks.get(no)) for no, name in self.names.items()],
        )

    def write(self, catalog: Catalog, types: Mapping[int, EventType]) -> None:
        """Put everything into the catalog, inside the transaction that seals the tail."""
        self.write_names(catalog)
        catalog.executemany(
            "UPDATE aggregates SET version = ?2, position = ?3, timestamp = ?4, clock = coalesce(?5, clock) "
            "WHERE no = ?1 AND version < ?2",
            [(no, *head, self.clocks.get(no)) for no, head in self.heads.items()],
        )
        catalog.executemany(
            "INSERT OR IGNORE INTO sources (identity) VALUES (?)", [(source,) for source, _ in self.chunks]
        )
        catalog.executemany(
            "INSERT INTO commits SELECT ?, ?, ?, ?, ?, ?, (SELECT no FROM sources WHERE identity = ?), ?",
            [
                (r.first_position, r.events, r.recorded_at, r.last_version, r.late, r.digest,
                 *r.extras.get("source", (None, None)))
                for r in self.records
            ],
        )  # fmt: skip
        catalog.add_backdated(self.backdated)
        catalog.executemany("INSERT INTO event_ids VALUES (?, ?)", self.ids(types).items())
