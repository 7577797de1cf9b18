"""How much of a book stands near its best prices, and to which side it leans.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     levels = [("bid", 99.0, 3.0), ("bid", 98.0, 5.0), ("ask", 101.0, 1.0), ("ask", 102.0, 7.0)]
...     _ = lab.append("book/X", [el.BookChange("X", side, price, size) for side, price, size in levels])
...     state = lab.state(el.BookDepth(levels=2), "book/X")
...     state.bid_depth, state.ask_depth, state.imbalance, state.microprice
(8.0, 8.0, 0.0, 100.5)
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.reducer import reducer
from eventlab.reducers.book import Levels, apply_change, depth


class _Measured:
    levels: int


@reducer
class BookDepth(Levels, _Measured):
    """A book as `OrderBook` rebuilds it, measured over its `levels` best levels a side.

    Look at it at the end of an update: inside one its sides may cross. With ten levels, depths are those
    of `OrderBook`.

    Attributes
    ----------
    levels : int
        Parameter: levels a side that are measured, 1 to 50; 5 if not given.
    bids, asks : ladder
        All levels of the book, best first: prices in quote currency, sizes in base currency or contracts.
    update_id : int
        The last change's, 0 where it has none.
    in_snapshot : bool
        Whether the last change was a snapshot's.
    bid_depth, ask_depth : float
        Size of the measured levels together; of fewer, where a side has no more.
    imbalance : float
        (bid_depth - ask_depth) / (bid_depth + ask_depth), between -1 and 1; NaN unless both sides have a level, as
        `OrderBook.imbalance`, which is this over one level.
    microprice : float
        Mid of the best prices, each weighted by the size on the other side: it lies nearer to the side that will be
        used up first. NaN unless both sides have a level.

    References
    ----------
    R. Cont, A. Kukanov and S. Stoikov, The price impact of order book events, Journal of Financial Econometrics 12
    (2014) 47-88, for depth and imbalance; S. Stoikov, The micro-price: a high-frequency estimator of future prices,
    Quantitative Finance 18 (2018) 1959-1966, whose "weighted mid-price" this is.
    """

    levels: int = 5

    def on_book_change(state: Any, event: Any) -> None:
        if state.levels < 1 or state.levels > 50:
            raise ValueError("levels, those measured on each side, must be 1 to 50")
        apply_change(state, event)

    @property
    def bid_depth(state: Any) -> float:
        """Size of the best bid levels together."""
        return depth(state.bids, state.levels)

    @property
    def ask_depth(state: Any) -> float:
        """Size of the best ask levels together."""
        return depth(state.asks, state.levels)

    @property
    def imbalance(state: Any) -> float:
        """How far depth leans to the bids, between -1 and 1."""
        if not state.bids or not state.asks:
            return math.nan
        bid, ask = depth(state.bids, state.levels), depth(state.asks, state.levels)
        return (bid - ask) / (bid + ask)

    @property
    def microprice(state: Any) -> float:
        """Mid of the best prices, weighted by the sizes across."""
        bid_size, ask_size = state.bids.best_size, state.asks.best_size
        crossed = state.bids.best_price * ask_size + state.asks.best_price * bid_size
        return crossed / (bid_size + ask_size)
