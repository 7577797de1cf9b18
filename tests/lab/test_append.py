"""Appends of events, frames and groups are atomic and checked."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import eventlab as el
from eventlab.errors import (
    AsOfError,
    DuplicateEvent,
    InvalidEvent,
    WrongVersion,
)
from eventlab.lab.lab import Lab


def signal(action: str = "buy") -> el.TradingSignal:
    return el.TradingSignal("BTC", action, 1.0, "s")


def fill(quantity: float = 1.0) -> el.PortfolioChange:
    return el.PortfolioChange("BTC", quantity, 2.0)


TRADES = pl.DataFrame(
    {"symbol": ["A", "B", "A"], "price": [1.0, 2.0, 3.0], "volume": [1.0, 1.0, 1.0], "timestamp": [10, 20, 30]}
)


def signal_of(strength):
    return el.TradingSignal("BTC", "buy", strength, "s")


def test_append_one_and_many(lab: Lab):
    assert lab.append("p", fill()).version == 1
    receipt = lab.append(
        "p",
        [signal(), fill(2.0), signal("sell")],
        timestamp=["2124-01-01", dt.datetime(2124, 1, 2, tzinfo=dt.UTC), np.datetime64("2124-01-03")],
        cause=[0, None, 1],
        event_id=["x", None, "z"],
        metadata={"run": "7"},
        expected_version=1,
    )
    assert (receipt.first_position, receipt.position, receipt.version, receipt.count) == (1, 3, 4, 3)
    signals = lab.events(el.TradingSignal)
    assert signals["position"].to_list() == [1, 3]
    assert signals["cause"].to_list() == [0, 1]
    assert signals["timestamp"].dt.day().to_list() == [1, 3]
    found = lab.events(event_id="z")
    assert found["event_type"].to_list() == ["trading_signal"]
    assert found["metadata"].to_list() == ['{"run":"7"}']
    assert lab.events(event_id="x", columns=["action", "position"]).rows() == [("buy", 1)]


@pytest.mark.parametrize(
    ("events", "more"),
    [
        ([], {}),
        ("text", {}),
        (el.TradingSignal, {}),
        ([signal(), 3], {}),
        (None, {}),
        ({"a": signal()}, {}),
        ([signal()] * 2, {"timestamp": ["2024-01-01"]}),
        ([signal()] * 2, {"event_id": "same"}),
        (signal(), {"event_id": 3}),
        (signal(), {"event_id": ""}),
        (signal(), {"cause": True}),
        (signal(), {"cause": -1}),
        (signal(), {"cause": 0}),
        (signal(), {"metadata": {"a": 1}}),
        (signal(), {"late": "whatever"}),
        (signal(), {"expected_version": True}),
        (el.TradingSignal("", "buy", 1.0, "s"), {}),
        (el.TradingSignal("BTC", "buy", float("nan"), "s"), {}),
    ],
)
def test_an_invalid_event_is_refused_and_leaves_nothing(lab: Lab, events, more):
    with pytest.raises(el.EventlabError) as caught:
        lab.append("a", events, **more)
    assert isinstance(caught.value, InvalidEvent) or "twice" in str(caught.value)
    assert lab.info().events == 0


def test_a_naive_time_is_refused(lab: Lab):
    for wrong in (dt.datetime(2024, 1, 1), True, "yesterday"):  # noqa: DTZ001
        with pytest.raises(AsOfError):
            lab.append("a", signal(), timestamp=wrong)


def test_expected_version_names_both(lab: Lab):
    lab.append("a", signal())
    with pytest.raises(WrongVersion, match=r"'a'.*version 1.*version 0"):
        lab.append("a", signal(), expected_version=0)


@pytest.mark.parametrize("form", [lambda f: f, lambda f: f.to_arrow(), lambda f: f.to_arrow().to_batches()[0]])
def test_append_frame_takes_polars_and_arrow(lab: Lab, form):
    receipt = lab.append_frame(el.MarketData, form(TRADES))
    assert (receipt.count, receipt.version) == (3, 2)
    assert lab.store.aggregate_ids() == ["market/A", "market/B"]
    assert lab.events(el.MarketData, "market/A")["price"].to_list() == [1.0, 3.0]


def test_append_frame_templates_and_columns(lab: Lab):
    lab.append_frame("market_data", TRADES, aggregate_id="x/{symbol}")
    lab.append_frame(el.MarketData, TRADES, aggregate_id="plain")
    lab.append_frame(el.MarketData, TRADES.with_columns(aggregate_id=pl.lit("own")), metadata={"a": "b"})
    both = TRADES.with_columns(side=pl.Series(["buy", "sell", "buy"]))
    lab.append_frame(el.MarketData, both, aggregate_id="{symbol}/{side}")
    assert lab.store.aggregate_ids() == ["A/buy", "B/sell", "own", "plain", "x/A", "x/B"]
    extra = TRADES.with_columns(cause=pl.Series([0, None, 1]), event_id=pl.Series(["i", None, "k"]))
    receipt = lab.append_frame(el.MarketData, extra, aggregate_id="plain", late="clamp")
    assert receipt.clamped == 2
    assert lab.append_frame(el.MarketData, TRADES.clear(), aggregate_id="plain").count == 0
    assert lab.append_frame(el.MarketData, TRADES.drop("timestamp")).count == 3
    assert lab.verify().ok


@pytest.mark.parametrize(
    ("kind", "frame", "more"),
    [
        (el.PortfolioChange, TRADES.select("symbol", "price", quantity="volume"), {}),
        (el.MarketData, TRADES, {"aggregate_id": "{nonsense}"}),
        (el.MarketData, TRADES, {"aggregate_id": "{price}"}),
        (el.MarketData, TRADES, {"aggregate_id": "a{"}),
        (el.MarketData, TRADES, {"aggregate_id": "a*"}),
        (el.MarketData, TRADES, {"aggregate_id": "{side}"}),
        (el.MarketData, TRADES.with_columns(aggregate_id=pl.lit("a")), {"aggregate_id": "b"}),
        (el.MarketData, TRADES.with_columns(aggregate_id=pl.lit(None, pl.String)), {}),
        (el.MarketData, TRADES.with_columns(surplus=1), {}),
        (el.MarketData, TRADES.drop("price"), {}),
        (el.MarketData, TRADES.with_columns(cause=pl.lit(-4)), {}),
        (el.MarketData, TRADES.with_columns(cause=pl.lit("x")), {}),
        (el.MarketData, TRADES.with_columns(event_id=pl.lit(3)), {}),
        (el.MarketData, TRADES.with_columns(timestamp=pl.lit(None, pl.Int64)), {}),
        (el.MarketData, TRADES.reverse(), {"aggregate_id": "one"}),
        (el.MarketData, {"symbol": ["A"]}, {}),
        (el.MarketData, TRADES.lazy(), {}),
    ],
)
def test_frames_that_do_not_fit_are_refused(lab: Lab, kind, frame, more):
    with pytest.raises(InvalidEvent):
        lab.append_frame(kind, frame, **more)
    assert lab.info().events == 0


def test_a_group_is_one_commit(lab: Lab):
    with lab.commit() as c:
        first = c.append("signals/s", [signal(), signal("hold")], expected_version=0)
        second = c.append("p", fill(), cause=first, expected_version=0)
        c.append("p", [fill(), signal()], cause=[second, None], expected_version=1)
    assert (first.position, second.position) == (1, 2)
    assert c.receipt is not None
    assert (c.receipt.count, c.receipt.version, lab.info().commits) == (5, 3, 1)
    assert lab.events(el.PortfolioChange)["cause"].to_list() == [1, 2]
    assert lab.events(el.TradingSignal)["aggregate_id"].to_list() == ["signals/s", "signals/s", "p"]
    with pytest.raises(InvalidEvent, match="committed already"):
        c.append("p", fill())


def test_a_group_is_a_cause_for_what_comes_after_it(lab: Lab):
    lab.append("p", [fill(), fill()])
    with lab.commit() as c:
        c.append("signals/s", signal())
        ref = c.append("signals/s", signal("hold"))
    lab.append("q", [fill(), fill()], cause=[None, ref])
    with lab.commit() as other:
        own = other.append("r", fill())
        other.append("r", [fill(), fill()], cause=[ref, own])
    assert ref.position == 3
    assert lab.events(el.PortfolioChange, "q")["cause"].to_list() == [None, 3]
    assert lab.events(el.PortfolioChange, "r")["cause"].to_list() == [None, 3, own.position]
    unfinished = lab.commit().append("p", fill())
    with pytest.raises(InvalidEvent, match="no position"):
        lab.append("q", fill(), cause=unfinished)


def test_a_group_that_fails_leaves_nothing(lab: Lab):
    def fails() -> None:
        with lab.commit() as c:
            ref = c.append("p", fill())
            with pytest.raises(InvalidEvent, match="no position"):
                _ = ref.position
            raise KeyError("mine")

    with pytest.raises(KeyError):
        fails()
    c = lab.commit()
    c.append("p", fill())
    c.append("q", fill(), expected_version=3)
    with pytest.raises(WrongVersion), c:
        pass
    assert lab.info().events == 0
    with lab.commit() as c:
        pass
    assert c.receipt is not None
    assert c.receipt.count == 0


def test_arrow_dictionaries_and_views(lab: Lab):
    table = pa.table(
        {
            "symbol": pa.array(["A", "B"]).dictionary_encode(),
            "price": pa.array([1, 2], pa.int32()),
            "volume": pa.array([1.0, 2.0], pa.float32()),
            "timestamp": pa.array([0, 1], pa.timestamp("us", tz="UTC")),
        }
    )
    lab.append_frame(el.MarketData, table)
    assert lab.events(el.MarketData)["symbol"].to_list() == ["A", "B"]


def test_a_group_that_was_there_before_tells_where_its_events_are():
    with el.open(":memory:") as lab:
        lab.append("s", [signal_of(1.0), signal_of(2.0), signal_of(3.0)], event_id=["a", "b", "c"])
        with lab.commit() as group:
            last = group.append("s", signal_of(3.0), event_id="c")
            first = group.append("s", [signal_of(2.0), signal_of(1.0)], event_id=["b", "a"])
        assert (first.position, last.position) == (0, 2)
        lab.append("p", el.PortfolioChange("BTC", 1.0, 1.0), cause=last)
        assert lab.events(el.PortfolioChange)["cause"].to_list() == [2]


def test_a_cause_inside_a_group_is_part_of_the_content_under_an_id():
    def append(lab, *, caused):
        with lab.commit() as group:
            ref = group.append("h/1", signal_of(1.0), event_id="one")
            group.append(
                "h/2", el.PortfolioChange("B", 1.0, 2.0), event_id="two", cause=ref if caused else None
            )  # fmt: skip
        return group.receipt

    for before in (True, False):
        with el.open(":memory:") as lab:
            receipt = append(lab, caused=before)
            assert append(lab, caused=before) == receipt
            with pytest.raises(DuplicateEvent, match="cause"):
                append(lab, caused=not before)


def test_a_group_is_entered_once():
    with el.open(":memory:") as lab:
        group = lab.commit()
        with group:
            group.append("t", signal_of(1.0))
        with pytest.raises(InvalidEvent, match="committed already"), group:
            pass
        assert lab.store.stop_position == 1


def test_metadata_must_be_a_mapping():
    with el.open(":memory:") as lab, pytest.raises(InvalidEvent, match="metadata maps text to text"):
        lab.append("a", signal_of(1.0), metadata=[("a", "b")])
