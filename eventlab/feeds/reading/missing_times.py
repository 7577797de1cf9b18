"""Fills missing exchange times: with the time of the row before, or at the start with the next one."""

from __future__ import annotations

from collections.abc import Callable, Collection

import polars as pl


class MissingTimes:
    """Fills null timestamps per symbol, in output order.

    A symbol without any exchange time in the file gets capture times.

    Parameters
    ----------
    timed : callable
        Returns the symbols with an exchange time anywhere in the file; called on first need.
    """

    def __init__(self, timed: Callable[[], Collection[str]]) -> None:
        self._timed = timed
        self._last: dict[str, int] = {}
        self.pending: pl.DataFrame | None = None
        """Rows held back until each symbol has its first time."""

    def fill(self, frame: pl.DataFrame, *, at_end: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Fill a frame, together with the rows held back before.

        Parameters
        ----------
        frame : polars.DataFrame
            With `symbol`, `timestamp` (int64 ns, nulls), `received_at` (int64 ns).
        at_end : bool
            True for the last frame: no rows are held back.

        Returns
        -------
        on_exchange_clock, on_capture_clock : polars.DataFrame
            Both are empty until each symbol has its first time.
        """
        if self.pending is not None:
            frame = self.pending if at_end else pl.concat([self.pending, frame], how="diagonal")
            self.pending = None
        if not frame["timestamp"].null_count():
            self._remember(frame)
            return frame, frame.clear()
        filled = frame.with_columns(pl.col("timestamp").forward_fill().over("symbol"))
        leading = filled.filter(pl.col("timestamp").is_null())["symbol"].unique().to_list()
        starts = {symbol: self._last[symbol] for symbol in leading if symbol in self._last}
        if starts:
            known = pl.col("symbol").replace_strict(starts, default=None, return_dtype=pl.Int64)
            filled = filled.with_columns(pl.col("timestamp").fill_null(known))
        if len(starts) < len(leading):
            filled = filled.with_columns(pl.col("timestamp").backward_fill().over("symbol"))
        untimed = filled.filter(pl.col("timestamp").is_null())["symbol"].unique().to_list()
        if untimed and not at_end and set(untimed) & set(self._timed()):
            self.pending = frame
            return frame.clear(), frame.clear()
        self._remember(filled)
        on_capture = pl.col("symbol").is_in(untimed)
        captured = filled.filter(on_capture).with_columns(pl.col("received_at").alias("timestamp"))
        return (filled.filter(~on_capture), captured) if untimed else (filled, captured)

    def _remember(self, frame: pl.DataFrame) -> None:
        last = frame.group_by("symbol").agg(pl.col("timestamp").last()).drop_nulls()
        self._last.update(zip(last["symbol"].to_list(), last["timestamp"].to_list(), strict=True))
