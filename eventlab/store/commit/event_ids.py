"""Event ids: supplied ones are unique and make an append idempotent; the others are computed when asked for."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import DuplicateEvent, InvalidEvent, StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.api import Late, Receipt
from eventlab.store.blocks import Block, Int64Array, decoded, joined
from eventlab.store.catalog.commits import Commits
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.schemas import meaning
from eventlab.store.commit.validate import CheckedBatch
from eventlab.store.read.frames import event_id_of
from eventlab.store.read.reader import Reader, Want

_LONGEST_ID = 200
_EXTRA = ("cause", "event_id", "metadata")


class EventIds:
    """Finds events by id, and compares them with events that come with the same ids."""

    def __init__(self, catalog: Catalog, index: LogIndex, reader: Reader) -> None:
        self._catalog = catalog
        self._index = index
        self._reader = reader
        self._commits = Commits(catalog, index)

    def add(self, blocks: Sequence[Block]) -> None:
        """Add the supplied ids of a commit to the catalog."""
        for block in blocks:
            if block.event_id is not None:
                rows = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
                self._catalog.add_ids((given, at) for given, at in rows if given is not None)

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Positions of the ids that are there."""
        unsealed = self._index.unsealed.ids(self._index.types_by_number)
        found = {given: unsealed[given] for given in ids if given in unsealed} if unsealed else {}
        found |= self._catalog.positions_of_ids(ids)
        if len(found) < len(ids):
            self._index.check_whole()
        return found

    def earlier_receipt(self, items: Sequence[CheckedBatch], names: Sequence[str], late: Late) -> Receipt | None:
        """The receipt of the commit that brought all these events before; None where none of them is there.

        Raises
        ------
        DuplicateEvent
            An id twice in the call, only some of the events there, or one there with other content.
        """
        per_item = [None if i.batch.event_id is None else i.batch.event_id.to_pylist() for i in items]
        ids = [given for supplied in per_item for given in supplied or () if given is not None]
        if not ids:
            return None
        _check_ids(ids)
        found = self.positions(ids)
        if not found:
            return None
        if len(found) < len(ids) or len(ids) < sum(item.rows for item in items):
            raise DuplicateEvent(
                "some events of the call are there already and some are not",
                got=next(iter(found)),
                expected="all of them, or none",
                hint="Append the new ones in a call of their own.",
            )
        last_version = 0
        places = sorted(found.values())
        rows = _places_by_row(items, per_item, found)
        for item, supplied in zip(items, per_item, strict=True):
            positions = np.array([found[given] for given in supplied or ()], dtype=np.int64)
            stored = self._compare(item, positions, rows, names, late)
            at_end = np.flatnonzero(stored.position == places[-1])
            last_version = int(stored.version[at_end[0]]) if len(at_end) else last_version
        receipt = self._receipt_of(places[-1])
        if (receipt.first_position, receipt.count) == (places[0], len(places)):
            return receipt
        return Receipt(places[-1], last_version, len(places), places[0], receipt.recorded_at)

    def _receipt_of(self, position: int) -> Receipt:
        """The receipt of the commit that brought an event."""
        commit = self._commits.of(position)
        if commit is None:
            raise StoreCorrupt("no commit has the event of a known id", got=f"position {position}")
        return commit.receipt

    def _compare(
        self, item: CheckedBatch, positions: Int64Array, places: Int64Array, names: Sequence[str], late: Late
    ) -> Block:
        """The stored events of an item, whose content must be the same. `places` are positions by row of the call."""
        stored = self._block_at(item.batch.type, positions)
        if stored is None:
            raise _other_content(item, 0, "event_type")
        names_stored = [self._index.names[number] for number in stored.aggregate.tolist()]
        given = (
            [names[item.aggregate]] * item.rows
            if isinstance(item.aggregate, int)
            else [names[i] for i in item.aggregate]
        )
        _same([a == b for a, b in zip(names_stored, given, strict=True)], item, "aggregate_id")
        for index, field in enumerate(item.batch.type):
            _same(_equal(stored.columns[field.name], item.payload.column(index)), item, field.name)
        given_at = item.batch.timestamp
        if given_at is not None:  # clamped times are higher than given ones
            stored_at = stored.timestamp
            _same(stored_at >= given_at if late == "clamp" else stored_at == given_at, item, "timestamp")
        cause = np.full(item.rows, -1) if stored.cause is None else np.maximum(stored.cause, -1)
        wanted = np.full(item.rows, -1) if item.batch.cause is None else np.maximum(item.batch.cause, -1)
        if item.batch.cause_row is not None:
            row = np.asarray(item.batch.cause_row)
            wanted = np.where(row >= 0, places[np.maximum(row, 0)], wanted)
        _same(cause == wanted, item, "cause")
        texts = [None] * item.rows if stored.metadata is None else decoded(stored.metadata).to_pylist()
        texts_given = decoded(item.metadata).to_pylist() if isinstance(item.metadata, pa.DictionaryArray) else None
        _same(
            [a == b for a, b in zip(texts, texts_given or [item.metadata] * item.rows, strict=True)], item, "metadata"
        )
        return stored

    def _block_at(self, declared: EventType, positions: Int64Array) -> Block | None:
        """Events of a type at some positions, in the order given; None unless all are of that type."""
        order = np.argsort(positions)
        ordered = positions[order]
        manifest = self._index.manifest()
        columns = {declared.name: [field.name for field in declared]}
        types = {declared.name: declared}
        want = Want(columns, False, None, {}, int(ordered[-1]) + 1, self._index.runs_of_file, types=types)
        rows = []
        blocks = self._reader.blocks(manifest, declared.name, want, _EXTRA, first_position=int(ordered[0]))
        for block in blocks:
            at = np.flatnonzero(np.isin(block.position, ordered))
            if len(at):
                rows.append(block.take(at))
        if sum(len(block) for block in rows) < len(positions):
            return None
        return joined(rows).take(np.argsort(order, kind="stable"))

    def _readable(self) -> list[EventType]:
        return [meaning(name, self._index.types) for name in self._index.types]

    def _event_at(self, position: int) -> Block:
        for declared in self._readable():
            block = self._block_at(declared, np.array([position], dtype=np.int64))
            if block is not None:
                return block
        raise StoreCorrupt("an event that the catalog counts is not there", got=f"position {position}")

    def find(self, event_id: str) -> Block | None:
        """The one event with an id; see `EventLog.find`."""
        supplied = self.positions([event_id]).get(event_id)
        if supplied is not None:
            return self._event_at(supplied)
        found = self._uncomputed(event_id)
        if found is None:
            return None
        number, version = found
        for declared in self._readable():
            block = self._version_of(declared, number, version)
            if block is not None:
                return block if block.event_id is None or not block.event_id[0].is_valid else None
        return None

    def _uncomputed(self, event_id: str) -> tuple[int, int] | None:
        """The aggregate's number and the version that make up a computed id."""
        try:
            wanted = uuid.UUID(event_id)
        except ValueError:
            return None
        if wanted.version != 5 or str(wanted) != event_id:
            return None
        start = hashlib.sha1(uuid.UUID(self._catalog.store_id).bytes, usedforsecurity=False)
        # A name-based UUID is the first 16 bytes of a SHA-1 with six bits overwritten; compare those before them.
        prefix = wanted.bytes[:6]
        for number, name in enumerate(self._index.names):
            head = self._index.head(number)[0]
            end = f"@{name}".encode()
            for version in range(1, head + 1):
                attempt = start.copy()
                attempt.update(b"%d" % version + end)
                if attempt.digest()[:6] == prefix and event_id_of(self._catalog.store_id, name, version) == event_id:
                    return number, version
        return None

    def _version_of(self, declared: EventType, number: int, version: int) -> Block | None:
        columns = {declared.name: [field.name for field in declared]}
        after, stop = {number: version - 1}, self._index.stop_position
        runs = self._index.runs_of_aggregates([number], after, stop, version)
        types = {declared.name: declared}
        want = Want(columns, False, np.array([number]), after, stop, lambda file: runs.get(file.no), types=types)
        for block in self._reader.blocks(self._index.manifest(), declared.name, want, _EXTRA):
            at = np.flatnonzero(block.version == version)
            if len(at):
                return block.take(at)
        return None


