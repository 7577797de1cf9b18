"""States and histories from a store on disk, compared with decoding and with one fold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import eventlab as el
from benchmarks.bench_fold import AverageCost, fills_of
from benchmarks.conftest import Size, dealt, store_of
from benchmarks.measure import compare
from benchmarks.peers import eventsourced_application, eventsourced_portfolio
from eventlab.events.frame import EventFrame
from eventlab.store.api import Selection
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.reconstruct import StatesTask

MARKET = "market/BTCUSDT"


@pytest.fixture(scope="session")
def markets_path(repeated: list[pl.DataFrame], size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with ten million trades of 1,000 markets."""
    return store_of(tmp_path_factory.mktemp("markets") / "lab", dealt(repeated, size(1_000, 50), seed=7))


@pytest.mark.parametrize("cores", [1, 2])
def test_states_beside_decoding(benchmark: Any, markets_path: Path, cores: int) -> None:
    with el.open(markets_path, read_only=True) as lab:
        wanted = Selection(
            el.Trades.columns, others=True, aggregates=lab.store.aggregate_ids(), types=el.Trades.event_types
        )
        executor = el.executors.Threads(cores)

        def decode() -> int:
            return sum(len(table) for frame in lab.store.frames(wanted) for table in frame.tables.values())

        assert decode() == lab.store.stop_position
        compare(
            benchmark, lambda: lab.states(el.Trades, executor=executor), decode, rounds=9,
            row=f"states: el.Trades of 1,000 markets, ten million trades on disk, folded by {cores} "
            f"core{'s' * (cores > 1)}",
            events=lab.store.stop_position, against="only decoding what it reads", wanted_ratio=0.8,
        )  # fmt: skip


class Decoded:
    """A store whose trades are decoded already: a read gives frames that are in memory."""

    def __init__(self, store: Any, markets: list[str]) -> None:
        (name,) = el.Trades.columns
        read = Selection({name: ("symbol", "price", "volume")}, aggregates=markets, types=el.Trades.event_types)
        self._store, self._markets, self._frames = store, set(markets), list(store.frames(read))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        routed = self._markets.issuperset(selection.aggregates or ())
        return iter(self._frames) if routed else self._store.frames(selection)


def test_routed_trades_beside_a_plain_fold(benchmark: Any, repeated: list[pl.DataFrame], tmp_path: Path) -> None:
    names = [f"S{number}" for number in range(20)]
    markets = [f"market/{name}" for name in names]
    draw = np.random.default_rng(8)
    with el.open(tmp_path) as lab:
        first = repeated[0]["timestamp"][0]
        lab.append("portfolio", [el.PortfolioChange(name, 1.0, 100.0) for name in names], timestamp=[first] * 20)
        for part in repeated:
            symbols = pl.Series("symbol", names).gather(draw.integers(0, 20, len(part)))
            lab.append_frame(el.MarketData, part.with_columns(symbols, aggregate_id="market/" + symbols))
        lab.seal()
        store, serial = Decoded(lab.store, markets), el.executors.Serial()
        plain = StatesTask.of(store, [el.Trades], markets, AsOf(), interpret=False)
        routed = StatesTask.of(store, [el.Portfolio], ["portfolio"], AsOf(), mark_with=markets, interpret=False)
        compare(
            benchmark, lambda: serial.run([routed], store, None), lambda: serial.run([plain], store, None), rounds=9,
            row="fold in memory: a portfolio marked by ten million trades of its 20 symbols, merged by time, one core",
            events=sum(map(len, repeated)), against="folding each market by itself, el.Trades", wanted_rate=30e6,
        )  # fmt: skip


@pytest.fixture(scope="session")
def longest_path(repeated: list[pl.DataFrame], size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with fifty million trades of one market."""
    span = repeated[-1]["timestamp"].max() - repeated[0]["timestamp"].min()
    later = (part.with_columns(pl.col("timestamp") + span * turn) for turn in range(size(5, 1)) for part in repeated)
    return store_of(tmp_path_factory.mktemp("longest") / "lab", later)


def _moments(lab: el.Lab, count: int) -> pl.Series:
    (head,) = lab.store.heads([MARKET])
    first = lab.state(el.Trades, MARKET, 1).timestamp
    times = first + np.linspace(0, head.timestamp - first, count).astype(np.int64)
    return pl.Series(times).cast(pl.Datetime("ns", "UTC"))


def test_history_beside_one_fold(benchmark: Any, size: Size, longest_path: Path) -> None:
    with el.open(longest_path, read_only=True) as lab:
        moments = _moments(lab, size(10_000, 100))
        found = compare(
            benchmark, lambda: lab.history(el.Trades, MARKET, at=moments), lambda: lab.state(el.Trades, MARKET),
            rounds=5, row="history: el.Trades at 10,000 times, fifty million trades on disk",
            events=lab.store.stop_position, against="one fold of them, lab.state", wanted_ratio=0.67,
        )  # fmt: skip
        assert found["version"][-1] == lab.store.stop_position
        assert found["volume"][-1] == lab.state(el.Trades, MARKET).volume


def test_history_at_a_million_times(benchmark: Any, size: Size, long_path: Path) -> None:
    with el.open(long_path, read_only=True) as lab:
        moments = _moments(lab, size(1_000_000, 1_000))
        compare(
            benchmark, lambda: lab.history(el.Trades, MARKET, at=moments), rounds=7,
            row="history: el.Trades at a million times, ten million trades on disk", events=lab.store.stop_position,
            wanted_rate=20e6,
        )  # fmt: skip


def test_portfolio_beside_eventsourcing(benchmark: Any, size: Size, tmp_path: Path) -> None:
    pytest.importorskip("eventsourcing", reason="eventsourcing is not installed: it is among the peers")
    fills = fills_of(size(2_000_000, 2_000))
    some = fills.head(size(20_000, 100))
    aggregate = eventsourced_portfolio()
    for fill in some.iter_rows():
        aggregate.fill(*fill)
    application = eventsourced_application(aggregate)
    with el.open(tmp_path) as lab:
        lab.append_frame(el.PortfolioChange, some, aggregate_id="portfolio/few")
        lab.append_frame(el.PortfolioChange, fills, aggregate_id="portfolio/all")
        compare(
            benchmark, lambda: lab.state(AverageCost, "portfolio/all"),
            lambda: application.repository.get(aggregate.id),
            row="state: a portfolio by average cost, 20 symbols, from a store on disk", events=len(fills),
            against="eventsourcing, from its store in memory", against_events=len(some), rounds=5,
        )  # fmt: skip
        assert lab.state(AverageCost, "portfolio/few").cash == application.repository.get(aggregate.id).cash
