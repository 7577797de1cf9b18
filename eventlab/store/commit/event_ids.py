"""Events of a built-in store by id: supplied ids are in catalog and journal, the others are computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.manifest import Knowledge
from eventlab.store.catalog.schemas import meaning
from eventlab.store.catalog.unsealed import receipt_of as receipt_of_record
from eventlab.store.commit.duplicates import Known
from eventlab.store.ids import find_computed
from eventlab.store.read.reader import Reader, Want
from eventlab.store.read.select import at_positions
from eventlab.store.types import Receipt

_ASKED_AT_ONCE = 500
_EXTRA = ("cause", "event_id", "metadata")

COMMIT = "first_position, events, recorded_at, last_version, clamped"
"""Columns of a commit that make a receipt."""


class Identities(Known):
    """Looks up the events of a built-in store by id."""

    def __init__(self, catalog: Catalog, knowledge: Knowledge, reader: Reader) -> None:
        self._catalog = catalog
        self._knowledge = knowledge
        self._reader = reader

    @property
    def names(self) -> Sequence[str]:
        return self._knowledge.names

    def insert(self, blocks: Sequence[Block]) -> None:
        """Record the supplied ids of a commit."""
        for block in blocks:
            if block.event_id is not None:
                rows = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
                self._catalog.executemany(
                    "INSERT INTO event_ids VALUES (?, ?)", ((given, at) for given, at in rows if given is not None)
                )

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        recent = self._knowledge.ledger.ids(self._knowledge.types_by_number)
        found = {given: recent[given] for given in ids if given in recent} if recent else {}
        for start in range(0, len(ids), _ASKED_AT_ONCE):
            asked = ids[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            found.update(self._catalog.execute(f"SELECT * FROM event_ids WHERE event_id IN ({marks})", asked))  # noqa: S608  constants; values are bound
        if len(found) < len(ids):
            self._knowledge.check_whole()
        return found

    def receipt_at(self, position: int) -> Receipt:
        record = self._knowledge.ledger.record_of(position)
        if record is not None:
            return receipt_of_record(record)
        commit = self._catalog.execute(
            f"SELECT {COMMIT} FROM commits WHERE first_position <= ? ORDER BY first_position DESC LIMIT 1",  # noqa: S608  constants; values are bound
            (position,),
        ).fetchone()
        return Receipt.of(*commit)

    def block_at(self, declared: EventType, positions: Int64Array) -> Block | None:
        columns = {declared.name: [field.name for field in declared]}
        types, first, stop = {declared.name: declared}, int(positions.min()), int(positions.max()) + 1
        want = Want(columns, False, None, {}, stop, types=types, runs=self._knowledge.runs_of_file)
        view = self._knowledge.view()
        return at_positions(self._reader.blocks(view, declared.name, want, _EXTRA, first_position=first), positions)

    def _readable(self) -> list[EventType]:
        return [meaning(name, self._knowledge.types) for name in self._knowledge.types]

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
        heads = ((name, self._knowledge.head(number)[0]) for number, name in enumerate(self._knowledge.names))
        found = find_computed(self._catalog.store_id, event_id, heads)
        if found is None:
            return None
        name, version = found
        for declared in self._readable():
            block = self._version_of(declared, self._knowledge.numbers[name], version)
            if block is not None:
                return block if block.event_id is None or not block.event_id[0].is_valid else None
        return None

    def _version_of(self, declared: EventType, number: int, version: int) -> Block | None:
        columns = {declared.name: [field.name for field in declared]}
        after, stop = {number: version - 1}, self._knowledge.stop_position
        runs = self._knowledge.runs_of_aggregates([number], after, stop, version)
        types = {declared.name: declared}
        want = Want(columns, False, np.array([number]), after, stop, types=types, runs=lambda file: runs.get(file.no))
        for block in self._reader.blocks(self._knowledge.view(), declared.name, want, _EXTRA):
            at = np.flatnonzero(block.version == version)
            if len(at):
                return block.take(at)
        return None
