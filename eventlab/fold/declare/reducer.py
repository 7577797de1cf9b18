"""`@el.reducer`: a state type with one handler per event type it listens to, checked when it is declared."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, dataclass_transform
from weakref import WeakSet

import numpy as np

import eventlab.events.builtin  # noqa: F401 - so that handlers of the built-in types are known by name
from eventlab.errors import ReducerError
from eventlab.events.types import EventType, event_type
from eventlab.events.upcast import upcasters
from eventlab.fold.declare import bytecode as lower
from eventlab.fold.declare import fingerprint as fingerprints
from eventlab.fold.declare.class_body import ANNOTATIONS, Routed, check_named, functions_of, layout_of, scalar_of
from eventlab.fold.declare.layout import Keyed, Ladder, Layout

F = TypeVar("F", bound=Callable[..., None])

_declared: WeakSet[Reducer] = WeakSet()

ENVELOPE_FIELDS = ("version", "position", "timestamp")
"""Fields of every event that a handler may read, beside those of the payload."""


@dataclass(frozen=True, eq=False)
class Reducer:
    """How events become a state. Made by :func:`reducer`; pass it wherever a reducer is asked for."""

    name: str
    layout: Layout
    handlers: Mapping[str, FunctionType]
    properties: Mapping[str, FunctionType]
    event_types: Mapping[str, EventType]
    declaration: type[Any]
    """The decorated class, which a subclass finds fields and functions in."""
    routed: Mapping[str, Routed]
    """By event type name. They are not among the handlers, because they run only where a caller asks for them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.declaration.__doc__)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type[Any]]:
        """What Python takes as the base where a class inherits from a reducer."""
        return (self.declaration,)

    def __call__(self, **initial: Any) -> Reducer:
        """The same reducer with other initial values: how a parameter is set.

        A parameter is a scalar field that no handler changes. Reducers that differ in initial values alone share their
        compiled code, and ``lab.states([el.Ewma(alpha=a) for a in grid])`` folds all of them in one pass over the log.

        Raises
        ------
        ReducerError
            A name that is no scalar field, or a value that does not fit it.

        Examples
        --------
        >>> import eventlab as el
        >>> @el.reducer
        ... class Above:
        ...     limit: float = 0.0
        ...     count: int = 0
        ...
        ...     def on_market_data(state, event):
        ...         if event.price > state.limit:
        ...             state.count += 1
        >>> [scalar.initial for scalar in Above(limit=1.5).layout.scalars]
        [1.5, 0]
        """
        scalars = {scalar.name: scalar for scalar in self.layout.scalars}
        for name, value in initial.items():
            if name not in scalars:
                raise ReducerError(
                    f"{self.name} has no scalar field of this name", got=name, expected=", ".join(scalars) or "none"
                )
            plain = value.item() if isinstance(value, np.generic) else value
            if plain is None:
                raise ReducerError(f"{self.name}.{name}: no value", got=value)
            scalars[name] = scalar_of(f"{self.name}.{name}", name, ANNOTATIONS[scalars[name].kind], plain)
        record = tuple(scalars.get(field.name, field) for field in self.layout.record)
        values = {name: scalars[name].default for name in initial}
        own = {"__doc__": self.__doc__, "__module__": self.declaration.__module__}
        declaration = type(self.name, (self.declaration,), {**own, **values})
        return replace(self, layout=replace(self.layout, record=record), declaration=declaration)

    def __repr__(self) -> str:
        routed = [f"{name} by {one.key}" for name, one in self.routed.items()]
        heard = [*(name for name in self.handlers if name not in self.routed), *routed]
        return f"<reducer {self.name}: {', '.join(heard)} -> {', '.join(self.layout.arrow_schema.names)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, a reducer is the name by which another process imports it, its parameters and its fingerprint."""
        initial = {scalar.name: scalar.initial for scalar in self.layout.scalars}
        return imported, (self.declaration.__module__, self.name, initial, self.fingerprint)

    @cached_property
    def with_routed(self) -> Reducer:
        """The reducer with the routed handlers among its handlers, for a fold over own and routed events."""
        handlers = {**self.handlers, **{name: one.handler for name, one in self.routed.items()}}
        event_types = {**self.event_types, **{name: one.type for name, one in self.routed.items()}}
        return replace(self, handlers=handlers, event_types=event_types)

    @cached_property
    def takes_merged_order(self) -> bool:
        """Whether routed events are among those it handles: a fold then follows a merged order, not versions."""
        return any(name in self.routed for name in self.handlers)

    @cached_property
    def functions(self) -> list[FunctionType]:
        return [*self.handlers.values(), *self.properties.values()]

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """String constants of the handlers; a string's index is its code in every fold of this reducer."""
        defaults = (scalar.initial for scalar in self.layout.scalars if scalar.kind == "text")
        return tuple(dict.fromkeys((*lower.literals(self.functions), *defaults)))

    @cached_property
    def removes_rows(self) -> frozenset[str]:
        """Event types whose handlers may delete a table's rows."""
        return frozenset(name for name, handler in self.handlers.items() if lower.removes_rows(handler))

    @cached_property
    def pushes_rows(self) -> frozenset[str]:
        """Event types whose handlers may push onto a queue."""
        return frozenset(name for name, handler in self.handlers.items() if "push" in lower.attributes([handler]))

    @cached_property
    def priced(self) -> frozenset[str]:
        """Event types whose `price` may be a level of a ladder."""
        if not self.layout.of(Ladder):
            return frozenset()
        return frozenset(
            name
            for name, declared in self.event_types.items()
            if any(field.name == "price" and field.kind in ("float", "int") for field in declared)
        )

    @cached_property
    def _mentioned(self) -> dict[str, frozenset[str]]:
        """Attributes that each handler and its helpers name, and `price` where it may be a level of a ladder."""
        prices = dict.fromkeys(self.priced, ("price",))
        return {name: lower.attributes([f]).union(prices.get(name, ())) for name, f in self.handlers.items()}

    @cached_property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Payload columns each handler may read, by event type name, in the type's order."""
        return {
            name: tuple(field.name for field in self.event_types[name] if field.name in mentioned)
            for name, mentioned in self._mentioned.items()
        }

    @cached_property
    def event_fields(self) -> dict[str, tuple[str, ...]]:
        """Envelope and payload fields that a handler may read, by event type name: the columns of a kernel."""
        return {
            name: (*(field for field in ENVELOPE_FIELDS if field in self._mentioned[name]), *columns)
            for name, columns in self.columns.items()
        }

    @cached_property
    def code_key(self) -> str:
        """SHA-256 over all that a kernel is made from: as the fingerprint, with properties, without initial values."""
        parts = [self.name, self.layout.describe(initial=False), *map(repr, (self.literals, self.property_kinds))]
        for name, function in (*self.handlers.items(), *self.properties.items()):
            parts += [name, *fingerprints.parts(function)]
        parts += [f"{name} {self.event_types[name].schema_json()}" for name in self.handlers]
        return _digest(*parts)

    @cached_property
    def property_kinds(self) -> dict[str, str]:
        """The type that each property returns: "float" (also without annotation), "int", "bool" or "str"."""
        kinds = {}
        for name, function in self.properties.items():
            annotation = function.__annotations__.get("return", "float")
            kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
            if kind not in ("float", "int", "bool", "str"):
                raise ReducerError(f"{self.name}.{name}: a property returns float, int, bool or str", got=annotation)
            kinds[name] = kind
        return kinds

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the states.

        That is handlers, helpers, constants, layout, event schemas, and the upcasters that are declared now for older
        versions of the events.
        """
        steps = [step for declared in self.event_types.values() for step in upcasters(declared)]
        if not steps:
            return self._own_fingerprint
        described = [(f"{step.type_name} {step.from_}", fingerprints.parts(step.function)) for step in steps]
        return _digest(self._own_fingerprint, *(part for name, parts in sorted(described) for part in (name, *parts)))

    @cached_property
    def _own_fingerprint(self) -> str:
        parts = [f"eventlab-reducer-1|{sys.implementation.cache_tag}|{self.layout.describe()}"]
        for name, handler in sorted(self.handlers.items()):
            parts += [name, self.event_types[name].schema_json(), *fingerprints.parts(handler)]
            parts += [f"routed by {self.routed[name].key}"] if name in self.routed else []
        return _digest(*parts)


def _digest(*parts: str) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return sha.hexdigest()


def imported(module: str, name: str, initial: Mapping[str, Any], fingerprint: str) -> Reducer:
    """The reducer of a module, with these initial values.

    Raises
    ------
    ReducerError
        There is none, or its code is not the same.
    """
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        found = None
    if not isinstance(found, Reducer):
        raise ReducerError(
            f"{name} cannot be imported from {module}", got=found,
            hint="Another process can only fold reducers at the top level of a module that it can import.",
        )  # fmt: skip
    if {scalar.name for scalar in found.layout.scalars} == set(initial):
        found = found if found.fingerprint == fingerprint else found(**initial)
    if found.fingerprint != fingerprint:
        raise ReducerError(f"{module}.{name} has other code here", got=found.fingerprint, expected=fingerprint)
    return found


ReducerLike: TypeAlias = "Reducer | object"
"""A reducer as a caller passes it: type checkers see the decorated class, and where it is called an instance of it."""


def as_reducer(reducer: ReducerLike) -> Reducer:
    """The argument, if it is a reducer; else ReducerError."""
    if not isinstance(reducer, Reducer):
        raise ReducerError("not a reducer", got=reducer, expected="e.g. el.Portfolio, or a class under @el.reducer")
    return reducer


def on(of: type | str, *, routed: str | None = None) -> Callable[[F], F]:
    """Mark a function of a reducer's class as the handler of an event type.

    Parameters
    ----------
    of : event class or its name
    routed : str, optional
        A text field of the event type. The handler then gets events of *other* aggregates, those that a caller names
        with ``mark_with=``. Such an event goes to every aggregate whose own events have named its key before, in a
        field of the same name; own and routed events are merged by (timestamp, position). Without ``mark_with=`` the
        handler does not run.

    Examples
    --------
    >>> import eventlab as el
    >>> @el.reducer
    ... class Fills:
    ...     count: int = 0
    ...
    ...     @el.on(el.PortfolioChange)
    ...     def counted(state, event):
    ...         state.count += 1
    ...
    ...     @el.on(el.MarketData, routed="symbol")
    ...     def traded(state, event):
    ...         state.count += 1000
    >>> lab = el.open(":memory:")
    >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0))
    >>> receipt = lab.append("market/BTCUSDT", el.MarketData("BTCUSDT", 101.0, 1.0))
    >>> receipt = lab.append("market/ETHUSDT", el.MarketData("ETHUSDT", 7.0, 1.0))
    >>> lab.state(Fills, "portfolio/demo").count
    1
    >>> lab.state(Fills, "portfolio/demo", mark_with="market/*").count
    1001
    """
    declared = event_type(of)

    def mark(function: F) -> F:
        function.__handles__ = declared  # type: ignore[attr-defined]
        function.__routed__ = routed  # type: ignore[attr-defined]
        return function

    return mark


@dataclass_transform(kw_only_default=True)
def reducer(cls: type[Any]) -> Reducer:
    """Declare a reducer.

    Parameters
    ----------
    cls : type
        Annotated fields with defaults are the state: ``float``, ``int``, ``bool``, ``str``; or a field is an
        ``el.Array``, ``el.Keyed``, ``el.Ladder`` or ``el.Queue``. A function ``on_<event type>(state, event)``, or one
        marked with ``@el.on``, changes the state in place. Properties are derived and never stored. Handlers marked
        ``@el.on(..., routed="symbol")`` get events of other aggregates, where a caller asks for it. Fields and
        functions of base classes, which are reducers or plain classes, are inherited.

    Returns
    -------
    Reducer

    Raises
    ------
    ReducerError
        An unsupported field, handler, operation or name; the message has the line and what to write instead.

    Examples
    --------
    >>> import eventlab as el
    >>> @el.reducer
    ... class Vwap:
    ...     notional: float = 0.0
    ...     volume: float = 0.0
    ...
    ...     def on_market_data(state, event):
    ...         state.notional += event.price * event.volume
    ...         state.volume += event.volume
    >>> Vwap.layout.arrow_schema.names
    ['notional', 'volume']
    """
    if not inspect.isclass(cls):
        raise ReducerError("@el.reducer decorates a class", got=cls)
    handlers, properties, event_types, routed = functions_of(cls)
    if not handlers:
        raise ReducerError(
            f"{cls.__name__} handles no event{' of its own' if routed else ''}",
            hint="Add a function such as on_market_data(state, event).",
        )
    for one in routed.values():
        check_named(cls.__name__, one, event_types.values())
    layout = layout_of(cls)
    for name in properties:
        if name in layout.arrow_schema.names:
            raise ReducerError(f"{cls.__name__}.{name} is both a field and a property")
    if not layout.arrow_schema.names:
        raise ReducerError(f"{cls.__name__} has no state", hint="Annotate a field, e.g. count: int = 0.")
    made = Reducer(cls.__name__, layout, handlers, properties, event_types, cls, routed)
    for handler in made.with_routed.handlers.values():
        lower.check_handler(handler, f"{cls.__name__}.{handler.__name__}")
    fields = {scalar.name for scalar in layout.scalars}
    fields.update(column.name for table in layout.tables if isinstance(table, Keyed) for column in table.columns)
    for function in made.with_routed.functions:
        where = f"{cls.__name__}.{function.__name__}"
        lower.check(function, where)
        for name in sorted(lower.assigned(function) - fields):
            raise ReducerError(
                f"{where} writes a field that does not exist", got=name, expected=", ".join(sorted(fields))
            )
    state_names = _state_names(made)
    for name, handler in made.with_routed.handlers.items():
        names = {field.name: field.is_text for field in made.with_routed.event_types[name]}
        lower.check_names(
            handler,
            [state_names, {**dict.fromkeys(ENVELOPE_FIELDS, False), **names}],
            f"{cls.__name__}.{handler.__name__}",
        )
    for name, function in properties.items():
        lower.check_names(function, [state_names], f"{cls.__name__}.{name}")
        lower.check_reads_only(function, f"{cls.__name__}.{name}")
    made = _frozen(made)
    _declared.add(made)
    return made


def _frozen(made: Reducer) -> Reducer:
    """The reducer with functions that keep today's values of globals; a subclass declared later inherits these."""
    frozen: dict[Any, FunctionType] = {f: lower.frozen(f) for f in made.with_routed.functions}
    for name, value in list(vars(made.declaration).items()):
        if isinstance(value, property):
            setattr(made.declaration, name, property(frozen[value.fget]))
        elif isinstance(value, FunctionType):
            setattr(made.declaration, name, frozen[value])
    return replace(
        made,
        handlers={name: frozen[handler] for name, handler in made.handlers.items()},
        properties={name: frozen[function] for name, function in made.properties.items()},
        routed={name: replace(one, handler=frozen[one.handler]) for name, one in made.routed.items()},
    )


def _state_names(made: Reducer) -> dict[str, bool]:
    """Attributes of the state that handlers may read, and whether they are text."""
    names = dict.fromkeys(made.layout.arrow_schema.names, False)
    names.update({scalar.name: scalar.kind == "text" for scalar in made.layout.scalars})
    return {**names, **{name: kind == "str" for name, kind in made.property_kinds.items()}}


def declared_reducers() -> list[Reducer]:
    """Reducers declared in this process that are still in use."""
    return sorted(_declared, key=lambda made: made.name)
