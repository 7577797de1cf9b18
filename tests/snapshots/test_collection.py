"""Snapshots change how long an answer takes, never the answer."""

from __future__ import annotations

import gc
import shutil
import warnings

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import (
    FoldError,
    ReadOnlyStore,
    ReducerError,
    SnapshotError,
    UnknownAggregate,
)
from eventlab.snapshots import collection
from eventlab.snapshots.build import take_states
from eventlab.snapshots.policy.rules import Every
from eventlab.snapshots.states import Taken
from tests.examples import examples
from tests.fold.kitchen import Book, Fragile, Merged, Tables, Tick, Tock, Words
from tests.fold.strategies import (
    BOOK_CHANGES,
    KNOWN_LEVELS,
    OTHERS,
    PORTFOLIO_CHANGES,
    SIGNALS,
    TICKS,
    TOCKS,
    TRADES,
)
from tests.snapshots.labs import counting, files, filled
from tests.timetravel.worlds import NAMES, SECOND, T0, World, clock, commits

BUILT_IN = (el.Trades, el.OrderBook, el.Signals, el.Portfolio)
REDUCERS = (*BUILT_IN, Tables, Merged, Words, Book)
EVENTS = st.one_of(TRADES, BOOK_CHANGES, SIGNALS, PORTFOLIO_CHANGES, TICKS, TOCKS, KNOWN_LEVELS, OTHERS)


def moments(world, name):
    head = len(world.of(name))
    return [None, *range(head + 1), *(el.AsOf(time=T0 + s * SECOND) for s in (-1, 0, 5, 17)),
            *(el.AsOf(position=p) for p in range(0, len(world.entries), 3)),
            *(el.AsOf(known_at=T0 + s * SECOND) for s in (3_599, 3_602, 3_605))]  # fmt: skip


def answers(world, reducer, name):
    found = []
    for moment in moments(world, name):
        state = world.lab.state(reducer, name, as_of=moment)
        found.append((state.version, state.position, state.timestamp, state.digest, str(state.to_dict())))
    found.append(str(world.lab.states(reducer).rows()))
    return found


@examples(8)
@given(commits(EVENTS), commits(EVENTS, most=3), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.data())
def test_answers_are_the_same_with_any_snapshots(made, later, n, m, seal, data):
    world = World(el.open(":memory:", clock=clock()))
    for rows in made:
        world.commit(rows)
    if seal:
        world.lab.seal()
    reducer = data.draw(st.sampled_from(REDUCERS))
    name = world.entries[0].aggregate
    plain = answers(world, reducer, name)
    world.lab.snapshots.policy = Every(n)
    world.lab.snapshots.build(reducer)
    assert answers(world, reducer, name) == plain
    shift = made[-1][-1][1]
    for rows in later:
        world.commit([(aggregate, seconds + shift, event) for aggregate, seconds, event in rows])
    grown = answers(world, reducer, name)
    world.lab.snapshots.policy = Every(m)
    world.lab.snapshots.build(reducer, name)
    assert answers(world, reducer, name) == grown
    assert world.lab.snapshots.verify().equal == world.lab.snapshots.table().height
    world.lab.snapshots.drop(reducer)
    assert answers(world, reducer, name) == grown


@pytest.mark.parametrize("reducer", BUILT_IN, ids=lambda reducer: reducer.name)
def test_a_state_comes_from_the_newest_snapshot_within_its_moment(reducer):
    lab = filled()
    plain = [lab.state(reducer, NAMES[0], as_of=v).digest for v in (99, 100, 101, 199, 200)]
    lab.snapshots.policy = Every(100)
    assert lab.snapshots.build(reducer).snapshots == 6
    assert [lab.state(reducer, NAMES[0], as_of=v).digest for v in (99, 100, 101, 199, 200)] == plain
    base = lab.snapshots.latest(reducer, [NAMES[0]], version=199, time=None, stop_position=10**9)
    assert base.marks.version.tolist() == [100]
    seconds = lab.snapshots.latest(reducer, list(NAMES), version=None, time=T0 + 20 * SECOND, stop_position=10**9)
    assert seconds.marks.version.tolist() == [100] * 3
    early = lab.snapshots.latest(reducer, list(NAMES), version=99, time=None, stop_position=10**9)
    assert early.marks.version.tolist() == [0] * 3
    first = lab.snapshots.latest(reducer, list(NAMES), version=None, time=None, stop_position=290)
    assert first.marks.version.tolist() == [100, 0, 0]


def test_building_twice_adds_nothing_and_a_finer_policy_only_what_is_missing():
    lab = filled()
    lab.snapshots.policy = Every(50)
    built = lab.snapshots.build(el.Portfolio)
    assert (built.snapshots, built.bytes > 0) == (12, True)
    again = lab.snapshots.build(el.Portfolio)
    assert (again.snapshots, again.bytes) == (0, 0)
    lab.snapshots.policy = Every(25)
    assert lab.snapshots.build(el.Portfolio).snapshots == 12
    assert lab.snapshots.table().height == 24
    assert lab.snapshots.verify().equal == 24


