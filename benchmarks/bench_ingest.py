"""A file of trades into a durable directory store, end to end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl

import eventlab as el
from benchmarks.measure import compare


def _ingest(benchmark: Any, file: Path, plain: Path, folder: Path, row: str, **noted: float) -> None:
    events = pl.scan_csv(plain, has_header=False).select(pl.len()).collect().item()

    def fresh() -> Path:
        shutil.rmtree(folder / "lab", ignore_errors=True)
        return folder / "lab"

    def ingest(path: Path) -> int:
        with el.open(path) as lab:
            return lab.ingest(el.feeds.binance_trades(file, "BTCUSDT"), progress=False).count

    count = compare(
        benchmark, ingest, lambda: pl.read_csv(file, has_header=False), row=row, events=events,
        against="Polars only reading the file", rounds=5, prepare=fresh, **noted,
    )  # fmt: skip
    assert count == events


def test_ingest_of_csv(benchmark: Any, trades_csv: Path, tmp_path: Path) -> None:
    row = "ingest: CSV of trades into a durable store"
    _ingest(benchmark, trades_csv, trades_csv, tmp_path, row, wanted_rate=1e6)


def test_ingest_of_gzip(benchmark: Any, trades_csv: Path, trades_csv_gz: Path, tmp_path: Path) -> None:
    _ingest(benchmark, trades_csv_gz, trades_csv, tmp_path, "ingest: the same, gzip")
