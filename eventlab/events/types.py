"""Event types: classes declare typed fields with nullability and bounds.

An event class is a frozen dataclass. Its :class:`EventType` says how each field is stored, checked and shown. The rest
of eventlab works with the `EventType`; the class is for users who append a few events by hand.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import inspect
import json
import keyword
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, dataclass_transform, overload

import polars as pl
import pyarrow as pa

from eventlab.errors import InvalidEvent, SchemaMismatch, UnknownEventType
from eventlab.events.arguments import checked_int

Symbol = NewType("Symbol", str)
"""Annotation of a field that names an instrument. Stored as dictionary-encoded text; never empty."""

Kind = Literal["float", "int", "bool", "string", "symbol", "enum", "time"]

NULL_INT = -(2**63)
"""A null integer or time inside a fold. As a value it is refused, so the two are never confused."""

ENVELOPE = ("position", "aggregate_id", "version", "timestamp", "cause", "event_id", "metadata", "recorded_at")
"""Columns of every event besides its payload; no payload field may have one of these names."""

RESERVED = frozenset({*ENVELOPE, "event_type", "schema_version", "at"})


class _Required(enum.Enum):
    REQUIRED = "required"


REQUIRED = _Required.REQUIRED
"""Marks a field without a default."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Inclusive bounds of a number. Attach them to a field with ``Annotated[float, Limits(minimum=0)]``."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One payload field: its kind and the values it allows. Floats are finite; a missing value is null."""

    name: str
    kind: Kind
    nullable: bool = False
    limits: Limits = Limits()
    vocabulary: tuple[str, ...] = ()
    default: Any = REQUIRED

    @property
    def is_text(self) -> bool:
        return self.kind in ("string", "symbol", "enum")

    @property
    def arrow_type(self) -> pa.DataType:
        """Canonical storage type. Text is dictionary-encoded with int32 codes; codes of an enum follow its words."""
        return _KINDS[self.kind][1]

    @property
    def polars_type(self) -> pl.DataType:
        """Type in frames handed to users."""
        return pl.Enum(list(self.vocabulary)) if self.kind == "enum" else _KINDS[self.kind][2]

    def to_json(self) -> dict[str, Any]:
        """The field in the store's registry: everything that later reads depend on."""
        return {
            "name": self.name, "kind": self.kind, "nullable": self.nullable, "minimum": self.limits.minimum,
            "maximum": self.limits.maximum, "vocabulary": list(self.vocabulary),
            "default": None if self.default is REQUIRED else self.default, "required": self.default is REQUIRED,
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Field:
        return Field(
            data["name"], data["kind"], data["nullable"], Limits(data["minimum"], data["maximum"]),
            tuple(data["vocabulary"]), REQUIRED if data["required"] else data["default"],
        )  # fmt: skip


_TEXT = pa.dictionary(pa.int32(), pa.string())
_KINDS: dict[Kind, tuple[Any, pa.DataType, pl.DataType]] = {
    "float": (float, pa.float64(), pl.Float64()),
    "int": (int, pa.int64(), pl.Int64()),
    "bool": (bool, pa.bool_(), pl.Boolean()),
    "string": (str, _TEXT, pl.String()),
    "symbol": (Symbol, _TEXT, pl.String()),
    "enum": (Literal, _TEXT, pl.Enum([])),
    "time": (dt.datetime, pa.timestamp("ns", tz="UTC"), pl.Datetime("ns", "UTC")),
}
"""By kind: the annotation, the storage type, and the type in frames, where an enum also has its words."""


@dataclass(frozen=True, slots=True, eq=False)
class EventType:
    """A named list of fields with a schema version. Two are equal if data of one can be read as the other."""

    name: str
    fields: tuple[Field, ...]
    schema_version: int
    cls: type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventType) and self.schema_json() == other.schema_json()

    def __hash__(self) -> int:
        return hash((self.name, self.schema_version))

    def __repr__(self) -> str:
        return f"EventType({self.name!r}, schema_version={self.schema_version})"

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def field(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise InvalidEvent(
            f"{self.name} has no field {name!r}", expected=", ".join(field.name for field in self.fields)
        )

    @property
    def arrow_schema(self) -> pa.Schema:
        """Payload columns in canonical storage types."""
        return _arrow_schema(self)

    @property
    def polars_schema(self) -> dict[str, pl.DataType]:
        """Payload columns in the types handed to users."""
        return {f.name: f.polars_type for f in self.fields}

    def schema_json(self) -> str:
        """Canonical JSON of the schema, as in the store's registry."""
        fields = [field.to_json() for field in self.fields]
        content = {"name": self.name, "schema_version": self.schema_version, "fields": fields}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_schema_json(text: str) -> EventType:
        """An event type from a store's registry, with a generated class. No code is evaluated."""
        try:
            data = json.loads(text)
            fields = tuple(Field.from_json(field) for field in data["fields"])
            for name in (data["name"], *(field.name for field in fields)):
                _check_name(name)
            known = all(field.kind in _KINDS for field in fields)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidEvent("not the schema of an event type", got=text) from error
        if not known:
            raise InvalidEvent("not the schema of an event type", got=text, expected=f"kinds {', '.join(_KINDS)}")
        # kw_only: dataclasses want defaults last, and stored fields may be in any order.
        specs: list[Any] = [(f.name, Any) if f.default is REQUIRED else (f.name, Any, f.default) for f in fields]
        class_name = "".join(part.capitalize() for part in data["name"].split("_"))
        cls = dataclasses.make_dataclass(class_name, specs, frozen=True, slots=True, kw_only=True)
        declared = EventType(data["name"], fields, data["schema_version"], cls)
        cls.__event_type__ = declared  # type: ignore[attr-defined]
        return declared


@lru_cache(maxsize=256)
def _arrow_schema(declared: EventType) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.arrow_type, f.nullable) for f in declared.fields])


