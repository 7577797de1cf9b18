"""The library of reducers once more, as plainly as it can be said: see `naive_folds`.

Most keep all events and compute their figures anew whenever asked. Where the figures depend on how they were reached
(rolling moments, exposure), the steps are the same and the bookkeeping is the plainest.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

from tests.naive_folds import OrderBook


def added(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


class Trades:
    """All trades with their times."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters
        self.trades: list[Any] = []
        self.times: list[int] = []

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "MarketData":
            self.trades.append(event)
            self.times.append(timestamp)

    @property
    def prices(self) -> list[float]:
        return [trade.price for trade in self.trades]

    def record(self) -> dict[str, Any]:
        return {}

    def properties(self) -> dict[str, Any]:
        return {}

    def tables(self) -> dict[str, Any]:
        return {}


class Bars(Trades):
    """Trades cut into bars; what is left over is the bar being built."""

    def cut(self) -> tuple[list[tuple[list[int], int]], list[int]]:
        """Indices of trades and end of each whole bar, and the indices left."""
        whole, left = [], []
        for number in range(len(self.trades)):
            left.append(number)
            if self.is_whole([self.trades[n] for n in left]):
                whole.append((left, self.times[number]))
                left = []
        return whole, left

    def is_whole(self, trades: list[Any]) -> bool:
        raise NotImplementedError

    def bar(self, numbers: list[int], prefix: str) -> dict[str, Any]:
        trades = [self.trades[number] for number in numbers]
        prices = [trade.price for trade in trades]
        values: dict[str, Any] = {
            "open": prices[0] if prices else math.nan,
            "high": max(prices, default=math.nan),
            "low": min(prices, default=math.nan),
            "close": prices[-1] if prices else math.nan,
            "volume": added([trade.volume for trade in trades]),
            "notional": added([trade.price * trade.volume for trade in trades]),
            "count": len(trades),
            "started": self.times[numbers[0]] if numbers else 0,
        }
        return {prefix + name: value for name, value in values.items()}

    def record(self) -> dict[str, Any]:
        whole, left = self.cut()
        last, end = whole[-1] if whole else ([], 0)
        return {
            **self.parameters, **self.bar(left, ""), **self.own(), **self.bar(last, "last_"), "last_end": end,
            "bars": len(whole),
        }  # fmt: skip

    def own(self) -> dict[str, Any]:
        return {}

    def properties(self) -> dict[str, Any]:
        record = self.record()
        return {
            prefix + "vwap": record[prefix + "notional"] / record[prefix + "volume"]
            if record[prefix + "volume"] > 0.0
            else math.nan
            for prefix in ("", "last_")
        }


class TickBars(Bars):
    def is_whole(self, trades: list[Any]) -> bool:
        return len(trades) == self.parameters["size"]


class VolumeBars(Bars):
    def is_whole(self, trades: list[Any]) -> bool:
        return added([trade.volume for trade in trades]) >= self.parameters["size"]


class DollarBars(Bars):
    def is_whole(self, trades: list[Any]) -> bool:
        return added([trade.price * trade.volume for trade in trades]) >= self.parameters["size"]


class TimeBars(Bars):
    def end_of(self, time: int) -> int:
        width = self.parameters["width_ns"]
        return time if time % width == 0 else time - time % width + width

    def cut(self) -> tuple[list[tuple[list[int], int]], list[int]]:
        ends = [self.end_of(time) for time in self.times]
        bars = [([n for n, own in enumerate(ends) if own == end], end) for end in dict.fromkeys(ends)]
        return bars[:-1], bars[-1][0] if bars else []

    def own(self) -> dict[str, Any]:
        return {"end": self.end_of(self.times[-1]) if self.times else 0}


class Vwap(Trades):
    def record(self) -> dict[str, Any]:
        notional = added([trade.price * trade.volume for trade in self.trades])
        return {"notional": notional, "volume": added([trade.volume for trade in self.trades])}

    def properties(self) -> dict[str, Any]:
        record = self.record()
        return {"vwap": record["notional"] / record["volume"] if record["volume"] > 0.0 else math.nan}


class Twap(Trades):
    def record(self) -> dict[str, Any]:
        prices, times = self.prices, self.times
        return {
            "last": prices[-1] if prices else math.nan,
            "started": times[0] if times else 0,
            "updated": times[-1] if times else 0,
            "integral": added([prices[n - 1] * float(times[n] - times[n - 1]) for n in range(1, len(prices))]),
            "count": len(prices),
        }

    def properties(self) -> dict[str, Any]:
        record = self.record()
        elapsed = record["updated"] - record["started"]
        return {"twap": record["integral"] / float(elapsed) if elapsed else record["last"]}


