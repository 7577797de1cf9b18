"""The writing half of the contract: commits, ids, sources, handlers, checkpoints."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

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
from eventlab.store.api import Batch, Selection, Store
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
from eventlab.testing.suite import START, Suite, many_trades, ticking


class WritingContract(Suite):
    """Appending, and everything that happens with it."""

    def test_receipts_tell_where_events_are(self, store: Store) -> None:
        first = store.commit([batch(2, "a")])
        second = store.commit([batch(3, ["a", "b", "a"])])
        assert (first.first_position, first.position, first.version, first.count) == (0, 1, 2, 2)
        assert (second.first_position, second.position, second.version, second.count) == (2, 4, 4, 3)
        assert (first.clamped, first.backdated) == (0, 0)
        assert START < first.recorded_at < second.recorded_at
        frame = everything(store)
        assert frame["position"].to_list() == [0, 1, 2, 3, 4]
        assert frame["version"].to_list() == [1, 2, 3, 1, 4]
        assert store.stop_position == 5

    def test_recorded_at_rises_though_the_clock_stands_still(self, tmp_path: Path) -> None:
        store = self.opened(tmp_path / "store", lambda: 7)
        assert [store.commit([batch()]).recorded_at for _ in range(3)] == [7, 8, 9]
        store.close()

    @pytest.mark.parametrize("moment", [True, 1.5, None, 2**63])
    def test_a_clock_gives_nanoseconds(self, tmp_path: Path, moment: object) -> None:
        store = self.opened(tmp_path / "store", lambda: moment)  # type: ignore[arg-type,return-value]
        with pytest.raises(InvalidEvent, match="clock"):
            store.commit([batch()])
        assert store.stop_position == 0
        store.close()

    def test_a_commit_without_times_takes_its_own_and_never_goes_back(self, store: Store) -> None:
        late = store.commit([batch(1, timestamps=[2**62])])
        receipt = store.commit([batch(2)])
        assert receipt.clamped == 0
        assert everything(store)["timestamp"].dt.epoch("ns").to_list() == [2**62] * 3
        other = store.commit([batch(1, "other")])
        assert store.heads(["other"])[0].timestamp == other.recorded_at > late.recorded_at

    def test_batches_that_interleave_leave_a_sound_store(self, store: Store) -> None:
        one = batch([trade(1.0), trade(3.0)], "a", order=np.array([0, 2]))
        two = batch([trade(2.0), trade(4.0)], "b", order=np.array([1, 3]))
        store.commit([one, two])
        assert everything(store)["price"].to_list() == [1.0, 2.0, 3.0, 4.0]
        self.prove(store)
        with pytest.raises(InvalidEvent, match="order"):
            store.commit([batch(1, order=np.array([0])), batch([SIGNAL_ROW], kind=SIGNAL)])
        with pytest.raises(InvalidEvent, match="length"):
            store.commit([batch(2, order=np.array([0]))])

    def test_expected_version(self, store: Store) -> None:
        store.commit([batch(1, "a")], expected={"a": 0})
        store.commit([batch(1, "a")], expected={"a": 1, "b": 0})
        for wrong in ({"a": 0}, {"a": 3}, {"b": 1}):
            with pytest.raises(WrongVersion, match="another version"):
                store.commit([batch(1, "a")], expected=wrong)
        with pytest.raises(InvalidEvent, match="int"):
            store.commit([batch(1, "a")], expected={"a": True})
        assert store.stop_position == 2

    def test_late_events_are_refused_or_clamped(self, store: Store) -> None:
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
        with pytest.raises(InvalidEvent, match="late"):
            store.commit([batch(1)], late="ignore")  # type: ignore[arg-type]

    def test_late_events_are_kept_where_they_are_accepted(self, store: Store) -> None:
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
            self.prove(store)
            if not again:
                self.rearrange(store)
        with pytest.raises(LateEvent, match='late="accept"'):  # what comes next is compared with the highest time
            store.commit([batch(1, "a", timestamps=[119])])
        store.commit([batch(1, "a", timestamps=[120])])

    def test_a_time_by_the_clock_is_raised_to_the_highest_one_however_low_the_last_was(self, store: Store) -> None:
        far = 2**62
        store.commit([batch(2, "a", timestamps=[far, 5])], late="accept")
        assert store.commit([batch(1, "a")], late="accept").backdated == 0
        store.commit([batch(1, "a")])
        assert everything(store)["timestamp"].dt.epoch("ns").to_list() == [far, 5, far, far]
        mixed = [batch(1, "a"), batch(1, "a", timestamps=[7])]
        assert store.commit(mixed, late="accept").backdated == 1
        assert everything(store)["timestamp"].dt.epoch("ns").to_list()[-2:] == [far, 7]
        assert store.heads()[0].timestamp == far

    def test_a_back_dated_event_of_plain_rows_is_a_commit_like_another(self, store: Store) -> None:
        plain = Rows(TRADE, [(b"BTC", 1.0, 2.0, None, None, None)])
        for at, backdated in ((10, 0), (4, 1), (10, 0)):
            given_row = Batch(TRADE, plain, "a", timestamp=np.array([at], dtype=np.int64))
            assert store.commit([given_row], late="accept").backdated == backdated
        with pytest.raises(LateEvent):
            store.commit([Batch(TRADE, plain, "a", timestamp=np.array([9], dtype=np.int64))])
        self.prove(store)

    def test_a_cause_comes_before_its_effect(self, store: Store) -> None:
        store.commit([batch(1, "a")])
        store.commit([batch(3, "a", causes=[0, None, 2])])
        assert everything(store)["cause"].to_list() == [None, 0, None, 2]
        for wrong in (4, 5):
            with pytest.raises(InvalidEvent, match="caused by itself"):
                store.commit([batch(1, "a", causes=[wrong])])
        store.commit([batch(2, "a", cause_row=np.array([-1, 0]))])
        assert everything(store)["cause"].to_list()[-2:] == [None, 4]

    def test_the_same_ids_with_equal_content_give_the_first_receipt(self, store: Store) -> None:
        events = batch([trade(1.5, side="buy"), trade(2.5)], ids=["x", "y"], metadata={"k": "v"}, timestamps=[5, 6])
        first = store.commit([events])
        store.commit([batch(1)])
        assert store.commit([events], expected={"market/BTC": 77}) == first
        self.rearrange(store)
        assert store.commit([events]) == first
        assert store.stop_position == 3

    def test_a_clamped_event_is_known_again(self, store: Store) -> None:
        store.commit([batch(1, timestamps=[10])])
        late = batch(1, ids=["x"], timestamps=[5])
        first = store.commit([late], late="clamp")
        assert store.commit([late], late="clamp") == first
        with pytest.raises(DuplicateEvent, match="another timestamp"):
            store.commit([late])

    def test_the_sign_of_zero_is_content(self, store: Store) -> None:
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
    def test_an_id_that_is_there_otherwise_is_refused(self, store: Store, again: Batch) -> None:
        store.commit([batch([trade(1.0)], ids=["x"], timestamps=[100])])
        with pytest.raises(DuplicateEvent):
            store.commit([again])
        assert store.stop_position == 1

    def test_a_chunk_of_a_source_is_committed_once(self, store: Store) -> None:
        first = store.commit([batch(3)], source=("feed", 0))
        assert store.commit([batch(3)], source=("feed", 0)) == first
        store.commit([batch(1)], source=("feed", 1))
        store.commit([batch(1)], source=("other", 0))
        assert store.stop_position == 5
        assert store.chunk_receipt("feed", 0) == first
        assert store.chunk_receipt("feed", 2) is None
        store.finish_source("feed", "{}")
        assert (store.source_receipt("feed"), store.source_receipt("other")) == ("{}", None)

    def test_an_aggregate_keeps_to_one_clock(self, store: Store) -> None:
        store.commit([batch(1, clock="exchange")])
        store.commit([batch(1)])
        with pytest.raises(InvalidEvent, match=r"exchange.*capture"):
            store.commit([batch(1, clock="capture")])
        store.commit([batch(1, "other", clock="capture")])
        assert store.stop_position == 3

    @pytest.mark.parametrize("name", ["", "a*", "*", "nul\0", "x" * 1025, "\ud800", None, 3])
    def test_unusable_aggregate_ids_are_refused(self, store: Store, name: str) -> None:
        base = batch(1)
        with pytest.raises(InvalidEvent):
            store.commit([Batch(base.type, base.payload, name)])
        assert store.stop_position == 0

    def test_a_commit_without_events(self, store: Store) -> None:
        some = batch(2).payload
        assert isinstance(some, pa.RecordBatch)
        store.commit([batch(2)])
        receipt = store.commit([Batch(TRADE, some.slice(0, 0), "a")])
        assert (receipt.count, receipt.first_position, receipt.position, receipt.version) == (0, 2, 1, 0)
        assert store.count_commits() == 1

    def test_a_type_with_other_fields_is_refused(self, store: Store) -> None:
        one = batch(1).payload
        assert isinstance(one, pa.RecordBatch)
        store.commit([batch(1)])
        other = EventType("market_data", TRADE.fields[:3], 1, TRADE.cls)
        with pytest.raises(SchemaMismatch, match="other fields"):
            store.register(other)
        with pytest.raises(SchemaMismatch, match="other fields"):
            store.commit([Batch(other, one.select(["symbol", "price", "volume"]), "a")])
        store.register(CHANGE)
        assert set(store.types()) == {"market_data", "portfolio_change"}

    def test_a_read_sees_the_log_as_it_was_when_asked(self, store: Store) -> None:
        store.commit([batch(2)])
        frames = store.frames(Selection({"market_data": []}))
        rows = store.rows(TRADE)
        store.commit([batch(1)])
        self.rearrange(store)
        assert sum(len(frame) for frame in frames) == 2
        assert sum(len(frame) for frame in rows) == 2

    def test_large_and_small_commits_make_one_log(self, store: Store) -> None:
        trades = many_trades(self.large, symbols=5, seed=6)
        for piece in (trades.head(3), trades[3 : self.large - 3], trades.tail(3)):
            store.commit([batch_of_trades(piece)])
        found = everything(store)
        assert found["position"].to_list() == list(range(self.large))
        assert found["trade_id"].to_list() == list(range(self.large))
        assert found["aggregate_id"].equals(trades["symbol"].alias("aggregate_id"))
        self.prove(store)

    def test_handlers_see_commits_in_position_order(self, store: Store) -> None:
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

    def test_a_failing_handler_leaves_the_append_as_it_is(self, store: Store) -> None:
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

    def test_a_handler_may_begin_at_a_position(self, store: Store) -> None:
        store.commit([batch(2)])
        store.commit([batch([SIGNAL_ROW], "s", kind=SIGNAL), batch(1)])
        self.rearrange(store)
        seen: list[int] = []
        undo = store.subscribe("market_data", lambda frame: seen.extend(frame["position"].to_list()), 1)
        assert seen == [1, 3]
        store.commit([batch(1)])
        assert seen == [1, 3, 4]
        undo()
        for wrong in (-1, 6, True, 1.0):
            with pytest.raises(InvalidEvent, match="position"):
                store.subscribe("market_data", print, wrong)  # type: ignore[arg-type]

    def test_followers_hear_which_aggregates_got_events(self, store: Store) -> None:
        seen: list[list[str]] = []
        store.follow(lambda names: seen.append(sorted(names)))
        store.commit([batch(3, ["b", "a", "b"])])
        events = batch(1, "c", ids=["x"])
        store.commit([events])
        store.commit([events])  # nothing was written
        assert seen == [["a", "b"], ["c"]]

    def test_listeners_are_called_after_commits(self, store: Store) -> None:
        called: list[int] = []
        undo = store.listen(lambda: called.append(1))
        store.commit([batch(1)])
        assert called
        undo()

    def test_checkpoints(self, store: Store) -> None:
        store.commit([batch(2)])
        store.commit([batch(1)])
        kept = store.checkpoints
        new = {"had": False, "discard": None, "supersede": False}
        assert kept.load("p", "one") is None
        assert kept.save("p", "one", 2, memoryview(b"two"), **new)  # type: ignore[arg-type]
        assert not kept.save("p", "one", 1, memoryview(b"inside a commit"), **new)  # type: ignore[arg-type]
        found = kept.load("p", "one")
        assert found is not None
        assert (found.mark.position, bytes(found.state), found.unusable) == (2, b"two", None)
        assert not kept.others("p", "one")
        assert kept.others("p", "two")
        assert kept.save("p", "one", 3, memoryview(b"three"), had=True, discard=None, supersede=False)
        assert kept.save("p", "one", 2, memoryview(b"earlier"), had=True, discard=None, supersede=False)
        later = kept.load("p", "one")
        assert later is not None
        assert bytes(later.state) == b"three"
        assert kept.save("p", "one", 2, memoryview(b"again"), had=True, discard=later.mark, supersede=False)
        assert kept.save("p", "two", 3, memoryview(b"other"), had=False, discard=None, supersede=True)
        assert kept.load("p", "one") is None
        assert not kept.save("p", "one", 3, memoryview(b"gone"), had=True, discard=None, supersede=False)

    def test_a_closed_store_takes_nothing(self, store: Store) -> None:
        store.close()
        store.close()
        for act in (lambda: store.commit([batch(1)]), store.heads, lambda: list(store.rows(TRADE))):
            with pytest.raises(StoreError, match="closed"):
                act()

    def test_a_failed_commit_leaves_nothing(self, store: Store) -> None:
        store.commit([batch(1, "a", timestamps=[100])])
        before, rows = store.head_digest, self.large
        big = batch([trade(1.0)] * (rows + 1), ["new"] * rows + ["a"], timestamps=[100] * rows + [1])
        with pytest.raises(LateEvent):
            store.commit([big])
        with pytest.raises(InvalidEvent):
            store.commit([batch(1, "a"), batch([SIGNAL_ROW], "b", kind=SIGNAL, causes=[99])])
        assert (store.head_digest, store.stop_position, store.aggregate_ids(), set(store.types())) == (
            before, 1, ["a"], {"market_data"},
        )  # fmt: skip
        store.commit([batch(1, "b")])
        self.prove(store)

    def test_any_split_gives_the_same_events(self) -> None:
        @given(cuts=st.sets(st.integers(1, 39)), moved=st.sets(st.integers(0, 40)), seed=st.integers(0, 9))
        @settings(max_examples=25)
        def check(cuts: set[int], moved: set[int], seed: int) -> None:
            random = np.random.default_rng(seed)
            rows = [trade(float(price)) for price in random.random(40)]
            names = [f"m{code}" for code in random.integers(0, 3, 40)]
            times = np.cumsum(random.integers(0, 3, 40)).tolist()
            bounds = [0, *sorted(cuts), 40]
            with tempfile.TemporaryDirectory() as folder:
                split, whole = (self.opened(Path(folder, name), ticking()) for name in ("split", "whole"))
                whole.commit([batch(rows, names, timestamps=times)])
                for start, stop in itertools.pairwise(bounds):
                    split.commit([batch(rows[start:stop], names[start:stop], timestamps=times[start:stop])])
                    if start in moved:
                        self.rearrange(split)
                selection = Selection({"market_data": ["price"]})
                assert folded(split, selection) == folded(whole, selection)
                columns = ["position", "aggregate_id", "version", "timestamp", "price"]
                assert everything(split).select(columns).equals(everything(whole).select(columns))
                split.close()
                whole.close()

        check()
