"""Charts of experiments: what snapshots cost and save, and how latency grows with history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import PlotError
from eventlab.plots import _look, _series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (_look.BLUE, _look.ORANGE, _look.GREEN, _look.RED, _look.PURPLE, _look.SKY)
_FILLS: tuple[Any, ...] = ("full", "none", "left", "bottom")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))

_WIDE, _PEAK = 20.0, 100.0
"""Latencies that differ so many times, and reads so many times the average, are shown by their logarithms."""


def plot_snapshot_intervals(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Median and 99th percentile of reconstruction latency by snapshot interval, over the bytes snapshots take.

    Marked are the interval that took least time to build and to read from, and Young's interval for as many reads.

    Parameters
    ----------
    frame : polars.DataFrame
        From :func:`eventlab.experiments.snapshot_intervals`.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        That of latency; the one of bytes is its twin.

    Raises
    ------
    PlotError
        No rows, or other columns.
    """
    wanted = ("interval", "bytes", "latency_p50_ms", "latency_p99_ms")
    rows = _series.require(frame, wanted, "a comparison of intervals")
    rows = rows.sort("interval", nulls_last=True)
    places = np.arange(len(rows))
    median, rare = _series.numbers(rows, "latency_p50_ms"), _series.numbers(rows, "latency_p99_ms")
    labels = ["none" if interval is None else f"{interval:,}" for interval in rows["interval"]]
    with _look.drawing(ax) as axes:
        behind = _look.twin(axes, _look.MUTED)
        behind.bar(places, _series.numbers(rows, "bytes"), width=0.5, color=_look.LINES, label="size (right)")
        behind.set_zorder(axes.get_zorder() - 1)
        axes.patch.set_visible(False)
        axes.vlines(places, median, rare, color=_look.BLUE, linewidth=1.2, alpha=0.5)
        axes.plot(places, rare, "_", color=_look.BLUE, markersize=14, markeredgewidth=1.8, label="99th percentile")
        axes.plot(places, median, "o", color=_look.BLUE, markersize=7, label="median")
        for place, value in zip(places, median, strict=True):
            _look.written(axes, f"{value:,.3g} ms", (float(place), float(value)), (11.0, 0.0))
        if {"reads", "total_seconds"} <= set(rows.columns):
            best = int(np.nanargmin(_series.numbers(rows, "total_seconds")))
            axes.plot(
                best, median[best], "o", color=_look.RED, markersize=14, markerfacecolor="none", markeredgewidth=1.6,
                label=f"optimum for {rows['reads'][best]:,} reads: {labels[best]}",
            )  # fmt: skip
        young = rows["young"][0] if "young" in rows.columns else None
        if young is not None:
            axes.axvline(
                _place(rows["interval"], young), color=_look.GREEN, linewidth=1.4, linestyle=(0, (4, 3)),
                label=f"Young: {young:,.0f}", zorder=1.5,
            )  # fmt: skip
        _latencies_upward(axes, float(np.nanmin(median)), float(np.nanmax(rare)))
        axes.set_xlim(-0.6, len(rows) - 0.2)  # room for the last one's words
        axes.set_xticks(places, labels)
        axes.set_xlabel("events between snapshots")
        axes.set_ylabel("latency (ms)")
        behind.set_ylabel("size of all snapshots")
        behind.grid(visible=False)
        _look.binary(behind)
        _look.headed(axes, "Reconstructing a past state, by snapshot interval", axes, behind)
    return axes


def _latencies_upward(axes: Axes, lowest: float, highest: float) -> None:
    """From zero; logarithmic where that would press most of them to the ground."""
    if lowest > 0.0 and highest > _WIDE * lowest:
        _look.logarithmic_upward(axes)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(lowest / 1.6, highest * 1.3)
    else:
        axes.set_ylim(bottom=0.0, top=highest * 1.12 or None)
        _look.thousands(axes)


def _place(intervals: pl.Series, interval: float) -> float:
    """Where an interval belongs between those shown, by its logarithm; nearly half a place beyond them at most."""
    shown = intervals.drop_nulls().to_numpy()
    if not len(shown) or not interval > 0.0:
        raise PlotError("an interval cannot be marked here", got=interval, expected="one above 0, beside others")
    if shown[0] <= interval <= shown[-1]:
        return float(np.interp(np.log(interval), np.log(shown), np.arange(len(shown))))
    return -0.45 if interval < shown[0] else len(shown) - 0.55


