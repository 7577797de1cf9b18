"""The suite as Hypothesis state machines: a store beside a naive twin that keeps a plain list.

A test module of a store looks like this::

    from eventlab.testing.state_machine import StoreBesideItsTwin

    class MyStoreBesideItsTwin(StoreBesideItsTwin):
        def opened(self):
            return MyStore(lambda: self.now)

    TestMyStore = MyStoreBesideItsTwin.TestCase

`SealRules`, `VerifyRules` and `FolderRules` are the optional parts.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventlab.errors import EventlabError, WrongVersion
from eventlab.events.rows import rows_of
from eventlab.store.api import Batch, Late, Selection, Store
from eventlab.testing.abilities import sealed, verified
from eventlab.testing.events import SIGNAL, TRADE, TYPES, batch, everything, folded, trade
from eventlab.testing.naive_log import NaiveLog

Row = tuple[str, str, dict[str, Any]]
"""Aggregate id, type name, payload."""

AGGREGATES = st.sampled_from(["a", "b", "c/ü", "d'"])
PRICES = st.one_of(
    st.integers(0, 10**6).map(lambda n: n / 100),
    st.floats(min_value=0.0, allow_nan=False, allow_infinity=False),
)
PAYLOADS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "market_data": st.builds(
        trade,
        PRICES,
        symbol=st.sampled_from(["BTC", "ETH", "ü"]),
        side=st.sampled_from(["buy", "sell", None]),
        trade_id=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    ),
    "trading_signal": st.fixed_dictionaries(
        {
            "symbol": st.sampled_from(["BTC", "ETH"]),
            "action": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            "strength": st.floats(allow_nan=False, allow_infinity=False),
            "strategy": st.just("s"),
        }
    ),
}
ROWS = st.lists(
    st.sampled_from(list(PAYLOADS)).flatmap(lambda name: st.tuples(AGGREGATES, st.just(name), PAYLOADS[name])),
    min_size=1,
    max_size=12,
)
WHICH = st.integers(0, 1)


def batches_of_rows(
    rows: list[Row],
    timestamps: list[int] | None = None,
    causes: list[int | None] | None = None,
    metadata: dict[str, str] | None = None,
) -> list[Batch]:
    """Rows of several types as batches, in the order given."""
    made = []
    for name in dict.fromkeys(name for _, name, _ in rows):
        at = [row for row, (_, kind, _) in enumerate(rows) if kind == name]
        made.append(
            batch(
                [rows[row][2] for row in at],
                [rows[row][0] for row in at],
                kind=TYPES[name],
                timestamps=None if timestamps is None else [timestamps[row] for row in at],
                causes=None if causes is None else [causes[row] for row in at],
                metadata=metadata,
                order=np.array(at),
            )
        )
    return made


class StoreBesideItsTwin(RuleBasedStateMachine):
    """Appends of every kind and reads in any order; the log always equals the list that the twin keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = NaiveLog()
        self.now = 1_000
        self.digest: str | None = None
        self.stores: list[Store] = []

    def opened(self) -> Store:
        """Open the store, with `now` as its clock."""
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.stores = [self.opened()]

    def store(self, which: int) -> Store:
        """One of the stores that are open on the log."""
        return self.stores[which % len(self.stores)]

    @rule(
        rows=ROWS,
        which=WHICH,
        timed=st.booleans(),
        base=st.integers(0, 2_000),
        steps=st.lists(st.integers(-1, 5), min_size=12, max_size=12),
        causes=st.none() | st.lists(st.none() | st.integers(0, 40), min_size=12, max_size=12),
        metadata=st.none() | st.dictionaries(st.text("kü", min_size=1), st.text("vé"), max_size=2),
        late=st.sampled_from(["reject", "clamp", "accept"]),
        tick=st.integers(-5, 50),
    )
    def append(
        self,
        rows: list[Row],
        which: int,
        timed: bool,  # noqa: FBT001
        base: int,
        steps: list[int],
        causes: list[int | None] | None,
        metadata: dict[str, str] | None,
        late: Late,
        tick: int,
    ) -> None:
        self.now += tick
        timestamps = (base + np.cumsum(steps[: len(rows)])).tolist() if timed else None
        causes = None if causes is None else causes[: len(rows)]
        store = self.store(which)
        before = len(self.twin.events)
        came_late = self.twin.append(
            rows, now=self.now, timestamps=timestamps, causes=causes, metadata=metadata or None, late=late
        )
        try:
            receipt = store.commit(batches_of_rows(rows, timestamps, causes, metadata), late=late)
        except EventlabError:
            assert came_late is None
            return
        assert came_late is not None
        last = self.twin.events[-1]
        assert (receipt.first_position, receipt.position, receipt.version) == (before, last.position, last.version)
        assert (receipt.count, receipt.recorded_at) == (len(rows), self.twin.recorded_at[-1])
        counted = (0, came_late) if late == "accept" else (came_late, 0)
        assert (receipt.clamped, receipt.backdated) == counted
        self.digest = store.head_digest

    @rule(which=WHICH, name=AGGREGATES, count=st.integers(1, 4), off=st.sampled_from([None, 0, 0, 1, -1]))
    def append_rows(self, which: int, name: str, count: int, off: int | None) -> None:
        """Plain rows of one aggregate, expecting a version, right or wrong."""
        payload = {"symbol": "BTC", "action": "buy", "strength": -0.0, "strategy": "ü"}
        head = self.twin.head(name)
        version = 0 if head is None else head.version
        rows = rows_of(SIGNAL, [SIGNAL.cls(**payload)] * count)
        assert rows is not None
        expected = None if off is None else {name: version + off}
        try:
            receipt = self.store(which).commit([Batch(SIGNAL, rows, name)], expected=expected)
        except WrongVersion:
            assert off
            return
        assert not off
        self.twin.append([(name, "trading_signal", payload)] * count, now=self.now)
        assert (receipt.version, receipt.position) == (version + count, len(self.twin.events) - 1)
        self.digest = self.store(which).head_digest

    @rule(which=WHICH, name=AGGREGATES, number=st.integers(0, 5))
    def append_once(self, which: int, name: str, number: int) -> None:
        """With an id: the second time, the first receipt comes back, whatever lies between."""
        payload = trade(float(number))
        made = batch([payload], name, ids=[f"{name}-{number}"])
        receipt = self.store(which).commit([made])
        if receipt.position == len(self.twin.events):
            self.twin.append([(name, "market_data", payload)], now=self.now)
            self.digest = self.store(which).head_digest
        there = self.twin.events[receipt.position]
        assert (there.aggregate_id, there.version, there.payload) == (name, receipt.version, payload)
        assert self.store(1 - which).commit([made]) == receipt

    @rule(which=WHICH, stop=st.integers(0, 60), after=st.dictionaries(AGGREGATES, st.integers(0, 9)))
    def fold_a_part(self, which: int, stop: int, after: dict[str, int]) -> None:
        store = self.store(which)
        selection = Selection({"market_data": ["price"]}, others=True, after_version=after, stop_position=stop)
        expected: dict[str, list[Any]] = {}
        for event in self.twin.events[:stop]:
            if event.version > after.get(event.aggregate_id, 0):
                payload = {"price": event.payload["price"]} if event.event_type == "market_data" else {}
                spelled = (event.version, event.position, event.timestamp, event.event_type, payload)
                expected.setdefault(event.aggregate_id, []).append(spelled)
        assert folded(store, selection) == expected
        for name in ("a", "nobody"):
            alone = Selection(
                selection.columns, others=True, aggregates=[name], after_version=after, stop_position=stop
            )
            assert folded(store, alone) == {key: value for key, value in expected.items() if key == name}

    @rule(which=WHICH, start=st.integers(0, 2_000), length=st.integers(0, 500))
    def read_some_time(self, which: int, start: int, length: int) -> None:
        found = everything(self.store(which), TRADE, start=start, stop=start + length)["position"].to_list()
        trades = [event for event in self.twin.events if event.event_type == "market_data"]
        assert found == [event.position for event in trades if start <= event.timestamp < start + length]

    @invariant()
    def same_events(self) -> None:
        for store in self.stores:
            assert store.head_digest == self.digest
            for head in store.heads():
                own = [event for event in self.twin.events if event.aggregate_id == head.aggregate_id]
                highest = max(event.timestamp for event in own)
                assert (head.version, head.position, head.timestamp) == (len(own), own[-1].position, highest)
            for name, kind in (("market_data", TRADE), ("trading_signal", SIGNAL)):
                wanted = [event for event in self.twin.events if event.event_type == name]
                frame = everything(store, kind)
                assert frame["position"].to_list() == [event.position for event in wanted]
                assert frame["aggregate_id"].to_list() == [event.aggregate_id for event in wanted]
                assert frame["version"].to_list() == [event.version for event in wanted]
                assert frame["timestamp"].dt.epoch("ns").to_list() == [event.timestamp for event in wanted]
                assert frame["cause"].to_list() == [event.cause for event in wanted]
                recorded = [self.twin.recorded_at[event.position] for event in wanted]
                assert frame["recorded_at"].dt.epoch("ns").to_list() == recorded
                metadata = [None if text is None else json.loads(text) for text in frame["metadata"]]
                assert metadata == [event.metadata for event in wanted]
                for field in kind:
                    given_values = [event.payload[field.name] for event in wanted]
                    assert [repr(value) for value in frame[field.name]] == [repr(value) for value in given_values]

    def check_at_end(self, store: Store) -> None:
        """Check a store before it is closed for good."""

    def teardown(self) -> None:
        for store in self.stores:
            self.check_at_end(store)
            store.close()


class SealRules(StoreBesideItsTwin):
    """A store that seals, at any moment."""

    @rule(which=WHICH)
    def seal(self, which: int) -> None:
        sealed(self.store(which))


class VerifyRules(StoreBesideItsTwin):
    """A store that proves its history."""

    def check_at_end(self, store: Store) -> None:
        assert verified(store).events == len(self.twin.events)


class FolderRules(StoreBesideItsTwin):
    """A store in the folder `path`, opened twice: reopened, and left as it lies on disk, at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store"
        self.copies = 0

    @initialize()
    def open(self) -> None:
        self.stores = [self.opened(), self.opened()]

    @rule(which=WHICH)
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = self.opened()

    @rule()
    def crash(self) -> None:
        """Go on with a copy of the files, which nobody ever closed."""
        self.copies += 1
        copy = Path(self.folder.name) / f"copy{self.copies}"
        shutil.copytree(self.path, copy)
        for store in self.stores:
            store.close()
        self.path = copy
        self.stores = [self.opened(), self.opened()]

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()
