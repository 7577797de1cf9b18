"""The digest's format is permanent: it is written out here a second time, slowly, from its description."""

from __future__ import annotations

import hashlib
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from eventlab.store.api import Batch
from eventlab.store.event_log import EventLog
from eventlab.store.hash_chain import columns as chain
from eventlab.testing.events import SIGNAL, TRADE, batch, everything, trade


def naive_leaf(kind: str, values: list) -> bytes | None:
    if all(value is None for value in values):
        return None
    number = {"float": 1, "int": 2, "time": 2, "bool": 3}.get(kind, 4)
    out = struct.pack("<BQ", number, len(values))
    for start in range(0, len(values), 65_536):
        rows = values[start : start + 65_536]
        if any(value is None for value in rows):
            out += b"\1" + np.packbits([value is not None for value in rows], bitorder="little").tobytes()
        else:
            out += b"\0"
        if number == 1:
            out += b"".join(
                struct.pack("<d", value or 0.0) if value != 0 else struct.pack("<d", value) for value in rows
            )
        elif number == 2:
            out += b"".join(struct.pack("<q", value or 0) for value in rows)
        elif number == 3:
            out += np.packbits([bool(value) for value in rows], bitorder="little").tobytes()
        else:
            words = list(dict.fromkeys(value for value in rows if value is not None))
            out += struct.pack("<I", len(words)) + b"".join(
                struct.pack("<I", len(w.encode())) + w.encode() for w in words
            )
            width, code = (1, "<B") if len(words) <= 2**8 else (2, "<H") if len(words) <= 2**16 else (4, "<I")
            out += bytes([width]) + b"".join(struct.pack(code, 0 if v is None else words.index(v)) for v in rows)
    return hashlib.sha256(out).digest()


def naive_digest(previous: bytes, store: EventLog, first: int, count: int) -> bytes:
    leaves, recorded_at = [], 0
    for name, kind in sorted(store.types().items()):
        frame = everything(store, kind)
        mine = frame.filter(frame["position"].is_between(first, first + count - 1))
        if mine.is_empty():
            continue
        recorded_at = mine["recorded_at"].dt.epoch("ns")[0]
        leaves.append((name, "", hashlib.sha256(kind.schema_json().encode()).digest()))
        columns = {
            "aggregate_id": ("string", mine["aggregate_id"].to_list()),
            "version": ("int", mine["version"].to_list()),
            "timestamp": ("int", mine["timestamp"].dt.epoch("ns").to_list()),
            "cause": ("int", mine["cause"].to_list()),
            "metadata": ("string", mine["metadata"].to_list()),
        }
        if len(mine) < count:
            columns["position"] = ("int", [position - first for position in mine["position"]])
        for field in kind:
            series = mine[field.name]
            columns[field.name] = (field.kind, (series.dt.epoch("ns") if field.kind == "time" else series).to_list())
        leaves += [(name, column, leaf) for column, (k, v) in columns.items() if (leaf := naive_leaf(k, v)) is not None]
    leaves.sort(key=lambda leaf: (leaf[0].encode(), leaf[1].encode()))
    out = b"eventlab commit 1\0" + previous + struct.pack("<QQqI", first, count, recorded_at, len(leaves))
    for name, column, leaf in leaves:
        out += struct.pack("<I", len(name)) + name.encode() + struct.pack("<I", len(column)) + column.encode() + leaf
    return hashlib.sha256(out).digest()


@given(
    st.lists(
        st.builds(
            trade,
            st.floats(min_value=-0.0, allow_nan=False, allow_infinity=False),
            symbol=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3),
            side=st.sampled_from(["buy", "sell", None]),
            trade_id=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
        ),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
@settings(max_examples=40)
def test_the_chain_is_what_its_description_says(rows, seal):
    signals = [{"symbol": "B", "action": "ü", "strength": -0.0, "strategy": "s"}] * 2
    with EventLog.open(":memory:", clock=lambda: 5) as store:
        first = store.commit([batch(rows, "m", metadata={"k": "v"})])
        one = naive_digest(chain.GENESIS, store, 0, len(rows))
        assert store.head_digest == one.hex()
        second: list[Batch] = [batch(rows, "m", causes=[0] * len(rows)), batch(signals, "s", kind=SIGNAL)]
        store.commit(second)
        if seal:
            store.seal()
        two = naive_digest(one, store, first.count, len(rows) + 2)
        assert store.head_digest == two.hex()


def test_a_digest_stays_what_it_was():
    """Computed when the format was fixed. If this fails, stores already written no longer verify."""
    with EventLog.open(":memory:", clock=lambda: 1_704_067_200_000_000_000) as store:
        store.commit([batch([trade(61_000.5, side="buy"), trade(61_001.0)], "market/BTC", metadata={"run": "1"})])
        assert store.head_digest == PINNED


PINNED = "9c219657f4745d181bcf182e91808a024dcd082447476c997ed067a3a8cc4912"


@pytest.mark.parametrize("rows", [65_535, 65_537, 132_000])
def test_long_columns_are_hashed_in_blocks(rows: int):
    prices = np.arange(rows) % 300
    with EventLog.open(":memory:", clock=lambda: 5) as store:
        store.commit([_many(prices)])
        assert store.verify().ok
        assert store.head_digest == naive_digest(chain.GENESIS, store, 0, rows).hex()


def _many(prices) -> Batch:
    import polars as pl

    from eventlab.lab.append import batch_of_frame

    frame = pl.DataFrame({"price": prices.astype(float), "volume": prices % 7 * 1.5}).select(
        "price", "volume", symbol=pl.format("S{}", pl.col("price").cast(pl.Int32))
    )
    return batch_of_frame(TRADE, frame, aggregate_id="{symbol}")
