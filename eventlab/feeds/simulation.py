"""A seeded market: trades, books and bars of many symbols, the same bits on every machine.

Only raw PCG64 words, integer arithmetic, and one correctly rounded division of an integer by a power of ten per value:
no libm, no BLAS, no sum of floats. Quantile tables come from integer roots and from Decimal.ln, which is correctly
rounded by specification. The first n trades of a longer simulation are the n trades of a shorter one.

What it imitates: prices move by whole ticks with cubic-law tails; sizes are whole lots with heavier tails; activity
comes in bursts under slowly changing regimes, in which busier means more volatile; most trades share their
time stamp with the one before and take the same side.
"""

from __future__ import annotations

import decimal
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import FeedError
from eventlab.events.builtin import Bar, BookChange, MarketData
from eventlab.events.clock import MAX_NS, Moment, duration_ns, to_ns
from eventlab.events.types import event_type
from eventlab.feeds.base import UTC_NS, IntArray, batches_of, checked_symbol
from eventlab.feeds.contract import Chunk, Clock, FeedBatch, FeedReport, Param
from eventlab.feeds.template import Template

GENERATOR_VERSION = 1
"""Part of the identity of what is generated: raise it with any change of output."""

BLOCK_TRADES = 1 << 16
BLOCKS_A_CHUNK = 4
DEPTH = 10
"""Price levels on each side of a simulated book."""

_SIZE_DECIMALS = 5
_TABLE_BITS = 12
_FRACTION_BITS = 16


def simulate(
    *,
    symbols: Sequence[str] = ("BTCUSDT", "ETHUSDT"),
    trades: int = 100_000,
    seed: int = 0,
    start: Moment = "2024-01-01T00:00:00Z",
    rate: int = 20,
    books: bool = False,
    bars: str | None = None,
    aggregate_id: str = "{kind}/{symbol}",
) -> Simulation:
    """Make up a market.

    Parameters
    ----------
    symbols : sequence of str
        Earlier ones are more active.
    trades : int
        How many, of all symbols together.
    seed : int
        Not negative. Equal arguments give equal bits, on any machine.
    start : datetime, ISO string or int ns
        Just before the first trade.
    rate : int
        Trades a second, of all symbols together, on average.
    books : bool
        Also level-2 book changes: a snapshot of ten levels a side, then one update after every trade. Books are never crossed at
        the end of an update, and each trade is at the best price of the side it takes.
    bars : str, optional
        Also bars of this interval, e.g. ``"1m"``, of the trades; intervals are aligned to the epoch, empty ones have no bar, and the
        last ones are closed by the simulation's end.
    aggregate_id : str
        A template over ``{symbol}`` and ``{kind}``, which is market, book or bar.

    Returns
    -------
    Feed
        MarketData (and BookChange, Bar) in time order; its clock is ``"simulated"``.

    Raises
    ------
    FeedError
        An argument that makes no sense.

    Examples
    --------
    >>> feed = simulate(symbols=("BTCUSDT", "ETHUSDT"), trades=1_000, seed=7)
    >>> sum(len(batch.frame) for chunk in feed.chunks() for batch in chunk.batches)
    1000
    """
    return Simulation(symbols, trades, seed, start, rate, books, bars, aggregate_id)


