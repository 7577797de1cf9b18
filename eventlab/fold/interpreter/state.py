"""States for handlers that run as plain Python: in a debugger, in short folds, and as proof of the compiled ones.

These are Python objects. They coerce an assigned value as a record of float64, int64, bool and text does.
"""

from __future__ import annotations

import bisect
import math
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

import pyarrow as pa

from eventlab.errors import FoldError
from eventlab.fold.declare import bytecode as lower
from eventlab.fold.declare.layout import Array, Keyed, Ladder, Layout, Queue, Scalar, ScalarKind, filled
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.interpreter.int64 import Int64, Range, length, python_math, to_float, to_int64
from eventlab.fold.interpreter.text import PlainText


def _of_two_or_three(extreme: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*values: Any) -> Any:
        if len(values) not in (2, 3) or not all(isinstance(value, Int64 | int | float) for value in values):
            raise TypeError(f"{extreme.__name__}() takes two or three numbers in a handler")
        found = extreme(*values)
        return to_float(found) if any(isinstance(value, float) for value in values) else found

    return checked


def _refused(*_: object) -> NoReturn:
    raise TypeError("a state, a row, an array or a queue is neither true nor false nor equal to another in a handler")


_REPLACED = {
    min: _of_two_or_three(min),
    max: _of_two_or_three(max),
    int: to_int64,
    float: to_float,
    len: length,
    range: Range,
    math: python_math(lower.MATH),
}


def _to_int(value: Any) -> Int64:
    if not isinstance(value, Int64 | int):
        raise TypeError(f"an int field takes whole numbers, not {value!r}; write int(...)")
    return value if isinstance(value, Int64) else Int64(int(value))


def _to_bool(value: Any) -> bool:
    if not isinstance(value, bool | Int64 | int | float):
        raise TypeError(f"a bool field takes true or false, not {value!r}")
    return bool(value)


def _to_text(value: Any) -> PlainText | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"a text field takes text, not {value!r}")
    return value if value is None or isinstance(value, PlainText) else PlainText(value)


COERCE: Mapping[str, Callable[[Any], Any]] = {
    "float": to_float,
    "int": _to_int,
    "bool": _to_bool,
    "text": _to_text,
}


