"""Proving a log takes the memory of a segment, not of the log or of its largest commit."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eventlab.events.types import EventType
from eventlab.store.contract import Batch
from eventlab.store.log import EventLog
from tests.store.helpers import TRADE

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


@pytest.mark.slow
def test_ten_million_events_in_one_commit_are_proved_within_a_gibibyte(tmp_path: Path):
    rows = 10_000_000
    payload = frame(TRADE, rows)
    aggregates = pa.DictionaryArray.from_arrays(payload.column(0).indices, pa.array(NAMES))
    with EventLog.open(tmp_path / "lab") as store:
        store.commit([Batch(TRADE, payload, aggregates, timestamp=np.arange(rows) * 1_000)])
    code = """
        import resource, sys
        from eventlab.store.log import EventLog
        with EventLog.open(sys.argv[1], read_only=True) as store:
            assert store.verify().proven_events == 10_000_000
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "lab")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    assert int(done.stdout) < 1024, "mebibytes at the most"
