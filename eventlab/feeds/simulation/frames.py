"""Simulated trades, books and bars as frames. One division by a power of ten makes correctly rounded floats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.feeds.reading.file_feed import UTC_NS, IntArray, flags_as_enum
from eventlab.feeds.simulation.market import SIZE_DECIMALS, SimulatedMarket, TradeBlock

DEPTH = 10
"""Price levels on each side of a book."""

_TEN_TO = np.array([10.0**d for d in range(16)])  # exact in float64


def _price(ticks: IntArray, decimals: IntArray) -> npt.NDArray[np.float64]:
    price: npt.NDArray[np.float64] = ticks.astype(np.float64) / _TEN_TO[decimals]
    return price


def _size(lots: IntArray) -> npt.NDArray[np.float64]:
    size: npt.NDArray[np.float64] = lots.astype(np.float64) / _TEN_TO[SIZE_DECIMALS]
    return size


def trade_frame(market: SimulatedMarket, block: TradeBlock) -> pl.DataFrame:
    """Trades: a buy takes the best ask, one tick above the middle before the trade moves it."""
    ticks = block.before + np.where(block.buys, 1, -1)
    return pl.DataFrame({
        "symbol": market.names.gather(block.symbol),
        "price": _price(ticks, market.decimals[block.symbol]),
        "volume": _size(block.lots),
        "side": flags_as_enum(pl.Series(block.buys), "buy", "sell", ("buy", "sell")),
        "trade_id": block.number,
        "timestamp": pl.Series(block.time).cast(UTC_NS),
    })  # fmt: skip


def book_frame(market: SimulatedMarket, block: TradeBlock) -> tuple[pl.DataFrame, IntArray]:
    """One update per trade. If the middle moves by d, min(d, DEPTH) levels change on each side; otherwise one level."""
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
    # Groups: 0 deletes levels next to the old middle, 1 adds levels next to the new middle on the other side,
    # 2 adds far levels ahead, 3 deletes far levels behind. `toward` is the direction of the price.
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

    snapshot = _snapshot_rows(block)
    update = 1 + block.number[row]  # the snapshot is update one
    order = np.concatenate([snapshot.order, block.order[row] + 1])
    place = np.argsort(order, kind="stable") if len(snapshot.order) else np.arange(len(order))
    code = np.concatenate([snapshot.code, block.symbol[row]])[place]
    updates = np.concatenate([np.ones(len(snapshot.code), np.int64), update])[place]
    frame = pl.DataFrame({
        "symbol": market.names.gather(code),
        "side": flags_as_enum(pl.Series(np.concatenate([snapshot.ask, ask])[place]), "ask", "bid", ("bid", "ask")),
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


def _snapshot_rows(block: TradeBlock) -> _SnapshotRows:
    """Ten levels per side for each symbol, right before its first trade."""
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


class BarBuilder:
    """Builds bars in integers, with one open bar per symbol."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._open: dict[int, tuple[int, int, int, int, int, int]] = {}  # code: bucket, open, high, low, close, lots

    def see(self, market: SimulatedMarket, block: TradeBlock) -> tuple[pl.DataFrame, IntArray]:
        """Add a block; returns the bars that end at or before its last trade."""
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
        for symbol, slot, first, high, low, last, lots in pieces:  # one step per bar, not per trade
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

    def rest(self, market: SimulatedMarket, block: TradeBlock) -> tuple[pl.DataFrame, IntArray]:
        """Close and return the open bars."""
        closed = [(symbol, *now) for symbol, now in self._open.items()]
        self._open = {}
        return self._frame(market, block, closed)

    def _frame(
        self, market: SimulatedMarket, block: TradeBlock, closed: Iterable[tuple[int, ...]]
    ) -> tuple[pl.DataFrame, IntArray]:
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
