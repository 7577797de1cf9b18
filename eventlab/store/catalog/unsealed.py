"""What the journal adds to the catalog until it is sealed: commits, heads, aggregates, clocks, ids and chunks."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

from eventlab.events.types import EventType
from eventlab.store.catalog.database import Catalog
from eventlab.store.journal.journal import HEAD, Record
from eventlab.store.journal.memtable import part_of


class Unsealed:
    """Grows record by record. A seal writes all of it to the catalog, and an empty one takes its place.

    Attributes
    ----------
    records : list of Record
        The commits of the journal.
    heads, clocks : dict
        By number of the aggregate: version, position and highest event time; and whose clock its times are by.
    names : dict of int to str
        Aggregates that the catalog does not have, by number.
    chunks : dict of (str, int) to Record
        Commits that ingested a chunk of a source.
    backdated : set of int
        Aggregates that got back-dated events.
    rows, bytes : int
        Number of events, and bytes of their blobs.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.heads: dict[int, tuple[int, int, int]] = {}
        self.clocks: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.chunks: dict[tuple[str, int], Record] = {}
        self.backdated: set[int] = set()
        self.rows = self.bytes = 0
        self._ids: dict[str, int] = {}
        self._without_ids: list[Record] = []

    def learn(self, record: Record) -> None:
        """Add the next record."""
        self.records.append(record)
        self.rows += record.events
        self.bytes += 0 if record.blob is None else len(record.blob)
        for number, version, position, timestamp in HEAD.iter_unpack(record.heads):
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
            self._without_ids.append(record)

    def record_of(self, position: int) -> Record | None:
        """The commit that holds a position; None where the journal does not have it."""
        at = bisect.bisect_right(self.records, position, key=lambda record: record.first_position) - 1
        return self.records[at] if at >= 0 and position < self.records[at].stop_position else None

    def ids(self, types: Mapping[int, EventType]) -> Mapping[str, int]:
        """Positions of supplied ids."""
        while self._without_ids:
            for block in part_of(self._without_ids[-1:], types).blocks.values():
                if block.event_id is not None:
                    pairs = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
                    self._ids.update((given, position) for given, position in pairs if given is not None)
            self._without_ids.pop()
        return self._ids

    def write_names(self, catalog: Catalog) -> None:
        """Add the new aggregates to the catalog, inside a transaction.

        A commit that adds further ones to the catalog calls this first, so that its numbers have no gaps.
        """
        self._put_heads(catalog, self.names, self.names)

    def write(self, catalog: Catalog, types: Mapping[int, EventType], names: Sequence[str]) -> None:
        """Write everything to the catalog, inside the transaction that seals it.

        `types` and `names` are all event types and aggregates by number.
        """
        self._put_heads(catalog, self.heads, names)
        catalog.add_commits([(record, record.extras.get("source")) for record in self.records])
        catalog.add_backdated_aggregates(self.backdated)
        catalog.add_ids(self.ids(types).items())

    def _put_heads(
        self, catalog: Catalog, numbers: Mapping[int, object], names: Mapping[int, str] | Sequence[str]
    ) -> None:
        catalog.put_heads([(no, names[no], *self.heads[no], self.clocks.get(no)) for no in sorted(numbers)])
