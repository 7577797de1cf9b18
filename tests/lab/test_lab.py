"""Events of a lab: reads, handlers, threads and info."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import eventlab as el
from eventlab.errors import (
    AsOfError,
    InvalidEvent,
    SchemaMismatch,
    UnknownAggregate,
    UnknownEventType,
)
from eventlab.lab.lab import Lab


def signal(action: str = "buy") -> el.TradingSignal:
    return el.TradingSignal("BTC", action, 1.0, "s")


def fill(quantity: float = 1.0) -> el.PortfolioChange:
    return el.PortfolioChange("BTC", quantity, 2.0)


TRADES = pl.DataFrame(
    {"symbol": ["A", "B", "A"], "price": [1.0, 2.0, 3.0], "volume": [1.0, 1.0, 1.0], "timestamp": [10, 20, 30]}
)


def test_events_by_pattern_and_time(lab: Lab):
    lab.append_frame(el.MarketData, TRADES)
    assert lab.events(el.MarketData, "market/*").height == 3
    assert lab.events(el.MarketData, "none/*").height == 0
    start = "1970-01-01T00:00:00.000000020Z"
    assert lab.events(el.MarketData, start=start)["price"].to_list() == [2.0, 3.0]
    assert lab.events(el.MarketData, stop=start, columns=["price"]).rows() == [(1.0,)]
    with pytest.raises(UnknownAggregate):
        lab.events(el.MarketData, "market/C")
    for number in (20, np.int64(20), True):
        with pytest.raises(AsOfError):
            lab.events(el.MarketData, start=number)
    with pytest.raises(UnknownEventType, match="market_data"):
        lab.events("nonsense")
    with pytest.raises(InvalidEvent):
        lab.events()
    with pytest.raises(InvalidEvent):
        lab.events(event_id="absent")
    with pytest.raises(InvalidEvent, match="no column"):
        lab.events(el.MarketData, columns=["nonsense"])
    assert lab.events(el.Quote).is_empty()
    assert lab.events("market_data").equals(lab.events(el.MarketData))


def test_own_types_come_back_in_a_process_that_does_not_declare_them(tmp_path: Path):
    @el.event
    class Liquidation:
        symbol: el.Symbol
        price: float

    with el.open(tmp_path) as lab:
        lab.append("x", Liquidation("BTC", 1.5))
    from eventlab.events import types

    declared = types._registry.pop("liquidation")
    try:
        with el.open(tmp_path) as lab:
            assert lab.events("liquidation")["price"].to_list() == [1.5]
            assert lab.scan("liquidation").select("symbol").collect().item() == "BTC"

            @el.event
            class Liquidation:  # type: ignore[no-redef]
                symbol: el.Symbol
                price: int

            with pytest.raises(SchemaMismatch):
                lab.append("x", Liquidation("BTC", 1))
            with pytest.raises(SchemaMismatch):
                lab.events(Liquidation)
    finally:
        types._registry["liquidation"] = declared


def test_handlers(lab: Lab):
    seen: list[float] = []

    @lab.on(el.PortfolioChange)
    def collect(frame: pl.DataFrame) -> None:
        seen.extend(frame["quantity"])

    lab.append("p", [fill(1.0), signal(), fill(2.0)])
    lab.append("p", signal())
    assert seen == [1.0, 2.0]


def test_threads_share_a_lab(tmp_path: Path):
    with el.open(tmp_path, durability="relaxed") as lab:
        failures: list[BaseException] = []

        def work(name: str) -> None:
            try:
                for number in range(40):
                    lab.append(name, signal(), expected_version=number)
                    assert lab.events(el.TradingSignal, name).height == number + 1
            except BaseException as error:  # noqa: BLE001  whatever a thread meets belongs in the main one
                failures.append(error)

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert lab.verify().events == 160


def test_info_is_escaped_and_bounded(tmp_path: Path):
    with el.open(tmp_path / "<b>bold</b>") as lab:
        lab.append("<script>", signal())
        shown = lab.info()
        assert "<b>" not in shown._repr_html_()
        assert "&lt;b&gt;" in shown._repr_html_()
        assert str(tmp_path) in str(shown)
        assert (shown.events, shown.commits, shown.aggregates, shown.event_types) == (1, 1, 1, ("trading_signal",))
        assert shown.bytes > 0
        assert shown.digest == lab.verify().head
        assert len(shown._repr_html_()) < 4_000
