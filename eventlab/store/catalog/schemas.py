"""Versions of event types in a store: which may be written, and which one a read gives.

Stored events stay in the version they were written with, as the digests prove. A read turns them into the version that
the caller wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eventlab.errors import SchemaMismatch, UnknownEventType
from eventlab.events.types import EventType, event_type
from eventlab.events.upcast import check_readable, described, newer, other_fields


def check_writable(types: Iterable[EventType], known: Iterable[EventType]) -> dict[str, EventType]:
    """Event types of a commit by name.

    Parameters
    ----------
    types : iterable of EventType
        Those of its batches.
    known : iterable of EventType
        All versions that the store has of all types.

    Raises
    ------
    SchemaMismatch
        A version that the store has with other fields, or older than one it has; two versions in one commit.
    """
    used: dict[str, EventType] = {}
    for declared in types:
        other = used.setdefault(declared.name, declared)
        if other is not declared and other != declared:
            raise SchemaMismatch(
                f"one commit has events of {declared.name!r} in two versions",
                got=described(declared),
                expected=described(other),
                hint="Append instances of the class as it is declared now.",
            )
    for stored in known:
        wanted = used.get(stored.name)
        if wanted is None or wanted is stored:
            continue
        if stored.schema_version > wanted.schema_version:
            raise newer(stored, wanted)
        if stored.schema_version == wanted.schema_version and stored != wanted:
            raise other_fields(stored, wanted)
    return used


def meaning(name: str, newest: Mapping[str, EventType]) -> EventType:
    """The event type that a name stands for in a read: the newer of the declared and the stored version.

    Parameters
    ----------
    newest : mapping of str to EventType
        The newest version of each type in the store.

    Raises
    ------
    UnknownEventType
        Neither has it.
    """
    stored = newest.get(name)
    try:
        declared = event_type(name)
    except UnknownEventType as error:
        if stored is not None:
            return stored
        raise unknown(error, newest) from None
    if stored is None or stored.schema_version < declared.schema_version:
        return declared
    return stored


def unknown(error: UnknownEventType, known: Iterable[str]) -> UnknownEventType:
    """The same error, naming also the types that a store has."""
    names = sorted({*known, *(str(error.expected).split(", ") if error.expected else ())})
    return UnknownEventType(error.what, got=error.got, expected=", ".join(names), hint=error.hint)


def check_wanted(wanted: Mapping[str, EventType], known: Iterable[EventType]) -> None:
    """Raise where a store has a version of a wanted type that cannot be read as it; see `check_readable`."""
    for stored in known:
        declared = wanted.get(stored.name)
        if declared is not None and declared is not stored:
            check_readable(stored, declared)
