"""Reads a reducer's class and its bases: fields, handlers and properties, or the reason for which it is refused."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, WrapperDescriptorType
from typing import Any, TypeAlias

from eventlab.errors import ReducerError, UnknownEventType
from eventlab.events.types import EventType, declared_types, event_type
from eventlab.fold.declare.layout import SCALARS, Array, Keyed, Ladder, Layout, Scalar

LARGEST_RECORD = 2**20
"""Bytes of a state's scalars and arrays. Kernels copy them to their stack, and every snapshot has all of them."""

RESERVED = frozenset({"version", "position", "timestamp", "digest", "to_dict", "aggregate_id", "at", "reducer"})


ANNOTATIONS = {kind: annotation for annotation, kind in SCALARS.items()}


@dataclass(frozen=True, slots=True)
class Routed:
    """A handler of other aggregates' events, and the text field that says which aggregates an event goes to."""

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

_OF_C_TYPES = (WrapperDescriptorType, MethodDescriptorType, BuiltinFunctionType)


def owners_of(cls: type[Any]) -> tuple[type[Any], ...]:
    """A class and its bases, the most basic one first: Python's method resolution order backwards, without `object`."""
    owners = cls.__mro__[-2::-1]
    for owner in owners:
        if any(isinstance(value, _OF_C_TYPES) for value in vars(owner).values()):
            raise ReducerError(f"{cls.__name__}: a base is a reducer or a plain class", got=owner.__qualname__)
    return owners


def functions_of(cls: type[Any]) -> _Functions:
    """Handlers, properties, types of the events handled, and handlers of routed events.

    A function or property of a subclass replaces that of the same name in a base, and keeps its place.
    """
    handlers: dict[str, FunctionType] = {}
    routed: dict[str, Routed] = {}
    properties: dict[str, FunctionType] = {}
    event_types: dict[str, EventType] = {}
    for name, value in _functions(cls).items():
        where = f"{cls.__name__}.{name}"
        if isinstance(value, property):
            if value.fget is None or value.fset is not None or not isinstance(value.fget, FunctionType):
                raise ReducerError(f"{where}: a property is derived; it has a getter and no setter")
            _check_name(name, where)
            properties[name] = value.fget
            continue
        declared, key = _marked(cls, name) or (_handled_by_name(name, where), None)
        if value.__code__.co_argcount != 2 or value.__code__.co_flags & _NOT_PLAIN:
            raise ReducerError(f"{where}: a handler takes (state, event)", got=str(inspect.signature(value)))
        if declared.name in handlers or declared.name in routed:
            raise ReducerError(
                f"{cls.__name__} has two handlers of {declared.name}, the second is {name}",
                hint="To replace a base's handler, give the new one the same name.",
            )
        if key is not None:
            routed[declared.name] = Routed(value, declared, _routing_key(where, declared, key))
        else:
            handlers[declared.name], event_types[declared.name] = value, declared
    return handlers, properties, event_types, routed


