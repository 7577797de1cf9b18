"""A reducer that hears of everything it can, for what is routed to it. Its twin is in `tests.naive_marks`."""

from __future__ import annotations

import eventlab as el
from tests.fold.kitchen import Tick


@el.event
class News:
    word: str | None
    weight: float = 1.0


@el.reducer
class Desk:
    """Two own types and three routed ones, by two keys, of which it does not read one; the envelope of each event."""

    log: int = 0
    own_version: int = 0
    other_version: int = 0
    seen_position: int = 0
    seen_time: int = 0
    by = el.Keyed("symbol", own=int, value=float)

    @el.on(Tick)
    def ticked(state, event):
        state.log = state.log * 7 + 1
        state.own_version = event.version
        state.by[event.symbol].own += 1

    def on_funding(state, event):
        state.log = state.log * 7 + 2

    @el.on(el.MarketData, routed="symbol")
    def traded(state, event):
        state.log = state.log * 7 + 3
        state.seen_position = event.position
        state.seen_time = event.timestamp
        state.other_version = event.version
        row = state.by[event.symbol]
        row.value = row.value * 0.5 + event.price

    @el.on(el.Quote, routed="symbol")
    def quoted(state, event):
        state.log = state.log * 7 + 4
        state.seen_position = event.position
        state.seen_time = event.timestamp
        state.other_version = event.version
        row = state.by[event.symbol]
        row.value = row.value * 0.5 + event.bid_price

    @el.on(News, routed="word")
    def told(state, event):
        state.log = state.log * 7 + 5
        state.seen_position = event.position
        state.seen_time = event.timestamp

    @property
    def rows(state) -> int:
        return len(state.by)
