"""Exchange times that are missing: a row without one takes the row before's, the first rows the next one's."""

from __future__ import annotations

from collections.abc import Callable, Collection

import polars as pl


class NullTimes:
    """Fills null `timestamp`s, each symbol for itself, in the order of output.

    A symbol that has no exchange time in the whole file is on the capture clock.

    Parameters
    ----------
    timed : callable
        Returns the symbols that have an exchange time somewhere; called when it first matters.
    """

    def __init__(self, timed: Callable[[], Collection[str]]) -> None:
        self._timed = timed
        self._last: dict[str, int] = {}
        self._held: list[pl.DataFrame] = []

    def fill(self, frame: pl.DataFrame, *, at_end: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Fill a frame, together with what was held back.

        Parameters
        ----------
        frame : polars.DataFrame
            With `symbol`, `timestamp` (int64 ns, nulls), `received_at` (int64 ns).
        at_end : bool
            Nothing follows: nothing is held back.

        Returns
        -------
        on_exchange_clock, on_capture_clock : polars.DataFrame
            Both empty while a symbol's first time is still to come.
        """
        if self._held:
            frame = pl.concat([*self._held, frame], how="diagonal") if len(frame) else pl.concat(self._held)
            self._held = []
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
            self._held = [frame]
            return frame.clear(), frame.clear()
        self._remember(filled)
        on_capture = pl.col("symbol").is_in(untimed)
        captured = filled.filter(on_capture).with_columns(pl.col("received_at").alias("timestamp"))
        return (filled.filter(~on_capture), captured) if untimed else (filled, captured)

    def _remember(self, frame: pl.DataFrame) -> None:
        last = frame.group_by("symbol").agg(pl.col("timestamp").last()).drop_nulls()
        self._last.update(zip(last["symbol"].to_list(), last["timestamp"].to_list(), strict=True))
