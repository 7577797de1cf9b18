"""Averages of trade prices: by hand, against Polars' own, and against exact integrals."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FoldError
from tests.examples import examples

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])
SECOND = 1_000_000_000
START = 1_704_067_200 * SECOND
TRADES = st.lists(st.tuples(st.integers(0, 10**11), st.floats(0.5, 1e5), st.floats(0.0, 1e3)), min_size=1, max_size=40)
HALF_LIFE = 5 * SECOND


def traded(lab, trades, name="m"):
    for nanoseconds, price, volume in trades:
        lab.append(name, el.MarketData("A", price, volume), timestamp=START + nanoseconds)


@BOTH
def test_averages(interpret):
    with el.open(":memory:") as lab:
        traded(lab, [(0, 10.0, 1.0), (3 * SECOND, 20.0, 3.0), (4 * SECOND, 40.0, 0.0), (4 * SECOND, 80.0, 4.0)])
        vwap = lab.history(el.Vwap, "m", interpret=interpret)["vwap"].to_list()
        twap = lab.history(el.Twap, "m", interpret=interpret)["twap"].to_list()
        ewma = lab.history(el.Ewma(alpha=0.5), "m", interpret=interpret)["ewma"].to_list()
        timed = lab.history(el.EwmaTime(half_life_ns=SECOND), "m", interpret=interpret)["ewma"].to_list()
    assert vwap == [10.0, 17.5, 17.5, 48.75]
    assert twap == [10.0, 10.0, 12.5, 12.5]  # 10 for three seconds, 20 for one
    assert ewma == [10.0, 15.0, 27.5, 53.75]
    assert timed == pytest.approx([10.0, 18.75, 29.375, 29.375], rel=1e-15)  # no time passed, no weight


@BOTH
def test_before_the_first_trade_and_without_volume_there_is_no_average(interpret):
    with el.open(":memory:") as lab:
        traded(lab, [(0, 10.0, 0.0)])
        for reducer, name in ((el.Vwap, "vwap"), (el.Twap, "twap"), (el.Ewma, "ewma"), (el.EwmaTime, "ewma")):
            assert math.isnan(getattr(lab.state(reducer, "m", as_of=0, interpret=interpret), name))
            after = getattr(lab.state(reducer, "m", interpret=interpret), name)
            assert math.isnan(after) if name == "vwap" else after == 10.0


@BOTH
@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        (el.Ewma, {"alpha": 0.0}),
        (el.Ewma, {"alpha": 1.5}),
        (el.Ewma, {"alpha": math.nan}),
        (el.EwmaTime, {"half_life_ns": 0}),
        (el.EwmaTime, {"half_life_ns": -1}),
    ],
)
def test_weights_that_make_no_average_are_refused(interpret, base, parameters):
    with el.open(":memory:") as lab:
        traded(lab, [(0, 1.0, 1.0)])
        (name,) = parameters
        with pytest.raises(FoldError, match=f"{base.name} failed on market_data of 'm', version 1: ValueError: {name}"):
            lab.state(base(**parameters), "m", interpret=interpret)


@examples(25)
@given(TRADES)
def test_averages_agree_with_polars_and_with_exact_integrals(trades):
    trades = sorted(trades)
    with el.open(":memory:") as lab:
        traded(lab, trades)
        ewma = lab.history(el.Ewma(alpha=0.25), "m", interpret=True)["ewma"]
        timed = lab.history(el.EwmaTime(half_life_ns=HALF_LIFE), "m", interpret=True)
        twap = lab.state(el.Twap, "m", interpret=True).twap
        vwap = lab.state(el.Vwap, "m", interpret=True).vwap
    prices = pl.Series([price for _, price, _ in trades])
    assert ewma.to_list() == pytest.approx(prices.ewm_mean(alpha=0.25, adjust=False).to_list(), rel=1e-12)
    by_time = pl.DataFrame({"at": timed["timestamp"], "price": prices}).select(
        pl.col("price").ewm_mean_by("at", half_life="5s")
    )
    assert timed["ewma"].to_list() == pytest.approx(by_time["price"].to_list(), rel=1e-9)
    elapsed = trades[-1][0] - trades[0][0]
    integral = sum(Fraction(before[1]) * (after[0] - before[0]) for before, after in pairwise(trades))
    assert twap == (pytest.approx(float(integral / elapsed), rel=1e-13) if elapsed else trades[-1][1])
    volume = sum(Fraction(size) for *_, size in trades)
    if volume > Fraction(1, 10**6):
        exact = sum(Fraction(price) * Fraction(size) for _, price, size in trades) / volume
        assert vwap == pytest.approx(float(exact), rel=1e-12)


@examples(20)
@given(TRADES)
def test_an_average_lies_between_the_lowest_and_the_highest_price(trades):
    trades = sorted(trades)
    low, high = min(price for _, price, _ in trades), max(price for _, price, _ in trades)
    with el.open(":memory:") as lab:
        traded(lab, trades)
        for reducer, name in ((el.Twap, "twap"), (el.Ewma, "ewma"), (el.EwmaTime, "ewma")):
            average = getattr(lab.state(reducer, "m", interpret=True), name)
            assert low * (1 - 1e-12) <= average <= high * (1 + 1e-12)
