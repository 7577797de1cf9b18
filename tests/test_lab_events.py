"""The lab's event half, as a person uses it."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import (
    AsOfError,
    DuplicateEvent,
    FeedError,
    InvalidEvent,
    SchemaMismatch,
    UnknownAggregate,
    UnknownEventType,
    WrongVersion,
)
from eventlab.events.types import event_type
from eventlab.feeds.api import Chunk, FeedBatch, FeedReport
from eventlab.lab import scan as _scanning
from eventlab.lab.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with el.open(":memory:") as opened:
        yield opened


def signal(action: str = "buy") -> el.TradingSignal:
    return el.TradingSignal("BTC", action, 1.0, "s")


def fill(quantity: float = 1.0) -> el.PortfolioChange:
    return el.PortfolioChange("BTC", quantity, 2.0)


TRADES = pl.DataFrame(
    {"symbol": ["A", "B", "A"], "price": [1.0, 2.0, 3.0], "volume": [1.0, 1.0, 1.0], "timestamp": [10, 20, 30]}
)


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
def test_what_is_no_event_is_refused_and_leaves_nothing(lab: Lab, events, more):
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


# -- scan


@pytest.fixture(scope="module")
def filled() -> Iterator[Lab]:
    with el.open(":memory:") as lab:
        for part in range(4):
            frame = pl.DataFrame(
                {
                    "symbol": [f"S{n % 3}" for n in range(50)],
                    "price": [float(n) for n in range(50)],
                    "volume": [1.0] * 50,
                    "timestamp": [part * 1_000_000 + n * 1_000 for n in range(50)],
                }
            )
            lab.append_frame(el.MarketData, frame)
            if part % 2:
                lab.seal()
        yield lab


def at(ns: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=ns // 1000)


CONDITIONS = st.recursive(
    st.one_of(
        st.builds(
            lambda op, ns: getattr(pl.col("timestamp"), op)(at(ns)),
            st.sampled_from(["__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__"]),
            st.integers(0, 4_000_000),
        ),
        st.builds(lambda ns: pl.lit(at(ns)) < pl.col("timestamp"), st.integers(0, 4_000_000)),
        st.builds(
            lambda low, high, closed: pl.col("timestamp").is_between(at(low), at(high), closed=closed),
            st.integers(0, 4_000_000),
            st.integers(0, 4_000_000),
            st.sampled_from(["both", "left", "right", "none"]),
        ),
        st.builds(lambda code: pl.col("aggregate_id") == f"market/S{code}", st.integers(0, 3)),
        st.builds(
            lambda codes: pl.col("aggregate_id").is_in([f"market/S{code}" for code in codes]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        st.builds(
            pl.col("aggregate_id").str.starts_with,
            st.sampled_from(["", "market/", "market/S1", "market/S*", "x"]),
        ),
        st.builds(
            lambda op, position: getattr(pl.col("position"), op)(position),
            st.sampled_from(["__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__"]),
            st.integers(-2, 202) | st.floats(-2, 202) | st.sampled_from([-(2**63), 2**63 - 1]),
        ),
        st.builds(lambda low, high: pl.col("position").is_between(low, high), st.integers(0, 200), st.integers(0, 200)),
        st.builds(lambda price: pl.col("price") > price, st.integers(0, 50)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=4,
)


@given(condition=CONDITIONS, columns=st.sets(st.sampled_from(["price", "symbol", "timestamp", "version"]), min_size=1))
@settings(max_examples=200)
def test_a_scan_is_a_filter_on_events(filled: Lab, condition: pl.Expr, columns: set[str]):
    picked = sorted(columns)
    assert (
        filled.scan(el.MarketData)
        .filter(condition)
        .select(picked)
        .collect()
        .equals(filled.events(el.MarketData).filter(condition).select(picked))
    )


def test_a_scan_knows_its_schema_and_stops_early(filled: Lab):
    lazy = filled.scan(el.MarketData)
    assert lazy.collect_schema() == filled.events(el.MarketData).schema
    assert lazy.head(7).collect().equals(filled.events(el.MarketData).head(7))
    assert lazy.select(pl.len()).collect().item() == 200
    assert lazy.collect().equals(filled.events(el.MarketData))


def test_a_scan_pushes_times_and_aggregates_down():
    bounds = _scanning.bounds_of(
        (pl.col("timestamp") >= at(5_000)) & (pl.col("timestamp") < at(9_000)) & (pl.col("aggregate_id") == "a")
    )
    assert bounds == _scanning.ScanBounds(5_000, 9_000, names=frozenset("a"))
    column = pl.col("aggregate_id")
    either = column.is_in(["a", "b"]) & column.str.starts_with("b") | (column == "c") & (pl.col("position") < 9)
    assert _scanning.bounds_of(either) == _scanning.ScanBounds(names=frozenset("bc"))
    range_ = column.str.starts_with("market/") & pl.col("position").is_between(3, 8) & (pl.col("price") > 1)
    assert _scanning.bounds_of(range_) == _scanning.ScanBounds(first_position=3, stop_position=9, prefix="market/")
    assert _scanning.bounds_of((pl.col("timestamp") > at(1_000)) | (pl.col("price") > 1)) == _scanning.ScanBounds()


# -- ingest


class ListFeed:
    """A feed of frames held in memory, which can break off after some chunks."""

    name, clock, source, unit, total = "list", "exchange", "a list", "event", 6

    def __init__(self, sha: str = "0" * 64, break_at: int | None = None, clock: str = "exchange") -> None:
        self.content_sha256, self.break_at, self.clock = sha, break_at, clock
        self.params = {"symbol": "A"}
        self.read = 0
        self.report = FeedReport()

    def chunks(self) -> Iterator[Chunk]:
        for number in range(3):
            if number == self.break_at:
                raise FeedError("broken", got=number)
            self.read += 1
            frame = pl.DataFrame(
                {
                    "symbol": ["A"] * 2,
                    "price": [1.0, 2.0],
                    "volume": [1.0] * 2,
                    "timestamp": [number * 10, number * 10 + 5],
                }
            )
            frames = () if number == 1 else (frame,)
            batches = tuple(FeedBatch(_trade_type(), f, "market/{symbol}") for f in frames)
            self.report = FeedReport(rows=self.read * 2, events=4, dropped={"odd": 2})
            yield Chunk(batches, (number + 1) * 2)


def _trade_type():
    return event_type(el.MarketData)


def test_an_ingest_happens_once(lab: Lab, capsys: pytest.CaptureFixture[str]):
    first = lab.ingest(ListFeed())
    assert (first.count, first.added, first.first_position, first.position, first.already) == (4, 4, 0, 3, False)
    assert first.report.dropped == {"odd": 2}
    again = ListFeed()
    second = lab.ingest(again)
    assert again.read == 0
    assert (second.count, second.added, second.already, second.position) == (4, 0, True, 3)
    assert second.report == first.report
    lab.ingest(ListFeed("1" * 64), late="clamp", progress=False)
    assert lab.info().events == 8


def test_a_broken_ingest_resumes(lab: Lab):
    with pytest.raises(FeedError):
        lab.ingest(ListFeed(break_at=2), progress=False)
    assert lab.info().events == 2
    lab.append("between", signal())
    receipt = lab.ingest(ListFeed(), progress=False)
    assert (receipt.count, receipt.added, receipt.first_position, receipt.position) == (4, 2, 0, 4)
    assert lab.events(el.MarketData)["version"].to_list() == [1, 2, 3, 4]


def test_an_aggregate_never_mixes_clocks(lab: Lab):
    lab.ingest(ListFeed(), progress=False)
    with pytest.raises(InvalidEvent, match=r"exchange.*capture"):
        lab.ingest(ListFeed("2" * 64, clock="capture"), late="clamp", progress=False)
    assert lab.info().events == 4


def test_real_trades_through_a_feed(lab: Lab, market_data_dir: Path):
    feed = el.feeds.binance_trades(market_data_dir / "binance" / "usdm_btcusdt_trades.csv.gz", symbol="BTCUSDT")
    assert lab.ingest(feed, progress=False).count == 21_313
    assert lab.events(el.MarketData, columns=["trade_id"])["trade_id"].diff().drop_nulls().unique().to_list() == [1]


# -- info, threads


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


def signal_of(strength):
    return el.TradingSignal("BTC", "buy", strength, "s")


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


@pytest.mark.parametrize("seal", [True, False])
def test_a_scan_takes_its_first_rows_before_it_filters_them(seal):
    with el.open(":memory:") as lab:
        for at in range(200):
            lab.append("a", el.TradingSignal("B", "buy" if at % 3 else "sell", float(at), "s"))
        if seal:
            lab.seal()
        for ask in (
            lambda lazy: lazy.head(100).filter(pl.col("action") == "buy"),
            lambda lazy: lazy.filter(pl.col("action") == "buy").head(20),
            lambda lazy: lazy.head(50).filter(pl.col("position") >= 40),
            lambda lazy: lazy.head(150).filter(pl.col("aggregate_id") == "b"),
            lambda lazy: lazy.head(10).select(pl.col("strength") * 2.0).filter(pl.col("strength") > 4.0),
        ):
            assert ask(lab.scan(el.TradingSignal)).collect().equals(ask(lab.events(el.TradingSignal).lazy()).collect())


def test_metadata_that_is_no_mapping_is_refused():
    with el.open(":memory:") as lab, pytest.raises(InvalidEvent, match="metadata maps text to text"):
        lab.append("a", signal_of(1.0), metadata=[("a", "b")])
