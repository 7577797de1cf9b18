"""A simulated market from a seed: trades, books and bars of several symbols, bit-identical on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import polars as pl

from eventlab.errors import FeedError
from eventlab.events.aggregate_ids import Template
from eventlab.events.arguments import checked_int
from eventlab.events.builtin import Bar, BookChange, MarketData
from eventlab.events.clock import MAX_NS, Moment, duration_ns, to_ns
from eventlab.events.types import event_type
from eventlab.feeds.api import Chunk, Clock, FeedBatch, FeedReport, Param
from eventlab.feeds.reading.file_feed import IntArray, checked_symbol, non_empty
from eventlab.feeds.simulation.frames import BarBuilder, book_frame, trade_frame
from eventlab.feeds.simulation.market import BLOCK_TRADES, SimulatedMarket

GENERATOR_VERSION = 1
"""Part of the feed's identity: increase it with any change of the output."""

BLOCKS_A_CHUNK = 4

_Part = tuple[type, str, list[tuple[pl.DataFrame, IntArray]]]
"""Events of one type: the type, the `kind` of its aggregates, and frames with the order of their rows."""


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
    """Simulate a market.

    Parameters
    ----------
    symbols : sequence of str
        Earlier symbols trade more often.
    trades : int
        Number of trades over all symbols.
    seed : int
        Not negative. Equal arguments give identical bits on any machine.
    start : datetime, ISO string or int ns
        Just before the first trade.
    rate : int
        Average number of trades per second over all symbols.
    books : bool
        Also level-2 book changes: a snapshot of ten levels a side, then one update after every trade. Books are never
        crossed at the end of an update, and each trade is at the best price of the side it takes.
    bars : str, optional
        Also bars of the trades with this interval, e.g. ``"1m"``. Intervals are aligned to the epoch, an empty one has
        no bar, and the end of the simulation closes the last ones.
    aggregate_id : str
        A template over ``{symbol}`` and ``{kind}``, which is market, book or bar.

    Returns
    -------
    Feed
        MarketData (and BookChange, Bar) in time order; its clock is ``"simulated"``.

    Raises
    ------
    FeedError
        An invalid argument.

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
        books: bool, bars: str | None, aggregate_id: str,  # noqa: FBT001 - only simulate() calls
    ) -> None:  # fmt: skip
        if isinstance(symbols, str) or not symbols or len(set(symbols)) != len(symbols):
            raise FeedError("symbols must be distinct names", got=symbols, expected="e.g. ('BTCUSDT', 'ETHUSDT')")
        self.symbols = tuple(checked_symbol(symbol) for symbol in symbols)
        self._trades = checked_int("trades", trades, 0, 10**12, error=FeedError)
        self._seed = checked_int("seed", seed, 0, error=FeedError)
        self._rate = checked_int("rate", rate, 1, 10**6, error=FeedError)
        self._start = to_ns(start, what="start")
        if not 0 <= self._start <= MAX_NS // 2:
            raise FeedError("start is out of range", got=start, expected="1970 to 2116")
        self._books = bool(books)
        self._bar_ns = None if bars is None else duration_ns(bars, what="bars")
        template = Template.parse(aggregate_id, ("symbol", "kind"))
        if books and "kind" not in template.fields:
            raise FeedError("trades and books need separate aggregates", got=aggregate_id, expected="{kind} in it")
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
        """Digest of all parameters and the generator's version, which determine the output."""
        made_of = {"generator": GENERATOR_VERSION, **self.params}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    @property
    def total(self) -> int | None:
        return self._trades

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`eventlab.feeds.api.Feed`. `done` counts trades."""
        self.report = FeedReport()
        market = SimulatedMarket(self.symbols, self._seed, self._start, self._rate)
        bars = None if self._bar_ns is None else BarBuilder(self._bar_ns)
        events = done = 0
        while done < self._trades:
            wanted = min(self._trades - done, BLOCK_TRADES * BLOCKS_A_CHUNK)
            blocks = [market.block(min(BLOCK_TRADES, wanted - at)) for at in range(0, wanted, BLOCK_TRADES)]
            done += wanted
            parts: list[_Part] = [
                (MarketData, "market", [(trade_frame(market, block), block.order) for block in blocks])
            ]
            if self._books:
                parts.append((BookChange, "book", [book_frame(market, block) for block in blocks]))
            if bars is not None:
                closed = [bars.see(market, block) for block in blocks]
                if done == self._trades:
                    closed.append(bars.rest(market, blocks[-1]))
                parts.append((Bar, "bar", closed))
            batches = []
            for of, kind, pieces in parts:
                frames, orders = zip(*pieces, strict=True)
                template = self._template.replace("{kind}", kind)
                batches.append(FeedBatch(event_type(of), pl.concat(frames), template, np.concatenate(orders)))
            chunk = Chunk(non_empty(*batches), done)
            events += sum(len(batch.frame) for batch in chunk.batches)
            self.report = FeedReport(rows=events, events=events)
            yield chunk
