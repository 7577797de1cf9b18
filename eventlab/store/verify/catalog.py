"""What the catalog says of commits, heads and ids, to be compared with the events."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from eventlab.store.blocks import Int64Array
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.journal.memtable import Part
from eventlab.store.types import Commit


class CatalogClaims:
    """The catalog and the unsealed commits as they were when this was made, inside a transaction.

    Attributes
    ----------
    heads : int64 array, shape (aggregates, 3)
        Version and position of every aggregate's last event, and its highest event time, journal included.
    head_digest : str or None
        The last commit's digest, hexadecimal.
    problems : list of str
        What is wrong with the tables.
    """

    def __init__(self, catalog: Catalog, index: LogIndex, stop_position: int) -> None:
        self._catalog = catalog
        self._stop = stop_position
        self._records = list(index.unsealed.records)
        self._unsealed = {record.first_position for record in self._records}
        self.head_digest = None if index.digest is None else index.digest.hex()
        self.heads = self._heads(index)
        self.problems = catalog.contradictions()
        self._ids = catalog.count_ids()
        self._ids_seen = 0

    def _heads(self, index: LogIndex) -> Int64Array:
        heads = np.zeros((len(index.names), 3), dtype=np.int64)
        heads[:, 1] = -1
        table = self._catalog.heads()
        table = table[(table[:, 0] >= 0) & (table[:, 0] < len(heads))]
        heads[table[:, 0]] = table[:, 1:]
        for number, head in index.unsealed.heads.items():
            if head[0] > heads[number, 0]:
                heads[number] = head
        return heads

    def commits(self) -> Iterator[Commit]:
        """All commits in position order. Others may write, and seal, meanwhile."""
        sealed = (c for c in self._catalog.commits(-1, self._stop) if c.first_position not in self._unsealed)
        return heapq.merge(sealed, self._records, key=lambda commit: commit.first_position)

    def check_ids(self, part: Part) -> Iterator[str]:
        """What is wrong with the positions of supplied ids of some events."""
        if part.first_position in self._unsealed:
            return
        for block in part.blocks.values():
            if block.event_id is None:
                continue
            pairs = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
            supplied = {given: at for given, at in pairs if given is not None}
            known = self._catalog.positions_of_ids(list(supplied))
            self._ids_seen += len(supplied)
            if known != supplied:
                wrong = next(given for given in supplied if known.get(given) != supplied[given])
                yield f"the event id {wrong!r} is not at its event's position"

    def ids_without_events(self) -> int:
        """How many ids no event has; call it after the ids of all events were checked."""
        return self._ids - self._ids_seen
