"""A store from outside keeps the contract and serves a lab: nothing but `store/api.py` is needed to write one."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings

import eventlab as el
from eventlab.errors import StoreError
from eventlab.store.api import Batch, EventReader, Store
from eventlab.testing.reading import ReadingContract
from eventlab.testing.state_machine import StoreBesideItsTwin
from eventlab.testing.suite import START, many_trades, ticking
from eventlab.testing.writing import WritingContract
from tests.testing import list_store
from tests.testing.list_store import ListStore


class TestListStore(ReadingContract, WritingContract):
    def opened(self, folder: Path, clock: Callable[[], int]) -> Store:
        return ListStore(clock)


class OnlyReader:
    """A list store without anything but the members of `EventReader`."""

    read_only = True

    def __init__(self, store: ListStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name not in vars(EventReader):
            raise AttributeError(f"{name} is no part of reading")
        return getattr(self._store, name)


class TestReadingAlone(ReadingContract):
    """The reading half of the suite needs the reading half of the interface, and no more."""

    def reader(self, folder: Path, commits: Sequence[Sequence[Batch]]) -> EventReader:
        store = ListStore(ticking())
        for batches in commits:
            store.commit(batches, late="accept")
        return OnlyReader(store)


class ListStoreBesideItsTwin(StoreBesideItsTwin):
    def opened(self) -> Store:
        return ListStore(lambda: self.now)


TestListStoreBesideItsTwin = ListStoreBesideItsTwin.TestCase
TestListStoreBesideItsTwin.settings = settings(max_examples=10, stateful_step_count=10, deadline=None)


def test_the_store_imports_the_interface_alone():
    tree = ast.parse(Path(list_store.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {module for module in modules if module is not None and module.startswith("eventlab")}
    assert own == {"eventlab.errors", "eventlab.events.frame", "eventlab.events.types", "eventlab.store.api"}


@pytest.fixture
def labs() -> Iterator[tuple[el.Lab, el.Lab]]:
    """A lab over the list store, and one over the built-in store, by equal clocks."""
    with el.Lab(ListStore(ticking())) as outside, el.open(":memory:", clock=ticking()) as built_in:
        yield outside, built_in


def same(labs: tuple[el.Lab, el.Lab], ask: Callable[[el.Lab], pl.DataFrame]) -> pl.DataFrame:
    """The answer of both labs, which must be equal."""
    one, other = (ask(lab) for lab in labs)
    assert one.equals(other)
    return one


def fill(lab: el.Lab) -> None:
    lab.append_frame(el.MarketData, many_trades(500, symbols=3, seed=9))
    fills = [el.PortfolioChange("S0", 2.0, 100.0, fee=1.0), el.PortfolioChange("S1", -1.0, 101.0)]
    lab.append("portfolio/a", fills, timestamp=[START, START + 5], event_id=["x", "y"])
    with lab.commit() as group:
        signal = group.append("signals/s", el.TradingSignal("S0", "buy", 1.0, "s"), timestamp=START + 6)
        group.append("portfolio/a", el.PortfolioChange("S0", 1.0, 102.0), cause=signal, timestamp=START + 7)
        group.append("portfolio/b", el.PortfolioChange("S2", 3.0, 99.0), timestamp=START + 7)
    lab.append("portfolio/a", el.PortfolioChange("S0", 5.0, 90.0), timestamp=START + 2, late="accept")


def test_events_and_scans(labs: tuple[el.Lab, el.Lab]):
    for lab in labs:
        fill(lab)
    assert len(same(labs, lambda lab: lab.events(el.MarketData))) == 500
    assert same(labs, lambda lab: lab.events(el.PortfolioChange))["cause"].to_list() == [None, None, 502, None, None]
    same(labs, lambda lab: lab.events(el.MarketData, "market/S*", start="1970-01-01T00:00:01.2Z", columns=["price"]))
    same(labs, lambda lab: lab.events(event_id="y").drop("recorded_at"))
    same(labs, lambda lab: lab.scan(el.MarketData).filter(pl.col("aggregate_id") == "market/S1").collect())
    same(labs, lambda lab: lab.scan(el.MarketData).filter(pl.col("position") > 400).select(pl.len()).collect())


def test_states_and_histories(labs: tuple[el.Lab, el.Lab]):
    for lab in labs:
        fill(lab)
    for as_of in (None, 2, el.AsOf(time=START + 2), el.AsOf(known_at=START + 10_000_000_000)):
        states = [lab.state(el.Portfolio, "portfolio/a", as_of) for lab in labs]
        assert states[0].digest == states[1].digest
        assert (states[0].version, states[0].timestamp) == (states[1].version, states[1].timestamp)
    same(labs, lambda lab: lab.states(el.Trades, "market/*"))
    same(labs, lambda lab: lab.states(el.Portfolio, "portfolio/*", as_of=el.AsOf(time=START + 5)))
    same(labs, lambda lab: lab.history(el.Trades, "market/S0"))
    same(labs, lambda lab: lab.history(el.Trades, "market/S0", every="100ms"))
    same(labs, lambda lab: lab.history(el.Portfolio, "portfolio/a", at=[4, 1, 4], tables=True))
    same(labs, lambda lab: lab.history(el.Portfolio, "portfolio/b", mark_with="market/*"))
    moments = pl.DataFrame({"symbol": ["S0", "S1"], "timestamp": [f"1970-01-01T00:00:0{second}Z" for second in (1, 2)]})
    same(labs, lambda lab: lab.join_asof(moments, el.Trades, "market/{symbol}"))
    differences = [lab.diff(el.Portfolio, "portfolio/a", 1, 3) for lab in labs]
    assert differences[0].changes.equals(differences[1].changes)
    assert differences[0].count == 2
    for steps in zip(*(walk(lab.cursor(el.Trades, "market/S2", 50)) for lab in labs), strict=True):
        assert steps[0] == steps[1]


def walk(cursor) -> Iterator[tuple[int, str]]:
    for step in (0, 1, -3, 10, -20):
        state = cursor.step(step) if step else cursor.state
        yield state.version, state.digest


def test_a_reader_alone_serves_every_read():
    store = ListStore(ticking())
    fill(el.Lab(store))
    lab, other = el.Lab(OnlyReader(store)), el.Lab(store)
    both = lab, other
    assert lab.state(el.Portfolio, "portfolio/a", 2).digest == other.state(el.Portfolio, "portfolio/a", 2).digest
    same(both, lambda lab: lab.events(el.MarketData))
    same(both, lambda lab: lab.scan(el.MarketData).tail(3).collect())
    same(both, lambda lab: lab.states(el.Trades, "market/*"))
    same(both, lambda lab: lab.history(el.Trades, "market/S0"))
    same(both, lambda lab: lab.history(el.Portfolio, "portfolio/b", mark_with="market/*"))
    assert lab.diff(el.Portfolio, "portfolio/a", 1, 3).count == 2
    assert lab.cursor(el.Trades, "market/S0").step(-5).version == other.cursor(el.Trades, "market/S0").step(-5).version
    assert lab.info() == other.info()


def test_snapshots(labs: tuple[el.Lab, el.Lab]):
    for lab in labs:
        fill(lab)
        lab.snapshots.policy = el.snapshots.Every(50)
        assert lab.snapshots.build(el.Trades, "market/*").snapshots > 3
        assert lab.snapshots.verify().equal > 3
        lab.append("market/S0", el.MarketData("S0", 1.0, 1.0))
    same(labs, lambda lab: lab.snapshots.table().select("aggregate_id", "version"))
    assert len({lab.state(el.Trades, "market/S0", 77).digest for lab in labs}) == 1


def test_handlers_feeds_and_projections(labs: tuple[el.Lab, el.Lab]):
    for lab in labs:
        seen: list[int] = []
        lab.on(el.MarketData, start=0)(lambda frame, seen=seen: seen.extend(frame["position"]))
        projection = lab.projection(el.Trades, "market/*")
        feed = el.feeds.simulate(symbols=("A", "B"), trades=1_000)
        receipt = lab.ingest(feed, progress=False)
        assert lab.ingest(feed, progress=False).already
        assert seen == lab.events(el.MarketData)["position"].to_list()
        assert (receipt.count, projection.lag.events) == (lab.store.stop_position, lab.store.stop_position)
        projection.update(progress=False)
        assert projection.lag.events == 0
        assert projection.frame().equals(lab.states(el.Trades, "market/*"))
        again = lab.projection(el.Trades, "market/*")
        assert again.position == lab.store.stop_position
        assert list(again.follow(timeout=0.01)) == []
    same(labs, lambda lab: lab.states(el.Trades, "market/*"))


def test_a_lab_says_which_ability_its_store_lacks():
    lab = el.Lab(ListStore())
    lab.append("a", el.TradingSignal("S", "buy", 1.0, "s"))
    info = lab.info()
    assert (info.path, info.events, info.commits, info.aggregates) == (":memory:", 1, 1, 1)
    assert repr(lab) == "<eventlab.Lab ':memory:'>"
    for act, what in (
        (lab.seal, "be sealed"),
        (lab.archive, "be sealed"),
        (lab.vacuum, "be sealed"),
        (lab.verify, "be verified"),
        (lambda: lab.backup("elsewhere"), "be backed up"),
        (lab.read_log, "record reads"),
    ):
        with pytest.raises(StoreError, match=f"cannot {what}.*ListStore"):
            act()
    lab.close()
    with pytest.raises(StoreError, match="closed"):
        lab.append("a", el.TradingSignal("S", "buy", 1.0, "s"))
