"""Tardis's CSV data sets (docs.tardis.dev): trades, quotes and level-2 book changes."""

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
from eventlab.feeds.binance.book_sync import BookSnapshots, BookSync, UpdateGapDetector, update_ids
from eventlab.feeds.reading.csv_table import Column, CsvTable, Piece, TimeColumn
from eventlab.feeds.reading.file_feed import UTC_NS, FileFeed, GapDetector, Tally, non_empty, symbol_rows
from eventlab.feeds.reading.missing_times import MissingTimes

LONGEST_UPDATE = 1 << 20
"""An update of up to this many rows stays in one chunk."""

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
        CSV with header, plain, gzip or zip: ``exchange, symbol, timestamp, local_timestamp, id, side, price, amount``,
        with times in microseconds. One exchange per file, any number of symbols.
    symbol : str, optional
        Only this symbol.
    aggregate_id : str
        A template over ``{symbol}`` and ``{exchange}``.

    Returns
    -------
    Feed
        `side` is the taker's, null for "unknown" in the file; `trade_id` is null for ids that are not integers.
        `received_at` is the capture time. Reports gaps in the ids of Binance, which are contiguous.

    Raises
    ------
    FeedError
        At once for a missing file or an invalid template; while reading, for invalid content.
    """
    return _TardisTrades("tardis_trades", path, symbol, aggregate_id)


def tardis_quotes(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "quote/{symbol}"
) -> FileFeed:
    """Best bids and asks in Tardis's layout, as Quote.

    Columns ``exchange, symbol, timestamp, local_timestamp, ask_amount, ask_price, bid_price, bid_amount
    [, update_id]``. A row without exchange time takes the one before of its symbol, or at the start the next one; a
    symbol without any in the file gets capture times. Everything else as in :func:`tardis_trades`.
    """
    return _TardisQuotes("tardis_quotes", path, symbol, aggregate_id)


def tardis_book(
    path: str | os.PathLike[str], symbol: str | None = None, *, aggregate_id: str = "book/{symbol}"
) -> FileFeed:
    """Level-2 book changes in Tardis's layout, as BookChange.

    Columns of ``incremental_book_L2`` (``exchange, symbol, timestamp, local_timestamp, is_snapshot, side, price,
    amount``), optionally Binance's ``first_update_id, final_update_id``. With these ids the feed follows Binance's
    rule: it yields the snapshot first, drops and counts changes that arrived before the snapshot with a final id at or
    below the snapshot's, and yields the other early changes after it. An early change takes the snapshot's time if that
    is later. Missing exchange times are filled in output order, as in :func:`tardis_quotes`; everything else as in
    :func:`tardis_trades`.

    Chunks do not split an update, unless it has more than a million rows.
    """
    return _TardisBook("tardis_book", path, symbol, aggregate_id)


class _TardisFile(FileFeed):
    """A file in one of the three layouts: one exchange, many symbols, possibly missing exchange times."""

    layout: tuple[Column, ...]
    event: EventType

    def __init__(self, name: str, path: str | os.PathLike[str], symbol: str | None, aggregate_id: str) -> None:
        self._exchange: str | None = None
        self._timed_symbols: frozenset[str] | None = None
        super().__init__(name, path, symbol, Template.parse(aggregate_id, ("symbol", "exchange")))

    def _pieces(self) -> Iterator[Piece]:
        return CsvTable(self._file, self.layout, headless=False).pieces()

    @property
    def clock(self) -> Clock:
        for piece in self._pieces():
            wanted = piece.frame if self._symbol is None else piece.frame.filter(pl.col("symbol") == self._symbol)
            if wanted["timestamp"].count():
                return "exchange"
        return "capture"

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        """Frames of `row`, int64 `timestamp` and `received_at`, and the payload, in file order."""
        times, local = TimeColumn("timestamp", ("us",)), TimeColumn("local_timestamp", ("us",))
        for piece in self._pieces():
            self._check_exchange(piece)
            columns = [
                pl.Series("row", piece.rows),
                piece.frame["symbol"],
                times.ns(piece).alias("timestamp"),
                local.ns(piece).alias("received_at"),
                *self._payload(piece),
            ]
            tally.rows += len(piece.frame)
            yield self.only_symbol(pl.DataFrame(columns), tally), piece.done

    def _check_exchange(self, piece: Piece) -> None:
        exchange = self._exchange = self._exchange or str(piece.frame["exchange"][0])
        piece.refuse(
            piece.frame["exchange"] != exchange, "exchange", "more than one exchange", exchange, "Split the file."
        )
        if not re.fullmatch(r"[\w.-]+", exchange):
            piece.refuse(np.ones(1, bool), "exchange", "not an exchange name", "letters, digits, dots and hyphens")

    @abstractmethod
    def _payload(self, piece: Piece) -> list[pl.Series]:
        """Payload columns except symbol and received_at."""

    def _timed(self) -> frozenset[str]:
        """Symbols with an exchange time anywhere in the file."""
        if self._timed_symbols is None:
            found: set[str] = set()
            for piece in self._pieces():
                found.update(piece.frame.filter(pl.col("timestamp").is_not_null())["symbol"].unique())
            self._timed_symbols = frozenset(found)
        return self._timed_symbols

    def _read(self, tally: Tally) -> Iterator[Chunk]:
        times, done = MissingTimes(self._timed), 0
        for frame, done in self._frames(tally):
            yield self._chunk(*times.fill(frame), done)
        if times.pending is not None:
            yield self._chunk(*times.fill(times.pending, at_end=True), done)

    def _chunk(self, on_exchange: pl.DataFrame, on_capture: pl.DataFrame, done: int) -> Chunk:
        template = self._template.replace("{exchange}", self._exchange or "")
        clocks: tuple[tuple[pl.DataFrame, Clock], ...] = ((on_exchange, "exchange"), (on_capture, "capture"))
        both = all(len(frame) for frame, _ in clocks)
        # BookSync has sorted the frame, so its order is kept; `row` only interleaves the two clocks.
        batches = []
        for frame, clock in clocks:
            events = frame.drop("row").with_columns(pl.col("timestamp", "received_at").cast(UTC_NS))
            batches.append(FeedBatch(self.event, events, template, frame["row"].to_numpy() if both else None, clock))
        return Chunk(non_empty(*batches), done)


class _TardisTrades(_TardisFile):
    layout, event = _TRADES, event_type(MarketData)

    def _payload(self, piece: Piece) -> list[pl.Series]:
        side = piece.frame["side"]
        piece.refuse(~side.is_in(["buy", "sell", "unknown"]), "side", "unknown side", "buy | sell | unknown")
        trade_id = piece.frame["id"].cast(pl.Int64, strict=False).alias("trade_id")
        return [
            piece.frame["price"], piece.frame["amount"].alias("volume"), trade_id,
            side.replace("unknown", None).cast(pl.Enum(["buy", "sell"])),
        ]  # fmt: skip

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        watch, unreadable = GapDetector(tally), 0
        for frame, done in super()._frames(tally):
            unreadable += frame["trade_id"].null_count()
            if (self._exchange or "").startswith("binance"):
                for symbol, at in symbol_rows(frame["symbol"]):
                    ids = frame["trade_id"].gather(at)
                    known = ids.is_not_null().to_numpy()
                    watch.see(symbol, ids.drop_nulls().to_numpy(), frame["row"].to_numpy()[at][known])
            yield frame, done
        if unreadable:
            tally.warnings.append(f"{unreadable} trade ids are not integers and were dropped")


class _TardisQuotes(_TardisFile):
    layout, event = _QUOTES, event_type(Quote)

    def _payload(self, piece: Piece) -> list[pl.Series]:
        frame = piece.frame
        columns = []
        for side in ("bid", "ask"):
            price, size = frame[f"{side}_price"], frame[f"{side}_amount"]
            half = price.is_null() != size.is_null()
            piece.refuse(half, f"{side}_price", "price or amount is missing", "both or neither")
            columns += [price.fill_null(0.0), size.fill_null(0.0).alias(f"{side}_size")]
        return [*columns, frame["update_id"]] if "update_id" in frame.columns else columns


class _TardisBook(_TardisFile):
    layout, event = _BOOK, event_type(BookChange)

    def _payload(self, piece: Piece) -> list[pl.Series]:
        frame = piece.frame
        piece.refuse(~frame["side"].is_in(["bid", "ask"]), "side", "unknown side", "bid | ask")
        if "first_update_id" in frame.columns and "final_update_id" not in frame.columns:
            raise FeedError(f"{piece.file}: first_update_id without final_update_id", expected="both or neither")
        ids = {"first_update_id": "first_update_id", "final_update_id": "update_id"}
        return [
            frame["side"].cast(pl.Enum(["bid", "ask"])), frame["price"], frame["amount"].alias("size"),
            frame["is_snapshot"].alias("snapshot"),
            *(frame[name].alias(ours) for name, ours in ids.items() if name in frame.columns),
        ]  # fmt: skip

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        sync, watch = BookSync(self._snapshots(), tally), None
        for frame, done in split_at_updates(super()._frames(tally)):
            watch = watch or UpdateGapDetector(self._exchange or "", tally)
            ordered = sync.apply(frame)
            watch.see(ordered)
            yield ordered, done
        if sync.raised:
            tally.warnings.append(f"{sync.raised} early changes took the time of the snapshot they follow")

    def _snapshots(self) -> dict[str, BookSnapshots]:
        """The snapshots of each symbol; empty if the file has no update ids."""
        found: dict[str, BookSnapshots] = {}
        for piece in self._pieces():
            frame = piece.frame
            if "final_update_id" not in frame.columns:
                break
            ids = update_ids(frame.rename({"final_update_id": "update_id"}))
            is_snapshot = frame["is_snapshot"].to_numpy()
            for symbol, at in symbol_rows(frame["symbol"]):
                found.setdefault(symbol, BookSnapshots()).see(piece.rows[at], is_snapshot[at], ids[at])
        return found


def split_at_updates(frames: Iterator[tuple[pl.DataFrame, int]]) -> Iterator[tuple[pl.DataFrame, int]]:
    """The same rows in frames that end with an update instead of anywhere."""
    ready: tuple[pl.DataFrame, int] | None = None
    rest: pl.DataFrame | None = None
    for fresh, done in frames:
        if ready is not None:
            yield ready
        frame = fresh if rest is None else pl.concat([rest, fresh])
        keys = ["symbol", "snapshot", "update_id" if "update_id" in frame.columns else "timestamp"]
        differs = pl.any_horizontal(pl.col(key).ne_missing(pl.col(key).last()) for key in keys)
        last = frame.select(differs.arg_true().max()).item() if len(frame) else None
        cut = last + 1 if last is not None else len(frame) if len(frame) > LONGEST_UPDATE else 0
        ready, rest = (frame[:cut], done), frame[cut:]
    if ready is not None:
        yield ready if rest is None or not len(rest) else (pl.concat([ready[0], rest]), ready[1])
