"""Recognising events that are there already: supplied ids are unique, and make an append idempotent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import DuplicateEvent, InvalidEvent
from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array, decoded
from eventlab.store.commit.validate import CheckedBatch
from eventlab.store.types import Late, Receipt

_LONGEST_ID = 200


class KnownEvents(Protocol):
    """Looks up events that are in the log."""

    @property
    def names(self) -> Sequence[str]:
        """Aggregate ids by number."""

    def positions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Positions of the supplied ids that are in the log."""

    def block_at(self, declared: EventType, positions: Int64Array) -> Block | None:
        """All columns of events at some positions, in the order given; None unless all are of this type."""

    def receipt_at(self, position: int) -> Receipt:
        """The receipt of the commit that holds a position."""


def earlier_receipt(
    known: KnownEvents, items: Sequence[CheckedBatch], names: Sequence[str], late: Late
) -> Receipt | None:
    """The receipt of the commit that already has all these events; None if the log has none of them.

    Parameters
    ----------
    items, names
        From `check_batches`.

    Raises
    ------
    DuplicateEvent
        An id twice in the call, only some of the events in the log, or one in the log with other content.
    """
    per_item = [None if i.batch.event_id is None else i.batch.event_id.to_pylist() for i in items]
    ids = [given for supplied in per_item for given in supplied or () if given is not None]
    if not ids:
        return None
    _check_ids(ids)
    found = known.positions(ids)
    if not found:
        return None
    if len(found) < len(ids) or len(ids) < sum(item.rows for item in items):
        raise DuplicateEvent(
            "some events of the call are there already and some are not",
            got=next(iter(found)),
            expected="all of them, or none",
            hint="Append the new ones in a call of their own.",
        )
    last_version = 0
    places = sorted(found.values())
    rows = _places_by_row(items, per_item, found)
    for item, supplied in zip(items, per_item, strict=True):
        positions = np.array([found[given] for given in supplied or ()], dtype=np.int64)
        stored = _same_events(known, item, positions, rows, names, late)
        at_end = np.flatnonzero(stored.position == places[-1])
        last_version = int(stored.version[at_end[0]]) if len(at_end) else last_version
    receipt = known.receipt_at(places[-1])
    if (receipt.first_position, receipt.count) == (places[0], len(places)):
        return receipt
    return Receipt(places[-1], last_version, len(places), places[0], receipt.recorded_at)


def _same_events(
    known: KnownEvents, item: CheckedBatch, positions: Int64Array, places: Int64Array, names: Sequence[str], late: Late
) -> Block:
    """The stored events of an item, checked to have equal content. `places` are positions by row of the call."""
    stored = known.block_at(item.batch.type, positions)
    if stored is None:
        raise _other_content(item, 0, "event_type")
    aggregates = [known.names[number] for number in stored.aggregate.tolist()]
    given = (
        [names[item.aggregate]] * item.rows if isinstance(item.aggregate, int) else [names[i] for i in item.aggregate]
    )
    _check_equal([a == b for a, b in zip(aggregates, given, strict=True)], item, "aggregate_id")
    for index, field in enumerate(item.batch.type):
        _check_equal(_equal(stored.columns[field.name], item.payload.column(index)), item, field.name)
    given_at = item.batch.timestamp
    if given_at is not None:  # one that was clamped stands higher than it was given
        at = stored.timestamp
        _check_equal(at >= given_at if late == "clamp" else at == given_at, item, "timestamp")
    cause = np.full(item.rows, -1) if stored.cause is None else np.maximum(stored.cause, -1)
    wanted = np.full(item.rows, -1) if item.batch.cause is None else np.maximum(item.batch.cause, -1)
    if item.batch.cause_row is not None:
        row = np.asarray(item.batch.cause_row)
        wanted = np.where(row >= 0, places[np.maximum(row, 0)], wanted)
    _check_equal(cause == wanted, item, "cause")
    texts = [None] * item.rows if stored.metadata is None else decoded(stored.metadata).to_pylist()
    texts_given = decoded(item.metadata).to_pylist() if isinstance(item.metadata, pa.DictionaryArray) else None
    same = [a == b for a, b in zip(texts, texts_given or [item.metadata] * item.rows, strict=True)]
    _check_equal(same, item, "metadata")
    return stored


def _places_by_row(
    items: Sequence[CheckedBatch], ids: Sequence[Sequence[str] | None], found: Mapping[str, int]
) -> Int64Array:
    """Stored positions of a call's events by row of the call, which causes inside the call refer to."""
    places = np.empty(sum(item.rows for item in items), dtype=np.int64)
    first = 0
    for item, supplied in zip(items, ids, strict=True):
        rows = np.arange(first, first + item.rows) if item.batch.order is None else np.asarray(item.batch.order)
        places[rows] = [found[given] for given in supplied or ()]
        first += item.rows
    return places


def _check_ids(ids: Sequence[str]) -> None:
    for given in ids:
        if not given or len(given) > _LONGEST_ID:
            raise InvalidEvent("not an event id", got=given, expected=f"text of 1 to {_LONGEST_ID} characters")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(given for given in ids if given in seen or seen.add(given))  # type: ignore[func-returns-value]
        raise DuplicateEvent("an event id comes twice in the call", got=twice)


def _equal(stored: pa.Array, given: pa.Array) -> npt.NDArray[np.bool_]:
    if pa.types.is_dictionary(stored.type):
        stored, given = decoded(stored), decoded(given)
    elif pa.types.is_floating(stored.type):  # by bits: -0.0 is another value than 0.0
        stored, given = stored.view(pa.int64()), given.view(pa.int64())
    same = pc.or_(pc.fill_null(pc.equal(stored, given), False), pc.and_(stored.is_null(), given.is_null()))
    return np.asarray(same.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _check_equal(flags: Sequence[bool] | npt.NDArray[np.bool_], item: CheckedBatch, what: str) -> None:
    wrong = np.flatnonzero(~np.asarray(flags, dtype=bool))
    if len(wrong):
        raise _other_content(item, int(wrong[0]), what)


def _other_content(item: CheckedBatch, row: int, what: str) -> DuplicateEvent:
    given = None if item.batch.event_id is None else item.batch.event_id[row].as_py()
    return DuplicateEvent(
        f"an event with this id is there already with another {what}",
        got=given,
        hint="Give a changed event an id of its own.",
    )
