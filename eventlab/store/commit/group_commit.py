"""Group commit: small commits that are numbered and chained, on their way into the journal.

A commit is *prepared* under the store's lock, which makes it the log's next, and *written* without it: the first thread
writes and syncs all commits that are prepared, and the others wait for the outcome. If the sync fails, all of them
fail, and so do commits that were prepared after them. Every other change of the catalog waits until none is prepared.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from eventlab.errors import StoreError
from eventlab.store.catalog.connection import translated
from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.commit.validate import PendingHead
from eventlab.store.hash_chain.columns import GENESIS
from eventlab.store.journal.journal import Record
from eventlab.store.journal.memtable import part_of
from eventlab.store.read.subscriptions import Handlers

_MOST_HEADS = 100_000


@dataclass(slots=True, eq=False)
class PreparedCommit:
    """A commit that is the log's next. Once `done`, `error` says why it failed, if it did."""

    record: Record
    done: bool = False
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class PreparedEnd:
    """The end of the log once all prepared commits are written.

    Attributes
    ----------
    epoch : int
        That of the index on which it stands.
    stop : int
        The next position.
    heads : dict of str to PendingHead
        Of aggregates with recent commits.
    new : list of str
        Aggregates that prepared commits add, in the order of their numbers.
    """

    epoch: int
    stop: int
    digest: bytes
    recorded_at: int | None
    heads: dict[str, PendingHead] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)


class GroupCommit:
    """The prepared commits of a store. Call its methods with the store's lock held once."""

    def __init__(self, store: OpenStore, handlers: Handlers) -> None:
        self._store = store
        self._index = store.index
        self._handlers = handlers
        self._changed = threading.Condition(store.lock)
        self._end: PreparedEnd | None = None
        self._pending: list[PreparedCommit] = []
        self._prepared_in = 0
        self._syncing = False

    # -- preparing

    def end(self) -> PreparedEnd:
        """The end of the log, brought up to date where another process may have written."""
        self._drop_abandoned()
        if self._end is None:
            self.drain()
        index = self._index
        if not (self._pending or self._syncing):
            index.refresh(alone=True)
            if self._end is not None and self._end.epoch != index.epoch:
                self._end = None
            if index.damage is not None:
                raise index.damage.error(self._store.catalog.where)
            if index.journal is None:
                self._begin_journal()
                self._end = None
            elif self._end is None:
                index.journal.recover()
        if self._end is None:
            self._end = PreparedEnd(index.epoch, index.stop_position, index.digest or GENESIS, index.recorded_at)
        return self._end

    def _begin_journal(self) -> None:
        name = self._store.journals.create()
        with self._store.transaction():
            self._store.catalog.set_journal(name)
        self._index.learn_seal(name)
        self._index.refresh(alone=True)

    def forget_end(self) -> None:
        """Read the end anew for the next commit."""
        self._end = None

    def write(self, end: PreparedEnd, record: Record, heads: Sequence[PendingHead]) -> None:
        """Write a commit that was numbered from `end`, durably. Others get the store's lock during the sync."""
        try:
            prepared = self._add(end, record, heads)
        except BaseException:  # an interrupt: the end may be ahead of the prepared commits
            self._end = None
            raise
        self._finish(prepared)

    def _add(self, end: PreparedEnd, record: Record, heads: Sequence[PendingHead]) -> PreparedCommit:
        """Make a commit the log's next."""
        if len(end.heads) > _MOST_HEADS and not (self._pending or self._syncing):
            end.heads.clear()  # the index has those of written commits
        for head in heads:
            if head.is_new:
                end.new.append(head.name)
                head.is_new = False
            end.heads[head.name] = head
        end.stop, end.digest, end.recorded_at = record.first_position + record.events, record.digest, record.recorded_at
        prepared = PreparedCommit(record)
        self._pending.append(prepared)
        self._prepared_in = self._store.exclusive.turn
        return prepared

    # -- writing

    def _finish(self, prepared: PreparedCommit) -> None:
        """Wait until a commit is durable, or write it together with all others that are prepared."""
        while not prepared.done:
            if self._syncing:
                self._changed.wait()
            elif prepared in self._pending:
                self._sync(unlocked=True)
            else:
                raise self._interrupted()
        if prepared.error is not None:
            raise prepared.error

    def _sync(self, *, unlocked: bool) -> None:
        """Write all prepared commits. `unlocked` gives the store's lock to others meanwhile.

        An interrupt may come after any call here, and must leave no thread waiting for ever.
        """
        group: list[PreparedCommit] = []
        error: BaseException | None = None
        try:
            group, self._pending = self._pending, []
            if self._index.journal is None:  # the index was reset meanwhile
                self._index.refresh(alone=True)
            journal = self._index.journal
            self._syncing = self._index.frozen = True
            if journal is None:
                raise self._interrupted()
            if unlocked:
                self._store.lock.release()
            journal.append([prepared.record for prepared in group])
        except BaseException as failure:  # noqa: BLE001  raised in every thread whose commit failed
            error = failure
        while True:
            try:
                if self._store.lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  as Condition does
                    break
                self._store.lock.acquire()
            except BaseException as failure:  # noqa: BLE001  the same
                error = error or failure
        self._syncing = self._index.frozen = False
        try:
            if error is None:
                self._publish(group)
        except BaseException as failure:  # noqa: BLE001  the commits stand, and the index reads them back
            error = failure
        try:
            if error is not None:
                self._fail(group, error)
        finally:
            self._changed.notify_all()

    def _publish(self, group: Sequence[PreparedCommit]) -> None:
        """Let readers and handlers of this process see durable commits."""
        for prepared in group:
            prepared.done = True
        for prepared in group:
            record = prepared.record
            self._index.learn_record(record)
            if self._handlers.wanted:
                part = part_of([record], self._index.types_by_number)
                self._handlers.enqueue(part.first_position, part.stop_position, part.blocks.values())
        if self._end is not None:
            del self._end.new[: sum(len(prepared.record.extras.get("new", ())) for prepared in group)]

    def _fail(self, group: Sequence[PreparedCommit], error: BaseException) -> None:
        raised: BaseException = error
        if isinstance(error, (sqlite3.Error, OSError)):
            raised = translated(error, self._store.catalog.where)
        elif not isinstance(error, Exception):
            raised = self._interrupted()
        if raised is not error:
            raised.__cause__ = error
        # Commits that were prepared since stand on the failed ones.
        for prepared in (*group, *self._pending):
            if not prepared.done:
                prepared.error, prepared.done = raised, True
        self._pending, self._end = [], None
        self._index.forget()
        if not isinstance(error, Exception):
            raise error

    def _interrupted(self) -> StoreError:
        return StoreError(
            f"{self._store.catalog.where}: interrupted while it wrote", hint="Read the log to see which commits it has."
        )

    def _drop_abandoned(self) -> None:
        """Forget commits of a thread that was interrupted before it wrote them: another process may have written."""
        if self._pending and self._prepared_in != self._store.exclusive.turn:
            self._pending, self._end = [], None

    def drain(self) -> None:
        """Write all prepared commits."""
        self._drop_abandoned()
        while self._pending or self._syncing:
            if self._syncing:
                self._changed.wait()
            else:
                self._sync(unlocked=False)
