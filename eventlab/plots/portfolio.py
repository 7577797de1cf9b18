"""Chart of a portfolio: equity, realised profit and cash over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from eventlab.plots import _look, _series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = (
    ("equity", "equity", _look.BLUE),
    ("realized_pnl", "realised profit", _look.GREEN),
    ("cash", "cash", _look.PURPLE),
)


def plot_portfolio(history: pl.DataFrame, market: pl.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Equity, realised profit and cash over time, each on its own scale.

    Parameters
    ----------
    history : polars.DataFrame
        From ``lab.history(el.Portfolio, "portfolio/alpha")``.
    market : polars.DataFrame, optional
        Prices to show behind equity, on a scale of their own: trades of one market, or the history of its state.
    ax : matplotlib.axes.Axes, optional
        Its place is shared by the three panels. A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The equity panel.

    Raises
    ------
    PlotError
        No rows, or other columns.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 1.0, 61_000.0))
    >>> plot_portfolio(lab.history(el.Portfolio, "portfolio/demo")).get_ylabel()
    'equity'
    """
    rows = _series.require(history, [column for column, _, _ in _PANELS], "a portfolio's history")
    rows, moments = _series.in_time_order(rows, "a portfolio's history")
    prices = None if market is None else _prices(market)
    with _look.drawing(ax, height=5.6) as axes:
        parts = _look.panels(axes, 2.2, 1.0, 1.0)
        for panel, (column, label, colour) in zip(parts, _PANELS, strict=True):
            drawn = _series.thinned(moments, _series.numbers(rows, column))
            panel.plot(*drawn, drawstyle="steps-post", color=colour, label=label)
            panel.set_ylabel(label)
            _look.thousands(panel)
        top, bottom = parts[0], parts[-1]
        shown = [top]
        if prices is not None:
            behind = _look.twin(top, _look.MUTED)
            behind.plot(*prices, color=_look.FAINT, linewidth=0.9, label="market price (right)")
            behind.set_ylabel("price (quote currency)")
            _look.thousands(behind)
            behind.set_zorder(top.get_zorder() - 1)
            top.patch.set_visible(False)
            shown.append(behind)
        _look.headed(top, "Portfolio, in account currency", *(shown if prices is not None else ()))
        _look.time_axis(bottom)
    return top


def _prices(market: pl.DataFrame) -> tuple[_series.TimeArray, _series.FloatArray]:
    column = "price" if isinstance(market, pl.DataFrame) and "price" in market.columns else "last"
    rows = _series.require(market, (column,), "a market")
    rows, moments = _series.in_time_order(rows, "a market")
    return _series.thinned(moments, _series.numbers(rows, column))
