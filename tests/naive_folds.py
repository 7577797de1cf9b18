"""Reducers once more, as plainly as they can be said: no shared code with eventlab, one event after the other.

Each takes events as objects and keeps Python values. A missing number is NaN, a missing integer `NULL`.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

NULL = -(2**63)


def wrapped(number: int) -> int:
    return ctypes.c_int64(number).value


def number_of(value: float | None) -> float:
    return math.nan if value is None else value


def integer_of(value: int | None) -> int:
    return NULL if value is None else value


def smaller(a: float, b: float) -> float:
    return b if b < a else a


def larger(a: float, b: float) -> float:
    return b if b > a else a


class Numbers:
    def __init__(self) -> None:
        self.total, self.low, self.high, self.least = -0.0, math.inf, -math.inf, 0.0
        self.quotient = self.remainder = self.ratio = 0.0
        self.whole, self.hash = 0, 17
        self.floor_n = self.mod_n = self.rounded = self.calls = self.missing = self.newer = 0
        self.seen_at, self.up, self.truth = 0.0, False, True

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ != "Tick":
            return
        self.hash = wrapped(self.hash * 6364136223846793005 + 1442695040888963407)
        if event.x is None or event.n is None:
            x = number_of(event.x)
            self.missing += 1
            self.total += x
            self.low = smaller(smaller(x, self.low), 1.0)
            self.least = smaller(self.least, x)
            return
        x, n = event.x, event.n
        self.calls += 1
        self.total += 0.0 if n == 0 else smaller(larger(x, -1.5), 2.5) * float(n)
        self.low = smaller(self.low, x)
        self.high = larger(larger(x, self.high), -3.0)
        self.least = smaller(x, -0.0)
        self.up = x > self.quotient
        self.truth = x != 0.0
        divisor = n if n != 0 else 7
        self.floor_n = 0 if (self.whole, divisor) == (NULL, -1) else self.whole // divisor
        self.mod_n = wrapped(self.whole % divisor - n % 3)
        self.ratio = float(self.whole) / float(divisor)
        self.quotient = x // float(divisor)
        self.remainder = x % (float(divisor) + 0.5)
        self.whole = wrapped(-self.whole + n * n + abs(n) + 3 + 1)
        if -1e15 < x < 1e15:
            left = wrapped(int(x) * 4 + math.floor(x) - math.ceil(x))
            self.rounded = wrapped(self.rounded + ((left ^ (5 & n)) | 2))
        self.total -= math.sqrt(abs(x)) / 1.0
        self.total -= math.sqrt(abs(x)) / 2.0
        if float(timestamp) > self.seen_at:
            self.newer += 1
        self.seen_at = float(wrapped(timestamp + n))
        if float(n) < self.seen_at and self.seen_at <= float(n) * 2.0:
            self.newer += 1000

    def record(self) -> dict[str, Any]:
        return dict(vars(self))

    def properties(self) -> dict[str, Any]:
        spread = self.high - self.low
        return {
            "spread": spread,
            "half_spread": spread / 2.0,
            "parity": wrapped(self.hash % 2 - self.calls),
            "is_wide": spread / 2.0 > 1.0,
        }

    def tables(self) -> dict[str, Any]:
        return {}


class Words:
    def __init__(self) -> None:
        self.last: str | None = "none"
        self.previous: str | None = ""
        self.first_missing, self.maker = "", False
        self.buys = self.not_buys = self.house = self.short = 0
        self.truthy = self.same = self.absent = self.flags = 0

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ != "Tick":
            return
        self.buys += event.side == "buy"
        self.not_buys += event.side != "buy"
        self.maker = event.word in ("buy", "mm", None)
        self.house += event.word == "house" or event.symbol == "b"
        self.short += event.word == "a"
        self.truthy += event.word not in (None, "")
        self.same += event.word in (event.symbol, event.side)
        self.absent += event.word is None
        self.absent += 100 * (event.side is not None and event.when is not None)
        self.flags += event.flag
        self.flags += 10 * (event.maybe is True)
        self.previous, self.last = self.last, event.word
        if event.word is None and self.first_missing == "":
            self.first_missing = event.symbol

    def record(self) -> dict[str, Any]:
        return dict(vars(self))

    def properties(self) -> dict[str, Any]:
        return {
            "shown": "nothing" if self.last in (None, "") else self.last,
            "kind": "maker" if self.maker else self.previous,
            "any_missing": self.first_missing != "",
        }

    def tables(self) -> dict[str, Any]:
        return {}


class Tables:
    def __init__(self) -> None:
        self.by: list[dict[str, Any]] = []
        self.lots: list[tuple[str, list[dict[str, Any]]]] = []
        self.recent, self.counts = [0.0] * 4, [0] * 3
        self.place, self.order, self.keys, self.live, self.taken = 0, 0.0, "", 0, 0.0

    def row(self, word: str) -> dict[str, Any]:
        for row in self.by:
            if row["word"] == word:
                return row
        self.by.append({"word": word, "n": 0, "total": 0.0, "last": "", "flag": False})
        return self.by[-1]

    def has(self, word: str) -> bool:
        return any(row["word"] == word for row in self.by)

    def drop(self, word: str) -> None:
        self.by = [row for row in self.by if row["word"] != word]

    def queue(self, symbol: str) -> list[dict[str, Any]]:
        return next((rows for key, rows in self.lots if key == symbol), [])

    def push(self, symbol: str, size: float, tag: str) -> None:
        rows = self.queue(symbol)
        rows.append({"symbol": symbol, "size": size, "tag": tag})
        if len(rows) == 1:
            self.lots.append((symbol, rows))

    def pop(self, symbol: str) -> None:
        del self.queue(symbol)[0]
        self.lots = [(key, rows) for key, rows in self.lots if rows]

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ != "Tick":
            return
        x = number_of(event.x)
        self.recent[self.place % 4] = x
        self.recent[3] += 1.0
        self.counts[self.place % 3] = wrapped(self.counts[self.place % 3] + integer_of(event.n))
        self.place += 1
        if event.word is None:
            return
        row = self.row(event.word)
        row["n"] += 1
        row["total"] += x
        row["last"], row["flag"] = event.side, event.flag
        if event.word == "drop" and self.has(event.symbol):
            total = self.row(event.symbol)["total"]
            self.drop(event.symbol)
            self.row("fresh")["total"] += total
        if event.word == "again":
            self.drop("again")
            self.row("again")["n"] = -5
        if event.side == "buy":
            self.push(event.symbol, x, event.word)
        if event.side == "sell" and self.queue(event.symbol):
            size = self.queue(event.symbol)[0]["size"]
            self.pop(event.symbol)
            self.taken += size
            if event.flag:
                self.push(event.symbol, size / 2.0, "back")
        self.order = 0.0
        for row in self.by:
            self.order = self.order * 0.5 + row["total"]
            if row["word"] == "stop":
                break
        self.keys = self.by[-1]["word"] if self.by else ""
        self.live = len(self.by) * 100 + len(self.queue(event.symbol))

    def record(self) -> dict[str, Any]:
        names = ("recent", "counts", "place", "order", "keys", "live", "taken")
        return {name: getattr(self, name) for name in names}

    def properties(self) -> dict[str, Any]:
        value = 0.0
        for row in self.by:
            value += row["total"]
        for number in self.recent:
            value += number
        return {"total": value, "has_drop": self.has("drop")}

    def tables(self) -> dict[str, Any]:
        return {"by": self.by, "lots": [row for _, rows in self.lots for row in rows]}


class Side:
    """Price levels in a dict; sorted when looked at."""

    def __init__(self, *, descending: bool) -> None:
        self.levels: dict[float, float] = {}
        self.descending = descending

    def set(self, price: float, size: float) -> None:
        price = 0.0 if price == 0.0 else price
        self.levels.pop(price, None)
        if size != 0.0:
            self.levels[price] = size

    def sorted(self) -> list[tuple[float, float]]:
        return sorted(self.levels.items(), reverse=self.descending)

    def at(self, index: int) -> tuple[float, float]:
        levels = self.sorted()
        return levels[index] if 0 <= index < len(levels) else (math.nan, math.nan)

    def rows(self) -> list[dict[str, float]]:
        return [{"price": price, "size": size} for price, size in self.sorted()]


class Book:
    def __init__(self) -> None:
        self.bids, self.asks, self.refused = Side(descending=True), Side(descending=False), 0

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        kind = type(event).__name__
        if kind == "Tock":
            self.asks.set(event.y, 1.0)
        if kind != "Level":
            return
        if event.action == "clear":
            self.bids.levels.clear()
        elif event.action == "delete_all":
            self.asks.levels.clear()
        elif event.action == "copy_best":
            if self.bids.levels:
                self.asks.set(*self.bids.at(0))
        elif event.action == "set_other":
            self.bids.set(event.other, event.size)
        elif event.price is None:
            self.refused += 1
        else:
            self.bids.set(event.price, event.size)
            self.asks.set(event.price, -event.size)

    def record(self) -> dict[str, Any]:
        return {"refused": self.refused}

    def properties(self) -> dict[str, Any]:
        return {
            "best": self.bids.at(0)[0],
            "best_size": self.bids.at(0)[1],
            "second": self.bids.at(1)[0] - self.asks.at(1)[0],
            "third_size": self.bids.at(2)[1],
            "beyond": math.nan,
            "levels": len(self.bids.levels) * 1000 + len(self.asks.levels),
        }

    def tables(self) -> dict[str, Any]:
        return {"bids": self.bids.rows(), "asks": self.asks.rows()}


class Merged:
    def __init__(self) -> None:
        self.ticks = self.tocks = self.log = self.last_version = self.last_position = self.last_time = 0
        self.value, self.symbol = 1.0, ""

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        kind = type(event).__name__
        if kind == "Tick":
            self.ticks += 1
            self.log = wrapped(self.log * 3 + 1)
            self.last_version = version
            self.value = self.value * 0.5 + float(self.tocks)
            self.symbol = event.symbol
        elif kind == "Tock":
            self.tocks += 1
            self.log = wrapped(self.log * 3 + 2)
            self.last_position, self.last_time = position, timestamp
            self.value = self.value * 0.25 - event.y
            self.symbol = event.symbol
        elif kind == "MarketData":
            self.value += event.price / 3.0

    def record(self) -> dict[str, Any]:
        return dict(vars(self))

    def properties(self) -> dict[str, Any]:
        return {}

    def tables(self) -> dict[str, Any]:
        return {}


class Trades:
    def __init__(self) -> None:
        self.trades: list[Any] = []

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "MarketData":
            self.trades.append(event)

    def record(self) -> dict[str, Any]:
        prices = [trade.price for trade in self.trades]
        volume = notional = 0.0
        for trade in self.trades:
            volume += trade.volume
            notional += trade.price * trade.volume
        if not prices:
            last = first = high = low = math.nan
        else:
            last, first, high, low = prices[-1], prices[0], max(prices), min(prices)
        return {
            "last": last, "open": first, "high": high, "low": low, "volume": volume, "notional": notional,
            "count": len(prices),
        }  # fmt: skip

    def properties(self) -> dict[str, Any]:
        record = self.record()
        vwap = record["notional"] / record["volume"] if record["volume"] else math.nan
        return {"close": record["last"], "vwap": vwap}

    def tables(self) -> dict[str, Any]:
        return {}


class OrderBook:
    def __init__(self) -> None:
        self.bids, self.asks = Side(descending=True), Side(descending=False)
        self.update_id, self.in_snapshot = 0, False

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ != "BookChange":
            return
        update_id = 0 if event.update_id is None else event.update_id
        if event.snapshot and not (self.in_snapshot and update_id == self.update_id):
            self.bids.levels.clear()
            self.asks.levels.clear()
        self.in_snapshot, self.update_id = event.snapshot, update_id
        (self.bids if event.side == "bid" else self.asks).set(event.price, event.size)

    def record(self) -> dict[str, Any]:
        return {"update_id": self.update_id, "in_snapshot": self.in_snapshot}

    def properties(self) -> dict[str, Any]:
        (bid, bid_size), (ask, ask_size) = self.bids.at(0), self.asks.at(0)
        both = bid_size + ask_size
        depth = [0.0, 0.0]
        for number, side in enumerate((self.bids, self.asks)):
            for _, size in side.sorted()[:10]:
                depth[number] += size
        return {
            "best_bid": bid,
            "best_bid_size": bid_size,
            "best_ask": ask,
            "best_ask_size": ask_size,
            "mid": (bid + ask) / 2.0,
            "spread": ask - bid,
            "imbalance": (bid_size - ask_size) / both if both > 0.0 else math.nan,
            "bid_depth": depth[0],
            "ask_depth": depth[1],
        }

    def tables(self) -> dict[str, Any]:
        return {"bids": self.bids.rows(), "asks": self.asks.rows()}


class Signals:
    def __init__(self) -> None:
        self.signals: list[Any] = []

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "TradingSignal":
            self.signals.append(event)

    def record(self) -> dict[str, Any]:
        if not self.signals:
            return {"symbol": "", "action": "", "strength": 0.0, "strategy": "", "count": 0}
        last = self.signals[-1]
        return {
            "symbol": last.symbol, "action": last.action, "strength": last.strength, "strategy": last.strategy,
            "count": len(self.signals),
        }  # fmt: skip

    def properties(self) -> dict[str, Any]:
        return {}

    def tables(self) -> dict[str, Any]:
        rows = []
        for symbol in dict.fromkeys(signal.symbol for signal in self.signals):
            own = [signal for signal in self.signals if signal.symbol == symbol]
            last = own[-1]
            rows.append({"symbol": symbol, "action": last.action, "strength": last.strength,
                         "strategy": last.strategy, "count": len(own)})  # fmt: skip
        return {"by_symbol": rows}


class Portfolio:
    """The rules of the portfolio, position by position; lots as a list of [quantity, price]."""

    def __init__(self) -> None:
        self.cash = self.realized_pnl = self.realized_pnl_fifo = self.fees = self.funding = 0.0
        self.fills = 0
        self.positions: list[dict[str, Any]] = []
        self.lots: list[tuple[str, list[list[float]]]] = []

    def position(self, symbol: str) -> dict[str, Any]:
        for row in self.positions:
            if row["symbol"] == symbol:
                return row
        names = ("quantity", "average_cost", "realized_pnl", "realized_pnl_fifo", "last_price", "fees", "peak")
        self.positions.append({"symbol": symbol, **dict.fromkeys(names, 0.0)})
        return self.positions[-1]

    def open_lots(self, symbol: str) -> list[list[float]]:
        return next((lots for key, lots in self.lots if key == symbol), [])

    def set_lots(self, symbol: str, lots: list[list[float]]) -> None:
        if not lots:
            self.lots = [(key, kept) for key, kept in self.lots if key != symbol]
        elif any(key == symbol for key, _ in self.lots):
            self.lots = [(key, lots if key == symbol else kept) for key, kept in self.lots]
        else:
            self.lots = [*self.lots, (symbol, lots)]

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ != "PortfolioChange":
            return
        self.fees += event.fee
        if event.kind == "fill":
            self.cash += -event.quantity * event.price - event.fee
            self.fills += 1
            self.fill(event.symbol, event.quantity, event.price)
            self.position(event.symbol)["fees"] += event.fee
            return
        amount = event.quantity * event.price
        self.cash += amount - event.fee
        if event.kind == "funding":
            self.funding += amount
            row = self.position(event.symbol)
            for holder in (self.__dict__, row):
                holder["realized_pnl"] += amount
                holder["realized_pnl_fifo"] += amount

    def fill(self, symbol: str, quantity: float, price: float) -> None:
        row = self.position(symbol)
        row["last_price"] = price
        held = row["quantity"]
        if quantity == 0.0:
            return
        if held == 0.0 or (held > 0.0) == (quantity > 0.0):
            cost = abs(held) * row["average_cost"] + abs(quantity) * price
            row["average_cost"] = cost / (abs(held) + abs(quantity))
            row["quantity"] = held + quantity
            row["peak"] = max(row["peak"], abs(row["quantity"]))
            self.set_lots(symbol, [*self.open_lots(symbol), [abs(quantity), price]])
            return
        sign = math.copysign(1.0, held)
        closed = min(abs(held), abs(quantity))
        dust = 1e-12 * row["peak"]
        gain = closed * (price - row["average_cost"]) * sign
        fifo, lots, left = 0.0, [list(lot) for lot in self.open_lots(symbol)], closed
        while left > dust and lots:
            taken = min(lots[0][0], left)
            fifo += taken * (price - lots[0][1]) * sign
            left -= taken
            lots[0][0] -= taken
            if lots[0][0] <= dust:
                del lots[0]
        for holder in (self.__dict__, row):
            holder["realized_pnl"] += gain
            holder["realized_pnl_fifo"] += fifo
        rest = held + quantity
        if rest == 0.0 or abs(rest) < dust:
            lots = []
            row["quantity"] = row["average_cost"] = row["peak"] = 0.0
        elif (rest > 0.0) == (held > 0.0):
            row["quantity"] = rest
        else:  # through zero: what is left opens a position the other way, in a queue of its own
            self.set_lots(symbol, [])
            lots = [[abs(rest), price]]
            row["quantity"], row["average_cost"], row["peak"] = rest, price, abs(rest)
        self.set_lots(symbol, lots)

    def record(self) -> dict[str, Any]:
        names = ("cash", "realized_pnl", "realized_pnl_fifo", "fees", "funding", "fills")
        return {name: getattr(self, name) for name in names}

    def properties(self) -> dict[str, Any]:
        equity, unrealized = self.cash, 0.0
        for row in self.positions:
            equity += row["quantity"] * row["last_price"]
            unrealized += row["quantity"] * (row["last_price"] - row["average_cost"])
        return {"equity": equity, "unrealized_pnl": unrealized}

    def tables(self) -> dict[str, Any]:
        lots = [{"symbol": symbol, "quantity": q, "price": p} for symbol, kept in self.lots for q, p in kept]
        return {"positions": self.positions, "lots": lots}


TWINS = {twin.__name__: twin for twin in (Numbers, Words, Tables, Book, Merged, Trades, OrderBook, Signals, Portfolio)}
