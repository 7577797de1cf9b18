"""Handlers with a start position: everything from there on, in order, once; a failure names where to go on from."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.errors import HandlerFailed, InvalidEvent
from eventlab.store.commit.writer import BULK_ROWS
from eventlab.store.event_log import EventLog
from eventlab.testing.events import SIGNAL, batch

SIGNALS = [{"symbol": "B", "action": "buy", "strength": 1.0, "strategy": "s"}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path / "lab") as opened:
        yield opened


def collector(seen: list[int]) -> Callable[[pl.DataFrame], None]:
    return lambda frame: seen.extend(frame["position"])


def failing_at(position: int, seen: list[int]) -> Callable[[pl.DataFrame], None]:
    def handler(frame: pl.DataFrame) -> None:
        if position in frame["position"]:
            raise RuntimeError("boom")
        seen.extend(frame["position"])

    return handler


@given(
    st.lists(st.sampled_from(["trade", "trades", "signal", "another", "seal", "subscribe"]), max_size=12),
    st.data(),
)
def test_each_event_from_the_start_on_comes_once_and_in_order(tmp_path_factory: Any, steps: list[str], data: Any):
    place = tmp_path_factory.mktemp("lab")
    with EventLog.open(place, durability="relaxed") as store, EventLog.open(place, durability="relaxed") as other:
        store.commit([batch(1)])
        seen: list[tuple[int, list[int]]] = []
        for step in steps:
            if step == "subscribe":
                start = data.draw(st.integers(0, store.stop_position))
                seen.append((start, []))
                store.subscribe("market_data", collector(seen[-1][1]), start)
            elif step == "seal":
                store.seal()
            elif step == "signal":
                store.commit([batch(SIGNALS, "s", kind=SIGNAL)])
            elif step == "another":
                other.commit([batch(2, ["a", "b"])])
            else:
                store.commit([batch(1 if step == "trade" else 3)])
        store.commit([batch(1)])  # brings everyone what the other process committed last
        trades = [
            p for frame in store.rows(store.types()["market_data"], columns=["position"]) for p in frame["position"]
        ]
        for start, positions in seen:
            assert positions == [position for position in trades if position >= start]


def test_frames_of_a_replay_are_bounded_and_have_the_columns_of_live_ones(store: EventLog):
    for _ in range(3):
        store.commit([batch(BULK_ROWS, ["a", "b"] * (BULK_ROWS // 2))])
    frames: list[pl.DataFrame] = []
    store.subscribe("market_data", frames.append, 10)
    assert sum(len(frame) for frame in frames) == 3 * BULK_ROWS - 10
    store.commit([batch(1)])
    assert {tuple(frame.schema.items()) for frame in frames} == {tuple(frames[-1].schema.items())}


def test_a_failure_names_the_position_and_the_same_handler_goes_on_from_there(store: EventLog):
    seen: list[int] = []
    broken = True

    def handler(frame: pl.DataFrame) -> None:
        if broken and 2 in frame["position"]:
            raise RuntimeError("boom")
        seen.extend(frame["position"])

    store.subscribe("market_data", handler, 0)
    store.commit([batch(2)])
    with pytest.warns(HandlerFailed, match=r"position 2.*boom.*stands.*removed.*start=2") as caught:
        store.commit([batch(2)])
    failure = caught[0].message
    assert isinstance(failure, HandlerFailed)
    assert failure.position == 2
    assert isinstance(failure.__cause__, RuntimeError)
    store.commit([batch(1)])
    with pytest.warns(HandlerFailed, match="position 2"):  # a second failure is as the first
        store.subscribe("market_data", handler, failure.position)
    assert (seen, store.stop_position) == ([0, 1], 5)
    broken = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.subscribe("market_data", handler, failure.position)
        store.commit([batch(1)])
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_handler_without_a_start_goes_on_and_registered_anew_with_one_is_not_called_twice(store: EventLog):
    seen: list[int] = []
    handler = failing_at(1, seen)
    store.subscribe("market_data", handler)
    store.commit([batch(1)])
    with pytest.warns(HandlerFailed, match=r"position 1.*goes on"):
        store.commit([batch(1)])
    store.commit([batch(1)])
    assert seen == [0, 2]
    store.subscribe("market_data", handler, 2)
    store.commit([batch(1)])
    assert seen == [0, 2, 2, 3]
    store.subscribe("market_data", handler)
    store.commit([batch(1)])
    assert seen == [0, 2, 2, 3, 4]


def test_a_replay_that_appends_meets_its_own_events_after_those_that_were_there(store: EventLog):
    store.commit([batch(2)])
    seen: list[int] = []

    def echo(frame: pl.DataFrame) -> None:
        seen.extend(frame["position"])
        if frame["position"][0] == 0:
            store.commit([batch(1)])

    store.subscribe("market_data", echo, 0)
    assert seen == [0, 1, 2]


def test_a_replay_of_a_type_not_there_yet(store: EventLog):
    seen: list[int] = []
    store.subscribe("trading_signal", collector(seen), 0)
    store.commit([batch(1)])
    store.commit([batch(SIGNALS, "s", kind=SIGNAL)])
    assert seen == [1]


def test_undoing_ends_it(store: EventLog):
    seen: list[int] = []
    undo = store.subscribe("market_data", collector(seen), 0)
    store.commit([batch(1)])
    undo()
    undo()
    store.commit([batch(1)])
    assert seen == [0]


@pytest.mark.parametrize("start", [-1, 2, True, 1.0, "0"])
def test_a_start_is_a_position_of_the_log(store: EventLog, start: Any):
    store.commit([batch(1)])
    with pytest.raises(InvalidEvent, match="not a position"):
        store.subscribe("market_data", print, start)


def test_threads_that_append_leave_no_gap(store: EventLog):
    seen: list[int] = []
    store.subscribe("market_data", collector(seen), 0)
    threads = [
        threading.Thread(target=lambda name: [store.commit([batch(1, name)]) for _ in range(25)], args=(name,))
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == list(range(100))
