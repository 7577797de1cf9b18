"""Stores of both kinds, and batches to put into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from eventlab.store.event_log import EventLog

Opener = Callable[..., EventLog]


@pytest.fixture(params=["memory", "directory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path, ticking: Iterator[int]) -> Iterator[EventLog]:
    path: Path | str = ":memory:" if kind == "memory" else tmp_path / "lab"
    with EventLog.open(path, clock=lambda: next(ticking)) as opened:
        yield opened


@pytest.fixture
def trades() -> Callable[..., pl.DataFrame]:
    def make(rows: int, *, symbols: int = 1, seed: int = 0, start: int = 1_000_000_000) -> pl.DataFrame:
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

    return make
