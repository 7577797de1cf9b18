"""The contract, for every kind of store."""

from __future__ import annotations

import uuid
import warnings

import numpy as np
import polars as pl
import pytest

from eventlab.errors import (
    DuplicateEvent,
    HandlerFailed,
    InvalidEvent,
    LateEvent,
    SchemaMismatch,
    StoreError,
    WrongVersion,
)
from eventlab.events.rows import Rows
from eventlab.events.types import EventType
from eventlab.store.api import Batch, Head, Selection
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.commit.writer import BULK_ROWS
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from tests.store.helpers import CHANGE, SIGNAL, TRADE, batch, everything, folded, trade

SIGNAL_ROW = {"symbol": "BTC", "action": "buy", "strength": 1.0, "strategy": "s"}


def test_positions_and_versions_are_gapless(store: EventLog):
    first = store.commit([batch(2, "a")])
    second = store.commit([batch(3, ["a", "b", "a"])])
    assert (first.first_position, first.position, first.version, first.count) == (0, 1, 2, 2)
    assert (second.first_position, second.position, second.version, second.count) == (2, 4, 4, 3)
    frame = everything(store)
    assert frame["position"].to_list() == [0, 1, 2, 3, 4]
    assert frame["version"].to_list() == [1, 2, 3, 1, 4]
    assert store.stop_position == 5


def test_recorded_at_rises_though_the_clock_stands_still():
    with EventLog.open(":memory:", clock=lambda: 7) as store:
        assert [store.commit([batch()]).recorded_at for _ in range(3)] == [7, 8, 9]


def test_a_commit_without_times_takes_its_own_and_never_goes_back(store: EventLog):
    late = store.commit([batch(1, timestamps=[2**62])])
    receipt = store.commit([batch(2)])
    assert receipt.clamped == 0
    assert everything(store)["timestamp"].dt.epoch("ns").to_list() == [2**62] * 3
    other = store.commit([batch(1, "other")])
    assert store.heads(["other"])[0].timestamp == other.recorded_at > late.recorded_at


def test_types_interleave_by_order(store: EventLog):
    trades = batch(2, "m", order=np.array([0, 2]))
    signals = batch([SIGNAL_ROW] * 2, "m", kind=SIGNAL, order=np.array([1, 3]))
    store.commit([trades, signals])
    assert everything(store)["position"].to_list() == [0, 2]
    assert everything(store, SIGNAL)["version"].to_list() == [2, 4]


def test_two_batches_of_one_type_interleave(store: EventLog):
    one = batch([trade(1.0), trade(3.0)], "a", order=np.array([0, 2]))
    two = batch([trade(2.0), trade(4.0)], "b", order=np.array([1, 3]))
    store.commit([one, two])
    assert everything(store)["price"].to_list() == [1.0, 2.0, 3.0, 4.0]
    assert everything(store)["aggregate_id"].to_list() == ["a", "b", "a", "b"]
    store.verify()


def test_expected_version(store: EventLog):
    store.commit([batch(1, "a")], expected={"a": 0})
    store.commit([batch(1, "a")], expected={"a": 1, "b": 0})
    for wrong in ({"a": 0}, {"a": 3}, {"b": 1}):
        with pytest.raises(WrongVersion, match="another version"):
            store.commit([batch(1, "a")], expected=wrong)
    assert store.stop_position == 2


def test_late_events_are_refused_or_clamped(store: EventLog):
    store.commit([batch(1, "a", timestamps=[100])])
    with pytest.raises(LateEvent, match=r"row 2.*'a'") as caught:
        store.commit([batch(3, ["b", "a", "a"], timestamps=[1, 120, 110])])
    assert "00.00000011Z" in str(caught.value)
    assert "00.00000012Z" in str(caught.value)
    assert store.stop_position == 1
    assert store.aggregate_ids() == ["a"]
    receipt = store.commit([batch(3, ["b", "a", "a"], timestamps=[1, 120, 110])], late="clamp")
    assert receipt.clamped == 1
    assert everything(store)["timestamp"].dt.epoch("ns").to_list() == [100, 1, 120, 120]


