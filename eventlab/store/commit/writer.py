"""Writing: checks and numbers a commit, then puts it into the journal or, where it is large, into segment files.

A small commit is *prepared* under the store's lock, which makes it the log's next, and then *finished*: whoever comes
first writes and syncs all that is prepared, and the others only wait. Large commits, and everything else that changes
the catalog, wait until nothing is in between.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from eventlab.errors import EventlabError, StoreError
from eventlab.events.columns import metadata_json
from eventlab.events.rows import Rows
from eventlab.events.types import EventType
from eventlab.store.blocks import Block
from eventlab.store.catalog.database import Catalog, as_store_error, translated
from eventlab.store.catalog.manifest import Knowledge
from eventlab.store.catalog.schemas import check_writable
from eventlab.store.catalog.transaction import transaction
from eventlab.store.catalog.unsealed import receipt_of as receipt_of_record
from eventlab.store.commit.duplicates import earlier_receipt
from eventlab.store.commit.event_ids import COMMIT, Identities
from eventlab.store.commit.seal import Sealer
from eventlab.store.commit.validate import (
    Assigned,
    Stream,
    assign,
    check_aggregate_id,
    check_clocks,
    check_expected,
    commit_time,
    incoming,
)
from eventlab.store.disk.writer_lock import Exclusive
from eventlab.store.hash_chain import columns as chain
from eventlab.store.hash_chain import rows as row_chain
from eventlab.store.journal import rows_codec as row_blob
from eventlab.store.journal.columns_codec import to_blob
from eventlab.store.journal.files import Journals
from eventlab.store.journal.journal import HEAD, Record
from eventlab.store.read.reader import Reader
from eventlab.store.segments.files import Vault
from eventlab.store.types import Batch, Late, Receipt

BULK_ROWS = 8_192
"""A commit of this many events goes straight into segment files; one of fewer is a record of the journal."""

TAIL_COMMITS, TAIL_ROWS, TAIL_BYTES = 16_384, 262_144, 32 * 1024 * 1024
"""The tail is sealed when it passes any of these."""

_KEPT_STREAMS = 100_000


@dataclass(slots=True, eq=False)
class Ticket:
    """A commit that is prepared. `error` says why it was not kept, once `done`."""

    record: Record
    done: bool = False
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Front:
    """The log as it will be when everything prepared is written."""

    epoch: int
    stop: int
    digest: bytes
    recorded_at: int | None
    streams: dict[str, Stream] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)


class Writer:
    """The one place that adds events. Everything here but `finish` runs under the store's lock."""

    def __init__(
        self,
        catalog: Catalog,
        vault: Vault,
        journals: Journals,
        knowledge: Knowledge,
        reader: Reader,
        sealer: Sealer,
        clock: Callable[[], int],
        exclusive: Exclusive,
        lock: threading.RLock,
        committed: Callable[[Record], None],
    ) -> None:
        self._catalog = catalog
        self._vault = vault
        self._journals = journals
        self._knowledge = knowledge
        self._sealer = sealer
        self._clock = clock
        self._exclusive = exclusive
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._committed = committed
        self.identities = Identities(catalog, knowledge, reader)
        self._front: _Front | None = None
        self._pending: list[Ticket] = []
        self._prepared_in = 0
        self._syncing = False

    # -- preparing

    def prepare(
        self,
        batches: Sequence[Batch],
        expected: Mapping[str, int],
        late: Late,
        source: tuple[str, int] | None,
    ) -> tuple[Receipt, Ticket | list[Block] | None]:
        """See `Store.commit`.

        With the receipt come a ticket to finish, or the blocks of a bulk commit, which is done, or None where an
        earlier receipt came back.
        """
        try:
            front = self._ready()
            quick = self._quickly(front, batches, expected, late) if source is None else None
            return quick or self._carefully(front, batches, expected, late, source)
        except sqlite3.Error as error:
            raise translated(error, self._catalog.where) from error
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise as_store_error(error, self._catalog.where) from error
        except BaseException as error:
            if not isinstance(error, EventlabError):  # an interrupt: the front may be ahead of what is prepared
                self._front = None
            raise

    def _ready(self) -> _Front:
        """The front, brought up to date where another process may have written since."""
        self._drop_abandoned()
        if self._front is None:
            self.drain()
        knowledge = self._knowledge
        if not (self._pending or self._syncing):
            knowledge.refresh(alone=True)
            if self._front is not None and self._front.epoch != knowledge.epoch:
                self._front = None
            if knowledge.damage is not None:
                raise knowledge.damage.error(self._catalog.where)
            if knowledge.journal is None:
                self._begin_journal()
                self._front = None
            elif self._front is None:
                knowledge.journal.recover()
        if self._front is None:
            self._front = _Front(
                knowledge.epoch, knowledge.stop_position, knowledge.digest or chain.GENESIS, knowledge.recorded_at
            )
        return self._front

    def _begin_journal(self) -> None:
        name = self._journals.create()
        with transaction(self._catalog, self._vault, self._knowledge):
            self._catalog.execute("UPDATE meta SET value = ? WHERE key = 'journal'", (name,))
        self._knowledge.learn_seal(name)
        self._knowledge.refresh(alone=True)

    def _quickly(
        self, front: _Front, batches: Sequence[Batch], expected: Mapping[str, int], late: Late
    ) -> tuple[Receipt, Ticket] | None:
        """Prepare a few plain rows of one type and aggregate; None where it takes more than that."""
        if len(batches) != 1 or not isinstance(batches[0].payload, Rows):
            return None
        batch = batches[0]
        rows, declared, name = batch.payload.values, batch.type, batch.aggregate_id
        number = self._knowledge.type_numbers.get((declared.name, declared.schema_version))
        plain = batch.event_id is None and batch.cause_row is None and batch.clock is None
        if number is None or not plain or not isinstance(name, str) or not row_blob.fits(declared):
            return None
        if not rows or (batch.order is not None and (batch.order[1:] < batch.order[:-1]).any()):
            return None
        if any(given is not None and len(given) != len(rows) for given in (batch.timestamp, batch.cause, batch.order)):
            return None
        known = self._knowledge.types[declared.name]  # the newest: an older one is refused elsewhere
        if known is not declared and known != declared:
            return None
        stream = self._stream(front, check_aggregate_id(name), 0)
        version, count = stream.version, len(rows)
        if expected:
            check_expected(expected, lambda name: self._stream(front, name, 0).version)
        recorded_at = commit_time(self._clock, front.recorded_at)
        backdated = 0
        if batch.timestamp is None:
            timestamps = [max(recorded_at, stream.timestamp) if version else recorded_at] * count
            highest = timestamps[-1]
        else:
            timestamps = batch.timestamp.tolist()
            floor = stream.timestamp if version else timestamps[0]
            reached = list(itertools.accumulate(timestamps, max, initial=floor))
            highest = reached[-1]
            backdated = sum(map(operator.lt, timestamps, reached))
            if backdated and late != "accept":
                return None
            stream.backdated = backdated > 0
        causes = None if batch.cause is None else [max(cause, -1) for cause in batch.cause.tolist()]
        if causes is not None and any(cause >= front.stop + row for row, cause in enumerate(causes)):
            return None
        metadata = metadata_json(batch.metadata) if batch.metadata else None
        digest = row_chain.digest(
            front.digest, declared, rows, aggregate_id=name, first_position=front.stop, first_version=version + 1,
            recorded_at=recorded_at, timestamps=timestamps, causes=causes, metadata=metadata,
        )  # fmt: skip
        blob = row_blob.rows_blob(
            declared, number, rows, aggregate=stream.no, first_version=version + 1, timestamps=timestamps,
            causes=causes, metadata=metadata,
        )  # fmt: skip
        extras = self._extras(front, [stream], {}, None, has_ids=False) if stream.is_new or backdated else {}
        stream.version, stream.position, stream.timestamp = version + count, front.stop + count - 1, highest
        heads = HEAD.pack(stream.no, stream.version, stream.position, stream.timestamp)
        record = Record(front.stop, count, -backdated, recorded_at, stream.version, digest, heads, extras, blob)
        return self._queue(front, record, [stream])

    def _carefully(
        self,
        front: _Front,
        batches: Sequence[Batch],
        expected: Mapping[str, int],
        late: Late,
        source: tuple[str, int] | None,
    ) -> tuple[Receipt, Ticket | list[Block] | None]:
        items, names = incoming(batches)
        has_ids = any(item.batch.event_id is not None for item in items)
        known = all(self._is_known(item.batch.type) for item in items)
        rows = sum(item.rows for item in items)
        if source is not None or has_ids or not known or rows >= BULK_ROWS:
            front = self._alone()  # what is prepared but not written cannot be looked up, nor may the catalog pass it
        if source is not None and (earlier := self.chunk_receipt(*source)) is not None:
            return earlier, None
        earlier = earlier_receipt(self.identities, items, names, late)
        if earlier is not None:
            return earlier, None
        streams = self._streams(front, names)
        check_expected(expected, lambda name: self._stream(front, name, 0).version)
        if not items:
            return self._empty_receipt(front), None
        clocks = {stream.no: stream.clock for stream in streams}
        check_clocks(items, streams)
        clocks = {s.no: s.clock for s in streams if s.clock is not None and s.clock != clocks[s.no]}
        types = self._checked_types([item.batch.type for item in items])
        recorded_at = commit_time(self._clock, front.recorded_at)
        made = assign(items, streams, front.stop, recorded_at, late)
        count = _count(made)
        if count >= BULK_ROWS:
            return self._bulk(made, streams, types, recorded_at, source)
        blocks = self._numbered(made.blocks, types)
        digest = _digest(front.digest, made, _names((), streams), recorded_at)
        record = Record(
            front.stop,
            count,
            made.late,
            recorded_at,
            made.last_version,
            digest,
            b"".join(HEAD.pack(s.no, s.version, s.position, s.timestamp) for s in streams),
            self._extras(front, streams, clocks, source, has_ids=has_ids),
            to_blob(blocks),
        )
        return self._queue(front, record, streams)

    def _extras(
        self,
        front: _Front,
        streams: Sequence[Stream],
        clocks: Mapping[int, str | None],
        source: tuple[str, int] | None,
        *,
        has_ids: bool,
    ) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        new = [stream.name for stream in streams if stream.is_new]
        if new:
            extras |= {"from": len(self._knowledge.names) + len(front.new), "new": new}
        backdated = [s.no for s in streams if s.backdated and s.no not in self._knowledge.backdated]
        if backdated:
            extras["backdated"] = backdated
        if clocks:
            extras["clocks"] = clocks
        if source is not None:
            extras["source"] = source
        if has_ids:
            extras["ids"] = True
        return extras

    def _queue(self, front: _Front, record: Record, streams: Sequence[Stream]) -> tuple[Receipt, Ticket]:
        """From here on the commit is the log's next."""
        if len(front.streams) > _KEPT_STREAMS and not (self._pending or self._syncing):
            front.streams.clear()  # what is written is known elsewhere
        for stream in streams:
            if stream.is_new:
                front.new.append(stream.name)
                stream.is_new = False
            front.streams[stream.name] = stream
        front.stop, front.digest, front.recorded_at = record.stop_position, record.digest, record.recorded_at
        ticket = Ticket(record)
        self._pending.append(ticket)
        self._prepared_in = self._exclusive.turn
        return receipt_of_record(record), ticket

    # -- finishing

    @property
    def is_tail_full(self) -> bool:
        """Whether it is time to seal."""
        ledger = self._knowledge.ledger
        return len(ledger.records) >= TAIL_COMMITS or ledger.rows >= TAIL_ROWS or ledger.bytes >= TAIL_BYTES

    def finish(self, ticket: Ticket) -> None:
        """Wait until a commit is durable, or make it so together with all others that are prepared."""
        with self._changed:
            while not ticket.done:
                if self._syncing:
                    self._changed.wait()
                elif ticket in self._pending:
                    self._sync(unlocked=True)
                else:
                    raise self._interrupted()
        if ticket.error is not None:
            raise ticket.error

    def _sync(self, *, unlocked: bool) -> None:
        """Write all that is prepared. `unlocked` gives the store's lock to others meanwhile.

        An interrupt may come after any call here, and must leave nobody waiting for ever.
        """
        group: list[Ticket] = []
        error: BaseException | None = None
        try:
            group, self._pending = self._pending, []
            if self._knowledge.journal is None:  # what was known was forgotten meanwhile
                self._knowledge.refresh(alone=True)
            journal = self._knowledge.journal
            self._syncing = self._knowledge.frozen = True
            if journal is None:
                raise self._interrupted()
            if unlocked:
                self._lock.release()
            journal.append([ticket.record for ticket in group])
        except BaseException as failure:  # noqa: BLE001  handed to all whose commits were not kept
            error = failure
        while True:
            try:
                if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  as Condition asks it
                    break
                self._lock.acquire()
            except BaseException as failure:  # noqa: BLE001  the same
                error = error or failure
        self._syncing = self._knowledge.frozen = False
        try:
            if error is None:
                self._keep(group)
        except BaseException as failure:  # noqa: BLE001  the commits stand, and are read back when next needed
            error = failure
        try:
            if error is not None:
                self._fail(group, error)
        finally:
            self._changed.notify_all()

    def _keep(self, group: Sequence[Ticket]) -> None:
        for ticket in group:
            ticket.done = True
        for ticket in group:
            self._knowledge.learn_record(ticket.record)
            self._committed(ticket.record)
        if self._front is not None:
            del self._front.new[: sum(len(ticket.record.extras.get("new", ())) for ticket in group)]

    def _fail(self, group: Sequence[Ticket], error: BaseException) -> None:
        told: BaseException = error
        if isinstance(error, sqlite3.Error):
            told = translated(error, self._catalog.where)
        elif isinstance(error, OSError) and not isinstance(error, StoreError):
            told = as_store_error(error, self._catalog.where)
        elif not isinstance(error, Exception):
            told = self._interrupted()
        if told is not error:
            told.__cause__ = error
        # Whatever was prepared since stands on what was not kept.
        for ticket in (*group, *self._pending):
            if not ticket.done:
                ticket.error, ticket.done = told, True
        self._pending, self._front = [], None
        self._knowledge.forget()
        if not isinstance(error, Exception):
            raise error

    def _interrupted(self) -> StoreError:
        return StoreError(
            f"{self._catalog.where}: interrupted while it wrote", hint="Read the log to know what was kept."
        )

    def _drop_abandoned(self) -> None:
        """Forget what a thread prepared that was interrupted before it came to writing it: others may have written."""
        if self._pending and self._prepared_in != self._exclusive.turn:
            self._pending, self._front = [], None

    def drain(self) -> None:
        """Finish everything prepared."""
        self._drop_abandoned()
        while self._pending or self._syncing:
            if self._syncing:
                self._changed.wait()
            else:
                self._sync(unlocked=False)

    def _alone(self) -> _Front:
        """Drain, and take the front anew."""
        self.drain()
        return self._ready()

    # -- bulk

    def _bulk(
        self,
        made: Assigned,
        streams: Sequence[Stream],
        types: Mapping[str, EventType],
        recorded_at: int,
        source: tuple[str, int] | None,
    ) -> tuple[Receipt, list[Block]]:
        knowledge, catalog = self._knowledge, self._catalog
        first, count = made.first_position, _count(made)
        if knowledge.journal is not None:
            knowledge.journal.settle()  # what the segments follow must not be less durable than they
        new = [(stream.no, stream.name) for stream in streams if stream.is_new]
        name_of = _names(knowledge.names, streams)
        previous = knowledge.digest or chain.GENESIS
        with transaction(catalog, self._vault, knowledge) as written:
            blocks = dict(self._numbered(made.blocks, types))
            knowledge.ledger.write_names(catalog)
            self._upsert_heads(streams)
            backdated = [stream.no for stream in streams if stream.backdated]
            catalog.add_backdated(backdated)
            with ThreadPoolExecutor(max_workers=1) as pool:  # hashing releases the GIL, and so does encoding
                proving = pool.submit(_digest, previous, made, name_of, recorded_at)
                segments = self._sealer.write(blocks, first, first + count, name_of, written)
                digest = proving.result()
            source_no = None if source is None else self._source_no(source[0])
            catalog.execute(
                "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (first, count, recorded_at, made.last_version, made.late, digest, source_no,
                 None if source is None else source[1]),
            )  # fmt: skip
            self.identities.insert(made.blocks)
        self._front = None
        try:
            for number, name in new:
                knowledge.learn_name(number, name)
            knowledge.refresh_types()
            knowledge.backdated.update(backdated)
            for segment in segments:
                knowledge.learn_segment(segment)
            knowledge.learn_commit(first + count, recorded_at, digest)
            if knowledge.journal is not None:
                with contextlib.suppress(OSError):
                    knowledge.journal.note(first + count)
        except BaseException:  # an interrupt: the commit stands, and is read back when next needed
            knowledge.forget()
            raise
        return Receipt.of(first, count, recorded_at, made.last_version, made.late), made.blocks

    # -- aggregates

    def _stream(self, front: _Front, name: str, new: int) -> Stream:
        """A copy of an aggregate's head; `new` aggregates without one come before it."""
        known = front.streams.get(name)
        if known is not None:
            return Stream(known.no, name, known.version, known.position, known.timestamp, known.clock, is_new=False)
        knowledge = self._knowledge
        number = knowledge.numbers.get(name)
        if number is None:
            return Stream(len(knowledge.names) + len(front.new) + new, name, 0, -1, 0, None, is_new=True)
        version, position, timestamp, clock = knowledge.head(number)
        return Stream(number, name, version, position, timestamp, clock, is_new=False)

    def _streams(self, front: _Front, names: Sequence[str]) -> list[Stream]:
        streams: list[Stream] = []
        new = 0
        for name in names:
            stream = self._stream(front, name, new)
            new += stream.is_new
            streams.append(stream)
        return streams

    def _upsert_heads(self, streams: Sequence[Stream]) -> None:
        self._catalog.executemany(
            "INSERT INTO aggregates VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (no) DO UPDATE SET "
            "version = excluded.version, position = excluded.position, timestamp = excluded.timestamp, "
            "clock = excluded.clock",
            [(s.no, s.name, s.version, s.position, s.timestamp, s.clock) for s in streams],
        )

    @staticmethod
    def _empty_receipt(front: _Front) -> Receipt:
        return Receipt(front.stop - 1, 0, 0, front.stop, front.recorded_at or 0)

    # -- event types

    def _is_known(self, declared: EventType) -> bool:
        return (declared.name, declared.schema_version) in self._knowledge.type_numbers

    def _checked_types(self, used: Sequence[EventType]) -> dict[str, EventType]:
        return check_writable(used, self._knowledge.types_by_number.values())

    def _numbered(self, blocks: Sequence[Block], used: Mapping[str, EventType]) -> list[tuple[int, Block]]:
        """Blocks with their types' numbers; types new to the store are made known to it first."""
        for declared in used.values():
            if not self._is_known(declared):
                self.register(declared)
        numbers = self._knowledge.type_numbers
        return [(numbers[block.type.name, block.type.schema_version], block) for block in blocks]

    def register(self, declared: EventType) -> None:
        """Make an event type known to the store, in a transaction of its own unless there is one."""
        knowledge = self._knowledge
        if self._catalog.in_transaction:
            self._insert_type(declared)
        else:
            with transaction(self._catalog, self._vault, knowledge):
                self._insert_type(declared)
        knowledge.refresh_types()

    def _insert_type(self, declared: EventType) -> None:
        self._knowledge.refresh_types()  # another process may have been first
        self._checked_types([declared])
        if not self._is_known(declared):
            self._catalog.execute(
                "INSERT INTO event_types VALUES (?, ?, ?, ?)",
                (len(self._knowledge.types_by_number), declared.name, declared.schema_version, declared.schema_json()),
            )

    # -- sources

    def _source_no(self, identity: str) -> int:
        self._catalog.execute("INSERT OR IGNORE INTO sources (identity) VALUES (?)", (identity,))
        row = self._catalog.execute("SELECT no FROM sources WHERE identity = ?", (identity,)).fetchone()
        return int(row[0])

    def finish_source(self, identity: str, receipt: str) -> None:
        with transaction(self._catalog, self._vault, self._knowledge):
            number = self._source_no(identity)
            self._catalog.execute("UPDATE sources SET receipt = ? WHERE no = ?", (receipt, number))

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        record = self._knowledge.ledger.chunks.get((identity, chunk))
        if record is not None:
            return receipt_of_record(record)
        row = self._catalog.execute(
            f"SELECT {COMMIT} FROM commits JOIN sources ON no = source WHERE identity = ? AND chunk = ?",  # noqa: S608  constants; values are bound
            (identity, chunk),
        ).fetchone()
        if row is None:
            self._knowledge.check_whole()
        return None if row is None else Receipt.of(*row)


def _count(made: Assigned) -> int:
    return sum(len(block) for block in made.blocks)


def _names(known: Sequence[str], streams: Sequence[Stream]) -> Callable[[int], str]:
    fresh = {stream.no: stream.name for stream in streams}
    return lambda number: fresh[number] if number in fresh else known[number]


def _digest(previous: bytes, made: Assigned, name_of: Callable[[int], str], recorded_at: int) -> bytes:
    first, count = made.first_position, _count(made)
    leaves = [leaf for block in made.blocks for leaf in chain.block_leaves(block, first, count, name_of)]
    return chain.commit_digest(previous, first, count, recorded_at, leaves)
