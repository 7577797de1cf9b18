"""Binance's public archives (data.binance.vision): trades, aggregated trades and klines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import polars as pl

from eventlab.events.aggregate_ids import Template
from eventlab.events.builtin import Bar, MarketData
from eventlab.events.types import event_type
from eventlab.feeds.api import Chunk, FeedBatch
from eventlab.feeds.reading.csv_table import Column, CsvTable, Piece, TimeColumn, TimeUnit, refuse_cell
from eventlab.feeds.reading.file_feed import (
    FileFeed,
    GapDetector,
    Tally,
    as_time,
    checked_symbol,
    flags_as_enum,
    non_empty,
)

_TRADES = (
    Column("id", "int", ("trade_id",)),
    Column("price", "amount"),
    Column("qty", "amount", ("quantity",)),
    Column("quote_qty", "amount", ("quoteqty", "base_qty", "baseqty")),
    Column("time", "int", ("timestamp",)),
    Column("is_buyer_maker", "flag", ("isbuyermaker",)),
    Column("is_best_match", "flag", ("isbestmatch",), optional=True),
    Column("local_ts_ns", "int", optional=True),
)
_AGG_TRADES = (
    Column("agg_trade_id", "int", ("agg_id", "id", "a")),
    Column("price", "amount", ("p",)),
    Column("quantity", "amount", ("qty", "q")),
    Column("first_trade_id", "int", ("first_id", "f")),
    Column("last_trade_id", "int", ("last_id", "l")),
    Column("transact_time", "int", ("time", "timestamp", "t")),
    Column("is_buyer_maker", "flag", ("m",)),
    Column("is_best_match", "flag", ("best_match",), optional=True),
)
_KLINES = (
    Column("open_time", "int"),
    Column("open", "amount"),
    Column("high", "amount"),
    Column("low", "amount"),
    Column("close", "amount"),
    Column("volume", "amount"),
    Column("close_time", "int"),
    Column("quote_volume", "amount", ("quote_asset_volume", "base_asset_volume"), optional=True),
    Column("count", "int", ("number_of_trades", "trades"), optional=True),
    Column("taker_buy_volume", "amount", ("taker_buy_base_volume", "taker_buy_base_asset_volume"), optional=True),
    Column("taker_buy_quote_volume", "amount", ("taker_buy_quote_asset_volume", "taker_buy_base"), optional=True),
    Column("ignore", "text", optional=True, nullable=True),
)
_MS_OR_US: tuple[TimeUnit, ...] = ("ms", "us")
_SIDES = ("buy", "sell")


def binance_trades(path: str | os.PathLike[str], symbol: str, *, aggregate_id: str = "market/{symbol}") -> FileFeed:
    r"""Trades of Binance's public archive, as MarketData.

    Parameters
    ----------
    path : path
        CSV, plain, gzip or zip, with or without header: ``id, price, qty, quote_qty, time, is_buyer_maker
        [, is_best_match]``, optionally ``local_ts_ns``, the capture time, which becomes `received_at`. Times are
        milliseconds or microseconds (spot archives since 2025); their magnitude decides.
    symbol : str
        The file does not have it.
    aggregate_id : str
        A template over ``{symbol}``.

    Returns
    -------
    Feed
        `side` is the taker's: sell if the buyer was the maker. Reports gaps in trade ids.

    Raises
    ------
    FeedError
        At once for a missing file or an invalid template; while reading, for invalid content: names file, row, column
        and value.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "BTCUSDT-trades.csv"
    >>> _ = file.write_text("7,61837.63,0.02,1236.75,1723161255342,true\n")
    >>> chunk, = binance_trades(file, symbol="BTCUSDT").chunks()
    >>> chunk.batches[0].frame.select("price", "side", "trade_id").row(0)
    (61837.63, 'sell', 7)
    """
    return _ArchiveTrades("binance_trades", path, symbol, aggregate_id, _TRADES)


def binance_agg_trades(path: str | os.PathLike[str], symbol: str, *, aggregate_id: str = "market/{symbol}") -> FileFeed:
    """Aggregated trades of Binance's public archive, as MarketData; `trade_id` is the aggregate trade's id.

    Columns ``agg_trade_id, price, quantity, first_trade_id, last_trade_id, transact_time, is_buyer_maker
    [, is_best_match]``; everything else as in :func:`binance_trades`.
    """
    return _ArchiveTrades("binance_agg_trades", path, symbol, aggregate_id, _AGG_TRADES)


def binance_klines(path: str | os.PathLike[str], symbol: str, *, aggregate_id: str = "bar/{symbol}") -> FileFeed:
    """Klines of Binance's public archive, as Bar.

    Columns ``open_time, open, high, low, close, volume, close_time, ...``; everything else as in
    :func:`binance_trades`. A bar's event time is the end of its interval, one unit after `close_time`.
    """
    return _ArchiveKlines("binance_klines", path, symbol, aggregate_id, _KLINES)


class _OneSymbolArchive(FileFeed):
    """A file of one symbol, which the caller names."""

    def __init__(
        self, name: str, path: str | os.PathLike[str], symbol: str, aggregate_id: str, layout: tuple[Column, ...]
    ) -> None:
        self._named, self._layout = checked_symbol(symbol), layout
        super().__init__(name, path, symbol, Template.parse(aggregate_id))

    def _pieces(self, tally: Tally) -> Iterator[Piece]:
        for piece in CsvTable(self._file, self._layout, headless=True).pieces():
            tally.rows += len(piece.frame)
            yield piece

    def _chunk(self, of: type, piece: Piece, *columns: pl.Series) -> Chunk:
        symbol = pl.repeat(self._named, len(piece.frame), eager=True).alias("symbol")
        return Chunk(non_empty(FeedBatch(event_type(of), pl.DataFrame([symbol, *columns]), self._template)), piece.done)


class _ArchiveTrades(_OneSymbolArchive):
    def _read(self, tally: Tally) -> Iterator[Chunk]:
        id_, volume, time = (
            ("id", "qty", "time") if self._layout is _TRADES else ("agg_trade_id", "quantity", "transact_time")
        )
        times, captured, watch = TimeColumn(time, _MS_OR_US), TimeColumn("local_ts_ns", ("ns",)), GapDetector(tally)
        for piece in self._pieces(tally):
            raw = piece.frame
            side = flags_as_enum(raw["is_buyer_maker"], "sell", "buy", _SIDES).alias("side")
            columns = [
                raw["price"], raw[volume].alias("volume"), side, raw[id_].alias("trade_id"),
                as_time(times.ns(piece), "timestamp"),
            ]  # fmt: skip
            if "local_ts_ns" in raw.columns:
                columns.append(as_time(captured.ns(piece), "received_at"))
            watch.see(self._named, raw[id_].to_numpy(), piece.rows)
            yield self._chunk(MarketData, piece, *columns)


class _ArchiveKlines(_OneSymbolArchive):
    def _read(self, tally: Tally) -> Iterator[Chunk]:
        opened, closed = TimeColumn("open_time", _MS_OR_US), TimeColumn("close_time", _MS_OR_US)
        for piece in self._pieces(tally):
            end = as_time(_interval_end(piece, opened, closed), "timestamp")
            yield self._chunk(Bar, piece, *piece.frame.select("open", "high", "low", "close", "volume"), end)


def _interval_end(piece: Piece, opened: TimeColumn, closed: TimeColumn) -> pl.Series:
    """The time after each `close_time`, in ns. Checks that both times have one unit and are in order."""
    start, last = opened.ns(piece), closed.ns(piece)
    if opened.unit != closed.unit:
        refuse_cell(
            piece.file, piece.first_row, "close_time", "other unit than open_time", piece.frame["close_time"][0],
            f"a time in {opened.unit}",
        )  # fmt: skip
    piece.refuse(last < start, "close_time", "before open_time", "the end of the interval")
    return last + closed.step