def test_late_events_are_kept_where_they_are_accepted(store: EventLog):
    store.commit([batch(1, "a", timestamps=[100])])
    receipt = store.commit([batch(4, ["b", "a", "a", "a"], timestamps=[1, 120, 110, 120])], late="accept")
    assert (receipt.clamped, receipt.backdated) == (0, 1)
    alone = store.commit([batch(1, "a", timestamps=[90], ids=["x"])], late="accept")
    assert (alone.version, alone.backdated) == (5, 1)
    for again in range(2):
        assert everything(store)["timestamp"].dt.epoch("ns").to_list() == [100, 1, 120, 110, 120, 90]
        assert [(head.aggregate_id, head.version, head.timestamp) for head in store.heads()] == [
            ("a", 5, 120),
            ("b", 1, 1),
        ]
        assert everything(store, start=90, stop=101)["version"].to_list() == [1, 5]
        assert store.commit([batch(1, "a", timestamps=[90], ids=["x"])], late="accept") == alone
        assert store.verify().ok
        if not again:
            store.seal()
    with pytest.raises(LateEvent, match='late="accept"'):  # what comes next is compared with the highest time
        store.commit([batch(1, "a", timestamps=[119])])
    store.commit([batch(1, "a", timestamps=[120])])


def test_a_time_by_the_clock_is_raised_to_the_highest_one_however_low_the_last_was(store: EventLog):
    far = 2**62
    store.commit([batch(2, "a", timestamps=[far, 5])], late="accept")
    assert store.commit([batch(1, "a")], late="accept").backdated == 0
    store.commit([batch(1, "a")])
    assert everything(store)["timestamp"].dt.epoch("ns").to_list() == [far, 5, far, far]
    mixed = [batch(1, "a"), batch(1, "a", timestamps=[7])]
    assert store.commit(mixed, late="accept").backdated == 1
    assert everything(store)["timestamp"].dt.epoch("ns").to_list()[-2:] == [far, 7]
    assert store.heads()[0].timestamp == far


def test_a_back_dated_event_of_plain_rows_is_a_small_commit_like_another(store: EventLog):
    plain = Rows(TRADE, [(b"BTC", 1.0, 2.0, None, None, None)])
    for at, backdated in ((10, 0), (4, 1), (10, 0)):
        given = Batch(TRADE, plain, "a", timestamp=np.array([at], dtype=np.int64))
        assert store.commit([given], late="accept").backdated == backdated
    with pytest.raises(LateEvent):
        store.commit([Batch(TRADE, plain, "a", timestamp=np.array([9], dtype=np.int64))])
    assert store.verify().ok


def test_a_cause_comes_before_its_effect(store: EventLog):
    store.commit([batch(1, "a")])
    store.commit([batch(3, "a", causes=[0, None, 2])])
    assert everything(store)["cause"].to_list() == [None, 0, None, 2]
    for wrong in (4, 5):
        with pytest.raises(InvalidEvent, match="caused by itself"):
            store.commit([batch(1, "a", causes=[wrong])])
    store.commit([batch(2, "a", cause_row=np.array([-1, 0]))])
    assert everything(store)["cause"].to_list()[-2:] == [None, 4]


def test_the_same_ids_with_equal_content_give_the_first_receipt(store: EventLog):
    events = batch([trade(1.5, side="buy"), trade(2.5)], ids=["x", "y"], metadata={"k": "v"}, timestamps=[5, 6])
    first = store.commit([events])
    store.commit([batch(1)])
    assert store.commit([events], expected={"market/BTC": 77}) == first
    store.seal()
    assert store.commit([events]) == first
    assert store.stop_position == 3


def test_a_clamped_event_is_known_again(store: EventLog):
    store.commit([batch(1, timestamps=[10])])
    late = batch(1, ids=["x"], timestamps=[5])
    first = store.commit([late], late="clamp")
    assert store.commit([late], late="clamp") == first
    with pytest.raises(DuplicateEvent, match="another timestamp"):
        store.commit([late])


def test_the_sign_of_zero_is_content(store: EventLog):
    store.commit([batch([trade(0.0)], ids=["x"])])
    with pytest.raises(DuplicateEvent, match="another price"):
        store.commit([batch([trade(-0.0)], ids=["x"])])


@pytest.mark.parametrize(
    "again",
    [
        batch([trade(9.0)], ids=["x"]),
        batch([trade(1.0)], "elsewhere", ids=["x"]),
        batch([trade(1.0)], ids=["x"], metadata={"a": "b"}),
        batch([trade(1.0)], ids=["x"], timestamps=[99]),
        batch([trade(1.0)], ids=["x"], timestamps=[101]),
        batch([trade(1.0, trade_id=0)], ids=["x"]),
        batch([trade(1.0, side="buy")], ids=["x"]),
        batch([SIGNAL_ROW], kind=SIGNAL, ids=["x"]),
        batch([trade(1.0), trade(2.0)], ids=["x", "new"]),
        batch([trade(1.0), trade(2.0)], ids=["x", None]),
        batch([trade(1.0), trade(1.0)], ids=["twice", "twice"]),
    ],
)
def test_an_id_that_is_there_otherwise_is_refused(store: EventLog, again: Batch):
    store.commit([batch([trade(1.0)], ids=["x"], timestamps=[100])])
    with pytest.raises(DuplicateEvent):
        store.commit([again])
    assert store.stop_position == 1


