"""Archive files give back what went in, as Parquet does, and damage to any of their bytes is told."""

from __future__ import annotations

import sys
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

from eventlab.errors import StoreCorrupt, StoreError
from eventlab.store import blocks as blocks_module
from eventlab.store.blocks import Block, Slab, clustered, in_position_order
from eventlab.store.hash_chain import columns as chain
from eventlab.store.segments import encodings as encoding
from eventlab.store.segments import parquet
from eventlab.store.segments import pco_pages as pages
from eventlab.store.segments.segments import FORMATS, write_segment
from eventlab.testing.events import TRADE
from tests.events.strategies import INT64
from tests.store.segments.segment_files import Kept, blocks, name_of, numbers_block, payload_of, told, without_nothing


@pytest.fixture(params=[2, 5, 16_384], autouse=True)
def row_group(request, monkeypatch) -> int:
    monkeypatch.setattr(encoding, "ROW_GROUP", request.param)
    monkeypatch.setattr(pages, "CHUNK_PAGES", 3)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 1)
    monkeypatch.setattr(blocks_module, "_WORTH_A_CORE", 8)
    return request.param


@pytest.mark.parametrize("codec", list(FORMATS))
@given(block=blocks())
def test_a_block_comes_back_bit_by_bit_with_its_digests(codec, block):
    kept = Kept(block, codec)
    slab = kept.read(exact=True)
    for found in (slab, kept.read()):
        assert told(found) == told(clustered([without_nothing(block)]))
    kept.check(slab)
    back = in_position_order(slab, kept.first, kept.stop)
    span = kept.stop - kept.first
    assert chain.block_leaves(back, kept.first, span, name_of) == chain.block_leaves(block, kept.first, span, name_of)


@given(data=st.data(), block=blocks())
def test_every_read_gives_what_parquet_gives(data, block):
    parquet, archive = Kept(block, "parquet"), Kept(block, "archive")
    assert np.array_equal(parquet.made.runs, archive.made.runs)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(parquet.runs), max_size=len(parquet.runs))))
    runs = parquet.runs.where(mask if mask.any() else ~mask)
    bounds = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "after": st.dictionaries(st.integers(0, 3), st.integers(0, 12), max_size=4),
                "stop_position": st.integers(parquet.first, parquet.stop),
                "since_time": st.sampled_from(block.timestamp.tolist()),
                "until_time": st.sampled_from(block.timestamp.tolist()),
                "until_version": st.integers(1, 12),
                "exact": st.booleans(),
            },
        )
    )
    found, expected = (within(kept.read(runs=runs, **bounds), **bounds) for kept in (archive, parquet))
    assert told(found) == told(expected)


def within(slab: Slab, since_time=None, until_time=None, until_version=None, **_) -> Slab:
    """What a read must give; beside it, formats give more or less of the row groups that hold it, as theirs lie."""
    events = slab.events
    wanted = np.ones(len(events), dtype=bool)
    if since_time is not None:
        wanted &= events.timestamp >= since_time
    if until_time is not None:
        wanted &= events.timestamp <= until_time
    if until_version is not None:
        wanted &= events.version <= until_version
    left = np.diff(np.concatenate([[0], np.cumsum(wanted)])[slab.offsets])
    offsets = np.concatenate([[0], np.cumsum(left[left > 0])])
    return Slab(slab.aggregates[left > 0], offsets, events.take(np.flatnonzero(wanted)))


@pytest.mark.parametrize(
    "odd", [-0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2, 2.0**53 + 2]
)
def test_odd_floats_among_prices(odd, row_group):
    values = np.round(np.arange(50) * 0.25, 2)
    values[31] = odd
    kept = Kept(numbers_block(50, price=pa.array(values)), "archive")
    assert kept.read().events.columns["price"].to_numpy().tobytes() == values.tobytes()


@given(values=st.lists(st.none() | INT64, min_size=1, max_size=40), causes=st.data())
def test_differences_that_overflow_wrap_back(values, causes):
    block = numbers_block(len(values), trade_id=pa.array(values, pa.int64()))
    times = pa.array(values, pa.int64()).cast(pa.timestamp("ns", tz="UTC"))
    block = replace(
        block,
        timestamp=np.full(len(values), 2**62),
        columns={**block.columns, "received_at": times},
    )
    back = Kept(block, "archive").read().events.columns
    assert back["trade_id"].to_pylist() == values
    assert back["received_at"].cast(pa.int64()).to_pylist() == values


def test_many_words_have_a_dictionary_per_row_group(row_group):
    words = pa.array([f"{row % 700:0200}" for row in range(2_000)] + [None]).dictionary_encode()
    kept = Kept(numbers_block(2_001, symbol=words), "archive")
    assert kept.read().events.columns["symbol"].to_pylist() == words.to_pylist()
    assert kept.read(after={0: 1_990}).events.columns["symbol"].to_pylist() == words.to_pylist()[1_990:]


def small() -> Block:
    rows = 12
    frame = pl.DataFrame(
        {
            "symbol": ["BTC", "ETH"] * 6, "price": [0.5, 1.25, 3.0] * 4, "volume": [1 / 3] * rows,
            "side": ["buy", None, "sell"] * 4, "trade_id": range(rows), "received_at": [None] * rows,
        }
    )  # fmt: skip
    block = numbers_block(rows)
    payload = payload_of(TRADE, frame.cast({"received_at": pl.Datetime("ns", "UTC")}))
    ids = pa.array([f"id {row}" if row % 2 else None for row in range(rows)])
    return replace(block, columns=payload, cause=np.arange(rows) - 2, event_id=ids)


def assert_told(kept: Kept, content: bytes) -> None:
    file = kept.keep(pa.py_buffer(content))
    try:
        slab = kept.read(file, exact=True)
        kept.check(slab, file)
    except StoreCorrupt as error:
        assert file.name in str(error)
        assert "market_data, positions 0 to 11" in str(error)
        return
    raise AssertionError("damage was not noticed")


def test_a_flipped_bit_anywhere_is_told():
    kept = Kept(small(), "archive")
    content = bytes(kept.made.content)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        assert_told(kept, bytes(damaged))


def test_a_truncated_or_grown_file_is_told():
    kept = Kept(small(), "archive")
    content = bytes(kept.made.content)
    for length in range(0, len(content), 7):
        assert_told(kept, content[:length])
    assert_told(kept, content + b"\0")
    assert_told(kept, bytes(len(content)))


def test_a_missing_file_is_told():
    kept = Kept(small(), "archive")
    kept.storage.remove(kept.file.name)
    with pytest.raises(StoreCorrupt, match="is missing"):
        kept.read()


def test_without_pcodec_the_error_says_what_to_install(monkeypatch):
    kept = Kept(small(), "archive")
    monkeypatch.setitem(sys.modules, "pcodec", None)
    for act in (kept.read, lambda: write_segment(small(), name_of, "archive")):
        with pytest.raises(StoreError, match=r"needs the package pcodec.*pip install") as caught:
            act()
        assert not isinstance(caught.value, StoreCorrupt)
