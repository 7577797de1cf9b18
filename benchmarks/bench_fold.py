"""Folding in memory, beside what else could be done with the same columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

import eventlab as el
from benchmarks.conftest import Size
from benchmarks.measure import compare
from eventlab.events.columns import payload_from_frame
from eventlab.events.frame import EventTable
from eventlab.events.types import event_type
from eventlab.fold.declaration import Reducer, reducer
from eventlab.fold.drive import Folded, fold
from eventlab.fold.legs import Legs


@reducer
class Vwap:
    """The smallest market reducer that is of use."""

    notional: float = 0.0
    volume: float = 0.0

    def on_market_data(state: Any, event: Any) -> None:  # noqa: N805 - a handler's first argument is the state
        state.notional += event.price * event.volume
        state.volume += event.volume


def _table(event_class: type, columns: Mapping[str, pa.Array], aggregates: int = 1) -> EventTable:
    """Events of aggregates of equal length, as a store hands them to a fold."""
    rows = len(next(iter(columns.values())))
    offsets = np.linspace(0, rows, aggregates + 1).astype(np.int64)
    version = np.arange(1, rows + 1) - np.repeat(offsets[:-1], np.diff(offsets))
    position = np.arange(rows)
    return EventTable(event_type(event_class), offsets, position, version, position, columns)


def _payload(event_class: type, frame: pl.DataFrame) -> dict[str, pa.Array]:
    batch = payload_from_frame(event_type(event_class), frame)
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _fold(folding: Reducer, table: EventTable, interpret: bool = False) -> Folded:
    count = len(table.offsets) - 1
    name = table.type.name
    legs = Legs(np.arange(count + 1), {name: table.offsets[:-1]}, {name: table.offsets[1:]})
    initial = folding.layout.initial(count)
    return fold(folding, [f"a/{at}" for at in range(count)], initial, {name: table}, legs, interpret=interpret)


def _walk(rows: int) -> dict[str, pa.Array]:
    """Prices that walk by ticks, and volumes in lots."""
    rng = np.random.default_rng(1)
    price = 60_000 + np.cumsum(rng.integers(-1, 2, rows)) * 0.01
    return {"price": pa.array(price), "volume": pa.array(rng.integers(1, 1_000, rows) * 0.001)}


def _beside_numpy(benchmark: Any, size: Size, folding: Reducer, row: str) -> None:
    table = _table(el.MarketData, _walk(size(20_000_000, 10_000)))
    arrays = [column.to_numpy() for column in table.columns.values()]
    compare(
        benchmark, lambda: _fold(folding, table), lambda: [array.sum() for array in arrays],
        row=row, events=len(table), against="NumPy sum of the same columns", rounds=25, wanted_ratio=0.5,
    )  # fmt: skip


def test_vwap_beside_numpy(benchmark: Any, size: Size) -> None:
    _beside_numpy(benchmark, size, Vwap, "fold in memory: price and volume to VWAP, two fields")


def test_trades_beside_numpy(benchmark: Any, size: Size) -> None:
    _beside_numpy(benchmark, size, el.Trades, "fold in memory: el.Trades, seven fields")


def test_trades_beside_polars(benchmark: Any, size: Size) -> None:
    table = _table(el.MarketData, _walk(size(5_000_000, 10_000)), aggregates=50)
    owner = np.repeat(np.arange(50), np.diff(table.offsets))
    frame = pl.DataFrame({"owner": owner, **{name: pl.Series(array) for name, array in table.columns.items()}})
    price, volume = pl.col("price"), pl.col("volume")
    query = frame.lazy().group_by("owner").agg(
        open=price.first(), high=price.max(), low=price.min(), last=price.last(), volume=volume.sum(),
        notional=(price * volume).sum(), count=pl.len(),
    )  # fmt: skip
    folded = compare(
        benchmark, lambda: _fold(el.Trades, table), query.collect,
        row="fold in memory: el.Trades of 50 markets, all cores", events=len(table),
        against="Polars group_by, all cores", rounds=9,
    )  # fmt: skip
    states = pl.DataFrame(folded.states)
    assert states["high"].to_list() == query.collect().sort("owner")["high"].to_list()


def _beside_python(benchmark: Any, folding: Reducer, table: EventTable, some: EventTable, row: str) -> None:
    _fold(folding, some)
    compare(
        benchmark, lambda: _fold(folding, table), lambda: _fold(folding, some, True),
        row=row, events=len(table), against="the same handlers as plain Python", against_events=len(some), rounds=5,
    )  # fmt: skip


def test_portfolio(benchmark: Any, size: Size) -> None:
    rng = np.random.default_rng(2)

    def table(rows: int) -> EventTable:
        frame = pl.DataFrame({
            "symbol": rng.choice(["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"], rows),
            "quantity": rng.integers(-500, 501, rows) * 0.001,
            "price": 60_000 + rng.integers(-10_000, 10_000, rows) * 0.01,
            "fee": rng.random(rows),
        })  # fmt: skip
        return _table(el.PortfolioChange, _payload(el.PortfolioChange, frame))

    full, some = table(size(2_000_000, 2_000)), table(size(20_000, 500))
    _beside_python(benchmark, el.Portfolio, full, some, "fold in memory: el.Portfolio, average cost and FIFO")


def test_order_book(benchmark: Any, size: Size) -> None:
    feed = el.feeds.simulate(symbols=("BTCUSDT",), trades=size(300_000, 500), seed=3, books=True)
    parts = [b.frame for c in feed.chunks() for b in c.batches if b.type.name == "book_change"]
    frame = pl.concat(parts).drop("timestamp")
    full = _table(el.BookChange, _payload(el.BookChange, frame))
    some = _table(el.BookChange, _payload(el.BookChange, frame.head(size(20_000, 500))))
    _beside_python(benchmark, el.OrderBook, full, some, "fold in memory: el.OrderBook, prices ranked on the way")
