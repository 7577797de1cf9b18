"""Every row of a history is the state at its moment."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError
from tests.fold.helpers import bits
from tests.fold.kitchen import Merged, Tables, Tick, Tock, Unheard, Words
from tests.fold.strategies import OTHERS, TICKS, TOCKS
from tests.timetravel.worlds import SECOND, T0, World, built, clock, commits

EVENTS = st.one_of(TICKS, TICKS, TOCKS, OTHERS)


def row_of(state, columns):
    values = state.to_dict()
    if values["timestamp"] is not None:
        values["timestamp"] = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            microseconds=values["timestamp"] / 1000
        )
    return bits({name: values[name] for name in columns if name != "at"})


@settings(max_examples=20)
@given(commits(EVENTS), st.booleans(), st.booleans())
def test_a_row_per_handled_event_is_the_state_at_its_version(made, tables, interpret):
    world = built(made)
    aggregate = world.entries[0].aggregate
    for reducer, kinds in ((Tables, (Tick,)), (Merged, (Tick, Tock))):
        history = world.lab.history(reducer, aggregate, tables=tables, interpret=interpret)
        own = [entry for entry in world.of(aggregate) if isinstance(entry.event, kinds)]
        assert history["version"].to_list() == [entry.version for entry in own]
        assert history["position"].to_list() == [entry.position for entry in own]
        for row in history.iter_rows(named=True):
            state = world.lab.state(reducer, aggregate, as_of=row["version"])
            assert bits(row) == row_of(state, history.columns)


@settings(max_examples=20)
@given(commits(EVENTS), st.data(), st.booleans())
def test_rows_at_moments_keep_their_order_and_their_duplicates(made, data, tables):
    world = built(made)
    aggregate = world.entries[0].aggregate
    head = len(world.of(aggregate))
    moment = st.one_of(
        st.integers(0, head),
        st.integers(-1, 60).map(lambda s: dt.datetime(2024, 8, 9, tzinfo=dt.UTC) + dt.timedelta(seconds=s)),
        st.integers(0, len(world.entries) - 1).map(lambda p: el.AsOf(position=p)),
        st.integers(3_599, 3_610).map(lambda s: el.AsOf(known_at=T0 + s * SECOND)),
        st.just(el.AsOf()),
        st.none(),
    )
    moments = data.draw(st.lists(moment, max_size=8), label="moments")
    moments = [*moments, *moments[:2]]
    history = world.lab.history(Tables, aggregate, at=moments, tables=tables)
    assert history.height == len(moments)
    for as_of, row in zip(moments, history.iter_rows(named=True), strict=True):
        state = world.lab.state(Tables, aggregate, as_of=as_of)
        del row["at"]
        assert bits(row) == row_of(state, row)


@settings(max_examples=20)
@given(commits(EVENTS), st.sampled_from([1, 3, 5, 60]))
def test_bars_are_aligned_to_the_epoch_and_none_is_left_out(made, seconds):
    world = built(made)
    aggregate = world.entries[0].aggregate
    for every in (f"{seconds}s", dt.timedelta(seconds=seconds)):
        bars = world.lab.history(Words, aggregate, every=every)
        at = bars["at"].dt.timestamp("ns").to_list()
        step = seconds * SECOND
        assert all(time % step == 0 for time in at)
        assert np.diff(at).tolist() == [step] * (len(at) - 1)
        times = [entry.timestamp for entry in world.of(aggregate)]
        assert at[0] - step < times[0] <= at[0]
        assert at[-1] - step < times[-1] <= at[-1]
        for row in bars.iter_rows(named=True):
            state = world.lab.state(Words, aggregate, as_of=row.pop("at"))
            assert bits(row) == row_of(state, row)


@pytest.fixture(scope="module")
def lab():
    world = World(el.open(":memory:", clock=clock()))
    world.commit([("a", 0, Tick("x", "w", x=1.0, n=1)), ("a", 130, Tick("y", "w", x=1.0, n=1)), ("a", 131, Unheard())])
    return world.lab


def test_empty_bars_repeat_the_state_before(lab):
    bars = lab.history(Words, "a", every="1m")
    assert bars["version"].to_list() == [1, 1, 1, 3]
    assert bars["not_buys"].to_list() == [1, 1, 1, 2]
    assert bars["at"][0] == dt.datetime(2024, 8, 9, tzinfo=dt.UTC)


def test_moments_come_as_series_and_arrays_too(lab):
    stamps = pl.Series("t", [T0, T0 - 1, T0 + 130 * SECOND]).cast(pl.Datetime("ns", "UTC"))
    assert lab.history(Words, "a", at=stamps)["version"].to_list() == [1, 0, 2]
    assert lab.history(Words, "a", at=stamps.dt.cast_time_unit("us"))["version"].to_list() == [1, 0, 2]
    assert lab.history(Words, "a", at=stamps.to_numpy())["version"].to_list() == [1, 0, 2]
    assert lab.history(Words, "a", at=np.array([2, 0, 2]))["version"].to_list() == [2, 0, 2]
    found = lab.history(Words, "a", at=(v for v in (2, 0)))
    assert (found["at"].to_list(), found["version"].to_list()) == ([2, 0], [2, 0])
    assert found["position"].to_list() == [1, None]
    assert lab.history(Words, "a", at=[]).height == 0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"at": [1], "every": "1m"}, "not both"),
        ({"at": "2024-08-09"}, "takes a list of moments"),
        ({"at": 3}, "takes a list of moments"),
        ({"at": el.AsOf()}, "takes a list of moments"),
        ({"at": [4]}, "past the head of 'a'; got 4; expected at most 3"),
        ({"at": [el.AsOf(position=3)]}, "past the end of the log"),
        ({"at": pl.Series([None], dtype=pl.Datetime("ns"))}, "null"),
        ({"at": pl.Series([T0]).cast(pl.Datetime("ns"))}, "naive"),
        ({"every": "0s"}, "positive"),
        ({"every": "-1s"}, "cannot be read"),
        ({"every": "soon"}, "cannot be read"),
        ({"every": 60}, "cannot be read"),
        ({"every": dt.timedelta(0)}, "positive"),
        ({"every": "1ns"}, "too many bars"),
    ],
)
def test_what_makes_no_history_is_refused(lab, asked, says):
    with pytest.raises(AsOfError, match=says):
        lab.history(Words, "a", **asked)


def test_bars_at_the_end_of_time_are_refused_rather_than_wrapped():
    lab = el.open(":memory:")
    lab.append("a", Tick("x"), timestamp=2**63 - 2)
    with pytest.raises(AsOfError, match="2262"):
        lab.history(Words, "a", every="1d")
    assert lab.history(Words, "a", at=[1])["version"].to_list() == [1]


def test_a_history_spans_segments_and_tail():
    lab = el.open(":memory:")
    for number in range(60):
        lab.append("a", [Tick("s", "w", x=float(number), n=1), Unheard()], timestamp=T0 + number * SECOND)
        if number % 13 == 0:
            lab.seal()
    history = lab.history(Tables, "a", tables=True)
    assert history["version"].to_list() == list(range(1, 120, 2))
    assert history["by"].list.get(0).struct.field("n").to_list() == list(range(1, 61))
    assert lab.history(Tables, "a", at=[0, 120, 1])["version"].to_list() == [0, 120, 1]
