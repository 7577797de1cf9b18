"""Segment files give what their blocks hold, and a read touches no more of them than it needs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from eventlab.errors import StoreCorrupt
from eventlab.storage.local import LocalStorage
from eventlab.storage.memory import MemoryStorage
from eventlab.store.blocks import clustered
from eventlab.store.segments import encodings as encoding
from eventlab.store.segments.pruning import ReadBounds
from eventlab.store.segments.segments import FORMATS, Runs, Segments, stretches, write_segment, write_segments
from tests.store.segments.segment_files import Kept, blocks, name_of, numbers_block, told, without_nothing


@pytest.mark.parametrize("codec", list(FORMATS))
@pytest.mark.parametrize("group", [2, 16_384])
@given(block=blocks(), data=st.data())
def test_versions_and_positions_are_cut_to_the_row(codec, group, block, data):
    after = data.draw(st.dictionaries(st.integers(0, 3), st.integers(0, 12), max_size=4))
    stop = data.draw(st.integers(int(block.position[0]), int(block.position[-1]) + 1))
    floors = np.array([after.get(number, 0) for number in block.aggregate.tolist()])
    rows = np.flatnonzero((block.version > floors) & (block.position < stop))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "ROW_GROUP", group)
        kept = Kept(without_nothing(block), codec)
        found = kept.read(after=after, stop_position=stop)
    assert len(found.events) == len(rows)
    if len(rows):
        expected = clustered([without_nothing(block).take(rows)])
        some = np.diff(found.offsets) > 0
        assert found.aggregates[some].tolist() == expected.aggregates.tolist()
        assert told(found)[2:] == told(expected)[2:]


@given(block=blocks())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrow_reads_a_local_file_as_it_reads_ranges(block, tmp_path):
    kept = Kept(without_nothing(block), "parquet")
    expected = told(kept.read())
    local = kept.storage = LocalStorage(tmp_path / "files")
    local.write(kept.file.name, [kept.made.content])
    assert told(kept.read()) == expected
    segments = Segments(local, "here")
    segments.read(kept.file, kept.runs, ())
    local.write(kept.file.name, [memoryview(kept.made.content)[:10]])
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        segments.read(kept.file, kept.runs, [field.name for field in block.type], exact=True)
    local.remove(kept.file.name)
    with pytest.raises(StoreCorrupt, match="is missing"):
        segments.read(kept.file, kept.runs, [field.name for field in block.type], exact=True)


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(1, 10**7), st.integers(1, 9))
def test_stretches_follow_one_another_and_are_short_enough(first, rows, most, side_by_side):
    made = stretches(first, first + rows, max(most, rows // 1_000 + 1), side_by_side)
    assert made[0][0] == first
    assert made[-1][1] == first + rows
    assert all(before[1] == after[0] for before, after in itertools.pairwise(made))
    assert all(0 < stop - start <= max(most, rows // 1_000 + 1) for start, stop in made)


@pytest.mark.parametrize("codec", list(FORMATS))
def test_files_written_side_by_side_are_those_written_alone(codec):
    whole = numbers_block(5_000, price=pa.array(np.arange(5_000) / 4))
    parts = [whole.slice(start, start + 1_000) for start in range(0, 5_000, 1_000)]
    for part, made in zip(parts, write_segments(parts, name_of, codec), strict=True):
        assert made.content.equals(write_segment(part, name_of, codec).content)


class CountingStorage(MemoryStorage):
    """A storage that notes which ranges are read, and in how many calls."""

    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__()
        self._files = storage._files
        self.calls: list[list[tuple[int, int]]] = []

    @property
    def read_ranges(self) -> list[tuple[int, int]]:
        return [part for call in self.calls for part in call]

    def ranges(self, name: str, wanted: Sequence[tuple[int, int]]) -> Iterator[memoryview]:
        self.calls.append(list(wanted))
        return super().ranges(name, wanted)


@pytest.fixture(params=list(FORMATS))
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Kept, Segments, CountingStorage]:
    """A file of 40 aggregates with 100 events each, in row groups of 64; its footer has been read."""
    monkeypatch.setattr(encoding, "ROW_GROUP", 256)
    rows = 4_000
    random = np.random.default_rng(0)
    block = numbers_block(rows, price=pa.array(random.random(rows)), trade_id=pa.array(random.integers(0, 2**60, rows)))
    kept = Kept(replace(block, aggregate=np.arange(rows) % 40, version=1 + np.arange(rows) // 40), request.param)
    storage = CountingStorage(kept.storage)
    segments = Segments(storage, "here")
    segments.read(kept.file, one(kept, 0), ["price"])
    storage.calls.clear()
    return kept, segments, storage


def one(kept: Kept, aggregate: int) -> Runs:
    return kept.runs.where(kept.runs.aggregate == aggregate)


def test_a_point_read_touches_only_its_row_groups_and_columns(many):
    kept, segments, storage = many
    slab = segments.read(kept.file, one(kept, 17), ["price"])
    assert slab.events.columns["price"].to_pylist() == kept.block.columns["price"].to_pylist()[17::40]
    touched = sum(stop - start for start, stop in storage.read_ranges)
    assert touched < 3 * 64 * 16 + 1_000  # three row groups of floats that do not shrink, times and positions
    if kept.made.suffix == ".parquet":
        metadata = pq.read_metadata(pa.BufferReader(kept.made.content))
        wanted = [metadata.schema.names.index(name) for name in ("price", "timestamp", "position")]
        chunks = [metadata.row_group(group).column(index) for group in (26, 27, 28) for index in wanted]
        starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
        allowed = [(at, at + chunk.total_compressed_size) for at, chunk in zip(starts, chunks, strict=True)]
        for start, stop in storage.read_ranges:
            assert any(low <= start and stop <= high for low, high in allowed) or start == stop
    assert len(storage.calls) == 1  # all chunks are asked for at once


@pytest.mark.parametrize("codec", list(FORMATS))
@pytest.mark.parametrize(
    "bounds", [{"after": {0: 3_000}}, {"stop_position": 900}, {"until_version": 900}, {"since_time": 3_000},
               {"until_time": 899},
               {"start_position": 3_000}],
)  # fmt: skip
def test_bounds_leave_out_row_groups(codec, bounds, monkeypatch):
    monkeypatch.setattr(encoding, "ROW_GROUP", 100)
    kept = Kept(numbers_block(4_000, price=pa.array(np.random.default_rng(0).random(4_000))), codec)
    storage = CountingStorage(kept.storage)
    segments = Segments(storage, "here")
    segments.read(kept.file, one(kept, 0), ["price"])
    storage.calls.clear()
    slab = segments.read(kept.file, one(kept, 0), ["price"], bounds=ReadBounds(**bounds))
    assert 900 <= len(slab.events) <= 1_000
    assert sum(stop - start for start, stop in storage.read_ranges) < 1_000 * (8 + 3 * 8)


def test_a_read_of_nothing_reads_nothing(many):
    kept, segments, storage = many
    assert len(segments.read(kept.file, one(kept, 17), ["price"], bounds=ReadBounds(since_time=10**9)).events) == 0
    assert all(start == stop for start, stop in storage.read_ranges)


MEASURED = """
import resource, sys
import eventlab as el
from eventlab.store.api import Selection
with el.open(sys.argv[1], read_only=True) as lab:
    if sys.argv[2] == "verify":
        assert lab.verify().ok
    elif sys.argv[2] == "scan":
        print(sum(len(frame) for frame in lab.store.rows(lab.store.types()["market_data"])))
    else:
        print(sum(len(frame) for frame in lab.store.frames(Selection({"market_data": ("price", "volume")}))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("aggregates", [1, 1_000])
def test_ten_million_events_are_scanned_and_proven_in_less_than_a_gibibyte(aggregates: int, tmp_path: Path):
    """Peak resident memory of a process of its own: segments are bounded, so a tenfold store needs no more."""
    import polars as pl

    import eventlab as el

    rows, random = 1_000_000, np.random.default_rng(0)
    with el.open(tmp_path / "lab") as lab:
        for _ in range(10):
            frame = pl.DataFrame(
                {
                    "symbol": pl.repeat("BTC", rows, eager=True),
                    "price": np.round(random.random(rows) * 100, 2),
                    "volume": random.random(rows),
                    "side": random.choice(["buy", "sell"], rows),
                    "trade_id": np.arange(rows),
                    "aggregate_id": pl.Series(random.integers(0, aggregates, rows)).cast(pl.String),
                }
            )
            lab.append_frame(el.MarketData, frame)
        lab.seal()
    for what in ("verify", "scan", "frames"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path / "lab"), what], check=True, capture_output=True, text=True
        )
        assert int(done.stdout.split()[-1]) < 1 << 20, what  # kibibytes
