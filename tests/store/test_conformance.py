"""The built-in store keeps the contract and takes every optional part, in a directory and in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from eventlab.errors import ReadOnlyStore
from eventlab.store.api import (
    Batch,
    EventReader,
    Store,
    SupportsBackup,
    SupportsReadLog,
    SupportsSeal,
    SupportsVerify,
)
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from eventlab.testing.abilities import DurabilityContract, SealContract, VerifyContract
from eventlab.testing.events import batch
from eventlab.testing.reading import ReadingContract
from eventlab.testing.suite import Suite, ticking
from eventlab.testing.writing import WritingContract


class BuiltIn(Suite):
    large = writer.BULK_ROWS + 1

    def use_small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Row groups of 32 and segments of 150, so that a few rows exercise every edge."""
        monkeypatch.setattr(encoding, "ROW_GROUP", 32)
        monkeypatch.setattr(sealing, "SEGMENT_ROWS", 150)


class SmallBulk(BuiltIn):
    small, large = 400, 401

    def use_small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().use_small_pieces(monkeypatch)
        monkeypatch.setattr(writer, "BULK_ROWS", 200)


class TestInMemory(BuiltIn, ReadingContract, WritingContract, SealContract, VerifyContract):
    def opened(self, folder: Path, clock: Callable[[], int]) -> Store:
        return EventLog.open(":memory:", clock=clock)


class TestInADirectory(SmallBulk, ReadingContract, WritingContract, SealContract, VerifyContract, DurabilityContract):
    def opened(self, folder: Path, clock: Callable[[], int]) -> Store:
        return EventLog.open(folder, clock=clock)


class TestOpenedToBeRead(SmallBulk, ReadingContract, VerifyContract):
    """The reading half runs alone: nobody writes while these tests read."""

    def reader(self, folder: Path, commits: Sequence[Sequence[Batch]]) -> EventReader:
        with EventLog.open(folder, clock=ticking()) as store:
            for batches in commits:
                store.commit(batches, late="accept")
        return EventLog.open(folder, read_only=True)

    def test_nothing_is_written(self, log: Callable[..., EventReader]) -> None:
        reader = log([batch(3, ["a", "b", "a"])])
        assert reader.read_only
        with pytest.raises(ReadOnlyStore):
            reader.commit([batch(1)])
        assert reader.stop_position == 3


def test_the_built_in_store_has_every_ability():
    with EventLog.open(":memory:") as store:
        for ability in (SupportsSeal, SupportsVerify, SupportsBackup, SupportsReadLog):
            assert isinstance(store, ability)
