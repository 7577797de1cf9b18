"""`el.open`: the one place that chooses the built-in store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eventlab.lab.lab import Lab
from eventlab.store.api import Codec, Durability
from eventlab.store.event_log import EventLog


def open(  # noqa: A001  el.open reads as it should
    path: str | Path,
    *,
    clock: Callable[[], int] | None = None,
    read_only: bool = False,
    durability: Durability = "full",
    wait: float = 10.0,
    codec: Codec = "parquet",
    record_reads: bool = False,
) -> Lab:
    """Open a lab, creating it where there is none.

    Parameters
    ----------
    path : str or Path
        A directory, or ``":memory:"``.
    clock : callable, optional
        Gives nanoseconds since the epoch, UTC, for `recorded_at`; the system's clock by default.
    read_only : bool
        Open without writing anything.
    durability : {"full", "relaxed"}
        ``"full"``: an append that returned survives a power failure. ``"relaxed"``: a power failure may lose the last
        appends, each as a whole; about ten times as many small appends a second.
    wait : float
        Seconds to wait while another process writes.
    codec : {"parquet", "archive"}
        How new segment files are written. ``"archive"`` takes less room, and more time to write and to read; a lab can
        have both, and answers the same.
    record_reads : bool
        Record the past states that :meth:`Lab.state` reads, in the store: reducer, aggregate, version, and the last
        version at that time; neither user nor time. :meth:`Lab.read_log` returns them.

    Raises
    ------
    NotAStore, StoreTooOld, StoreTooNew, StoreCorrupt, ReadOnlyStore, StoreLocked, StoreError
        The path is something else; another format; damage; no permission; a writer that does not finish; a network
        file system.

    Examples
    --------
    >>> import eventlab as el
    >>> with el.open(":memory:") as lab:
    ...     receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
    ...     receipt.version
    1
    """
    return Lab(
        EventLog.open(
            path, clock=clock, read_only=read_only, durability=durability, wait=wait, codec=codec,
            record_reads=record_reads,
        )
    )  # fmt: skip
