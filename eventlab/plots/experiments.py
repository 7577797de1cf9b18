"""Charts of experiments: costs and benefits of snapshots, and latency by length of history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import PlotError
from eventlab.plots import series, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.RED, style.PURPLE, style.SKY)
_FILLS: tuple[Any, ...] = ("full", "none", "left", "bottom")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))

_WIDE, _PEAK = 20.0, 100.0
"""Ratios of the highest to the lowest latency, and of the peak to the mean of reads, above which an axis is
logarithmic."""


def plot_snapshot_intervals(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Median and 99th percentile of reconstruction latency by snapshot interval, and the bytes of the snapshots.

    Marks the interval with the lowest total time of building and reading, and Young's interval for as many reads.

    Parameters
    ----------
    frame : polars.DataFrame
        From :func:`eventlab.experiments.snapshot_intervals`.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of latency; those of bytes are its twin.

    Raises
    ------
    PlotError
        No rows, or other columns.
    """
    wanted = ("interval", "bytes", "latency_p50_ms", "latency_p99_ms")
    rows = series.require(frame, wanted, "a comparison of intervals").sort("interval", nulls_last=True)
    places = np.arange(len(rows))
    median, rare = series.numbers(rows, "latency_p50_ms"), series.numbers(rows, "latency_p99_ms")
    labels = ["none" if interval is None else f"{interval:,}" for interval in rows["interval"]]
    with style.drawing(ax) as axes:
        behind = style.right_axis(axes)
        behind.bar(places, series.numbers(rows, "bytes"), width=0.5, color=style.LINES, label="size (right)")
        axes.vlines(places, median, rare, color=style.BLUE, linewidth=1.2, alpha=0.5)
        axes.plot(places, rare, "_", color=style.BLUE, markersize=14, markeredgewidth=1.8, label="99th percentile")
        axes.plot(places, median, "o", color=style.BLUE, markersize=7, label="median")
        for place, value in zip(places, median, strict=True):
            style.label_point(axes, f"{value:,.3g} ms", (float(place), float(value)), (11.0, 0.0))
        if {"reads", "total_seconds"} <= set(rows.columns):
            best = int(np.nanargmin(series.numbers(rows, "total_seconds")))
            axes.plot(
                best, median[best], "o", color=style.RED, markersize=14, markerfacecolor="none", markeredgewidth=1.6,
                label=f"optimum for {rows['reads'][best]:,} reads: {labels[best]}",
            )  # fmt: skip
        young = rows["young"][0] if "young" in rows.columns else None
        if young is not None:
            axes.axvline(
                _place(rows["interval"], young), color=style.GREEN, linewidth=1.4, linestyle=(0, (4, 3)),
                label=f"Young: {young:,.0f}", zorder=1.5,
            )  # fmt: skip
        _latency_axis(axes, float(np.nanmin(median)), float(np.nanmax(rare)))
        axes.set_xlim(-0.6, len(rows) - 0.2)  # room for the last label
        axes.set_xticks(places, labels)
        axes.set_xlabel("events between snapshots")
        axes.set_ylabel("latency (ms)")
        behind.set_ylabel("size of all snapshots")
        style.bytes_y(behind)
        style.set_title(axes, "Reconstructing a past state, by snapshot interval", axes, behind)
    return axes


def _latency_axis(axes: Axes, lowest: float, highest: float) -> None:
    """A linear y axis from zero, or a logarithmic one for latencies that differ widely."""
    if lowest > 0.0 and highest > _WIDE * lowest:
        style.log_y(axes)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(lowest / 1.6, highest * 1.3)
    else:
        axes.set_ylim(bottom=0.0, top=highest * 1.12 or None)
        style.thousands(axes.yaxis)


def _place(intervals: pl.Series, interval: float) -> float:
    """The place of an interval between those shown, by its logarithm; at most nearly half a place beyond them."""
    shown = intervals.drop_nulls().to_numpy()
    if not len(shown) or not interval > 0.0:
        raise PlotError(
            "the interval cannot be marked", got=interval, expected="above 0, with other intervals to compare"
        )
    if shown[0] <= interval <= shown[-1]:
        return float(np.interp(np.log(interval), np.log(shown), np.arange(len(shown))))
    return -0.45 if interval < shown[0] else len(shown) - 0.55


