"""A limit order book rebuilt from its changes."""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.layout import Ladder, is_null
from eventlab.fold.declare.reducer import reducer

DEPTH_LEVELS = 10


def depth(side: Any, levels: int) -> float:
    """Size of the best levels of a side together."""
    total = 0.0
    for level in range(min(levels, len(side))):
        total += side.size(level)
    return total


def apply_change(state: Any, event: Any) -> None:
    """Write a level; the first row of a snapshot clears both sides before."""
    update_id = 0 if is_null(event.update_id) else event.update_id
    if event.snapshot and (not state.in_snapshot or update_id != state.update_id):
        state.bids.clear()
        state.asks.clear()
    state.in_snapshot = event.snapshot
    state.update_id = update_id
    if event.side == "bid":
        state.bids.set(event.price, event.size)
    else:
        state.asks.set(event.price, event.size)


class Levels:
    """Both sides of a book, rebuilt from its changes."""

    bids = Ladder("bid")
    asks = Ladder("ask")
    update_id: int = 0
    in_snapshot: bool = False

    def on_book_change(state: Any, event: Any) -> None:
        apply_change(state, event)


@reducer
class OrderBook(Levels):
    """Price levels of both sides. Prices and sizes of an empty side are NaN.

    A snapshot row that follows a change, or has another update id than the snapshot row before it, clears both sides
    first. `update_id` is the last change's, 0 where it has none. Look at a book at the end of an update: inside one its
    sides may cross.
    """

    @property
    def best_bid(state: Any) -> float:
        """Highest bid price."""
        return state.bids.best_price

    @property
    def best_bid_size(state: Any) -> float:
        """Size at the highest bid."""
        return state.bids.best_size

    @property
    def best_ask(state: Any) -> float:
        """Lowest ask price."""
        return state.asks.best_price

    @property
    def best_ask_size(state: Any) -> float:
        """Size at the lowest ask."""
        return state.asks.best_size

    @property
    def mid(state: Any) -> float:
        """Halfway between the best prices."""
        return (state.bids.best_price + state.asks.best_price) / 2.0

    @property
    def spread(state: Any) -> float:
        """Best ask less best bid."""
        return state.asks.best_price - state.bids.best_price

    @property
    def imbalance(state: Any) -> float:
        """(bid size - ask size) / (bid size + ask size) at the best prices, between -1 and 1."""
        total = state.bids.best_size + state.asks.best_size
        return (state.bids.best_size - state.asks.best_size) / total if total > 0.0 else math.nan

    @property
    def bid_depth(state: Any) -> float:
        """Size of the ten best bid levels together."""
        return depth(state.bids, DEPTH_LEVELS)

    @property
    def ask_depth(state: Any) -> float:
        """Size of the ten best ask levels together."""
        return depth(state.asks, DEPTH_LEVELS)
