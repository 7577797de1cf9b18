"""The integer model of a simulated market: times, symbols, prices and sizes of trades.

It uses raw PCG64 words and integer arithmetic only: no libm, no BLAS, no floats. Quantile tables come from integer
roots and from Decimal.ln, which is correctly rounded by specification. So every machine computes the same bits, and a
shorter run is a prefix of a longer one.

The model imitates these facts: prices move by whole ticks with cubic-law tails; sizes are whole lots with heavier
tails; activity comes in bursts under slowly changing regimes, in which busier means more volatile; most trades have the
timestamp and the side of the trade before.
"""

from __future__ import annotations

import decimal
import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.feeds.reading.file_feed import IntArray

BLOCK_TRADES = 1 << 16
SIZE_DECIMALS = 5
_TABLE_BITS = 12
_FRACTION_BITS = 16


@functools.cache
def _exponential() -> IntArray:
    """Quantiles of the exponential distribution of mean one, in units of 2**-16."""
    size = 1 << _TABLE_BITS
    with decimal.localcontext(prec=28):
        unit = decimal.Decimal(1 << _FRACTION_BITS)
        values = [int(-(decimal.Decimal(2 * k + 1) / (2 * size)).ln() * unit) for k in range(size)]
    return np.array(values, np.int64)


@functools.cache
def _heavy(numerator: int) -> IntArray:
    """Quantiles of ``(1 - u) ** (-numerator / 3) - 1`` in units of 2**-16: a tail of exponent ``3 / numerator``."""
    size = 1 << _TABLE_BITS
    unit = 1 << _FRACTION_BITS
    return np.array(
        [_cube_root(((2 * size) ** numerator * unit**3) // (2 * k + 1) ** numerator) - unit for k in range(size)],
        np.int64,
    )


def _cube_root(number: int) -> int:
    """The largest integer whose cube is at most `number`."""
    root = 1 << -(-number.bit_length() // 3)
    while True:
        closer = (2 * root + number // (root * root)) // 3
        if closer >= root:
            return root
        root = closer


# Per regime, in quarters: length of gaps, size of price moves.
_GAP_OF = np.array([1, 2, 4, 8], np.int64)
_MOVE_OF = np.array([10, 6, 4, 2], np.int64)


@dataclass(slots=True)
class TradeBlock:
    """Consecutive trades as integers: ns, symbol codes, ticks, lots."""

    time: IntArray
    symbol: IntArray
    middle: IntArray
    before: IntArray
    buys: npt.NDArray[np.bool_]
    lots: IntArray
    number: IntArray
    order: IntArray
    spare: IntArray


class SimulatedMarket:
    """Makes blocks of trades, and carries the state from one block to the next."""

    def __init__(self, symbols: tuple[str, ...], seed: int, start: int, rate: int) -> None:
        count = len(symbols)
        self._words = np.random.PCG64(seed)
        self.names = pl.Series(symbols, dtype=pl.String)
        instruments = [_instrument(symbol) for symbol in symbols]
        self.decimals = np.array([decimals for _, decimals in instruments], np.int64)
        self._home = np.array([ticks for ticks, _ in instruments], np.int64)
        self._low, self._span = self._home // 4, self._home * 4 - self._home // 4
        # A move of one is about a hundredth of a percent of the price, at least one tick in ten moves.
        self._step = np.maximum(self._home // 40_000, 1)
        self._walk = self._home - self._low
        self.middle = self._home.copy()
        self.number = np.zeros(count, np.int64)
        self._side = np.zeros(count, np.int64)
        self._time, self._gap_ns = start, 1_000_000_000 // rate
        self._symbol = self._regime = 0
        self._made = 0

    def block(self, count: int) -> TradeBlock:
        """The next trades. Draws random words for a full block, so that a shorter run is a prefix."""
        words = self._words.random_raw(2 * BLOCK_TRADES).reshape(2, BLOCK_TRADES)[:, :count]
        first, second = _Bits(words[0]), _Bits(words[1])
        time, symbol, regime = self._arrivals(first, count)
        swept = np.concatenate([[False], time[1:] == time[:-1]])
        flips = (~swept & (second.take(6) < 26)).astype(np.int64)
        side = _running_sum(symbol, flips, self._side) & 1
        moves = np.where(second.take(4) < 6, _heavy(1)[second.take(_TABLE_BITS)] * _MOVE_OF[regime], 0)
        ticks = (moves * self._step[symbol]) >> (_FRACTION_BITS + 2)
        # A buy moves the price up slightly more often than down.
        upward = (second.take(6) < 36) == (side == 1)
        walk = _running_sum(symbol, np.where(upward, ticks, -ticks), self._walk)
        middle = self._reflected(walk, symbol)
        before = _shifted(symbol, middle, self.middle)
        number = _running_sum(symbol, np.ones(count, np.int64), self.number)
        lots = 1 + ((_heavy(2)[second.take(_TABLE_BITS)] * self._lot_scale(symbol)) >> _FRACTION_BITS)
        order = (np.arange(self._made, self._made + count, dtype=np.int64) + 1) * 4
        self._made += count
        return TradeBlock(time, symbol, middle, before, side == 1, lots, number, order, first.rest)

    def _arrivals(self, bits: _Bits, count: int) -> tuple[IntArray, IntArray, IntArray]:
        kind, waiting = bits.take(6), _exponential()[bits.take(_TABLE_BITS)]
        burst = kind >= 52  # a new burst: a long gap, perhaps another symbol; below 36: no gap
        regime = _hold(bits.take(2), burst & (bits.take(6) == 0), self._regime)
        drawn = bits.take(12)
        symbol = _hold((drawn * drawn * len(self.names)) >> 24, burst, self._symbol)
        self._regime, self._symbol = int(regime[-1]), int(symbol[-1])
        scale = np.where(burst, 5 * self._gap_ns * _GAP_OF[regime] // 4, np.where(kind < 36, 0, self._gap_ns // 20))
        gaps = ((waiting >> 4) * (scale // 1_000)) >> (_FRACTION_BITS - 4)
        time = self._time + np.cumsum(gaps * 1_000)
        self._time = int(time[-1])
        return time, symbol, regime

    def _lot_scale(self, symbol: IntArray) -> IntArray:
        """Lots of a typical trade, worth some hundreds of the quote currency."""
        scale = np.array([10**d for d in range(12)], np.int64)[self.decimals]
        lots: IntArray = np.maximum(300 * 10**SIZE_DECIMALS * scale // self._home, 1)
        return lots[symbol]

    def _reflected(self, walk: IntArray, symbol: IntArray) -> IntArray:
        """A walk reflected at a quarter and at four times the first price."""
        span = self._span[symbol]
        inside = np.mod(walk, 2 * span)
        folded: IntArray = self._low[symbol] + np.where(inside < span, inside, 2 * span - inside)
        return folded


class _Bits:
    """Hands out the bits of 64-bit words, lowest first."""

    def __init__(self, words: npt.NDArray[np.uint64]) -> None:
        self._words, self._used = words, 0

    def take(self, bits: int) -> IntArray:
        taken = (self._words >> np.uint64(self._used)) & np.uint64((1 << bits) - 1)
        self._used += bits
        return taken.astype(np.int64)

    @property
    def rest(self) -> IntArray:
        return (self._words >> np.uint64(self._used)).astype(np.int64)


def _hold(values: IntArray, change: npt.NDArray[np.bool_], before: int) -> IntArray:
    """Values held from each row where `change` is set to the next such row."""
    at = np.maximum.accumulate(np.where(change, np.arange(1, len(values) + 1), 0))
    return np.concatenate([[before], values])[at]


def _running_sum(symbol: IntArray, values: IntArray, state: IntArray) -> IntArray:
    """`state` plus the sum over the symbol's rows up to each row; updates `state`."""
    sums = pl.DataFrame({"symbol": symbol, "value": values}).select(pl.col("value").cum_sum().over("symbol"))
    running: IntArray = state[symbol] + sums["value"].to_numpy()
    state[symbol] = running  # NumPy keeps the last value of a repeated index
    return running


def _shifted(symbol: IntArray, values: IntArray, state: IntArray) -> IntArray:
    """The value of the symbol's row before each row; `state` becomes the last values."""
    rows = pl.DataFrame({"symbol": symbol, "value": values, "before": state[symbol]})
    previous = rows.select(pl.col("value").shift(1).over("symbol").fill_null(pl.col("before")))
    state[symbol] = values
    return previous["value"].to_numpy()


def _instrument(symbol: str) -> tuple[int, int]:
    """First price in ticks and decimals of the tick, from the name."""
    known = {"BTCUSDT": (6_000_000, 2), "ETHUSDT": (250_000, 2), "SOLUSDT": (15_000, 2), "XRPUSDT": (55_000, 5)}
    if symbol in known:
        return known[symbol]
    word = int.from_bytes(hashlib.sha256(symbol.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return 5_000 + word % 995_000, 2 + (word >> 32) % 4
