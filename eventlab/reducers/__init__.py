"""The reducers that come with eventlab: what a market, a book, signals and a portfolio add up to."""

from eventlab.reducers.book import OrderBook
from eventlab.reducers.market import Trades
from eventlab.reducers.portfolio import Portfolio
from eventlab.reducers.signals import Signals

__all__ = ["OrderBook", "Portfolio", "Signals", "Trades"]