class Simulation:
    """The feed that :func:`simulate` returns."""

    name = "simulate"
    unit = "event"
    clock: Clock = "simulated"

    def __init__(
        self, symbols: Sequence[str], trades: int, seed: int, start: Moment, rate: int,
        books: bool, bars: str | None, aggregate_id: str,
    ) -> None:  # fmt: skip
        if isinstance(symbols, str) or not symbols or len(set(symbols)) != len(symbols):
            raise FeedError("symbols must be different names", got=symbols, expected="e.g. ('BTCUSDT', 'ETHUSDT')")
        self.symbols = tuple(checked_symbol(symbol) for symbol in symbols)
        self._trades = _whole("trades", trades, 0, 10**12)
        self._seed = _whole("seed", seed, 0, 2**63 - 1)
        self._rate = _whole("rate", rate, 1, 10**6)
        self._start = to_ns(start, what="start")
        if not 0 <= self._start <= MAX_NS // 2:
            raise FeedError("start is out of range", got=start, expected="1970 to 2116")
        self._books = bool(books)
        self._bar_ns = None if bars is None else duration_ns(bars, what="bars")
        template = Template.parse(aggregate_id, ("symbol", "kind"))
        if books and "kind" not in template.fields:
            raise FeedError("trades and books need aggregates of their own", got=aggregate_id, expected="{kind} in it")
        self._template = aggregate_id
        self.params: Mapping[str, Param] = MappingProxyType({
            "symbols": json.dumps(self.symbols), "trades": self._trades, "seed": self._seed, "start": self._start,
            "rate": self._rate, "books": self._books, "bars": self._bar_ns, "aggregate_id": aggregate_id,
        })  # fmt: skip
        self.report = FeedReport()

    def __repr__(self) -> str:
        return f"<feed simulate of {self.source}>"

    @property
    def source(self) -> str:
        return f"{self._trades:,} simulated trades"

    @property
    def content_sha256(self) -> str:
        """Digest of what determines the output: all parameters and the generator's version."""
        made_of = {"generator": GENERATOR_VERSION, **self.params}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    @property
    def total(self) -> int | None:
        return self._trades

    def chunks(self) -> Iterator[Chunk]:
        """One pass; see :class:`eventlab.feeds.contract.Feed`. `done` counts trades."""
        self.report = FeedReport()
        market = _Market(self.symbols, self._seed, self._start, self._rate)
        bars = None if self._bar_ns is None else _Bars(self._bar_ns)
        events = done = 0
        while done < self._trades:
            wanted = min(self._trades - done, BLOCK_TRADES * BLOCKS_A_CHUNK)
            blocks = [market.block(min(BLOCK_TRADES, wanted - at)) for at in range(0, wanted, BLOCK_TRADES)]
            done += wanted
            batches = [FeedBatch(
                event_type(MarketData), pl.concat([_trade_frame(market, block) for block in blocks]),
                self._aggregate("market"), np.concatenate([block.order for block in blocks]),
            )]  # fmt: skip
            if self._books:
                frames = [_book_frame(market, block) for block in blocks]
                batches.append(FeedBatch(
                    event_type(BookChange), pl.concat([frame for frame, _ in frames]), self._aggregate("book"),
                    np.concatenate([order for _, order in frames]),
                ))  # fmt: skip
            if bars is not None:
                closed = [bars.see(market, block) for block in blocks]
                if done == self._trades:
                    closed.append(bars.rest(market, blocks[-1]))
                batches.append(FeedBatch(
                    event_type(Bar), pl.concat([frame for frame, _ in closed]), self._aggregate("bar"),
                    np.concatenate([order for _, order in closed]),
                ))  # fmt: skip
            chunk = Chunk(batches_of(*batches), done)
            events += sum(len(batch.frame) for batch in chunk.batches)
            self.report = FeedReport(rows=events, events=events)
            yield chunk

    def _aggregate(self, kind: str) -> str:
        return self._template.replace("{kind}", kind)


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise FeedError(f"{name} must be a whole number", got=value, expected=f"{low} to {high}")
    return int(value)


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


# Per regime, in quarters: how long gaps are, how far prices move.
_GAP_OF = np.array([1, 2, 4, 8], np.int64)
_MOVE_OF = np.array([10, 6, 4, 2], np.int64)


@dataclass(slots=True)
class _Block:
    """Consecutive trades, all integers: ns, symbol codes, ticks, lots."""

    time: IntArray
    symbol: IntArray
    middle: IntArray
    before: IntArray
    buys: npt.NDArray[np.bool_]
    lots: IntArray
    number: IntArray
    order: IntArray
    by_symbol: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    spare: IntArray
    fresh: IntArray  # codes that trade for the first time


