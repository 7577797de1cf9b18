"""The fast path of small appends: a few events as plain Python values, without Arrow.

It takes only values that need no conversion. Everything else goes to `events.columns`, which converts or refuses it.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from eventlab.errors import AsOfError
from eventlab.events.clock import to_ns
from eventlab.events.types import NULL_INT, EventType, Field

MOST_ROWS = 32
"""Above it Arrow is quicker."""

Row = tuple[Any, ...]
"""One value a field: float, int (also times, in ns, and codes of an enum), bool, UTF-8 bytes; None for null."""

_MOST = sys.float_info.max
_EXACT = 2**53


class _NotPlainError(Exception):
    pass


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Checked events of one type, equal to the columns that `events.columns.payload_from_objects` gives."""

    type: EventType
    values: Sequence[Row]

    @property
    def num_rows(self) -> int:
        return len(self.values)

    def to_batch(self) -> pa.RecordBatch:
        """The events as columns in canonical types."""
        arrays = [array_of(field, [row[index] for row in self.values]) for index, field in enumerate(self.type)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.type.arrow_schema)


def array_of(field: Field, values: Sequence[Any]) -> pa.Array:
    """A column in canonical type from plain values of one field."""
    if field.kind == "enum":
        codes = pa.array(values, pa.int32())
        return pa.DictionaryArray.from_arrays(codes, pa.array(field.vocabulary, pa.string()))
    if field.is_text:
        return pa.array(values, pa.binary()).view(pa.string()).dictionary_encode()
    if field.kind == "time":
        return pa.array(values, pa.int64()).view(field.arrow_type)
    return pa.array(values, field.arrow_type)


def rows_of(declared: EventType, events: Sequence[Any]) -> Rows | None:
    """Events of one type as rows; None if a value needs conversion or is invalid."""
    get, checks = _accessors(declared)
    try:
        rows = [tuple([check(value) for check, value in zip(checks, get(item), strict=True)]) for item in events]
    except (_NotPlainError, UnicodeEncodeError, AsOfError):
        return None
    return Rows(declared, rows)


@lru_cache(maxsize=256)
def _accessors(declared: EventType) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Callable[[Any], Any], ...]]:
    """A function from an event to its values, and a check for each value."""
    names = [field.name for field in declared]
    get = operator.attrgetter(*names)
    single: Callable[[Any], tuple[Any, ...]] = lambda item: (get(item),)  # noqa: E731  attrgetter of one name returns no tuple
    return (get if len(names) > 1 else single), tuple(_check_of(field) for field in declared)


def _check_of(field: Field) -> Callable[[Any], Any]:
    check = _CHECKS[field.kind](field)
    if not field.nullable:
        return check
    return lambda value: None if value is None else check(value)


def _float(field: Field) -> Callable[[Any], float]:
    low = -_MOST if field.limits.minimum is None else field.limits.minimum
    high = _MOST if field.limits.maximum is None else field.limits.maximum

    def check(value: Any) -> float:
        if type(value) is int and -_EXACT <= value <= _EXACT:
            value = float(value)
        if type(value) is float and low <= value <= high:
            return value
        raise _NotPlainError

    return check


def _int(field: Field) -> Callable[[Any], int]:
    low = NULL_INT + 1 if field.limits.minimum is None else max(math.ceil(field.limits.minimum), NULL_INT + 1)
    high = 2**63 - 1 if field.limits.maximum is None else min(math.floor(field.limits.maximum), 2**63 - 1)

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise _NotPlainError

    return check


def _bool(_: Field) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if type(value) is bool:
            return value
        raise _NotPlainError

    return check


def _text(field: Field) -> Callable[[Any], bytes]:
    def check(value: Any) -> bytes:
        if type(value) is str and (value or field.kind == "string"):
            return value.encode()
        raise _NotPlainError

    return check


def _enum(field: Field) -> Callable[[Any], int]:
    codes = {word: code for code, word in enumerate(field.vocabulary)}

    def check(value: Any) -> int:
        code = codes.get(value) if type(value) is str else None
        if code is None:
            raise _NotPlainError
        return code

    return check


def _time(field: Field) -> Callable[[Any], int]:
    return lambda value: to_ns(value, what=field.name)


_CHECKS: dict[str, Callable[[Field], Callable[[Any], Any]]] = {
    "float": _float,
    "int": _int,
    "bool": _bool,
    "string": _text,
    "symbol": _text,
    "enum": _enum,
    "time": _time,
}