def test_building_some_aggregates_leaves_the_others():
    lab = filled()
    lab.snapshots.policy = Every(100)
    assert lab.snapshots.build(el.Trades, "a/*").snapshots == 4
    assert lab.snapshots.table()["aggregate_id"].unique().sort().to_list() == ["a/one", "a/two"]
    assert lab.snapshots.build(el.Trades, "b/three").snapshots == 2
    assert lab.snapshots.build(el.Trades, "nothing/*").snapshots == 0
    with pytest.raises(UnknownAggregate, match="got b/four"):
        lab.snapshots.build(el.Trades, "b/four")


def test_the_table_lists_every_snapshot():
    lab = filled()
    columns = {
        "reducer": pl.String, "aggregate_id": pl.String, "version": pl.Int64, "position": pl.Int64,
        "timestamp": pl.Datetime("ns", "UTC"), "bytes": pl.Float64, "usable": pl.Boolean,
    }  # fmt: skip
    assert lab.snapshots.table().schema == columns
    lab.snapshots.policy = Every(100)
    built = [lab.snapshots.build(reducer) for reducer in (el.Trades, el.Portfolio)]
    table = lab.snapshots.table()
    assert table.schema == columns
    assert table.height == sum(one.snapshots for one in built)
    assert table["bytes"].sum() == pytest.approx(sum(one.bytes for one in built))
    assert table["usable"].all()
    assert table.equals(table.sort("reducer", "aggregate_id", "version"))
    for row in table.iter_rows(named=True):
        reducer = el.Trades if row["reducer"] == "Trades" else el.Portfolio
        state = lab.state(reducer, row["aggregate_id"], as_of=row["version"])
        assert (state.version, state.position) == (row["version"], row["position"])


def test_dropping_one_reducers_snapshots_keeps_the_others():
    lab = filled()
    for reducer in (el.Trades, el.Portfolio):
        lab.snapshots.build(reducer)
    assert lab.snapshots.drop(el.Trades) == 1
    assert lab.snapshots.table()["reducer"].unique().to_list() == ["Portfolio"]
    assert lab.snapshots.drop() == 1
    assert lab.snapshots.drop() == 0
    assert lab.snapshots.table().height == 0


def test_another_fingerprint_never_uses_a_snapshot():
    lab = filled()
    one, two = counting(1.0), counting(2.0)
    lab.snapshots.build(one)
    assert lab.state(one, NAMES[0]).total == 40.0
    assert lab.state(two, NAMES[0]).total == 80.0
    assert lab.snapshots.latest(
        two, [NAMES[0]], version=None, time=None, stop_position=10**9
    ).marks.version.tolist() == [0]
    assert lab.snapshots.drop(two) == 0
    assert lab.state(counting(1.0), NAMES[0]).total == 40.0


