"""The reading half of the contract: every test asks an `EventReader` about a log that is there, and writes nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from eventlab.errors import InvalidEvent, StoreError
from eventlab.store.api import EventReader, Head, Selection, frame_schema
from eventlab.testing.events import (
    CHANGE,
    SIGNAL,
    SIGNAL_ROW,
    TRADE,
    batch,
    batch_of_trades,
    everything,
    folded,
    trade,
)
from eventlab.testing.suite import START, Suite, many_trades

MakeLog = Callable[..., EventReader]


class ReadingContract(Suite):
    """Types, aggregates, heads, commits, frames and rows."""

    def test_an_empty_log_has_empty_answers(self, log: MakeLog) -> None:
        reader = log()
        for kind in (TRADE, CHANGE):
            assert list(reader.frames(Selection({kind.name: []}, others=True))) == []
            assert everything(reader, kind).is_empty()
            assert everything(reader, kind).schema["timestamp"] == pl.Datetime("ns", "UTC")
        assert (reader.stop_position, reader.heads(), reader.position_at(2**62)) == (0, [], 0)
        assert (reader.count_commits(), reader.count_aggregates(), reader.aggregate_ids()) == (0, 0, [])
        assert reader.head_digest is None
        assert reader.digest_at(0) is None
        assert reader.find("nothing") is None
        assert dict(reader.types()) == {}
        assert str(uuid.UUID(reader.store_id)) == reader.store_id

    def test_positions_and_versions_are_gapless(self, log: MakeLog) -> None:
        reader = log([batch(2, "a")], [batch(3, ["a", "b", "a"])])
        for _ in self.layouts(reader):
            frame = everything(reader)
            assert frame["position"].to_list() == [0, 1, 2, 3, 4]
            assert frame["version"].to_list() == [1, 2, 3, 1, 4]
            assert reader.stop_position == 5

    def test_types_interleave_by_order(self, log: MakeLog) -> None:
        trades = batch(2, "m", order=np.array([0, 2]))
        signals = batch([SIGNAL_ROW] * 2, "m", kind=SIGNAL, order=np.array([1, 3]))
        reader = log([trades, signals])
        for _ in self.layouts(reader):
            assert everything(reader)["position"].to_list() == [0, 2]
            assert everything(reader, SIGNAL)["version"].to_list() == [2, 4]

    def test_two_batches_of_one_type_interleave(self, log: MakeLog) -> None:
        one = batch([trade(1.0), trade(3.0)], "a", order=np.array([0, 2]))
        two = batch([trade(2.0), trade(4.0)], "b", order=np.array([1, 3]))
        reader = log([one, two])
        for _ in self.layouts(reader):
            assert everything(reader)["price"].to_list() == [1.0, 2.0, 3.0, 4.0]
            assert everything(reader)["aggregate_id"].to_list() == ["a", "b", "a", "b"]

    def test_back_dated_events_keep_their_times(self, log: MakeLog) -> None:
        first, late = batch(1, "a", timestamps=[100]), batch(4, ["b", "a", "a", "a"], timestamps=[1, 120, 110, 120])
        reader = log([first], [late], [batch(1, "a", timestamps=[90])])
        for _ in self.layouts(reader):
            assert everything(reader)["timestamp"].dt.epoch("ns").to_list() == [100, 1, 120, 110, 120, 90]
            assert [(head.aggregate_id, head.version, head.timestamp) for head in reader.heads()] == [
                ("a", 5, 120),
                ("b", 1, 1),
            ]
            assert everything(reader, start=90, stop=101)["version"].to_list() == [1, 5]
            assert [reader.times_ascend_in(name) for name in ("a", "b", "nobody")] == [False, True, True]

    def test_causes_are_positions(self, log: MakeLog) -> None:
        later, inside = batch(3, "a", causes=[0, None, 2]), batch(2, "a", cause_row=np.array([-1, 0]))
        reader = log([batch(1, "a")], [later], [inside])
        for _ in self.layouts(reader):
            assert everything(reader)["cause"].to_list() == [None, 0, None, 2, None, 4]

    @pytest.mark.parametrize(
        "name", ["../../etc/passwd", "a'; DROP TABLE commits; --", "<b>x</b>", "ünïcode/☃", "a\nb", "%"]
    )
    def test_aggregate_ids_are_data(self, log: MakeLog, name: str) -> None:
        reader = log([batch(2, name)])
        for _ in self.layouts(reader):
            assert reader.aggregate_ids() == [name]
            assert everything(reader, aggregates=[name])["aggregate_id"].to_list() == [name] * 2

    def test_aggregate_ids_by_pattern(self, log: MakeLog) -> None:
        reader = log([batch(4, ["market/A", "market/B", "book/A", "a.b"])])
        assert reader.aggregate_ids("market/*") == ["market/A", "market/B"]
        assert reader.aggregate_ids("*/A") == ["book/A", "market/A"]
        assert reader.aggregate_ids("a?b") == reader.aggregate_ids("a[.]b") == []
        assert reader.aggregate_ids("a.b") == ["a.b"]
        assert reader.count_aggregates() == 4

    def test_aggregates_by_event_type(self, log: MakeLog) -> None:
        both = [batch(2, ["a", "b"]), batch([SIGNAL_ROW], "s", kind=SIGNAL)]
        reader = log(both, [batch([SIGNAL_ROW], "b", kind=SIGNAL)])
        for _ in self.layouts(reader):
            assert reader.aggregates_with({"market_data"}) >= {"a", "b"}
            assert reader.aggregates_with({"trading_signal"}) >= {"b", "s"}
            assert reader.aggregates_with({"market_data", "trading_signal"}) == {"a", "b", "s"}
            assert set(reader.types()) == {"market_data", "trading_signal"}
            assert reader.types()["trading_signal"] == SIGNAL

    def test_heads(self, log: MakeLog) -> None:
        reader = log([batch(3, ["b", "a", "b"], timestamps=[1, 2, 3])])
        for _ in self.layouts(reader):
            assert reader.heads() == [Head("a", 1, 1, 2), Head("b", 2, 2, 3)]
            assert reader.heads(["b", "nobody"]) == [Head("b", 2, 2, 3)]

    def test_moments_of_knowledge(self, log: MakeLog) -> None:
        reader = log(*([batch(count)] for count in (2, 1, 3)))
        for _ in self.layouts(reader):
            recorded = reader.recorded_at(np.arange(6))
            assert recorded[0] > START
            assert np.diff(recorded).astype(bool).tolist() == [False, True, True, False, False]
            assert everything(reader)["recorded_at"].dt.epoch("ns").to_list() == recorded.tolist()
            assert reader.recorded_at(np.array([1, 4])).tolist() == recorded[[1, 4]].tolist()
            assert reader.position_at(int(recorded[0]) - 1) == 0
            for last in (1, 2, 5):
                assert reader.position_at(int(recorded[last])) == last + 1
                assert reader.position_at(int(recorded[last]) + 1) == last + 1

    def test_every_commit_has_a_digest(self, log: MakeLog) -> None:
        reader = log(*([batch(count)] for count in (2, 1, 3)))
        found = [reader.digest_at(stop) for stop in range(8)]
        ends = [digest for digest in found if digest is not None]
        assert [stop for stop, digest in enumerate(found) if digest is not None] == [2, 3, 6]
        assert len(set(ends)) == 3
        assert reader.head_digest == ends[-1].hex()
        assert reader.count_commits() == 3
        for _ in self.layouts(reader):
            assert [reader.digest_at(stop) for stop in range(8)] == found

    def test_a_digest_depends_on_every_event_before_it(self, log: MakeLog) -> None:
        one, other = (log([batch([trade(price)], "a")], [batch(1, "a")]) for price in (1.0, 2.0))
        assert one.digest_at(2) != other.digest_at(2)

    def test_ids_are_computed_where_none_was_supplied(self, log: MakeLog) -> None:
        reader = log([batch(2, "a", ids=["mine", None])])
        expected = str(uuid.uuid5(uuid.UUID(reader.store_id), "2@a"))
        for _ in self.layouts(reader):
            assert everything(reader)["event_id"].to_list() == ["mine", expected]
            assert everything(reader, computed_ids=False)["event_id"].to_list() == ["mine", None]
            for name, position in (("mine", 0), (expected, 1)):
                found = reader.find(name)
                assert found is not None
                assert found["position"].to_list() == [position]
                assert found["price"].to_list() == [position + 1.0]
            overridden = str(uuid.uuid5(uuid.UUID(reader.store_id), "1@a"))
            assert reader.find(overridden) is None
            assert reader.find("nothing") is None

    def test_public_types(self, log: MakeLog) -> None:
        rows = [trade(1.0, side="sell", received_at="2024-01-01")]
        reader = log([batch(rows, metadata={"b": "2", "a": "1"})])
        expected: dict[str, Any] = {
            "position": pl.Int64, "aggregate_id": pl.String, "version": pl.Int64,
            "timestamp": pl.Datetime("ns", "UTC"), "cause": pl.Int64, "event_id": pl.String, "metadata": pl.String,
            "recorded_at": pl.Datetime("ns", "UTC"), "event_type": pl.String, "symbol": pl.String,
            "price": pl.Float64, "volume": pl.Float64, "side": pl.Enum(["buy", "sell"]), "trade_id": pl.Int64,
            "received_at": pl.Datetime("ns", "UTC"),
        }  # fmt: skip
        for _ in self.layouts(reader):
            frame = everything(reader)
            assert frame.schema == pl.Schema(expected)
            assert frame["metadata"].to_list() == ['{"a":"1","b":"2"}']
            assert frame["event_type"].to_list() == ["market_data"]

    def test_frames_respect_every_condition(self, log: MakeLog) -> None:
        trades = many_trades(self.small, symbols=3, seed=1)
        reader = log([batch_of_trades(trades)], [batch(4, ["S0", "S1", "S0", "new"])])
        whole = folded(reader, Selection({"market_data": ["price"]}))
        assert sum(map(len, whole.values())) == reader.stop_position
        middle, end = len(whole["S0"]) // 2, reader.stop_position
        for _ in self.layouts(reader):
            for stop in (0, 1, self.small // 2 + 5, end - 3, end, 10**9):
                for after in ({}, {"S0": middle}, {"S0": 10**9}, {"S1": 1, "unknown": 3, "new": 1}):
                    for ids in (None, ["S0"], ["S0", "S2", "unknown"], []):
                        selection = Selection(
                            {"market_data": ["price"]}, aggregates=ids, after_version=after, stop_position=stop
                        )
                        expected = {
                            name: chosen
                            for name, events in whole.items()
                            if (ids is None or name in ids)
                            and (chosen := [e for e in events if e[0] > after.get(name, 0) and e[1] < stop])
                        }
                        assert folded(reader, selection) == expected

    def test_frames_begin_at_a_position(self, log: MakeLog) -> None:
        reader = log([batch_of_trades(many_trades(self.small, symbols=3, seed=3))], [batch(3, ["S0", "S1", "new"])])
        whole = folded(reader, Selection({"market_data": ["price"]}))
        for _ in self.layouts(reader):
            for start in (0, 1, self.small // 2, reader.stop_position - 2, 10**9):
                for ids in (None, ["S0", "new"]):
                    selection = Selection({"market_data": ["price"]}, aggregates=ids, start_position=start)
                    assert folded(reader, selection) == {
                        name: chosen
                        for name, events in whole.items()
                        if (ids is None or name in ids) and (chosen := [e for e in events if e[1] >= start])
                    }

    def test_hints_leave_out_no_wanted_event(self, log: MakeLog) -> None:
        reader = log([batch_of_trades(many_trades(self.small, symbols=2, seed=4))])
        whole = folded(reader, Selection({"market_data": ["price"]}))["S0"]
        middle = whole[len(whole) // 2]
        hints: dict[str, Callable[[tuple[Any, ...]], bool]] = {
            "until_version": lambda event: event[0] <= middle[0],
            "until_time": lambda event: event[2] <= middle[2],
            "since_time": lambda event: event[2] >= middle[2],
        }
        for _ in self.layouts(reader):
            for name, wants in hints.items():
                bound = middle[0] if name == "until_version" else middle[2]
                selection = Selection({"market_data": ["price"]}, aggregates=["S0"], **{name: bound})
                found = folded(reader, selection)["S0"]
                assert [event for event in found if wants(event)] == [event for event in whole if wants(event)]
                assert set(map(repr, found)) <= set(map(repr, whole))

    def test_reads_can_begin_at_the_first_version(self, log: MakeLog) -> None:
        reader = log([batch_of_trades(many_trades(self.small, symbols=2, seed=5))])
        for _ in self.layouts(reader):
            (head,) = reader.heads(["S1"])
            starts = reader.first_versions("S1")
            assert starts[0] == 1
            assert (np.diff(starts) > 0).all()
            assert starts[-1] <= head.version

    def test_frames_of_other_types_carry_envelopes_only(self, log: MakeLog) -> None:
        reader = log([batch(2, "a"), batch([SIGNAL_ROW], "a", kind=SIGNAL)])
        for _ in self.layouts(reader):
            (frame,) = reader.frames(Selection({"trading_signal": ["strength"]}, others=True))
            assert set(frame.tables) == {"market_data", "trading_signal"}
            assert dict(frame.tables["market_data"].columns) == {}
            assert frame.tables["market_data"].version.tolist() == [1, 2]
            assert [set(f.tables) for f in reader.frames(Selection({"trading_signal": []}))] == [{"trading_signal"}]

    def test_codes_follow_the_vocabulary(self, log: MakeLog) -> None:
        reader = log([batch([trade(1.0, side="sell"), trade(2.0), trade(1.0, side="sell")])])
        for _ in self.layouts(reader):
            (frame,) = reader.frames(Selection({"market_data": ["side"]}))
            side = frame.tables["market_data"].columns["side"]
            assert side.dictionary.to_pylist() == ["buy", "sell"]
            assert side.indices.to_pylist() == [1, None, 1]

    def test_rows_by_time_and_columns(self, log: MakeLog) -> None:
        trades = many_trades(self.small, symbols=2, seed=2)
        reader = log([batch_of_trades(trades)], [batch_of_trades(trades.tail(3))])
        whole = everything(reader)
        times = whole["timestamp"].dt.epoch("ns")
        for _ in self.layouts(reader):
            for start, stop in (
                (None, None),
                (times[100], times[-100]),
                (times[-1], None),
                (None, times[0]),
                (times[5], times[5]),
            ):
                wanted = whole.filter(
                    (pl.lit(True) if start is None else times >= start)
                    & (pl.lit(True) if stop is None else times < stop)
                )
                assert everything(reader, start=start, stop=stop).equals(wanted)
                assert everything(reader, start=start, stop=stop, aggregates=["S1"]).equals(
                    wanted.filter(pl.col("aggregate_id") == "S1")
                )
            picked = pl.concat(reader.rows(TRADE, columns=["price", "position"]))
            assert picked.columns == ["price", "position"]
            assert picked["position"].is_sorted()
            some = everything(reader, first_position=7, stop_position=self.small - 1)
            assert some["position"].to_list() == list(range(7, self.small - 1))
        with pytest.raises(InvalidEvent, match="no column"):
            reader.rows(TRADE, columns=["nonsense"])

    def test_rows_by_default_have_the_columns_of_their_schema(self, log: MakeLog) -> None:
        reader = log([batch(1)])
        (frame,) = reader.rows(TRADE)
        assert dict(frame.schema) == frame_schema(TRADE)

    def test_a_listener_may_be_taken_off(self, log: MakeLog) -> None:
        reader = log([batch(1)])
        stop = reader.listen(lambda: None)
        stop()
        stop()

    def test_a_closed_reader_says_so(self, log: MakeLog) -> None:
        reader = log([batch(1)])
        assert not reader.closed
        reader.close()
        reader.close()
        assert reader.closed
        for act in (reader.heads, lambda: list(reader.rows(TRADE)), lambda: reader.stop_position):
            with pytest.raises(StoreError, match="closed"):
                act()
