"""The laws, each as a property through the public face.

They hold whatever is appended, sealed, reopened or thrown away. Law 3 (acknowledged means durable) kills real
processes: see tests/store/test_durability.py. Law 5 (a fast path ships with its proof) and law 6 (columns, not objects)
are kept by the tests of the rooms.
"""

import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el

PRICES = st.integers(1, 400).map(lambda ticks: ticks / 4)
SIZES = st.integers(0, 40).map(lambda lots: lots / 10)
SYMBOLS = st.sampled_from(["BTCUSDT", "ETHUSDT", "Ω/€"])

EVENTS = st.one_of(
    st.builds(el.MarketData, SYMBOLS, PRICES, SIZES, side=st.sampled_from(["buy", "sell", None])),
    st.builds(
        el.BookChange,
        SYMBOLS,
        st.sampled_from(["bid", "ask"]),
        PRICES,
        SIZES,
        st.booleans(),
        update_id=st.integers(1, 4),
    ),
    st.builds(el.TradingSignal, SYMBOLS, st.sampled_from(["buy", "sell", "hold"]), PRICES, st.just("s")),
    st.builds(
        el.PortfolioChange,
        SYMBOLS,
        st.integers(-30, 30).map(lambda lots: lots / 10),
        PRICES,
        SIZES,
        st.sampled_from(["fill", "fill", "fill", "cash", "funding"]),
    ),
)
AGGREGATES = ("one", "two", "mixed/Ω")
STEPS = st.lists(
    st.tuples(st.sampled_from(AGGREGATES), st.lists(EVENTS, min_size=1, max_size=12), st.integers(0, 3), st.booleans()),
    min_size=1,
    max_size=8,
)
REDUCERS = (el.Trades, el.OrderBook, el.Signals, el.Portfolio)

whole_labs = settings(max_examples=settings.default.max_examples // 5)
"""An example here opens labs, folds four reducers over all of them, and is worth many of a room's own."""

START = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("laws")


def fresh(folder: Path) -> Path:
    path = folder / "lab"
    shutil.rmtree(path, ignore_errors=True)
    return path


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        self.now += 1_000
        return self.now


def fill(lab, steps, *, split=None, seal=True):
    """Append the steps; `split` cuts each into batches of its own size. Returns recorded times."""
    time = START
    for aggregate, events, pause, sealed in steps:
        time += pause * 1_000_000_000
        size = split or len(events)
        for at in range(0, len(events), size):
            lab.append(aggregate, events[at : at + size], timestamp=time)
        if sealed and seal:
            lab.seal()


def digests(lab, as_of=None, **how):
    ids = lab.store.aggregate_ids()
    return {(r.name, a): lab.state(r, a, as_of, **how).digest for r in REDUCERS for a in ids}


@whole_labs
@given(STEPS)
def test_law_1_events_are_the_only_truth(folder, steps):
    path = fresh(folder)
    with el.open(path) as lab:
        fill(lab, steps)
        for reducer in REDUCERS:
            lab.snapshots.policy = el.snapshots.Every(3)
            lab.snapshots.build(reducer)
        with_snapshots = digests(lab)
        assert lab.snapshots.verify().unknown == 0
        lab.snapshots.drop()
        assert digests(lab) == with_snapshots
    shutil.rmtree(path / "snapshots", ignore_errors=True)
    with el.open(path, read_only=True) as lab:
        assert digests(lab) == with_snapshots


@whole_labs
@given(STEPS, st.integers(1, 5), st.integers(1, 7), st.data())
def test_law_2_one_answer(folder, steps, split, interval, data):
    """Compiled, interpreted, from snapshots, in other batches, sealed or not, reopened: the same bits."""
    path = fresh(folder)
    with el.open(":memory:") as plain, el.open(path) as lab:
        fill(plain, steps, seal=False)
        fill(lab, steps, split=split)
        lab.snapshots.policy = el.snapshots.Every(interval)
        wanted = digests(plain, interpret=True)
        assert digests(plain, interpret=False) == wanted
        assert digests(lab) == wanted
        for reducer in REDUCERS:
            lab.snapshots.build(reducer)
        assert digests(lab, interpret=False) == wanted
        head = lab.store.heads(["one"])
        version = data.draw(st.integers(0, head[0].version)) if head else None
        if version is not None:
            for reducer in REDUCERS:
                past = [
                    s.state(reducer, "one", version, interpret=i).to_dict() for s in (plain, lab) for i in (True, False)
                ]
                for one in past:  # where the batches differ, positions do not: there is one order
                    assert repr(one) == repr(past[0])
    with el.open(path) as lab:
        assert digests(lab) == wanted


@whole_labs
@given(STEPS, STEPS)
def test_law_4_no_look_ahead(steps, later):
    """What comes after T, in event time or in knowledge, does not change the state as of T."""
    with el.open(":memory:", clock=Clock()) as lab:
        fill(lab, steps)
        known = lab.append("one", el.MarketData("BTCUSDT", 1.0, 1.0), timestamp=START + 10**12)
        then, moment = START + 10**12, el.AsOf(known_at=known.recorded_at)
        ids = lab.store.aggregate_ids()
        before = {(r.name, a): lab.state(r, a, el.AsOf(time=then)) for r in REDUCERS for a in ids}
        for aggregate, events, _, _ in later:
            lab.append(aggregate, events, timestamp=then + 1)
        for reducer in REDUCERS:
            for aggregate in ids:
                assert lab.state(reducer, aggregate, el.AsOf(time=then)) == before[reducer.name, aggregate]
                assert lab.state(reducer, aggregate, moment) == before[reducer.name, aggregate]
                both = el.AsOf(time=then + 1, known_at=known.recorded_at)
                assert lab.state(reducer, aggregate, both) == before[reducer.name, aggregate]


@whole_labs
@given(STEPS)
def test_history_is_the_states_one_after_the_other(steps):
    with el.open(":memory:") as lab:
        fill(lab, steps)
        for aggregate in lab.store.aggregate_ids():
            for reducer in REDUCERS:
                history = lab.history(reducer, aggregate, tables=True)
                for row in history.iter_rows(named=True):
                    state = lab.state(reducer, aggregate, row["version"])
                    assert state.position == row["position"]
                    plain = {name: value for name, value in state.to_dict().items() if name in history.columns}
                    same = {name: row[name] for name in plain}
                    del plain["timestamp"], same["timestamp"]  # Polars gives datetimes of microseconds
                    assert repr(same) == repr(plain)


@whole_labs
@given(STEPS)
def test_many_states_are_the_single_ones(steps):
    with el.open(":memory:") as lab:
        fill(lab, steps)
        for reducer in REDUCERS:
            frame = lab.states(reducer, as_of=el.AsOf(time=START + 3 * 10**9))
            assert frame["aggregate_id"].to_list() == lab.store.aggregate_ids()
            for row in frame.select(pl.exclude("timestamp")).iter_rows(named=True):
                state = lab.state(reducer, row.pop("aggregate_id"), el.AsOf(time=START + 3 * 10**9)).to_dict()
                del state["timestamp"]
                assert repr({name: state[name] for name in row}) == repr(row)
