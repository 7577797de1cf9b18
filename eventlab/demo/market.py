"""What the demo plays on: a simulated market, or files told apart by their content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eventlab.errors import FeedError
from eventlab.events.clock import duration_ns

if TYPE_CHECKING:
    from eventlab.feeds.api import Feed
    from eventlab.lab.lab import Lab

SYMBOLS, BOOKED = ("BTCUSDT", "ETHUSDT"), ("SOLUSDT",)
BAR_LENGTHS = ("1s", "5s", "10s", "30s", "1m", "5m", "15m", "1h", "4h", "1d", "1w")
MOST_BARS = 400

_KINDS = {"binance_trades": "market", "tardis_trades": "market", "tardis_book": "book", "tardis_quotes": "quote"}
_SYMBOL = re.compile(r"[A-Z0-9]{2,12}(?:USDT|USDC|FDUSD|BUSD|USD|EUR|TRY|BTC|ETH|BNB)", re.IGNORECASE)
_NO_TAG = re.compile(r"trades?|l2|book|incremental|bbo|quotes?|csv|gz|zip|\d+", re.IGNORECASE)
_UNDERSTOOD = "Binance trades (public archive), Tardis trades, incremental_book_L2 or quotes"
_HEAD_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Market:
    """An aggregate of trades: how many, and the event times (ns) of the first and the last."""

    aggregate_id: str
    events: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """What the portfolio calls it."""
        return self.aggregate_id.removeprefix("market/")

    @property
    def bar(self) -> str:
        """A bar length that divides its life into at most some hundred bars."""
        span = self.stop - self.start
        return next((bar for bar in BAR_LENGTHS if span <= MOST_BARS * duration_ns(bar)), BAR_LENGTHS[-1])


def simulated(trades: int, seed: int) -> list[Feed]:
    """A busy market of two symbols, and a quiet one with an order book, over the same time."""
    from eventlab.feeds import simulate

    return [
        simulate(symbols=SYMBOLS, trades=trades, seed=seed, rate=100),
        simulate(symbols=BOOKED, trades=trades // 25, seed=seed, rate=4, books=True),
    ]


def markets(lab: Lab) -> list[Market]:
    """The aggregates of trades, the most active first."""
    from eventlab.reducers import Trades

    found = []
    for head in lab.store.heads(lab.store.aggregate_ids("market/*")):
        first = lab.state(Trades, head.aggregate_id, 1)
        found.append(Market(head.aggregate_id, head.version, first.timestamp or 0, head.timestamp))
    return sorted(found, key=lambda market: (-market.events, market.aggregate_id))


def of_files(paths: Sequence[Path], symbol: str | None = None) -> list[Feed]:
    """Feeds over files whose kind is told by their first line; those of one market in the order of their names.

    Files of one kind and symbol that are named differently beside date and kind (``spot_btcusdt_trades``,
    ``usdm_btcusdt_trades``) are different markets, and get aggregates of their own: ``market/spot/BTCUSDT``.

    Raises
    ------
    FeedError
        A file that is not understood, that does not say what is traded, or no trades among all of them.
    """
    told = [(kind_of(path), path) for path in sorted(paths, key=lambda path: path.name)]
    named = [(kind, path, symbol or (None if kind.startswith("tardis") else _symbol_in(path))) for kind, path in told]
    if not any(_KINDS[kind] == "market" for kind, _ in told):
        raise FeedError(
            "there are no trades among the files", got=", ".join(path.name for path in paths),
            expected="at least one file of trades", hint="The demo's trader acts on trades; add a file of them.",
        )  # fmt: skip
    tags = {(_KINDS[kind], tag_of(path)) for kind, path in told}
    several = {kind for kind, _ in tags if sum(kind == other for other, _ in tags) > 1}
    return [_feed(kind, path, what, tag=tag_of(path) if _KINDS[kind] in several else "") for kind, path, what in named]


def _feed(kind: str, path: Path, symbol: str | None, *, tag: str) -> Feed:
    from eventlab import feeds

    aggregate_id = "/".join(part for part in (_KINDS[kind], tag, "{symbol}") if part)
    made: Feed = getattr(feeds, kind)(path, symbol, aggregate_id=aggregate_id)
    return made


def tag_of(path: Path) -> str:
    """What a file's name says beside symbol, kind and date, e.g. ``spot``; empty where that is nothing."""
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", path.name) if word]
    return "-".join(word for word in words if not _NO_TAG.fullmatch(word) and not _SYMBOL.fullmatch(word))


def _symbol_in(path: Path) -> str:
    for word in re.split(r"[^A-Za-z0-9]+", path.name):
        if _SYMBOL.fullmatch(word):
            return word.upper()
    raise FeedError(
        f"{path} does not say what is traded, nor does its name",
        expected="a name such as BTCUSDT-trades-2024-08-09.zip",
        hint="Name the symbol with --symbol.",
    )  # fmt: skip


def kind_of(path: Path) -> str:
    """The feed that reads a file, by its first line.

    Raises
    ------
    FeedError
        A file that cannot be read or is none of those understood.
    """
    from eventlab.feeds.reading.text import TextFile

    head = next(TextFile(path).blocks()).data[:_HEAD_BYTES]
    line = head.decode("utf-8", "replace").partition("\n")[0].strip()
    cells = [cell.strip().lower() for cell in line.split(",")]
    names = set(cells)
    if {"exchange", "symbol", "is_snapshot", "side", "price", "amount"} <= names:
        return "tardis_book"
    if {"exchange", "symbol", "bid_price", "ask_price"} <= names:
        return "tardis_quotes"
    if {"exchange", "symbol", "id", "side", "price", "amount"} <= names:
        return "tardis_trades"
    if {"price", "is_buyer_maker"} <= names and ("qty" in names or "quantity" in names) and "id" in names:
        return "binance_trades"
    if 6 <= len(cells) <= 8 and re.fullmatch(r"\d+(,\d+(\.\d+)?){3},\d{13,16},(true|false)(,.*)?", line, re.IGNORECASE):
        return "binance_trades"
    raise FeedError(
        f"{path} is not understood", got=line[:120], expected=_UNDERSTOOD,
        hint="`eventlab ingest` reads other files too: klines, aggregated trades, captures, bars.",
    )  # fmt: skip
