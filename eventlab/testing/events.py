"""Events and batches that the suites are made of, and what is read back from a store, spelled out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events import builtin, columns
from eventlab.events.types import EventType, event_type
from eventlab.store.api import Batch, EventReader, Selection, all_columns, frame_schema

TRADE = event_type(builtin.MarketData)
SIGNAL = event_type(builtin.TradingSignal)
CHANGE = event_type(builtin.PortfolioChange)

TYPES: dict[str, EventType] = {kind.name: kind for kind in (TRADE, SIGNAL, CHANGE)}

SIGNAL_ROW = {"symbol": "BTC", "action": "buy", "strength": 1.0, "strategy": "s"}


def trade(price: float = 1.0, **more: Any) -> dict[str, Any]:
    """The fields of a trade."""
    return {"symbol": "BTC", "price": price, "volume": 1.0, "side": None, "trade_id": None, "received_at": None, **more}


def batch(
    rows: Sequence[Mapping[str, Any]] | int = 1,
    aggregate_id: str | Sequence[str] = "market/BTC",
    *,
    kind: EventType = TRADE,
    timestamps: Sequence[int] | None = None,
    causes: Sequence[int | None] | None = None,
    ids: Sequence[str | None] | None = None,
    **more: Any,
) -> Batch:
    """A batch of events given by their fields; a number means so many trades."""
    listed = [trade(float(row + 1)) for row in range(rows)] if isinstance(rows, int) else rows
    events = [kind.cls(**row) for row in listed]
    return Batch(
        kind,
        columns.payload_from_objects(kind, events),
        aggregate_id if isinstance(aggregate_id, str) else columns.text_of(pl.Series(aggregate_id, dtype=pl.String)),
        timestamp=None if timestamps is None else np.array(timestamps, dtype=np.int64),
        cause=None if causes is None else np.array([-1 if c is None else c for c in causes], dtype=np.int64),
        event_id=None if ids is None else pa.array(ids, pa.string()),
        **more,
    )


def batch_of_trades(frame: pl.DataFrame) -> Batch:
    """A batch of trades from a frame with timestamps; each trade's symbol is its aggregate."""
    return Batch(
        TRADE,
        columns.payload_from_frame(TRADE, frame, ignore=["timestamp"]),
        columns.text_of(frame["symbol"]),
        timestamp=columns.timestamps_from(frame["timestamp"]),
    )


def everything(reader: EventReader, kind: EventType = TRADE, **conditions: Any) -> pl.DataFrame:
    """All columns of all events of a type, the envelope first."""
    payload = [field.name for field in kind]
    names = [name for name in all_columns(kind) if name not in payload] + payload
    empty = pl.DataFrame(schema=frame_schema(kind, names))
    return pl.concat([*reader.rows(kind, columns=names, **conditions), empty])


def folded(reader: EventReader, selection: Selection) -> dict[str, list[tuple[Any, ...]]]:
    """What a fold would see, spelled out: by aggregate, (version, position, time, type, payload) in version order."""
    seen: dict[str, list[tuple[Any, ...]]] = {}
    for frame in reader.frames(selection):
        here: dict[str, list[tuple[Any, ...]]] = {}
        for name, table in frame.tables.items():
            assert len(table.offsets) == len(frame.aggregates) + 1
            assert table.offsets[-1] == len(table)
            columns_here = {field: array.to_pylist() for field, array in table.columns.items()}
            for index, aggregate in enumerate(frame.aggregates):
                for row in range(table.offsets[index], table.offsets[index + 1]):
                    payload = {field: values[row] for field, values in columns_here.items()}
                    here.setdefault(aggregate, []).append(
                        (int(table.version[row]), int(table.position[row]), int(table.timestamp[row]), name, payload)
                    )
        for aggregate, events in here.items():
            events.sort(key=lambda event: event[0])
            before = seen.setdefault(aggregate, [])
            assert not before or before[-1][0] < events[0][0], "versions rise from frame to frame"
            before += events
    return seen
