"""Each joined row is the state at its moment, and the frame beside it is as it was."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import eventlab as el
from eventlab.errors import AsOfError, EventlabError, InvalidEvent, UnknownAggregate
from tests.fold.helpers import bits
from tests.fold.kitchen import Merged, Tables, Tick, Words
from tests.fold.strategies import OTHERS, TICKS, TOCKS
from tests.timetravel.worlds import SECOND, T0, World, built, clock, commits

EVENTS = st.one_of(TICKS, TICKS, TOCKS, OTHERS)
UTC = pl.Datetime("ns", "UTC")


def told(row, lab, reducer, aggregate, moment):
    """What a row must hold, from the state reconstructed by itself; nulls where there is no moment or no id."""
    if moment is None or aggregate is None:
        return dict.fromkeys(row)
    values = lab.state(reducer, aggregate, as_of=moment).to_dict()
    return bits({name: values[name] for name in row})


@settings(max_examples=25)
@given(commits(EVENTS), st.data(), st.sampled_from([Tables, Merged, Words]), st.booleans())
def test_each_row_has_the_state_as_of_its_time(made, data, reducer, by_version):
    world = built(made)
    names = sorted({entry.aggregate for entry in world.entries})
    if by_version:
        head = min(len(world.of(name)) for name in names)
        moment, dtype = st.none() | st.integers(0, head), pl.Int64
    else:
        moment, dtype = st.none() | st.integers(-1, 60).map(lambda s: T0 + s * SECOND), UTC
    drawn = data.draw(st.lists(st.tuples(st.sampled_from([None, *names]), moment), max_size=12), label="rows")
    frame = pl.DataFrame(
        {
            "room": pl.Series([name and name.split("/")[0] for name, _ in drawn], dtype=pl.String),
            "which": pl.Series([name and name.split("/")[1] for name, _ in drawn], dtype=pl.Categorical),
            "when": pl.Series([at for _, at in drawn], dtype=pl.Int64).cast(dtype),
        }
    )
    for template in ("{room}/{which}", names[0]):
        joined = world.lab.join_asof(frame, reducer, template, on="when")
        assert_frame_equal(joined.select(frame.columns), frame)
        assert joined.columns[3] == "version"
        for (name, at), row in zip(drawn, joined.drop(frame.columns).iter_rows(named=True), strict=True):
            moment = at if by_version or at is None else el.AsOf(time=at)
            aggregate = name if "{" in template else names[0]
            assert bits(row) == told(row, world.lab, reducer, aggregate, moment)


@pytest.fixture(scope="module")
def lab():
    world = World(el.open(":memory:", clock=clock()))
    world.commit([("a/1", 0, Tick("x", "w")), ("a/1", 130, Tick("y", "w")), ("a/2", 131, Tick("z", "v"))])
    return world.lab


def times(*seconds):
    return pl.Series("timestamp", [None if s is None else T0 + s * SECOND for s in seconds], pl.Int64).cast(UTC)


def test_moments_of_every_spelling(lab):
    stamps = times(130, -1, None, 0)
    texts = stamps.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    tokyo = stamps.dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms")
    for column in (stamps, texts, tokyo):
        found = lab.join_asof(pl.DataFrame({"timestamp": column}), Words, "a/1")
        assert found["version_right" if "version_right" in found.columns else "version"].to_list() == [2, 0, None, 1]
    for dtype in (pl.Int8, pl.UInt64):
        versions = pl.DataFrame({"n": pl.Series([2, 0, 2], dtype=dtype)})
        assert lab.join_asof(versions, Words, "a/1", on="n")["version"].to_list() == [2, 0, 2]


def test_a_state_column_that_the_frame_has_gets_the_suffix(lab):
    frame = pl.DataFrame({"version": [7, 8], "timestamp": times(0, 200), "last": ["mine", "too"]})
    joined = lab.join_asof(frame, Words, "a/1")
    assert joined.columns[:5] == ["version", "timestamp", "last", "version_right", "last_right"]
    assert joined["version"].to_list() == [7, 8]
    assert joined["version_right"].to_list() == [1, 2]
    assert "last_then" in lab.join_asof(frame, Words, "a/1", suffix="_then").columns
    for suffix in ("", "sion"):
        with pytest.raises(InvalidEvent, match="twice; got version"):
            lab.join_asof(frame.with_columns(versionsion=1), Words, "a/1", suffix=suffix)


def test_integers_name_aggregates_and_arrow_is_a_frame(lab):
    frame = pl.DataFrame({"n": [2, 1, 2], "timestamp": times(131, 131, 0)})
    for rows in (frame, frame.to_arrow(), frame.to_arrow().combine_chunks().to_batches()[0]):
        assert lab.join_asof(rows, Words, "a/{n}")["version"].to_list() == [1, 2, 0]


def test_frames_without_rows_or_moments_have_the_columns(lab):
    frame = pl.DataFrame({"n": [1, 2], "timestamp": times(0, 0)})
    full = lab.join_asof(frame, Tables, "a/{n}")
    for template in ("a/1", "a/{n}"):
        assert lab.join_asof(frame.clear(), Tables, template).schema == full.schema
        nulls = lab.join_asof(frame.with_columns(timestamp=pl.lit(None, UTC)), Tables, template)
        assert nulls.schema == full.schema
        assert nulls.drop("n").null_count().sum_horizontal().item() == 2 * (full.width - 1)
        assert lab.join_asof(pl.DataFrame({"n": [1], "at": [None]}), Tables, template, on="at")["version"][0] is None


def test_portfolios_are_marked_where_asked_for():
    lab = el.open(":memory:")
    lab.append("p", el.PortfolioChange("BTC", 2.0, 100.0), timestamp=T0)
    lab.append("m", [el.MarketData("BTC", 110.0, 1.0), el.MarketData("BTC", 90.0, 1.0)],
               timestamp=[T0 + SECOND, T0 + 3 * SECOND])  # fmt: skip
    frame = pl.DataFrame({"timestamp": times(3, 0, 2)})
    marked = lab.join_asof(frame, el.Portfolio, "p", mark_with="m")
    assert marked["equity"].to_list() == [-20.0, 0.0, 20.0]
    assert lab.join_asof(frame, el.Portfolio, "p")["equity"].to_list() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("columns", "asked", "error", "says"),
    [
        ({"timestamp": pl.Series([T0]).cast(pl.Datetime("ns"))}, {}, AsOfError, "naive"),
        ({"timestamp": [dt.date(2024, 8, 9)]}, {}, AsOfError, "holds no moments; got Date"),
        ({"timestamp": [1.0]}, {}, AsOfError, "holds no moments"),
        ({"timestamp": [True]}, {}, AsOfError, "holds no moments"),
        ({"timestamp": ["soon"]}, {}, AsOfError, "ISO 8601"),
        ({"timestamp": [3]}, {}, AsOfError, "past the head of 'a/1'; got 3; expected at most 2"),
        ({"timestamp": [-1]}, {}, AsOfError, "negative"),
        ({"timestamp": pl.Series([2**64 - 1], dtype=pl.UInt64)}, {}, AsOfError, "past what any log holds"),
        ({"time": [1]}, {}, InvalidEvent, "no column of the frame; got timestamp; expected time"),
        ({"timestamp": [1]}, {"on": 3}, InvalidEvent, "no column"),
        ({}, {}, InvalidEvent, "no column"),
        ({"timestamp": [1]}, {"aggregate_id": "b"}, UnknownAggregate, "got b"),
        ({"timestamp": []}, {"aggregate_id": "b"}, UnknownAggregate, "got b"),
        ({"timestamp": [1, 1], "n": [1, 3]}, {"aggregate_id": "a/{n}"}, UnknownAggregate, "got a/3"),
        ({"timestamp": [None, 1], "n": [3, 1]}, {"aggregate_id": "a/{n}"}, UnknownAggregate, "got a/3"),
        ({"timestamp": [1]}, {"aggregate_id": "a/{m}"}, InvalidEvent, "unknown placeholder; got {m}"),
        ({"timestamp": [1], "x": [1.0]}, {"aggregate_id": "a/{x}"}, InvalidEvent, "unknown placeholder"),
        ({"timestamp": [1]}, {"aggregate_id": "a/{"}, InvalidEvent, "brace"),
        ({"timestamp": [1]}, {"aggregate_id": None}, InvalidEvent, "must be a string"),
        ({"timestamp": [1]}, {"suffix": None}, InvalidEvent, "suffix"),
    ],
)
def test_what_cannot_be_joined_is_refused(lab, columns, asked, error, says):
    with pytest.raises(error, match=says) as refused:
        lab.join_asof(pl.DataFrame(columns), Words, **{"aggregate_id": "a/1", **asked})
    assert isinstance(refused.value, EventlabError)


def test_only_frames_are_joined(lab):
    with pytest.raises(InvalidEvent, match="not a frame"):
        lab.join_asof(pl.LazyFrame({"timestamp": [1]}), Words, "a/1")
