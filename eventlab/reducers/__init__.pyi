from .averages import Ewma as Ewma
from .averages import EwmaTime as EwmaTime
from .averages import Twap as Twap
from .averages import Vwap as Vwap
from .bars import DollarBars as DollarBars
from .bars import TickBars as TickBars
from .bars import TimeBars as TimeBars
from .bars import VolumeBars as VolumeBars
from .book import OrderBook as OrderBook
from .correlation import Correlation as Correlation
from .correlation import RollingCorrelation as RollingCorrelation
from .depth import BookDepth as BookDepth
from .flow import OrderFlowImbalance as OrderFlowImbalance
from .funding import FundingRate as FundingRate
from .market import Trades as Trades
from .moments import Moments as Moments
from .moments import RollingMoments as RollingMoments
from .portfolio import Portfolio as Portfolio
from .risk import Risk as Risk
from .signals import Signals as Signals
from .volatility import RealizedVolatility as RealizedVolatility

def declare() -> None: ...
