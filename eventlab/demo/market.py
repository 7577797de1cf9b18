"""The demo's markets: a simulation, or files whose content decides the feed."""

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
_HEADERS: tuple[tuple[str, set[str]], ...] = (
    ("tardis_book", {"exchange", "symbol", "is_snapshot", "side", "price", "amount"}),
    ("tardis_quotes", {"exchange", "symbol", "bid_price", "ask_price"}),
    ("tardis_trades", {"exchange", "symbol", "id", "side", "price", "amount"}),
    ("binance_trades", {"id", "price", "qty", "is_buyer_maker"}),
    ("binance_trades", {"id", "price", "quantity", "is_buyer_maker"}),
)
_SYMBOL = re.compile(r"[A-Z0-9]{2,12}(?:USDT|USDC|FDUSD|BUSD|USD|EUR|TRY|BTC|ETH|BNB)", re.IGNORECASE)
_NO_TAG = re.compile(r"trades?|l2|book|incremental|bbo|quotes?|csv|gz|zip|\d+", re.IGNORECASE)
_SUPPORTED = "Binance trades (public archive), Tardis trades, incremental_book_L2 or quotes"
_HEAD_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Market:
    """An aggregate of trades, their number, and the event times (ns) of the first and the last."""

    aggregate_id: str
    events: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Its symbol in the portfolio."""
        return self.aggregate_id.removeprefix("market/")

    @property
    def bar(self) -> str:
        """A bar length that gives at most some hundred bars."""
        span = self.stop - self.start
        return next((bar for bar in BAR_LENGTHS if span <= MOST_BARS * duration_ns(bar)), BAR_LENGTHS[-1])


def simulated(trades: int, seed: int) -> list[Feed]:
    """A busy market of two symbols and a quiet one with an order book, over the same time."""
    from eventlab.feeds import simulate

    return [
        simulate(symbols=SYMBOLS, trades=trades, seed=seed, rate=100),
        simulate(symbols=BOOKED, trades=trades // 25, seed=seed, rate=4, books=True),
    ]


def markets(lab: Lab) -> list[Market]:
    """The aggregates of trades, most active first."""
    from eventlab.reducers import Trades

    found = []
    for head in lab.store.heads(lab.store.aggregate_ids("market/*")):
        first = lab.state(Trades, head.aggregate_id, 1)
        found.append(Market(head.aggregate_id, head.version, first.timestamp or 0, head.timestamp))
    return sorted(found, key=lambda market: (-market.events, market.aggregate_id))


def feeds_of(paths: Sequence[Path], symbol: str | None = None) -> list[Feed]:
    """Feeds over files, in the order of their names. The first line of a file decides its kind.

    Files of one kind and symbol whose names differ in more than date and kind (``spot_btcusdt_trades``,
    ``usdm_btcusdt_trades``) are different markets with separate aggregates, e.g. ``market/spot/BTCUSDT``.

    Raises
    ------
    FeedError
        A file of an unknown kind or without a symbol, or no trades in any file.
    """
    kinds = [(kind_of(path), path) for path in sorted(paths, key=lambda path: path.name)]
    named = [(kind, path, symbol or (None if kind.startswith("tardis") else _symbol_in(path))) for kind, path in kinds]
    if not any(_KINDS[kind] == "market" for kind, _ in kinds):
        raise FeedError(
            "no trades in the files", got=", ".join(path.name for path in paths),
            expected="at least one file of trades", hint="The demo's trader needs trades; add a file of trades.",
        )  # fmt: skip
    tags = {(_KINDS[kind], tag_of(path)) for kind, path in kinds}
    several = {kind for kind, _ in tags if sum(kind == other for other, _ in tags) > 1}
    return [_feed(kind, path, what, tag=tag_of(path) if _KINDS[kind] in several else "") for kind, path, what in named]


def _feed(kind: str, path: Path, symbol: str | None, *, tag: str) -> Feed:
    from eventlab import feeds

    aggregate_id = "/".join(part for part in (_KINDS[kind], tag, "{symbol}") if part)
    made: Feed = getattr(feeds, kind)(path, symbol, aggregate_id=aggregate_id)
    return made


def tag_of(path: Path) -> str:
    """The part of a file's name besides symbol, kind and date, e.g. ``spot``; possibly empty."""
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", path.name) if word]
    return "-".join(word for word in words if not _NO_TAG.fullmatch(word) and not _SYMBOL.fullmatch(word))


def _symbol_in(path: Path) -> str:
    for word in re.split(r"[^A-Za-z0-9]+", path.name):
        if _SYMBOL.fullmatch(word):
            return word.upper()
    raise FeedError(
        f"neither {path} nor its name has the symbol",
        expected="a name such as BTCUSDT-trades-2024-08-09.zip",
        hint="Pass it with --symbol.",
    )  # fmt: skip


def kind_of(path: Path) -> str:
    """The name of the feed for a file, from its first line.

    Raises
    ------
    FeedError
        A file that cannot be read or has an unknown format.
    """
    from eventlab.feeds.reading.text import TextFile

    head = next(TextFile(path).blocks()).data[:_HEAD_BYTES]
    line = head.decode("utf-8", "replace").partition("\n")[0].strip()
    cells = [cell.strip().lower() for cell in line.split(",")]
    for kind, names in _HEADERS:
        if names <= set(cells):
            return kind
    if 6 <= len(cells) <= 8 and re.fullmatch(r"\d+(,\d+(\.\d+)?){3},\d{13,16},(true|false)(,.*)?", line, re.IGNORECASE):
        return "binance_trades"
    raise FeedError(
        f"{path} has an unknown format", got=line[:120], expected=_SUPPORTED,
        hint="`eventlab ingest` reads more formats: klines, aggregated trades, captures, bars.",
    )  # fmt: skip
