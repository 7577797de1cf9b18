"""Charts of results. Each takes ``ax=None`` and returns the Axes; none opens a window or changes settings."""

from eventlab.plots.experiments import (
    plot_latency_by_length,
    plot_pareto,
    plot_placement,
    plot_snapshot_intervals,
)
from eventlab.plots.market import plot_book, plot_market
from eventlab.plots.portfolio import plot_portfolio

__all__ = [
    "plot_book",
    "plot_latency_by_length",
    "plot_market",
    "plot_pareto",
    "plot_placement",
    "plot_portfolio",
    "plot_snapshot_intervals",
]