def _places_by_row(
    items: Sequence[CheckedBatch], ids: Sequence[Sequence[str] | None], found: Mapping[str, int]
) -> Int64Array:
    """Stored positions of a call's events by row; causes inside the call refer to rows."""
    places = np.empty(sum(item.rows for item in items), dtype=np.int64)
    first = 0
    for item, supplied in zip(items, ids, strict=True):
        rows = np.arange(first, first + item.rows) if item.batch.order is None else np.asarray(item.batch.order)
        places[rows] = [found[given] for given in supplied or ()]
        first += item.rows
    return places


def _check_ids(ids: Sequence[str]) -> None:
    for given in ids:
        if not given or len(given) > _LONGEST_ID:
            raise InvalidEvent("not an event id", got=given, expected=f"text of 1 to {_LONGEST_ID} characters")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(given for given in ids if given in seen or seen.add(given))  # type: ignore[func-returns-value]
        raise DuplicateEvent("an event id comes twice in the call", got=twice)


def _equal(stored: pa.Array, given: pa.Array) -> npt.NDArray[np.bool_]:
    if pa.types.is_dictionary(stored.type):
        stored, given = decoded(stored), decoded(given)
    elif pa.types.is_floating(stored.type):  # by bits: -0.0 is another value than 0.0
        stored, given = stored.view(pa.int64()), given.view(pa.int64())
    same = pc.or_(pc.fill_null(pc.equal(stored, given), False), pc.and_(stored.is_null(), given.is_null()))
    return np.asarray(same.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _same(flags: Sequence[bool] | npt.NDArray[np.bool_], item: CheckedBatch, what: str) -> None:
    wrong = np.flatnonzero(~np.asarray(flags, dtype=bool))
    if len(wrong):
        raise _other_content(item, int(wrong[0]), what)


def _other_content(item: CheckedBatch, row: int, what: str) -> DuplicateEvent:
    given = None if item.batch.event_id is None else item.batch.event_id[row].as_py()
    return DuplicateEvent(
        f"an event with this id is there already with another {what}",
        got=given,
        hint="Give a changed event an id of its own.",
    )