def test_snapshots_of_a_reducer_that_is_gone_are_listed_and_come_back_with_it():
    lab = filled()
    reducer = counting(3.0)
    lab.snapshots.build(reducer)
    lab.append("c/no snapshot", el.MarketData("A", 1.0, 1.0), timestamp=T0)
    expected = str(lab.states(reducer).rows())
    del reducer
    gc.collect()
    lab.snapshots._shelves.clear()  # the shelf is read anew, as another process would
    table = lab.snapshots.table()
    assert table["reducer"].unique().to_list() == ["Counting"]
    assert table["usable"].any() is False
    assert lab.snapshots.verify().unknown == 6
    again = counting(3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(lab.states(again).rows()) == expected
    assert lab.snapshots.build(again).snapshots == 0
    assert lab.snapshots.verify().equal == 6


def test_a_snapshot_that_its_events_do_not_add_up_to_is_found():
    lab = filled()
    lab.snapshots.build(el.Trades)
    shelf = lab.snapshots._shelf(el.Trades)
    marks = shelf.line("a/one").marks
    lab.snapshots.drop()
    shelf.refresh()
    shelf.add(el.Trades, [Taken(["a/one"] * len(marks.version), marks, el.Trades.layout.initial(len(marks.version)))])
    with pytest.raises(
        SnapshotError, match="the snapshot of Trades for 'a/one' at version 100 differs from its events"
    ):
        lab.snapshots.verify()


def test_a_store_opened_to_be_read_uses_snapshots_but_makes_and_drops_none(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=21) as lab:
        lab.snapshots.build(el.Portfolio)
        expected = lab.state(el.Portfolio, NAMES[0]).digest
    with el.open(path, read_only=True) as lab:
        lab.snapshots.policy = Every(100)
        assert lab.state(el.Portfolio, NAMES[0]).digest == expected
        assert lab.snapshots.build(el.Portfolio).snapshots == 0
        with pytest.raises(ReadOnlyStore, match="cannot be made"):
            lab.snapshots.build(el.Trades)
        with pytest.raises(ReadOnlyStore, match="cannot be dropped"):
            lab.snapshots.drop()
        assert len(files(path)) == 1


@pytest.mark.parametrize("name", [None, 5, ["a/one"]])
def test_what_is_no_aggregate_id_is_refused(name):
    lab = filled(count=1)
    with pytest.raises(UnknownAggregate, match="not an aggregate id"):
        lab.snapshots.build(el.Trades, name)
    asking = (lab.snapshot, lab.state, lab.history, lab.cursor, lambda *of: lab.diff(*of, 0, 1))
    for ask in asking:
        with pytest.raises(UnknownAggregate, match="not an aggregate id"):
            ask(el.Trades, name)


def test_what_is_no_reducer_gets_no_snapshots():
    with pytest.raises(ReducerError, match="not a reducer"):
        el.open(":memory:").snapshots.build(Tick)


def test_an_empty_lab_has_no_snapshots():
    lab = el.open(":memory:")
    assert lab.snapshots.build(el.Portfolio).snapshots == 0
    assert lab.snapshots.table().height == 0
    assert lab.snapshots.verify().equal == 0


def test_a_build_that_fails_leaves_nothing_behind():
    lab = el.open(":memory:")
    lab.append("f", [Tick("a", "w", x=1.0, n=0), Tock("a", 0.0), Tick("a", "w", x=0.0, n=0)])
    lab.snapshots.policy = Every(1)
    with pytest.raises(FoldError, match="'f', version 3"):
        lab.snapshots.build(Fragile)
    assert lab.snapshots.table().height == 0
    lab.snapshots.policy = Every(2)
    assert lab.snapshots.build(Fragile).snapshots == 1
    assert lab.state(Fragile, "f", as_of=2).total == 1.0


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_snapshots_of_events_that_were_lost_are_not_used(tmp_path, durability):
    """A store that was put back to an older copy, or lost its last commits with the power, goes on differently."""
    path, copy = tmp_path / "lab", tmp_path / "copy"

    def append(lab, price, count):
        lab.append("a", [el.MarketData("A", price, 1.0)] * count)

    with el.open(path, durability=durability) as lab:
        append(lab, 1.0, 50)
    shutil.copytree(path, copy)
    with el.open(path, durability=durability) as lab:
        lab.snapshots.policy = Every(20)
        append(lab, 2.0, 60)
        assert lab.snapshots.build(el.Trades).snapshots == 5
    shutil.copytree(path / "snapshots", copy / "snapshots")
    with el.open(copy, durability=durability) as lab:
        append(lab, 3.0, 60)
        with pytest.warns(UserWarning, match="of events that this log does not have"):
            state = lab.state(el.Trades, "a")
        assert state.notional == 50 * 1.0 + 60 * 3.0
        assert lab.snapshots.table().height == 0
        lab.snapshots.policy = Every(20)
        with pytest.raises(SnapshotError, match="of events that this log does not have"):
            lab.snapshots.verify()
        assert lab.snapshots.build(el.Trades).snapshots == 5
        assert lab.state(el.Trades, "a").digest == state.digest
    with el.open(copy) as lab, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lab.snapshots.table()["version"].to_list() == [20, 40, 60, 80, 100]
        assert lab.state(el.Trades, "a", 100).notional == 50 * 1.0 + 50 * 3.0


@pytest.mark.parametrize("seal", [False, True], ids=["in the tail", "in segments"])
def test_aggregates_without_handled_events_get_no_snapshots_and_are_not_folded(tmp_path, monkeypatch, seal):
    folded = []

    def watched(store, reducer, aggregates, *given):
        folded.extend(aggregates)
        return take_states(store, reducer, aggregates, *given)

    monkeypatch.setattr(collection, "take_states", watched)
    with el.open(tmp_path, durability="relaxed") as lab:
        lab.snapshots.policy = Every(5)
        lab.append("market", [el.MarketData("A", 1.0, 1.0)] * 12)
        lab.append("book", [el.BookChange("A", "bid", 1.0, 1.0)] * 12)
        lab.append("both", [el.BookChange("A", "bid", 1.0, 1.0)] * 12)
        lab.append("both", el.MarketData("A", 1.0, 1.0))
        if seal:
            lab.seal()
        assert lab.snapshots.build(el.Trades).snapshots == 4
        assert sorted(folded) == ["both", "market"]
        assert set(lab.snapshots.table()["aggregate_id"]) == {"both", "market"}
        for pattern in ("*", "book", "b*"):
            assert lab.snapshots.build(el.Trades, pattern).snapshots == 0
        assert len(folded) == 2
        lab.append("book", el.MarketData("A", 1.0, 1.0))
        assert lab.snapshots.build(el.Trades).snapshots == 2
        assert lab.snapshots.verify().equal == 6
