"""Simulated trades, books and bars as frames. One division by a power of ten makes correctly rounded floats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.feeds.reading.file_feed import UTC_NS, IntArray, flags_as_enum
from eventlab.feeds.simulation.market import SIZE_DECIMALS, SimulatedMarket, TradeBlock

DEPTH = 10
"""Price levels on each side of a book."""

_TEN_TO = np.array([10.0**d for d in range(16)])  # exact in float64


def _decimals(integers: IntArray, decimals: IntArray | int) -> npt.NDArray[np.float64]:
    """Ticks as prices, or lots as sizes."""
    numbers: npt.NDArray[np.float64] = integers.astype(np.float64) / _TEN_TO[decimals]
    return numbers


def trade_frame(market: SimulatedMarket, block: TradeBlock) -> pl.DataFrame:
    """Trades: a buy takes the best ask, one tick above the middle before the trade moves it."""
    ticks = block.before + np.where(block.buys, 1, -1)
    return pl.DataFrame({
        "symbol": market.names.gather(block.symbol),
        "price": _decimals(ticks, market.decimals[block.symbol]),
        "volume": _decimals(block.lots, SIZE_DECIMALS),
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

    changes = pl.DataFrame({
        "order": block.order[row] + 1, "symbol": block.symbol[row], "tick": tick, "lots": lots, "ask": ask,
        "snapshot": False, "update_id": 1 + block.number[row],  # the snapshot is update one
        "time": block.time[row],
    })  # fmt: skip
    first = _snapshot_rows(block)
    rows = pl.concat([first, changes]).sort("order", maintain_order=True) if len(first) else changes
    code = rows["symbol"].to_numpy()
    frame = pl.DataFrame({
        "symbol": market.names.gather(code),
        "side": flags_as_enum(rows["ask"], "ask", "bid", ("bid", "ask")),
        "price": _decimals(rows["tick"].to_numpy(), market.decimals[code]),
        "size": _decimals(rows["lots"].to_numpy(), SIZE_DECIMALS),
        "snapshot": rows["snapshot"],
        "first_update_id": rows["update_id"],
        "update_id": rows["update_id"],
        "timestamp": rows["time"].cast(UTC_NS),
    })  # fmt: skip
    return frame, rows["order"].to_numpy()


def _snapshot_rows(block: TradeBlock) -> pl.DataFrame:
    """Ten levels per side for each symbol, right before its first trade."""
    at = np.flatnonzero(block.number == 1)
    row = np.repeat(at, 2 * DEPTH)
    level = np.tile(np.arange(2 * DEPTH), len(at))
    ask = level >= DEPTH
    away = 1 + level % DEPTH
    return pl.DataFrame({
        "order": block.order[row] - 1, "symbol": block.symbol[row],
        "tick": block.before[row] + np.where(ask, away, -away),
        "lots": 1 + (block.spare[row] + 7_919 * level) % 500_000, "ask": ask,
        "snapshot": True, "update_id": np.int64(1), "time": block.time[row],
    })  # fmt: skip


class BarBuilder:
    """Builds bars in integers, and keeps those that are still open."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        columns = ("symbol", "bucket", "open", "high", "low", "close", "lots")
        self._open = pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64()))

    def see(self, market: SimulatedMarket, block: TradeBlock) -> tuple[pl.DataFrame, IntArray]:
        """Add a block; returns the bars that end at or before its last trade."""
        tick = block.before + np.where(block.buys, 1, -1)
        trades = pl.DataFrame({
            "symbol": block.symbol, "bucket": block.time // self._interval, "open": tick, "high": tick, "low": tick,
            "close": tick, "lots": block.lots,
        })  # fmt: skip
        bars = pl.concat([self._open, trades]).group_by("symbol", "bucket").agg(
            pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
            pl.col("lots").sum(),
        )  # fmt: skip
        closed = pl.col("bucket") < int(block.time[-1]) // self._interval
        self._open = bars.filter(~closed)
        return self._frame(market, block, bars.filter(closed))

    def rest(self, market: SimulatedMarket, block: TradeBlock) -> tuple[pl.DataFrame, IntArray]:
        """The open bars."""
        return self._frame(market, block, self._open)

    def _frame(self, market: SimulatedMarket, block: TradeBlock, closed: pl.DataFrame) -> tuple[pl.DataFrame, IntArray]:
        bars = closed.sort("bucket", "symbol")
        code = bars["symbol"].to_numpy()
        end = (bars["bucket"].to_numpy() + 1) * self._interval
        decimals = market.decimals[code]
        frame = pl.DataFrame({
            "symbol": market.names.gather(code),
            **{name: _decimals(bars[name].to_numpy(), decimals) for name in ("open", "high", "low", "close")},
            "volume": _decimals(bars["lots"].to_numpy(), SIZE_DECIMALS),
            "timestamp": pl.Series(end).cast(UTC_NS),
        })  # fmt: skip
        before = np.searchsorted(block.time, end, side="left")  # the first trade that is not in the bar
        return frame, int(block.order[0]) + 4 * before.astype(np.int64) - 2
