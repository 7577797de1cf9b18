"""Binance's rule for joining a book snapshot with the stream of changes, as two columnar passes.

Changes that arrive before the snapshot are buffered; those with a final id at or below the snapshot's are dropped; the
rest are applied after it. The first pass notes where each symbol's snapshots are and which ids they have; knowing
that, the second one decides about every row at once and holds back only changes that overtook a snapshot.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.feeds.reading.file_feed import IntArray, Tally, symbol_rows

NO_ID = -1

# Of these venues a symbol's ids are contiguous: an update starts one past the end of the one before. Futures ids are
# shared by all symbols of the venue (their messages link by a further id that files do not have), so only going back
# tells of trouble there.
_CONTIGUOUS = frozenset({"binance", "binance-us", "binance-jersey"})


@dataclass(slots=True)
class Snapshots:
    """The snapshots of one symbol: 1-based first and last rows, and ids (NO_ID where the file has none)."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    _open: bool = False

    def see(self, rows: IntArray, is_snapshot: npt.NDArray[np.bool_], ids: IntArray) -> None:
        """Note the snapshots among further rows of the symbol."""
        at = np.flatnonzero(is_snapshot)
        if len(at):
            follows = np.empty(len(at), bool)  # in the same snapshot as the snapshot row before it
            follows[0] = at[0] == 0 and self._open and self.ids[-1] == ids[0]
            follows[1:] = (np.diff(at) == 1) & (ids[at[1:]] == ids[at[:-1]])
            starts = np.flatnonzero(~follows)
            stops = np.append(starts, len(at))
            if follows[0]:
                self.last[-1] = int(rows[at[stops[0] - 1]])
            for start, stop in itertools.pairwise(stops):
                self.first.append(int(rows[at[start]]))
                self.last.append(int(rows[at[stop - 1]]))
                self.ids.append(int(ids[at[start]]))
        if len(rows):
            self._open = bool(is_snapshot[-1])


def update_ids(frame: pl.DataFrame) -> IntArray:
    """Final update ids, NO_ID where there are none."""
    if "update_id" not in frame.columns:
        return np.full(len(frame), NO_ID, np.int64)
    return frame["update_id"].fill_null(NO_ID).to_numpy()


