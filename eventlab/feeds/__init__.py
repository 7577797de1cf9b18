"""Sources of events: one module a source, one function a feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventlab.faces import lazily

if TYPE_CHECKING:
    from eventlab.feeds.bar_files import bars
    from eventlab.feeds.binance import binance_agg_trades, binance_klines, binance_trades
    from eventlab.feeds.binance_stream import binance_capture
    from eventlab.feeds.coinbase_stream import coinbase_capture
    from eventlab.feeds.contract import Chunk, Feed, FeedBatch, FeedReport
    from eventlab.feeds.exports import exported
    from eventlab.feeds.simulation import simulate
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
    "bar_files": ("bars",),
    "binance": (
        "binance_agg_trades",
        "binance_klines",
        "binance_trades",
    ),
    "binance_stream": ("binance_capture",),
    "coinbase_stream": ("coinbase_capture",),
    "contract": (
        "Chunk",
        "Feed",
        "FeedBatch",
        "FeedReport",
    ),
    "exports": ("exported",),
    "simulation": ("simulate",),
    "tardis": (
        "tardis_book",
        "tardis_quotes",
        "tardis_trades",
    ),
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
