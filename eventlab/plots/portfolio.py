"""Chart of a portfolio: equity, realised profit and cash over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from eventlab.plots import series, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = (
    ("equity", "equity", style.BLUE),
    ("realized_pnl", "realised profit", style.GREEN),
    ("cash", "cash", style.PURPLE),
)


def plot_portfolio(history: pl.DataFrame, market: pl.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Equity, realised profit and cash over time, each with its own scale.

    Parameters
    ----------
    history : polars.DataFrame
        From ``lab.history(el.Portfolio, "portfolio/alpha")``.
    market : polars.DataFrame, optional
        Prices to plot behind equity, with a separate scale: trades of one market, or the history of its state.
    ax : matplotlib.axes.Axes, optional
        Is split into the three panels. A new figure by default.

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
    rows = series.require(history, [column for column, _, _ in _PANELS], "a portfolio's history")
    rows, moments = series.in_time_order(rows, "a portfolio's history")
    prices = None if market is None else _prices(market)
    with style.drawing(ax, height=5.6) as axes:
        parts = style.panels(axes, 2.2, 1.0, 1.0)
        for panel, (column, label, colour) in zip(parts, _PANELS, strict=True):
            drawn = series.downsample(moments, series.numbers(rows, column))
            panel.plot(*drawn, drawstyle="steps-post", color=colour, label=label)
            panel.set_ylabel(label)
            style.thousands(panel.yaxis)
        top, bottom = parts[0], parts[-1]
        shown: list[Axes] = []
        if prices is not None:
            behind = style.right_axis(top, style.MUTED)
            behind.plot(*prices, color=style.FAINT, linewidth=0.9, label="market price (right)")
            behind.set_ylabel("price (quote currency)")
            style.thousands(behind.yaxis)
            behind.set_zorder(top.get_zorder() - 1)
            top.patch.set_visible(False)
            shown = [top, behind]
        style.set_title(top, "Portfolio, in account currency", *shown)
        style.time_axis(bottom)
    return top


def _prices(market: pl.DataFrame) -> tuple[series.TimeArray, series.FloatArray]:
    column = "price" if isinstance(market, pl.DataFrame) and "price" in market.columns else "last"
    rows = series.require(market, (column,), "a market")
    rows, moments = series.in_time_order(rows, "a market")
    return series.downsample(moments, series.numbers(rows, column))
