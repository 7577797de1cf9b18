"""Computed event ids: an event that was appended without an id has a name-based UUID, which costs no bytes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable


def event_id_of(store_id: str, aggregate_id: str, version: int) -> str:
    """The id of an event for which none was supplied: a name-based UUID of store, aggregate and version."""
    return str(uuid.uuid5(uuid.UUID(store_id), f"{version}@{aggregate_id}"))


def find_computed(store_id: str, event_id: str, heads: Iterable[tuple[str, int]]) -> tuple[str, int] | None:
    """Aggregate and version from which a computed id is made; None if no event has it.

    Parameters
    ----------
    heads : iterable of (str, int)
        Every aggregate and its last version.
    """
    try:
        wanted = uuid.UUID(event_id)
    except ValueError:
        return None
    if wanted.version != 5 or str(wanted) != event_id:
        return None
    start = hashlib.sha1(uuid.UUID(store_id).bytes, usedforsecurity=False)
    # A name-based UUID is the first 16 bytes of a SHA-1 with six bits overwritten; compare the bytes before them.
    prefix = wanted.bytes[:6]
    for name, head in heads:
        end = f"@{name}".encode()
        for version in range(1, head + 1):
            attempt = start.copy()
            attempt.update(b"%d" % version + end)
            if attempt.digest()[:6] == prefix and event_id_of(store_id, name, version) == event_id:
                return name, version
    return None
