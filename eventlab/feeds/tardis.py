"""Tardis's CSV data sets (docs.tardis.dev): trades, quotes, and level-2 book changes."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import polars as pl

from eventlab.errors import FeedError
from eventlab.events.aggregate_ids import Template
from eventlab.events.builtin import BookChange, MarketData, Quote
from eventlab.events.types import EventType, event_type
from eventlab.feeds.api import Chunk, Clock, FeedBatch
from eventlab.feeds.binance.book_sync import BookRule, Snapshots, UpdateWatch, update_ids
from eventlab.feeds.reading.csv_table import Column, Piece, Table, TimeColumn
from eventlab.feeds.reading.file_feed import (
    UTC_NS,
    Contiguous,
    FileFeed,
    Tally,
    batches_of,
    checked_symbol,
    no_events_of,
    only_symbol,
    symbol_rows,
)  # fmt: skip
from eventlab.feeds.reading.missing_times import NullTimes
from eventlab.feeds.reading.text import TextFile

LONGEST_UPDATE = 1 << 20
"""Rows of one update that are kept together in a chunk."""

_HEAD = (
    Column("exchange", "text"),
    Column("symbol", "text"),
    Column("timestamp", "int", nullable=True),
    Column("local_timestamp", "int"),
)
_TRADES = (
    *_HEAD,
    Column("id", "text", nullable=True),
    Column("side", "text"),
    Column("price", "amount"),
    Column("amount", "amount"),
)
_QUOTES = (
    *_HEAD,
    Column("ask_amount", "amount", nullable=True),
    Column("ask_price", "amount", nullable=True),
    Column("bid_price", "amount", nullable=True),
    Column("bid_amount", "amount", nullable=True),
    Column("update_id", "int", optional=True, nullable=True),
)
_BOOK = (
    *_HEAD,
    Column("is_snapshot", "flag"),
    Column("side", "text"),
    Column("price", "amount"),
    Column("amount", "amount"),
    Column("first_update_id", "int", optional=True, nullable=True),
    Column("final_update_id", "int", optional=True, nullable=True),
)


def tardis_trades(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "market/{symbol}"
) -> FileFeed:
    """Trades in Tardis's layout, as MarketData.

    Parameters
    ----------
    path : path
        CSV with header, plain or in gzip or zip: ``exchange, symbol, timestamp, local_timestamp, id, side, price,
        amount``; times in microseconds. One exchange a file, any number of symbols.
    symbol : str, optional
        Only this symbol.
    aggregate_id : str
        A template over ``{symbol}`` and ``{exchange}``.

    Returns
    -------
    Feed
        `side` is the taker's, null where the file says unknown; `trade_id` is null where ids are not integers.
        `received_at` is the capture time. Gaps in ids are reported for Binance, whose ids are contiguous.

    Raises
    ------
    FeedError
        Now for a missing file or a bad template, while reading for anything wrong inside.
    """
    return _Trades("tardis_trades", path, symbol, aggregate_id)


def tardis_quotes(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "quote/{symbol}"
) -> FileFeed:
    """Best bids and asks in Tardis's layout, as Quote.

    Columns ``exchange, symbol, timestamp, local_timestamp, ask_amount, ask_price, bid_price, bid_amount
    [, update_id]``. An empty exchange time takes the one before in its symbol (the first: the next one); a symbol
    that has none in the whole file is on the capture clock. Everything else as in :func:`tardis_trades`.
    """
    return _Quotes("tardis_quotes", path, symbol, aggregate_id)


def tardis_book(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "book/{symbol}"
) -> FileFeed:
    """Level-2 book changes in Tardis's layout, as BookChange.

    Columns of ``incremental_book_L2`` (``exchange, symbol, timestamp, local_timestamp, is_snapshot, side, price,
    amount``), optionally Binance's ``first_update_id, final_update_id``. Where the file has these, Binance's rule is
    kept: changes that arrive before a snapshot are dropped where their final id is at or below its id, and applied
    after it otherwise, so that the feed yields the snapshot first; the report counts the dropped ones. One that is
    applied after a snapshot with a later time takes that time. Empty exchange
    times are filled, in the order yielded, as in :func:`tardis_quotes`; everything else as in :func:`tardis_trades`.

    An update is not split between chunks, unless it has more than a million rows.
    """
    return _Book("tardis_book", path, symbol, aggregate_id)


class _Tardis(FileFeed):
    """What the three layouts share: one exchange, many symbols, null exchange times, the capture clock."""

    layout: tuple[Column, ...]
    event: EventType

    def __init__(self, name: str, path: str | os.PathLike[str], symbol: str | None, aggregate_id: str) -> None:
        self._symbol = None if symbol is None else checked_symbol(symbol)
        self._template = Template.parse(aggregate_id, ("symbol", "exchange"))
        self._exchange: str | None = None
        self._timed_symbols: frozenset[str] | None = None
        super().__init__(name, TextFile(path), {"symbol": symbol, "aggregate_id": aggregate_id})

    @property
    def clock(self) -> Clock:
        for piece in Table(self._file, self.layout, headless=False).pieces():
            wanted = piece.frame if self._symbol is None else piece.frame.filter(pl.col("symbol") == self._symbol)
            if wanted["timestamp"].count():
                return "exchange"
        return "capture"

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        """Payload columns, `row`, and int64 `timestamp` and `received_at`, in file order."""
        times, local = TimeColumn("timestamp", ("us",)), TimeColumn("local_timestamp", ("us",))
        for piece in Table(self._file, self.layout, headless=False).pieces():
            self._check_exchange(piece)
            columns = [
                pl.Series("row", piece.rows),
                piece.frame["symbol"],
                times.ns(piece).alias("timestamp"),
                local.ns(piece).alias("received_at"),
                *self._payload(piece),
            ]
            tally.rows += len(piece.frame)
            yield only_symbol(pl.DataFrame(columns), self._symbol, tally), piece.done
        no_events_of(self._file.name, self._symbol, tally)

    def _check_exchange(self, piece: Piece) -> None:
        exchange = self._exchange = self._exchange or str(piece.frame["exchange"][0])
        piece.refuse(piece.frame["exchange"] != exchange, "exchange", "a second exchange", exchange, "Split the file.")
        if not re.fullmatch(r"[\w.-]+", exchange):
            piece.refuse(np.ones(1, bool), "exchange", "not an exchange's name", "letters, digits, dots and hyphens")

    @abstractmethod
    def _payload(self, piece: Piece) -> list[pl.Series]:
        """Columns of the event beside symbol and received_at."""

    def _timed(self) -> frozenset[str]:
        """Symbols that have an exchange time somewhere in the file."""
        if self._timed_symbols is None:
            found: set[str] = set()
            for piece in Table(self._file, self.layout, headless=False).pieces():
                found.update(piece.frame.filter(pl.col("timestamp").is_not_null())["symbol"].unique())
            self._timed_symbols = frozenset(found)
        return self._timed_symbols

    def _read(self, tally: Tally) -> Iterator[Chunk]:
        nulls = NullTimes(self._timed)
        done, last = 0, None
        for frame, done in self._frames(tally):
            last = frame
            yield self._chunk(*nulls.fill(frame), done)
        if last is not None:
            rest = self._chunk(*nulls.fill(last.clear(), at_end=True), done)
            if rest.batches:
                yield rest

    def _chunk(self, on_exchange: pl.DataFrame, on_capture: pl.DataFrame, done: int) -> Chunk:
        template = self._template.text.replace("{exchange}", self._exchange or "")
        clocks: tuple[tuple[pl.DataFrame, Clock], ...] = ((on_exchange, "exchange"), (on_capture, "capture"))
        both = all(len(frame) for frame, _ in clocks)
        # By place, not by row of the file: what a snapshot moved keeps the order it is applied in.
        batches = [
            FeedBatch(self.event, _as_events(frame), template, frame["row"].to_numpy() if both else None, clock)
            for frame, clock in clocks
        ]
        return Chunk(batches_of(*batches), done)


def _as_events(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("row").with_columns(pl.col("timestamp", "received_at").cast(UTC_NS))


class _Trades(_Tardis):
    layout, event = _TRADES, event_type(MarketData)

    def _payload(self, piece: Piece) -> list[pl.Series]:
        side = piece.frame["side"]
        piece.refuse(~side.is_in(["buy", "sell", "unknown"]), "side", "unknown word", "buy | sell | unknown")
        trade_id = piece.frame["id"].cast(pl.Int64, strict=False).alias("trade_id")
        return [
            piece.frame["price"], piece.frame["amount"].alias("volume"), trade_id,
            side.replace("unknown", None).cast(pl.Enum(["buy", "sell"])),
        ]  # fmt: skip

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        watch, unreadable = Contiguous(tally), 0
        for frame, done in super()._frames(tally):
            unreadable += frame["trade_id"].null_count()
            if (self._exchange or "").startswith("binance"):
                for symbol, at in symbol_rows(frame["symbol"]):
                    ids = frame["trade_id"].gather(at)
                    known = ids.is_not_null().to_numpy()
                    watch.see(symbol, ids.drop_nulls().to_numpy(), frame["row"].to_numpy()[at][known])
            yield frame, done
        if unreadable:
            tally.warnings.append(f"{unreadable} trade ids are no integers and were left out")


class _Quotes(_Tardis):
    layout, event = _QUOTES, event_type(Quote)

    def _payload(self, piece: Piece) -> list[pl.Series]:
        frame = piece.frame
        columns = []
        for side in ("bid", "ask"):
            price, size = frame[f"{side}_price"], frame[f"{side}_amount"]
            half = price.is_null() != size.is_null()
            piece.refuse(half, f"{side}_price", "price and amount are not both there", "both or neither")
            columns += [price.fill_null(0.0), size.fill_null(0.0).alias(f"{side}_size")]
        return [*columns, frame["update_id"]] if "update_id" in frame.columns else columns


class _Book(_Tardis):
    layout, event = _BOOK, event_type(BookChange)

    def _payload(self, piece: Piece) -> list[pl.Series]:
        frame = piece.frame
        piece.refuse(~frame["side"].is_in(["bid", "ask"]), "side", "unknown word", "bid | ask")
        if "first_update_id" in frame.columns and "final_update_id" not in frame.columns:
            raise FeedError(f"{piece.file}: first_update_id without final_update_id", expected="both or neither")
        ids = {"first_update_id": "first_update_id", "final_update_id": "update_id"}
        return [
            frame["side"].cast(pl.Enum(["bid", "ask"])), frame["price"], frame["amount"].alias("size"),
            frame["is_snapshot"].alias("snapshot"),
            *(frame[name].alias(ours) for name, ours in ids.items() if name in frame.columns),
        ]  # fmt: skip

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        rule, watch = BookRule(self._survey(), tally), None
        for frame, done in whole_updates(super()._frames(tally)):
            watch = watch or UpdateWatch(self._exchange or "", tally)
            ordered = rule.apply(frame)
            watch.see(ordered)
            yield ordered, done
        if rule.raised:
            tally.warnings.append(f"{rule.raised} changes took the time of the snapshot that they had overtaken")

    def _survey(self) -> dict[str, Snapshots]:
        """Where the snapshots are, if the file has the ids that the rule needs."""
        found: dict[str, Snapshots] = {}
        row = 1
        for piece in Table(self._file, self.layout, headless=False).pieces():
            frame = piece.frame
            if "final_update_id" not in frame.columns:
                break
            rows = np.arange(row, row + len(frame))
            ids = update_ids(frame.rename({"final_update_id": "update_id"}))
            is_snapshot = frame["is_snapshot"].to_numpy()
            for symbol, at in symbol_rows(frame["symbol"]):
                found.setdefault(symbol, Snapshots()).see(rows[at], is_snapshot[at], ids[at])
            row += len(frame)
        return found


def whole_updates(frames: Iterator[tuple[pl.DataFrame, int]]) -> Iterator[tuple[pl.DataFrame, int]]:
    """The same rows, cut where an update ends rather than where a block of the file does."""
    ready: tuple[pl.DataFrame, int] | None = None
    rest: pl.DataFrame | None = None
    for fresh, done in frames:
        if ready is not None:
            yield ready
        frame = fresh if rest is None else pl.concat([rest, fresh])
        keys = ["symbol", "snapshot", "update_id" if "update_id" in frame.columns else "timestamp"]
        differs = pl.any_horizontal(pl.col(key).ne_missing(pl.col(key).last()) for key in keys)
        last = frame.select(differs.arg_true().last().alias("at"))["at"].to_list() if len(frame) else []
        cut = 0 if last in ([], [None]) else int(last[0]) + 1
        cut = len(frame) if cut == 0 and len(frame) > LONGEST_UPDATE else cut
        ready, rest = (frame[:cut], done), frame[cut:]
    if ready is not None:
        yield ready if rest is None or not len(rest) else (pl.concat([ready[0], rest]), ready[1])
