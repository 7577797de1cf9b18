"""Order-flow imbalance at the best quotes.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     quotes = [(99.0, 5.0, 101.0, 5.0), (99.0, 8.0, 101.0, 5.0), (100.0, 2.0, 101.0, 1.0)]
...     _ = lab.append("quote/X", [el.Quote("X", *quote) for quote in quotes])
...     lab.history(el.OrderFlowImbalance, "quote/X")["flow"].to_list()
[0.0, 3.0, 6.0]
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.reducer import reducer


@reducer
class OrderFlowImbalance:
    """What was added to demand and taken from supply at the best prices, quote by quote.

    Size that comes to the bid, or leaves the ask, counts up; the opposite counts down. A bid that moves up brings all
    of its size, one that moves down takes all of what stood above. An empty side is one without size,
    infinitely far away.

    Attributes
    ----------
    bid_price, bid_size, ask_price, ask_size : float
        The latest quote, in quote currency and in base currency or contracts; prices of an empty side are infinite.
    flow : float
        The latest quote's contribution e, a size; 0 of the first quote.
    ofi : float
        Sum of contributions. Over an interval, the difference of two moments.
    count : int
        Quotes.

    References
    ----------
    R. Cont, A. Kukanov and S. Stoikov, The price impact of order book events, Journal of Financial Econometrics 12
    (2014) 47-88: e and its sum OFI.
    """

    bid_price: float = -math.inf
    bid_size: float = 0.0
    ask_price: float = math.inf
    ask_size: float = 0.0
    flow: float = 0.0
    ofi: float = 0.0
    count: int = 0

    def on_quote(state: Any, event: Any) -> None:
        bid = event.bid_price if event.bid_size > 0.0 else -math.inf
        ask = event.ask_price if event.ask_size > 0.0 else math.inf
        flow = 0.0
        if state.count > 0:
            if bid >= state.bid_price:
                flow += event.bid_size
            if bid <= state.bid_price:
                flow -= state.bid_size
            if ask <= state.ask_price:
                flow -= event.ask_size
            if ask >= state.ask_price:
                flow += state.ask_size
        state.bid_price, state.bid_size = bid, event.bid_size
        state.ask_price, state.ask_size = ask, event.ask_size
        state.flow = flow
        state.ofi += flow
        state.count += 1