def test_a_chunk_of_a_source_is_committed_once(store: EventLog):
    first = store.commit([batch(3)], source=("feed", 0))
    assert store.commit([batch(3)], source=("feed", 0)) == first
    store.commit([batch(1)], source=("feed", 1))
    store.commit([batch(1)], source=("other", 0))
    assert store.stop_position == 5
    assert store.chunk_receipt("feed", 0) == first
    assert store.chunk_receipt("feed", 2) is None
    store.finish_source("feed", "{}")
    assert (store.source_receipt("feed"), store.source_receipt("other")) == ("{}", None)


def test_an_aggregate_keeps_to_one_clock(store: EventLog):
    store.commit([batch(1, clock="exchange")])
    store.commit([batch(1)])
    with pytest.raises(InvalidEvent, match=r"exchange.*capture"):
        store.commit([batch(1, clock="capture")])
    store.commit([batch(1, "other", clock="capture")])
    assert store.stop_position == 3


@pytest.mark.parametrize("name", ["", "a*", "*", "nul\0", "x" * 1025, "\ud800", None, 3])
def test_unusable_aggregate_ids_are_refused(store: EventLog, name: str):
    base = batch(1)
    with pytest.raises(InvalidEvent):
        store.commit([Batch(base.type, base.payload, name)])
    assert store.stop_position == 0


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a'; DROP TABLE commits; --", "<b>x</b>", "ünïcode/☃", "a\nb", "%"]
)
def test_aggregate_ids_are_data(store: EventLog, name: str):
    store.commit([batch(2, name)])
    store.seal()
    assert store.aggregate_ids() == [name]
    assert everything(store, aggregates=[name])["aggregate_id"].to_list() == [name] * 2
    store.verify()


def test_aggregate_ids_by_pattern(store: EventLog):
    store.commit([batch(4, ["market/A", "market/B", "book/A", "a.b"])])
    assert store.aggregate_ids("market/*") == ["market/A", "market/B"]
    assert store.aggregate_ids("*/A") == ["book/A", "market/A"]
    assert store.aggregate_ids("a?b") == store.aggregate_ids("a[.]b") == []
    assert store.aggregate_ids("a.b") == ["a.b"]


def test_heads(store: EventLog):
    store.commit([batch(3, ["b", "a", "b"], timestamps=[1, 2, 3])])
    assert store.heads() == [Head("a", 1, 1, 2), Head("b", 2, 2, 3)]
    assert store.heads(["b", "nobody"]) == [Head("b", 2, 2, 3)]


def test_position_at_a_moment_of_knowledge(store: EventLog):
    receipts = [store.commit([batch(count)]) for count in (2, 1, 3)]
    assert store.position_at(receipts[0].recorded_at - 1) == 0
    for receipt in receipts:
        assert store.position_at(receipt.recorded_at) == receipt.position + 1
        assert store.position_at(receipt.recorded_at + 1) == receipt.position + 1


def test_a_commit_without_events(store: EventLog):
    store.commit([batch(2)])
    receipt = store.commit([Batch(TRADE, _no_rows(), "a")])
    assert (receipt.count, receipt.first_position, receipt.position, receipt.version) == (0, 2, 1, 0)
    assert store.count_commits() == 1


def _no_rows():
    return batch(1).payload.slice(0, 0)


def test_a_type_with_other_fields_is_refused(store: EventLog):
    store.commit([batch(1)])
    other = EventType("market_data", TRADE.fields[:3], 1, TRADE.cls)
    with pytest.raises(SchemaMismatch, match="other fields"):
        store.register(other)
    with pytest.raises(SchemaMismatch, match="other fields"):
        store.commit([Batch(other, batch(1).payload.select(["symbol", "price", "volume"]), "a")])
    store.register(CHANGE)
    assert set(store.types()) == {"market_data", "portfolio_change"}


