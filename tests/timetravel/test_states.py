"""The state at any moment is the fold of exactly the events it includes, however the log is laid out."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError, FoldError, ReducerError, UnknownAggregate
from tests.fold.helpers import digests, folded
from tests.fold.kitchen import Fragile, Merged, Tables, Tick, Tock, Unheard, Words
from tests.fold.strategies import OTHERS, TICKS, TOCKS
from tests.timetravel.worlds import MOMENTS, SECOND, T0, World, clock, commits

EVENTS = st.one_of(TICKS, TICKS, TOCKS, OTHERS)


@settings(max_examples=40)
@given(commits(EVENTS), MOMENTS, st.data())
def test_a_moment_includes_the_events_that_its_bounds_say(made, moment, data):
    world = World(el.open(":memory:", clock=clock()))
    for rows in made:
        world.commit(rows)
    aggregate = data.draw(st.sampled_from(sorted({entry.aggregate for entry in world.entries})))
    version = data.draw(st.none() | st.integers(0, len(world.of(aggregate))), label="version")
    position = data.draw(st.none() | st.integers(0, len(world.entries) - 1), label="position")
    whole = el.AsOf(version=version, time=moment.time, position=position, known_at=moment.known_at)
    included = world.included(aggregate, whole)
    state = world.lab.state(Tables, aggregate, as_of=whole)
    assert state.version == len(included)
    assert state.position == (included[-1].position if included else None)
    assert state.timestamp == (included[-1].timestamp if included else None)
    assert state.digest == world.digest(Tables, aggregate, whole)


def layouts(directory, made, cut):
    """The same events: one by one, in bulk, sealed in the middle and again, reopened, read by another reader."""
    flat = [row for rows in made for row in rows]
    plans = {
        "given": (made, ()),
        "one by one": ([[row] for row in flat], ()),
        "at once": ([flat], ()),
        "sealed": (made, (cut,)),
        "sealed often": ([[row] for row in flat], range(0, len(flat), 3)),
    }
    for name, (plan, seals) in plans.items():
        place = directory / name
        lab = el.open(place, durability="relaxed")
        for number, rows in enumerate(plan):
            with lab.commit() as group:
                for aggregate, seconds, event in rows:
                    group.append(aggregate, event, timestamp=T0 + seconds * SECOND)
            if number in seals:
                lab.seal()
        yield name, lab
        lab.close()
        with el.open(place, read_only=True) as again:
            yield f"{name}, reopened", again


@settings(max_examples=8)
@given(commits(EVENTS, most=4), st.integers(0, 3), st.booleans())
def test_batches_seals_and_reopening_do_not_change_a_state(tmp_path_factory, made, cut, interpret):
    directory = tmp_path_factory.mktemp("layouts")
    found = {
        name: {
            reducer.name: [lab.state(reducer, a, interpret=interpret).digest for a in lab.store.aggregate_ids()]
            for reducer in (Tables, Merged, Words)
        }
        for name, lab in layouts(directory, made, cut)
    }
    assert len(found) == 10
    for states in found.values():
        assert states == found["given"]


@settings(max_examples=20)
@given(commits(EVENTS), commits(EVENTS), st.integers(-1, 40))
def test_what_comes_later_does_not_change_what_was(made, later, seconds):
    world = World(el.open(":memory:", clock=clock()))
    for rows in made:
        world.commit(rows)
    aggregate = world.entries[0].aggregate
    last = max(entry.timestamp for entry in world.entries)
    moment = min(T0 + seconds * SECOND, last)
    known = el.AsOf(known_at=max(entry.recorded_at for entry in world.entries))
    before = [world.lab.state(Tables, aggregate, as_of=m).digest for m in (el.AsOf(time=moment), known)]
    bars = world.lab.history(Tables, aggregate, every="5s")
    shift = (last - T0) // SECOND + 1
    for rows in later:
        world.commit([(name, second + shift, event) for name, second, event in rows])
    after = [world.lab.state(Tables, aggregate, as_of=m).digest for m in (el.AsOf(time=moment), known)]
    assert before == after
    grown = world.lab.history(Tables, aggregate, every="5s")
    closed = bars.filter(pl.col("at").dt.timestamp("ns") <= last)
    assert grown.head(len(closed)).equals(closed)


@settings(max_examples=20)
@given(commits(EVENTS), MOMENTS)
def test_states_of_many_are_the_states_of_each(made, moment):
    world = World(el.open(":memory:", clock=clock()))
    for rows in made:
        world.commit(rows)
    frame = world.lab.states(Tables, as_of=moment)
    names = world.lab.store.aggregate_ids()
    assert frame["aggregate_id"].to_list() == names
    for row in frame.iter_rows(named=True):
        one = world.lab.state(Tables, row["aggregate_id"], as_of=moment)
        expected = one.to_dict()
        found = {name: value for name, value in row.items() if name != "aggregate_id"}
        found["timestamp"] = None if one.timestamp is None else one.timestamp
        assert str(found) == str({name: expected[name] for name in found})


@pytest.fixture(scope="module")
def world():
    made = World(el.open(":memory:", clock=clock()))
    made.commit([("a/one", 0, Tick("x", "w", x=1.0, n=1)), ("a/two", 1, Tick("x", "v", x=1.0, n=1))])
    made.commit([("a/one", 10, Tick("y", "w", x=2.0, n=1)), ("a/one", 10, Tick("z", "u", x=3.0, n=1))])
    made.commit([("a/one", 20, Unheard()), ("b/three", 21, Unheard())])
    return made


def test_the_vocabulary_of_moments(world):
    def version(as_of):
        return world.lab.state(Tables, "a/one", as_of).version

    assert [version(as_of) for as_of in (None, 0, 1, 4, np.int64(2))] == [4, 0, 1, 4, 2]
    ten = dt.datetime(2024, 8, 9, 0, 0, 10, tzinfo=dt.UTC)
    berlin = dt.timezone(dt.timedelta(hours=2))
    for moment in (
        ten,
        ten.astimezone(berlin),
        "2024-08-09T00:00:10Z",
        "2024-08-09T00:00:10",
        "2024-08-09 02:00:10+02:00",
        np.datetime64("2024-08-09T00:00:10"),
        el.AsOf(time=ten),
        el.AsOf(time=T0 + 10 * SECOND),
    ):
        assert version(moment) == 3
    assert version("2024-08-09T00:00:09.999999999Z") == 1
    assert version(ten - dt.timedelta(microseconds=1)) == 1
    assert version("2024-08-08") == 0
    assert [version(el.AsOf(position=p)) for p in range(6)] == [1, 1, 2, 3, 4, 4]
    recorded = [entry.recorded_at for entry in world.of("a/one")]
    assert [version(el.AsOf(known_at=at)) for at in (recorded[0] - 1, *recorded)] == [0, 1, 3, 3, 4]
    assert version(el.AsOf(time=ten, known_at=recorded[0])) == 1
    assert version(el.AsOf(version=2, time=ten)) == 2
    assert version(el.AsOf(version=4, time=ten, position=2)) == 2


@pytest.mark.parametrize(
    ("as_of", "says"),
    [
        (5, "version lies past the head of 'a/one'; got 5; expected at most 4"),
        (el.AsOf(version=5, time="2024-08-09"), "version lies past the head"),
        (-1, "cannot be negative"),
        (True, "cannot be a bool"),
        (False, "cannot be a bool"),
        (1.5, "time"),
        (b"2024-08-09", "time"),
        (dt.datetime(2024, 8, 9), "time"),  # noqa: DTZ001  a naive one is what is refused
        (dt.date(2024, 8, 9), "time"),
        ("yesterday", "ISO 8601"),
        ("", "ISO 8601"),
        (np.datetime64("NaT"), "time"),
        (el.AsOf(position=6), "position lies past the end of the log; got 6; expected below 6"),
    ],
)
def test_what_is_no_moment_is_refused(world, as_of, says):
    with pytest.raises(AsOfError, match=says):
        world.lab.state(Tables, "a/one", as_of)
    if not isinstance(as_of, bytes | str):
        with pytest.raises(AsOfError, match=says):
            world.lab.history(Tables, "a/one", at=[as_of])


@pytest.mark.parametrize(
    "bounds",
    [{"version": True}, {"version": -1}, {"version": 1.0}, {"position": -1}, {"time": True}, {"known_at": "x"}],
)
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(AsOfError):
        el.AsOf(**bounds)


def test_unknown_aggregates_and_reducers_are_refused(world):
    for ask in (world.lab.state, world.lab.history, world.lab.states):
        with pytest.raises(UnknownAggregate, match="got A/ONE"):
            ask(Tables, "A/ONE")
        with pytest.raises(ReducerError, match="not a reducer"):
            ask(Tick, "a/one")
    assert world.lab.states(Tables, "nothing/*").height == 0


def test_an_aggregate_without_handled_events_has_its_initial_state(world):
    state = world.lab.state(Tables, "b/three")
    assert (state.version, state.position) == (1, 5)
    assert state.digest == digests(Tables.layout.initial(1))[0]
    history = world.lab.history(Tables, "b/three")
    assert history.height == 0
    assert history.columns[:3] == ["version", "position", "timestamp"]


def test_states_before_a_failure_can_be_asked_for():
    lab = el.open(":memory:")
    good = Tick("a", "w", x=1.0, n=0)
    lab.append("f", [good, Tock("a", 0.0), Tick("a", "w", x=0.0, n=0), good])
    for interpret in (True, False, None):
        with pytest.raises(FoldError, match="Fragile failed on tick of 'f', version 3: ZeroDivisionError"):
            lab.state(Fragile, "f", interpret=interpret)
        assert lab.state(Fragile, "f", as_of=2, interpret=interpret).total == 1.0
        assert lab.history(Fragile, "f", at=[2, 1, 0], interpret=interpret)["total"].to_list() == [1.0, 1.0, 0.0]


def test_a_state_is_told_by_its_bits(world):
    one, same = (world.lab.state(Tables, "a/one", as_of=3) for _ in range(2))
    other = world.lab.state(Tables, "a/one", as_of=2)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != 3
    assert one.to_dict()["version"] == 3
    assert one.by.columns == ["word", "n", "total", "last", "flag"]
    assert one.recent.tolist() == [1.0, 2.0, 3.0, 3.0]
    assert {"by", "total", "digest"} <= set(dir(one))
    with pytest.raises(AttributeError, match="Tables has no field 'nothing'; it has .*place, order"):
        _ = one.nothing


def test_what_is_shown_of_a_state_is_escaped_and_bounded():
    lab = el.open(":memory:")
    evil = "<script>alert(1)</script>"
    lab.append(evil, [Tick(f"{evil}{n}", f"{evil}{n}" * 9, "buy", 1.0, 1) for n in range(40)])
    state = lab.state(Tables, evil)
    html = state._repr_html_()
    assert "<script" not in html
    assert "first 10 of 40" in html
    assert len(html) < 60_000
    assert evil in repr(state)
    assert max(map(len, repr(state).splitlines())) < 150


def test_ten_thousand_aggregates_are_folded_in_one_pass():
    count = 10_000
    lab = el.open(":memory:")
    frame = pl.DataFrame(
        {
            "aggregate_id": [f"p/{n % count:05d}" for n in range(3 * count)],
            "symbol": ["A"] * (3 * count),
            "quantity": [float(1 + n // count) for n in range(3 * count)],
            "price": [float(n % 7) for n in range(3 * count)],
        }
    )
    lab.append_frame(el.PortfolioChange, frame)
    compiled = lab.states(el.Portfolio, interpret=False)
    assert compiled.height == count
    assert compiled["version"].unique().to_list() == [3]
    assert compiled["positions"].list.len().unique().to_list() == [1]
    some = ["p/00000", "p/04321", "p/09999"]
    for name in some:
        one = lab.state(el.Portfolio, name, interpret=True)
        row = compiled.row(by_predicate=pl.col("aggregate_id") == name, named=True)
        assert {key: one.to_dict()[key] for key in ("cash", "positions", "lots")} == {
            key: row[key] for key in ("cash", "positions", "lots")
        }
    events = [el.PortfolioChange("A", 1.0 + k, float((4321 + k * count) % 7)) for k in range(3)]
    assert (
        lab.state(el.Portfolio, "p/04321").digest == digests(folded(el.Portfolio, [events], interpret=True).states)[0]
    )


def test_names_are_data(world):
    lab = el.open(":memory:")
    for name in ("../up", "a'; drop table events; --", "ü/名", "x" * 500):
        lab.append(name, Tick("s", "w", x=1.0, n=1))
        assert lab.state(Words, name).version == 1
