"""A portfolio folded from its fills, cash movements and funding payments, and marked at market where asked for."""

from __future__ import annotations

from typing import Any

from eventlab.events.builtin import MarketData
from eventlab.fold.declare.layout import Keyed, Queue
from eventlab.fold.declare.reducer import on, reducer

DUST = 1e-12
"""A quantity below this fraction of its peak since the position was flat is rounding, and becomes exactly zero."""


def _close_lots(state: Any, symbol: str, quantity: float, price: float, direction: float, dust: float) -> float:
    """Take `quantity` from the oldest lots; returns what that realised."""
    realized = 0.0
    while quantity > dust and state.lots.count(symbol) > 0:
        lot = state.lots.first(symbol)
        taken = min(lot.quantity, quantity)
        realized += taken * (price - lot.price) * direction
        quantity -= taken
        lot.quantity -= taken
        if lot.quantity <= dust:
            state.lots.pop(symbol)
    return realized


def _open_lot(state: Any, symbol: str, quantity: float, price: float) -> None:
    lot = state.lots.push(symbol)
    lot.quantity = quantity
    lot.price = price


def _drop_lots(state: Any, symbol: str) -> None:
    while state.lots.count(symbol) > 0:
        state.lots.pop(symbol)


def _fill(state: Any, symbol: str, quantity: float, price: float) -> None:
    row = state.positions[symbol]
    row.last_price = price
    held = row.quantity
    if quantity == 0.0:
        return
    if held == 0.0 or (held > 0.0) == (quantity > 0.0):
        total = abs(held) + abs(quantity)
        row.average_cost = (abs(held) * row.average_cost + abs(quantity) * price) / total
        row.quantity = held + quantity
        row.peak = max(row.peak, abs(row.quantity))
        _open_lot(state, symbol, abs(quantity), price)
        return
    direction = 1.0 if held > 0.0 else -1.0
    closed = min(abs(held), abs(quantity))
    gain = closed * (price - row.average_cost) * direction
    fifo = _close_lots(state, symbol, closed, price, direction, DUST * row.peak)
    row.realized_pnl += gain
    row.realized_pnl_fifo += fifo
    state.realized_pnl += gain
    state.realized_pnl_fifo += fifo
    left = held + quantity
    if abs(left) < DUST * row.peak or left == 0.0:
        _drop_lots(state, symbol)
        row.quantity = 0.0
        row.average_cost = 0.0
        row.peak = 0.0
    elif (left > 0.0) == (held > 0.0):
        row.quantity = left
    else:
        _drop_lots(state, symbol)
        _open_lot(state, symbol, abs(left), price)
        row.quantity = left
        row.average_cost = price
        row.peak = abs(left)


@reducer
class Portfolio:
    """Cash, positions and profit, in the account's currency.

    A fill moves cash by ``-quantity * price - fee``. `realized_pnl` is by average cost and gross of fees,
    `realized_pnl_fifo` first in, first out. Average cost moves only when a position grows; a flip through zero realises
    the closed part and reopens at the fill price. `cash` and `funding` move cash by ``quantity * price - fee``; funding
    also enters both realised figures. Fees are a cost where positive.

    `positions` has a row for every symbol ever filled, in order of first touch; `lots` are the open ones, oldest first.
    With ``mark_with="market/*"`` a position's `last_price` follows the trades of its symbol, and so do `equity` and
    `unrealized_pnl`; otherwise it is that of the last fill.
    """

    cash: float = 0.0
    realized_pnl: float = 0.0
    realized_pnl_fifo: float = 0.0
    fees: float = 0.0
    funding: float = 0.0
    fills: int = 0
    positions = Keyed(
        "symbol",
        quantity=float,
        average_cost=float,
        realized_pnl=float,
        realized_pnl_fifo=float,
        last_price=float,
        fees=float,
        peak=float,
    )
    lots = Queue("symbol", quantity=float, price=float)

    def on_portfolio_change(state: Any, event: Any) -> None:
        state.fees += event.fee
        if event.kind == "fill":
            state.cash += -event.quantity * event.price - event.fee
            state.fills += 1
            _fill(state, event.symbol, event.quantity, event.price)
            state.positions[event.symbol].fees += event.fee
            return
        amount = event.quantity * event.price
        state.cash += amount - event.fee
        if event.kind == "funding":
            state.funding += amount
            state.realized_pnl += amount
            state.realized_pnl_fifo += amount
            row = state.positions[event.symbol]
            row.realized_pnl += amount
            row.realized_pnl_fifo += amount

    @on(MarketData, routed="symbol")
    def marked(state: Any, event: Any) -> None:
        if event.symbol in state.positions:
            state.positions[event.symbol].last_price = event.price

    @property
    def equity(state: Any) -> float:
        """Cash plus quantity times last price over all positions."""
        value = state.cash
        for symbol in state.positions:
            row = state.positions[symbol]
            value += row.quantity * row.last_price
        return value

    @property
    def unrealized_pnl(state: Any) -> float:
        """What closing every position at its last price would realise, by average cost."""
        value = 0.0
        for symbol in state.positions:
            row = state.positions[symbol]
            value += row.quantity * (row.last_price - row.average_cost)
        return value