def test_ids_are_computed_where_none_was_supplied(store: EventLog):
    store.commit([batch(2, "a", ids=["mine", None])])
    expected = str(uuid.uuid5(uuid.UUID(store.store_id), "2@a"))
    assert everything(store)["event_id"].to_list() == ["mine", expected]
    for name, position in (("mine", 0), (expected, 1)):
        found = store.find(name)
        assert found is not None
        assert found["position"].to_list() == [position]
    overridden = str(uuid.uuid5(uuid.UUID(store.store_id), "1@a"))
    assert store.find(overridden) is None
    assert store.find("nothing") is None


def test_public_types(store: EventLog):
    store.commit([batch([trade(1.0, side="sell", received_at="2024-01-01")], metadata={"b": "2", "a": "1"})])
    for _ in range(2):
        frame = everything(store)
        assert frame.schema == pl.Schema(
            {
                "position": pl.Int64, "aggregate_id": pl.String, "version": pl.Int64,
                "timestamp": pl.Datetime("ns", "UTC"), "cause": pl.Int64, "event_id": pl.String, "metadata": pl.String,
                "recorded_at": pl.Datetime("ns", "UTC"), "event_type": pl.String, "symbol": pl.String,
                "price": pl.Float64, "volume": pl.Float64, "side": pl.Enum(["buy", "sell"]), "trade_id": pl.Int64,
                "received_at": pl.Datetime("ns", "UTC"),
            }
        )  # fmt: skip
        assert frame["metadata"].to_list() == ['{"a":"1","b":"2"}']
        store.seal()


def test_sealing_changes_nothing_but_the_layout(store: EventLog):
    store.commit([batch(5, ["a", "b", "a", "c", "b"], timestamps=[1, 2, 3, 4, 5], metadata={"m": "é"})])
    store.commit([batch([SIGNAL_ROW] * 2, "a", kind=SIGNAL, ids=["x", None], causes=[0, None])])
    selection = Selection({"market_data": ["price", "side"], "trading_signal": ["action"]})
    before = (everything(store), everything(store, SIGNAL), folded(store, selection), store.head_digest)
    assert store.verify().ok
    assert store.seal() == 7
    assert store.seal() == 0
    after = (everything(store), everything(store, SIGNAL), folded(store, selection), store.head_digest)
    assert before[0].equals(after[0])
    assert before[1].equals(after[1])
    assert before[2:] == after[2:]
    assert store.verify().head == store.head_digest


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> int:
    """Segments from 200 events on, in row groups of 32, so that a few rows exercise every cut."""
    monkeypatch.setattr(writer, "BULK_ROWS", 200)
    monkeypatch.setattr(sealing, "SEGMENT_ROWS", 150)
    monkeypatch.setattr(encoding, "ROW_GROUP", 32)
    return 200


def test_frames_respect_every_condition(store: EventLog, trades, small_groups: int):
    frame = trades(2 * small_groups, symbols=3, seed=1)
    store.commit([_of_frame(frame)])
    store.commit([batch(4, ["S0", "S1", "S0", "new"])])
    whole = folded(store, Selection({"market_data": ["price"]}))
    assert sum(map(len, whole.values())) == store.stop_position
    middle = len(whole["S0"]) // 2
    for stop in (0, 1, small_groups + 5, store.stop_position - 3, store.stop_position, 10**9):
        for after in ({}, {"S0": middle}, {"S0": 10**9}, {"S1": 1, "unknown": 3, "new": 1}):
            for ids in (None, ["S0"], ["S0", "S2", "unknown"], []):
                found = folded(
                    store,
                    Selection({"market_data": ["price"]}, aggregates=ids, after_version=after, stop_position=stop),
                )
                expected = {
                    name: kept
                    for name, events in whole.items()
                    if (ids is None or name in ids)
                    and (kept := [e for e in events if e[0] > after.get(name, 0) and e[1] < stop])
                }
                assert found == expected


def _of_frame(frame: pl.DataFrame) -> Batch:
    from eventlab.lab.append import batch_of_frame

    return batch_of_frame(TRADE, frame, aggregate_id="{symbol}")


def test_frames_of_other_types_carry_envelopes_only(store: EventLog):
    store.commit([batch(2, "a"), batch([SIGNAL_ROW], "a", kind=SIGNAL)])
    for _ in range(2):
        (frame,) = store.frames(Selection({"trading_signal": ["strength"]}, others=True))
        assert set(frame.tables) == {"market_data", "trading_signal"}
        assert dict(frame.tables["market_data"].columns) == {}
        assert frame.tables["market_data"].version.tolist() == [1, 2]
        assert [set(f.tables) for f in store.frames(Selection({"trading_signal": []}))] == [{"trading_signal"}]
        store.seal()


