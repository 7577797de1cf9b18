"""One core or several, any cut into parts: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FoldError, ReducerError
from eventlab.fold import executors
from tests.fold.kitchen import Book, Fragile, Merged, Tables, Tick, Words
from tests.fold.strategies import LEVELS, OTHERS, TICKS, TOCKS
from tests.timetravel.worlds import SECOND, T0, commits

EVENTS = st.one_of(TICKS, TICKS, TOCKS, LEVELS, OTHERS)


@pytest.fixture(autouse=True)
def every_aggregate_is_worth_a_core(monkeypatch):
    monkeypatch.setattr(executors, "_WORTH_A_CORE", 1)


@settings(max_examples=8)
@given(made=commits(EVENTS, most=4))
def test_states_are_the_same_with_any_executor_and_together(made):
    reducers = [Words, Tables, Book, Merged]
    with el.open(":memory:") as lab:
        for rows in made:
            with lab.commit() as group:
                for aggregate, seconds, event in rows:
                    group.append(aggregate, event, timestamp=T0 + seconds * SECOND)
        plain = [lab.states(reducer, interpret=True) for reducer in reducers]
        for executor in (el.executors.Serial(), el.executors.Threads(3), None):
            together = lab.states(reducers, interpret=False, executor=executor)
            assert all(one.equals(expected) for one, expected in zip(together, plain, strict=True))
        assert lab.states(Merged, interpret=False, executor=el.executors.Threads(2)).equals(plain[-1])


def test_snapshots_serve_several_reducers_only_where_they_agree():
    with el.open(":memory:") as lab:
        lab.append("a", [el.MarketData("A", float(price), 1.0) for price in range(1, 20)])
        lab.snapshots.policy = el.snapshots.Every(5)
        lab.snapshots.build(el.Trades)
        trades, signals = lab.states([el.Trades, el.Signals])
        assert trades.equals(lab.states(el.Trades))
        assert signals.equals(lab.states(el.Signals))
        assert lab.states([]) == []


def test_settings_of_a_reducer_are_folded_together():
    @el.reducer
    class Above:
        limit: float = 0.0
        count: int = 0

        def on_market_data(state, event):
            if event.price > state.limit:
                state.count += 1

    with el.open(":memory:") as lab:
        for name in "abc":
            lab.append(name, [el.MarketData("A", float(price), 1.0) for price in range(10)])
        grid = [Above(limit=float(limit)) for limit in range(10)]
        frames = lab.states(grid, interpret=False)
        assert [frame["count"].to_list() for frame in frames] == [[9 - limit] * 3 for limit in range(10)]
        assert all(frame.equals(lab.states(one)) for one, frame in zip(grid, frames, strict=True))


def test_a_handler_that_fails_in_a_thread_is_located():
    with el.open(":memory:") as lab:
        for at in range(6):
            lab.append(f"a{at}", [Tick("fine"), Tick("raise") if at == 4 else Tick("fine")])
        with pytest.raises(FoldError) as compiled:
            lab.states(Fragile, interpret=False, executor=el.executors.Threads(3))
        with pytest.raises(FoldError) as plain:
            lab.states(Fragile, interpret=True)
        assert str(compiled.value) == str(plain.value)


@given(work=st.lists(st.integers(0, 50), min_size=1, max_size=30), parts=st.integers(1, 9))
def test_parts_cover_all_aggregates_once_in_order(work, parts):
    found = executors.spans(np.array(work, dtype=np.int64), el.executors.Threads(parts))
    assert [a for first, stop in found for a in range(first, stop)] == list(range(len(work)))
    assert 1 <= len(found) <= parts
    assert all(stop > first for first, stop in found)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_what_is_no_number_of_threads_is_refused(count):
    with pytest.raises(ReducerError, match="number of threads"):
        el.executors.Threads(count)
