"""The store against its naive twin, whatever the splits, seals, reopenings and second processes in between."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventlab.errors import EventlabError
from eventlab.store.api import Selection
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from tests.naive import NaiveLog
from tests.store.helpers import CHANGE, SIGNAL, TRADE, TYPES, batch, everything, folded, trade

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


def batches_of(rows, timestamps, causes, metadata):
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
    """Appends of every kind, seals and reopenings in any order; the log is always the list that the twin keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.twin = NaiveLog()
        self.now = 1_000
        self.digest: str | None = None
        self.stores: list[EventLog] = []
        self.path: str | Path = ":memory:"

    @initialize(in_memory=st.booleans(), bulk=st.sampled_from([3, 8, 10_000]), group=st.sampled_from([2, 5, 65_536]))
    def open(self, in_memory: bool, bulk: int, group: int) -> None:
        self.saved = (writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS)
        writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS = bulk, group, max(bulk, 4)
        self.path = ":memory:" if in_memory else Path(self.folder.name) / "lab"
        self.stores = [self.opened() for _ in range(1 if in_memory else 2)]

    def opened(self) -> EventLog:
        return EventLog.open(self.path, clock=lambda: self.now, durability="relaxed")

    @rule(
        rows=ROWS,
        which=st.integers(0, 1),
        timed=st.booleans(),
        base=st.integers(0, 2_000),
        steps=st.lists(st.integers(-1, 5), min_size=12, max_size=12),
        causes=st.none() | st.lists(st.none() | st.integers(0, 40), min_size=12, max_size=12),
        metadata=st.none() | st.dictionaries(st.text("kü", min_size=1), st.text("vé"), max_size=2),
        late=st.sampled_from(["reject", "clamp", "accept"]),
        tick=st.integers(-5, 50),
    )
    def append(self, rows, which, timed, base, steps, causes, metadata, late, tick) -> None:
        self.now += tick
        timestamps = (base + np.cumsum(steps[: len(rows)])).tolist() if timed else None
        causes = None if causes is None else causes[: len(rows)]
        store = self.stores[which % len(self.stores)]
        before = len(self.twin.events)
        came_late = self.twin.append(
            rows, now=self.now, timestamps=timestamps, causes=causes, metadata=metadata or None, late=late
        )
        try:
            receipt = store.commit(batches_of(rows, timestamps, causes, metadata), late=late)
        except EventlabError:
            assert came_late is None
            return
        last = self.twin.events[-1]
        assert (receipt.first_position, receipt.position, receipt.version) == (before, last.position, last.version)
        assert (receipt.count, receipt.recorded_at) == (len(rows), self.twin.recorded_at[-1])
        told = (0, came_late) if late == "accept" else (came_late, 0)
        assert (receipt.clamped, receipt.backdated) == told
        self.digest = store.head_digest

    @rule(which=st.integers(0, 1))
    def seal(self, which: int) -> None:
        self.stores[which % len(self.stores)].seal()

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        if self.path != ":memory:":
            self.stores[which].close()
            self.stores[which] = self.opened()

    @rule(which=st.integers(0, 1), stop=st.integers(0, 60), after=st.dictionaries(AGGREGATES, st.integers(0, 9)))
    def fold_a_part(self, which: int, stop: int, after: dict[str, int]) -> None:
        store = self.stores[which % len(self.stores)]
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

    @rule(which=st.integers(0, 1), start=st.integers(0, 2_000), length=st.integers(0, 500))
    def read_some_time(self, which: int, start: int, length: int) -> None:
        store = self.stores[which % len(self.stores)]
        found = everything(store, TRADE, start=start, stop=start + length)["position"].to_list()
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
                kept = [None if text is None else json.loads(text) for text in frame["metadata"]]
                assert kept == [event.metadata for event in wanted]
                for field in kind:
                    given_values = [event.payload[field.name] for event in wanted]
                    assert [repr(value) for value in frame[field.name]] == [repr(value) for value in given_values]

    def teardown(self) -> None:
        for store in self.stores:
            assert store.verify().events == len(self.twin.events)
            store.close()
        if self.stores:
            writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS = self.saved
        self.folder.cleanup()


TestStoreBesideItsTwin = StoreBesideItsTwin.TestCase
TestStoreBesideItsTwin.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@given(cuts=st.sets(st.integers(1, 39)), seals=st.sets(st.integers(0, 40)), seed=st.integers(0, 9))
@settings(max_examples=25)
def test_any_split_and_seal_give_the_same_events(cuts: set[int], seals: set[int], seed: int):
    random = np.random.default_rng(seed)
    rows = [trade(float(price)) for price in random.random(40)]
    names = [f"m{code}" for code in random.integers(0, 3, 40)]
    times = np.cumsum(random.integers(0, 3, 40)).tolist()
    bounds = [0, *sorted(cuts), 40]
    with EventLog.open(":memory:") as split, EventLog.open(":memory:") as whole:
        whole.commit([batch(rows, names, timestamps=times)])
        for start, stop in itertools.pairwise(bounds):
            split.commit([batch(rows[start:stop], names[start:stop], timestamps=times[start:stop])])
            if start in seals:
                split.seal()
        selection = Selection({"market_data": ["price"]})
        assert folded(split, selection) == folded(whole, selection)
        columns = ["position", "aggregate_id", "version", "timestamp", "price"]
        assert everything(split).select(columns).equals(everything(whole).select(columns))


@pytest.mark.parametrize("kind", [TRADE, CHANGE])
def test_an_empty_log_has_empty_answers(kind):
    with EventLog.open(":memory:") as store:
        assert list(store.frames(Selection({kind.name: []}, others=True))) == []
        assert everything(store, kind).is_empty()
        assert everything(store, kind).schema["timestamp"] == pl.Datetime("ns", "UTC")
        assert (store.stop_position, store.heads(), store.position_at(2**62), store.seal()) == (0, [], 0, 0)
        assert store.verify().ok
        assert store.head_digest is None