_NAME = re.compile(r"[a-z][a-z0-9_]*")
_registry: dict[str, EventType] = {}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidEvent(
            "not a usable name for an event type or field", got=name, expected="lower_snake_case, not a keyword"
        )


T = TypeVar("T")


@overload
def event(cls: type[T], /) -> type[T]: ...
@overload
def event(*, schema_version: int = 1) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def event(cls: type[Any] | None = None, /, *, schema_version: int = 1) -> Any:
    """Declare an event type.

    Parameters
    ----------
    cls : type
        A class whose annotations are the fields: ``el.Symbol``, ``float``, ``int``, ``bool``, ``str``,
        ``datetime.datetime``, or ``Literal["a", "b"]`` for a closed vocabulary; ``| None`` makes a field nullable;
        ``Annotated[float, el.Limits(minimum=0)]`` bounds it. The type's name is the class's in snake_case.
    schema_version : int
        Increase it when the fields change, and convert older events with ``@el.upcast``. A new field with a default
        needs no upcaster.

    Returns
    -------
    type
        A frozen dataclass, with the :class:`EventType` as ``__event_type__``.

    Raises
    ------
    InvalidEvent
        A field with a reserved name, an unsupported annotation or a bad default.
    SchemaMismatch
        The name is that of a built-in event type.

    Examples
    --------
    >>> import eventlab as el
    >>> @el.event
    ... class Liquidation:
    ...     symbol: el.Symbol
    ...     price: float
    >>> Liquidation("BTCUSDT", 61_000.0)
    Liquidation(symbol='BTCUSDT', price=61000.0)
    """
    frame = inspect.currentframe()
    around = {} if frame is None or frame.f_back is None else {**frame.f_back.f_globals, **frame.f_back.f_locals}
    if cls is None:
        return lambda decorated: _declare(decorated, schema_version, around)
    return _declare(cls, schema_version, around)


def _declare(cls: type[Any], schema_version: int, around: dict[str, Any]) -> type[Any]:
    schema_version = checked_int("schema_version", schema_version, 1, error=InvalidEvent)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    _check_name(name)
    known = _registry.get(name)
    if known is not None and known.cls.__module__ == "eventlab.events.builtin" != cls.__module__:
        raise SchemaMismatch(f"{name!r} is a built-in event type", hint="Choose another class name.")
    hints = _hints_of(cls, around)
    if not hints:
        raise InvalidEvent(f"{cls.__name__} has no fields", hint="Annotate at least one, e.g. price: float.")
    try:
        made = dataclass(frozen=True, slots=True)(cls)
    except (TypeError, ValueError) as error:  # a field without default after one with, a mutable default
        raise InvalidEvent(f"{cls.__name__} cannot be declared: {error}") from error
    fields = tuple(_field_of(cls, field, hints[field.name]) for field in dataclasses.fields(made))
    declared = EventType(name, fields, schema_version, made)
    made.__event_type__ = declared
    _registry[name] = declared
    return made