class BookRule:
    """The second pass: drops, holds back and releases rows.

    Parameters
    ----------
    snapshots : dict of str to Snapshots
        Of each symbol, from the first pass.
    """

    def __init__(self, snapshots: dict[str, Snapshots], tally: Tally) -> None:
        self._snapshots, self._tally = snapshots, tally
        self._held: pl.DataFrame | None = None
        self.raised = 0
        """Changes that took the time of the snapshot they are applied after, because theirs was lower."""

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Put a frame's rows into the order they are to be applied in.

        Parameters
        ----------
        frame : polars.DataFrame
            Consecutive rows of the file: `row` (1-based), `symbol`, `snapshot`, `update_id`, and any others. Where
            there is a `timestamp`, a change that goes behind a snapshot with a later one takes that: before, nobody
            knew the book it belongs to.
        """
        if not len(frame):
            return frame
        rows, ids = frame["row"].to_numpy(), update_ids(frame)
        is_snapshot = frame["snapshot"].to_numpy()
        # Twice the row number: an overtaking change goes to the odd place right behind its snapshot's last row.
        place = rows * 2
        for symbol, at in symbol_rows(frame["symbol"]):
            found = self._snapshots.get(symbol)
            if found and found.ids:
                place[at] = _places(found, rows[at], ids[at], is_snapshot[at])
        stale = place < 0
        self._tally.drop("changes the snapshot already has", int(stale.sum()))
        end = int(rows[-1]) * 2 + 1
        if self._held is None and np.array_equal(place, rows * 2):
            return frame
        kept = frame.with_columns(pl.Series("place", place)).filter(~pl.Series(stale))
        merged = kept if self._held is None else pl.concat([self._held, kept])
        waiting = merged.filter(pl.col("place") > end)
        self._held = waiting if len(waiting) else None
        ready = merged.filter(pl.col("place") <= end)
        return self._in_time(ready.sort("place", maintain_order=True)).drop("place")

    def _in_time(self, ready: pl.DataFrame) -> pl.DataFrame:
        if "timestamp" not in ready.columns:
            return ready
        of_snapshot = pl.when("snapshot").then("timestamp").forward_fill().over("symbol")
        early = (pl.col("place") % 2 == 1) & (pl.col("timestamp") < of_snapshot)
        marked = ready.with_columns(early.fill_null(value=False).alias("early"), of_snapshot.alias("earliest"))
        self.raised += int(marked["early"].sum())
        raised = pl.when("early").then("earliest").otherwise("timestamp").alias("timestamp")
        return marked.with_columns(raised).drop("early", "earliest")


def _places(found: Snapshots, rows: IntArray, ids: IntArray, is_snapshot: npt.NDArray[np.bool_]) -> IntArray:
    """Where each row of a symbol goes; -1 for a change that a snapshot already contains."""
    place = rows * 2
    first, snapshot_ids = np.array(found.first), np.array(found.ids)
    begun = np.searchsorted(first, rows, side="right")  # snapshots begun at or before the row
    change = ~is_snapshot
    since = np.where(begun > 0, snapshot_ids[np.maximum(begun - 1, 0)], NO_ID)
    stale = change & (begun > 0) & (ids != NO_ID) & (ids <= since)
    # A change may have overtaken several snapshots in a row; ids that fall from one to the next tell of a reset.
    overtakes = np.full(len(rows), -1)
    for number in range(int(begun.min()), len(first)):
        candidates = change & ~stale & ((begun == number) | ((overtakes == number - 1) & (begun < number)))
        if not candidates.any():
            if number > int(begun.max()):
                break
            continue
        reset = number > 0 and snapshot_ids[number] < snapshot_ids[number - 1]
        known = snapshot_ids[number] != NO_ID and not reset
        overtakes[candidates & known & (ids > snapshot_ids[number])] = number
    stale |= change & (begun == 0) & (overtakes < 0)  # nothing to apply them to
    moved = overtakes >= 0
    place[moved] = np.array(found.last)[overtakes[moved]] * 2 + 1
    place[stale] = -1
    return place


class UpdateWatch:
    """Watches the update ids of book changes in the order they are applied."""

    def __init__(self, exchange: str, tally: Tally) -> None:
        self._contiguous, self._tally = exchange in _CONTIGUOUS, tally
        self._last: dict[str, tuple[int, bool]] = {}

    def see(self, frame: pl.DataFrame) -> None:
        """Note breaks between consecutive updates, each symbol for itself."""
        if "update_id" not in frame.columns or not len(frame):
            return
        final, is_snapshot, rows = update_ids(frame), frame["snapshot"].to_numpy(), frame["row"].to_numpy()
        first = frame["first_update_id"].fill_null(NO_ID).to_numpy() if "first_update_id" in frame.columns else final
        for symbol, at in symbol_rows(frame["symbol"]):
            self._see(symbol, first[at], final[at], is_snapshot[at], rows[at])

    def _see(
        self, symbol: str, first: IntArray, final: IntArray, is_snapshot: npt.NDArray[np.bool_], rows: IntArray
    ) -> None:
        before, after_snapshot = self._last.get(symbol, (NO_ID, False))
        previous = np.concatenate([[before], final[:-1]])
        behind = np.concatenate([[after_snapshot], is_snapshot[:-1]])
        known = (previous != NO_ID) & (first != NO_ID) & ~is_snapshot & ((final != previous) | behind)
        # The first update after a snapshot may begin before it, but must not leave a hole.
        hole = first > previous + 1 if self._contiguous else np.zeros(len(first), bool)
        broken = np.flatnonzero(known & (hole | (~behind & (first <= previous))))
        self._tally.gap(broken, rows, previous, first, symbol)
        self._last[symbol] = int(final[-1]), bool(is_snapshot[-1])
