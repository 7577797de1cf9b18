"""Moments as numbers: bounds of version, event time and position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from eventlab.errors import AsOfError, UnknownAggregate
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import Int64Array
from eventlab.fold.stops import rows_until
from eventlab.store.api import UNBOUND, EventReader, Head
from eventlab.timetravel.asof import AsOf, as_of

MOST_BARS = 10_000_000
"""The most rows that `every` gives, so that a mistyped duration does not fill the memory."""


def position_bound(store: EventReader, moment: AsOf) -> int:
    """One past the last position that a moment includes; UNBOUND if it limits no positions."""
    if moment.position is None and moment.known_at_ns is None:
        return UNBOUND
    stop = store.stop_position
    if moment.position is not None:
        if moment.position >= stop:
            raise AsOfError("position lies past the end of the log", got=moment.position, expected=f"below {stop}")
        stop = moment.position + 1
    if moment.known_at_ns is not None:
        stop = min(stop, store.position_at(moment.known_at_ns))
    return stop


def heads_of(store: EventReader, aggregates: Sequence[str]) -> list[Head]:
    """The aggregates' last events. Raises UnknownAggregate for an id that has none."""
    known = {head.aggregate_id: head for head in store.heads(aggregates)}
    for aggregate in aggregates:
        if aggregate not in known:
            raise UnknownAggregate.named(aggregate)
    return [known[aggregate] for aggregate in aggregates]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Moments as numbers, one per element of each array. A missing bound is a number that no event reaches.

    Attributes
    ----------
    version : int64 array
        Nothing after the aggregate's own event of this version.
    time : int64 array
        Nothing with a later event time, ns.
    stop : int64 array
        Nothing with this position or a higher one.
    """

    version: Int64Array
    time: Int64Array
    stop: Int64Array

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: Any) -> Bounds:
        return Bounds(self.version[rows], self.time[rows], self.stop[rows])

    @property
    def latest_time(self) -> int | None:
        """The latest of the event times that bound any of them; None where none does."""
        bound = self.time[self.time < MAX_NS]
        return int(bound.max()) if len(bound) else None

    @staticmethod
    def of_times(times: Int64Array) -> Bounds:
        unbound = np.full(len(times), UNBOUND)
        return Bounds(unbound, times, unbound)

    @staticmethod
    def of_versions(versions: Int64Array) -> Bounds:
        return Bounds(versions, np.full(len(versions), MAX_NS), np.full(len(versions), UNBOUND))

    @staticmethod
    def of(store: EventReader, head: Head, moments: Bounds | Sequence[AsOf]) -> Bounds:
        """The bounds of an aggregate's moments, given as bounds or moments; checked against its head.

        Raises
        ------
        AsOfError
            A version or position past the end.
        """
        if isinstance(moments, Bounds):
            highest = int(moments.version[moments.version != UNBOUND].max(initial=0))
        else:
            highest = max((m.version for m in moments if m.version is not None), default=0)
        if highest > head.version:
            raise AsOfError(
                f"version lies past the head of {head.aggregate_id!r}", got=highest, expected=f"at most {head.version}"
            )
        if isinstance(moments, Bounds):
            return moments
        return Bounds(
            np.array([UNBOUND if m.version is None else m.version for m in moments], np.int64),
            np.array([MAX_NS if m.time_ns is None else m.time_ns for m in moments], np.int64),
            np.array([position_bound(store, m) for m in moments], np.int64),
        )

    def counts(self, before: int, position: Int64Array, timestamp: Int64Array) -> Int64Array:
        """How many of the own events that follow the version `before` each moment includes.

        Event times must not go back.
        """
        count = rows_until(timestamp, self.time)
        if (self.stop != UNBOUND).any():
            count = np.minimum(count, np.searchsorted(position, self.stop))
        if (self.version != UNBOUND).any():
            count = np.clip(self.version - before, 0, count)
        return count


def moments_asked(at: Any) -> tuple[pl.Series, Bounds | list[AsOf]]:
    """The column `at`, and the moments: bounds if a series has times or versions alone, else a list."""
    if isinstance(at, str | AsOf | int) or not isinstance(at, Iterable):
        raise AsOfError("`at` takes a list of moments", got=at, hint="For one moment use lab.state(..., as_of=...).")
    if isinstance(at, pl.Series | np.ndarray):
        series = pl.Series("at", at)
        if isinstance(series.dtype, pl.Datetime):
            ns = series.dt.cast_time_unit("ns").to_physical()
            if ns.null_count():
                raise AsOfError("`at` holds a null")
            if series.dtype.time_zone is None and isinstance(at, pl.Series):  # NumPy's are UTC by definition
                raise AsOfError(
                    "`at` holds naive datetimes", got=series.dtype, expected="datetimes with a time zone",
                    hint='Name it: at.dt.replace_time_zone("UTC").',
                )  # fmt: skip
            times = ns.to_numpy()
            return _label_of(times), Bounds.of_times(times)
        if series.dtype.is_integer():
            versions = series.cast(pl.Int64, strict=False)
            if not versions.null_count() and (versions >= 0).all():
                return versions, Bounds.of_versions(versions.to_numpy())
        at = series.to_list()
    moments = [as_of(moment) for moment in at]
    if moments and all(m == AsOf(version=m.version) and m.version is not None for m in moments):
        return pl.Series("at", [m.version for m in moments], pl.Int64), moments
    return _label_of([m.time_ns for m in moments]), moments


def bars(first: int, last: int, step: int) -> tuple[pl.Series, Int64Array]:
    """The column `at`, and the times at which bars end, from that of the event time `first` to that of `last`."""
    low, high = -(-first // step), -(-last // step)
    if high - low >= MOST_BARS:
        raise AsOfError("too many bars", got=high - low + 1, expected=f"at most {MOST_BARS}")
    if high * step > MAX_NS:
        raise AsOfError("the last bar would end after the year 2262")
    times = np.arange(low, high + 1, dtype=np.int64) * step
    return _label_of(times), times


def _label_of(times: Any) -> pl.Series:
    return pl.Series("at", times, pl.Int64).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
