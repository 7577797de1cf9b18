"""Bytes on disk of the real files, everything counted."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import eventlab as el
from benchmarks.measure import note
from eventlab.errors import SequenceGap
from eventlab.events.types import EventType

# Arrow's own bytes of an event: numbers and times take 8, closed vocabularies and booleans one. The symbol, the same in
# all of a file's rows, is not counted, nor is the envelope but for its timestamp: the raw side is as small as can be.
_WIDTHS = {"float": 8, "int": 8, "time": 8, "bool": 1, "enum": 1, "symbol": 0, "string": 0}


def _raw_bytes(declared: EventType) -> int:
    return 8 + sum(_WIDTHS[field.kind] for field in declared)


def test_six_binance_files(benchmark: Any, market_data_dir: Path, tmp_path: Path) -> None:
    binance = market_data_dir / "binance"
    path = tmp_path / "lab"

    def ingest() -> dict[str, int]:
        shutil.rmtree(path, ignore_errors=True)
        counts: dict[str, int] = {}
        with el.open(path) as lab, warnings.catch_warnings():
            warnings.simplefilter("ignore", SequenceGap)
            for market in ("spot", "usdm"):
                for feed in (
                    el.feeds.binance_trades(
                        binance / f"{market}_btcusdt_trades.csv.gz", "BTCUSDT", aggregate_id=f"market/{market}"
                    ),
                    el.feeds.tardis_book(binance / f"{market}_btcusdt_l2.csv.gz", aggregate_id=f"book/{market}"),
                    el.feeds.tardis_quotes(binance / f"{market}_btcusdt_bbo.csv.gz", aggregate_id=f"quote/{market}"),
                ):
                    lab.ingest(feed, progress=False)
            for name, declared in lab.store.types().items():
                counts[name] = lab.events(declared, columns=["position"]).height
        return counts

    counts = benchmark.pedantic(ingest, rounds=1)
    with el.open(path, read_only=True) as lab:
        raw = sum(_raw_bytes(declared) * counts[name] for name, declared in lab.store.types().items())
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    note(
        benchmark, row="storage: six real Binance files in one store, all its files", events=sum(counts.values()),
        stored_bytes=stored, raw_bytes=raw, against="their raw Arrow columns", wanted_share=0.2,
    )  # fmt: skip
