"""Columns of frames as series to plot, with no more points than the pixels show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import PlotError

FloatArray = npt.NDArray[np.float64]
TimeArray = npt.NDArray[np.datetime64]

PIXELS = 1_600
"""Pixel columns of a downsampled series; each keeps its first, lowest, highest and last value."""

_STEPS_NS = tuple(
    count * unit
    for unit, counts in (
        (1_000_000, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (1_000_000_000, (1, 2, 5, 10, 15, 30)),
        (60_000_000_000, (1, 2, 5, 10, 15, 30)),
        (3_600_000_000_000, (1, 2, 4, 6, 12)),
        (86_400_000_000_000, (1, 2, 7, 14, 28, 91, 182, 364)),
    )
    for count in counts
)
_UNITS = ((86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "min"), (1_000_000_000, "s"))


def require(frame: object, columns: Sequence[str], what: str) -> pl.DataFrame:
    """The frame. Raises PlotError unless it has rows and these columns."""
    if not isinstance(frame, pl.DataFrame):
        raise PlotError(f"{what} must be a Polars frame", got=type(frame).__name__)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise PlotError(f"{what} lacks {', '.join(missing)}", got=", ".join(frame.columns) or "no columns")
    if frame.is_empty():
        raise PlotError(f"{what} has no rows")
    return frame


def in_time_order(frame: pl.DataFrame, what: str) -> tuple[pl.DataFrame, TimeArray]:
    """The rows with a time, sorted by it, and their times: the column `at` if it has times, else `timestamp`."""
    name = "at" if isinstance(frame.schema.get("at"), pl.Datetime) else "timestamp"
    if not isinstance(frame.schema.get(name), pl.Datetime):
        raise PlotError(f"{what} lacks a time", got=", ".join(frame.columns), expected="a column timestamp or at")
    if frame[name].null_count():
        frame = frame.drop_nulls(name)
    if frame.is_empty():
        raise PlotError(f"{what} has no row with a time")
    if not frame[name].is_sorted():
        frame = frame.sort(name, maintain_order=True)
    return frame, frame[name].dt.replace_time_zone(None).to_numpy().astype("datetime64[ns]")


def numbers(frame: pl.DataFrame, name: str) -> FloatArray:
    """A column as floats, with NaN for null."""
    if not frame.schema[name].is_numeric():
        raise PlotError(f"column {name} is not numeric", got=frame.schema[name])
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def downsample(moments: TimeArray, values: FloatArray, pixels: int = PIXELS) -> tuple[TimeArray, FloatArray]:
    """Reduce an ascending series to the first, lowest, highest and last value of each of `pixels` equal intervals.

    A short series is returned unchanged.
    """
    if len(values) <= 4 * pixels:
        return moments, values
    at = (moments - moments[0]).astype(np.int64)
    column = (at * (pixels / (int(at[-1]) + 1))).astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))
    interval = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    chosen = [starts, np.append(starts[1:], len(values)) - 1]
    for extreme in (np.fmin, np.fmax):
        hits = np.flatnonzero(values == extreme.reduceat(values, starts)[interval])
        _, first = np.unique(interval[hits], return_index=True)
        chosen.append(hits[first])
    rows = np.unique(np.concatenate(chosen))
    return moments[rows], values[rows]


def bin_sums(
    moments: TimeArray, values: FloatArray, most: int = 150, least: int = 1
) -> tuple[TimeArray, FloatArray, int]:
    """Sums over at most `most` equal intervals aligned to the epoch: their starts, sums, and length in ns.

    The length is a round number of at least `least`.
    """
    at = moments.astype(np.int64)
    span = int(at[-1] - at[0])
    step = next((step for step in _STEPS_NS if step >= least and span // step < most - 1), span // (most - 1) + 1)
    first = int(at[0]) // step
    totals = np.asarray(np.bincount(at // step - first, weights=np.nan_to_num(values)), np.float64)
    starts = ((first + np.arange(len(totals))) * step).astype("datetime64[ns]")
    return starts, totals, step


def duration(ns: int) -> str:
    """A duration in ns as text, e.g. ``5 min``."""
    for unit, name in _UNITS:
        if ns >= unit:
            return f"{ns / unit:g} {name}"
    return f"{ns / 1e6:g} ms"
