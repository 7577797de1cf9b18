"""Charts draw what they are given, on the axes they are given, and touch nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import polars as pl
import pytest

import eventlab as el
from eventlab.errors import PlotError
from eventlab.plots import (
    plot_book,
    plot_latency_by_length,
    plot_market,
    plot_pareto,
    plot_placement,
    plot_portfolio,
    plot_snapshot_intervals,
)
from tests.plots.helpers import DENSITY, EVIL, INTERVALS, LENGTHS, MARKED, TRIALS, WITH_SNAPSHOTS

CHARTS = {
    "market": lambda lab, ax=None: plot_market(lab.events(el.MarketData), ax=ax),
    "market history": lambda lab, ax=None: plot_market(lab.history(el.Trades, "market/BTCUSDT", every="1s"), ax=ax),
    "portfolio": lambda lab, ax=None: plot_portfolio(lab.history(el.Portfolio, "portfolio/a"), ax=ax),
    "portfolio and market": lambda lab, ax=None: plot_portfolio(
        lab.history(el.Portfolio, "portfolio/a"), lab.events(el.MarketData), ax=ax
    ),
    "book": lambda lab, ax=None: plot_book(lab.state(el.OrderBook, "book/BTCUSDT"), ax=ax),
    "intervals": lambda lab, ax=None: plot_snapshot_intervals(INTERVALS, ax=ax),
    "marked intervals": lambda lab, ax=None: plot_snapshot_intervals(MARKED, ax=ax),
    "lengths": lambda lab, ax=None: plot_latency_by_length(LENGTHS, ax=ax),
    "lengths with snapshots": lambda lab, ax=None: plot_latency_by_length(WITH_SNAPSHOTS, ax=ax),
    "pareto": lambda lab, ax=None: plot_pareto(TRIALS, ax=ax),
    "placement": lambda lab, ax=None: plot_placement(DENSITY, {"a": [2, 4], EVIL: []}, ax=ax),
}


@pytest.fixture(params=CHARTS)
def chart(request):
    return CHARTS[request.param]


def test_a_chart_without_axes_makes_one_figure_and_returns_its_axes(lab, chart):
    axes = chart(lab)
    assert isinstance(axes, mpl.axes.Axes)
    assert plt.get_fignums() == [plt.gcf().number]
    assert axes.figure is plt.gcf()
    axes.figure.canvas.draw()
    assert all(one.get_ylabel() for one in axes.figure.axes)
    assert axes.figure.axes[0].get_title(loc="left")
    assert any(one.get_xlabel() for one in axes.figure.axes)


def test_a_chart_uses_the_axes_it_is_given(lab, chart):
    figure, (left, right) = plt.subplots(1, 2)
    assert chart(lab, ax=left) is left
    assert plt.get_fignums() == [figure.number]
    assert not right.has_data()
    figure.canvas.draw()


def test_a_chart_fits_axes_that_were_placed_by_hand(lab, chart):
    figure = plt.figure()
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    assert chart(lab, ax=axes) is axes
    figure.canvas.draw()
    for one in figure.axes:
        box = one.get_position()
        assert box.x0 >= 0.099
        assert box.y0 >= 0.099
        assert box.x1 <= 0.901
        assert box.y1 <= 0.901


def test_a_chart_changes_no_settings(lab, chart):
    before = mpl.rcParams.copy()
    chart(lab)
    assert mpl.rcParams == before


def test_a_chart_is_drawn_on_subfigures(lab, chart):
    figure = plt.figure(layout="constrained")
    left, _ = figure.subfigures(1, 2)
    axes = left.subplots()
    assert chart(lab, ax=axes) is axes
    figure.canvas.draw()


def test_axes_are_axes(lab, chart):
    with pytest.raises(PlotError, match="ax must be matplotlib axes"):
        chart(lab, ax=plt.figure())


def test_names_from_data_are_shown_as_they_are(tmp_path):
    with el.open(":memory:") as lab:
        lab.append(EVIL, [el.MarketData(EVIL, 1.0, 1.0), el.MarketData(EVIL, 2.0, 1.0)])
        lab.append(f"book {EVIL}", el.BookChange(EVIL, "bid", 1.0, 1.0))
        drawn: list[Any] = [plot_market(lab.events(el.MarketData)), plot_book(lab.state(el.OrderBook, f"book {EVIL}"))]
        for axes in drawn:
            axes.figure.savefig(tmp_path / "chart.png")
            axes.figure.savefig(tmp_path / "chart.svg")
            assert "<script>" not in (tmp_path / "chart.svg").read_text()
            shown, mathematics = axes.title._preprocess_math(axes.get_title(loc="left"))
            assert not mathematics
            assert EVIL in shown


@pytest.mark.parametrize(
    ("draw", "columns"),
    [
        (plot_market, ("timestamp", "price", "volume")),
        (plot_market, ("timestamp", "last", "vwap", "volume")),
        (plot_portfolio, ("timestamp", "equity", "realized_pnl", "cash")),
        (plot_snapshot_intervals, INTERVALS.columns),
        (plot_latency_by_length, LENGTHS.columns),
        (plot_pareto, ("policy", "workload", "budget", "bytes", "latency_p99_ms")),
    ],
)
def test_frames_that_cannot_be_drawn_are_refused_and_leave_no_figure(draw, columns):
    empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64) | {"timestamp": pl.Datetime("ns", "UTC")})
    with pytest.raises(PlotError, match="no rows"):
        draw(empty)
    with pytest.raises(PlotError, match="lacks"):
        draw(empty.drop(columns[-1]))
    with pytest.raises(PlotError, match="must be a Polars frame"):
        draw({"price": [1.0]})
    assert not plt.get_fignums()


def test_importing_eventlab_loads_no_matplotlib_and_neither_do_its_plots():
    check = "import sys, eventlab as el; assert not {'matplotlib', 'polars', 'numba'} & set(sys.modules), 1; "
    check += "el.plots.plot_market; el.experiments.snapshot_intervals; assert 'matplotlib' not in sys.modules, 2"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
