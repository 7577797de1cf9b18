"""Wherever a cursor goes, and however it gets there, it is at the state that `lab.state` gives."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError, FoldError, ReducerError, UnknownAggregate
from eventlab.snapshots.states import Base, Marks
from eventlab.store.event_log import EventLog
from eventlab.timetravel.cursor import cursor as cursors
from eventlab.timetravel.cursor import event_cache
from eventlab.timetravel.cursor import state_cache as waypoints
from eventlab.timetravel.cursor.state_cache import Limit, Waypoints
from eventlab.timetravel.state import State
from tests.fold.helpers import bits
from tests.fold.kitchen import Fragile, Merged, Tables, Tick, Tock
from tests.fold.strategies import BOOK_CHANGES, OTHERS, PORTFOLIO_CHANGES, TICKS, TOCKS, TRADES
from tests.timetravel.worlds import MOMENTS, NAMES, World, clock

REDUCERS = (el.Trades, el.Portfolio, el.OrderBook, Tables, Merged)
EVENTS = st.one_of(TICKS, TOCKS, TRADES, BOOK_CHANGES, PORTFOLIO_CHANGES, OTHERS)


@contextmanager
def small(versions=4, spacing=0, events=event_cache.BYTES, states=waypoints.BYTES):
    """Stretches of a few versions, so that a short history has many, and little memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_cache, "VERSIONS", versions)
        patch.setattr(cursors, "VERSIONS", versions)
        patch.setattr(cursors, "FEWEST", spacing)
        patch.setattr(event_cache, "BYTES", events)
        patch.setattr(waypoints, "BYTES", states)
        yield


def same(found: State, expected: State) -> bool:
    """Whether two states have the same bits, and so have all that is derived from them."""
    return found.digest == expected.digest and bits(found.to_dict()) == bits(expected.to_dict())


ROWS = st.lists(st.tuples(st.sampled_from((*NAMES, NAMES[0])), st.sampled_from([0, 0, 1, 7]), EVENTS), min_size=1)
ACTS = st.one_of(
    st.tuples(st.just("append"), ROWS),
    st.tuples(st.just("seek"), MOMENTS, st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.just("seek"), MOMENTS, st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.just("version"), st.floats(0, 1)),
    st.tuples(st.just("step"), st.integers(-20, 20)),
    st.tuples(st.just("step"), st.sampled_from([-1, 1])),
    st.tuples(st.sampled_from(["seal", "build", "drop"])),
)


class Walk:
    """A world, cursors over one of its aggregates, and what is done to both."""

    def __init__(self, rows: list[Any], reducers: Any, interpret: bool | None) -> None:
        self.world, self.seconds = World(el.open(":memory:", clock=clock())), 0
        self.lab, self.interpret = self.world.lab, interpret
        self.lab.snapshots.policy = el.snapshots.Every(5)
        self.append([(NAMES[0], 0, Tock("a", 1.0)), *rows])
        self.cursors = [self.lab.cursor(reducer, NAMES[0], interpret=interpret) for reducer in reducers]

    @property
    def head(self) -> int:
        return len(self.world.of(NAMES[0]))

    def append(self, rows):
        made = []
        for aggregate, pause, event in rows:
            self.seconds += pause
            made.append((aggregate, self.seconds, event))
        self.world.commit(made)

    def do(self, cursor, act, *given):
        if act == "step":
            self.step(cursor, *given)
            return
        if act == "version":
            moment = el.AsOf(version=round(given[0] * self.head))
        else:
            bounds, version, position = given
            version = None if version < 0.5 else round((2 * version - 1) * self.head)
            last = len(self.world.entries) - 1
            position = None if position < 0.5 else round((2 * position - 1) * last)
            moment = el.AsOf(version=version, time=bounds.time, position=position, known_at=bounds.known_at)
        state = cursor.seek(moment)
        assert state.version == len(self.world.included(NAMES[0], moment))
        assert same(state, self.lab.state(cursor.reducer, NAMES[0], moment, interpret=self.interpret))

    def step(self, cursor, n):
        before, version = cursor.state, cursor.version + n
        if 0 <= version <= self.head:
            assert cursor.step(n).version == version
        else:
            with pytest.raises(AsOfError, match=f"a step of {n} from version {before.version} leads"):
                cursor.step(n)
            assert cursor.state is before

    def check(self, cursor):
        state = cursor.state
        assert cursor.version == state.version
        assert cursor.head == self.head
        assert same(state, self.lab.state(cursor.reducer, NAMES[0], state.version, interpret=self.interpret))
        if cursor.reducer is not Merged:  # which reads positions and times, and those of the plain fold are others
            assert state.digest == self.world.digest(cursor.reducer, NAMES[0], el.AsOf(version=state.version))