class _Fields:
    """Base of states and rows: coerces an assigned value to its field's type, and refuses other attributes."""

    __slots__: tuple[str, ...] = ()
    __bool__ = __eq__ = _refused
    _coerce: Mapping[str, Callable[[Any], Any]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        coerce = self._coerce.get(name)
        if coerce is None:
            raise AttributeError(f"the state has no field {name!r} that can be assigned")
        object.__setattr__(self, name, coerce(value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


def _record_type(name: str, scalars: Sequence[Scalar], others: Sequence[str], properties: Mapping[str, Any]) -> type:
    members = {getter: property(function) for getter, function in properties.items()}
    slots = (*(scalar.name for scalar in scalars), *others)
    return type(name, (_Fields,), {"__slots__": slots, "_coerce": {s.name: COERCE[s.kind] for s in scalars}, **members})


class _NumberArray:
    """An array field."""

    __slots__ = ("_coerce", "_values")
    __bool__ = __eq__ = _refused

    def __init__(self, kind: ScalarKind, values: list[Any]) -> None:
        self._coerce = COERCE[kind]
        self._values = [self._coerce(value) for value in values]

    def __getitem__(self, index: int) -> Any:
        return self._values[_check_index(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self._values[_check_index(index)] = self._coerce(value)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)


def _check_index(index: Any) -> Any:
    if isinstance(index, bool):
        raise TypeError("an array's elements are numbered by integers, not by a bool")
    return index


def _check_key(key: Any) -> str:
    if not isinstance(key, str):
        raise KeyError("missing text cannot be a key" if key is None else f"keys are text, not {key!r}")
    return key


class _RowsByKey:
    """A keyed field: rows by key, in order of first touch."""

    __slots__ = ("_changes", "_make", "_rows")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] = make
        self._rows: dict[str, Any] = {}
        self._changes = 0

    def __getitem__(self, key: str) -> Any:
        row = self._rows.get(_check_key(key))
        if row is None:
            row = self._rows[key] = self._make()
            self._changes += 1
        return row

    def __contains__(self, key: object) -> bool:
        return key is not None and _check_key(key) in self._rows

    def __delitem__(self, key: str) -> None:
        del self._rows[_check_key(key)]
        self._changes += 1

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        before = self._changes
        for key in tuple(self._rows):
            yield key
            if self._changes != before:  # a dict only notices that its size changed
                raise RuntimeError("keys were added or deleted while iterating")


class _RowQueues:
    """A queue field: first-in-first-out rows by key. A key without rows is forgotten."""

    __slots__ = ("_make", "_rows")
    __bool__ = __eq__ = _refused

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._rows: dict[str, deque[Any]] = {}

    def push(self, key: str) -> Any:
        row = self._make()
        self._rows.setdefault(_check_key(key), deque()).append(row)
        return row

    def first(self, key: str) -> Any:
        return self._rows[_check_key(key)][0]

    def pop(self, key: str) -> None:
        rows = self._rows[_check_key(key)]
        rows.popleft()
        if not rows:
            del self._rows[key]

    def count(self, key: str) -> int:
        return 0 if key is None else len(self._rows.get(_check_key(key), ()))


class _SortedLevels:
    """A ladder field: price levels, best first. Sorted keys are prices, negated where a higher price is better."""

    __slots__ = ("_keys", "_sign", "_sizes")

    def __init__(self, side: str) -> None:
        self._sign = -1.0 if side == "bid" else 1.0
        self._keys: list[float] = []
        self._sizes: dict[float, float] = {}

    def set(self, price: float, size: float) -> None:
        price, size = to_float(price) + 0.0, to_float(size)
        if math.isnan(price):
            raise ValueError("NaN cannot be a ladder's price")
        if size == 0.0:
            if self._sizes.pop(price, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, price * self._sign)]
            return
        if price not in self._sizes:
            bisect.insort(self._keys, price * self._sign)
        self._sizes[price] = size

    def clear(self) -> None:
        self._keys.clear()
        self._sizes.clear()

    def price(self, index: int) -> float:
        return self._keys[index] * self._sign + 0.0 if 0 <= index < len(self._keys) else math.nan

    def size(self, index: int) -> float:
        return self._sizes[self.price(index)] if 0 <= index < len(self._keys) else math.nan

    @property
    def best_price(self) -> float:
        return self.price(0)

    @property
    def best_size(self) -> float:
        return self.size(0)

    def __len__(self) -> int:
        return len(self._keys)


class StateType:
    """Converts a reducer's portable rows to states, and back."""

    def __init__(self, reducer: Reducer) -> None:
        layout: Layout = reducer.layout
        self.layout = layout
        self.handlers = {name: _interpretable(handler) for name, handler in reducer.handlers.items()}
        properties = {name: _interpretable(function) for name, function in reducer.properties.items()}
        self._coerce = {
            name: COERCE["text" if kind == "str" else kind] for name, kind in reducer.property_kinds.items()
        }
        others = [field.name for field in (*layout.arrays, *layout.tables)]
        self._state = _record_type(reducer.name, layout.scalars, others, properties)
        self._rows = {
            table.name: _record_type(table.name, table.columns, (), {})
            for table in layout.tables
            if isinstance(table, Keyed)
        }

    def load(self, row: Mapping[str, Any]) -> Any:
        """A state object from a portable row."""
        state = self._state()
        for field in self.layout.record:
            if isinstance(field, Array):
                object.__setattr__(state, field.name, _NumberArray(field.scalar_kind, list(row[field.name])))
            else:
                setattr(state, field.name, row[field.name])
        for table in self.layout.tables:
            object.__setattr__(state, table.name, self._load_table(table, row[table.name]))
        return state

    def _load_table(self, table: Keyed | Ladder, rows: Sequence[Mapping[str, Any]]) -> Any:
        if isinstance(table, Ladder):
            ladder = _SortedLevels(table.side)
            for level in rows:
                ladder.set(level["price"], level["size"])
            return ladder
        names = [column.name for column in table.columns]
        loaded = (_RowQueues if isinstance(table, Queue) else _RowsByKey)(lambda: self._row(table))
        for row in rows:
            key = PlainText(row[table.key])
            made = loaded.push(key) if isinstance(loaded, _RowQueues) else loaded[key]
            for name in names:
                setattr(made, name, row[name])
        return loaded

    def _row(self, table: Keyed) -> Any:
        made = self._rows[table.name]()
        for column in table.columns:
            setattr(made, column.name, column.initial)
        return made

    def dump(self, state: Any) -> dict[str, Any]:
        """A portable row from a state object."""
        row = self.dump_record(state)
        for table in self.layout.tables:
            row[table.name] = self._dump_table(table, getattr(state, table.name))
        return row

    def dump_record(self, state: Any) -> dict[str, Any]:
        return {
            field.name: [_canonical(v) for v in getattr(state, field.name)]
            if isinstance(field, Array)
            else _canonical(getattr(state, field.name))
            for field in self.layout.record
        }

    def property_value(self, state: Any, name: str) -> Any:
        """A property of a state, as it is emitted. KeyError where the property would add a row."""
        keyed = [getattr(state, table.name) for table in self.layout.of(Keyed)]
        before = [len(table) for table in keyed]
        value = _canonical(self._coerce[name](getattr(state, name)))
        if [len(table) for table in keyed] != before:
            raise KeyError("a property cannot add a row: ask `key in table` first")
        return value

    def _dump_table(self, table: Keyed | Ladder, field: Any) -> list[dict[str, Any]]:
        if isinstance(table, Ladder):
            return [
                {"price": price, "size": _canonical(field._sizes[price])}
                for price in (key * field._sign + 0.0 for key in field._keys)
            ]
        names = [column.name for column in table.columns]
        rows = (
            [(key, row) for key, queued in field._rows.items() for row in queued]
            if isinstance(table, Queue)
            else field._rows.items()
        )
        return [
            {table.key: _canonical(key), **{name: _canonical(getattr(row, name)) for name in names}}
            for key, row in rows
        ]


def _constant(value: Any) -> Any:
    return Int64(value) if type(value) is int else PlainText(value) if isinstance(value, str) else value


def _interpretable(function: FunctionType) -> FunctionType:
    return lower.lower(function, _constant, _REPLACED, lambda helper: helper)


def _canonical(value: Any) -> Any:
    if isinstance(value, Int64):
        return value.value
    if isinstance(value, PlainText):
        return str(value)
    return math.nan if isinstance(value, float) and math.isnan(value) else value


class Event:
    """An event as an interpreted handler sees it."""

    __slots__ = ("__dict__",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an event is a fact, and its {name} cannot be assigned")

    def __repr__(self) -> str:
        return f"Event({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def python_values(column: pa.Array) -> list[Any]:
    """A column as handlers see it: text or None; numbers, with those that stand for a missing value."""
    if pa.types.is_dictionary(column.type):
        texts = [PlainText(text) for text in column.dictionary.to_pylist()]
        return [None if at is None else texts[at] for at in column.indices.to_pylist()]
    column = filled(column)
    values: list[Any] = column.to_pylist()
    return [Int64(value) for value in values] if pa.types.is_integer(column.type) else values


def property_failure(reducer: Reducer, aggregate: str, version: int, name: str, error: BaseException) -> FoldError:
    """The error for a property that raised."""
    at = f"after version {version}" if version else "before its next event"
    return FoldError(f"{reducer.name}.{name} failed on {aggregate!r} {at}{_why(error)}")


def routed_failure(
    reducer: Reducer, aggregate: str, position: int, kind: str, event: Event, error: BaseException
) -> FoldError:
    """The error for a handler that raised on an event of another aggregate."""
    return FoldError(
        f"{reducer.name} failed on {kind} at position {position}, routed to {aggregate!r}{_why(error)}",
        got=event,
        hint="Call with interpret=True to step in.",
    )


def failure(reducer: Reducer, aggregate: str, version: int, kind: str, event: Event, error: BaseException) -> FoldError:
    """The error for a handler that raised."""
    return FoldError(
        f"{reducer.name} failed on {kind} of {aggregate!r}, version {version}{_why(error)}",
        got=event,
        hint=f"States up to version {version - 1} are intact; call with interpret=True and as_of={version} to step in.",
    )


_HERE = str(Path(__file__).parent)


def _why(error: BaseException) -> str:
    """What a handler's code raised, and at which of its lines."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f": {type(error).__name__}: {error}{place}"