class _Market:
    """The state that carries over from block to block, and the making of a block."""

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

    def block(self, count: int) -> _Block:
        """Make the next trades. Words are always drawn for a whole block, so that a shorter run is a prefix."""
        words = self._words.random_raw(2 * BLOCK_TRADES).reshape(2, BLOCK_TRADES)[:, :count]
        first, second = _Bits(words[0]), _Bits(words[1])
        time, symbol, regime = self._arrivals(first, count)
        by_symbol = np.argsort(symbol.astype(np.uint32), kind="stable")
        grouped = symbol[by_symbol]
        starts = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
        codes = grouped[starts]
        groups = _Groups(by_symbol, starts, codes)
        fresh = codes[self.number[codes] == 0]

        swept = np.concatenate([[False], time[1:] == time[:-1]])
        flips = (~swept & (second.take(6) < 26)).astype(np.int64)
        side = groups.running_sum(flips, self._side) & 1
        moves = np.where(second.take(4) < 6, _heavy(1)[second.take(_TABLE_BITS)] * _MOVE_OF[regime], 0)
        ticks = (moves * self._step[symbol]) >> (_FRACTION_BITS + 2)
        # Buying drives prices up a little more often than not.
        upward = (second.take(6) < 36) == (side == 1)
        walk = groups.running_sum(np.where(upward, ticks, -ticks), self._walk)
        middle = self._reflected(walk, symbol)
        before = groups.shifted(middle, self.middle)
        number = groups.running_sum(np.ones(count, np.int64), self.number)
        lots = 1 + ((_heavy(2)[second.take(_TABLE_BITS)] * self._lot_scale(symbol)) >> _FRACTION_BITS)
        order = (np.arange(self._made, self._made + count, dtype=np.int64) + 1) * 4
        self._made += count
        return _Block(
            time, symbol, middle, before, side == 1, lots, number, order, by_symbol, starts, first.rest,
            fresh,
        )  # fmt: skip

    def _arrivals(self, bits: _Bits, count: int) -> tuple[IntArray, IntArray, IntArray]:
        kind, waiting = bits.take(6), _exponential()[bits.take(_TABLE_BITS)]
        burst = kind >= 52  # a new burst: a long wait, perhaps another symbol; below 36 the same moment
        regime = _held(bits.take(2), burst & (bits.take(6) == 0), self._regime)
        drawn = bits.take(12)
        symbol = _held((drawn * drawn * len(self.names)) >> 24, burst, self._symbol)
        self._regime, self._symbol = int(regime[-1]), int(symbol[-1])
        scale = np.where(burst, 5 * self._gap_ns * _GAP_OF[regime] // 4, np.where(kind < 36, 0, self._gap_ns // 20))
        gaps = ((waiting >> 4) * (scale // 1_000)) >> (_FRACTION_BITS - 4)
        time = self._time + np.cumsum(gaps * 1_000)
        self._time = int(time[-1])
        return time, symbol, regime

    def _lot_scale(self, symbol: IntArray) -> IntArray:
        """Lots that make a typical trade worth some hundreds of the quote currency."""
        scale = np.array([10**d for d in range(12)], np.int64)[self.decimals]
        return np.maximum(300 * 10**_SIZE_DECIMALS * scale // self._home, 1)[symbol]

    def _reflected(self, walk: IntArray, symbol: IntArray) -> IntArray:
        """A free walk folded into a quarter to four times the first price, so that it stays a price."""
        span = self._span[symbol]
        inside = np.mod(walk, 2 * span)
        return self._low[symbol] + np.where(inside < span, inside, 2 * span - inside)


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


def _held(values: IntArray, change: npt.NDArray[np.bool_], before: int) -> IntArray:
    """Each value from where `change` is set until the next such place."""
    at = np.maximum.accumulate(np.where(change, np.arange(1, len(values) + 1), 0))
    return np.concatenate([[before], values])[at]


@dataclass(slots=True)
class _Groups:
    """Rows of a block gathered by symbol: running values for each symbol, carried in and out of its state."""

    by_symbol: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    codes: IntArray

    def running_sum(self, values: IntArray, state: IntArray) -> IntArray:
        """`state` plus the sum up to each row, its symbol's rows only; `state` moves on."""
        total = np.cumsum(values[self.by_symbol])
        at_start = np.concatenate([[0], total[self.starts[1:] - 1]])
        lengths = np.diff(np.append(self.starts, len(values)))
        running = total + np.repeat(state[self.codes] - at_start, lengths)
        state[self.codes] = running[np.append(self.starts[1:], len(values)) - 1]
        out = np.empty_like(running)
        out[self.by_symbol] = running
        return out

    def shifted(self, values: IntArray, state: IntArray) -> IntArray:
        """Each row's value of the row before of its symbol; `state` takes the last ones."""
        ordered = values[self.by_symbol]
        previous = np.concatenate([[0], ordered[:-1]])
        previous[self.starts] = state[self.codes]
        state[self.codes] = ordered[np.append(self.starts[1:], len(values)) - 1]
        out = np.empty_like(previous)
        out[self.by_symbol] = previous
        return out


def _instrument(symbol: str) -> tuple[int, int]:
    """First price in ticks, and decimals of the tick; from the name alone."""
    known = {"BTCUSDT": (6_000_000, 2), "ETHUSDT": (250_000, 2), "SOLUSDT": (15_000, 2), "XRPUSDT": (55_000, 5)}
    if symbol in known:
        return known[symbol]
    word = int.from_bytes(hashlib.sha256(symbol.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return 5_000 + word % 995_000, 2 + (word >> 32) % 4


_TEN_TO = np.array([10.0**d for d in range(16)])  # exact in float64


def _price(ticks: IntArray, decimals: IntArray) -> npt.NDArray[np.float64]:
    return ticks.astype(np.float64) / _TEN_TO[decimals]


def _size(lots: IntArray) -> npt.NDArray[np.float64]:
    return lots.astype(np.float64) / _TEN_TO[_SIZE_DECIMALS]


def _word(flags: npt.NDArray[np.bool_], true: str, false: str, vocabulary: list[str]) -> pl.Series:
    chosen = np.where(flags, vocabulary.index(true), vocabulary.index(false)).astype(np.uint8)
    return pl.Series(vocabulary, dtype=pl.Enum(vocabulary)).gather(chosen)


def _trade_frame(market: _Market, block: _Block) -> pl.DataFrame:
    # A buy takes the best ask, one tick above the middle before the trade moves it.
    ticks = block.before + np.where(block.buys, 1, -1)
    return pl.DataFrame({
        "symbol": market.names.gather(block.symbol),
        "price": _price(ticks, market.decimals[block.symbol]),
        "volume": _size(block.lots),
        "side": _word(block.buys, "buy", "sell", ["buy", "sell"]),
        "trade_id": block.number,
        "timestamp": pl.Series(block.time).cast(UTC_NS),
    })  # fmt: skip


def _book_frame(market: _Market, block: _Block) -> tuple[pl.DataFrame, IntArray]:
    """One update a trade: where the middle moves by d, min(d, DEPTH) levels come and go on each side; else one changes."""
    moved = block.middle - block.before
    levels = np.minimum(np.abs(moved), DEPTH)
    lengths = np.where(levels == 0, 1, 4 * levels)
    row = np.repeat(np.arange(len(moved)), lengths)
    within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    levels_of = np.maximum(levels, 1)[row]
    group, step = within // levels_of, within % levels_of
    up, old, new = moved[row] > 0, block.before[row], block.middle[row]
    still = moved[row] == 0
    spare = block.spare[row]
    # Groups: 0 levels swept away next to the old middle, 1 new ones next to the new middle on the other side,
    # 2 new far ones ahead, 3 old far ones behind. `toward` points the way the price goes.
    toward = np.where(up, 1, -1)
    tick = np.select(
        [still, group == 0, group == 1, group == 2],
        [
            old + np.where(spare & 1, 1, -1) * (1 + (spare >> 1) % DEPTH),
            old + toward * (1 + step),
            new - toward * (1 + step),
            new + toward * (DEPTH - step),
        ],
        old - toward * (DEPTH - step),
    )
    ask = np.where(still, (spare & 1) == 1, ((group == 0) | (group == 2)) == up)
    gone = ~still & ((group == 0) | (group == 3))
    lots = np.where(gone, 0, 1 + (block.lots[row] * 7 + spare + 31 * step + 101 * group) % 500_000)

    snapshot = _snapshot_rows(market, block)
    update = 1 + block.number[row]  # the snapshot is update one
    order = np.concatenate([snapshot.order, block.order[row] + 1])
    place = np.argsort(order, kind="stable") if len(snapshot.order) else np.arange(len(order))
    code = np.concatenate([snapshot.code, block.symbol[row]])[place]
    updates = np.concatenate([np.ones(len(snapshot.code), np.int64), update])[place]
    frame = pl.DataFrame({
        "symbol": market.names.gather(code),
        "side": _word(np.concatenate([snapshot.ask, ask])[place], "ask", "bid", ["bid", "ask"]),
        "price": _price(np.concatenate([snapshot.tick, tick])[place], market.decimals[code]),
        "size": _size(np.concatenate([snapshot.lots, lots])[place]),
        "snapshot": np.concatenate([np.ones(len(snapshot.code), bool), np.zeros(len(row), bool)])[place],
        "first_update_id": updates,
        "update_id": updates,
        "timestamp": pl.Series(np.concatenate([snapshot.time, block.time[row]])[place]).cast(UTC_NS),
    })  # fmt: skip
    return frame, order[place]


@dataclass(slots=True)
class _SnapshotRows:
    order: IntArray
    code: IntArray
    tick: IntArray
    lots: IntArray
    time: IntArray
    ask: npt.NDArray[np.bool_]


def _snapshot_rows(market: _Market, block: _Block) -> _SnapshotRows:
    """Ten levels a side for each symbol that trades for the first time, right before its first trade."""
    codes = block.symbol[block.by_symbol][block.starts]
    at = block.by_symbol[block.starts][np.isin(codes, block.fresh)]
    row = np.repeat(at, 2 * DEPTH)
    level = np.tile(np.arange(2 * DEPTH), len(at))
    ask = level >= DEPTH
    away = 1 + level % DEPTH
    return _SnapshotRows(
        block.order[row] - 1, block.symbol[row], block.before[row] + np.where(ask, away, -away),
        1 + (block.spare[row] + 7_919 * level) % 500_000, block.time[row], ask,
    )  # fmt: skip


class _Bars:
    """Bars in the making: one open bar a symbol, everything in integers."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._open: dict[int, tuple[int, int, int, int, int, int]] = {}  # code: bucket, open, high, low, close, lots

    def see(self, market: _Market, block: _Block) -> tuple[pl.DataFrame, IntArray]:
        """Return the bars that ended at or before the block's last trade."""
        at = block.by_symbol
        code, bucket = block.symbol[at], block.time[at] // self._interval
        tick = (block.before + np.where(block.buys, 1, -1))[at]
        starts = np.flatnonzero(np.concatenate([[True], (code[1:] != code[:-1]) | (bucket[1:] != bucket[:-1])]))
        stops = np.append(starts[1:], len(at)) - 1
        pieces = zip(
            code[starts].tolist(), bucket[starts].tolist(), tick[starts].tolist(),
            np.maximum.reduceat(tick, starts).tolist(), np.minimum.reduceat(tick, starts).tolist(),
            tick[stops].tolist(), np.add.reduceat(block.lots[at], starts).tolist(), strict=True,
        )  # fmt: skip
        closed: list[tuple[int, ...]] = []
        for symbol, slot, first, high, low, last, lots in pieces:  # a step a bar, not a trade
            now = self._open.get(symbol)
            if now is not None and now[0] == slot:
                self._open[symbol] = (slot, now[1], max(now[2], high), min(now[3], low), last, now[5] + lots)
                continue
            if now is not None:
                closed.append((symbol, *now))
            self._open[symbol] = (slot, first, high, low, last, lots)
        present = int(block.time[-1]) // self._interval
        overdue = [symbol for symbol, now in self._open.items() if now[0] < present]
        closed += [(symbol, *self._open.pop(symbol)) for symbol in overdue]
        return self._frame(market, block, closed)

    def rest(self, market: _Market, block: _Block) -> tuple[pl.DataFrame, IntArray]:
        """Return the bars still open."""
        closed = [(symbol, *now) for symbol, now in self._open.items()]
        self._open = {}
        return self._frame(market, block, closed)

    def _frame(self, market: _Market, block: _Block, closed: list[tuple[int, ...]]) -> tuple[pl.DataFrame, IntArray]:
        rows = np.array(sorted(closed, key=lambda bar: (bar[1], bar[0])), np.int64).reshape(-1, 7)
        code, bucket = rows[:, 0], rows[:, 1]
        end = (bucket + 1) * self._interval
        decimals = market.decimals[code]
        frame = pl.DataFrame({
            "symbol": market.names.gather(code),
            **{name: _price(rows[:, 2 + at], decimals) for at, name in enumerate(("open", "high", "low", "close"))},
            "volume": _size(rows[:, 6]),
            "timestamp": pl.Series(end).cast(UTC_NS),
        })  # fmt: skip
        before = np.searchsorted(block.time, end, side="left")  # the first trade that is not in the bar
        return frame, int(block.order[0]) + 4 * before.astype(np.int64) - 2