@settings(max_examples=50)
@given(ROWS, st.lists(ACTS, max_size=25), st.sampled_from([None, None, True, False]), st.integers(0, 2), st.data())
def test_any_way_to_a_version_gives_its_state(rows, acts, interpret, memory, data):
    limits = ({}, {"events": 2_000, "states": 15_000}, {"events": 0, "states": 0})[memory]
    reducers = data.draw(st.lists(st.sampled_from(REDUCERS), min_size=1, max_size=2, unique=True))
    with small(**limits):
        walk = Walk(rows, reducers, interpret)
        for act, *given_to in acts:
            if act == "append":
                walk.append(*given_to)
            elif act == "seal":
                walk.lab.seal()
            elif act == "build":
                for reducer in reducers:
                    walk.lab.snapshots.build(reducer, NAMES[0])
            elif act == "drop":
                walk.lab.snapshots.drop()
            else:
                for cursor in walk.cursors:
                    walk.do(cursor, act, *given_to)
            for cursor in walk.cursors:
                walk.check(cursor)


def trades(count: int, seed: int = 0) -> list[Any]:
    draw = random.Random(seed)
    return [el.MarketData("BTCUSDT", 100.0 + draw.randint(-50, 50) / 4, draw.randint(1, 9) / 8) for _ in range(count)]


@pytest.fixture
def lab():
    lab = el.open(":memory:")
    lab.append("m", trades(40))
    return lab


def test_it_begins_at_a_moment_and_says_where_it_is(lab):
    cursor = lab.cursor(el.Trades, "m")
    assert (cursor.version, cursor.head, cursor.aggregate_id, cursor.reducer) == (40, 40, "m", el.Trades)
    assert cursor.state.count == 40
    assert lab.cursor(el.Trades, "m", 7).state.count == 7
    assert lab.cursor(el.Trades, "m", el.AsOf(position=9)).version == 10
    nothing = lab.cursor(el.Trades, "m", 0).state
    assert (nothing.version, nothing.position, nothing.timestamp, nothing.count) == (0, None, None, 0)


def test_it_is_shown_as_its_state(lab):
    cursor = lab.cursor(el.Trades, "m", 7)
    assert repr(cursor) == f"cursor at {cursor.state!r}"
    assert "Trades of m at version 7" in cursor._repr_html_()
    assert cursor.state._repr_html_() in cursor._repr_html_()


@pytest.mark.parametrize("n", [-8, 34, 10**30, -(2**63), np.int64(100)])
def test_a_step_out_of_the_history_is_refused_and_changes_nothing(lab, n):
    cursor = lab.cursor(el.Trades, "m", 7)
    before = cursor.state
    with pytest.raises(AsOfError, match=rf"a step of {n} from version 7 leads .*; expected a version from 0 to 40"):
        cursor.step(n)
    assert cursor.state is before
    assert cursor.step(np.int64(1)).version == 8


@pytest.mark.parametrize("n", [True, False, 1.0, "1", None])
def test_what_is_no_number_of_versions_is_refused(lab, n):
    with pytest.raises(AsOfError, match="a step is a whole number of versions"):
        lab.cursor(el.Trades, "m").step(n)


@pytest.mark.parametrize(
    "as_of", [41, -1, True, "yesterday", el.AsOf(position=40), el.AsOf(version=41, time="2000-01-01"), 1.5]
)
def test_what_is_no_moment_is_refused_as_by_state_and_changes_nothing(lab, as_of):
    cursor = lab.cursor(el.Trades, "m", 7)
    before = cursor.state
    with pytest.raises(AsOfError) as expected:
        lab.state(el.Trades, "m", as_of)
    with pytest.raises(AsOfError) as found:
        cursor.seek(as_of)
    assert str(found.value) == str(expected.value)
    assert cursor.state is before


def test_unknown_aggregates_and_reducers_are_refused(lab):
    with pytest.raises(UnknownAggregate, match="got M"):
        lab.cursor(el.Trades, "M")
    with pytest.raises(ReducerError, match="not a reducer"):
        lab.cursor(Tick, "m")


