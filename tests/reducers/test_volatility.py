"""Realised volatility against NumPy, on random and on real prices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from tests.examples import examples

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])


def state_of(prices, *, interpret=True, as_of=None):
    with el.open(":memory:") as lab:
        lab.append("m", [el.MarketData("A", price, 1.0) for price in prices])
        return lab.state(el.RealizedVolatility, "m", interpret=interpret, as_of=as_of)


@BOTH
def test_realized_volatility(interpret):
    state = state_of([1.0, math.e, math.e, 1.0, math.e**2], interpret=interpret)
    assert (state.count, state.last) == (4, math.e**2)
    assert state.variance == pytest.approx(1.0 + 0.0 + 1.0 + 4.0, rel=1e-14)
    assert state.volatility == pytest.approx(math.sqrt(6.0), rel=1e-14)
    assert state.bipower == pytest.approx(math.pi / 2.0 * (0.0 + 0.0 + 2.0), rel=1e-14)


@BOTH
def test_without_two_prices_nothing_has_moved(interpret):
    for prices, version in (([1.0], 0), ([5.0], None), ([0.0, 0.0], None), ([0.0, 5.0, 0.0], None)):
        state = state_of(prices, interpret=interpret, as_of=version)
        assert (state.count, state.variance, state.volatility, state.bipower) == (0, 0.0, 0.0, 0.0)


@BOTH
def test_a_price_of_zero_is_passed_over(interpret):
    with_zeros = state_of([0.0, 2.0, 0.0, 0.0, 3.0, 2.5, 0.0], interpret=interpret)
    assert with_zeros.digest == state_of([2.0, 3.0, 2.5], interpret=interpret).digest


@BOTH
def test_prices_whose_ratio_is_no_number_have_a_return_all_the_same(interpret):
    state = state_of([5e-324, 1e300, 5e-324], interpret=interpret)
    change = math.log(1e300) - math.log(5e-324)
    assert state.variance == pytest.approx(2.0 * change * change, rel=1e-14)


@examples(40)
@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=60))
def test_volatility_agrees_with_numpy(prices):
    state = state_of(prices)
    returns = np.diff(np.log(prices))
    assert state.count == len(returns)
    assert state.variance == pytest.approx(np.sum(returns**2), rel=1e-9, abs=1e-24)
    assert state.bipower == pytest.approx(
        np.pi / 2.0 * np.sum(np.abs(returns[1:]) * np.abs(returns[:-1])), rel=1e-9, abs=1e-13
    )


def test_real_trades_have_the_volatility_that_numpy_says(market_data_dir):
    with el.open(":memory:") as lab:
        path = market_data_dir / "binance" / "usdm_btcusdt_trades.csv.gz"
        lab.ingest(el.feeds.binance_trades(path, symbol="BTCUSDT"), progress=False)
        prices = lab.events(el.MarketData)["price"].to_numpy()
        states = [lab.state(el.RealizedVolatility, "market/BTCUSDT", interpret=way) for way in (True, False)]
    returns = np.log(prices[1:] / prices[:-1])
    assert states[0].digest == states[1].digest
    assert states[0].variance == pytest.approx(np.sum(returns**2), rel=1e-11)
    bipower = np.pi / 2.0 * np.sum(np.abs(returns[1:] * returns[:-1]))
    assert states[0].bipower == pytest.approx(bipower, rel=1e-11)
