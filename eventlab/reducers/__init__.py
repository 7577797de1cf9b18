"""The reducers that come with eventlab: what a market, a book, signals and a portfolio add up to."""

from eventlab.reducers.averages import Ewma, EwmaTime, Twap, Vwap
from eventlab.reducers.bars import DollarBars, TickBars, TimeBars, VolumeBars
from eventlab.reducers.book import OrderBook
from eventlab.reducers.correlation import Correlation, RollingCorrelation
from eventlab.reducers.depth import BookDepth
from eventlab.reducers.flow import OrderFlowImbalance
from eventlab.reducers.funding import FundingRate
from eventlab.reducers.market import Trades
from eventlab.reducers.moments import Moments, RollingMoments
from eventlab.reducers.portfolio import Portfolio
from eventlab.reducers.risk import Risk
from eventlab.reducers.signals import Signals
from eventlab.reducers.volatility import RealizedVolatility

__all__ = [
    "BookDepth",
    "Correlation",
    "DollarBars",
    "Ewma",
    "EwmaTime",
    "FundingRate",
    "Moments",
    "OrderBook",
    "OrderFlowImbalance",
    "Portfolio",
    "RealizedVolatility",
    "Risk",
    "RollingCorrelation",
    "RollingMoments",
    "Signals",
    "TickBars",
    "TimeBars",
    "Trades",
    "Twap",
    "VolumeBars",
    "Vwap",
]