@pytest.mark.parametrize("interpret", [True, False, None])
def test_a_failing_handler_leaves_it_where_it_was(interpret):
    lab = el.open(":memory:")
    good = Tick("a", "w", x=1.0, n=0)
    lab.append("f", [good, Tock("a", 0.0), Tick("a", "w", x=0.0, n=0), good])
    cursor = lab.cursor(Fragile, "f", 1, interpret=interpret)
    for move in (lambda: cursor.step(2), lambda: cursor.seek(4), cursor.seek):
        with pytest.raises(FoldError, match="Fragile failed on tick of 'f', version 3: ZeroDivisionError"):
            move()
        assert (cursor.version, cursor.state.total) == (1, 1.0)
    assert cursor.step().version == 2
    with pytest.raises(FoldError, match="version 3"):
        lab.cursor(Fragile, "f", interpret=interpret)


def test_it_sees_what_others_append(tmp_path):
    with el.open(tmp_path) as lab, small(versions=8):
        lab.append("m", trades(3))
        with el.open(tmp_path, read_only=True) as other:
            cursor = other.cursor(el.Trades, "m")
            for turn in range(1, 8):
                stays = cursor.state
                lab.append("m", trades(5, seed=turn))
                assert (cursor.version, cursor.head) == (3 + 5 * (turn - 1), 3 + 5 * turn)
                assert cursor.step(0) is stays
                for _ in range(5):
                    assert same(cursor.step(), lab.state(el.Trades, "m", cursor.version))
                assert same(cursor.step(-4), lab.state(el.Trades, "m", cursor.version))
                assert cursor.seek().version == cursor.head


class NoReading(Exception):
    pass


@pytest.fixture
def unread(monkeypatch):
    """Makes reading events from a lab's store fail."""

    def forbid(lab):
        def frames(_):
            raise NoReading

        monkeypatch.setattr(lab.store, "frames", frames)

    return forbid


@pytest.mark.parametrize("interpret", [True, False])
def test_moves_nearby_need_no_reading(lab, unread, interpret):
    cursor = lab.cursor(el.Trades, "m", interpret=interpret)
    expected = [lab.state(el.Trades, "m", version) for version in range(41)]
    unread(lab)
    with pytest.raises(NoReading):
        lab.state(el.Trades, "m")
    for version in (39, 3, 4, 0, 40, 17):
        assert same(cursor.seek(version), expected[version])
    for n in (-10, 5, 1, -1, 28):
        assert same(cursor.step(n), expected[cursor.version])
    for moment in (el.AsOf(position=12), el.AsOf(time=expected[40].timestamp), el.AsOf(time=0), None):
        assert same(cursor.seek(moment), expected[cursor.version])


def folds_of(monkeypatch):
    """How many events each of a cursor's folds takes."""
    counts: list[int] = []
    whole = cursors.advance

    def counted(reducer, base, frame, *rest, **more):
        counts.append(len(frame))
        return whole(reducer, base, frame, *rest, **more)

    monkeypatch.setattr(cursors, "advance", counted)
    return counts


def test_moves_begin_nearby(monkeypatch):
    lab = el.open(":memory:")
    lab.append("m", trades(1_000))
    with small(versions=64):
        cursor = lab.cursor(el.Trades, "m", interpret=False)
        counts = folds_of(monkeypatch)
        for n, least, most in ((-1, 0, 64), (1, 1, 1), (-300, 0, 64), (299, 0, 64), (1, 1, 1)):
            counts.clear()
            cursor.step(n)
            assert least <= sum(counts) <= most


def test_far_moves_begin_at_snapshots(monkeypatch):
    lab = el.open(":memory:")
    lab.append("m", trades(1_000))
    lab.snapshots.policy = el.snapshots.Every(100)
    lab.snapshots.build(el.Trades)
    expected = {version: lab.state(el.Trades, "m", version) for version in (950, 310, 305, 999)}
    time = expected[310].timestamp
    with small(versions=64):
        counts = folds_of(monkeypatch)
        cursor = lab.cursor(el.Trades, "m", 950, interpret=False)
        assert sum(counts) == 50
        counts.clear()
        assert same(cursor.seek(310), expected[310])
        assert sum(counts) == 10
        lab.snapshots.drop()
        counts.clear()
        assert same(cursor.seek(305), expected[305])
        assert same(cursor.seek(999), expected[999])
        assert same(cursor.seek(el.AsOf(version=310, time=time)), expected[310])
        assert sum(counts) == 5 + 99 + 10


