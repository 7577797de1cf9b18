"""Blocks as frames for users: text as strings, closed vocabularies as enums, times with their zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import InvalidEvent
from eventlab.events.types import EventType, Field
from eventlab.store.blocks import Block, Int64Array, text_codes
from eventlab.store.ids import event_id_of

TIME = pl.Datetime("ns", "UTC")

ENVELOPE_TYPES: dict[str, pl.DataType] = {
    "position": pl.Int64(),
    "aggregate_id": pl.String(),
    "version": pl.Int64(),
    "timestamp": TIME,
    "cause": pl.Int64(),
    "event_id": pl.String(),
    "metadata": pl.String(),
    "recorded_at": TIME,
    "event_type": pl.String(),
}
"""Envelope columns a frame may have, and their types."""

STORED_EXTRA = ("cause", "event_id", "metadata")
"""Envelope columns that are read only on request."""


def default_columns(declared: EventType) -> tuple[str, ...]:
    """Columns of a frame by default."""
    return ("position", "aggregate_id", "version", "timestamp", *(field.name for field in declared), "cause")


def all_columns(declared: EventType) -> tuple[str, ...]:
    """Every column a frame may have: the default ones, then those on request."""
    return (*default_columns(declared), "event_id", "metadata", "recorded_at", "event_type")


def frame_schema(declared: EventType, columns: Sequence[str] | None = None) -> dict[str, pl.DataType]:
    """Names and types of a frame's columns.

    Raises
    ------
    InvalidEvent
        A name that is neither a payload field nor an envelope column, or comes twice.
    """
    known = {**ENVELOPE_TYPES, **declared.polars_schema}
    wanted = default_columns(declared) if columns is None else tuple(columns)
    for name in wanted:
        if name not in known:
            raise InvalidEvent(f"{declared.name} has no column {name!r}", expected=", ".join(all_columns(declared)))
    if len(set(wanted)) < len(wanted):
        raise InvalidEvent("a column is requested twice", got=", ".join(wanted))
    return {name: known[name] for name in wanted}


def to_frame(
    block: Block,
    columns: Sequence[str],
    *,
    name_of: Callable[[int], str],
    store_id: str,
    recorded_at: Callable[[Int64Array], Int64Array],
    computed_ids: bool = True,
) -> pl.DataFrame:
    """The given columns of a block.

    Parameters
    ----------
    name_of : callable
        Gives the aggregate id of a number.
    recorded_at : callable
        Gives commit times, ns UTC, of positions.
    computed_ids : bool
        Give an event without a supplied id the computed one; otherwise null.
    """
    envelope: dict[str, Callable[[], pl.Series]] = {
        "position": lambda: pl.Series("position", block.position),
        "aggregate_id": lambda: _names(block.aggregate, name_of),
        "version": lambda: pl.Series("version", block.version),
        "timestamp": lambda: _times("timestamp", block.timestamp),
        "cause": lambda: _cause(block),
        "event_id": lambda: _event_ids(block, name_of, store_id if computed_ids else None),
        "metadata": lambda: _metadata(block),
        "recorded_at": lambda: _times("recorded_at", recorded_at(block.position)),
        "event_type": lambda: pl.repeat(block.type.name, len(block), dtype=pl.String, eager=True).alias("event_type"),
    }
    return pl.DataFrame(
        [
            envelope[name]() if name in envelope else _payload(block.columns[name], block.type.field(name))
            for name in columns
        ]
    )


def _nulls(name: str, dtype: pl.DataType, rows: int) -> pl.Series:
    return pl.Series(name, [None], dtype=dtype).new_from_index(0, rows)


def _times(name: str, values: Int64Array) -> pl.Series:
    return pl.Series(name, values).cast(TIME)


def _names(numbers: Int64Array, name_of: Callable[[int], str]) -> pl.Series:
    if len(numbers) and (numbers == numbers[0]).all():
        return pl.Series("aggregate_id", [name_of(int(numbers[0]))], dtype=pl.String).new_from_index(0, len(numbers))
    distinct, codes = np.unique(numbers, return_inverse=True)
    names = pl.Series("aggregate_id", [name_of(int(number)) for number in distinct], dtype=pl.String)
    return names.gather(codes)


def _cause(block: Block) -> pl.Series:
    if block.cause is None:
        return _nulls("cause", pl.Int64(), len(block))
    return pl.Series("cause", pa.array(block.cause, mask=block.cause < 0))


def _event_ids(block: Block, name_of: Callable[[int], str], store_id: str | None) -> pl.Series:
    """The supplied ids, and the computed ones if a store's id is given."""
    if store_id is None:
        nulls = _nulls("event_id", pl.String(), len(block))
        return nulls if block.event_id is None else pl.Series("event_id", block.event_id, dtype=pl.String)
    supplied = [None] * len(block) if block.event_id is None else block.event_id.to_pylist()
    rows = zip(supplied, block.aggregate.tolist(), block.version.tolist(), strict=True)
    ids = [given or event_id_of(store_id, name_of(number), version) for given, number, version in rows]
    return pl.Series("event_id", ids, dtype=pl.String)


def _metadata(block: Block) -> pl.Series:
    if block.metadata is None:
        return _nulls("metadata", pl.String(), len(block))
    return _text("metadata", block.metadata, pl.String())


def _payload(column: pa.Array, field: Field) -> pl.Series:
    if field.is_text:
        return _text(field.name, column, field.polars_type)
    if field.kind == "time":
        return pl.Series(field.name, column.view(pa.int64())).cast(TIME)
    return pl.Series(field.name, column)


def _text(name: str, column: pa.DictionaryArray, wanted: pl.DataType) -> pl.Series:
    words = pl.Series(name, column.dictionary.to_pylist(), dtype=wanted)
    codes, valid = text_codes(column)
    if valid is None:
        return words.gather(codes)
    places = pl.Series(pa.array(codes, mask=~valid)).cast(pl.UInt32)
    return words.gather(places)