def _hints_of(cls: type, around: dict[str, Any]) -> dict[str, Any]:
    try:  # a string annotation may use names that are local to the class or the function around it
        return typing.get_type_hints(cls, localns={**vars(cls), **around}, include_extras=True)
    except NameError as error:
        raise InvalidEvent(
            f"{cls.__name__} has an annotation that cannot be read: {error}", hint="Import or define the name first."
        ) from error


def _field_of(cls: type, spec: dataclasses.Field[Any], hint: Any) -> Field:
    name = spec.name
    _check_name(name)
    if name in RESERVED:
        raise InvalidEvent(f"{cls.__name__}.{name}: the name is reserved for the envelope", hint="Choose another name.")
    limits, nullable = Limits(), False
    vocabulary: tuple[Any, ...] = ()
    annotation = hint
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation, *extras = typing.get_args(annotation)
            limits = next((extra for extra in extras if isinstance(extra, Limits)), limits)
        elif origin in (Union, types.UnionType):
            arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
            nullable = len(arms) < len(typing.get_args(annotation))
            if len(arms) != 1:
                break
            annotation = arms[0]
        else:
            break
    if typing.get_origin(annotation) is Literal:
        vocabulary = typing.get_args(annotation)
        kind: Kind | None = "enum" if all(isinstance(word, str) for word in vocabulary) else None
    else:
        kind = next((kind for kind, (plain, *_) in _KINDS.items() if plain is annotation is not Literal), None)
    if kind is None:
        raise InvalidEvent(
            f"{cls.__name__}.{name}: unsupported annotation",
            got=hint,
            expected="el.Symbol, float, int, bool, str, datetime or Literal[...], each optionally | None",
        )
    default = REQUIRED if spec.default is dataclasses.MISSING else spec.default
    field = Field(name, kind, nullable, limits, vocabulary, default)
    if spec.default_factory is not dataclasses.MISSING or not _is_default(field):
        raise InvalidEvent(
            f"{cls.__name__}.{name}: invalid default",
            got=None if spec.default is dataclasses.MISSING else repr(default),
            expected=f"{kind}{' or None' if nullable else ''}",
        )
    return field


def _is_default(field: Field) -> bool:
    default, low, high = field.default, field.limits.minimum, field.limits.maximum
    if default is REQUIRED:
        return True
    if default is None:
        return field.nullable
    if field.kind == "bool":
        return isinstance(default, bool)
    if field.kind in ("int", "float"):
        fits = type(default) is int or (type(default) is float and field.kind == "float" and math.isfinite(default))
        in_range = field.kind == "float" or NULL_INT < default < 2**63
        return fits and in_range and (low is None or default >= low) and (high is None or default <= high)
    if field.kind == "enum":
        return default in field.vocabulary
    return isinstance(default, str) and field.kind != "time" and (field.kind == "string" or default != "")


def event_type(of: str | type | object) -> EventType:
    """The event type of a class, an event, or a name declared in this process.

    Raises
    ------
    UnknownEventType
        No ``@el.event`` of that name.
    """
    if isinstance(of, EventType):
        return of
    if isinstance(of, str):
        if of in _registry:
            return _registry[of]
    else:
        declared = getattr(of, "__event_type__", None)
        if isinstance(declared, EventType):
            return declared
    raise UnknownEventType(
        "unknown event type",
        got=of,
        expected=", ".join(sorted(_registry)),
        hint="Declare it with @el.event before use.",
    )


def prefer_declared(found: EventType) -> EventType:
    """The type declared in this process that equals `found`, so that users get its class; else `found`.

    Raises
    ------
    SchemaMismatch
        This process declares that version with other fields.
    """
    declared = _registry.get(found.name)
    if declared is None or declared.schema_version != found.schema_version:
        return found
    if declared != found:
        raise SchemaMismatch(
            f"{found.name!r} version {found.schema_version} has other fields than the declared type",
            got=found.schema_json(),
            expected=declared.schema_json(),
            hint="Increase schema_version when the fields change.",
        )
    return declared


def declared_types() -> tuple[EventType, ...]:
    """All event types declared in this process, sorted by name."""
    return tuple(_registry[name] for name in sorted(_registry))
