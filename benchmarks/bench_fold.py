"""Folding in memory, compared with other work on the same columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest
from numba import njit

import eventlab as el
from benchmarks.conftest import Size
from benchmarks.measure import compare
from benchmarks.peers import eventsourced_portfolio, hftbacktest_replay
from eventlab.events.columns import payload_from_frame
from eventlab.events.frame import EventTable
from eventlab.events.types import event_type
from eventlab.fold.declare.layout import Keyed
from eventlab.fold.declare.reducer import Reducer, reducer
from eventlab.fold.executors import Executor, Serial, Threads
from eventlab.fold.fold import fold
from eventlab.fold.result import Folded
from eventlab.fold.stops import Stops

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


@reducer
class Flow:
    """A market reducer of five fields."""

    high: float = -math.inf
    low: float = math.inf
    volume: float = 0.0
    notional: float = 0.0
    count: int = 0

    def on_market_data(state: Any, event: Any) -> None:  # noqa: N805 - a handler's first argument is the state
        if event.price > state.high:
            state.high = event.price
        if event.price < state.low:
            state.low = event.price
        state.volume += event.volume
        state.notional += event.price * event.volume
        state.count += 1


@reducer
class AverageCost:
    """A portfolio by average cost, and nothing else."""

    cash: float = 0.0
    realized_pnl: float = 0.0
    positions = Keyed("symbol", quantity=float, average_cost=float)

    def on_portfolio_change(state: Any, event: Any) -> None:  # noqa: N805
        quantity = event.quantity
        price = event.price
        state.cash -= quantity * price + event.fee
        row = state.positions[event.symbol]
        held = row.quantity
        left = held + quantity
        if held * quantity >= 0.0:
            if left != 0.0:
                row.average_cost = (held * row.average_cost + quantity * price) / left
        else:
            closed = min(abs(held), abs(quantity))
            if held > 0.0:
                state.realized_pnl += closed * (price - row.average_cost)
            else:
                state.realized_pnl -= closed * (price - row.average_cost)
            if held * left < 0.0:
                row.average_cost = price
            elif left == 0.0:
                row.average_cost = 0.0
        row.quantity = left


@njit
def average_cost_by_hand(
    symbols: Codes, quantities: Floats, prices: Floats, fees: Floats, held_of: Floats, cost_of: Floats
) -> tuple[float, float]:
    """`AverageCost` written by hand for one array a column, with numbers for symbols."""
    cash, realized_pnl = 0.0, 0.0
    for at in range(len(symbols)):
        symbol, quantity, price = symbols[at], quantities[at], prices[at]
        cash -= quantity * price + fees[at]
        held = held_of[symbol]
        left = held + quantity
        if held * quantity >= 0.0:
            if left != 0.0:
                cost_of[symbol] = (held * cost_of[symbol] + quantity * price) / left
        else:
            closed = min(abs(held), abs(quantity))
            if held > 0.0:
                realized_pnl += closed * (price - cost_of[symbol])
            else:
                realized_pnl -= closed * (price - cost_of[symbol])
            if held * left < 0.0:
                cost_of[symbol] = price
            elif left == 0.0:
                cost_of[symbol] = 0.0
        held_of[symbol] = left
    return cash, realized_pnl


def _table(event_class: type, columns: Mapping[str, pa.Array], aggregates: int = 1) -> EventTable:
    """Events of aggregates of equal length, as a store passes them to a fold."""
    rows = len(next(iter(columns.values())))
    offsets = np.linspace(0, rows, aggregates + 1).astype(np.int64)
    version = np.arange(1, rows + 1) - np.repeat(offsets[:-1], np.diff(offsets))
    position = np.arange(rows)
    return EventTable(event_type(event_class), offsets, position, version, position, columns)


def _payload(event_class: type, frame: pl.DataFrame) -> dict[str, pa.Array]:
    batch = payload_from_frame(event_type(event_class), frame)
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _fold(folding: Reducer, table: EventTable, interpret: bool = False, executor: Executor | None = None) -> Folded:
    count = len(table.offsets) - 1
    name = table.type.name
    stops = Stops(np.arange(count + 1), {name: table.offsets[:-1]}, {name: table.offsets[1:]})
    aggregates, initial = [f"a/{at}" for at in range(count)], folding.layout.initial(count)
    return fold(folding, aggregates, initial, {name: table}, stops, interpret=interpret, executor=executor)


def _walk(rows: int) -> dict[str, pa.Array]:
    """Prices that walk by ticks, and volumes in lots."""
    rng = np.random.default_rng(1)
    price = 60_000 + np.cumsum(rng.integers(-1, 2, rows)) * 0.01
    return {"price": pa.array(price), "volume": pa.array(rng.integers(1, 1_000, rows) * 0.001)}


def _beside_numpy(benchmark: Any, size: Size, folding: Reducer, row: str) -> None:
    table = _table(el.MarketData, _walk(size(20_000_000, 10_000)))
    arrays = [column.to_numpy() for column in table.columns.values()]
    compare(
        benchmark, lambda: _fold(folding, table), lambda: [array.sum() for array in arrays],
        row=row, events=len(table), against="NumPy sum of the same columns", rounds=15, wanted_ratio=0.8,
    )  # fmt: skip


def test_five_fields_beside_numpy(benchmark: Any, size: Size) -> None:
    _beside_numpy(benchmark, size, Flow, "fold in memory: a market reducer of five fields, one core")


def test_trades_beside_numpy(benchmark: Any, size: Size) -> None:
    _beside_numpy(benchmark, size, el.Trades, "fold in memory: el.Trades, seven fields, one core")


def test_two_cores_beside_one(benchmark: Any, size: Size) -> None:
    table = _table(el.MarketData, _walk(size(20_000_000, 200_000)), aggregates=2)
    compare(
        benchmark, lambda: _fold(Flow, table, executor=Threads(2)), lambda: _fold(Flow, table, executor=Serial()),
        row="fold in memory: the same of two markets, two cores", events=len(table), against="one core", rounds=15,
        wanted_ratio=1.6,
    )  # fmt: skip


def test_a_million_moments(benchmark: Any, size: Size) -> None:
    rows, moments = size(2_500_000, 5_000), size(1_000_000, 2_000)
    table = _table(el.MarketData, _walk(rows))
    name = table.type.name
    bounds = np.sort(np.random.default_rng(4).integers(0, rows, moments))
    stops = Stops(np.array([0, moments]), {name: np.zeros(1, np.int64)}, {name: bounds})
    folded = compare(
        benchmark,
        lambda: fold(el.Trades, ["a"], el.Trades.layout.initial(1), {name: table}, stops, emit=True, interpret=False),
        row="fold in memory: el.Trades and its properties at a million moments of 2.5 million trades",
        events=moments, unit="moments/s", rounds=9, wanted_rate=20e6,
    )  # fmt: skip
    assert folded.emitted is not None
    assert folded.emitted.num_rows == moments


def test_trades_beside_polars(benchmark: Any, size: Size) -> None:
    table = _table(el.MarketData, _walk(size(5_000_000, 10_000)), aggregates=50)
    owner = np.repeat(np.arange(50), np.diff(table.offsets))
    frame = pl.DataFrame({"owner": owner, **{name: pl.Series(array) for name, array in table.columns.items()}})
    price, volume = pl.col("price"), pl.col("volume")
    query = frame.lazy().group_by("owner").agg(
        open=price.first(), high=price.max(), low=price.min(), last=price.last(), volume=volume.sum(),
        notional=(price * volume).sum(), count=pl.len(),
    )  # fmt: skip
    folded = compare(
        benchmark, lambda: _fold(el.Trades, table), query.collect,
        row="fold in memory: el.Trades of 50 markets, all cores", events=len(table),
        against="Polars group_by, all cores", rounds=9, wanted_ratio=5,
    )  # fmt: skip
    states = pl.DataFrame(folded.states)
    assert states["high"].to_list() == query.collect().sort("owner")["high"].to_list()


def _beside_python(benchmark: Any, folding: Reducer, table: EventTable, some: EventTable, row: str) -> None:
    _fold(folding, some)
    compare(
        benchmark, lambda: _fold(folding, table), lambda: _fold(folding, some, True),
        row=row, events=len(table), against="the same handlers as plain Python", against_events=len(some), rounds=5,
    )  # fmt: skip


SYMBOLS = [f"COIN{number:02}USDT" for number in range(20)]


def fills_of(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(2)
    return pl.DataFrame({
        "symbol": rng.choice(SYMBOLS, rows),
        "quantity": rng.integers(-500, 501, rows) * 0.001,
        "price": 60_000 + rng.integers(-10_000, 10_000, rows) * 0.01,
        "fee": rng.random(rows),
    })  # fmt: skip


def _filled(fills: pl.DataFrame) -> EventTable:
    return _table(el.PortfolioChange, _payload(el.PortfolioChange, fills))


def test_portfolio_beside_a_loop_by_hand(benchmark: Any, size: Size) -> None:
    table = _filled(fills_of(size(5_000_000, 2_000)))
    symbols = table.columns["symbol"].indices.to_numpy()
    columns = [table.columns[name].to_numpy() for name in ("quantity", "price", "fee")]

    def by_hand() -> tuple[float, float]:
        return average_cost_by_hand(symbols, *columns, np.zeros(len(SYMBOLS)), np.zeros(len(SYMBOLS)))

    folded = compare(
        benchmark, lambda: _fold(AverageCost, table), by_hand,
        row="fold in memory: a portfolio by average cost, 20 symbols, one core", events=len(table),
        against="a Numba loop of the same arithmetic, by hand", rounds=11, wanted_ratio=0.8,
    )  # fmt: skip
    state = folded.states.to_pylist()[0]
    assert (state["cash"], state["realized_pnl"]) == by_hand()


def test_portfolio_beside_eventsourcing(benchmark: Any, size: Size) -> None:
    pytest.importorskip("eventsourcing", reason="eventsourcing is not installed: it is among the peers")
    fills = fills_of(size(2_000_000, 2_000))
    table, some = _filled(fills), fills.head(size(50_000, 100))
    aggregate = eventsourced_portfolio()
    for fill in some.iter_rows():
        aggregate.fill(*fill)
    decoded = aggregate.collect_events()

    def theirs() -> Any:
        copy = None
        for one in decoded:
            copy = one.mutate(copy)
        return copy

    compare(
        benchmark, lambda: _fold(AverageCost, table), theirs,
        row="fold in memory: a portfolio by average cost, 20 symbols, one core", events=len(table),
        against="eventsourcing, folding decoded events", against_events=len(some), rounds=5, wanted_ratio=1_000,
    )  # fmt: skip
    assert theirs().cash == _fold(AverageCost, _filled(some)).states.to_pylist()[0]["cash"]


def test_portfolio_beside_python(benchmark: Any, size: Size) -> None:
    full, some = _filled(fills_of(size(2_000_000, 2_000))), _filled(fills_of(size(20_000, 500)))
    _beside_python(benchmark, el.Portfolio, full, some, "fold in memory: el.Portfolio, average cost and FIFO")


@pytest.mark.parametrize("market", ["usdm", "spot"])
@pytest.mark.parametrize("depth", ["HashMapMarketDepthBacktest", "ROIVectorMarketDepthBacktest"])
def test_book_beside_hftbacktest(
    benchmark: Any, size: Size, market_file: Callable[[str], Path], market: str, depth: str
) -> None:
    pytest.importorskip("hftbacktest", reason="hftbacktest is not installed: it is among the peers")
    with el.open(":memory:") as lab:
        lab.ingest(el.feeds.tardis_book(market_file(f"{market}_btcusdt_l2.csv.gz")))
        columns = [field.name for field in event_type(el.BookChange)]
        frame = lab.events(el.BookChange, columns=columns).head(size(1_000_000, 20_000))
    table = _table(el.BookChange, _payload(el.BookChange, frame))
    replay = hftbacktest_replay(frame, depth, tick={"usdm": 0.1, "spot": 0.01}[market])
    several = 5  # as long as one replay takes, so that both are measured with their data near

    def ours() -> list[Folded]:
        return [_fold(el.OrderBook, table) for _ in range(several)]

    folded = compare(
        benchmark, ours, replay,
        row=f"fold in memory: el.OrderBook, {len(table):,} real changes of {market} BTCUSDT, prices ranked on the way",
        events=several * len(table), against=f"hftbacktest, {depth}", against_events=len(table), rounds=15,
        wanted_ratio=5,
    )  # fmt: skip
    best_bid, best_ask = replay()
    state = folded[-1].states.to_pylist()[0]
    assert state["bids"][0]["price"] == pytest.approx(best_bid)
    assert state["asks"][0]["price"] == pytest.approx(best_ask)


def test_order_book_beside_python(benchmark: Any, size: Size) -> None:
    feed = el.feeds.simulate(symbols=("BTCUSDT",), trades=size(300_000, 500), seed=3, books=True)
    parts = [b.frame for c in feed.chunks() for b in c.batches if b.type.name == "book_change"]
    frame = pl.concat(parts).drop("timestamp")
    full = _table(el.BookChange, _payload(el.BookChange, frame))
    some = _table(el.BookChange, _payload(el.BookChange, frame.head(size(20_000, 500))))
    _beside_python(benchmark, el.OrderBook, full, some, "fold in memory: el.OrderBook, simulated changes")
