"""Resolves what callers name, event types and aggregates, against a store."""

from __future__ import annotations

from typing import TypeAlias

from eventlab.errors import InvalidEvent, UnknownAggregate, UnknownEventType
from eventlab.events.types import EventType, event_type
from eventlab.store.api import EventReader
from eventlab.store.catalog.schemas import check_wanted, meaning, unknown

EventClass: TypeAlias = "type | str | EventType"


def type_named(store: EventReader, of: EventClass) -> EventType:
    """An event type by class or name. A name means the newer of the declared version and the stored one.

    Raises
    ------
    UnknownEventType
        Neither this process nor the store has it.
    SchemaMismatch
        The store has this version with other fields, or a newer one.
    """
    known = store.types()
    if isinstance(of, str):
        return meaning(of, known)
    try:
        declared = event_type(of)
    except UnknownEventType as error:
        raise unknown(error, known) from None
    stored = known.get(declared.name)
    if stored is not None and stored.schema_version >= declared.schema_version:
        check_wanted({declared.name: declared}, [stored])
    return declared


def aggregate_named(aggregate_id: object) -> str:
    """Check that an id is a string. Raises UnknownAggregate."""
    if not isinstance(aggregate_id, str):
        raise UnknownAggregate("not an aggregate id", got=aggregate_id, expected="text")
    return aggregate_id


def aggregates_named(store: EventReader, aggregate_id: str | None) -> list[str] | None:
    """The ids that an id or a pattern with ``*`` matches; None for all. Raises UnknownAggregate."""
    if aggregate_id is None or aggregate_id == "*":
        return None
    if not isinstance(aggregate_id, str):
        raise InvalidEvent("not an aggregate id", got=aggregate_id, expected="text")
    found = store.aggregate_ids(aggregate_id)
    if not found and "*" not in aggregate_id:
        raise UnknownAggregate.named(aggregate_id)
    return found