class Ewma(Trades):
    def record(self) -> dict[str, Any]:
        average = self.prices[0] if self.prices else math.nan
        for price in self.prices[1:]:
            average += self.parameters["alpha"] * (price - average)
        return {**self.parameters, "ewma": average, "count": len(self.prices)}


class EwmaTime(Trades):
    def record(self) -> dict[str, Any]:
        average = self.prices[0] if self.prices else math.nan
        for n in range(1, len(self.prices)):
            lives = float(self.times[n] - self.times[n - 1]) / float(self.parameters["half_life_ns"])
            weight = math.exp(-math.log(2.0) * lives)
            average = weight * average + (1.0 - weight) * self.prices[n]
        return {
            **self.parameters, "ewma": average, "updated": self.times[-1] if self.times else 0,
            "count": len(self.prices),
        }  # fmt: skip


def welford(pairs: list[tuple[float, float]]) -> tuple[float, float, float, float, float]:
    """Means, squared deviations and products of deviations, a pair at a time."""
    if not pairs:
        return math.nan, math.nan, 0.0, 0.0, 0.0
    (mean_x, mean_y), xx, yy, xy = pairs[0], 0.0, 0.0, 0.0
    for number, (x, y) in enumerate(pairs[1:], start=2):
        dx, dy = x - mean_x, y - mean_y
        mean_x, mean_y = mean_x + dx / number, mean_y + dy / number
        xx, yy, xy = xx + dx * (x - mean_x), yy + dy * (y - mean_y), xy + dx * (y - mean_y)
    return mean_x, mean_y, xx, yy, xy


def variance(m2: float, count: int) -> float:
    return m2 / (count - 1) if count >= 2 else math.nan


class Moments(Trades):
    def record(self) -> dict[str, Any]:
        prices = self.prices
        mean, _, m2, _, _ = welford([(price, price) for price in prices])
        return {
            "count": len(prices), "mean": mean, "m2": m2, "min": min(prices, default=math.nan),
            "max": max(prices, default=math.nan),
        }  # fmt: skip

    def properties(self) -> dict[str, Any]:
        record = self.record()
        found = variance(record["m2"], record["count"])
        return {"variance": found, "std": math.sqrt(found)}


class Correlation(Trades):
    @staticmethod
    def of(moments: tuple[float, ...], count: int) -> dict[str, Any]:
        _, _, xx, yy, xy = moments
        scale = math.sqrt(xx) * math.sqrt(yy)
        r = xy / scale if scale > 0.0 else math.nan
        return {"covariance": variance(xy, count), "correlation": math.copysign(1.0, r) if abs(r) > 1.0 else r}

    @staticmethod
    def named(moments: tuple[float, ...]) -> dict[str, Any]:
        names = ("price_mean", "volume_mean", "price_m2", "volume_m2", "comoment")
        return dict(zip(names, moments, strict=True))

    def moments(self) -> tuple[float, ...]:
        return welford([(trade.price, trade.volume) for trade in self.trades])

    def record(self) -> dict[str, Any]:
        return {"count": len(self.trades), **self.named(self.moments())}

    def properties(self) -> dict[str, Any]:
        return self.of(self.moments(), len(self.trades))


class Window:
    """Pairs in a list of bounded length, their moments moved along and now and then computed anew."""

    def __init__(self, length: int) -> None:
        self.length, self.pairs, self.seen = length, [], 0
        self.moments = welford([])

    def take(self, pair: tuple[float, float]) -> None:
        self.seen += 1
        self.pairs = [*self.pairs, pair]
        if len(self.pairs) <= self.length:
            self.moments = welford(self.pairs) if self.seen % self.length else self.anew()
            return
        (old_x, old_y), self.pairs = self.pairs[0], self.pairs[1:]
        (x, y), (mean_x, mean_y, xx, yy, xy), n = pair, self.moments, self.length
        new_x, new_y = mean_x + (x - old_x) / n, mean_y + (y - old_y) / n
        xx += (x - old_x) * (x - new_x + old_x - mean_x)
        yy += (y - old_y) * (y - new_y + old_y - mean_y)
        xy = xy + (x - old_x) * (y - new_y) + (old_x - mean_x) * (y - old_y)
        self.moments = new_x, new_y, 0.0 if xx < 0.0 else xx, 0.0 if yy < 0.0 else yy, xy
        if self.seen % n == 0:
            self.moments = self.anew()

    def anew(self) -> tuple[float, float, float, float, float]:
        """From the oldest pair to the newest, deviations from the first one."""
        first_x, first_y = self.pairs[0]
        mean_x = first_x + added([x - first_x for x, _ in self.pairs]) / self.length
        mean_y = first_y + added([y - first_y for _, y in self.pairs]) / self.length
        xx = added([(x - mean_x) * (x - mean_x) for x, _ in self.pairs])
        yy = added([(y - mean_y) * (y - mean_y) for _, y in self.pairs])
        return mean_x, mean_y, xx, yy, added([(x - mean_x) * (y - mean_y) for x, y in self.pairs])

    def ring(self, which: int) -> list[float]:
        ring = [0.0] * 256
        for back in range(len(self.pairs)):
            ring[(self.seen - 1 - back) % self.length] = self.pairs[-1 - back][which]
        return ring

    def common(self) -> dict[str, Any]:
        return {"count": len(self.pairs), "place": self.seen % self.length, "prices": self.ring(0)}


