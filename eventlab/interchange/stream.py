"""Events of all types as one stream of DomainEvents with schemas, the store's id and a proof; see the .proto."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import polars as pl
from google.protobuf.message import DecodeError

from eventlab.errors import FeedError
from eventlab.events.types import EventType
from eventlab.interchange import proof
from eventlab.interchange.pieces import Piece, merged
from eventlab.interchange.protobuf.convert import bodies
from eventlab.interchange.protobuf.delimited import delimited, messages
from eventlab.interchange.protobuf.domain_event_pb2 import DomainEvent
from eventlab.storage.api import Storage
from eventlab.storage.file import opened


def buffers(
    store_id: str, sources: Sequence[tuple[EventType, Iterator[pl.DataFrame]]], placeholder: str
) -> Iterator[bytes]:
    """The bytes of a stream with events of several types in position order, and a placeholder for the proof."""
    described: set[str] = set()
    last: bytes | None = None
    parts: list[bytes] = []
    for group in merged(sources):
        for name, body in _in_order(group):
            if last is not None:
                parts.append(delimited(last, "an event"))
            last = body
            if name not in described:
                declared = next(declared for declared, _ in group if declared.name == name)
                # These fields have the highest numbers, so that the message is as protobuf itself would write it.
                first = DomainEvent(schema=declared.schema_json(), store_id="" if described else store_id)
                last += first.SerializeToString(deterministic=True)
                described.add(name)
        yield b"".join(parts)
        parts.clear()
    if last is not None:
        yield delimited(last + DomainEvent(proof=placeholder).SerializeToString(), "an event")


def _in_order(group: Sequence[Piece]) -> Iterator[tuple[str, bytes]]:
    """The messages of a group, by position."""
    positions = np.concatenate([frame["position"].to_numpy() for _, frame in group])
    owner = np.repeat(np.arange(len(group)), [len(frame) for _, frame in group])
    made = [bodies(declared, frame) for declared, frame in group]
    for which in owner[np.argsort(positions, kind="stable")].tolist():
        yield group[which][0].name, next(made[which])


def checked(storage: Storage, name: str) -> tuple[str, str | None]:
    """Return the digest of a stream that agrees with its proof, and its store's id.

    A stream of another program has no proof; then the id is None.

    Raises
    ------
    FeedError
        The bytes are not those that were exported, or the stream is cut off.
    """
    digest = proof.check(storage, name)
    with opened(storage, name) as file:
        first = _first(file, name)
    if digest is None:
        if first.schema or first.store_id:
            raise FeedError(
                f"{name}: the stream's proof is missing", hint="It was cut off or damaged; export it again."
            )
        return proof.sha256_of(storage, name), None
    return digest, first.store_id or None


def _first(file: BinaryIO, name: str) -> DomainEvent:
    for _, data in messages(file):
        try:
            event = DomainEvent.FromString(data)
        except DecodeError:
            event = DomainEvent()
        if event.WhichOneof("payload") is None:
            raise FeedError(f"{name}: not a stream of DomainEvents", got=data[:32])
        return event
    raise FeedError(f"{name}: an empty stream", expected="at least one event")
