"""Charts of a market: price with volume over time, and the depth of a book."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from eventlab.errors import PlotError
from eventlab.events.arguments import checked_int
from eventlab.events.clock import format_ns
from eventlab.plots import series, style
from eventlab.timetravel.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_market(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Price over time, with the traded volume below.

    Parameters
    ----------
    frame : polars.DataFrame
        Trades of one market, from ``lab.events(el.MarketData, "market/BTCUSDT")``; or the history of its state, from
        ``lab.history(el.Trades, "market/BTCUSDT", every="1m")``, which also has the running VWAP.
    ax : matplotlib.axes.Axes, optional
        Is split into the two panels. A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The price panel.

    Raises
    ------
    PlotError
        No rows, other columns, or trades of several markets.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=100), progress=False)
    >>> plot_market(lab.events(el.MarketData)).get_ylabel()
    'price (quote currency)'
    """
    trades = series.require(frame, ("volume",), "a market")
    history = "price" not in trades.columns
    if history:
        series.require(trades, ("last", "vwap"), "a market's history")
    else:
        _one_market(trades)
    trades, moments = series.in_time_order(trades, "a market")
    with style.drawing(ax, height=4.6) as axes:
        price, below = style.panels(axes, 2.8, 1.0)
        column = "last" if history else "price"
        price.plot(*series.downsample(moments, series.numbers(trades, column)), color=style.BLUE, lw=1.2, label="price")
        if history:
            price.plot(
                *series.downsample(moments, series.numbers(trades, "vwap")), color=style.ORANGE, lw=1.2, label="VWAP"
            )
        starts, totals, step = (
            _traded(trades, moments) if history else series.bin_sums(moments, series.numbers(trades, "volume"))
        )
        width = np.timedelta64(step, "ns")
        below.bar(starts, totals, width=width, align="edge", color=style.SKY, linewidth=0.0)
        style.set_title(price, _title(trades), *((price,) if history else ()))
        price.set_ylabel("price (quote currency)")
        below.set_ylabel(f"volume (base)\nper {series.duration(step)}")
        style.thousands(price.yaxis, below.yaxis)
        style.time_axis(below)
    return price


def plot_book(state: State, ax: Axes | None = None, levels: int = 100) -> Axes:
    """The depth of an order book: the cumulative size up to each price.

    Parameters
    ----------
    state : State
        From ``lab.state(el.OrderBook, "book/BTCUSDT", as_of)``.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.
    levels : int
        Price levels per side, from the best.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    PlotError
        Not the state of a book, or an empty one.
    """
    if not isinstance(state, State) or not {"bids", "asks"} <= {table.name for table in state.reducer.layout.tables}:
        raise PlotError("not the state of a book", got=state, expected="lab.state(el.OrderBook, ...)")
    count = checked_int("levels", levels, 1, error=PlotError)
    sides = {name: getattr(state, name).head(count) for name in ("bids", "asks")}
    if all(side.is_empty() for side in sides.values()):
        raise PlotError(f"the book {state.aggregate_id!r} is empty at version {state.version}")
    with style.drawing(ax) as axes:
        for (name, side), colour in zip(sides.items(), (style.BLUE, style.RED), strict=True):
            if not side.is_empty():
                price = np.append(side["price"][0], side["price"].to_numpy())
                depth = np.append(0.0, np.cumsum(side["size"].to_numpy()))
                axes.step(price, depth, where="post", color=colour, label=name)
                axes.fill_between(price, depth, step="post", color=colour, alpha=0.14, linewidth=0.0)
        _mark_middle(axes, sides["bids"], sides["asks"])
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.02)
        style.set_title(axes, f"{style.safe(state.aggregate_id)}, version {state.version:,}", axes)
        if state.timestamp is not None:
            time = format_ns(state.timestamp)
            style.note(axes, time, (1.0, 1.0), (0.0, 5.0), xycoords="axes fraction", ha="right", va="bottom")
        axes.set_xlabel("price (quote currency)")
        axes.set_ylabel("size up to this price (base currency)")
        style.thousands(axes.xaxis, axes.yaxis)
        style.fewer_ticks(axes)
    return axes


def _mark_middle(axes: Axes, bids: pl.DataFrame, asks: pl.DataFrame) -> None:
    if bids.is_empty() or asks.is_empty():
        return
    bid, ask = bids["price"][0], asks["price"][0]
    middle = (bid + ask) / 2.0
    axes.axvline(middle, color=style.FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
    spread = f"spread {ask - bid:,.6g}"
    style.note(axes, spread, (middle, 0.97), (6.0, 0.0), xycoords=("data", "axes fraction"), va="top")


def _traded(history: pl.DataFrame, moments: series.TimeArray) -> tuple[series.TimeArray, series.FloatArray, int]:
    """Volume per interval from states, which have the cumulative volume."""
    volume = np.diff(series.numbers(history, "volume"), prepend=0.0)
    if "at" not in history.columns:
        return series.bin_sums(moments, volume)
    gaps = np.diff(moments).astype(np.int64)
    # A row at t includes trades at t.
    return series.bin_sums(moments - np.timedelta64(1, "ns"), volume, least=int(gaps.min()) if len(gaps) else 1)


def _one_market(trades: pl.DataFrame) -> None:
    for name in ("aggregate_id", "symbol"):
        if name in trades.columns and trades[name].n_unique() > 1:
            raise PlotError(
                "the frame has trades of several markets",
                got=", ".join(str(value) for value in trades[name].unique().sort().head(5)),
                hint='Choose one, e.g. lab.events(el.MarketData, "market/BTCUSDT").',
            )


def _title(trades: pl.DataFrame) -> str:
    named = [trades[name][0] for name in ("symbol", "aggregate_id") if name in trades.columns]
    return f"{style.safe(named[0])}: price and volume" if named else "Price and volume"
