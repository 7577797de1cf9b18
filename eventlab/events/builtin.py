"""The built-in event types: the meaning, unit and bounds of each field."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from eventlab.events.types import Limits, Symbol, event

Price = Annotated[float, Limits(minimum=0.0)]
"""In the instrument's quote currency."""

Size = Annotated[float, Limits(minimum=0.0)]
"""In the instrument's base currency or contracts."""


@event
class MarketData:
    """A trade. `side` is the taker's; `received_at` is the capture clock, which may disagree with the exchange's."""

    symbol: Symbol
    price: Price
    volume: Size
    side: Literal["buy", "sell"] | None = None
    trade_id: int | None = None
    received_at: dt.datetime | None = None


@event
class Quote:
    """Best bid and ask. An empty side has size 0 and price 0."""

    symbol: Symbol
    bid_price: Price
    bid_size: Size
    ask_price: Price
    ask_size: Size
    update_id: int | None = None
    received_at: dt.datetime | None = None


@event
class BookChange:
    """The new size of one price level; size 0 deletes it.

    Rows of a `snapshot` rebuild the book: one that follows a non-snapshot row, or has a new `update_id`, clears both
    sides first.
    """

    symbol: Symbol
    side: Literal["bid", "ask"]
    price: Price
    size: Size
    snapshot: bool = False
    first_update_id: int | None = None
    update_id: int | None = None
    received_at: dt.datetime | None = None


@event
class Bar:
    """Open, high, low, close and volume of an interval. The event's time is the interval's end."""

    symbol: Symbol
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Size


@event
class Funding:
    """A perpetual's funding rate for one interval, as a fraction of the position's value; longs pay a positive one."""

    symbol: Symbol
    rate: float


@event
class TradingSignal:
    """A decision of a strategy. The strategy defines the values of `action`, e.g. buy, and the scale of `strength`."""

    symbol: Symbol
    action: str
    strength: float
    strategy: str


@event
class PortfolioChange:
    """A fill, a cash movement or a funding payment.

    `quantity` is signed: positive buys or pays in. A fill moves cash by ``-quantity * price - fee``; `cash` and
    `funding` move it by ``quantity * price - fee``, with price 1.0 for amounts in the account's currency.
    `fee` is in that currency: positive is a cost, negative a rebate.
    """

    symbol: Symbol
    quantity: float
    price: Price
    fee: float = 0.0
    kind: Literal["fill", "cash", "funding"] = "fill"
