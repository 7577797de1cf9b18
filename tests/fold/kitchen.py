"""Event types and reducers made to use everything a handler may use. Declared once, so compiled once a process."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, Literal

import eventlab as el

MAKERS = ("buy", "mm", None)
HOUSE = "house"
LIMIT = 3


@el.event
class Tick:
    symbol: el.Symbol
    word: str | None = None
    side: Literal["buy", "sell"] | None = None
    x: float | None = None
    n: int | None = None
    flag: bool = False
    maybe: bool | None = None
    when: dt.datetime | None = None


@el.event
class Tock:
    symbol: el.Symbol
    y: float


@el.event
class Unheard:
    z: float = 0.0


@el.event
class Level:
    """A book's change by a user's own type: the price may be missing, the action says what to do."""

    action: Literal["set", "clear", "set_other", "copy_best", "delete_all"]
    price: float | None
    size: float
    other: float = 0.0


def _clipped(value: float, low: float = -1.5, high: float = 2.5) -> float:
    return min(max(value, low), high)


def _is_house(word: Any, house: str = HOUSE) -> bool:
    return word == house


def _weighted(state: Any, x: float, n: int) -> float:
    state.calls += 1
    if n == 0:
        return 0.0
    return _clipped(x) * n


@el.reducer
class Numbers:
    """Arithmetic of every kind, helpers that write to the state, an early return."""

    total: float = -0.0
    low: float = math.inf
    high: float = -math.inf
    least: float = 0.0
    quotient: float = 0.0
    remainder: float = 0.0
    ratio: float = 0.0
    whole: int = 0
    hash: int = 17
    floor_n: int = 0
    mod_n: int = 0
    rounded: int = 0
    calls: int = 0
    missing: int = 0
    seen_at: float = 0.0
    newer: int = 0
    up: bool = False
    truth: bool = True

    def on_tick(state, event):
        state.hash = state.hash * 6364136223846793005 + 1442695040888963407
        if el.is_null(event.x) or el.is_null(event.n):
            state.missing += 1
            state.total += event.x
            state.low = min(event.x, state.low, 1.0)
            state.least = min(state.least, event.x)
            return
        state.total += _weighted(state, event.x, event.n)
        state.low = min(state.low, event.x)
        state.high = max(event.x, state.high, -3.0)
        state.least = min(event.x, -0.0)
        state.up = event.x > state.quotient
        state.truth = event.x
        divisor = event.n if event.n != 0 else 7
        state.floor_n = state.whole // divisor
        state.mod_n = state.whole % divisor - event.n % LIMIT
        state.ratio = state.whole / divisor
        state.quotient = event.x // divisor
        state.remainder = event.x % (divisor + 0.5)
        state.whole = -state.whole + event.n * event.n + abs(event.n) + len(range(LIMIT)) + True
        if -1e15 < event.x < 1e15:
            state.rounded += int(event.x) * 4 + math.floor(event.x) - math.ceil(event.x) ^ 5 & event.n | 2
        for power in range(1, LIMIT):
            state.total -= math.sqrt(abs(event.x)) / power
        if event.timestamp > state.seen_at:
            state.newer += 1
        state.seen_at = event.timestamp + event.n
        if event.n < state.seen_at <= event.n * 2.0:
            state.newer += 1000

    @property
    def spread(state):
        return state.high - state.low

    @property
    def half_spread(state) -> float:
        return state.spread / 2

    @property
    def parity(state) -> int:
        return state.hash % 2 - state.calls

    @property
    def is_wide(state) -> bool:
        return state.half_spread > 1.0


@el.reducer
class Words:
    """Text: constants, globals, missing and empty text, tuples and sets, text kept in the state."""

    last: str = "none"
    previous: str = ""
    first_missing: str = ""
    maker: bool = False
    buys: int = 0
    not_buys: int = 0
    house: int = 0
    short: int = 0
    truthy: int = 0
    same: int = 0
    absent: int = 0
    flags: int = 0

    def on_tick(state, event):
        if event.side == "buy":
            state.buys += 1
        if event.side != "buy":
            state.not_buys += 1
        state.maker = event.word in MAKERS
        if _is_house(event.word) or _is_house(event.symbol, "b"):
            state.house += 1
        if event.word in {"a", "b"} and event.word not in ("b", "c"):
            state.short += 1
        if event.word:
            state.truthy += 1
        if event.word == event.symbol or event.side == event.word:
            state.same += 1
        if event.word is None:
            state.absent += 1
        if event.side is not None and not el.is_null(event.when):
            state.absent += 100
        if event.flag and not el.is_null(event.flag):
            state.flags += 1
        if event.maybe:
            state.flags += 10
        state.previous = state.last
        state.last = event.word
        if el.is_null(state.last):
            state.first_missing = event.symbol if state.first_missing == "" else state.first_missing

    @property
    def shown(state) -> str:
        return state.last or "nothing"

    @property
    def kind(state) -> str:
        return "maker" if state.maker else state.previous

    @property
    def any_missing(state) -> bool:
        return state.first_missing != ""


@el.reducer
class Tables:
    """Keyed rows and queues: touched, deleted, touched again; rows held while others come and go."""

    by = el.Keyed("word", n=int, total=float, last=str, flag=bool)
    lots = el.Queue("symbol", size=float, tag=str)
    recent: Any = el.Array(float, 4)
    counts = el.Array(int, 3)
    place: int = 0
    order: float = 0.0
    keys: str = ""
    live: int = 0
    taken: float = 0.0

    def on_tick(state, event):
        state.recent[state.place % 4] = event.x
        state.recent[-1] += 1.0
        state.counts[state.place % 3] += event.n
        state.place += 1
        if el.is_null(event.word):
            return
        row = state.by[event.word]
        row.n += 1
        row.total += event.x
        row.last = event.side
        row.flag = event.flag
        if event.word == "drop" and event.symbol in state.by:
            gone = state.by[event.symbol]
            del state.by[event.symbol]
            state.by["fresh"].total += gone.total
            gone.total = 99.0
        if event.word == "again":
            del state.by["again"]
            state.by["again"].n -= 5
        if event.side == "buy":
            lot = state.lots.push(event.symbol)
            lot.size = event.x
            lot.tag = event.word
        if event.side == "sell" and state.lots.count(event.symbol) > 0:
            oldest = state.lots.first(event.symbol)
            state.lots.pop(event.symbol)
            state.taken += oldest.size
            if event.flag:
                back = state.lots.push(event.symbol)
                back.size = oldest.size / 2.0
                back.tag = "back"
                oldest.size = -1.0
        state.order = 0.0
        for key in state.by:
            state.order = state.order * 0.5 + state.by[key].total
            if key == "stop":
                break
        state.keys = ""
        if state.by:
            for key in state.by:
                state.keys = key
        state.live = len(state.by) * 100 + state.lots.count(event.symbol)

    @property
    def total(state) -> float:
        value = 0.0
        for key in state.by:
            value += state.by[key].total
        for number in state.recent:
            value += number
        return value

    @property
    def has_drop(state) -> bool:
        return "drop" in state.by


@el.reducer
class Book:
    """Both kinds of ladder, under events whose prices the ladder may or may not have seen."""

    bids = el.Ladder("bid")
    asks = el.Ladder("ask")
    refused: int = 0

    def on_level(state, event):
        if event.action == "clear":
            state.bids.clear()
        elif event.action == "delete_all":
            while state.asks:
                state.asks.set(state.asks.best_price, 0.0)
        elif event.action == "copy_best":
            if len(state.bids) > 0:
                state.asks.set(state.bids.best_price, state.bids.best_size)
        elif event.action == "set_other":
            state.bids.set(event.other, event.size)
        elif el.is_null(event.price):
            state.refused += 1
        else:
            state.bids.set(event.price, event.size)
            state.asks.set(event.price, -event.size)

    def on_tock(state, event):
        state.asks.set(event.y, 1.0)

    @property
    def best(state) -> float:
        return state.bids.best_price

    @property
    def best_size(state):
        return state.bids.best_size

    @property
    def second(state) -> float:
        return state.bids.price(1) - state.asks.price(1)

    @property
    def third_size(state) -> float:
        return state.bids.size(2)

    @property
    def beyond(state) -> float:
        return state.asks.size(-1)

    @property
    def levels(state) -> int:
        return len(state.bids) * 1000 + len(state.asks)


@el.reducer
class Merged:
    """Several event types, merged by version, with the envelope."""

    ticks: int = 0
    tocks: int = 0
    log: int = 0
    last_version: int = 0
    last_position: int = 0
    last_time: int = 0
    value: float = 1.0
    symbol: str = ""

    def on_tick(state, event):
        state.ticks += 1
        state.log = state.log * 3 + 1
        state.last_version = event.version
        state.value = state.value * 0.5 + state.tocks
        state.symbol = event.symbol

    @el.on(Tock)
    def tocked(state, event):
        state.tocks += 1
        state.log = state.log * 3 + 2
        state.last_position = event.position
        state.last_time = event.timestamp
        state.value = state.value * 0.25 - event.y
        state.symbol = event.symbol

    def on_market_data(state, event):
        state.value += event.price / 3.0


@el.reducer
class Fragile:
    """Fails in every way. Not in a test module: pytest rewrites what `assert` does there."""

    total: float = 0.0
    ring = el.Array(float, 3)
    by = el.Keyed("word", n=int)
    lots = el.Queue("word", n=int)

    def on_tick(state, event):
        if event.side == "sell":
            raise RuntimeError("no selling here")
        assert event.x != 13.0, "unlucky"
        state.total += 1.0 / event.x
        state.ring[event.n] = event.x
        state.by[event.word].n += 1
        if event.flag:
            del state.by["nobody"]

    def on_tock(state, event):
        if event.y > 0.0:
            state.lots.pop(event.symbol)
        for key in state.by:
            if event.y < -1.0:
                del state.by[key]
            elif event.y < 0.0:
                state.by["more"].n += 1

    @property
    def inverse(state):
        return 1.0 / (state.total - 2.0)


KITCHEN = (Numbers, Words, Tables, Book, Merged)
