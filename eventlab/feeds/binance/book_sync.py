"""Binance's rule for combining a book snapshot with the stream of changes, in two columnar passes.

Changes that arrive before the snapshot are buffered. Those with a final id at or below the snapshot's are dropped; the
others are applied after it. The first pass finds each symbol's snapshots and their ids. With these the second pass
decides about all rows at once, and buffers only the early changes of a snapshot that is still to come.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.feeds.reading.file_feed import IntArray, Tally, symbol_rows

NO_ID = -1

# On these venues a symbol's ids are contiguous: an update starts one past the end of the one before. On futures venues
# all symbols share the ids (messages have a further id, which files lack), so only ids that go back are an error.
_CONTIGUOUS = frozenset({"binance", "binance-us", "binance-jersey"})


@dataclass(slots=True)
class BookSnapshots:
    """The snapshots of one symbol: 1-based first and last rows, and ids (NO_ID if the file has none)."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    _open: bool = False

    def see(self, rows: IntArray, is_snapshot: npt.NDArray[np.bool_], ids: IntArray) -> None:
        """Add the snapshots in further rows of the symbol."""
        at = np.flatnonzero(is_snapshot)
        if len(at):
            follows = np.empty(len(at), bool)  # belongs to the snapshot of the snapshot row before
            follows[0] = at[0] == 0 and self._open and self.ids[-1] == ids[0]
            follows[1:] = (np.diff(at) == 1) & (ids[at[1:]] == ids[at[:-1]])
            starts = np.flatnonzero(~follows)
            stops = np.append(starts, len(at))
            if follows[0]:
                self.last[-1] = int(rows[at[stops[0] - 1]])
            self.first += rows[at[starts]].tolist()
            self.last += rows[at[stops[1:] - 1]].tolist()
            self.ids += ids[at[starts]].tolist()
        if len(rows):
            self._open = bool(is_snapshot[-1])


def update_ids(frame: pl.DataFrame) -> IntArray:
    """Final update ids, NO_ID if missing."""
    if "update_id" not in frame.columns:
        return np.full(len(frame), NO_ID, np.int64)
    return frame["update_id"].fill_null(NO_ID).to_numpy()


class BookSync:
    """The second pass: drops, buffers and orders rows.

    Parameters
    ----------
    snapshots : dict of str to BookSnapshots
        By symbol, from the first pass.
    """

    def __init__(self, snapshots: dict[str, BookSnapshots], tally: Tally) -> None:
        self._snapshots, self._tally = snapshots, tally
        self._buffered: pl.DataFrame | None = None
        self.raised = 0
        """Number of early changes that took the time of their snapshot, because their own was lower."""

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Sort rows into the order in which they are applied.

        Parameters
        ----------
        frame : polars.DataFrame
            Consecutive rows of the file: `row` (1-based), `symbol`, `snapshot`, `update_id`, and any others. If there
            is a `timestamp`, an early change takes the snapshot's time if that is later: before it, the book is
            unknown.
        """
        if not len(frame):
            return frame
        rows, ids = frame["row"].to_numpy(), update_ids(frame)
        is_snapshot = frame["snapshot"].to_numpy()
        # Twice the row number: an early change moves to the odd place after its snapshot's last row.
        place = rows * 2
        for symbol, at in symbol_rows(frame["symbol"]):
            found = self._snapshots.get(symbol)
            if found and found.ids:
                place[at] = _places(found, rows[at], ids[at], is_snapshot[at])
        stale = place < 0
        self._tally.drop("changes that the snapshot includes", int(stale.sum()))
        end = int(rows[-1]) * 2 + 1
        if self._buffered is None and np.array_equal(place, rows * 2):
            return frame
        current = frame.with_columns(pl.Series("place", place)).filter(~pl.Series(stale))
        merged = current if self._buffered is None else pl.concat([self._buffered, current])
        waiting = merged.filter(pl.col("place") > end)
        self._buffered = waiting if len(waiting) else None
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


def _places(found: BookSnapshots, rows: IntArray, ids: IntArray, is_snapshot: npt.NDArray[np.bool_]) -> IntArray:
    """The place of each row of a symbol; -1 for a change that a snapshot includes."""
    place = rows * 2
    first, snapshot_ids = np.array(found.first), np.array(found.ids)
    begun = np.searchsorted(first, rows, side="right")  # number of snapshots that begin at or before the row
    change = ~is_snapshot
    since = np.where(begun > 0, snapshot_ids[np.maximum(begun - 1, 0)], NO_ID)
    stale = change & (begun > 0) & (ids != NO_ID) & (ids <= since)
    # A change may precede several snapshots in a row. Snapshot ids that fall mean that the ids were reset.
    follows_snapshot = np.full(len(rows), -1)
    for number in range(int(begun.min()), len(first)):
        candidates = change & ~stale & ((begun == number) | ((follows_snapshot == number - 1) & (begun < number)))
        if not candidates.any():
            if number > int(begun.max()):
                break
            continue
        reset = number > 0 and snapshot_ids[number] < snapshot_ids[number - 1]
        known = snapshot_ids[number] != NO_ID and not reset
        follows_snapshot[candidates & known & (ids > snapshot_ids[number])] = number
    stale |= change & (begun == 0) & (follows_snapshot < 0)  # no snapshot to apply them to
    moved = follows_snapshot >= 0
    place[moved] = np.array(found.last)[follows_snapshot[moved]] * 2 + 1
    place[stale] = -1
    return place


class UpdateGapDetector:
    """Finds gaps in the update ids of book changes, in the order of their application."""

    def __init__(self, exchange: str, tally: Tally) -> None:
        self._contiguous, self._tally = exchange in _CONTIGUOUS, tally
        self._last: dict[str, tuple[int, bool]] = {}

    def see(self, frame: pl.DataFrame) -> None:
        """Record gaps between consecutive updates of each symbol."""
        if "update_id" not in frame.columns or not len(frame):
            return
        final, is_snapshot, rows = update_ids(frame), frame["snapshot"].to_numpy(), frame["row"].to_numpy()
        first = frame["first_update_id"].fill_null(NO_ID).to_numpy() if "first_update_id" in frame.columns else final
        for symbol, at in symbol_rows(frame["symbol"]):
            before, after_snapshot = self._last.get(symbol, (NO_ID, False))
            begin, end, snapshot = first[at], final[at], is_snapshot[at]
            previous = np.concatenate([[before], end[:-1]])
            after_snapshots = np.concatenate([[after_snapshot], snapshot[:-1]])
            known = (previous != NO_ID) & (begin != NO_ID) & ~snapshot & ((end != previous) | after_snapshots)
            # The first update after a snapshot may begin before the snapshot's id, but must not leave a gap.
            hole = self._contiguous & (begin > previous + 1)
            broken = np.flatnonzero(known & (hole | (~after_snapshots & (begin <= previous))))
            self._tally.gap(broken, rows[at], previous, begin, symbol)
            self._last[symbol] = int(end[-1]), bool(snapshot[-1])
