from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

import eventlab as el
from eventlab.cli import app

HOSTILE = ("<script>alert(1)</script>", "[red]x[/red]", "\x1b[31mred\x07", "../../etc", "a\u202eb\nc", "$x^2$")


@pytest.fixture
def cli() -> Callable[..., Any]:
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.fixture
def lab_dir(tmp_path: Path) -> Path:
    """A small lab: simulated trades and books, a portfolio, signals."""
    path = tmp_path / "lab"
    with el.open(path) as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=500, seed=1, books=True), progress=False)
        signal = lab.append("signals/a", el.TradingSignal("BTCUSDT", "buy", 1.0, "a"), timestamp="2024-01-01T01:00:00Z")
        lab.append(
            "portfolio/a",
            [el.PortfolioChange("BTCUSDT", 2.0, 100.0, fee=0.5), el.PortfolioChange("BTCUSDT", -1.0, 110.0)],
            timestamp=["2024-01-01T01:00:00.123456789Z", "2024-01-01T01:00:01Z"],
            cause=signal.position,
        )
    return path


@pytest.fixture
def hostile_dir(tmp_path: Path) -> Path:
    """A lab whose symbols and ids would like to act on a terminal or a page."""
    path = tmp_path / "hostile"
    frame = pl.DataFrame({"symbol": HOSTILE, "price": [1.0] * len(HOSTILE), "volume": [2.0] * len(HOSTILE)})
    with el.open(path) as lab:
        lab.append_frame(el.MarketData, frame.with_columns(timestamp=pl.lit(1_704_067_200_000_000_000)))
        lab.append("portfolio/x", [el.PortfolioChange(symbol, 1.0, 1.0) for symbol in HOSTILE])
    return path
