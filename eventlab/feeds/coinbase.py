"""Captures of Coinbase's websocket feed in cryptofeed's format: ``<local seconds>: <message>``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import polars as pl

from eventlab.events.builtin import BookChange, MarketData
from eventlab.feeds.api import Chunk, Clock, FeedBatch
from eventlab.feeds.reading.capture import CaptureFeed, levels, split_cells
from eventlab.feeds.reading.csv_table import FIRST_S, STOP_S
from eventlab.feeds.reading.file_feed import UTC_NS, GapDetector, IntArray, Tally, non_empty, symbol_rows
from eventlab.feeds.reading.missing_times import MissingTimes

_TEXT = pl.String()
_PAIRS = pl.List(pl.List(_TEXT))
_MATCH = pl.Struct({
    "type": _TEXT, "product_id": _TEXT, "trade_id": pl.Int64(),
    "side": _TEXT, "price": _TEXT, "size": _TEXT, "time": _TEXT,
})  # fmt: skip
_LEVEL2 = pl.Struct(
    {"type": _TEXT, "product_id": _TEXT, "bids": _PAIRS, "asks": _PAIRS, "changes": _PAIRS, "time": _TEXT}
)
_TRADES, _BOOKS = ("match", "last_match"), ("snapshot", "l2update")
_FIRST_NS, _STOP_NS = FIRST_S * 10**9, STOP_S * 10**9


def coinbase_capture(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "{kind}/{symbol}"
) -> CaptureFeed:
    """Trades and book changes of a raw Coinbase websocket capture, as captured.

    Parameters
    ----------
    path : path
        Plain, gzip or zip, in cryptofeed's format: ``<local seconds>: <message>``. Lines about connections are dropped.
    symbol : str, optional
        Only this product, e.g. ``"BTC-USD"``.
    aggregate_id : str
        A template over ``{symbol}`` and ``{kind}``, which is market or book.

    Returns
    -------
    Feed
        ``match`` and ``last_match`` as MarketData; `side` is the taker's, the opposite of Coinbase's, which is the
        maker's. ``snapshot`` and ``l2update`` as BookChange; a snapshot has no time and takes the one before of its
        symbol, or at the start the next one. Other messages are dropped and counted by kind, also ``ticker``, which has
        no sizes, and a ``last_match`` that repeats a trade after a reconnect. Reports gaps in trade ids.

    Raises
    ------
    FeedError
        At once for a missing file or an invalid template; while reading, for invalid content. Rows are lines.
    """
    return _CoinbaseCapture("coinbase_capture", path, symbol, aggregate_id)


class _CoinbaseCapture(CaptureFeed):
    def _read(self, tally: Tally) -> Iterator[Chunk]:
        times, seen, watch = MissingTimes(self._timed), dict[str, int](), GapDetector(tally)
        done = 0
        for lines, done in self._lines(tally):
            messages = self._messages(lines, tally)
            trades = self._trades(messages, tally, seen, watch)
            yield self._chunk(trades, *times.fill(self._changes(messages, tally)), done)
        if times.pending is not None:
            yield self._chunk(None, *times.fill(times.pending, at_end=True), done)

    def _chunk(self, trades: pl.DataFrame | None, timed: pl.DataFrame, untimed: pl.DataFrame, done: int) -> Chunk:
        batches = [] if trades is None else [self._stamped(MarketData, "market", trades)]
        batches.append(self._stamped(BookChange, "book", timed))
        if len(untimed):
            batches.append(self._stamped(BookChange, "book", untimed, "capture"))
        return Chunk(non_empty(*batches), done)

    def _stamped(self, of: type, kind: str, frame: pl.DataFrame, clock: Clock | None = None) -> FeedBatch:
        return self.batch(of, kind, frame.with_columns(pl.col("timestamp", "received_at").cast(UTC_NS)), clock)

    def _messages(self, lines: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        """`row`, `received_at` (ns), `kind` and `text` of each message."""
        connection = pl.col("line").str.contains(r"^\w+://\S+ <-")
        tally.drop("connection lines", lines.select(connection.sum()).item())
        parts = pl.col("line").str.extract_groups(r"^(?<seconds>\d{1,10})(?:\.(?<part>\d{1,9}))?: (?<text>\{.*\})\s*$")
        split = lines.filter(~connection).select("row", "line", parts.alias("parts")).unnest("parts")
        self.refuse(split, pl.col("text").is_null(), "line", "neither a message nor a connection", "<seconds>: {...}")
        fraction = pl.col("part").fill_null("").str.pad_end(9, "0").cast(pl.Int64)
        local = pl.col("seconds").cast(pl.Int64) * 1_000_000_000 + fraction
        split = split.select(
            "row", local.alias("received_at"), "text", kind=pl.col("text").str.extract(r'"type"\s*:\s*"(\w+)"')
        )
        self.refuse(
            split, ~pl.col("received_at").is_between(_FIRST_NS, _STOP_NS), "received_at", "not a plausible time",
            "seconds, 2009 to 2099",
        )  # fmt: skip
        self.count_other_kinds(split, [*_TRADES, *_BOOKS], tally)
        return split

    def _decoded(self, messages: pl.DataFrame, kinds: tuple[str, ...], shape: pl.Struct, tally: Tally) -> pl.DataFrame:
        wanted = messages.filter(pl.col("kind").is_in(kinds))
        frame = self.decode(wanted, shape, " or ".join(kinds)).rename({"product_id": "symbol"})
        self.required(frame, "symbol")
        frame = self.only_symbol(frame, tally)
        # Coinbase writes a time in the year 1 for no time.
        text = pl.when(~pl.col("time").str.starts_with("0001-")).then("time")
        time = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ns", strict=False).to_physical()
        frame = frame.with_columns(time.alias("timestamp"), text.alias("time"))
        # Also checks the text, since Polars overflows silently on years outside the range of nanoseconds.
        plausible = pl.col("time").str.starts_with("20") & pl.col("timestamp").is_between(_FIRST_NS, _STOP_NS)
        wrong = pl.col("time").is_not_null() & ~plausible.fill_null(value=False)
        self.refuse(frame, wrong, "time", "not a plausible time", "ISO, UTC, 2009 to 2099")
        return frame.drop("time")

    def _trades(self, messages: pl.DataFrame, tally: Tally, seen: dict[str, int], watch: GapDetector) -> pl.DataFrame:
        frame = self._decoded(messages, _TRADES, _MATCH, tally)
        self.required(frame, "trade_id", "timestamp")
        self.check_sides(frame)
        frame = self.amounts(frame, "price", "size")
        repeated = np.zeros(len(frame), bool)
        ids, rows = frame["trade_id"].to_numpy(), frame["row"].to_numpy()
        last_match = (frame["type"] == "last_match").to_numpy()
        for symbol, at in symbol_rows(frame["symbol"]):
            repeated[at] = last_match[at] & (ids[at] <= _highest_before(ids[at], seen.get(symbol, -1)))
            seen[symbol] = max(seen.get(symbol, -1), int(ids[at].max()))
            fresh = at[~repeated[at]]
            watch.see(symbol, ids[fresh], rows[fresh])
        tally.drop("last_match of a trade already seen", int(repeated.sum()))
        taker = pl.col("side").replace_strict({"buy": "sell", "sell": "buy"}, return_dtype=pl.Enum(["buy", "sell"]))
        return frame.filter(~pl.Series(repeated)).select(
            "row", "symbol", "price", pl.col("size").alias("volume"), taker.alias("side"), "trade_id", "timestamp",
            "received_at",
        )  # fmt: skip

    def _changes(self, messages: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        frame = self._decoded(messages, _BOOKS, _LEVEL2, tally)
        complete = pl.when(pl.col("type") == "snapshot").then(
            pl.col("bids").is_not_null() & pl.col("asks").is_not_null()
        ).otherwise(pl.col("changes").is_not_null())  # fmt: skip
        self.refuse(frame, ~complete, "type", "message without levels", "bids and asks, or changes")
        columns = ["row", "symbol", "snapshot", "timestamp", "received_at"]
        frame = frame.with_columns(snapshot=pl.col("type") == "snapshot")
        snapshot = levels(frame.filter("snapshot"), {"bids": "bid", "asks": "ask"}, columns)
        rows = pl.concat([snapshot, self._updates(frame.filter(~pl.col("snapshot")), columns)]).sort(
            "row", maintain_order=True
        )
        return self.amounts(rows, "price", "size").select(*columns, "side", "price", "size")

    def _updates(self, frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
        rows = split_cells(frame, columns, "changes", ("side", "price", "size"))
        self.check_sides(rows)
        side = pl.col("side").replace_strict({"buy": "bid", "sell": "ask"}, return_dtype=pl.Enum(["bid", "ask"]))
        return rows.select(*columns, side, "price", "size")

    def _timed(self) -> frozenset[str]:
        """Products with a time in any book change."""
        found: set[str] = set()
        for lines, _ in self._lines(Tally()):
            books = self._decoded(self._messages(lines, Tally()), _BOOKS, _LEVEL2, Tally())
            found.update(books.filter(pl.col("timestamp").is_not_null())["symbol"].unique())
        return frozenset(found)


def _highest_before(ids: IntArray, before: int) -> IntArray:
    """The highest id before each id."""
    return np.maximum.accumulate(np.concatenate([[before], ids[:-1]]))
