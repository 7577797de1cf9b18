"""Turns appended objects and frames into batches, and groups batches into one commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import FeedError, InvalidEvent
from eventlab.events import columns
from eventlab.events.aggregate_ids import Template
from eventlab.events.clock import Moment, to_ns
from eventlab.events.frame import Int64Array
from eventlab.events.rows import MOST_ROWS, Rows, rows_of
from eventlab.events.types import EventType, event_type
from eventlab.store.api import Batch, Late, Receipt, Store

DEFAULT_TEMPLATES = {
    "market_data": "market/{symbol}",
    "book_change": "book/{symbol}",
    "quote": "quote/{symbol}",
    "bar": "bar/{symbol}",
    "funding": "funding/{symbol}",
}
"""Default aggregate ids of market events, as the feeds name them."""

_ENVELOPE = ("timestamp", "cause", "event_id", "aggregate_id", "metadata")


@dataclass(frozen=True, slots=True, eq=False)
class Ref:
    """Events queued in a group. As the `cause` of later events in it, it means the last of them."""

    group: Group
    row: int
    count: int
    event_id: str | None = None
    """The supplied id of the last event, whose position is another if it was appended before the group."""

    @property
    def position(self) -> int:
        """Position of the last of these events, once the group is committed."""
        return self.group.position_of(self)


Cause: TypeAlias = "int | Ref | None"


def _payload(declared: EventType, events: Sequence[Any]) -> pa.RecordBatch | Rows:
    rows = rows_of(declared, events) if len(events) <= MOST_ROWS else None
    return columns.payload_from_objects(declared, events) if rows is None else rows


def _listed(events: object) -> list[Any]:
    if hasattr(type(events), "__event_type__"):
        return [events]
    if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, Iterable):
        raise InvalidEvent(
            "neither an event nor a list of events", got=events, hint="Append instances, e.g. el.TradingSignal(...)."
        )
    listed = list(events)
    if not listed:
        raise InvalidEvent("no event to append", hint="Pass at least one event.")
    for row, item in enumerate(listed):
        if isinstance(item, type) or not hasattr(type(item), "__event_type__"):
            raise InvalidEvent(
                f"row {row}: not an event", got=item, expected="an instance of a class made by @el.event"
            )
    return listed


def _per_event(value: object, rows: int, what: str) -> list[Any]:
    if isinstance(value, (list, tuple, np.ndarray, pl.Series)):
        if len(value) != rows:
            raise InvalidEvent(f"{what}: wrong length", got=len(value), expected=rows)
        return list(value)
    return [value] * rows


def _times(timestamp: object, rows: int) -> Int64Array:
    return np.array(
        [to_ns(value, what="timestamp") for value in _per_event(timestamp, rows, "timestamp")], dtype=np.int64
    )


def _causes(cause: object, rows: int, group: Group) -> tuple[Int64Array | None, Int64Array | None]:
    """Positions of causes in the log, and rows of causes in the same group; negative for none."""
    given = _per_event(cause, rows, "cause")
    if all(value is None for value in given):
        return None, None
    positions, queued = np.full(rows, -1, dtype=np.int64), np.full(rows, -1, dtype=np.int64)
    for row, value in enumerate(given):
        if isinstance(value, Ref):
            if value.group is group:
                queued[row] = value.row
            else:
                positions[row] = value.position
        elif isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= value < 2**63:
            positions[row] = value
        elif value is not None:
            raise InvalidEvent(f"row {row}: not a cause", got=value, expected="the position of an earlier event")
    return positions, queued if (queued >= 0).any() else None


def _ids(event_id: object, rows: int) -> pa.StringArray:
    given = _per_event(event_id, rows, "event_id")
    for row, value in enumerate(given):
        if value is not None and not isinstance(value, str):
            raise InvalidEvent(f"row {row}: not an event id", got=value, expected="text")
    try:
        return pa.array(given, pa.string())
    except UnicodeEncodeError as error:
        raise InvalidEvent("an event id that is no valid Unicode text", got=given) from error


def batch_of_frame(
    declared: EventType,
    frame: columns.Frame,
    *,
    aggregate_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    clock: str | None = None,
    order: Int64Array | None = None,
    where: str = "",
) -> Batch:
    """A batch from a frame of payload and, optionally, timestamp, cause, event_id, aggregate_id and metadata."""
    given = columns.frame_of(frame)
    extra = [name for name in given.columns if name in _ENVELOPE]
    if "metadata" in extra and metadata is not None:
        raise InvalidEvent(
            "metadata are given both as an argument and as a column", hint="Drop the column or the argument."
        )
    payload = columns.payload_from_frame(declared, given, ignore=extra, where=where)
    return Batch(
        declared,
        payload,
        _aggregates(declared, payload, given, aggregate_id, where),
        timestamp=columns.timestamps_from(given["timestamp"], where=where) if "timestamp" in extra else None,
        cause=_cause_column(given["cause"], where) if "cause" in extra else None,
        event_id=_id_column(given["event_id"], where) if "event_id" in extra else None,
        metadata=columns.metadata_column(given["metadata"], where=where) if "metadata" in extra else metadata,
        order=order,
        clock=clock,
    )


def _aggregates(
    declared: EventType, payload: pa.RecordBatch, frame: pl.DataFrame, template: str | None, where: str
) -> str | pa.DictionaryArray:
    named = "aggregate_id" in frame.columns
    if template is not None and named:
        raise InvalidEvent(
            "aggregate_id is given both as an argument and as a column", hint="Drop the column or the argument."
        )
    if named:
        return columns.text_of(frame["aggregate_id"])
    template = DEFAULT_TEMPLATES.get(declared.name) if template is None else template
    if template is None:
        raise InvalidEvent(
            f"{declared.name}: no aggregate_id",
            expected="a column 'aggregate_id', or an argument such as 'market/{symbol}'",
        )
    texts = tuple(field.name for field in declared if field.is_text)
    try:
        parsed = Template.parse(template, texts)
    except FeedError as error:
        raise InvalidEvent(error.what, got=error.got, expected=error.expected, hint=error.hint) from None
    return _filled(parsed, payload, where)


def _filled(template: Template, payload: pa.RecordBatch, where: str) -> str | pa.DictionaryArray:
    """Aggregate ids of all rows. With one placeholder, only distinct values are formatted."""
    if not template.fields:
        return template.text
    used = {name: payload.column(payload.schema.get_field_index(name)) for name in template.fields}
    for name, column in used.items():
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise InvalidEvent(
                f"{columns.prefix(where)}row {row}, column {name!r}: null, but it names the aggregate",
                expected="a value in every row",
            )
    if len(used) == 1:
        ((name, column),) = used.items()
        filled = [template.fill({name: value}) for value in column.dictionary.to_pylist()]
        return pa.DictionaryArray.from_arrays(column.indices, pa.array(filled, pa.string()))
    spread = pl.DataFrame({name: pl.Series(column.cast(pa.string())) for name, column in used.items()})
    return columns.text_of(template.column(spread))


def _cause_column(column: pl.Series, where: str) -> Int64Array:
    if column.dtype == pl.Null:
        return np.full(len(column), -1, dtype=np.int64)
    if not column.dtype.is_integer():
        raise columns.wrong_type("cause", where, column.dtype, "integers")
    if (column < 0).any() or (column > 2**63 - 1).any():
        raise InvalidEvent(
            f"{columns.prefix(where)}column 'cause' has values that are not positions", expected="0 or above, or null"
        )
    return column.cast(pl.Int64).fill_null(-1).to_numpy()


def _id_column(column: pl.Series, where: str) -> pa.StringArray:
    if column.dtype not in (pl.String, pl.Null):
        raise columns.wrong_type("event_id", where, column.dtype, "text")
    return column.cast(pl.String).rechunk().to_arrow().cast(pa.string())


class Group:
    """Appends to several aggregates that become one atomic commit, made by ``with lab.commit()``.

    Attributes
    ----------
    receipt : Receipt or None
        The receipt of the whole commit, after the ``with`` block.
    """

    def __init__(self, store: Store, late: Late) -> None:
        self._store = store
        self._late: Late = late
        self._batches: list[Batch] = []
        self._expected: dict[str, int] = {}
        self._queued: dict[str, int] = {}
        self._rows = 0
        self._done = False
        self.receipt: Receipt | None = None

    def append(
        self,
        aggregate_id: str,
        events: object,
        *,
        expected_version: int | None = None,
        timestamp: Moment | Sequence[Moment] | None = None,
        metadata: Mapping[str, str] | None = None,
        cause: Cause | Sequence[Cause] = None,
        event_id: str | Sequence[str | None] | None = None,
    ) -> Ref:
        """Queue events like :meth:`eventlab.lab.lab.Lab.append`; the result can be a `cause` of later events."""
        if self._done:
            raise InvalidEvent("this group is committed already", hint="Open another: with lab.commit() as c.")
        listed = _listed(events)
        rows = len(listed)
        times = None if timestamp is None else _times(timestamp, rows)
        causes, cause_rows = _causes(cause, rows, self)
        ids = None if event_id is None else _ids(event_id, rows)
        grouped: dict[str, tuple[EventType, list[int]]] = {}
        for row, item in enumerate(listed):
            declared = event_type(item)
            grouped.setdefault(declared.name, (declared, []))[1].append(row)
        ordered = self._rows > 0 or len(grouped) > 1
        batches = []
        for declared, members in grouped.values():
            at = np.array(members, dtype=np.int64)
            batch = Batch(
                declared,
                _payload(declared, [listed[row] for row in members]),
                aggregate_id,
                timestamp=None if times is None else times[at],
                cause=None if causes is None else causes[at],
                event_id=None if ids is None else ids.take(pa.array(at)),
                metadata=metadata,
                order=at + self._rows if ordered else None,
                cause_row=None if cause_rows is None else cause_rows[at],
            )
            batches.append(batch)
        if expected_version is not None:
            if isinstance(expected_version, bool) or not isinstance(expected_version, int):
                raise InvalidEvent("expected_version must be an int", got=expected_version)
            before = expected_version - self._queued.get(aggregate_id, 0)
            if self._expected.setdefault(aggregate_id, before) != before:
                raise InvalidEvent(f"two expected versions of {aggregate_id!r} contradict each other")
        self._queued[aggregate_id] = self._queued.get(aggregate_id, 0) + rows
        self._batches += batches
        self._rows += rows
        last = event_id if isinstance(event_id, str) or event_id is None else event_id[-1] if len(event_id) else None
        return Ref(self, self._rows - 1, rows, last)

    def position_of(self, ref: Ref) -> int:
        """Position of a Ref's last event, once the group is committed."""
        if self.receipt is None:
            raise InvalidEvent(
                "an event has no position before its commit",
                hint="Inside its group the Ref itself can be a cause; elsewhere only after the `with` block.",
            )
        if ref.event_id is not None:
            found = self._store.find(ref.event_id)
            if found is not None:
                return int(found["position"].item())
        return self.receipt.first_position + ref.row

    def __enter__(self) -> Self:
        if self._done:
            raise InvalidEvent("this group is committed already", hint="Open another: with lab.commit() as c.")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        self._done = True

    def commit(self) -> Receipt:
        """Commit all appends, as leaving the ``with`` block does."""
        self._done = True
        batches = self._batches
        if len(batches) > 1 and batches[0].order is None:
            batches[0] = replace(batches[0], order=np.arange(batches[0].payload.num_rows))
        self.receipt = self._store.commit(batches, expected=self._expected, late=self._late)
        return self.receipt
