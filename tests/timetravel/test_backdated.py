"""Back-dated events change the past for those who know of them, and for nobody else, however the log lies."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError, LateEvent
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.segments import encodings as encoding
from eventlab.timetravel.history import backdated
from tests import naive_folds
from tests.fold.helpers import bits
from tests.fold.kitchen import Merged, Tables, Tick, Tock
from tests.fold.strategies import OTHERS, TICKS, TOCKS
from tests.timetravel.worlds import NAMES, SECOND, T0, Entry, World

EVENTS = st.one_of(TICKS, TICKS, TOCKS, OTHERS)
REDUCERS = {Merged: naive_folds.Merged, Tables: naive_folds.Tables}
KNOWN = 3_600
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 12), EVENTS), min_size=1, max_size=8)
STEPS = st.lists(
    st.one_of(ROWS, ROWS, ROWS, st.sampled_from(["seal", "archive", "reopen"])), min_size=1, max_size=7
).filter(lambda steps: any(isinstance(step, list) for step in steps))
LAYOUTS = st.fixed_dictionaries({"bulk": st.sampled_from([2, 8_192]), "group": st.sampled_from([2, 16_384])})


class Corrected(World):
    """A store on disk with a clock that is set, and the entries it has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, KNOWN
        super().__init__(self.opened())

    def opened(self) -> el.Lab:
        return el.open(self.folder, clock=lambda: T0 + self.now * SECOND, durability="relaxed")

    def reopen(self) -> None:
        self.lab.close()
        self.lab = self.opened()

    def add(self, rows, pause=1) -> el.Receipt | None:
        self.now += pause
        with self.lab.commit(late="accept") as group:
            for aggregate, seconds, event in rows:
                group.append(aggregate, event, timestamp=T0 + seconds * SECOND)
        late = 0
        for aggregate, seconds, event in rows:
            own = self.of(aggregate)
            time = T0 + seconds * SECOND
            late += any(entry.timestamp > time for entry in own)
            recorded = group.receipt.recorded_at
            self.entries.append(Entry(len(self.entries), aggregate, len(own) + 1, time, recorded, event))
        assert group.receipt.backdated == late
        return group.receipt

    def take(self, step) -> None:
        if isinstance(step, list):
            self.add(step)
        elif step == "reopen":
            self.reopen()
        elif step == "seal":
            self.lab.seal()
        else:
            self.lab.store.archive()

    def plain(self, reducer, aggregate, moment):
        """The state that the naive twin has of the events included, in version order, and the envelope of the last."""
        twin, last = REDUCERS[reducer](), None
        for last in self.included(aggregate, moment):
            twin.apply(last.event, last.version, last.position, last.timestamp)
        marks = {
            "version": 0 if last is None else last.version,
            "position": None if last is None else last.position,
            "timestamp": None if last is None else last.timestamp,
        }
        return bits({**marks, **twin.record(), **twin.properties(), **twin.tables()})

    def moments(self, aggregate=None):
        """Any combination of bounds that the log allows."""
        head = 0 if aggregate is None else len(self.of(aggregate))
        return st.builds(
            el.AsOf,
            version=st.none() if aggregate is None else st.none() | st.integers(0, head),
            time=st.none() | st.integers(-1, 13).map(lambda seconds: T0 + seconds * SECOND),
            position=st.none() | st.integers(0, len(self.entries) - 1),
            known_at=st.none() | st.integers(0, 9).map(lambda seconds: T0 + (KNOWN + seconds) * SECOND),
        )

    def names(self):
        return sorted({entry.aggregate for entry in self.entries})


@pytest.fixture(scope="module", autouse=True)
def small_segments():
    """Segments are small, so that there are many, and are merged."""
    kept = writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS
    yield
    writer.BULK_ROWS, encoding.ROW_GROUP, sealing.SEGMENT_ROWS = kept


def built(steps, bulk=8_192, group=16_384):
    writer.BULK_ROWS, encoding.ROW_GROUP = bulk, group
    folder = tempfile.mkdtemp()
    world = Corrected(Path(folder) / "lab")
    for step in steps:
        world.take(step)
    return world


def rows_of(frame):
    rows = frame.with_columns(pl.col("timestamp").to_physical()).rows(named=True)
    return [bits({name: value for name, value in row.items() if name not in ("at", "aggregate_id")}) for row in rows]


