"""A portfolio's exposure, leverage and drawdown.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     changes = [
...         el.PortfolioChange("USD", 1_000.0, 1.0, kind="cash"),
...         el.PortfolioChange("X", 10.0, 100.0),
...         el.PortfolioChange("X", -5.0, 80.0),
...     ]
...     _ = lab.append("portfolio/p", changes)
...     state = lab.state(el.Risk, "portfolio/p")
...     state.equity, state.gross, state.leverage, state.drawdown
(800.0, 400.0, 0.5, 0.2)
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.layout import Keyed
from eventlab.fold.declare.reducer import reducer
from eventlab.reducers.portfolio import DUST


def _plus(total: float, rest: float, term: float) -> tuple[float, float]:
    """Add to a sum of two parts, the second what the first has no digits for (Knuth's TwoSum, then Dekker's)."""
    rounded = total + term
    part = rounded - total
    rest += (total - (rounded - part)) + (term - part)
    whole = rounded + rest
    return whole, rest - (whole - rounded)


def _hold(row: Any, quantity: float) -> None:
    """A position after a fill, to the same bits as `Portfolio` has it."""
    before, after = row.quantity, row.quantity + quantity
    if before == 0.0 or (before > 0.0) == (quantity > 0.0):
        row.quantity = after
        row.peak = max(row.peak, abs(after))
    elif after == 0.0 or abs(after) < DUST * row.peak:
        row.quantity = row.peak = 0.0
    else:
        if (after > 0.0) != (before > 0.0):
            row.peak = abs(after)
        row.quantity = after


def _fill(state: Any, symbol: str, quantity: float, price: float) -> None:
    row = state.positions[symbol]
    before = row.value
    if row.quantity != 0.0:
        state.open_positions -= 1
    if quantity != 0.0:
        _hold(row, quantity)
    row.last_price = price
    row.value = row.quantity * price
    if row.quantity != 0.0:
        state.open_positions += 1
    if state.open_positions == 0:
        state.net = state.net_rest = state.gross = state.gross_rest = 0.0
        return
    net, net_rest = _plus(state.net, state.net_rest, row.value)
    state.net, state.net_rest = _plus(net, net_rest, -before)
    gross, gross_rest = _plus(state.gross, state.gross_rest, abs(row.value))
    state.gross, state.gross_rest = _plus(gross, gross_rest, -abs(before))


def _measure(state: Any) -> None:
    """Peak and drawdowns after a change."""
    equity = state.cash + state.net
    if equity > state.peak:
        state.peak = equity
    loss = state.peak - equity
    if loss > state.max_loss:
        state.max_loss = loss
    if state.peak > 0.0 and loss / state.peak > state.max_drawdown:
        state.max_drawdown = loss / state.peak


@reducer
class Risk:
    """Exposure and drawdown of a portfolio, in the account's currency, after every change of it.

    Cash follows the rules of `Portfolio`, and a position is worth its quantity times its last fill's price: prices
    between fills are not seen, and neither are drawdowns between them. A deposit or withdrawal moves the peak by its
    amount, so that it is no profit and no loss; its fee is one.

    Attributes
    ----------
    cash : float
        As `Portfolio.cash`.
    net : float
        Sum of the positions' values; short ones are negative.
    gross : float
        Sum of their absolute values.
    net_rest, gross_rest : float
        What the two sums have no digits for: they are kept up to date by differences, and would drift without.
    open_positions : int
        Positions that are not flat.
    peak : float
        Highest equity so far, 0 before the first change, moved by deposits and withdrawals.
    max_loss : float
        Largest `loss` so far.
    max_drawdown : float
        Largest `drawdown` so far, a fraction: 0.2 is a fifth of the peak.
    positions : table
        Every symbol ever filled, in order of first touch: symbol, quantity, last_price, value, peak (of the quantity
        since the position was flat).
    equity : float
        cash + net.
    leverage : float
        gross / equity; NaN where equity is not above 0.
    loss : float
        peak - equity.
    drawdown : float
        loss / peak, a fraction; NaN where the peak is not above 0.

    References
    ----------
    M. Magdon-Ismail and A. Atiya, Maximum drawdown, Risk 17 (2004) 99-102; D. Knuth, The Art of Computer Programming,
    vol. 2, §4.2.2, theorem B, and T. Dekker, Numerische Mathematik 18 (1971) 224-242, for sums of two parts.
    """

    cash: float = 0.0
    net: float = 0.0
    gross: float = 0.0
    net_rest: float = 0.0
    gross_rest: float = 0.0
    open_positions: int = 0
    peak: float = 0.0
    max_loss: float = 0.0
    max_drawdown: float = 0.0
    positions = Keyed("symbol", quantity=float, last_price=float, value=float, peak=float)

    def on_portfolio_change(state: Any, event: Any) -> None:
        if event.kind == "fill":
            state.cash += -event.quantity * event.price - event.fee
            _fill(state, event.symbol, event.quantity, event.price)
        else:
            amount = event.quantity * event.price
            state.cash += amount - event.fee
            if event.kind == "cash":
                state.peak += amount
        _measure(state)

    @property
    def equity(state: Any) -> float:
        """Cash plus the value of all positions at their last fill prices."""
        return state.cash + state.net

    @property
    def leverage(state: Any) -> float:
        """Gross exposure over equity."""
        equity = state.cash + state.net
        return state.gross / equity if equity > 0.0 else math.nan

    @property
    def loss(state: Any) -> float:
        """How far equity is below its peak."""
        return state.peak - (state.cash + state.net)

    @property
    def drawdown(state: Any) -> float:
        """How far equity is below its peak, as a fraction of it."""
        return (state.peak - (state.cash + state.net)) / state.peak if state.peak > 0.0 else math.nan
