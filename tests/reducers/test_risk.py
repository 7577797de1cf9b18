"""Exposure and drawdown: by hand, in exact fractions, and beside the portfolio they are of."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from tests.examples import examples
from tests.fold.strategies import PORTFOLIO_CHANGES

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])


def opened(changes):
    lab = el.open(":memory:")
    lab.append("p", [el.PortfolioChange(*change) for change in changes])
    return lab


def risk(changes, *, interpret=True):
    with opened(changes) as lab:
        return lab.state(el.Risk, "p", interpret=interpret)


DEPOSIT = ("USD", 1_000.0, 1.0, 0.0, "cash")


@BOTH
def test_exposure_and_leverage(interpret):
    state = risk([DEPOSIT, ("A", 20.0, 100.0, 10.0), ("B", -5.0, 50.0), ("A", 0.0, 110.0)], interpret=interpret)
    assert state.cash == 1_000.0 - 2_000.0 - 10.0 + 250.0
    assert (state.net, state.gross, state.open_positions) == (2_200.0 - 250.0, 2_200.0 + 250.0, 2)
    assert state.equity == 1_000.0 - 10.0 + 200.0
    assert state.leverage == 2_450.0 / 1_190.0
    assert (state.peak, state.loss, state.drawdown) == (1_190.0, 0.0, 0.0)
    assert (state.max_loss, state.max_drawdown) == (10.0, 0.01)  # the fee
    assert state.positions.rows() == [("A", 20.0, 110.0, 2_200.0, 20.0), ("B", -5.0, 50.0, -250.0, 5.0)]


@BOTH
def test_a_drawdown_is_measured_from_the_peak_before_it(interpret):
    prices = (100.0, 120.0, 90.0, 110.0, 150.0, 135.0)
    changes = [DEPOSIT, *(("A", quantity, price) for quantity, price in zip([10.0] + [0.0] * 5, prices, strict=True))]
    with opened(changes) as lab:
        rows = lab.history(el.Risk, "p", interpret=interpret)
    assert rows["equity"].to_list() == [1_000.0, 1_000.0, 1_200.0, 900.0, 1_100.0, 1_500.0, 1_350.0]
    assert rows["loss"].to_list() == [0.0, 0.0, 0.0, 300.0, 100.0, 0.0, 150.0]
    assert rows["drawdown"].to_list() == [0.0, 0.0, 0.0, 0.25, 100.0 / 1_200.0, 0.0, 0.1]
    assert rows["max_drawdown"].to_list() == [0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25]
    assert rows["max_loss"].to_list() == [0.0, 0.0, 0.0, 300.0, 300.0, 300.0, 300.0]


@BOTH
def test_money_paid_in_or_out_is_neither_profit_nor_loss(interpret):
    changes = [
        DEPOSIT,
        ("A", 10.0, 100.0),
        ("A", 0.0, 80.0),  # down 200
        ("USD", 9_000.0, 1.0, 0.0, "cash"),  # does not hide it
        ("USD", -5_000.0, 1.0, 0.0, "cash"),  # adds nothing to it
        ("USD", -100.0, 1.0, 2.0, "cash"),  # but for its fee
        ("A", -30.0, 1.0, 0.0, "funding"),  # which funding paid is a loss too
    ]
    with opened(changes) as lab:
        rows = lab.history(el.Risk, "p", interpret=interpret)
    assert rows["loss"].to_list() == [0.0, 0.0, 200.0, 200.0, 200.0, 202.0, 232.0]
    assert rows["peak"].to_list() == [1_000.0, 1_000.0, 1_000.0, 10_000.0, 5_000.0, 4_900.0, 4_900.0]
    assert rows["max_drawdown"].to_list() == [0.0, 0.0] + [0.2] * 5


@BOTH
def test_without_equity_there_is_no_leverage_and_without_a_peak_no_drawdown(interpret):
    with opened([("A", 1.0, 10.0, 2.0)]) as lab:
        before, state = (lab.state(el.Risk, "p", as_of=version, interpret=interpret) for version in (0, 1))
    for found, loss in ((before, 0.0), (state, 2.0)):
        assert math.isnan(found.leverage)
        assert math.isnan(found.drawdown)
        assert (found.loss, found.max_drawdown) == (loss, 0.0)
    assert (state.equity, state.max_loss, state.gross) == (-2.0, 2.0, 10.0)


@BOTH
def test_a_flat_portfolio_is_exposed_to_exactly_nothing(interpret):
    fills = [("A", 0.1, 0.3), ("B", -1e9, 123456.7), ("A", 0.2, 0.7), ("A", -0.3, 1.1), ("B", 1e9, 0.1)]
    state = risk(fills, interpret=interpret)
    assert (state.open_positions, state.gross, state.net, state.gross_rest, state.net_rest) == (0, 0.0, 0.0, 0.0, 0.0)
    assert state.equity == state.cash


@BOTH
def test_exposure_does_not_drift(interpret):
    # A giant comes and goes a thousand times; what is left is the sum of two small positions, to the last bit.
    fills = [("A", 0.1, 0.3), ("B", -0.7, 1.1)] + [("C", 1e15, 0.1), ("C", -1e15, 0.3)] * 1_000
    state = risk(fills, interpret=interpret)
    assert state.net == 0.1 * 0.3 + -0.7 * 1.1
    assert state.gross == 0.1 * 0.3 + 0.7 * 1.1


@examples(50)
@given(st.lists(PORTFOLIO_CHANGES, min_size=1, max_size=50))
def test_it_holds_what_the_portfolio_holds(changes):
    with el.open(":memory:") as lab:
        lab.append("p", changes)
        ours, theirs = (lab.state(reducer, "p", interpret=True) for reducer in (el.Risk, el.Portfolio))
    assert ours.cash == theirs.cash
    held = {symbol: (quantity, price) for symbol, quantity, price, *_ in ours.positions.rows()}
    for row in theirs.positions.rows(named=True):
        quantity, price = held.get(row["symbol"], (0.0, 0.0))  # funding alone makes a row there
        assert (quantity, price) == (row["quantity"], row["last_price"])
    scale = sum(abs(quantity * price) for quantity, price in held.values()) + abs(ours.cash)
    assert ours.equity == pytest.approx(theirs.equity, rel=1e-12, abs=1e-14 * scale)


def exact_account(changes):
    """Cash, net and gross exposure, equity and loss in exact fractions of the decimals as written."""
    cash = peak = loss = Fraction(0)
    held, last, most = {}, {}, Fraction(0)
    for symbol, *numbers, kind in changes:
        quantity, price, fee = (Fraction(str(number)) for number in numbers)
        cash += (-quantity if kind == "fill" else quantity) * price - fee
        if kind == "fill":
            held[symbol], last[symbol] = held.get(symbol, Fraction(0)) + quantity, price
        if kind == "cash":
            peak += quantity * price
        equity = cash + sum(held[name] * last[name] for name in held)
        peak = max(peak, equity)
        loss = peak - equity
        most = max(most, loss)
    values = [held[name] * last[name] for name in held]
    return cash, sum(values, Fraction(0)), sum(map(abs, values), Fraction(0)), loss, most


CHANGES = st.tuples(
    st.sampled_from(["A", "B", "C"]),
    st.integers(-3_000, 3_000).map(lambda thousandths: thousandths / 1_000) | st.sampled_from([0.1, -0.1, 0.3, -0.3]),
    st.integers(0, 20_000).map(lambda cents: cents / 100),
    st.integers(-100, 100).map(lambda cents: cents / 100),
    st.sampled_from(["fill", "fill", "fill", "fill", "cash", "funding"]),
)


@examples(50)
@given(st.lists(CHANGES, min_size=1, max_size=50))
def test_the_account_agrees_with_exact_fractions(changes):
    state = risk(changes)
    turnover = sum(abs(q * p) + abs(fee) for _, q, p, fee, _ in changes) + 1.0
    found = (state.cash, state.net, state.gross, state.loss, state.max_loss)
    for ours, exact in zip(found, exact_account(changes), strict=True):
        assert ours == pytest.approx(float(exact), rel=1e-12, abs=1e-13 * turnover)


@examples(25)
@given(st.lists(PORTFOLIO_CHANGES.filter(lambda change: change.kind != "cash"), min_size=1, max_size=50))
def test_drawdowns_are_those_of_the_running_peak(changes):
    with el.open(":memory:") as lab:
        lab.append("p", changes)
        rows = lab.history(el.Risk, "p", interpret=True)
    equity = rows["equity"].to_numpy()
    peak = np.maximum.accumulate(np.maximum(equity, 0.0))
    assert np.array_equal(rows["peak"].to_numpy(), peak)
    assert np.array_equal(rows["loss"].to_numpy(), peak - equity)
    assert np.array_equal(rows["max_loss"].to_numpy(), np.maximum.accumulate(peak - equity))
    fraction = np.divide(peak - equity, peak, out=np.zeros(len(peak)), where=peak > 0.0)
    assert np.array_equal(rows["max_drawdown"].to_numpy(), np.maximum.accumulate(fraction))
