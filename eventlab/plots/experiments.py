"""Charts of experiments: what snapshots cost and save, and how replaying grows with history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from eventlab.plots import _look, _series

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_snapshot_intervals(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Median and 99th percentile of reconstruction latency by snapshot interval, over the bytes snapshots take.

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
    with _look.drawing(ax) as axes:
        behind = _look.twin(axes, _look.MUTED)
        behind.bar(places, _series.numbers(rows, "bytes"), width=0.5, color=_look.LINES, label="size (right)")
        behind.set_zorder(axes.get_zorder() - 1)
        axes.patch.set_visible(False)
        axes.vlines(places, median, rare, color=_look.BLUE, linewidth=1.2, alpha=0.5)
        axes.plot(places, rare, "_", color=_look.BLUE, markersize=14, markeredgewidth=1.8, label="99th percentile")
        axes.plot(places, median, "o", color=_look.BLUE, markersize=7, label="median")
        for place, value in zip(places, median, strict=True):
            axes.annotate(
                f"{value:,.3g} ms", (place, value), xytext=(9, 0), textcoords="offset points", va="center",
                fontsize=9.0, color=_look.INK,
            )  # fmt: skip
        axes.set_ylim(bottom=0.0, top=float(np.nanmax(rare)) * 1.12 or None)
        axes.set_xlim(-0.6, len(rows) - 0.4)
        labels = ["none" if interval is None else f"{interval:,}" for interval in rows["interval"]]
        axes.set_xticks(places, labels)
        axes.set_xlabel("events between snapshots")
        axes.set_ylabel("latency (ms)")
        behind.set_ylabel("size of all snapshots")
        behind.grid(visible=False)
        _look.thousands(axes)
        _look.binary(behind)
        _look.headed(axes, "Reconstructing a past state, by snapshot interval", axes, behind)
    return axes


def plot_latency_by_length(frame: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Latency of a full replay by length of history, both logarithmic, with the line of the highest rate reached.

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
    length, latency = _series.numbers(rows, "version"), _series.numbers(rows, "latency_ms")
    best = float(np.nanmax(_series.numbers(rows, "events_per_second")))
    with _look.drawing(ax) as axes:
        guide = f"at {_rate(best)} events a second"
        axes.plot(length, length / best * 1e3, color=_look.ORANGE, linestyle=(0, (4, 3)), linewidth=1.2, label=guide)
        axes.plot(length, latency, "o-", color=_look.BLUE, markersize=5, label="measured")
        _look.logarithmic(axes)
        # Where the guide falls far below what is measured, the measurements are what to look at.
        axes.set_ylim(bottom=float(np.nanmin(latency)) / 4.0)
        axes.set_xlabel("length of history (events)")
        axes.set_ylabel("latency (ms)")
        _look.headed(axes, "Replaying a history from its first event", axes)
    return axes


def _rate(events_per_second: float) -> str:
    for size, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if events_per_second >= size:
            return f"{events_per_second / size:.3g} {unit}"
    return f"{events_per_second:.3g}"
