"""Fixtures of the tests of charts."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest

import eventlab as el


@pytest.fixture(autouse=True)
def _no_figures_left():
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def lab():
    with el.open(":memory:") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=500, seed=2, books=True), progress=False)
        time = lab.events(el.MarketData)["timestamp"]
        lab.append("portfolio/a", el.PortfolioChange("USD", 1_000.0, 1.0, kind="cash"), timestamp=time[0])
        lab.append(
            "portfolio/a",
            [el.PortfolioChange("BTCUSDT", 1.0, 100.0), el.PortfolioChange("BTCUSDT", -1.0, 110.0)],
            timestamp=[time[100], time[200]],
        )
        yield lab