def plot_latency_by_length(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Latency by length of history, both logarithmic: a full replay, and with snapshots if measured.

    A dashed line shows the highest rate of events of a full replay.

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
    from matplotlib.ticker import EngFormatter

    rows = series.require(frame, ("version", "latency_ms", "events_per_second"), "latency by length").sort("version")
    length = series.numbers(rows, "version")
    best = float(np.nanmax(series.numbers(rows, "events_per_second")))
    ways = [("latency_ms", "full replay", "o-", style.BLUE)]
    if "latency_with_ms" in rows.columns:
        ways.append(("latency_with_ms", "with snapshots", "s-", style.GREEN))
    with style.drawing(ax) as axes:
        for column, label, mark, colour in ways:
            axes.plot(length, series.numbers(rows, column), mark, color=colour, markersize=5, label=label)
        axes.plot(
            length, length / best * 1e3, color=style.ORANGE, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1.5,
            label=f"at {EngFormatter(places=0)(best)} events per second",
        )  # fmt: skip
        style.log_log(axes)
        # Keeps the measurements in view if the dashed line is far below them.
        axes.set_ylim(bottom=min(float(np.nanmin(series.numbers(rows, column))) for column, *_ in ways) / 4.0)
        axes.set_xlabel("length of history (events)")
        axes.set_ylabel("latency (ms)")
        style.set_title(axes, "Reconstructing a state, by length of history", axes)
    return axes


def plot_pareto(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Bytes of snapshots against the 99th percentile of latency: a point per policy, workload and budget.

    Colours are policies and marks are workloads; a point is the median over seeds. A line per workload is its Pareto
    front of bytes and latency.

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
    rows = series.require(frame, ("policy", "workload", "budget", "bytes", "latency_p99_ms"), "a comparison")
    rows = rows.group_by("policy", "workload", "budget", maintain_order=True).agg(
        pl.col("bytes", "latency_p99_ms").cast(pl.Float64).median()
    )
    policies, workloads = (rows[name].unique(maintain_order=True).to_list() for name in ("policy", "workload"))
    sizes = series.numbers(rows, "bytes")
    height = style.FIGURE_HEIGHT + 0.2 * ((len(policies) + len(workloads)) // 2)
    with style.drawing(ax, height=height) as axes:
        for at, workload in enumerate(workloads):
            own = rows.filter(pl.col("workload") == workload)
            size, latency = series.numbers(own, "bytes"), series.numbers(own, "latency_p99_ms")
            best = _pareto_front(size, latency)
            axes.step(
                size[best], latency[best], where="post", color=style.MUTED, linewidth=0.9,
                linestyle=_DASHES[at % len(_DASHES)], zorder=1.5,
            )  # fmt: skip
            for number, policy in enumerate(policies):
                some = own.filter(pl.col("policy") == policy)
                axes.plot(
                    series.numbers(some, "bytes"), series.numbers(some, "latency_p99_ms"), _MARKS[at % len(_MARKS)],
                    color=_COLOURS[number % len(_COLOURS)], fillstyle=_FILLS[number // len(_COLOURS) % len(_FILLS)],
                    markersize=7, label=None if at else style.abbreviate(policy),
                )  # fmt: skip
        for at, workload in enumerate(workloads):
            axes.plot(
                [], [], _MARKS[at % len(_MARKS)], color=style.MUTED, linestyle=_DASHES[at % len(_DASHES)],
                linewidth=0.9, label=f"reads: {style.abbreviate(workload)}",
            )  # fmt: skip
        style.log_y(axes)
        style.log_bytes_x(axes, sizes)
        axes.set_xlabel("size of all snapshots")
        axes.set_ylabel("latency, 99th percentile (ms)")
        style.set_title(axes, "Snapshot policies: size and latency", axes, columns=2)
    return axes


def _pareto_front(size: series.FloatArray, latency: series.FloatArray) -> npt.NDArray[np.int64]:
    """Rows of the Pareto front of size and latency, by size."""
    order = np.lexsort((latency, size))
    before = np.concatenate([[np.inf], np.minimum.accumulate(latency[order])[:-1]])
    return order[latency[order] < before]


def plot_placement(density: series.FloatArray, placements: Mapping[str, npt.ArrayLike], ax: Axes | None = None) -> Axes:
    """The versions of snapshots, one row per policy, below the density of reads.

    Parameters
    ----------
    density : float64 array, shape (head + 1,)
        Density of reads by version: ``Workload.density(head)``.
    placements : mapping of str to int64 array
        Versions of the snapshots, by policy.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the density; those of the snapshots are below.

    Raises
    ------
    PlotError
        Nothing to plot, or versions outside the history.
    """
    weights = np.asarray(density, np.float64)
    if weights.ndim != 1 or len(weights) < 2 or not np.isfinite(weights).all():
        raise PlotError(
            "density must be a finite number for each version", got=weights.shape, expected="shape (head + 1,)"
        )
    placed = {str(name): np.asarray(versions, np.int64) for name, versions in placements.items()}
    if not placed:
        raise PlotError("there are no placements", expected="e.g. {'Every(100)': versions}")
    head = len(weights) - 1
    for name, versions in placed.items():
        if len(versions) and not (versions.min() >= 1 and versions.max() <= head):
            raise PlotError(f"{name} has a snapshot outside the history", expected=f"versions 1 to {head}")
    with style.drawing(ax, height=3.0 + 0.45 * len(placed)) as axes:
        above, below = style.panels(axes, 1.4, 0.45 * len(placed) + 0.2)
        # In at most as many bins as pixels.
        edges = np.unique(np.linspace(0, head, min(head, series.PIXELS) + 1).astype(np.int64))
        mean = np.add.reduceat(weights[1:], edges[:-1]) / np.diff(edges)
        at = (edges[:-1] + edges[1:] + 1) / 2.0
        above.fill_between(at, mean * head, step="mid", color=style.BLUE, alpha=0.25, linewidth=0.0)
        above.step(at, mean * head, where="mid", color=style.BLUE, linewidth=1.2)
        above.set_ylim(bottom=0.0)
        if mean.max() * head > _PEAK:
            above.set_yscale("log", nonpositive="clip")
            above.set_ylim(bottom=float(mean[mean > 0.0].min()) * head / 2.0)
        style.thousands(above.yaxis)
        above.set_ylabel("reads\n(times average)")
        for row, (name, versions) in enumerate(placed.items()):
            below.plot(
                versions, np.full(len(versions), row), "|", color=_COLOURS[row % len(_COLOURS)], markersize=10,
                markeredgewidth=1.0, label=style.safe(name),
            )  # fmt: skip
            style.note(below, f"{style.safe(name)}: {len(versions):,}", (0.0, row), (2.0, 8.0), color=style.INK)
        below.set_ylim(len(placed) - 0.6, -0.9)
        below.set_yticks([])
        below.grid(visible=False)
        below.set_xlim(0, head)
        below.set_xlabel("version")
        below.set_ylabel("snapshots")
        style.thousands(below.xaxis)
        style.set_title(above, "Placement of snapshots, and reads")
    return above
