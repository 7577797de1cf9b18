"""Moments and durations: every accepted form becomes int64 nanoseconds since the epoch, UTC."""

from __future__ import annotations

import datetime as dt
import re
from typing import TypeAlias

import numpy as np

from eventlab.errors import AsOfError

Moment: TypeAlias = "int | str | dt.datetime | np.datetime64"

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MIN_NS, MAX_NS = -(2**63) + 1, 2**63 - 1

_ISO = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2}(?:\.(?P<fraction>\d{1,9}))?)?))?"
    r"\s*(?P<zone>Z|z|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_DURATION = re.compile(r"(?P<count>\d+)\s*(?P<unit>ns|us|µs|ms|s|m|h|d|w)")
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}


def to_ns(moment: Moment, *, what: str = "time") -> int:
    """A moment as nanoseconds since the epoch, UTC.

    Parameters
    ----------
    moment : int, datetime, str or numpy.datetime64
        Nanoseconds; an aware datetime; an ISO 8601 string with up to nine fractional digits, UTC unless it has an
        offset; or a NumPy datetime, which is UTC by definition.
    what : str
        Name of the argument, for the error.

    Raises
    ------
    AsOfError
        For a bool, a naive datetime, an unreadable string, NaT, or a moment outside 1677 to 2262.

    Examples
    --------
    >>> to_ns("1970-01-01T00:00:00.000000001Z")
    1
    """
    if isinstance(moment, bool):
        raise AsOfError(f"{what} cannot be a bool", got=moment, expected="a datetime or an ISO string")
    if isinstance(moment, (int, np.integer)):
        ns = int(moment)
    elif isinstance(moment, dt.datetime):
        ns = _from_datetime(moment, what)
    elif isinstance(moment, str):
        ns = _from_iso(moment, what)
    elif isinstance(moment, np.datetime64):
        if np.isnat(moment):
            raise AsOfError(f"{what} is not a time", got="NaT")
        ns = _from_datetime64(moment)
    else:
        raise AsOfError(
            f"{what} cannot be read as a moment",
            got=moment,
            expected="an aware datetime, an ISO string, numpy.datetime64, or int nanoseconds",
        )
    if not MIN_NS <= ns <= MAX_NS:
        raise AsOfError(f"{what} does not fit into int64 nanoseconds", got=moment, expected="1677 to 2262")
    return ns


def _from_datetime(moment: dt.datetime, what: str) -> int:
    if moment.utcoffset() is None:
        raise AsOfError(
            f"{what} is a naive datetime",
            got=moment,
            expected="a datetime with a time zone",
            hint="Add one, e.g. datetime(..., tzinfo=datetime.UTC).",
        )
    elapsed = moment - EPOCH
    ns = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000_000 + elapsed.microseconds * 1_000
    return ns + int(getattr(moment, "nanosecond", 0))  # pandas.Timestamp keeps three more digits


def _from_datetime64(moment: np.datetime64) -> int:
    # NumPy's own conversion overflows silently, so this counts in Python's integers.
    unit, step = np.datetime_data(moment.dtype)
    if unit in ("Y", "M"):
        moment, unit, step = moment.astype("datetime64[D]"), "D", 1
    count = int(moment.astype(np.int64)) * step
    per_ns = {"ps": 10**3, "fs": 10**6, "as": 10**9}.get(unit)
    return count // per_ns if per_ns else count * _UNIT_NS[unit.lower()]


def _from_iso(text: str, what: str) -> int:
    match = _ISO.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError(text)
        zone = (match["zone"] or "Z").upper().replace("Z", "+00:00")
        clock = (match["time"] or "00:00").partition(".")[0]
        seconds = dt.datetime.fromisoformat(f"{match['date']}T{clock}{zone}")
    except ValueError as error:
        raise AsOfError(
            f"{what} cannot be read as an ISO 8601 moment", got=text, expected="e.g. '2024-08-09T00:00:00Z'"
        ) from error
    return _from_datetime(seconds, what) + int((match["fraction"] or "0").ljust(9, "0"))


def format_ns(ns: int) -> str:
    """Nanoseconds since the epoch as an ISO string in UTC, without trailing zeros."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = (EPOCH + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def duration_ns(duration: str | dt.timedelta, *, what: str = "duration") -> int:
    """A positive duration such as ``"500ms"``, ``"1m"`` or a timedelta, in nanoseconds."""
    if isinstance(duration, dt.timedelta):
        ns = (duration.days * 86_400 + duration.seconds) * 1_000_000_000 + duration.microseconds * 1_000
    else:
        match = _DURATION.fullmatch(duration.strip()) if isinstance(duration, str) else None
        if match is None:
            raise AsOfError(
                f"{what} cannot be read", got=duration, expected="a count and a unit, e.g. '1m', '500ms', '1h'"
            )
        ns = int(match["count"]) * _UNIT_NS[match["unit"]]
    if not 0 < ns <= MAX_NS:
        raise AsOfError(f"{what} must be positive and below 292 years", got=duration)
    return ns
