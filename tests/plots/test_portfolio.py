from __future__ import annotations

from typing import Any

import numpy as np

import eventlab as el
from eventlab.plots import (
    plot_portfolio,
)
from tests.plots.helpers import line


def test_a_portfolio_shows_equity_profit_and_cash(lab):
    history = lab.history(el.Portfolio, "portfolio/a")
    panels = plot_portfolio(history).figure.axes
    for axes, label, column in zip(
        panels, ("equity", "realised profit", "cash"), ("equity", "realized_pnl", "cash"), strict=True
    ):
        assert axes.get_ylabel() == label
        np.testing.assert_array_equal(line(axes, label).get_ydata(orig=True), history[column].to_numpy())
        np.testing.assert_array_equal(
            line(axes, label).get_xdata(orig=True), history["timestamp"].dt.replace_time_zone(None).to_numpy()
        )


def test_a_market_lies_behind_a_portfolio_on_its_own_scale(lab):
    trades = lab.events(el.MarketData)
    top: Any = plot_portfolio(lab.history(el.Portfolio, "portfolio/a"), trades)
    behind = next(axes for axes in top.figure.axes if axes.get_ylabel() == "price (quote currency)")
    np.testing.assert_array_equal(behind.get_lines()[0].get_ydata(orig=True), trades["price"].to_numpy())
    assert behind.get_zorder() < top.get_zorder()
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["equity", "market price (right)"]
