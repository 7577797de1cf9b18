"""The store against its naive twin in the world: crashes, another process, ids, expected versions and vacuums."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize, rule

from eventlab.errors import WrongVersion
from eventlab.events.rows import rows_of
from eventlab.store.api import Batch
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from tests.store.helpers import SIGNAL, batch, trade
from tests.store.test_properties import AGGREGATES, ROWS, StoreBesideItsTwin, batches_of

WHICH = st.integers(0, 1)


def _serve(pipe: Connection) -> None:
    """Another process: commits what it is told, in a store that it keeps open."""
    store, path, now = None, "", [0]
    while (command := pipe.recv()) is not None:
        asked, now[0], bulk, rows = command
        if asked != path:
            if store is not None:
                store.close()
            store, path = EventLog.open(asked, clock=lambda: now[0], durability="relaxed", wait=60.0), asked
        assert store is not None
        writer.BULK_ROWS = bulk
        if rows == "seal":
            pipe.send(store.seal())
        elif rows == "close":
            store.close()
            store, path = None, ""
            pipe.send(0)
        else:
            receipt = store.commit(batches_of(rows, None, None, None))
            pipe.send((receipt.first_position, receipt.position, receipt.version))


class _Process:
    """Started when first asked, and kept."""

    def __init__(self) -> None:
        self._pipe: Connection | None = None
        self._process: Any = None

    def ask(self, *command: object) -> Any:
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


class StoreInTheWorld(StoreBesideItsTwin):
    """What `StoreBesideItsTwin` does, and what happens to a directory besides."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0
        self.asked = False

    @initialize(bulk=st.sampled_from([3, 8, 10_000]), group=st.sampled_from([2, 65_536]))
    def open(self, bulk: int, group: int) -> None:
        self.saved = (writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS)
        writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS = bulk, group, max(bulk, 4)
        self.path = Path(self.folder.name) / "lab"
        self.stores = [self.opened(), self.opened()]

    @rule(which=WHICH, name=AGGREGATES, count=st.integers(1, 4), off=st.sampled_from([None, 0, 0, 1, -1]))
    def append_rows(self, which: int, name: str, count: int, off: int | None) -> None:
        """The quick way, expecting a version, right or wrong."""
        payload = {"symbol": "BTC", "action": "buy", "strength": -0.0, "strategy": "ü"}
        head = self.twin.head(name)
        version = 0 if head is None else head.version
        rows = rows_of(SIGNAL, [SIGNAL.cls(**payload)] * count)
        assert rows is not None
        expected = None if off is None else {name: version + off}
        try:
            receipt = self.stores[which].commit([Batch(SIGNAL, rows, name)], expected=expected)
        except WrongVersion:
            assert off
            return
        assert not off
        self.twin.append([(name, "trading_signal", payload)] * count, now=self.now)
        assert (receipt.version, receipt.position) == (version + count, len(self.twin.events) - 1)
        self.digest = self.stores[which].head_digest

    @rule(which=WHICH, rows=ROWS)
    def another_process_appends(self, which: int, rows: Any) -> None:
        before = len(self.twin.events)
        assert self.twin.append(rows, now=self.now) is not None
        self.asked = True
        told = PROCESS.ask(str(self.path), self.now, writer.BULK_ROWS, rows)
        assert told == (before, len(self.twin.events) - 1, self.twin.events[-1].version)
        self.digest = self.stores[which].head_digest

    @rule()
    def another_process_seals(self) -> None:
        self.asked = True
        PROCESS.ask(str(self.path), self.now, writer.BULK_ROWS, "seal")

    @rule(which=WHICH)
    def vacuum(self, which: int) -> None:
        self.stores[which].vacuum()

    @rule()
    def crash(self) -> None:
        """What lies on disk is all that is left: the copy was never closed by anybody."""
        self.copies += 1
        copy = Path(self.folder.name) / f"copy{self.copies}"
        shutil.copytree(self.path, copy)
        self._part()
        for store in self.stores:
            store.close()
        self.path = copy
        self.stores = [self.opened(), self.opened()]

    @rule(which=WHICH, name=AGGREGATES, number=st.integers(0, 5))
    def append_once(self, which: int, name: str, number: int) -> None:
        """With an id: the second time, the first receipt comes back, whatever lies in between."""
        payload = trade(float(number))
        made = batch([payload], name, ids=[f"{name}-{number}"])
        receipt = self.stores[which].commit([made])
        if receipt.position == len(self.twin.events):
            self.twin.append([(name, "market_data", payload)], now=self.now)
            self.digest = self.stores[which].head_digest
        there = self.twin.events[receipt.position]
        assert (there.aggregate_id, there.version, there.payload) == (name, receipt.version, payload)
        assert self.stores[1 - which].commit([made]) == receipt

    def _part(self) -> None:
        if self.asked:
            PROCESS.ask(str(self.path), self.now, writer.BULK_ROWS, "close")
            self.asked = False

    def teardown(self) -> None:
        self._part()
        super().teardown()


TestStoreInTheWorld = StoreInTheWorld.TestCase
TestStoreInTheWorld.settings = settings(
    max_examples=15 if settings.default is None else min(settings.default.max_examples // 6, 300),
    stateful_step_count=12,
    deadline=None,
)
