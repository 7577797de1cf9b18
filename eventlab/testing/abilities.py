"""Optional parts of the suite: a store declares the parts that it takes by subclassing them beside the contract.

`SealContract` and `VerifyContract` also reach into the contract's tests: these then run sealed and unsealed, and prove
the store where it matters.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventlab.errors import LateEvent, StoreError
from eventlab.store.api import EventReader, Report, Selection, Store, SupportsSeal, SupportsVerify
from eventlab.testing.events import SIGNAL, SIGNAL_ROW, TRADE, batch, batch_of_trades, everything, folded, trade
from eventlab.testing.suite import Suite, many_trades, ticking


def sealed(store: EventReader) -> int:
    """Seal a store; returns how many events were in small commits."""
    assert isinstance(store, SupportsSeal)
    return store.seal()


def verified(store: EventReader) -> Report:
    """The proof of a store."""
    assert isinstance(store, SupportsVerify)
    return store.verify()


class SealContract(Suite):
    """A store that seals: reads and digests are the same before and after, whatever lies in between."""

    def layouts(self, reader: EventReader) -> Iterator[None]:
        yield
        if not reader.read_only:
            sealed(reader)
            yield

    def rearrange(self, store: Store) -> None:
        sealed(store)

    def test_sealing_changes_nothing_but_the_layout(self, store: Store) -> None:
        store.commit([batch(5, ["a", "b", "a", "c", "b"], timestamps=[1, 2, 3, 4, 5], metadata={"m": "é"})])
        store.commit([batch([SIGNAL_ROW] * 2, "a", kind=SIGNAL, ids=["x", None], causes=[0, None])])
        selection = Selection({"market_data": ["price", "side"], "trading_signal": ["action"]})

        def answers() -> list[object]:
            return [
                everything(store).rows(), everything(store, SIGNAL).rows(), folded(store, selection),
                store.head_digest, store.heads(), [store.digest_at(stop) for stop in range(9)], store.count_commits(),
            ]  # fmt: skip

        before = answers()
        self.prove(store)
        assert sealed(store) == 7
        assert sealed(store) == 0
        assert answers() == before
        self.prove(store)

    def test_sealing_an_empty_store_does_nothing(self, store: Store) -> None:
        assert sealed(store) == 0
        assert store.head_digest is None

    def test_archived_events_answer_the_same(self, store: Store) -> None:
        pytest.importorskip("pcodec")
        receipt = store.commit([batch_of_trades(many_trades(self.small, symbols=3, seed=8))])
        store.commit([batch(3)])
        before, selection = everything(store), Selection({"market_data": ["price"]})
        whole = folded(store, selection)
        assert isinstance(store, SupportsSeal)
        assert store.archive(receipt.recorded_at) in (0, self.small)
        assert store.archive() > 0
        store.vacuum()
        assert everything(store).equals(before)
        assert folded(store, selection) == whole
        self.prove(store)

    def test_a_sealed_store_goes_on(self, store: Store) -> None:
        store.commit([batch(2, "a", timestamps=[5, 6], ids=["x", "y"])])
        sealed(store)
        with pytest.raises(LateEvent):
            store.commit([batch(1, "a", timestamps=[4])])
        receipt = store.commit([batch(1, "a", timestamps=[7], causes=[1])], expected={"a": 2})
        assert (receipt.position, receipt.version) == (2, 3)
        sealed(store)
        assert everything(store)["cause"].to_list() == [None, None, 1]

    def test_a_closed_store_seals_nothing(self, store: Store) -> None:
        store.close()
        with pytest.raises(StoreError, match="closed"):
            sealed(store)


class VerifyContract(Suite):
    """A store that proves its history."""

    def prove(self, store: Store) -> None:
        report = verified(store)
        assert report.ok
        assert (report.events, report.head) == (store.stop_position, store.head_digest)

    def test_an_empty_log_is_proved(self, log: Callable[..., EventReader]) -> None:
        report = verified(log())
        assert (report.ok, report.events, report.head) == (True, 0, None)

    def test_the_proof_counts_everything(self, log: Callable[..., EventReader]) -> None:
        reader = log([batch(3, ["a", "b", "a"])], [batch([SIGNAL_ROW], "a", kind=SIGNAL, ids=["x"])])
        for _ in self.layouts(reader):
            report = verified(reader)
            assert (report.events, report.commits, report.aggregates) == (4, 2, 2)
            assert (report.proven_events, report.proven_commits, report.sound_until) == (4, 2, 4)
            assert report.head == reader.head_digest
            assert report.damage == ()

    def test_a_closed_reader_proves_nothing(self, log: Callable[..., EventReader]) -> None:
        reader = log([batch(1)])
        reader.close()
        with pytest.raises(StoreError, match="closed"):
            verified(reader)


class DurabilityContract(Suite):
    """A store in a folder: acknowledged events are there when the folder, or a copy of it, is opened next."""

    def test_a_folder_opened_again_holds_the_same(self, tmp_path: Path) -> None:
        clock = ticking()
        store = self.opened(tmp_path / "store", clock)
        events = batch(3, ["a", "b", "a"], timestamps=[1, 2, 3], ids=["x", "y", "z"], metadata={"k": "v"})
        receipt = store.commit([events], source=("feed", 0))
        store.commit([batch(1, "a", timestamps=[2], clock="exchange")], late="accept")
        store.finish_source("feed", "{}")
        store.checkpoints.save("p", "one", 4, memoryview(b"s"), had=False, discard=None, supersede=False)
        kept = (store.store_id, store.head_digest, store.heads(), store.aggregate_ids(), everything(store).rows())
        store.close()
        again = self.opened(tmp_path / "store", clock)
        assert kept == (
            again.store_id, again.head_digest, again.heads(), again.aggregate_ids(), everything(again).rows(),
        )  # fmt: skip
        assert again.types() == {"market_data": TRADE}
        assert not again.times_ascend_in("a")
        assert again.chunk_receipt("feed", 0) == receipt
        assert again.source_receipt("feed") == "{}"
        assert again.commit([events], expected={"a": 9}) == receipt
        found = again.checkpoints.load("p", "one")
        assert found is not None
        assert (bytes(found.state), found.unusable) == (b"s", None)
        assert again.commit([batch(1, "a", clock="exchange")], expected={"a": 3}).version == 4
        self.prove(again)
        again.close()

    def test_a_copy_of_an_open_folder_holds_all_that_was_acknowledged(self, tmp_path: Path) -> None:
        """The files at one moment are what a killed process leaves."""
        clock = ticking()
        store = self.opened(tmp_path / "store", clock)
        for number, rows in enumerate((1, self.large, 2)):
            store.commit([batch([trade(1.0)] * rows, f"a{number}")])
            if number == 1:
                self.rearrange(store)
            copy = tmp_path / f"copy{number}"
            shutil.copytree(tmp_path / "store", copy)
            left = self.opened(copy, clock)
            assert (left.stop_position, left.head_digest) == (store.stop_position, store.head_digest)
            assert everything(left).equals(everything(store))
            assert left.commit([batch(1, "more")]).first_position == store.stop_position
            self.prove(left)
            left.close()
        store.close()

    def test_a_failed_commit_is_absent_from_the_files(self, tmp_path: Path) -> None:
        clock = ticking()
        store = self.opened(tmp_path / "store", clock)
        store.commit([batch(1, "a", timestamps=[100])])
        rows = self.large
        for late in (batch(1, "a", timestamps=[1]), batch([trade()] * rows, "a", timestamps=[1] * rows)):
            with pytest.raises(LateEvent):
                store.commit([batch(1, "new"), late])
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
        store.close()
        for folder in ("store", "copy"):
            again = self.opened(tmp_path / folder, clock)
            assert (again.stop_position, again.aggregate_ids()) == (1, ["a"])
            again.close()

    def test_two_who_open_a_folder_share_one_log(self, tmp_path: Path) -> None:
        clock = ticking()
        one, other = (self.opened(tmp_path / "store", clock) for _ in range(2))
        called: list[int] = []
        one.listen(lambda: called.append(1))
        for number in range(6):
            writer = (one, other)[number % 2]
            assert writer.commit([batch(1, "a")], expected={"a": number}).position == number
            if number == 3:
                self.rearrange(writer)
        for store in (one, other):
            assert everything(store)["version"].to_list() == [1, 2, 3, 4, 5, 6]
            assert store.head_digest == one.head_digest
        assert called
        one.close()
        other.close()