def check_row(world, reducer, aggregate, row, moment):
    expected = world.plain(reducer, aggregate, moment)
    assert row == {name: expected[name] for name in row}


@settings(max_examples=30)
@given(STEPS, LAYOUTS, st.data(), st.booleans())
def test_a_state_is_the_fold_of_what_its_moment_includes(steps, layout, data, interpret):
    world = built(steps, **layout)
    for _ in range(4):
        aggregate = data.draw(st.sampled_from(world.names()))
        moment = data.draw(world.moments(aggregate), label="moment")
        for reducer in REDUCERS:
            state = world.lab.state(reducer, aggregate, moment, interpret=interpret)
            assert bits(state.to_dict()) == world.plain(reducer, aggregate, moment)


@settings(max_examples=15)
@given(STEPS, LAYOUTS, st.data())
def test_states_of_many_are_the_folds_of_each(steps, layout, data):
    world = built(steps, **layout)
    for _ in range(3):
        moment = data.draw(world.moments(), label="moment")
        for reducer in REDUCERS:
            frame = world.lab.states(reducer, as_of=moment)
            assert frame["aggregate_id"].to_list() == world.names()
            for aggregate, row in zip(world.names(), rows_of(frame), strict=True):
                check_row(world, reducer, aggregate, row, moment)


