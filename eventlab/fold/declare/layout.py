"""The fields of a reducer's state, and the columns that they become.

A state is a record of scalars and fixed arrays, plus tables: rows by key (`Keyed`), price levels (`Ladder`) and
first-in-first-out rows by key (`Queue`). Outside a fold a state is *portable*: one row of an Arrow batch, in which
tables are lists of structs with their keys and prices. The codes, slots and ranks of a kernel never leave the fold.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from eventlab.errors import ReducerError
from eventlab.events.types import NULL_INT

ScalarKind = Literal["float", "int", "bool", "text"]

SCALARS: dict[Any, ScalarKind] = {float: "float", int: "int", bool: "bool", str: "text"}
_DTYPE: dict[ScalarKind, str] = {"float": "f8", "int": "i8", "bool": "?", "text": "i4"}
MISSING = {pa.float64(): math.nan, pa.int64(): NULL_INT, pa.bool_(): False}
"""The value that a handler sees where a field of this type is null. Missing text is None."""

_ARROW: dict[ScalarKind, pa.DataType] = {
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
    "text": pa.string(),
}


def filled(column: pa.Array) -> pa.Array:
    """A column of numbers, bools or times as handlers see it: times as int64, nulls as the values for missing ones."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return column.fill_null(MISSING[column.type]) if column.null_count else column


def is_null(value: Any) -> bool:
    """Whether an event's field is missing.

    Inside handlers a missing number reads as NaN, a missing integer or time as -2**63, missing text as None. A missing
    bool reads as False and cannot be told from it. Works alike in compiled and interpreted folds.

    Examples
    --------
    >>> is_null(None), is_null(0.0), is_null(float("nan"))
    (True, False, True)
    """
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return not isinstance(value, bool | str) and bool(value == NULL_INT)


def _columns_of(where: str, columns: Mapping[str, Any]) -> tuple[Scalar, ...]:
    if not columns:
        raise ReducerError(f"{where} needs at least one column", hint='E.g. el.Keyed("symbol", quantity=float).')
    for name, kind in columns.items():
        if name.startswith("_"):
            raise ReducerError(f"{where}: a column name may not begin with an underscore", got=name)
        if kind not in SCALARS:
            raise ReducerError(f"{where}.{name}: unsupported type", got=kind, expected="float, int, bool or str")
    return tuple(Scalar(name, SCALARS[kind]) for name, kind in columns.items())


@dataclass(frozen=True, slots=True)
class Scalar:
    """A float64, int64, bool or text field."""

    name: str
    kind: ScalarKind
    default: Any = None

    @property
    def initial(self) -> Any:
        if self.default is not None:
            return self.default
        return {"float": 0.0, "int": 0, "bool": False, "text": ""}[self.kind]

    @property
    def dtype(self) -> tuple[str, str]:
        return self.name, _DTYPE[self.kind]

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, _ARROW[self.kind], nullable=self.kind == "text")


@dataclass(frozen=True)
class Array:
    """A state field of `length` numbers, all zero at first.

    Examples
    --------
    >>> Array(float, 8).length
    8
    """

    kind: Any
    length: int
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (float, int, "float", "int"):
            raise ReducerError("an Array holds float or int", got=self.kind)
        if not isinstance(self.length, int) or isinstance(self.length, bool) or self.length < 1:
            raise ReducerError("an Array's length must be a positive integer", got=self.length)

    if TYPE_CHECKING:  # the field as handlers use it

        def __getitem__(self, index: int) -> Any: ...

        def __setitem__(self, index: int, value: float) -> None: ...

        def __len__(self) -> int: ...

    @property
    def scalar_kind(self) -> ScalarKind:
        return "float" if self.kind in (float, "float") else "int"

    @property
    def dtype(self) -> tuple[str, str, tuple[int]]:
        return self.name, _DTYPE[self.scalar_kind], (self.length,)

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, pa.list_(_ARROW[self.scalar_kind], self.length), nullable=False)


class Keyed:
    """A table with one row a key, in order of first touch.

    ``state.positions[event.symbol]`` gives the key's row and makes a zero row at first touch; ``key in table``,
    ``len(table)``, ``del table[key]`` and iteration over the keys work as on a dict. Do not add or delete keys
    while iterating.

    Parameters
    ----------
    key : str
        Name of the key column in frames. Keys are text.
    **columns : type
        ``float``, ``int``, ``bool`` or ``str`` by column name.

    Examples
    --------
    >>> Keyed("symbol", quantity=float, cost=float).key
    'symbol'
    """

    if TYPE_CHECKING:  # the field as handlers use it

        def __getitem__(self, key: str) -> Any: ...

        def __delitem__(self, key: str) -> None: ...

        def __contains__(self, key: object) -> bool: ...

        def __len__(self) -> int: ...

        def __iter__(self) -> Iterator[str]: ...

    def __init__(self, key: str, /, **columns: Any) -> None:
        if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
            raise ReducerError(f"{type(self).__name__}: the key's name is a plain name, as of a column", got=key)
        self.key, self.name = key, ""
        self.columns = _columns_of(type(self).__name__, columns)
        if key in columns:
            raise ReducerError(f"{type(self).__name__}: {key!r} is both key and column")

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """A row in a kernel: links first, then the columns."""
        return np.dtype([*self._links, *(column.dtype for column in self.columns)], align=True)

    _links: ClassVar[list[tuple[str, str]]] = [("_key", "i4"), ("_next", "i4"), ("_previous", "i4")]

    @property
    def arrow(self) -> pa.Field:
        row = pa.struct([pa.field(self.key, pa.string(), False), *(column.arrow for column in self.columns)])
        return pa.field(self.name, pa.list_(pa.field("item", row, False)), nullable=False)


