"""What a class that is to be a reducer says: its fields, its handlers, its properties; or why it cannot be one."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, TypeAlias

from eventlab.errors import ReducerError, UnknownEventType
from eventlab.events.types import EventType, declared_types, event_type
from eventlab.fold.declare.layout import SCALARS, Array, Keyed, Ladder, Layout, Queue, Scalar

LARGEST_RECORD = 2**20
"""Bytes of a state's scalars and arrays: a kernel copies them to its stack, and a snapshot holds them all."""

RESERVED = frozenset({"version", "position", "timestamp", "digest", "to_dict", "aggregate_id", "at", "reducer"})


@dataclass(frozen=True, slots=True)
class Routed:
    """A handler of other aggregates' events, and the text field that tells whom they concern."""

    handler: FunctionType
    type: EventType
    key: str


_NOT_PLAIN = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)


_Functions: TypeAlias = tuple[dict[str, FunctionType], dict[str, FunctionType], dict[str, EventType], dict[str, Routed]]


def functions_of(cls: type[Any]) -> _Functions:
    """Handlers, properties, types of the events handled, and handlers of routed events."""
    handlers: dict[str, FunctionType] = {}
    routed: dict[str, Routed] = {}
    properties: dict[str, FunctionType] = {}
    event_types: dict[str, EventType] = {}
    for name, value in vars(cls).items():
        where = f"{cls.__name__}.{name}"
        if isinstance(value, property):
            if value.fget is None or value.fset is not None or not isinstance(value.fget, FunctionType):
                raise ReducerError(f"{where}: a property is derived; it has a getter and no setter")
            _check_name(name, where)
            properties[name] = value.fget
        elif isinstance(value, FunctionType):
            declared = getattr(value, "__handles__", None) or _handled_by_name(name, where)
            if value.__code__.co_argcount != 2 or value.__code__.co_flags & _NOT_PLAIN:
                raise ReducerError(f"{where}: a handler takes (state, event)", got=str(inspect.signature(value)))
            if declared.name in handlers or declared.name in routed:
                raise ReducerError(f"{cls.__name__} has two handlers of {declared.name}")
            key = getattr(value, "__routed__", None)
            if key is not None:
                routed[declared.name] = Routed(value, declared, _routing_key(where, declared, key))
                continue
            handlers[declared.name], event_types[declared.name] = value, declared
        elif isinstance(value, classmethod | staticmethod):
            raise ReducerError(f"{where}: helpers are plain functions outside the class")
    return handlers, properties, event_types, routed


def _texts(declared: EventType) -> list[str]:
    return [field.name for field in declared if field.is_text]


def _routing_key(where: str, declared: EventType, key: object) -> str:
    if not isinstance(key, str) or key not in _texts(declared):
        raise ReducerError(
            f"{where}: {declared.name} is routed by one of its text fields",
            got=key,
            expected=" or ".join(_texts(declared)) or "a type that has one",
        )
    return key


def check_named(reducer_name: str, routed: Routed, own: Iterable[EventType]) -> None:
    """Refuse events that could never arrive: an aggregate's own events say which keys it holds."""
    if not any(routed.key in _texts(declared) for declared in own):
        raise ReducerError(
            f"{reducer_name}.{routed.handler.__name__}: no event that {reducer_name} handles has a text field "
            f"{routed.key!r}, so none of {routed.type.name} would be routed to it",
            expected=" or ".join(sorted({name for declared in own for name in _texts(declared)})) or None,
            hint="Aggregates hold the keys that their own events name, in a field of the same name.",
        )


def _handled_by_name(name: str, where: str) -> EventType:
    if name.startswith("on_"):
        try:
            return event_type(name.removeprefix("on_"))
        except UnknownEventType:
            pass
    known = [f"on_{declared.name}" for declared in declared_types()]
    raise ReducerError(
        f"{where} is no handler",
        expected=" or ".join(difflib.get_close_matches(name, known) or known),
        hint="Declare the event type with @el.event first; move helpers out of the class.",
    )


def _check_name(name: str, where: str) -> None:
    if name.startswith("_") or name in RESERVED:
        raise ReducerError(f"{where}: the name is reserved", hint="Choose another; no leading underscore.")


def layout_of(cls: type[Any]) -> Layout:
    """The fields of a state, from annotations, defaults and table declarations."""
    try:
        hints = inspect.get_annotations(cls, eval_str=True)
    except Exception as error:
        raise ReducerError(f"{cls.__name__}: an annotation cannot be read: {error}") from error
    record: list[Scalar | Array] = []
    tables: list[Keyed | Queue | Ladder] = []
    specs = {name: value for name, value in vars(cls).items() if isinstance(value, Array | Keyed | Ladder)}
    for name in dict.fromkeys((*hints, *specs)):
        where = f"{cls.__name__}.{name}"
        _check_name(name, where)
        declared = specs.get(name, hints.get(name))
        if isinstance(declared, Array):
            record.append(replace(declared, name=name))
        elif isinstance(declared, Keyed | Ladder):
            table = copy.copy(declared)  # one declaration may stand in several reducers
            table.name = name
            tables.append(table)
        elif isinstance(declared, type) and declared in SCALARS:
            record.append(scalar_of(where, name, declared, vars(cls).get(name)))
        else:
            raise ReducerError(
                f"{where}: unsupported type",
                got=declared,
                expected="float, int, bool, str, el.Array, el.Keyed, el.Ladder or el.Queue",
            )
    made = Layout(tuple(record), tuple(tables))
    if made.dtype.itemsize > LARGEST_RECORD:
        raise ReducerError(
            f"{cls.__name__}: a state's fields take {LARGEST_RECORD:,} bytes an aggregate at most, tables not counted",
            got=f"{made.dtype.itemsize:,} bytes",
            hint="Shorten its el.Array fields, or keep what grows in an el.Keyed or el.Queue.",
        )
    return made


def scalar_of(where: str, name: str, annotation: type, default: Any) -> Scalar:
    """A field with its initial value; ReducerError where that does not fit."""
    fits = {
        float: isinstance(default, int | float) and not isinstance(default, bool),
        int: isinstance(default, int) and not isinstance(default, bool) and -(2**63) <= default < 2**63,
        bool: isinstance(default, bool),
        str: isinstance(default, str),
    }
    if default is not None and not fits[annotation]:
        raise ReducerError(f"{where}: the default does not fit", got=default, expected=annotation.__name__)
    return Scalar(name, SCALARS[annotation], float(default) if annotation is float and default is not None else default)
