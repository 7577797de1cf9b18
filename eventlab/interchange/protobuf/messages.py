"""A payload message for every event type: the .proto's own for the built-in ones, a built one for a user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import Message

import eventlab.events.builtin  # noqa: F401  declares the types that the .proto names
from eventlab.errors import InvalidEvent, SchemaMismatch
from eventlab.events.clock import MAX_NS, MIN_NS
from eventlab.events.types import EventType, Field, Kind, event_type
from eventlab.interchange.protobuf.domain_event_pb2 import DomainEvent

BUILTIN = frozenset(field.name for field in DomainEvent.DESCRIPTOR.oneofs_by_name["payload"].fields) - {"other"}
"""Names of the event types that have a field of their own in `DomainEvent`."""

_PACKAGE = "user"
_TYPE = descriptor_pb2.FieldDescriptorProto
_WIRE: dict[Kind, _TYPE.Type.ValueType] = {
    "float": _TYPE.TYPE_DOUBLE,
    "int": _TYPE.TYPE_INT64,
    "bool": _TYPE.TYPE_BOOL,
    "string": _TYPE.TYPE_STRING,
    "symbol": _TYPE.TYPE_STRING,
    "enum": _TYPE.TYPE_STRING,
    "time": _TYPE.TYPE_MESSAGE,
}

Put: TypeAlias = Callable[[Any, Any], None]
Get: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """How the payload of one event type becomes a message and back.

    Attributes
    ----------
    url : str or None
        The `Any`'s type URL; None for a built-in type, which has its own field in `DomainEvent`.
    put, get : tuple of callables
        One a field, in declared order: ``put(message, value)`` for a value that is not None, ``get(message)``. Times
        are int64 nanoseconds.
    """

    declared: EventType
    message: type[Message]
    url: str | None
    put: tuple[Put, ...]
    get: tuple[Get, ...]


@lru_cache(maxsize=1024)
def codec_of(declared: EventType) -> Codec:
    """The codec of an event type.

    Raises
    ------
    SchemaMismatch
        It has the name of a built-in type, and other fields.
    """
    if declared.name not in BUILTIN:
        message, url = _built(declared), f"eventlab.dev/{_PACKAGE}.{declared.name}"
    elif declared != event_type(declared.name):
        raise SchemaMismatch(
            f"{declared.name!r} differs from the built-in type of that name, which the interchange form is made for",
            got=declared.schema_json(),
            expected=event_type(declared.name).schema_json(),
        )
    else:
        message, url = type(getattr(DomainEvent(), declared.name)), None
    return Codec(declared, message, url, tuple(map(_putter, declared)), tuple(map(_getter, declared)))


def _built(declared: EventType) -> type[Message]:
    # A pool of its own: two types of one name, from two stores, do not collide.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}/{declared.name}.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[timestamp_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name=declared.name)
    for number, field in enumerate(declared, 1):
        # json_name is given because derived ones may coincide (a_1 and a1), which proto3 refuses.
        made = message.field.add(
            name=field.name, json_name=field.name, number=number, type=_WIRE[field.kind], label=_TYPE.LABEL_OPTIONAL
        )
        if field.kind == "time":
            made.type_name = f".{timestamp_pb2.Timestamp.DESCRIPTOR.full_name}"
        elif field.nullable:
            made.proto3_optional, made.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{declared.name}"))


def put_ns(timestamp: timestamp_pb2.Timestamp, ns: int) -> None:
    """Set a Timestamp; its nanos count forward also before 1970."""
    timestamp.SetInParent()  # the epoch itself is all defaults, and still there
    timestamp.seconds, timestamp.nanos = divmod(ns, 1_000_000_000)


def get_ns(timestamp: timestamp_pb2.Timestamp) -> int:
    """A Timestamp in nanoseconds; InvalidEvent for nanos out of range, or a moment that int64 does not hold."""
    if not 0 <= timestamp.nanos < 1_000_000_000:
        raise InvalidEvent("a Timestamp's nanos are out of range", got=timestamp.nanos, expected="0 to 999999999")
    ns = timestamp.seconds * 1_000_000_000 + timestamp.nanos
    if not MIN_NS <= ns <= MAX_NS:
        raise InvalidEvent(
            "a Timestamp lies outside what int64 nanoseconds hold",
            got=f"{timestamp.seconds} s",
            expected="1677 to 2262",
        )
    return ns


def _putter(field: Field) -> Put:
    name = field.name
    if field.kind == "time":
        return lambda message, ns: put_ns(getattr(message, name), ns)
    return lambda message, value: setattr(message, name, value)


def _getter(field: Field) -> Get:
    name = field.name
    if field.kind == "time":
        return lambda message: get_ns(getattr(message, name)) if message.HasField(name) else None
    if field.nullable:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)
