"""Sources of events: one module per source, one function per feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventlab.runtime.lazy_names import lazily

if TYPE_CHECKING:
    from eventlab.feeds.api import Chunk, Feed, FeedBatch, FeedReport
    from eventlab.feeds.bars import bars
    from eventlab.feeds.binance.archive import binance_agg_trades, binance_klines, binance_trades
    from eventlab.feeds.binance.capture import binance_capture
    from eventlab.feeds.coinbase import coinbase_capture
    from eventlab.feeds.exports import exported
    from eventlab.feeds.simulation.feed import simulate
    from eventlab.feeds.tardis import tardis_book, tardis_quotes, tardis_trades

__all__ = [
    "Chunk",
    "Feed",
    "FeedBatch",
    "FeedReport",
    "bars",
    "binance_agg_trades",
    "binance_capture",
    "binance_klines",
    "binance_trades",
    "coinbase_capture",
    "exported",
    "simulate",
    "tardis_book",
    "tardis_quotes",
    "tardis_trades",
]

_HOMES = {
    "bars": ("bars",),
    "binance.archive": (
        "binance_agg_trades",
        "binance_klines",
        "binance_trades",
    ),
    "binance.capture": ("binance_capture",),
    "coinbase": ("coinbase_capture",),
    "api": (
        "Chunk",
        "Feed",
        "FeedBatch",
        "FeedReport",
    ),
    "exports": ("exported",),
    "simulation.feed": ("simulate",),
    "tardis": (
        "tardis_book",
        "tardis_quotes",
        "tardis_trades",
    ),
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
