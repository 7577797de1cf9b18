"""Captures of Binance's websocket streams: lines of capture time in ns, a space, and the message."""

from __future__ import annotations

import os
from collections.abc import Iterator

import polars as pl

from eventlab.errors import FeedError
from eventlab.events.builtin import BookChange, MarketData, Quote
from eventlab.feeds.api import Chunk, Clock
from eventlab.feeds.reading.capture import CaptureFeed, levels
from eventlab.feeds.reading.csv_table import Piece, TimeColumn, TimeUnit
from eventlab.feeds.reading.file_feed import UTC_NS, GapDetector, Tally, non_empty, symbol_rows

_SIDE = pl.Enum(["buy", "sell"])
_PAIRS = pl.List(pl.List(pl.String()))
# Binance's names of fields have one letter.
_TRADE = {**dict.fromkeys("spq", pl.String()), **dict.fromkeys("tT", pl.Int64()), "m": pl.Boolean()}
_DEPTH = {"s": pl.String(), **dict.fromkeys(("E", "T", "U", "u", "pu"), pl.Int64()), **dict.fromkeys("ba", _PAIRS)}
_TICKER = {**dict.fromkeys("sbBaA", pl.String()), **dict.fromkeys("ETu", pl.Int64())}
_MS_OR_US: tuple[TimeUnit, ...] = ("ms", "us")


def binance_capture(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "{kind}/{symbol}"
) -> CaptureFeed:
    """Trades, best bids and asks and book changes of a raw Binance websocket capture, as captured.

    Parameters
    ----------
    path : path
        Plain, gzip or zip. A line is ``<local ns> <message>``; a message comes from a combined stream
        (``{"stream": ..., "data": ...}``) or from a single one.
    symbol : str, optional
        Only this symbol.
    aggregate_id : str
        A template over ``{symbol}`` and ``{kind}``, which is market, quote or book.

    Returns
    -------
    Feed
        ``trade`` as MarketData at trade time, ``depthUpdate`` as BookChange at transaction time (spot: event time),
        ``bookTicker`` as Quote at transaction time (spot: capture time). Other messages are dropped and counted. Book
        changes are differences: without an earlier snapshot the book starts empty. Reports gaps in trade ids and
        between depth updates.

    Raises
    ------
    FeedError
        At once for a missing file or an invalid template; while reading, for invalid content. Rows are lines.
    """
    return _BinanceCapture("binance_capture", path, symbol, aggregate_id)


