"""Proving, scanning and folding a log take the memory of a few segments, not of the log or of its largest commit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eventlab.events.types import EventType
from eventlab.store.api import Batch
from eventlab.store.event_log import EventLog
from eventlab.testing.events import TRADE

ROOT = Path(__file__).parents[2]
NAMES = [f"market/S{code}" for code in range(20)]


def frame(kind: EventType, rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(0)
    codes = pa.array(random.integers(0, 20, rows).astype(np.int32))
    given = {
        "symbol": pa.DictionaryArray.from_arrays(codes, pa.array(NAMES)),
        "price": pa.array(np.round(100 + np.cumsum(random.integers(-3, 4, rows)) * 0.01, 2)),
        "volume": pa.array(random.random(rows)),
        "trade_id": pa.array(np.arange(rows)),
    }
    columns = [given[field.name] if field.name in given else pa.nulls(rows, field.arrow_type) for field in kind]
    return pa.RecordBatch.from_arrays(columns, schema=kind.arrow_schema)


VERIFY = """
from eventlab.store.event_log import EventLog
with EventLog.open(sys.argv[1], read_only=True) as store:
    assert store.verify().proven_events == 10_000_000
"""
SCAN = """
import eventlab as el, polars as pl
with el.open(sys.argv[1], read_only=True) as lab:
    counted = lab.scan(el.MarketData).select(pl.all().count()).collect()
assert counted["price"].item() == counted["position"].item() == 10_000_000
"""
STATES = """
import eventlab as el
with el.open(sys.argv[1], read_only=True) as lab:
    assert lab.states(el.Trades)["count"].sum() == 10_000_000
"""
HISTORY = """
import eventlab as el
with el.open(sys.argv[1], read_only=True) as lab:
    head = lab.state(el.Trades, "market/S3").version
    assert lab.history(el.Trades, "market/S3", at=range(1, head, 1_000))["count"][-1] > head - 1_000
"""
# Not by getrusage: its peak is that of the process that started this one, where that was larger.
PEAK = "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) // 1024)"


@pytest.fixture(scope="module")
def ten_million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten million events of twenty markets, in one commit."""
    path, rows = tmp_path_factory.mktemp("ten_million") / "lab", 10_000_000
    payload = frame(TRADE, rows)
    aggregates = pa.DictionaryArray.from_arrays(payload.column(0).indices, pa.array(NAMES))
    with EventLog.open(path) as store:
        store.commit([Batch(TRADE, payload, aggregates, timestamp=np.arange(rows) * 1_000)])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("job", [VERIFY, SCAN, STATES, HISTORY], ids=["verify", "scan", "states", "history"])
def test_ten_million_events_take_less_than_a_gibibyte(ten_million: Path, job: str):
    done = subprocess.run(
        [sys.executable, "-c", f"import re, sys\n{job}{PEAK}", str(ten_million)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    print("peak in mebibytes:", done.stdout)
    assert int(done.stdout) < 1024, "mebibytes at the most"