class Queue(Keyed):
    """First-in-first-out rows by key, e.g. the open lots of each symbol.

    ``state.lots.push(key)`` appends a zero row and gives it, ``.first(key)`` is the key's oldest row, ``.pop(key)``
    drops that one, ``.count(key)`` says how many there are. A row may be changed in place. Space is planned for two
    pushes an event; more are folded too, but slowly.
    """

    if TYPE_CHECKING:  # the field as handlers use it

        def push(self, key: str) -> Any: ...

        def first(self, key: str) -> Any: ...

        def pop(self, key: str) -> None: ...

        def count(self, key: str) -> int: ...

    _links: ClassVar[list[tuple[str, str]]] = [("_next", "i4")]


class Ladder:
    """The price levels of one side of a book, best first.

    ``.set(price, size)`` writes a level and size 0 deletes it; ``.best_price``, ``.best_size`` are NaN where the side
    is empty; ``.price(i)``, ``.size(i)`` give the i-th best level, NaN past the last; ``len()``, ``.clear()``. Prices
    that a ``price`` field of a handled event has are ranked before the fold runs; others are folded too, but slowly.

    Parameters
    ----------
    side : {"bid", "ask"}
        Bids rank from the highest price, asks from the lowest.
    """

    if TYPE_CHECKING:  # the field as handlers use it
        best_price: float
        best_size: float

        def set(self, price: float, size: float) -> None: ...

        def clear(self) -> None: ...

        def price(self, index: int) -> float: ...

        def size(self, index: int) -> float: ...

        def __len__(self) -> int: ...

    def __init__(self, side: Literal["bid", "ask"], /) -> None:
        if side not in ("bid", "ask"):
            raise ReducerError("a Ladder's side is 'bid' or 'ask'", got=side)
        self.side, self.name = side, ""

    @property
    def arrow(self) -> pa.Field:
        row = pa.struct([pa.field("price", pa.float64(), False), pa.field("size", pa.float64(), False)])
        return pa.field(self.name, pa.list_(pa.field("item", row, False)), nullable=False)


Table: TypeAlias = "Keyed | Queue | Ladder"


@dataclass(frozen=True)
class Layout:
    """The fields of a state, in declaration order: a record of scalars and arrays, then tables."""

    record: tuple[Scalar | Array, ...]
    tables: tuple[Table, ...]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The record as a kernel holds it; text is an int32 code."""
        fields: list[Any] = [field.dtype for field in self.record]
        return np.dtype(fields or [("_empty", "i1")], align=True)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The portable form: one row a state."""
        return pa.schema([field.arrow for field in (*self.record, *self.tables)])

    @cached_property
    def scalars(self) -> tuple[Scalar, ...]:
        return tuple(field for field in self.record if isinstance(field, Scalar))

    @property
    def arrays(self) -> tuple[Array, ...]:
        return tuple(field for field in self.record if isinstance(field, Array))

    def of(self, kind: type[Any]) -> list[Any]:
        """Tables of exactly this kind."""
        return [table for table in self.tables if type(table) is kind]

    def initial(self, count: int) -> pa.RecordBatch:
        """`count` states before any event."""
        columns: list[pa.Array] = []
        for field in self.record:
            if isinstance(field, Scalar):
                columns.append(pa.repeat(pa.scalar(field.initial, field.arrow.type), count))
            else:
                zeros = np.zeros(count * field.length, _DTYPE[field.scalar_kind])
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(zeros), type=field.arrow.type))
        for table in self.tables:
            empty = pa.array([], table.arrow.type.value_type)
            columns.append(
                pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), empty, type=table.arrow.type)
            )
        return pa.RecordBatch.from_arrays(columns, schema=self.arrow_schema)

    def describe(self, *, initial: bool = True) -> str:
        """Canonical text of the layout, for fingerprints, with the initial values or without."""
        values = {f.name: f.initial for f in self.scalars} if initial else {}
        fields = [f"{f.name}:{f.arrow.type}={values.get(f.name, 0)!r}" for f in self.record]
        kinds = [f"{t.name}:{type(t).__name__}:{getattr(t, 'side', '')}:{t.arrow.type}" for t in self.tables]
        return "|".join([*fields, *kinds])


def digest(batch: pa.RecordBatch, row: int) -> str:
    """SHA-256 (hex) of one state's content: field names and values, tables in their order. NaNs are one NaN."""
    sha = hashlib.sha256(b"eventlab-state-1\0")
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        sha.update(name.encode() + b"\0")
        _update(sha, column[row].as_py())
    return sha.hexdigest()


def _update(sha: hashlib._Hash, value: Any) -> None:
    if isinstance(value, float):
        sha.update(b"f" + (struct.pack("<d", value) if value == value else struct.pack("<d", math.nan)))  # noqa: PLR0124
    elif isinstance(value, bool) or value is None:
        sha.update(f"{value!r}\0".encode())
    elif isinstance(value, int):
        sha.update(b"i" + struct.pack("<q", value))
    elif isinstance(value, str):
        text = value.encode()
        sha.update(b"s" + struct.pack("<q", len(text)) + text)
    else:
        items = value.values() if isinstance(value, dict) else value
        sha.update((b"d" if isinstance(value, dict) else b"l") + struct.pack("<q", len(items)))
        for item in items:
            _update(sha, item)