class RollingMoments(Trades):
    def __init__(self, window: int) -> None:
        super().__init__(window=window)
        self.window = Window(window)

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "MarketData":
            self.window.take((event.price, 0.0))

    def record(self) -> dict[str, Any]:
        mean, _, m2, _, _ = self.window.moments
        return {**self.parameters, **self.window.common(), "mean": mean, "m2": m2}

    def properties(self) -> dict[str, Any]:
        found = variance(self.window.moments[2], len(self.window.pairs))
        return {"variance": found, "std": math.sqrt(found)}


class RollingCorrelation(Trades):
    def __init__(self, window: int) -> None:
        super().__init__(window=window)
        self.window = Window(window)

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "MarketData":
            self.window.take((event.price, event.volume))

    def record(self) -> dict[str, Any]:
        named = Correlation.named(self.window.moments)
        return {**self.parameters, **self.window.common(), **named, "volumes": self.window.ring(1)}

    def properties(self) -> dict[str, Any]:
        return Correlation.of(self.window.moments, len(self.window.pairs))


class RealizedVolatility(Trades):
    def record(self) -> dict[str, Any]:
        prices = [price for price in self.prices if price > 0.0]
        returns = []
        for before, price in pairwise(prices):
            ratio = price / before
            exact = ratio not in (0.0, math.inf)
            returns.append(abs(math.log(ratio) if exact else math.log(price) - math.log(before)))
        return {
            "last": prices[-1] if prices else math.nan,
            "last_return": returns[-1] if returns else 0.0,
            "count": len(returns),
            "sum_squares": added([r * r for r in returns]),
            "sum_products": added([after * r for r, after in pairwise(returns)]),
        }

    def properties(self) -> dict[str, Any]:
        record = self.record()
        squares, products = record["sum_squares"], record["sum_products"]
        return {"variance": squares, "volatility": math.sqrt(squares), "bipower": math.pi / 2.0 * products}


class BookDepth(OrderBook):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def record(self) -> dict[str, Any]:
        return {"levels": self.levels, **super().record()}

    def properties(self) -> dict[str, Any]:
        (bid, bid_size), (ask, ask_size) = self.bids.at(0), self.asks.at(0)
        bids, asks = (added([size for _, size in side.sorted()[: self.levels]]) for side in (self.bids, self.asks))
        return {
            "bid_depth": bids,
            "ask_depth": asks,
            "imbalance": (bids - asks) / (bids + asks) if bids and asks else math.nan,
            "microprice": (bid * ask_size + ask * bid_size) / (bid_size + ask_size),
        }


class OrderFlowImbalance:
    def __init__(self) -> None:
        self.quotes: list[tuple[float, float, float, float]] = []

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "Quote":
            bid = event.bid_price if event.bid_size else -math.inf
            ask = event.ask_price if event.ask_size else math.inf
            self.quotes.append((bid, event.bid_size, ask, event.ask_size))

    def flows(self) -> list[float]:
        flows = [0.0] if self.quotes else []
        for (bid0, bid_size0, ask0, ask_size0), (bid, bid_size, ask, ask_size) in pairwise(self.quotes):
            flow = (bid >= bid0) * bid_size - (bid <= bid0) * bid_size0
            flows.append(flow - (ask <= ask0) * ask_size + (ask >= ask0) * ask_size0)
        return flows

    def record(self) -> dict[str, Any]:
        bid, bid_size, ask, ask_size = self.quotes[-1] if self.quotes else (-math.inf, 0.0, math.inf, 0.0)
        flows = self.flows()
        return {
            "bid_price": bid, "bid_size": bid_size, "ask_price": ask, "ask_size": ask_size,
            "flow": flows[-1] if flows else 0.0, "ofi": added(flows), "count": len(flows),
        }  # fmt: skip

    def properties(self) -> dict[str, Any]:
        return {}

    def tables(self) -> dict[str, Any]:
        return {}