@settings(max_examples=40)
@given(STEPS, LAYOUTS, st.data(), st.booleans(), st.booleans())
def test_a_history_has_the_state_of_each_moment(steps, layout, data, tables, interpret):
    world = built(steps, **layout)
    aggregate = data.draw(st.sampled_from(world.names()))
    asked = data.draw(st.lists(world.moments(aggregate), max_size=8), label="moments")
    times = data.draw(st.lists(st.integers(-1, 13), max_size=8), label="times")
    times = [el.AsOf(time=T0 + seconds * SECOND) for seconds in times]
    for reducer in REDUCERS:
        for moments in ([*asked, *asked[:2]], times):
            found = world.lab.history(reducer, aggregate, moments, tables=tables, interpret=interpret)
            assert found.height == len(moments)
            for row, moment in zip(rows_of(found), moments, strict=True):
                check_row(world, reducer, aggregate, row, moment)
        bars = world.lab.history(reducer, aggregate, every="2s", tables=tables, interpret=interpret)
        stamps = [entry.timestamp for entry in world.of(aggregate)]
        ends = bars["at"].to_physical().to_list()
        assert ends == list(range(-(-min(stamps) // (2 * SECOND)) * 2 * SECOND, max(stamps) + 2 * SECOND, 2 * SECOND))
        for row, time in zip(rows_of(bars), ends, strict=True):
            check_row(world, reducer, aggregate, row, el.AsOf(time=time))
        own = world.lab.history(reducer, aggregate, tables=tables, interpret=interpret)
        for row in rows_of(own):
            check_row(world, reducer, aggregate, row, el.AsOf(version=row["version"]))


@settings(max_examples=20)
@given(STEPS, LAYOUTS, st.integers(-1, 13), st.integers(0, 13))
def test_events_of_a_time_are_those_that_say_so(steps, layout, start, length):
    world = built(steps, **layout)
    low, high = T0 + start * SECOND, T0 + (start + length) * SECOND
    bounds = [dt.datetime.fromtimestamp(at // SECOND, dt.UTC) for at in (low, high)]
    for kind in (Tick, Tock):
        own = [entry for entry in world.entries if isinstance(entry.event, kind)]
        if not own:
            continue
        wanted = [entry.position for entry in own if low <= entry.timestamp < high]
        assert world.lab.events(kind, start=bounds[0], stop=bounds[1])["position"].to_list() == wanted
        inside = pl.col("timestamp").is_between(*bounds, closed="left")
        assert world.lab.scan(kind).filter(inside).collect()["position"].to_list() == wanted
        whole = world.lab.events(kind, columns=["version", "timestamp"])
        assert whole["timestamp"].to_physical().to_list() == [entry.timestamp for entry in own]
    assert world.lab.verify().ok


@settings(max_examples=20)
@given(STEPS, STEPS, LAYOUTS, st.data())
def test_what_was_known_does_not_change_by_what_is_learned_of_it_later(steps, later, layout, data):
    world = built(steps, **layout)
    known = T0 + world.now * SECOND
    aggregates = world.names()
    moments = [
        el.AsOf(time=None if seconds is None else T0 + seconds * SECOND, known_at=known)
        for seconds in data.draw(st.lists(st.none() | st.integers(-1, 13), min_size=1, max_size=4))
    ]

    def answers():
        return [
            (
                [bits(world.lab.state(reducer, aggregate, moment).to_dict()) for moment in moments],
                rows_of(world.lab.history(reducer, aggregate, moments, tables=True)),
            )
            for reducer in REDUCERS
            for aggregate in aggregates
        ]

    before = answers()
    for step in later:
        world.take(step)
    assert answers() == before


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(
            ROWS,
            ROWS,
            ROWS,
            st.sampled_from(["seal", "reopen"]),
            st.tuples(st.sampled_from([*REDUCERS]), st.integers(1, 4)),
        ),
        min_size=2,
        max_size=8,
    ).filter(lambda steps: any(isinstance(step, list) for step in steps)),
    st.data(),
)
def test_snapshots_serve_only_where_nothing_is_missing(steps, data):
    world = built([])
    for step in steps:
        if isinstance(step, tuple):
            reducer, n = step
            world.lab.snapshots.policy = el.snapshots.Every(n)
            if world.entries:
                world.lab.snapshots.build(reducer)
        else:
            world.take(step)
    for _ in range(6):
        aggregate = data.draw(st.sampled_from(world.names()))
        moment = data.draw(world.moments(aggregate), label="moment")
        for reducer in REDUCERS:
            state = world.lab.state(reducer, aggregate, moment)
            assert bits(state.to_dict()) == world.plain(reducer, aggregate, moment)


def corrected(times):
    """One aggregate with a tick at each of the seconds, one commit each."""
    world = built([])
    for seconds in times:
        world.add([("a/one", seconds, Tick("s", "w", x=float(seconds), n=1))])
    return world


@pytest.mark.parametrize(
    ("times", "branches", "extras"),
    [
        ([*range(30)], 0, 0),
        ([*range(30), 4], 25, 25),  # one correction: each moment in between goes on from its own stop with that alone
        ([0, 99, *range(1, 30)], 1, 29),  # one time from the future makes all later events back-dated
        ([0, 99, *range(30, 0, -1)], 30, 30 * 31 // 2),  # the worst order: what a later moment has more comes first
    ],
)
def test_moments_share_what_they_can(times, branches, extras):
    world = corrected(times)
    asked = [el.AsOf(time=T0 + seconds * SECOND) for seconds in range(-1, 101)]
    found = world.lab.history(Merged, "a/one", asked)
    for row, moment in zip(rows_of(found), asked, strict=True):
        check_row(world, Merged, "a/one", row, moment)
    past = backdated.OwnEvents.read(world.lab.store, Merged, "a/one", {}, world.lab.store.stop_position)
    plan = backdated._BranchPlan.of(past, backdated.Bounds.of_times(np.array([moment.time for moment in asked])))
    assert (len(plan.branches), sum(len(branch.extras) for branch in plan.branches)) == (branches, extras)


def test_a_history_that_ends_early_knows_of_a_correction_that_comes_after(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        for first in (0, 100, 200):
            frame = pl.DataFrame(
                {"symbol": "S", "price": 1.0, "volume": 1.0, "timestamp": [T0 + n for n in range(first, first + 100)]}
            )
            lab.append_frame(el.MarketData, frame, aggregate_id="m")
            lab.seal()
        asked = [el.AsOf(time=T0 + 10), el.AsOf(time=T0 + 20)]
        assert lab.history(el.Trades, "m", asked)["count"].to_list() == [11, 21]
        lab.append("m", el.MarketData("S", 5.0, 1.0), timestamp=T0 + 15, late="accept")
        for _ in range(2):
            found = lab.history(el.Trades, "m", asked)
            assert found["count"].to_list() == [11, 22]
            assert found["version"].to_list() == [11, 301]
            assert found["timestamp"].to_physical().to_list() == [T0 + 10, T0 + 15]
            lab.seal()


def test_what_comes_after_a_back_dated_event_is_compared_with_the_latest_time():
    world = corrected([5, 9, 3])
    for _ in range(2):
        with pytest.raises(LateEvent, match='late="accept"'):
            world.lab.append("a/one", Tick("s"), timestamp=T0 + 8 * SECOND)
        assert world.lab.append("a/one", Tick("s"), timestamp=T0 + 8 * SECOND, late="clamp").clamped == 1
        events = world.lab.events(Tick, "a/one", columns=["timestamp"])
        assert events["timestamp"].to_physical()[-1] == T0 + 9 * SECOND
        world.lab.seal()
        world.reopen()
    world.now = 0  # the clock is before all of it
    assert world.lab.append("a/one", Tick("s")).backdated == 0
    assert world.lab.state(Merged, "a/one").timestamp == world.lab.store.heads()[0].timestamp
    assert world.lab.verify().ok


def test_a_late_correction_is_marked_for_those_who_do_not_know_of_it_and_refused_to_those_who_do():
    world = built([])
    lab = world.lab
    buy = el.PortfolioChange("S", 2.0, 10.0)
    lab.append("p", buy, timestamp=T0)
    lab.append("m", el.MarketData("S", 12.0, 1.0), timestamp=T0 + 5)
    lab.append("p", buy, timestamp=T0 + 9)
    known = el.AsOf(known_at=T0 + world.now * SECOND + 2)
    asked = (known, el.AsOf(time=T0 + 6, known_at=known.known_at), el.AsOf(position=2))
    before = [lab.state(el.Portfolio, "p", moment, mark_with="m").to_dict() for moment in asked]
    rows = lab.history(el.Portfolio, "p", asked, mark_with="m")
    world.now += 10
    lab.append("p", buy, timestamp=T0 + 3, late="accept")
    assert [lab.state(el.Portfolio, "p", moment, mark_with="m").to_dict() for moment in asked] == before
    assert lab.history(el.Portfolio, "p", asked, mark_with="m").equals(rows)
    for moment in (None, 3, el.AsOf(time=T0 + 6)):
        with pytest.raises(AsOfError, match="back-dated"):
            lab.state(el.Portfolio, "p", moment, mark_with="m")
    with pytest.raises(AsOfError, match="back-dated"):
        lab.history(el.Portfolio, "p", every="1s", mark_with="m")
    assert lab.state(el.Portfolio, "p", 2, mark_with="m").version == 2


def test_a_back_dated_routed_event_stands_where_it_happened():
    lab = el.open(":memory:")
    lab.append("p", el.PortfolioChange("S", 1.0, 10.0), timestamp=T0)
    lab.append("m", [el.MarketData("S", 12.0, 1.0), el.MarketData("S", 13.0, 1.0)], timestamp=[T0 + 5, T0 + 9])
    lab.append("m", el.MarketData("S", 11.0, 1.0), timestamp=T0 + 7, late="accept")
    times = [el.AsOf(time=T0 + at) for at in (4, 5, 7, 8, 9)]
    prices = [10.0, 12.0, 11.0, 11.0, 13.0]
    found = lab.history(el.Portfolio, "p", times, mark_with="m")
    assert (found["equity"] - found["cash"]).to_list() == prices
    for moment, price in zip(times, prices, strict=True):
        state = lab.state(el.Portfolio, "p", moment, mark_with="m")
        assert state.equity - state.cash == price


def test_exported_back_dated_events_come_back_as_they_were(tmp_path):
    world = corrected([5, 9, 3, 7, 12])
    for name in ("out.pb", "out.parquet", "out.arrow"):
        world.lab.export(tmp_path / name, Tick, progress=False)
        with el.open(tmp_path / f"{name}.lab") as other:
            feed = el.feeds.exported(tmp_path / name)
            with pytest.raises(LateEvent, match='late="accept"'):
                other.ingest(feed, progress=False)
            receipt = other.ingest(feed, late="accept", progress=False)
            assert (receipt.count, receipt.clamped, receipt.backdated) == (5, 0, 2)
            assert other.ingest(feed, progress=False).backdated == 2
            assert other.verify().ok
            kept = ["version", "timestamp", "x"]
            assert other.events(Tick, columns=kept).equals(world.lab.events(Tick, columns=kept))