def _functions(cls: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for owner in owners_of(cls):
        for name, value in vars(owner).items():
            if isinstance(value, classmethod | staticmethod):
                raise ReducerError(f"{owner.__name__}.{name}: helpers are plain functions outside the class")
            if name in found and type(value) is not type(found[name]):
                what = "property" if isinstance(found[name], property) else "handler"
                raise ReducerError(f"{owner.__name__}.{name} replaces a {what} by something else", got=value)
            if isinstance(value, property | FunctionType):
                found[name] = value
    return found


def _marked(cls: type[Any], name: str) -> tuple[EventType, str | None] | None:
    """Event type and routing key that the nearest `@el.on` gives to handlers of this name."""
    for owner in cls.__mro__:
        function: Any = vars(owner).get(name)
        if hasattr(function, "__handles__"):
            return function.__handles__, function.__routed__
    return None


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
    """Refuse routed events that could never arrive: an aggregate's own events name the keys that it holds."""
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
    """The fields of a state, from annotations, defaults and table declarations, those of bases first."""
    fields: dict[str, Scalar | Array | Keyed | Ladder] = {}
    for owner in owners_of(cls):
        for name, field in _fields_of(owner, fields):
            before = fields.get(name)
            if before is not None and not _is_same_kind(before, field):
                raise ReducerError(
                    f"{owner.__name__}.{name}: a base declares this field as another kind, and its handlers rely on it",
                    got=_written(field),
                    expected=_written(before),
                    hint="A redefined field may have another initial value, length or more columns; else rename it.",
                )
            fields[name] = field
    record = tuple(field for field in fields.values() if isinstance(field, Scalar | Array))
    made = Layout(record, tuple(field for field in fields.values() if isinstance(field, Keyed | Ladder)))
    if made.dtype.itemsize > LARGEST_RECORD:
        raise ReducerError(
            f"{cls.__name__}: a state's fields take {LARGEST_RECORD:,} bytes an aggregate at most, tables not counted",
            got=f"{made.dtype.itemsize:,} bytes",
            hint="Shorten its el.Array fields, or keep what grows in an el.Keyed or el.Queue.",
        )
    return made


def _fields_of(
    owner: type[Any], inherited: Mapping[str, Scalar | Array | Keyed | Ladder]
) -> Iterator[tuple[str, Scalar | Array | Keyed | Ladder]]:
    """Fields that a class itself declares, or gives another initial value."""
    try:
        hints = inspect.get_annotations(owner, eval_str=True)
    except Exception as error:
        raise ReducerError(f"{owner.__name__}: an annotation cannot be read: {error}") from error
    values = {name: value for name, value in vars(owner).items() if not isinstance(value, property | FunctionType)}
    specs = [name for name, value in values.items() if isinstance(value, Array | Keyed | Ladder)]
    for name in dict.fromkeys((*hints, *specs, *(name for name in values if name in inherited))):
        where, before = f"{owner.__name__}.{name}", inherited.get(name)
        _check_name(name, where)
        declared = values[name] if name in specs else hints.get(name)
        if declared is None and isinstance(before, Scalar):
            declared = ANNOTATIONS[before.kind]
        if isinstance(declared, Array | Keyed | Ladder):
            field = copy.copy(declared)  # one declaration may be used for several fields
            object.__setattr__(field, "name", name)
            yield name, field
        elif isinstance(declared, type) and declared in SCALARS:
            default = before.default if isinstance(before, Scalar) else None
            yield name, scalar_of(where, name, declared, values.get(name, default))
        else:
            raise ReducerError(
                f"{where}: unsupported type",
                got=declared,
                expected="float, int, bool, str, el.Array, el.Keyed, el.Ladder or el.Queue",
            )


def _is_same_kind(before: Any, field: Any) -> bool:
    """Whether handlers written for one field work on the other."""
    if type(before) is not type(field):
        return False
    if isinstance(before, Keyed):
        return before.key == field.key and set(before.columns) <= set(field.columns)
    if isinstance(before, Ladder):
        return bool(before.side == field.side)
    return bool(before.dtype[1] == field.dtype[1])


def _written(field: Scalar | Array | Keyed | Ladder) -> str:
    if isinstance(field, Scalar):
        return str(ANNOTATIONS[field.kind].__name__)
    if isinstance(field, Array):
        return f"el.Array({field.scalar_kind}, {field.length})"
    if isinstance(field, Ladder):
        return f"el.Ladder({field.side!r})"
    columns = (f"{column.name}={_written(column)}" for column in field.columns)
    return f"el.{type(field).__name__}({', '.join((repr(field.key), *columns))})"


def scalar_of(where: str, name: str, annotation: type, default: Any) -> Scalar:
    """A field with its initial value. ReducerError where the value does not fit."""
    fits = {
        float: isinstance(default, int | float) and not isinstance(default, bool),
        int: isinstance(default, int) and not isinstance(default, bool) and -(2**63) <= default < 2**63,
        bool: isinstance(default, bool),
        str: isinstance(default, str),
    }
    if default is not None and not fits[annotation]:
        raise ReducerError(f"{where}: the default does not fit", got=default, expected=annotation.__name__)
    return Scalar(name, SCALARS[annotation], float(default) if annotation is float and default is not None else default)