def plot_latency_by_length(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Latency by length of history, both logarithmic: of a full replay, and with snapshots where that was measured.

    A dashed line has the highest rate of events that a full replay reached.

    Parameters
    ----------
    frame : polars.DataFrame
        From :func:`eventlab.experiments.latency_by_length`.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    PlotError
        No rows, or other columns.
    """
    rows = _series.require(frame, ("version", "latency_ms", "events_per_second"), "latency by length").sort("version")
    length = _series.numbers(rows, "version")
    best = float(np.nanmax(_series.numbers(rows, "events_per_second")))
    ways = [("latency_ms", "full replay", "o-", _look.BLUE)]
    if "latency_with_ms" in rows.columns:
        ways.append(("latency_with_ms", "with snapshots", "s-", _look.GREEN))
    with _look.drawing(ax) as axes:
        for column, label, mark, colour in ways:
            axes.plot(length, _series.numbers(rows, column), mark, color=colour, markersize=5, label=label)
        axes.plot(
            length, length / best * 1e3, color=_look.ORANGE, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1.5,
            label=f"at {_rate(best)} events a second",
        )  # fmt: skip
        _look.logarithmic(axes)
        # Where the guide falls far below what is measured, the measurements are what to look at.
        axes.set_ylim(bottom=min(float(np.nanmin(_series.numbers(rows, column))) for column, *_ in ways) / 4.0)
        axes.set_xlabel("length of history (events)")
        axes.set_ylabel("latency (ms)")
        _look.headed(axes, "Reconstructing a state, by length of history", axes)
    return axes


def _rate(events_per_second: float) -> str:
    for size, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if events_per_second >= size:
            return f"{events_per_second / size:.3g} {unit}"
    return f"{events_per_second:.3g}"


def plot_pareto(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Bytes of snapshots against the 99th percentile of latency: a point per policy, workload and budget.

    Colours tell policies, and marks workloads; of several seeds the median counts. A line for each workload joins what
    no other policy beats in both bytes and latency.

    Parameters
    ----------
    frame : polars.DataFrame
        That of :func:`eventlab.experiments.compare`.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    PlotError
        No rows, or other columns.
    """
    rows = _series.require(frame, ("policy", "workload", "budget", "bytes", "latency_p99_ms"), "a comparison")
    rows = rows.group_by("policy", "workload", "budget", maintain_order=True).agg(
        pl.col("bytes", "latency_p99_ms").cast(pl.Float64).median()
    )
    policies, workloads = (rows[name].unique(maintain_order=True).to_list() for name in ("policy", "workload"))
    sizes = _series.numbers(rows, "bytes")
    height = _look.FIGURE_HEIGHT + 0.2 * ((len(policies) + len(workloads)) // 2)
    with _look.drawing(ax, height=height) as axes:
        for at, workload in enumerate(workloads):
            own = rows.filter(pl.col("workload") == workload)
            best = _undominated(_series.numbers(own, "bytes"), _series.numbers(own, "latency_p99_ms"))
            axes.step(
                _series.numbers(own, "bytes")[best], _series.numbers(own, "latency_p99_ms")[best], where="post",
                color=_look.MUTED, linewidth=0.9, linestyle=_DASHES[at % len(_DASHES)], zorder=1.5,
            )  # fmt: skip
            for number, policy in enumerate(policies):
                some = own.filter(pl.col("policy") == policy)
                axes.plot(
                    _series.numbers(some, "bytes"), _series.numbers(some, "latency_p99_ms"), _MARKS[at % len(_MARKS)],
                    color=_COLOURS[number % len(_COLOURS)], fillstyle=_FILLS[number // len(_COLOURS) % len(_FILLS)],
                    markersize=7, label=None if at else _look.shortened(policy),
                )  # fmt: skip
        for at, workload in enumerate(workloads):
            axes.plot(
                [], [], _MARKS[at % len(_MARKS)], color=_look.MUTED, linestyle=_DASHES[at % len(_DASHES)],
                linewidth=0.9, label=f"reads: {_look.shortened(workload)}",
            )  # fmt: skip
        _look.logarithmic_upward(axes)
        _look.bytes_across(axes, sizes)
        axes.set_xlabel("size of all snapshots")
        axes.set_ylabel("latency, 99th percentile (ms)")
        _look.headed_above(axes, "Snapshot policies: what they take, and how soon they answer")
    return axes


def _undominated(size: _series.FloatArray, latency: _series.FloatArray) -> npt.NDArray[np.int64]:
    """Rows that no other has both fewer bytes and less latency than, by bytes."""
    order = np.lexsort((latency, size))
    before = np.concatenate([[np.inf], np.minimum.accumulate(latency[order])[:-1]])
    return order[latency[order] < before]


def plot_placement(
    density: _series.FloatArray, placements: Mapping[str, npt.ArrayLike], ax: Axes | None = None
) -> Axes:
    """Where snapshots lie, a row a policy, under how often each version is read.

    Parameters
    ----------
    density : float64 array, shape (head + 1,)
        Of reads by version: ``Workload.density(head)``.
    placements : mapping of str to int64 array
        Versions of the snapshots, by the name of what placed them.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        That of the density; the one of the snapshots is below it.

    Raises
    ------
    PlotError
        Nothing to draw, or versions beyond the history.
    """
    weights = np.asarray(density, np.float64)
    if weights.ndim != 1 or len(weights) < 2 or not np.isfinite(weights).all():
        raise PlotError("not how often versions are read", got=weights.shape, expected="a number for each version")
    placed = {str(name): np.asarray(versions, np.int64) for name, versions in placements.items()}
    if not placed:
        raise PlotError("there are no placements to draw", expected="e.g. {'Every(100)': versions}")
    head = len(weights) - 1
    for name, versions in placed.items():
        if len(versions) and not (versions.min() >= 1 and versions.max() <= head):
            raise PlotError(f"{name} has a snapshot outside the history", expected=f"versions 1 to {head}")
    with _look.drawing(ax, height=3.0 + 0.45 * len(placed)) as axes:
        above, below = _look.panels(axes, 1.4, 0.45 * len(placed) + 0.2)
        at, mean = _binned(weights[1:])
        above.fill_between(at, mean * head, step="mid", color=_look.BLUE, alpha=0.25, linewidth=0.0)
        above.step(at, mean * head, where="mid", color=_look.BLUE, linewidth=1.2)
        above.set_ylim(bottom=0.0)
        if mean.max() * head > _PEAK:
            above.set_yscale("log", nonpositive="clip")
            above.set_ylim(bottom=float(mean[mean > 0.0].min()) * head / 2.0)
        _look.thousands(above)
        above.set_ylabel("reads\n(times average)")
        for row, (name, versions) in enumerate(placed.items()):
            below.plot(
                versions, np.full(len(versions), row), "|", color=_COLOURS[row % len(_COLOURS)], markersize=10,
                markeredgewidth=1.0, label=_look.safe(name),
            )  # fmt: skip
            below.annotate(
                f"{_look.safe(name)}: {len(versions):,}", (0.0, row), xytext=(2, 8), textcoords="offset points",
                fontsize=9.0, color=_look.INK,
            )  # fmt: skip
        below.set_ylim(len(placed) - 0.6, -0.9)
        below.set_yticks([])
        below.grid(visible=False)
        below.set_xlim(0, head)
        below.set_xlabel("version")
        below.set_ylabel("snapshots")
        _look.thousands_across(below)
        _look.headed(above, "Where snapshots lie, and what is read")
    return above


def _binned(weights: _series.FloatArray) -> tuple[_series.FloatArray, _series.FloatArray]:
    """Middles and means of no more stretches of versions than pixels can show."""
    edges = np.unique(np.linspace(0, len(weights), min(len(weights), _series.PIXELS) + 1).astype(np.int64))
    means = np.add.reduceat(weights, edges[:-1]) / np.diff(edges)
    return (edges[:-1] + edges[1:] + 1) / 2.0, means
