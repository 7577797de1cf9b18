"""Every spelling of a moment is one number of nanoseconds, or a refusal that says what would have been right."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlab.errors import AsOfError, EventlabError
from eventlab.events.clock import MAX_NS, MIN_NS, duration_ns, format_ns, to_ns

UTC = dt.UTC
NEAR = dt.datetime(2024, 8, 9, tzinfo=UTC)
NEAR_NS = 1_723_161_600_000_000_000


@pytest.mark.parametrize(
    ("moment", "ns"),
    [
        (0, 0),
        (np.int64(5), 5),
        (NEAR, NEAR_NS),
        (dt.datetime(2024, 8, 9, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), NEAR_NS),
        (dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1_000),
        ("2024-08-09", NEAR_NS),
        ("2024-08-09T00:00Z", NEAR_NS),
        (" 2024-08-09 00:00:00 ", NEAR_NS),
        ("2024-08-09T02:00:00+02:00", NEAR_NS),
        ("2024-08-09T02:00:00+0200", NEAR_NS),
        ("2024-08-09T00:00:00.5Z", NEAR_NS + 500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        (np.datetime64("2024-08-09"), NEAR_NS),
        (np.datetime64("2024-08-09T00:00:00.000000001", "ns"), NEAR_NS + 1),
        (np.datetime64("1969-12-31T23:59:59.999999999", "ns"), -1),
        (np.datetime64("2024-08-09T00:00:00.001", "ms"), NEAR_NS + 1_000_000),
        (np.datetime64("1970-02", "M"), 31 * 86_400_000_000_000),
        (np.datetime64("1970-01-01T00:02", "m"), 120_000_000_000),
        (np.datetime64(-1, "ps"), -1),
        (np.datetime64(MIN_NS, "ns"), MIN_NS),
        (np.datetime64(MAX_NS, "ns"), MAX_NS),
    ],
)
def test_every_spelling_of_a_moment(moment, ns):
    assert to_ns(moment) == ns


@pytest.mark.parametrize(
    "moment",
    [
        True,
        None,
        1.5,
        [],
        "",
        "yesterday",
        "2024-13-01",
        "2024-08-09T25:00",
        "2024-08-09T00:00.5",
        "2024-08-09T00:00:00.0000000001Z",
        "٢٠٢٤-08-09",
        "3024-08-09",
        dt.datetime(2024, 8, 9),  # noqa: DTZ001  naive on purpose
        dt.date(2024, 8, 9),
        dt.datetime(9999, 1, 1, tzinfo=UTC),
        np.datetime64("NaT"),
        np.datetime64("3000-01-01"),
        np.datetime64("0001-01-01"),
        2**63,
        -(2**63),
    ],
)
def test_an_invalid_moment_is_refused_by_name(moment):
    with pytest.raises(AsOfError, match="^from: |^from ") as caught:
        to_ns(moment, what="from")
    assert isinstance(caught.value, EventlabError)


@given(st.integers(MIN_NS, MAX_NS))
@example(MIN_NS)
@example(MAX_NS)
@example(-1)
def test_a_printed_moment_is_read_back(ns):
    assert to_ns(format_ns(ns)) == ns


@given(st.datetimes(dt.datetime(1678, 1, 1), dt.datetime(2262, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_a_datetime_and_its_utc_string_are_one_moment(moment):
    assert to_ns(moment) == to_ns(moment.astimezone(UTC).isoformat())


@pytest.mark.parametrize(
    ("duration", "ns"),
    [
        ("1ns", 1),
        ("3 us", 3_000),
        ("3µs", 3_000),
        ("500ms", 500_000_000),
        ("2s", 2_000_000_000),
        ("1m", 60_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1d", 86_400_000_000_000),
        ("1w", 604_800_000_000_000),
        (dt.timedelta(days=1, microseconds=1), 86_400_000_001_000),
    ],
)
def test_durations(duration, ns):
    assert duration_ns(duration) == ns


@pytest.mark.parametrize("duration", ["", "1", "1y", "-1s", "0s", "1.5s", 5, None, dt.timedelta(0), "999999999w"])
def test_an_invalid_duration_is_refused(duration):
    with pytest.raises(AsOfError, match="every"):
        duration_ns(duration, what="every")
