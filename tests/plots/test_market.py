from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest

import eventlab as el
from eventlab.errors import PlotError
from eventlab.plots import (
    plot_book,
    plot_market,
)
from tests.plots.helpers import line


def test_a_market_shows_its_prices_and_all_its_volume(lab):
    trades = lab.events(el.MarketData)
    price: Any = plot_market(trades)
    np.testing.assert_array_equal(line(price, "price").get_ydata(orig=True), trades["price"].to_numpy())
    below: Any = price.figure.axes[1]
    assert sum(bar.get_height() for bar in below.patches) == pytest.approx(trades["volume"].sum())
    assert price.get_title(loc="left") == "BTCUSDT: price and volume"
    assert price.get_ylabel() == "price (quote currency)"
    assert below.get_xlabel() == "time (UTC)"


def test_a_markets_history_shows_what_was_traded_in_each_bar(lab):
    trades, history = lab.events(el.MarketData), lab.history(el.Trades, "market/BTCUSDT", every="1s")
    price: Any = plot_market(history)
    np.testing.assert_array_equal(line(price, "VWAP").get_ydata(orig=True), history["vwap"].to_numpy())
    heights = [bar.get_height() for bar in price.figure.axes[1].patches]
    assert sum(heights) == pytest.approx(trades["volume"].sum())
    assert len(heights) == len(history)
    np.testing.assert_allclose(np.cumsum(heights), history["volume"].to_numpy())


def test_a_book_shows_the_size_up_to_each_price(lab):
    state = lab.state(el.OrderBook, "book/BTCUSDT")
    axes = plot_book(state, levels=4)
    for label in ("bids", "asks"):
        side = getattr(state, label).head(4)
        np.testing.assert_array_equal(line(axes, label).get_xdata()[1:], side["price"].to_numpy())
        np.testing.assert_array_equal(line(axes, label).get_ydata(), [0.0, *np.cumsum(side["size"].to_numpy())])
    assert axes.get_title(loc="left") == f"book/BTCUSDT, version {state.version:,}"


def test_a_book_of_one_side_is_drawn_and_an_empty_one_refused():
    with el.open(":memory:") as lab:
        lab.append("book/X", el.BookChange("X", "ask", 10.0, 1.0))
        axes: Any = plot_book(lab.state(el.OrderBook, "book/X"))
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["asks"]
        plt.close("all")
        with pytest.raises(PlotError, match="is empty at version 0"):
            plot_book(lab.state(el.OrderBook, "book/X", 0))
        assert not plt.get_fignums()


@pytest.mark.parametrize("levels", [0, -1, True, 2.5])
def test_invalid_levels_are_refused(lab, levels):
    with pytest.raises(PlotError, match="levels"):
        plot_book(lab.state(el.OrderBook, "book/BTCUSDT"), levels=levels)


def test_trades_of_several_markets_are_refused(lab):
    trades = lab.events(el.MarketData)
    other = trades.with_columns(symbol=pl.lit("ETHUSDT"))
    with pytest.raises(PlotError, match="several markets; got BTCUSDT, ETHUSDT"):
        plot_market(pl.concat([trades, other]))


def test_an_invalid_book_is_refused(lab):
    with pytest.raises(PlotError, match="not the state of a book"):
        plot_book(lab.state(el.Trades, "market/BTCUSDT"))
    with pytest.raises(PlotError, match="not the state of a book"):
        plot_book(None)


def test_text_where_numbers_belong_is_refused(lab):
    with pytest.raises(PlotError, match="column price is not numeric"):
        plot_market(lab.events(el.MarketData).with_columns(pl.col("price").cast(pl.String)))


def test_rows_without_a_time_are_left_out_and_none_left_is_refused(lab):
    history = lab.history(el.Trades, "market/BTCUSDT", at=[0, 1, 2])
    assert len(line(plot_market(history), "price").get_xdata()) == 2
    with pytest.raises(PlotError, match="no row with a time"):
        plot_market(history.head(1))


def test_one_trade_is_drawn(lab):
    plot_market(lab.events(el.MarketData).head(1)).figure.canvas.draw()