class TwoPartSum:
    """A float and what it has no digits for, each rounding known exactly."""

    def __init__(self) -> None:
        self.whole = self.rest = 0.0

    def add(self, term: float) -> None:
        rounded = self.whole + term
        rest = self.rest + float(Fraction(self.whole) + Fraction(term) - Fraction(rounded))
        self.whole = rounded + rest
        self.rest = float(Fraction(rounded) + Fraction(rest) - Fraction(self.whole))


class Risk:
    def __init__(self) -> None:
        self.cash = self.peak = self.max_loss = self.max_drawdown = 0.0
        self.net, self.gross = TwoPartSum(), TwoPartSum()
        self.positions: dict[str, dict[str, float]] = {}

    @property
    def held(self) -> int:
        return sum(1 for row in self.positions.values() if row["quantity"] != 0.0)

    @property
    def equity(self) -> float:
        return self.cash + self.net.whole

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ != "PortfolioChange":
            return
        if event.kind == "fill":
            self.cash += -event.quantity * event.price - event.fee
            self.fill(event.symbol, event.quantity, event.price)
        else:
            self.cash += event.quantity * event.price - event.fee
        if event.kind == "cash":
            self.peak += event.quantity * event.price
        self.peak = max(self.peak, self.equity)
        self.max_loss = max(self.max_loss, self.peak - self.equity)
        if self.peak > 0.0:
            self.max_drawdown = max(self.max_drawdown, (self.peak - self.equity) / self.peak)

    def fill(self, symbol: str, quantity: float, price: float) -> None:
        row = self.positions.setdefault(symbol, dict.fromkeys(("quantity", "last_price", "value", "peak"), 0.0))
        before, old = row["value"], row["quantity"]
        new = old + quantity
        if quantity * old < 0.0 and (new == 0.0 or abs(new) < 1e-12 * row["peak"]):
            new = row["peak"] = 0.0
        elif new * old < 0.0:
            row["peak"] = abs(new)
        else:
            row["peak"] = max(row["peak"], abs(new))
        row.update(quantity=new if quantity else old, last_price=price)
        row["value"] = row["quantity"] * price
        if not self.held:
            self.net, self.gross = TwoPartSum(), TwoPartSum()
            return
        for total, terms in ((self.net, (row["value"], -before)), (self.gross, (abs(row["value"]), -abs(before)))):
            for term in terms:
                total.add(term)

    def record(self) -> dict[str, Any]:
        return {
            "cash": self.cash,
            "net": self.net.whole,
            "gross": self.gross.whole,
            "net_rest": self.net.rest,
            "gross_rest": self.gross.rest,
            "open_positions": self.held,
            "peak": self.peak,
            "max_loss": self.max_loss,
            "max_drawdown": self.max_drawdown,
        }

    def properties(self) -> dict[str, Any]:
        equity, peak = self.equity, self.peak
        return {
            "equity": equity,
            "leverage": self.gross.whole / equity if equity > 0.0 else math.nan,
            "loss": peak - equity,
            "drawdown": (peak - equity) / peak if peak > 0.0 else math.nan,
        }

    def tables(self) -> dict[str, Any]:
        return {"positions": [{"symbol": symbol, **row} for symbol, row in self.positions.items()]}


class FundingRate:
    def __init__(self) -> None:
        self.rates: list[tuple[str, float]] = []

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "Funding":
            self.rates.append((event.symbol, event.rate))

    @staticmethod
    def of(rates: list[float]) -> dict[str, Any]:
        return {"rate": rates[-1] if rates else math.nan, "cumulative": added(rates), "count": len(rates)}

    def record(self) -> dict[str, Any]:
        return self.of([rate for _, rate in self.rates])

    def properties(self) -> dict[str, Any]:
        record = self.record()
        return {"mean": record["cumulative"] / record["count"] if record["count"] else math.nan}

    def tables(self) -> dict[str, Any]:
        rows = []
        for symbol in dict.fromkeys(symbol for symbol, _ in self.rates):
            own = self.of([rate for name, rate in self.rates if name == symbol])
            rows.append({"symbol": symbol, **own, "mean": own["cumulative"] / own["count"]})
        return {"by_symbol": rows}
