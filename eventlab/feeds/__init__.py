from eventlab.feeds.binance import binance_agg_trades, binance_klines, binance_trades
from eventlab.feeds.tardis import tardis_book, tardis_quotes, tardis_trades

__all__ = [
    "binance_agg_trades",
    "binance_klines",
    "binance_trades",
    "tardis_book",
    "tardis_quotes",
    "tardis_trades",
]