def test_codes_follow_the_vocabulary(store: EventLog):
    store.commit([batch([trade(1.0, side="sell"), trade(2.0), trade(1.0, side="sell")])])
    for _ in range(2):
        (frame,) = store.frames(Selection({"market_data": ["side"]}))
        side = frame.tables["market_data"].columns["side"]
        assert side.dictionary.to_pylist() == ["buy", "sell"]
        assert side.indices.to_pylist() == [1, None, 1]
        store.seal()


def test_rows_by_time_and_columns(store: EventLog, trades, small_groups: int):
    frame = trades(2 * small_groups, symbols=2, seed=2)
    store.commit([_of_frame(frame)])
    store.commit([_of_frame(frame.tail(3))], late="clamp")
    whole = everything(store)
    times = whole["timestamp"].dt.epoch("ns")
    for start, stop in (
        (None, None),
        (times[100], times[-100]),
        (times[-1], None),
        (None, times[0]),
        (times[5], times[5]),
    ):
        wanted = whole.filter(
            (pl.lit(True) if start is None else times >= start) & (pl.lit(True) if stop is None else times < stop)
        )
        assert everything(store, start=start, stop=stop).equals(wanted)
        assert everything(store, start=start, stop=stop, aggregates=["S1"]).equals(
            wanted.filter(pl.col("aggregate_id") == "S1")
        )
    picked = pl.concat(store.rows(TRADE, columns=["price", "position"]))
    assert picked.columns == ["price", "position"]
    assert picked["position"].is_sorted()
    with pytest.raises(InvalidEvent, match="no column"):
        store.rows(TRADE, columns=["nonsense"])


def test_a_read_sees_the_log_as_it_was_when_asked(store: EventLog):
    store.commit([batch(2)])
    frames = store.frames(Selection({"market_data": []}))
    rows = store.rows(TRADE)
    store.commit([batch(1)])
    store.seal()
    assert sum(len(frame) for frame in frames) == 2
    assert sum(len(frame) for frame in rows) == 2


def test_handlers_see_commits_in_position_order(store: EventLog):
    seen: list[tuple[str, list[int]]] = []

    def on_trade(frame: pl.DataFrame) -> None:
        seen.append(("trade", frame["position"].to_list()))
        if frame["position"][0] == 0:
            store.commit([batch([SIGNAL_ROW], "s", kind=SIGNAL)])
            store.commit([batch(1)])

    undo = store.subscribe("market_data", on_trade)
    store.subscribe("trading_signal", lambda frame: seen.append(("signal", frame["position"].to_list())))
    store.subscribe("market_data", lambda frame: seen.append(("second", frame["position"].to_list())))
    store.commit([batch(2)])
    assert seen == [("trade", [0, 1]), ("second", [0, 1]), ("signal", [2]), ("trade", [3]), ("second", [3])]
    undo()
    undo()
    store.commit([batch(1)])
    assert seen[-1] == ("second", [4])


def test_a_failing_handler_leaves_the_append_as_it_is(store: EventLog):
    seen = []

    def broken(frame: pl.DataFrame) -> None:
        raise RuntimeError("boom")

    store.subscribe("market_data", broken)
    store.subscribe("market_data", lambda frame: seen.append(len(frame)))
    with pytest.warns(HandlerFailed, match=r"broken.*position 0.*boom"):
        store.commit([batch(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(HandlerFailed):
            store.commit([batch(1)])
    assert seen == [1, 1]
    assert store.stop_position == 2


def test_a_closed_store_says_so(store: EventLog):
    store.close()
    store.close()
    for act in (lambda: store.commit([batch(1)]), store.heads, lambda: list(store.rows(TRADE)), store.verify):
        with pytest.raises(StoreError, match="closed"):
            act()


def test_a_failed_commit_leaves_nothing(store: EventLog):
    store.commit([batch(1, "a", timestamps=[100])])
    before = store.head_digest
    big = batch([trade(1.0)] * (BULK_ROWS + 1), ["new"] * BULK_ROWS + ["a"], timestamps=[100] * BULK_ROWS + [1])
    with pytest.raises(LateEvent):
        store.commit([big])
    with pytest.raises(InvalidEvent):
        store.commit([batch(1, "a"), batch([SIGNAL_ROW], "b", kind=SIGNAL, causes=[99])])
    assert (store.head_digest, store.stop_position, store.aggregate_ids(), set(store.types())) == (
        before, 1, ["a"], {"market_data"},
    )  # fmt: skip
    store.commit([batch(1, "b")])
    store.verify()
