"""One vocabulary for moments: latest, a version, an event time, a position, a moment of knowledge, and combinations."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from eventlab.errors import AsOfError
from eventlab.events.clock import Moment, to_ns

AsOfLike: TypeAlias = "AsOf | int | str | dt.datetime | np.datetime64 | None"


def _bound(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise AsOfError(f"{what} must be an integer", got=value)
    if value < 0:
        raise AsOfError(f"{what} cannot be negative", got=value)
    if value >= 2**63:
        raise AsOfError(f"{what} lies past what any log holds", got=value)
    return int(value)


@dataclass(frozen=True, slots=True)
class AsOf:
    """A moment in a log. Every bound is inclusive, and all that are given hold together.

    Parameters
    ----------
    version : int, optional
        Events up to this version of the aggregate; 0 is the state before any.
    time : datetime, str, numpy.datetime64 or int, optional
        Events with an event time up to this one, in version order: a back-dated event, too, however late it came. An
        int is nanoseconds since the epoch, UTC.
    position : int, optional
        Events up to this position in the log.
    known_at : datetime, str, numpy.datetime64 or int, optional
        Events recorded by then. Final where it does not lie after the last commit.

    Raises
    ------
    AsOfError
        A bool, a naive datetime, a negative number, or text that is no ISO 8601 moment.

    Examples
    --------
    >>> AsOf(time="2024-08-09T00:00:00Z", version=10).version
    10
    """

    version: int | None = None
    time: Moment | None = None
    position: int | None = None
    known_at: Moment | None = None
    time_ns: int | None = field(init=False, repr=False, compare=False)
    known_at_ns: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("version", "position"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _bound(value, name))
        for name in ("time", "known_at"):
            value = getattr(self, name)
            ns = None if value is None else to_ns(value, what=name)
            for attribute in (name, f"{name}_ns"):
                object.__setattr__(self, attribute, ns)


def as_of(moment: AsOfLike) -> AsOf:
    """What a user wrote as an AsOf: None is the latest, an int a version, a datetime or ISO string an event time."""
    if moment is None:
        return AsOf()
    if isinstance(moment, AsOf):
        return moment
    if isinstance(moment, bool):
        raise AsOfError("as_of cannot be a bool", got=moment, expected="a version, a time, or el.AsOf(...)")
    if isinstance(moment, int | np.integer):
        return AsOf(version=int(moment))
    return AsOf(time=moment)
