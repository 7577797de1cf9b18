"""Writing: a commit is checked, numbered, chained and encoded, then put into the journal or into segment files."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from eventlab.errors import EventlabError, StoreError
from eventlab.events.types import EventType
from eventlab.store.blocks import Block
from eventlab.store.catalog.connection import translated
from eventlab.store.catalog.database import SourceChunk
from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.catalog.schemas import check_writable
from eventlab.store.commit import validate
from eventlab.store.commit.duplicates import earlier_receipt
from eventlab.store.commit.event_ids import EventIds
from eventlab.store.commit.group_commit import GroupCommit, PreparedEnd
from eventlab.store.commit.numbering import NumberedCommit, commit_time, number_batches, number_rows
from eventlab.store.commit.seal import Sealer
from eventlab.store.hash_chain import columns as column_digests
from eventlab.store.hash_chain import rows as row_digests
from eventlab.store.journal.columns_codec import to_blob
from eventlab.store.journal.journal import HEAD, Record
from eventlab.store.journal.rows_codec import rows_blob
from eventlab.store.read.subscriptions import Handlers
from eventlab.store.types import Batch, Commit, Late, Receipt

BULK_ROWS = 8_192
"""A commit of this many events goes straight into segment files; one of fewer is a record of the journal."""

UNSEALED_COMMITS, UNSEALED_ROWS, UNSEALED_BYTES = 16_384, 262_144, 32 * 1024 * 1024
"""The journal is sealed when it passes any of these."""


@dataclass(slots=True, eq=False)
class Committed:
    """The outcome of a commit.

    Attributes
    ----------
    aggregates : collection of str
        Those that got events; none where an earlier receipt came back, or for a commit without events.
    new_segments : bool
        Whether the catalog has segments more than before.
    """

    receipt: Receipt
    aggregates: Collection[str] = ()
    new_segments: bool = False


class Writer:
    """Adds events. Call its methods with the store's lock held once, in a thread that has the right to write."""

    def __init__(self, store: OpenStore, event_ids: EventIds, clock: Callable[[], int], handlers: Handlers) -> None:
        self._store = store
        self._catalog = store.catalog
        self._index = store.index
        self._event_ids = event_ids
        self._sealer = Sealer(store)
        self._clock = clock
        self._handlers = handlers
        self._group = GroupCommit(store, handlers)

    def commit(
        self, batches: Sequence[Batch], expected: Mapping[str, int], late: Late, source: SourceChunk | None
    ) -> Committed:
        """Add events durably; see `Store.commit`. Others get the store's lock while this thread syncs."""
        try:
            made = self._commit(batches, expected, late, source)
        except (sqlite3.Error, OSError) as error:
            raise translated(error, self._catalog.where) from error
        unsealed = self._index.unsealed
        is_full = len(unsealed.records) >= UNSEALED_COMMITS or unsealed.rows >= UNSEALED_ROWS
        if made.aggregates and (is_full or unsealed.bytes >= UNSEALED_BYTES):
            with contextlib.suppress(StoreError):  # the commit is safe as it is; the next one tries again
                self.seal()
                return Committed(made.receipt, made.aggregates, new_segments=True)
        return made

    def _commit(
        self, batches: Sequence[Batch], expected: Mapping[str, int], late: Late, source: SourceChunk | None
    ) -> Committed:
        try:
            validate.check_late(late)
            end = self._group.end()
            rows = None if source else validate.check_rows(batches, self._index.type_numbers, self._index.types)
            quick = None if rows is None else self._record_of_rows(end, rows, expected, late)
            prepared = quick or self._record_of_batches(end, batches, expected, late, source)
        except BaseException as error:
            if not isinstance(error, EventlabError):  # an interrupt
                self._group.forget_end()
            raise
        if isinstance(prepared, Committed):
            return prepared
        end, record, heads = prepared
        self._group.write(end, record, heads)
        return Committed(record.receipt, [head.name for head in heads])

    def _record_of_rows(
        self, end: PreparedEnd, rows: validate.CheckedRows, expected: Mapping[str, int], late: Late
    ) -> tuple[PreparedEnd, Record, list[validate.PendingHead]] | None:
        """The journal's record of a few plain rows; None where they need `_record_of_batches`."""
        head = self._head(end, rows.aggregate_id, 0)
        if expected:
            validate.check_expected(expected, lambda name: self._head(end, name, 0).version)
        found = number_rows(rows, head, end.stop, self._clock, end.recorded_at, late)
        if found is None:
            return None
        numbered, backdated = found
        digest, blob = row_digests.digest(end.digest, numbered), rows_blob(numbered)
        extras = self._extras(end, [head], {}, None, has_ids=False) if head.is_new or backdated else {}
        packed = HEAD.pack(head.no, head.version, head.position, head.timestamp)
        record = Record(
            end.stop, len(rows.rows), -backdated, numbered.recorded_at, head.version, digest, packed, extras, blob
        )
        return end, record, [head]

    def _record_of_batches(
        self,
        end: PreparedEnd,
        batches: Sequence[Batch],
        expected: Mapping[str, int],
        late: Late,
        source: SourceChunk | None,
    ) -> tuple[PreparedEnd, Record, list[validate.PendingHead]] | Committed:
        """The journal's record of a commit; or the outcome of one that is large, empty, or there already."""
        items, names = validate.check_batches(batches)
        has_ids = any(item.batch.event_id is not None for item in items)
        known = all(self._is_known(item.batch.type) for item in items)
        rows = sum(item.rows for item in items)
        if source is not None or has_ids or not known or rows >= BULK_ROWS:
            self._group.drain()  # ids and chunks of prepared commits are not known yet
            end = self._group.end()
        earlier = None if source is None else self.chunk_receipt(*source)
        earlier = earlier or earlier_receipt(self._event_ids, items, names, late)
        if earlier is not None:
            return Committed(earlier)
        heads = self._heads(end, names)
        validate.check_expected(expected, lambda name: self._head(end, name, 0).version)
        if not items:
            return Committed(Receipt(end.stop - 1, 0, 0, end.stop, end.recorded_at or 0))
        clocks = [head.clock for head in heads]
        validate.check_clocks(items, heads)
        new_clocks = {head.no: head.clock for head, clock in zip(heads, clocks, strict=True) if head.clock != clock}
        types = check_writable([item.batch.type for item in items], self._index.types_by_number.values())
        recorded_at = commit_time(self._clock, end.recorded_at)
        numbered = number_batches(items, heads, end.stop, recorded_at, late)
        if numbered.events >= BULK_ROWS:
            return self._write_bulk(numbered, heads, types, recorded_at, source)
        blocks = self._with_numbers(numbered.blocks, types)
        digest = _digest(end.digest, numbered, self._name_of(heads), recorded_at)
        record = Record(
            end.stop,
            numbered.events,
            numbered.late,
            recorded_at,
            numbered.last_version,
            digest,
            b"".join(HEAD.pack(head.no, head.version, head.position, head.timestamp) for head in heads),
            self._extras(end, heads, new_clocks, source, has_ids=has_ids),
            to_blob(blocks),
        )
        return end, record, heads

    def _extras(
        self,
        end: PreparedEnd,
        heads: Sequence[validate.PendingHead],
        clocks: Mapping[int, str | None],
        source: SourceChunk | None,
        *,
        has_ids: bool,
    ) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        new = [head.name for head in heads if head.is_new]
        if new:
            extras |= {"from": len(self._index.names) + len(end.new), "new": new}
        backdated = [head.no for head in heads if head.backdated and head.no not in self._index.backdated]
        if backdated:
            extras["backdated"] = backdated
        if clocks:
            extras["clocks"] = clocks
        if source is not None:
            extras["source"] = source
        if has_ids:
            extras["ids"] = True
        return extras

    def drain(self) -> None:
        """Finish the commits of all threads; do so before the catalog is changed."""
        self._group.drain()

    def seal(self) -> int:
        """Turn the journal's commits into segments; returns the number of events."""
        self._group.drain()
        return self._sealer.seal()

    # -- bulk

    def _write_bulk(
        self,
        numbered: NumberedCommit,
        heads: Sequence[validate.PendingHead],
        types: Mapping[str, EventType],
        recorded_at: int,
        source: SourceChunk | None,
    ) -> Committed:
        index, catalog = self._index, self._catalog
        first, stop = numbered.first_position, numbered.first_position + numbered.events
        if index.journal is not None:
            index.journal.settle()  # the commits before must not be less durable than these segments
        new = [(head.no, head.name) for head in heads if head.is_new]
        name_of = self._name_of(heads)
        previous = index.digest or column_digests.GENESIS
        try:
            with self._store.transaction() as written:
                blocks = dict(self._with_numbers(numbered.blocks, types))
                index.unsealed.write_names(catalog)
                catalog.put_heads([(h.no, h.name, h.version, h.position, h.timestamp, h.clock) for h in heads])
                backdated = [head.no for head in heads if head.backdated]
                catalog.add_backdated_aggregates(backdated)
                with ThreadPoolExecutor(max_workers=1) as pool:  # hashing releases the GIL, and so does encoding
                    proving = pool.submit(_digest, previous, numbered, name_of, recorded_at)
                    segments = self._sealer.write(blocks, first, stop, name_of, written)
                    digest = proving.result()
                commit = Commit(first, numbered.events, numbered.late, recorded_at, numbered.last_version, digest)
                catalog.add_commits([(commit, source)])
                self._event_ids.add(numbered.blocks)
            self._group.forget_end()
            for number, name in new:
                index.learn_name(number, name)
            index.refresh_types()
            index.backdated.update(backdated)
            for segment in segments:
                index.learn_segment(segment)
            index.learn_commit(commit)
            if index.journal is not None:
                with contextlib.suppress(OSError):
                    index.journal.note(stop)
        except BaseException:  # an interrupt: the commit stands, and the index reads it back
            index.forget()
            raise
        self._handlers.enqueue(first, stop, numbered.blocks)
        return Committed(commit.receipt, [head.name for head in heads], new_segments=True)

    # -- aggregates

    def _head(self, end: PreparedEnd, name: str, new: int) -> validate.PendingHead:
        """A copy of an aggregate's head; `new` aggregates of the commit get their numbers before it."""
        known = end.heads.get(name)
        if known is not None:
            return validate.PendingHead(
                known.no, name, known.version, known.position, known.timestamp, known.clock, is_new=False
            )
        number = self._index.numbers.get(name)
        if number is None:
            return validate.PendingHead(len(self._index.names) + len(end.new) + new, name, 0, -1, 0, None, is_new=True)
        version, position, timestamp, clock = self._index.head(number)
        return validate.PendingHead(number, name, version, position, timestamp, clock, is_new=False)

    def _heads(self, end: PreparedEnd, names: Sequence[str]) -> list[validate.PendingHead]:
        heads: list[validate.PendingHead] = []
        new = 0
        for name in names:
            head = self._head(end, name, new)
            new += head.is_new
            heads.append(head)
        return heads

    def _name_of(self, heads: Sequence[validate.PendingHead]) -> Callable[[int], str]:
        new = {head.no: head.name for head in heads}
        names = self._index.names
        return lambda number: new[number] if number in new else names[number]

    # -- event types

    def _is_known(self, declared: EventType) -> bool:
        return (declared.name, declared.schema_version) in self._index.type_numbers

    def _with_numbers(self, blocks: Sequence[Block], used: Mapping[str, EventType]) -> list[tuple[int, Block]]:
        """Blocks with their types' numbers; types new to the store are added to it first."""
        for declared in used.values():
            if not self._is_known(declared):
                self.register(declared)
        numbers = self._index.type_numbers
        return [(numbers[block.type.name, block.type.schema_version], block) for block in blocks]

    def register(self, declared: EventType) -> None:
        """Add an event type to the store, in a transaction of its own unless there is one."""
        if self._catalog.in_transaction:
            self._add_type(declared)
        else:
            with self._store.transaction():
                self._add_type(declared)
        self._index.refresh_types()

    def _add_type(self, declared: EventType) -> None:
        self._index.refresh_types()  # another process may have been first
        check_writable([declared], self._index.types_by_number.values())
        if not self._is_known(declared):
            self._catalog.add_event_type(len(self._index.types_by_number), declared)

    # -- ingested sources

    def finish_source(self, identity: str, receipt: str) -> None:
        with self._store.transaction():
            self._catalog.finish_source(identity, receipt)

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        commit = self._index.unsealed.chunks.get((identity, chunk)) or self._catalog.commit_of_chunk(identity, chunk)
        if commit is None:
            self._index.check_whole()
        return None if commit is None else commit.receipt


def _digest(previous: bytes, numbered: NumberedCommit, name_of: Callable[[int], str], recorded_at: int) -> bytes:
    first, count = numbered.first_position, numbered.events
    leaves = [leaf for block in numbered.blocks for leaf in column_digests.block_leaves(block, first, count, name_of)]
    return column_digests.commit_digest(previous, first, count, recorded_at, leaves)
