from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.demo.market import Market, markets
from eventlab.demo.trader import PORTFOLIO, SIGNALS, Crossover, run_trader

TRADER = Crossover(fast=2, slow=4)
SECOND = 1_000_000_000


def frame(steps, prices):
    times = pl.Series(np.cumsum(steps), dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    return pl.DataFrame({"position": range(len(prices)), "timestamp": times, "price": prices})


def naive(trades, fast, slow, step):
    """Bar by bar, from what was known when each ended."""
    ns, price = trades["timestamp"].to_physical().to_list(), trades["price"].to_list()
    closes, made, side = [], [], 0
    for at in range(len(ns) - 1):
        end = -(-ns[at] // step) * step
        if ns[at + 1] <= end:
            continue
        closes.append(price[at])
        if len(closes) < slow:
            continue
        apart = np.mean(closes[-fast:]) - np.mean(closes[-slow:])
        now = 0 if abs(apart) < 1e-9 else (1 if apart > 0 else -1)
        if now and now != side:
            side = now
            made.append((end, at, "buy" if now > 0 else "sell", ns[at + 1], price[at + 1]))
    return made


markets_of_trades = st.integers(5, 60).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 3 * SECOND), min_size=count, max_size=count),
        st.lists(st.integers(90, 110).map(float), min_size=count, max_size=count),
    )
)


@given(markets_of_trades)
def test_decisions_are_those_of_a_trader_who_knows_only_the_past(drawn):
    trades = frame(*drawn)
    found = TRADER.decisions(trades, "1s")
    columns = ("timestamp", "cause", "action", "fill_timestamp", "fill_price")
    physical = found.with_columns(pl.col("timestamp", "fill_timestamp").to_physical())
    assert physical.select(columns).rows() == naive(trades, 2, 4, SECOND)


@given(markets_of_trades, st.data())
def test_more_trades_never_change_an_earlier_decision(drawn, data):
    trades = frame(*drawn)
    cut = data.draw(st.integers(1, len(trades)))
    known = TRADER.decisions(trades.head(cut), "1s")
    assert TRADER.decisions(trades, "1s").head(len(known)).equals(known)


@settings(max_examples=25)
@given(markets_of_trades)
def test_a_fill_comes_after_its_signal_and_that_after_its_cause(drawn):
    trades = frame(*drawn)
    found = TRADER.decisions(trades, "1s")
    caused = trades["timestamp"].gather(found["cause"])
    assert (caused <= found["timestamp"]).all()
    assert (found["fill_timestamp"] > found["timestamp"]).all()
    assert set(found["quantity"].sign().to_list()) <= {1.0, -1.0}


def test_signals_and_fills_are_caused_all_the_way_to_the_market():
    trader = Crossover(fast=3, slow=8)
    with el.open(":memory:") as lab:
        lab.ingest(el.feeds.simulate(symbols=("A", "B"), trades=3_000, seed=2), progress=False)
        there = markets(lab)
        acted = run_trader(lab, there, trader)
        assert acted.signals == acted.fills > 2
        signals, fills = lab.events(el.TradingSignal), lab.events(el.PortfolioChange).filter(kind="fill")
        trades = lab.events(el.MarketData).select("position", "symbol", market_time="timestamp")
        traced = fills.join(signals, left_on="cause", right_on="position", suffix="_signal").join(
            trades, left_on="cause_signal", right_on="position", suffix="_market"
        )
        assert len(traced) == acted.fills
        assert (traced["symbol"] == traced["symbol_signal"]).all()
        assert (traced["symbol"] == traced["symbol_market"]).all()
        assert (traced["market_time"] <= traced["timestamp_signal"]).all()
        assert (traced["timestamp_signal"] < traced["timestamp"]).all()
        assert (traced["position"] > traced["cause"]).all()
        state = lab.state(el.Portfolio, PORTFOLIO)
        assert state.fills == acted.fills
        assert state.fees == pytest.approx(fills["fee"].sum())
        assert fills.select((pl.col("fee") / (pl.col("quantity") * pl.col("price")).abs()).max()).item() == (
            pytest.approx(trader.fee)
        )
        assert lab.state(el.Signals, SIGNALS).count == acted.signals


def test_a_market_too_short_to_decide_on_leaves_only_cash():
    with el.open(":memory:") as lab:
        lab.append("market/A", el.MarketData("A", 1.0, 1.0), timestamp="2024-01-01")
        assert run_trader(lab, markets(lab), Crossover()).fills == 0
        assert lab.state(el.Portfolio, PORTFOLIO).cash == 100_000.0


def test_a_market_has_a_bar_length_that_suits_its_life():
    def bar(seconds):
        return Market("market/A", 1, 0, seconds * SECOND).bar

    assert [bar(10), bar(650), bar(86_400), bar(10**9)] == ["1s", "5s", "5m", "1w"]
