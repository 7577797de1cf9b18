from .experiments import plot_latency_by_length as plot_latency_by_length
from .experiments import plot_pareto as plot_pareto
from .experiments import plot_placement as plot_placement
from .experiments import plot_snapshot_intervals as plot_snapshot_intervals
from .market import plot_book as plot_book
from .market import plot_market as plot_market
from .portfolio import plot_portfolio as plot_portfolio