class _BinanceCapture(CaptureFeed):
    def _read(self, tally: Tally) -> Iterator[Chunk]:
        reader = _MessageDecoder(self, tally)
        for lines, done in self._lines(tally):
            messages = self._messages(lines, tally)
            batches = [
                self.batch(of, kind, frame, clock)
                for of, kind, (frame, clock) in (
                    (MarketData, "market", reader.trades(messages.filter(pl.col("kind") == "trade"))),
                    (Quote, "quote", reader.quotes(messages.filter(pl.col("kind") == "bookTicker"))),
                    (BookChange, "book", reader.changes(messages.filter(pl.col("kind") == "depthUpdate"))),
                )
            ]
            yield Chunk(non_empty(*batches), done)

    def _messages(self, lines: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        """`row`, `received_at`, `kind` and `text` of each message, wrapped in ``{"data": ...}``."""
        split = lines.with_columns(pl.col("line").str.splitn(" ", 2).struct.rename_fields(["local", "text"])).unnest(
            "line"
        )
        split = split.with_columns(pl.col("local").cast(pl.Int64, strict=False).alias("received_at"))
        self.refuse(split, pl.col("received_at").is_null(), "local", "not a capture time", "integer nanoseconds")
        self.refuse(split, pl.col("text").is_null(), "text", "no message after the capture time", "<local ns> <JSON>")
        local = TimeColumn("received_at", ("ns",))
        local.ns(Piece(split.select("received_at"), int(split["row"][0]), 0, self._file.name))
        text = pl.col("text")
        event = text.str.extract(r'"e"\s*:\s*"(\w+)"', 1)
        ticker = text.str.contains(r'"B"\s*:') & text.str.contains(r'"A"\s*:') & text.str.contains(r'"u"\s*:')
        split = split.with_columns(
            kind=event.fill_null(pl.when(ticker).then(pl.lit("bookTicker"))),
            text=pl.when(text.str.contains(r'^\s*\{\s*"stream"\s*:')).then(text)
            .otherwise(pl.concat_str([pl.lit('{"data":'), text, pl.lit("}")])),
        )  # fmt: skip
        others = self.count_other_kinds(split, ["trade", "bookTicker", "depthUpdate"], tally)
        if len(others):
            self.decode(others.select("row", "received_at", "text"), pl.Struct({"stream": pl.String()}), "JSON")
        return split.drop("local")


class _MessageDecoder:
    """Converts messages to events; remembers time units and ids from block to block."""

    def __init__(self, feed: _BinanceCapture, tally: Tally) -> None:
        self._feed, self._tally = feed, tally
        self._trade_times, self._depth_times = TimeColumn("timestamp", _MS_OR_US), TimeColumn("timestamp", _MS_OR_US)
        self._quote_times = TimeColumn("timestamp", _MS_OR_US)
        self._trade_ids = GapDetector(tally)
        self._quote_clock: Clock | None = None
        self._updates: dict[str, int] = {}

    def trades(self, messages: pl.DataFrame) -> tuple[pl.DataFrame, Clock]:
        frame = self._decoded(messages, _TRADE, "trade")
        self._feed.required(frame, "symbol", "t", "T", "m")
        frame = self._feed.amounts(frame, "p", "q")
        for symbol, at in symbol_rows(frame["symbol"]):
            self._trade_ids.see(symbol, frame["t"].to_numpy()[at], frame["row"].to_numpy()[at])
        frame = self._at(frame, pl.col("T"), self._trade_times)
        side = pl.when("m").then(pl.lit("sell", _SIDE)).otherwise(pl.lit("buy", _SIDE)).alias("side")
        return frame.select(
            "row", "symbol", pl.col("p").alias("price"), pl.col("q").alias("volume"), side,
            pl.col("t").alias("trade_id"), pl.col("timestamp", "received_at").cast(UTC_NS),
        ), "exchange"  # fmt: skip

    def quotes(self, messages: pl.DataFrame) -> tuple[pl.DataFrame, Clock]:
        frame = self._decoded(messages, _TICKER, "bookTicker")
        self._feed.required(frame, "symbol", "u")
        frame = self._feed.amounts(frame, "b", "B", "a", "A")
        time = pl.coalesce("T", "E")
        if self._quote_clock is None and len(frame):
            self._quote_clock = "exchange" if frame.select(time.is_not_null()).item(0, 0) else "capture"
        clock = self._quote_clock or "capture"
        wrong = time.is_null() if clock == "exchange" else time.is_not_null()
        self._feed.refuse(frame, wrong, "u", "only some quotes have exchange times", f"the {clock} clock, as before")
        if clock == "capture":
            frame = frame.with_columns(pl.col("received_at").alias("timestamp"))
        else:
            frame = self._at(frame, time, self._quote_times)
        return frame.select(
            "row", "symbol", pl.col("b").alias("bid_price"), pl.col("B").alias("bid_size"),
            pl.col("a").alias("ask_price"), pl.col("A").alias("ask_size"), pl.col("u").alias("update_id"),
            pl.col("timestamp", "received_at").cast(UTC_NS),
        ), clock  # fmt: skip

    def changes(self, messages: pl.DataFrame) -> tuple[pl.DataFrame, Clock]:
        frame = self._decoded(messages, _DEPTH, "depthUpdate")
        self._feed.required(frame, "symbol", "E", "U", "u", "b", "a")
        self._watch(frame)
        frame = self._at(frame, pl.coalesce("T", "E"), self._depth_times)
        frame = levels(frame, {"b": "bid", "a": "ask"}, ["row", "symbol", "U", "u", "timestamp", "received_at"])
        frame = self._feed.amounts(frame, "price", "size")
        return frame.select(
            "row", "symbol", "side", "price", "size", pl.lit(value=False).alias("snapshot"),
            pl.col("U").alias("first_update_id"), pl.col("u").alias("update_id"),
            pl.col("timestamp", "received_at").cast(UTC_NS),
        ), "exchange"  # fmt: skip

    def _decoded(self, messages: pl.DataFrame, fields: dict[str, pl.DataType], what: str) -> pl.DataFrame:
        shape = pl.Struct({"data": pl.Struct(fields)})
        frame = self._feed.decode(messages, shape, what).unnest("data").rename({"s": "symbol"})
        return self._feed.only_symbol(frame, self._tally)

    def _at(self, frame: pl.DataFrame, time: pl.Expr, column: TimeColumn) -> pl.DataFrame:
        frame = frame.with_columns(time.alias("timestamp"))
        if not len(frame):
            return frame
        # Rows of one kind are not consecutive lines, so `refuse` finds the line of an error.
        try:
            ns = column.ns(Piece(frame.select("timestamp"), 1, 0, self._feed.source))
        except FeedError:
            outside = ~pl.col("timestamp").is_between(*column.bounds)
            self._feed.refuse(frame, outside, "timestamp", "not a time in the capture's unit", "ms or µs, 2009 to 2099")
            raise
        return frame.with_columns(ns.alias("timestamp"))

    def _watch(self, frame: pl.DataFrame) -> None:
        """Record gaps. Spot: an update starts one past the last one's end. Futures: `pu` is the last one's end."""
        for symbol, at in symbol_rows(frame["symbol"]):
            part = frame[at].select("row", "u", first=pl.coalesce(pl.col("pu") + 1, "U"))
            first, rows = part["first"].to_numpy(), part["row"].to_numpy()
            previous = part["u"].shift(1, fill_value=self._updates.get(symbol, int(first[0]) - 1)).to_numpy()
            self._tally.gap((first != previous + 1).nonzero()[0], rows, previous, first, symbol)
            self._updates[symbol] = int(part["u"][-1])
