"""What the parts of the suite share: stores to test, and hooks for what optional parts add to every test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from eventlab.store.api import Batch, EventReader, Store

START = 1_704_067_200_000_000_000
SECOND = 1_000_000_000


def ticking() -> Callable[[], int]:
    """A clock that rises by a second each time it is read, from 2024-01-01."""
    ticks = itertools.count(START + SECOND, SECOND)
    return lambda: next(ticks)


class Suite:
    """Subclasses override `opened`; a part that tests readers alone may override `reader` instead.

    Attributes
    ----------
    small, large : int
        Commits of these numbers of events should take the two ways that a store has for small and for large commits.
    """

    small: ClassVar[int] = 400
    large: ClassVar[int] = 10_000

    def opened(self, folder: Path, clock: Callable[[], int]) -> Store:
        """Open a store in a folder, which may not exist yet, with a clock that gives ns since the epoch, UTC."""
        raise NotImplementedError

    def reader(self, folder: Path, commits: Sequence[Sequence[Batch]]) -> EventReader:
        """A reader of a log in which these commits were made one after the other, with ``late="accept"``."""
        store = self.opened(folder, ticking())
        for batches in commits:
            store.commit(batches, late="accept")
        return store

    def layouts(self, reader: EventReader) -> Iterator[None]:
        """Once for each way in which the events of a log can be kept. Tests read in each of them."""
        yield

    def rearrange(self, store: Store) -> None:
        """Rewrite the files of a store in the middle of a test."""

    def prove(self, store: Store) -> None:
        """Check that a store is sound in the middle of a test."""

    @pytest.fixture(autouse=True)
    def _small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.use_small_pieces(monkeypatch)

    def use_small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make files and row groups so small that `small` events take several of each."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        opened = self.opened(tmp_path / "store", ticking())
        yield opened
        opened.close()

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Callable[..., EventReader]]:
        """Makes a log of some commits, and gives its reader."""
        made: list[EventReader] = []

        def make(*commits: Sequence[Batch]) -> EventReader:
            made.append(self.reader(tmp_path / f"log{len(made)}", commits))
            return made[-1]

        yield make
        for reader in made:
            reader.close()


def many_trades(rows: int, *, symbols: int, seed: int, start: int = SECOND) -> pl.DataFrame:
    """Random trades of some symbols, with event times that ascend and often repeat."""
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "symbol": [f"S{code}" for code in random.integers(0, symbols, rows)],
            "price": np.round(100 + np.cumsum(random.integers(-3, 4, rows)) * 0.01, 2),
            "volume": random.random(rows),
            "side": random.choice(["buy", "sell"], rows),
            "trade_id": np.arange(rows),
            "timestamp": start + np.cumsum(random.integers(0, 3, rows)) * 1_000_000,
        }
    )