def test_interpreted_states_are_kept_close_together(monkeypatch):
    lab = el.open(":memory:")
    lab.append("m", trades(1_000))
    counts = folds_of(monkeypatch)
    cursor = lab.cursor(el.Trades, "m", interpret=True)
    assert max(counts) <= 64
    counts.clear()
    for _ in range(200):
        cursor.step(-1)
    assert max(counts) < 64
    assert len(counts) == 200 - 200 // 64  # a state that is kept is there


def test_memory_is_bounded():
    lab = el.open(":memory:")
    lab.append("m", trades(2_000))
    with small(versions=64, events=20_000, states=50_000):
        cursor = lab.cursor(el.Trades, "m")
        draw = random.Random(3)
        for _ in range(100):
            version = draw.randint(0, 2_000)
            assert cursor.seek(version).count == version
            assert cursor._waypoints.size <= 50_000
            assert cursor._events.size <= 20_000
            assert len(cursor._waypoints) > 3


def test_kept_events_are_copies_of_their_own():
    lab = el.open(":memory:")
    lab.append("m", [Tick(f"s{n}", f"w{n}", x=1.0, n=n) for n in range(500)])
    with small(versions=32):
        cursor = lab.cursor(Tables, "m")
        for stretch in cursor._events._kept.values():
            table = stretch.frame.tables["tick"]
            assert len(table.columns["word"].dictionary) <= 32
            assert stretch.size < 32 * 200


def state_at(version: int) -> Base:
    mark = np.array([version])
    return Base(el.Trades.layout.initial(1), Marks(mark, mark - 1, mark, mark))


def test_states_are_kept_the_denser_the_nearer():
    with small(states=100 * 4_400):
        kept = Waypoints()
        for version in range(10, 30_001, 10):
            kept.keep(state_at(version), near=20_000)
        assert 90 < len(kept) < 110
        assert kept.size <= 100 * 4_400
        for version in range(0, 30_001, 7):
            begin = kept.newest(Limit(version, 2**62))
            way = version - (0 if begin is None else int(begin.marks.version[0]))
            assert way <= 20 + abs(version - 20_000) // 5


@given(st.lists(st.integers(1, 60)), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_newest_state_within_a_limit(versions, version, stop, time):
    kept = Waypoints()
    for one in versions:
        kept.keep(state_at(one), near=0)
    found = kept.newest(Limit(version, stop, time))
    allowed = [one for one in versions if one <= version and one - 1 < stop and one <= time]
    assert (None if found is None else int(found.marks.version[0])) == max(allowed, default=None)
    assert kept.beyond(version) == min((one for one in versions if one > version), default=None)
    assert len(kept) == len(set(versions))


def test_where_times_may_go_back_a_time_is_reconstructed(monkeypatch, lab):
    monkeypatch.setattr(EventLog, "times_ascend_in", lambda *_: False)
    asked = []
    whole = cursors.reconstruct
    monkeypatch.setattr(cursors, "reconstruct", lambda *args, **more: asked.append(args[3]) or whole(*args, **more))
    time = lab.state(el.Trades, "m", 3).timestamp
    cursor = lab.cursor(el.Trades, "m", 5)
    for moment in (el.AsOf(time=time), el.AsOf(time=time, version=2)):
        assert same(cursor.seek(moment), lab.state(el.Trades, "m", moment))
        assert same(cursor.step(-1), lab.state(el.Trades, "m", cursor.version))
        assert same(cursor.step(1), lab.state(el.Trades, "m", cursor.version))
    assert asked == [el.AsOf(time=time), el.AsOf(time=time, version=2)]


@pytest.mark.parametrize("market", ["usdm", "spot"])
def test_scrubbing_a_real_book(market_data_dir, market):
    lab = el.open(":memory:")
    path = market_data_dir / "binance" / f"{market}_btcusdt_l2.csv.gz"
    lab.ingest(el.feeds.tardis_book(path, aggregate_id="book"), progress=False)
    draw = random.Random(5)
    cursor = lab.cursor(el.OrderBook, "book", interpret=False)

    def check():
        assert same(cursor.state, lab.state(el.OrderBook, "book", cursor.version, interpret=False))

    for _ in range(4):
        cursor.seek(draw.randint(0, cursor.head - 10_000))
        check()
        for n in (1, -1, 1_000, -1_000, 3_333):
            cursor.step(max(n, -cursor.version))
            check()
        moment = el.AsOf(time=lab.state(el.OrderBook, "book", draw.randint(1, cursor.head)).timestamp)
        assert same(cursor.seek(moment), lab.state(el.OrderBook, "book", moment))
