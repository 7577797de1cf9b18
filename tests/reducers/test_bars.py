"""Bars: small ones by hand, real trades against Polars, and sizes that make no sense."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FoldError, ReducerError
from tests.examples import examples

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])
SECOND = 1_000_000_000
START = 1_704_067_200 * SECOND
LAST = ["last_open", "last_high", "last_low", "last_close", "last_volume", "last_notional", "last_count"]
TICKS, MINUTES = el.TickBars(size=100), el.TimeBars()
VOLUMES, DOLLARS = el.VolumeBars(size=25.0), el.DollarBars(size=1_500_000.0)


def completed(history):
    """The rows after which there is one more bar, as the docstring says."""
    return history.filter(pl.col("bars") != pl.col("bars").shift(1, fill_value=0))


def traded(lab, *trades, name="m"):
    for seconds, price, volume in trades:
        lab.append(name, el.MarketData("A", price, volume), timestamp=START + int(seconds * SECOND))


@BOTH
def test_time_bars_cover_up_to_and_including_their_end(interpret):
    with el.open(":memory:") as lab:
        traded(lab, (1, 5.0, 1.0), (10, 7.0, 2.0), (10.5, 6.0, 1.0), (39.9, 4.0, 1.0), (40, 4.5, 3.0), (41, 9.0, 1.0))
        history = lab.history(el.TimeBars(width_ns=10 * SECOND), "m", interpret=interpret)
    bars = completed(history)
    assert bars["version"].to_list() == [3, 4, 6]  # the trades that told of an end
    assert bars.select(LAST).rows() == [
        (5.0, 7.0, 5.0, 7.0, 3.0, 19.0, 2),
        (6.0, 6.0, 6.0, 6.0, 1.0, 6.0, 1),  # 10.5 lies in (10, 20]; (20, 30] had no trade
        (4.0, 4.5, 4.0, 4.5, 4.0, 17.5, 2),
    ]
    assert [(end - START) // SECOND for end in bars["last_end"]] == [10, 20, 40]
    assert bars["last_vwap"].to_list() == [19.0 / 3.0, 6.0, 17.5 / 4.0]
    assert [(end - START) // SECOND for end in history["end"]] == [10, 10, 20, 40, 40, 50]
    assert history.row(-1, named=True)["open"] == 9.0


@BOTH
def test_a_trade_that_fills_a_bar_belongs_to_it_whole(interpret):
    with el.open(":memory:") as lab:
        traded(lab, (0, 10.0, 3.0), (1, 20.0, 9.0), (2, 30.0, 0.0), (3, 10.0, 5.0))
        by_volume = lab.history(el.VolumeBars(size=5.0), "m", interpret=interpret)
        by_value = lab.history(el.DollarBars(size=30.0), "m", interpret=interpret)
    assert by_volume["bars"].to_list() == [0, 1, 1, 2]
    assert completed(by_volume).select(LAST).rows() == [
        (10.0, 20.0, 10.0, 20.0, 12.0, 210.0, 2),
        (30.0, 30.0, 10.0, 10.0, 5.0, 50.0, 2),
    ]
    assert completed(by_volume)["last_end"].to_list() == [START + SECOND, START + 3 * SECOND]
    assert completed(by_volume)["last_started"].to_list() == [START, START + 2 * SECOND]
    assert by_value["bars"].to_list() == [1, 2, 2, 3]
    empty = by_value.row(0, named=True)
    assert (empty["count"], empty["volume"], empty["notional"], empty["started"]) == (0, 0.0, 0.0, 0)
    assert all(math.isnan(empty[name]) for name in ("open", "high", "low", "close", "vwap"))


@BOTH
@pytest.mark.parametrize("reducer", [TICKS, MINUTES, VOLUMES, DOLLARS], ids=lambda reducer: reducer.name)
def test_before_the_first_trade_there_is_no_bar(interpret, reducer):
    with el.open(":memory:") as lab:
        traded(lab, (0, 1.0, 0.0))
        state = lab.state(reducer, "m", as_of=0, interpret=interpret)
        after = lab.state(reducer, "m", interpret=interpret)
    prices = [getattr(state, p + name) for p in ("", "last_") for name in ("open", "high", "low", "close", "vwap")]
    assert all(math.isnan(price) for price in prices)
    assert (state.bars, state.count, state.last_count, state.last_end) == (0, 0, 0, 0)
    assert (after.open, after.bars) == (1.0, 0)
    assert math.isnan(after.vwap)  # a price, but no volume


WRONG: list[Any] = [
    (el.TimeBars, {"width_ns": 0}, "width_ns"),
    (el.TimeBars, {"width_ns": -1}, "width_ns"),
    (el.TickBars, {"size": 0}, "size, the trades in a bar"),
    (el.VolumeBars, {"size": 0.0}, "size, the volume of a bar"),
    (el.VolumeBars, {"size": math.nan}, "size, the volume of a bar"),
    (el.DollarBars, {"size": -5.0}, "size, the value traded in a bar"),
]


@BOTH
@pytest.mark.parametrize(("base", "parameters", "said"), WRONG)
def test_sizes_that_make_no_bar_are_refused_at_the_first_trade(interpret, base, parameters, said):
    with el.open(":memory:") as lab:
        traded(lab, (0, 1.0, 1.0))
        with pytest.raises(FoldError, match=f"{base.name} failed on market_data of 'm', version 1: ValueError: {said}"):
            lab.state(base(**parameters), "m", interpret=interpret)


def test_a_width_is_a_whole_number():
    with pytest.raises(ReducerError, match="TimeBars.width_ns"):
        el.TimeBars(width_ns=60e9)


@examples(20)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 99), st.integers(0, 9)), min_size=1, max_size=60))
def test_all_bars_and_the_one_being_built_hold_every_trade_once(trades):
    with el.open(":memory:") as lab:
        traded(lab, *sorted((seconds, float(price), float(size)) for seconds, price, size in trades))
        for reducer in (el.TimeBars(width_ns=7 * SECOND), el.TickBars(size=4), el.VolumeBars(size=11.0)):
            history = lab.history(reducer, "m", interpret=True)
            bars, last = completed(history), history.row(-1, named=True)
            assert bars["last_count"].sum() + last["count"] == len(trades)
            assert bars["last_volume"].sum() + last["volume"] == sum(size for _, _, size in trades)
            assert bars["last_end"].is_sorted()
            assert (bars["last_started"] <= bars["last_end"]).all()
            assert bars.height == last["bars"]


@pytest.fixture(scope="module", params=["usdm", "spot"])
def real(request, market_data_dir):
    with el.open(":memory:") as lab:
        path = market_data_dir / "binance" / f"{request.param}_btcusdt_trades.csv.gz"
        lab.ingest(el.feeds.binance_trades(path, symbol="BTCUSDT"), progress=False)
        yield lab, lab.events(el.MarketData).with_columns(notional=pl.col("price") * pl.col("volume"))


OHLCV = [
    pl.col("price").first().alias("last_open"),
    pl.col("price").max().alias("last_high"),
    pl.col("price").min().alias("last_low"),
    pl.col("price").last().alias("last_close"),
    pl.col("volume").sum().alias("last_volume"),
    pl.col("notional").sum().alias("last_notional"),
    pl.len().cast(pl.Int64).alias("last_count"),
]


def assert_same_bars(bars, expected):
    assert bars.height == expected.height
    exact = ["last_open", "last_high", "last_low", "last_close", "last_count"]
    assert bars.select(exact).equals(expected.select(exact))
    for name in ("last_volume", "last_notional"):  # Polars adds up in another order
        assert bars[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-12)


def test_real_tick_bars_are_what_polars_groups(real):
    lab, trades = real
    groups = trades.with_columns(bar=pl.int_range(pl.len()) // 100)
    expected = groups.group_by("bar", maintain_order=True).agg(*OHLCV, pl.col("timestamp").last())
    whole = expected.filter(pl.col("last_count") == 100)
    assert whole.height > 150
    bars = completed(lab.history(TICKS, "market/BTCUSDT", interpret=False))
    assert_same_bars(bars, whole)
    assert bars["last_end"].to_list() == whole["timestamp"].to_physical().to_list()


@pytest.mark.parametrize("width", ["1s", "1m"])
def test_real_time_bars_are_what_polars_groups(real, width):
    lab, trades = real
    expected = trades.group_by_dynamic("timestamp", every=width, closed="right", label="right").agg(*OHLCV)
    reducer = MINUTES if width == "1m" else el.TimeBars(width_ns=SECOND)
    history = lab.history(reducer, "market/BTCUSDT", interpret=False)
    bars = completed(history)
    assert_same_bars(bars, expected[:-1])
    assert bars["last_end"].to_list() == expected["timestamp"][:-1].dt.cast_time_unit("ns").to_physical().to_list()
    assert history["count"][-1] == expected["last_count"][-1]


@pytest.mark.parametrize(
    ("reducer", "measure", "size"), [(VOLUMES, "volume", 25.0), (DOLLARS, "notional", 1_500_000.0)], ids=["vol", "usd"]
)
def test_real_volume_and_dollar_bars_are_cut_where_a_plain_sum_says(real, reducer, measure, size):
    lab, trades = real
    number, total, numbers = 0, 0.0, []
    for value in trades[measure]:
        numbers.append(number)
        total += value
        if total >= size:
            number, total = number + 1, 0.0
    expected = trades.with_columns(bar=pl.Series(numbers)).group_by("bar", maintain_order=True).agg(*OHLCV)
    bars = completed(lab.history(reducer, "market/BTCUSDT", interpret=False))
    assert bars.height == number > 10
    assert_same_bars(bars, expected[:number])
    assert (bars[f"last_{measure}"] >= size).all()
