"""Charts draw what they are given, on the axes they are given, and touch nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import PlotError
from eventlab.plots import (
    _look,
    _series,
    plot_book,
    plot_latency_by_length,
    plot_market,
    plot_pareto,
    plot_placement,
    plot_portfolio,
    plot_snapshot_intervals,
)
from eventlab.plots.experiments import _undominated

EVIL = r"$x^$ \frac{$ <script>alert(1)</script>"


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


INTERVALS = pl.DataFrame(
    {
        "interval": [None, 1_000, 100],
        "bytes": [0, 4_096, 40_960],
        "latency_p50_ms": [9.0, 2.0, 1.0],
        "latency_p99_ms": [20.0, 4.0, 2.0],
    }
)
MARKED = INTERVALS.with_columns(
    reads=pl.lit(40), total_seconds=pl.Series([0.36, 0.1, 0.2]), young=pl.lit(100 * 10**0.5)
)
LENGTHS = pl.DataFrame({"version": [1_000, 10], "latency_ms": [2.0, 1.0], "events_per_second": [500_000.0, 10_000.0]})
WITH_SNAPSHOTS = LENGTHS.with_columns(latency_with_ms=pl.Series([0.2, 0.1]))
TRIALS = pl.DataFrame(
    {
        "policy": ["a", "a", "b", "c", EVIL, "a"],
        "workload": ["all", "all", "all", "all", "all", "late"],
        "budget": [None, None, None, 5_000, None, None],
        "seed": [0, 1, 0, 0, 0, 0],
        "bytes": [1_000, 3_000, 0, 4_000, 4_000, 2_000],
        "latency_p99_ms": [1.0, 3.0, 9.0, 4.0, 1.5, 0.5],
    }
)
DENSITY = np.array([0.0, 0.1, 0.2, 0.3, 0.4])

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


def line(axes: Any, label: str) -> Any:
    return next(line for line in axes.get_lines() if line.get_label() == label)


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
def test_levels_that_make_no_sense_are_refused(lab, levels):
    with pytest.raises(PlotError, match="levels"):
        plot_book(lab.state(el.OrderBook, "book/BTCUSDT"), levels=levels)


def test_intervals_are_shown_by_length_and_none_last():
    axes = plot_snapshot_intervals(INTERVALS)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "1,000", "none"]
    np.testing.assert_array_equal(line(axes, "median").get_ydata(), [1.0, 2.0, 9.0])
    np.testing.assert_array_equal(line(axes, "99th percentile").get_ydata(), [2.0, 4.0, 20.0])
    behind: Any = axes.figure.axes[1]
    assert [bar.get_height() for bar in behind.patches] == [40_960, 4_096, 0]
    axes.figure.canvas.draw()
    assert behind.get_yticklabels()[-1].get_text().endswith("KiB")


def test_latencies_that_are_far_apart_are_shown_by_their_logarithms():
    assert plot_snapshot_intervals(INTERVALS).get_yscale() == "linear"  # twenty times, at most
    far = plot_snapshot_intervals(INTERVALS.with_columns(latency_p99_ms=pl.Series([21.0, 4.0, 2.0])))
    assert far.get_yscale() == "log"
    low, high = far.get_ylim()
    assert 0.0 < low < 1.0
    assert high > 21.0


def test_a_legend_breaks_into_rows_where_axes_are_narrow():
    whole: Any = plot_snapshot_intervals(MARKED).get_legend()
    figure = plt.figure(figsize=(9.0, 4.2), layout="constrained")
    left, _ = figure.subfigures(1, 2)
    half: Any = plot_snapshot_intervals(MARKED, ax=left.subplots()).get_legend()
    assert len({text.get_window_extent().y0 for text in whole.get_texts()}) == 1
    figure.canvas.draw()
    assert len({text.get_window_extent().y0 for text in half.get_texts()}) > 1
    assert half.get_window_extent().width < half.axes.figure.bbox.width


def test_intervals_without_any_snapshot_are_drawn():
    plot_snapshot_intervals(INTERVALS.filter(pl.col("interval").is_null())).figure.canvas.draw()


def test_the_interval_that_took_least_time_is_ringed():
    axes = plot_snapshot_intervals(MARKED)
    np.testing.assert_array_equal(line(axes, "optimum for 40 reads: 1,000").get_xydata(), [[1.0, 2.0]])
    never = MARKED.with_columns(total_seconds=pl.Series([0.1, 0.2, 0.3]))
    ring = line(plot_snapshot_intervals(never), "optimum for 40 reads: none")
    np.testing.assert_array_equal(ring.get_xydata(), [[2.0, 9.0]])


@pytest.mark.parametrize(
    ("young", "place"),
    [(100 * 10**0.5, 0.5), (100.0, 0.0), (1_000.0, 1.0), (99.0, -0.45), (1e9, 1.45), (1e-300, -0.45)],
)
def test_youngs_interval_stands_between_those_measured_by_its_logarithm(young, place):
    axes = plot_snapshot_intervals(MARKED.with_columns(young=pl.lit(young)))
    np.testing.assert_allclose(line(axes, f"Young: {young:,.0f}").get_xdata(), [place, place], atol=1e-12)


def test_an_interval_that_is_not_known_is_not_marked():
    axes = plot_snapshot_intervals(MARKED.with_columns(young=pl.lit(None, pl.Float64)))
    assert not any("Young" in one.get_label() for one in axes.get_lines())
    plt.close("all")
    for frame in (MARKED.with_columns(young=pl.lit(0.0)), MARKED.filter(pl.col("interval").is_null())):
        with pytest.raises(PlotError, match="cannot be marked"):
            plot_snapshot_intervals(frame)
    assert not plt.get_fignums()


def test_policies_are_points_and_what_none_beats_is_a_line():
    axes = plot_pareto(TRIALS)
    np.testing.assert_array_equal(line(axes, "a").get_xydata(), [[2_000.0, 2.0]])  # the median of two seeds
    steps = [one for one in axes.get_lines() if one.get_drawstyle() == "steps-post"]
    np.testing.assert_array_equal(steps[0].get_xydata(), [[0, 9.0], [2_000, 2.0], [4_000, 1.5]])
    np.testing.assert_array_equal(steps[1].get_xydata(), [[2_000, 0.5]])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:3] == ["a", "b", "c"]
    assert names[-2:] == ["reads: all", "reads: late"]
    fronts = [line(axes, name).get_linestyle() for name in names[-2:]]
    assert fronts == [one.get_linestyle() for one in steps]
    assert fronts[0] != fronts[1]
    axes.figure.canvas.draw()
    assert axes.get_xticklabels()[0].get_text() == "0"
    left, right = axes.get_xlim()
    assert left < 0
    assert right > 4_000


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_what_is_joined_is_what_nothing_beats(points):
    size, latency = (np.array(values, float) for values in zip(*points, strict=True))
    rows = _undominated(size, latency)
    beaten = [any((s <= a and t < b) or (s < a and t <= b) for s, t in points) for a, b in points]
    assert {points[row] for row in rows} == {point for point, worse in zip(points, beaten, strict=True) if not worse}
    assert list(size[rows]) == sorted(set(size[rows]))


def test_comparisons_of_any_sizes_are_drawn():
    for sizes in ([0], [0, 0], [7], [1, 10**12], [0, 3 * 2**40]):
        rows = len(sizes)
        frame = pl.DataFrame({
            "policy": [f"{n} {'long' * 30}" for n in range(rows)], "workload": ["w"] * rows, "budget": [None] * rows,
            "bytes": sizes, "latency_p99_ms": [1.0] * rows,
        })  # fmt: skip
        plot_pareto(frame).figure.canvas.draw()


def test_snapshots_are_ticks_at_their_versions_under_the_reads():
    axes = plot_placement(DENSITY, {"a": [2, 4], "none": []})
    below: Any = axes.figure.axes[1]
    np.testing.assert_array_equal(line(below, "a").get_xydata(), [[2, 0], [4, 0]])
    assert len(line(below, "none").get_xdata()) == 0
    assert [text.get_text() for text in below.texts] == ["a: 2", "none: 0"]
    assert tuple(below.get_xlim()) == (0, 4)
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.4, 0.8, 1.2, 1.6])
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [1, 2, 3, 4])


def test_reads_with_a_peak_are_shown_by_their_logarithms():
    assert plot_placement(np.array([0.0, 0.01, 0.99]), {"a": [1]}).get_yscale() == "linear"
    peak = np.zeros(1_001)
    peak[[500, 1_000]] = 0.01, 0.99
    axes = plot_placement(peak, {"a": [1]})
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert 0.0 < low < 10.0
    assert high > 990.0
    axes.figure.canvas.draw()


def test_a_long_history_is_drawn_by_means():
    weights = np.concatenate([[0.0], np.repeat([1.0, 3.0], 50_000)]) / 200_000
    drawn: Any = plot_placement(weights, {"a": np.arange(1, 100_001, 10)}).get_lines()[0]
    assert len(drawn.get_xdata()) <= 1_600
    np.testing.assert_allclose([drawn.get_ydata()[0], drawn.get_ydata()[-1]], [0.5, 1.5])


@pytest.mark.parametrize(
    ("density", "placements", "words"),
    [
        (DENSITY, {}, "no placements"),
        (DENSITY, {"a": [5]}, "a has a snapshot outside the history"),
        (DENSITY, {"a": [0]}, "outside the history"),
        (np.array([1.0]), {"a": []}, "not how often"),
        (np.array([0.0, np.nan]), {"a": []}, "not how often"),
        (DENSITY.reshape(1, -1), {"a": []}, "not how often"),
    ],
)
def test_placements_that_cannot_be_drawn_are_refused(density, placements, words):
    with pytest.raises(PlotError, match=words):
        plot_placement(density, placements)
    assert not plt.get_fignums()


def test_lengths_are_shown_logarithmically_with_the_best_rate():
    axes = plot_latency_by_length(LENGTHS)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    np.testing.assert_array_equal(line(axes, "full replay").get_xdata(), [10, 1_000])
    np.testing.assert_array_equal(line(axes, "full replay").get_ydata(), [1.0, 2.0])
    np.testing.assert_allclose(line(axes, "at 500 thousand events a second").get_ydata(), [0.02, 2.0])
    assert len(axes.get_lines()) == 2


def test_lengths_with_snapshots_lie_beside_those_without():
    axes = plot_latency_by_length(WITH_SNAPSHOTS)
    np.testing.assert_array_equal(line(axes, "full replay").get_ydata(), [1.0, 2.0])
    np.testing.assert_array_equal(line(axes, "with snapshots").get_ydata(), [0.1, 0.2])
    assert axes.get_ylim()[0] < 0.1


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


@given(st.text(max_size=80))
def test_no_text_is_mathematics(text):
    safe = _look.safe(text)
    title: Any = mpl.text.Text(text=safe)
    shown, mathematics = title._preprocess_math(safe)
    assert not mathematics
    assert len(shown) <= _look.LONGEST_NAME
    assert shown.isprintable()
    if text.isprintable() and len(text) <= _look.LONGEST_NAME:
        assert shown == text


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


def test_trades_of_several_markets_are_refused(lab):
    trades = lab.events(el.MarketData)
    other = trades.with_columns(symbol=pl.lit("ETHUSDT"))
    with pytest.raises(PlotError, match="several markets; got BTCUSDT, ETHUSDT"):
        plot_market(pl.concat([trades, other]))


def test_what_is_no_book_is_refused(lab):
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


@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=400),
    gaps=st.lists(st.integers(0, 10**9), min_size=400, max_size=400),
    pixels=st.integers(1, 20),
)
def test_thinning_keeps_what_shows(values, gaps, pixels):
    moments = np.cumsum(gaps[: len(values)]).astype("datetime64[ns]")
    numbers = np.array(values)
    times, kept = _series.thinned(moments, numbers, pixels)
    assert len(kept) <= min(len(values), 4 * pixels)
    assert (times[1:] >= times[:-1]).all()
    assert (times[0], times[-1]) == (moments[0], moments[-1])
    pairs = set(zip(moments.tolist(), map(repr, numbers), strict=True))
    assert set(zip(times.tolist(), map(repr, kept), strict=True)) <= pairs
    if not np.isnan(numbers).all():
        assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(numbers), np.nanmax(numbers))


@given(
    sizes=st.lists(st.integers(0, 1_000), min_size=1, max_size=200),
    gaps=st.lists(st.integers(0, 10**12), min_size=200, max_size=200),
    least=st.integers(1, 10**10),
)
def test_sums_leave_nothing_out(sizes, gaps, least):
    moments = (np.cumsum(gaps[: len(sizes)]) + 10**18).astype("datetime64[ns]")
    starts, totals, step = _series.summed(moments, np.array(sizes, float), least=least)
    assert totals.sum() == sum(sizes)
    assert len(totals) <= 150
    assert step >= least
    assert starts[0] <= moments[0]
    assert moments[-1] < starts[-1] + np.timedelta64(step, "ns")
    assert (starts.astype(np.int64) % step == 0).all()


def test_importing_eventlab_loads_no_matplotlib_and_neither_do_its_plots():
    check = "import sys, eventlab as el; assert not {'matplotlib', 'polars', 'numba'} & set(sys.modules), 1; "
    check += "el.plots.plot_market; el.experiments.snapshot_intervals; assert 'matplotlib' not in sys.modules, 2"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
