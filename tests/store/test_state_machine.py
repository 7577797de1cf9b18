"""The built-in store beside its naive twin: in memory, and in a directory with crashes and another process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize, rule

from eventlab.store.api import Store
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from eventlab.testing.state_machine import (
    ROWS,
    WHICH,
    FolderRules,
    SealRules,
    VerifyRules,
    batches_of_rows,
)


class BuiltIn(SealRules, VerifyRules):
    """Sizes so small that a few events take every way through the store."""

    sizes: tuple[int, int, int] | None = None

    def use_sizes(self, bulk: int, group: int) -> None:
        self.sizes = (writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS)
        writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS = bulk, group, max(bulk, 4)

    def teardown(self) -> None:
        super().teardown()
        if self.sizes is not None:
            writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS = self.sizes


class InMemory(BuiltIn):
    @initialize(bulk=st.sampled_from([3, 8, 10_000]), group=st.sampled_from([2, 5, 65_536]))
    def open(self, bulk: int, group: int) -> None:
        self.use_sizes(bulk, group)
        super().open()

    def opened(self) -> Store:
        return EventLog.open(":memory:", clock=lambda: self.now)


def _serve(pipe: Connection) -> None:
    """Another process: commits the rows that it is sent, in a store that it keeps open."""
    store, path, now = None, "", [0]
    while (command := pipe.recv()) is not None:
        wanted, now[0], bulk, rows = command
        if wanted != path:
            if store is not None:
                store.close()
            store, path = EventLog.open(wanted, clock=lambda: now[0], durability="relaxed", wait=60.0), wanted
        assert store is not None
        writer.BULK_ROWS = bulk
        if rows == "seal":
            pipe.send(store.seal())
        elif rows == "close":
            store.close()
            store, path = None, ""
            pipe.send(0)
        else:
            receipt = store.commit(batches_of_rows(rows))
            pipe.send((receipt.first_position, receipt.position, receipt.version))


class _Process:
    """Started at the first request, and then kept."""

    def __init__(self) -> None:
        self._pipe: Connection | None = None
        self._process: Any = None

    def request(self, *command: object) -> Any:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, there = context.Pipe()
            self._process = context.Process(target=_serve, args=(there,), daemon=True)
            self._process.start()
            there.close()
        self._pipe.send(command)
        return self._pipe.recv()

    def end(self) -> None:
        if self._pipe is not None:
            self._pipe.send(None)
            self._process.join()
            self._pipe.close()
            self._pipe = None


PROCESS = _Process()


@pytest.fixture(autouse=True, scope="module")
def _process() -> Iterator[None]:
    yield
    PROCESS.end()


class InADirectory(BuiltIn, FolderRules):
    """Crashes, reopening, vacuums, and another process that writes and seals."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = False

    @initialize(bulk=st.sampled_from([3, 8, 10_000]), group=st.sampled_from([2, 5, 65_536]))
    def open(self, bulk: int, group: int) -> None:
        self.use_sizes(bulk, group)
        super().open()

    def opened(self) -> Store:
        return EventLog.open(self.path, clock=lambda: self.now, durability="relaxed")

    @rule(which=WHICH, rows=ROWS)
    def another_process_appends(self, which: int, rows: Any) -> None:
        before = len(self.twin.events)
        assert self.twin.append(rows, now=self.now) is not None
        self.shared = True
        answer = PROCESS.request(str(self.path), self.now, writer.BULK_ROWS, rows)
        assert answer == (before, len(self.twin.events) - 1, self.twin.events[-1].version)
        self.digest = self.stores[which].head_digest

    @rule()
    def another_process_seals(self) -> None:
        self.shared = True
        PROCESS.request(str(self.path), self.now, writer.BULK_ROWS, "seal")

    @rule(which=WHICH)
    def vacuum(self, which: int) -> None:
        self.stores[which].vacuum()

    @rule()
    def crash(self) -> None:
        self._close_there()
        super().crash()

    def _close_there(self) -> None:
        if self.shared:
            PROCESS.request(str(self.path), self.now, writer.BULK_ROWS, "close")
            self.shared = False

    def teardown(self) -> None:
        self._close_there()
        super().teardown()


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
TestInADirectory = InADirectory.TestCase
TestInADirectory.settings = settings(
    max_examples=15 if settings.default is None else min(settings.default.max_examples // 6, 300),
    stateful_step_count=15,
    deadline=None,
)
