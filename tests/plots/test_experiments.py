from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.errors import PlotError
from eventlab.plots import (
    plot_latency_by_length,
    plot_pareto,
    plot_placement,
    plot_snapshot_intervals,
)
from eventlab.plots.experiments import _pareto_front
from tests.plots.helpers import DENSITY, INTERVALS, LENGTHS, MARKED, TRIALS, WITH_SNAPSHOTS, line


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
    rows = _pareto_front(size, latency)
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
        (np.array([1.0]), {"a": []}, "finite number for each version"),
        (np.array([0.0, np.nan]), {"a": []}, "finite number for each version"),
        (DENSITY.reshape(1, -1), {"a": []}, "finite number for each version"),
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
    np.testing.assert_allclose(line(axes, "at 500 k events per second").get_ydata(), [0.02, 2.0])
    assert len(axes.get_lines()) == 2


def test_lengths_with_and_without_snapshots():
    axes = plot_latency_by_length(WITH_SNAPSHOTS)
    np.testing.assert_array_equal(line(axes, "full replay").get_ydata(), [1.0, 2.0])
    np.testing.assert_array_equal(line(axes, "with snapshots").get_ydata(), [0.1, 0.2])
    assert axes.get_ylim()[0] < 0.1
