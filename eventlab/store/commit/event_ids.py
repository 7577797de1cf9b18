"""Events of the built-in store by id: supplied ids are in catalog and journal, the others are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog.commits import Commits
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.schemas import meaning
from eventlab.store.commit.duplicates import KnownEvents
from eventlab.store.ids import find_computed
from eventlab.store.read.frames import STORED_EXTRA
from eventlab.store.read.reader import Reader, Want
from eventlab.store.read.select import at_positions
from eventlab.store.segments.pruning import ReadBounds
from eventlab.store.types import Receipt


class EventIds(KnownEvents):
    """Finds the events of the built-in store by id."""

    def __init__(self, catalog: Catalog, index: LogIndex, reader: Reader) -> None:
        self._catalog = catalog
        self._index = index
        self._reader = reader
        self._commits = Commits(catalog, index)

    @property
    def names(self) -> Sequence[str]:
        return self._index.names

    def add(self, blocks: Sequence[Block]) -> None:
        """Add the supplied ids of a commit to the catalog."""
        for block in blocks:
            if block.event_id is not None:
                rows = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
                self._catalog.add_ids((given, at) for given, at in rows if given is not None)

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        unsealed = self._index.unsealed.ids(self._index.types_by_number)
        found = {given: unsealed[given] for given in ids if given in unsealed} if unsealed else {}
        found |= self._catalog.positions_of_ids(ids)
        if len(found) < len(ids):
            self._index.check_whole()
        return found

    def receipt_at(self, position: int) -> Receipt:
        commit = self._commits.of(position)
        if commit is None:
            raise StoreCorrupt("no commit has the event of a known id", got=f"position {position}")
        return commit.receipt

    def block_at(self, declared: EventType, positions: Int64Array) -> Block | None:
        first, stop = int(positions.min()), int(positions.max()) + 1
        runs = self._index.runs_of_file
        blocks = self._blocks(declared, numbers=None, start_position=first, stop_position=stop, runs=runs)
        return at_positions(blocks, positions)

    def _blocks(self, declared: EventType, **bounds: Any) -> Iterator[Block]:
        columns = {declared.name: [field.name for field in declared]}
        want = Want(columns=columns, others=False, types={declared.name: declared}, **bounds)
        return self._reader.blocks(self._index.manifest(), declared.name, want, STORED_EXTRA)

    def _readable(self) -> list[EventType]:
        return [meaning(name, self._index.types) for name in self._index.types]

    def _event_at(self, position: int) -> Block:
        for declared in self._readable():
            block = self.block_at(declared, np.array([position], dtype=np.int64))
            if block is not None:
                return block
        raise StoreCorrupt("an event that the catalog counts is not there", got=f"position {position}")

    def find(self, event_id: str) -> Block | None:
        """The one event with an id; see `EventReader.find`."""
        supplied = self.positions([event_id]).get(event_id)
        if supplied is not None:
            return self._event_at(supplied)
        heads = ((name, self._index.head(number)[0]) for number, name in enumerate(self._index.names))
        found = find_computed(self._catalog.store_id, event_id, heads)
        if found is None:
            return None
        name, version = found
        for declared in self._readable():
            block = self._version_of(declared, self._index.numbers[name], version)
            if block is not None:
                return block if block.event_id is None or not block.event_id[0].is_valid else None
        return None

    def _version_of(self, declared: EventType, number: int, version: int) -> Block | None:
        after, stop = {number: version - 1}, self._index.stop_position
        bounds = ReadBounds(after=after, stop_position=stop, until_version=version)
        runs = self._index.runs_of_aggregates([number], bounds)
        numbers = np.array([number])
        for block in self._blocks(declared, numbers=numbers, after=after, stop_position=stop, runs=runs.get):
            at = np.flatnonzero(block.version == version)
            if len(at):
                return block.take(at)
        return None
