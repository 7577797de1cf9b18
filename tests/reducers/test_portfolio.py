"""The portfolio against sums done by hand, and against exact arithmetic on cents."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from tests.examples import examples

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])


def portfolio(*changes, interpret=True):
    lab = el.open(":memory:")
    lab.append("portfolio/p", [el.PortfolioChange(*change) for change in changes])
    return lab.state(el.Portfolio, "portfolio/p", interpret=interpret)


def position(state, symbol="A"):
    (row,) = state.positions.filter(state.positions["symbol"] == symbol).rows(named=True)
    return row


def lots(state):
    return [(lot["quantity"], lot["price"]) for lot in state.lots.rows(named=True)]


BUY = ("A", 4.0, 10.0)


@BOTH
@pytest.mark.parametrize(
    ("fills", "quantity", "cost", "realized", "fifo", "open_lots"),
    [
        ([BUY], 4.0, 10.0, 0.0, 0.0, [(4.0, 10.0)]),
        ([("A", -4.0, 10.0)], -4.0, 10.0, 0.0, 0.0, [(4.0, 10.0)]),
        # adding moves the average cost: (4 * 10 + 4 * 20) / 8
        ([BUY, ("A", 4.0, 20.0)], 8.0, 15.0, 0.0, 0.0, [(4.0, 10.0), (4.0, 20.0)]),
        ([("A", -4.0, 10.0), ("A", -12.0, 6.0)], -16.0, 7.0, 0.0, 0.0, [(4.0, 10.0), (12.0, 6.0)]),
        # closing a part does not: average cost gains 6 * (30 - 15), first in first out 4 * (30 - 10) + 2 * (30 - 20)
        ([BUY, ("A", 4.0, 20.0), ("A", -6.0, 30.0)], 2.0, 15.0, 90.0, 100.0, [(2.0, 20.0)]),
        # a short's part: 2 * (10 - 7) by both
        ([("A", -4.0, 10.0), ("A", 2.0, 7.0)], -2.0, 10.0, 6.0, 6.0, [(2.0, 10.0)]),
        # closed whole
        ([BUY, ("A", -4.0, 12.5)], 0.0, 0.0, 10.0, 10.0, []),
        # a flip through zero realises the closed part and opens the rest at the fill's price
        ([BUY, ("A", -10.0, 13.0)], -6.0, 13.0, 12.0, 12.0, [(6.0, 13.0)]),
        ([("A", -4.0, 10.0), ("A", 5.0, 11.0)], 1.0, 11.0, -4.0, -4.0, [(1.0, 11.0)]),
        # there and back: 12 from the long, then 6 * (13 - 9) from the short, flat in between
        ([BUY, ("A", -10.0, 13.0), ("A", 6.0, 9.0), ("A", 1.0, 8.0)], 1.0, 8.0, 36.0, 36.0, [(1.0, 8.0)]),
        # a fill of nothing changes nothing but the last price
        ([BUY, ("A", 0.0, 99.0)], 4.0, 10.0, 0.0, 0.0, [(4.0, 10.0)]),
        ([("A", 0.0, 99.0)], 0.0, 0.0, 0.0, 0.0, []),
    ],
)
def test_fills(interpret, fills, quantity, cost, realized, fifo, open_lots):
    state = portfolio(*fills, interpret=interpret)
    row = position(state)
    assert (row["quantity"], row["average_cost"]) == (quantity, cost)
    assert (row["realized_pnl"], row["realized_pnl_fifo"]) == (realized, fifo)
    assert (state.realized_pnl, state.realized_pnl_fifo) == (realized, fifo)
    assert lots(state) == open_lots
    assert row["last_price"] == fills[-1][2]
    assert state.cash == -sum(q * p for _, q, p in fills)
    assert state.fills == len(fills)
    assert state.equity == state.cash + quantity * fills[-1][2]
    assert state.unrealized_pnl == quantity * (fills[-1][2] - cost)


@BOTH
def test_fees_and_rebates_move_cash_and_leave_profit_gross(interpret):
    state = portfolio(("A", 2.0, 10.0, 0.5), ("A", -2.0, 11.0, -0.25), interpret=interpret)
    assert (state.fees, state.realized_pnl) == (0.25, 2.0)
    assert state.cash == 1.75
    assert position(state)["fees"] == 0.25


@BOTH
def test_cash_and_funding(interpret):
    state = portfolio(
        ("USDT", 1_000.0, 1.0, 0.0, "cash"),
        ("A", 2.0, 100.0, 1.0),
        ("A", -3.0, 1.0, 0.5, "funding"),
        ("A", 5.0, 1.0, 0.0, "funding"),
        ("USDT", -100.0, 1.0, 2.0, "cash"),
        interpret=interpret,
    )
    assert state.cash == 1_000.0 - 200.0 - 1.0 - 3.0 - 0.5 + 5.0 - 100.0 - 2.0
    assert (state.fees, state.funding, state.fills) == (3.5, 2.0, 1)
    assert (state.realized_pnl, state.realized_pnl_fifo) == (2.0, 2.0)
    assert state.positions["symbol"].to_list() == ["A"]  # cash is no position
    assert position(state)["realized_pnl"] == 2.0
    assert state.equity == state.cash + 200.0


@BOTH
@pytest.mark.parametrize(
    "fills",
    [
        [("A", 0.1, 10.0)] * 3 + [("A", -0.3, 11.0)],
        [("A", 0.3, 10.0)] + [("A", -0.1, 11.0)] * 3,
        [("A", 0.1, 10.0)] * 10 + [("A", -1.0, 11.0)],
        [("A", -0.1, 10.0)] * 10 + [("A", 1.0, 11.0)],
        [("A", 1e-8, 10.0), ("A", -1e-8, 11.0)],
        [("A", quantity, 10.0) for quantity in (1e6, 0.1, 0.2, -1e6, -0.1, -0.2)],
        [("A", -0.7, 10.0), ("A", 0.1, 10.0), ("A", 0.2, 10.0), ("A", 0.4, 10.0)],
    ],
)
def test_closing_leaves_exactly_nothing(interpret, fills):
    state = portfolio(*fills, interpret=interpret)
    row = position(state)
    for name in ("quantity", "average_cost", "peak"):
        assert row[name] == 0.0
        assert math.copysign(1.0, row[name]) == 1.0
    assert lots(state) == []
    assert state.equity == state.cash
    assert state.unrealized_pnl == 0.0


def test_positions_come_in_order_of_first_touch_and_stay():
    state = portfolio(("B", 1.0, 1.0), ("A", 1.0, 1.0), ("B", -1.0, 1.0), ("C", 1.0, 1.0, 0.0, "funding"))
    assert state.positions["symbol"].to_list() == ["B", "A", "C"]
    assert state.lots["symbol"].to_list() == ["A"]


class Exact:
    """The same account in fractions: quantities, prices and fees are whole cents or thousandths, nothing rounds."""

    def __init__(self):
        self.cash = self.deposits = self.fees = self.realized = self.fifo = Fraction(0)
        self.held, self.cost, self.last = {}, {}, {}
        self.lots = {}

    def apply(self, symbol, quantity, price, fee, kind):
        quantity, price, fee = (Fraction(str(number)) for number in (quantity, price, fee))
        self.fees += fee
        if kind != "fill":
            self.cash += quantity * price - fee
            if kind == "cash":
                self.deposits += quantity * price
            else:
                self.realized += quantity * price
                self.fifo += quantity * price
            return
        self.cash -= quantity * price + fee
        self.last[symbol] = price
        held, cost = self.held.get(symbol, Fraction(0)), self.cost.get(symbol, Fraction(0))
        after = held + quantity
        if held * quantity >= 0:
            self.cost[symbol] = (abs(held) * cost + abs(quantity) * price) / abs(after) if after else Fraction(0)
        else:
            closed = min(abs(held), abs(quantity)) * (1 if held > 0 else -1)
            self.realized += closed * (price - cost)
            if held * after <= 0:
                self.cost[symbol] = price if after else Fraction(0)
        self.held[symbol] = after
        # First in, first out: signed lots, each fill eats the oldest ones of the other sign.
        queue = self.lots.setdefault(symbol, [])
        while quantity and queue and queue[0][0] * quantity < 0:
            taken = min(abs(queue[0][0]), abs(quantity)) * (1 if queue[0][0] > 0 else -1)
            self.fifo += taken * (price - queue[0][1])
            queue[0][0] -= taken
            quantity += taken
            if not queue[0][0]:
                del queue[0]
        if quantity:
            queue.append([quantity, price])

    def unrealized(self):
        return sum((q * (self.last[s] - self.cost[s]) for s, q in self.held.items()), Fraction(0))


CHANGES = st.tuples(
    st.sampled_from(["A", "B"]),
    st.integers(-3_000, 3_000).map(lambda thousandths: thousandths / 1_000)
    | st.sampled_from([0.1, -0.1, 0.3, -0.3, 0.7, 1.0]),
    st.integers(0, 20_000).map(lambda cents: cents / 100),
    st.integers(-100, 100).map(lambda cents: cents / 100),
    st.sampled_from(["fill", "fill", "fill", "fill", "fill", "cash", "funding"]),
)


@examples(50)
@given(st.lists(CHANGES, min_size=1, max_size=40), st.booleans())
def test_the_account_agrees_with_exact_arithmetic(changes, close):
    exact = Exact()
    for change in changes:
        exact.apply(*change)
    if close:  # every position is closed by the quantity that the decimal sums say
        for symbol, held in list(exact.held.items()):
            changes = [*changes, (symbol, float(-held), 7.0, 0.0, "fill")]
            exact.apply(symbol, float(-held), 7.0, 0.0, "fill")
    state = portfolio(*changes, interpret=True)
    turnover = sum(abs(q * p) + abs(fee) for _, q, p, fee, _ in changes) + 1.0

    def near(found, expected):
        assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-11 * turnover)

    near(state.cash, exact.cash)
    near(state.fees, exact.fees)
    near(state.realized_pnl, exact.realized)
    near(state.realized_pnl_fifo, exact.fifo)
    near(state.unrealized_pnl, exact.unrealized())
    near(state.equity - float(exact.deposits) + state.fees, exact.realized + exact.unrealized())
    for symbol, held in exact.held.items():
        row = position(state, symbol)
        near(row["quantity"], held)
        near(row["average_cost"], exact.cost[symbol])
        if held == 0:
            assert (str(row["quantity"]), str(row["average_cost"])) == ("0.0", "0.0")
        own = [lot for lot in state.lots.rows(named=True) if lot["symbol"] == symbol]
        assert len(own) == len(exact.lots[symbol])
        for lot, (quantity, price) in zip(own, exact.lots[symbol], strict=True):
            near(lot["quantity"], abs(quantity))
            assert lot["price"] == float(price)


@examples(25)
@given(st.lists(CHANGES, min_size=1, max_size=40))
def test_what_the_account_is_worth_is_what_went_in_plus_what_was_earned(changes):
    state = portfolio(*changes)
    deposits = sum(q * p for _, q, p, _, kind in changes if kind == "cash")
    scale = sum(abs(q * p) + abs(fee) for _, q, p, fee, _ in changes) + 1.0
    earned = state.realized_pnl + state.unrealized_pnl
    assert math.isclose(state.equity - deposits + state.fees, earned, rel_tol=1e-9, abs_tol=1e-12 * scale)
