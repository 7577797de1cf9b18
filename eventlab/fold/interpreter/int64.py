"""Integers and `math` as interpreted handlers see them: with the range and the conversions of a compiled int64.

Python's integers never overflow, and compare and divide exactly. Compiled ones wrap around, and become a float64 beside
a float. Where Python raises and machine code gives an arbitrary number (`int(nan)`), both paths raise.
"""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

_MODULUS = 2**64
_MIN, _MAX = -(2**63), 2**63 - 1

Operator: TypeAlias = Callable[[Any, Any], Any]


class Int64:
    """An int64. No subclass of `int`, because `float.__lt__` compares those exactly."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value if _MIN <= value <= _MAX else (value - _MIN) % _MODULUS + _MIN

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return self.value != 0

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __neg__(self) -> Int64:
        return Int64(-self.value)

    def __pos__(self) -> Int64:
        return self

    def __abs__(self) -> Int64:
        return Int64(abs(self.value))


def _floor_divide(a: Any, b: Any) -> Any:
    if isinstance(a, int) and b == -1 and a == _MIN:
        return 0  # the only quotient that overflows; Numba gives 0
    return a // b


def _divide(a: float, b: float) -> float:
    return float(a) / float(b)


def _methods(operate: Operator, made: Callable[[Any], Any]) -> tuple[Operator, Operator]:
    """Methods for an operation that gives a float beside a float; `made` turns its result for two integers."""

    def forward(self: Int64, other: Any) -> Any:
        if isinstance(other, Int64):
            return made(operate(self.value, other.value))
        if isinstance(other, int):
            return made(operate(self.value, other))
        return operate(float(self.value), other) if isinstance(other, float) else NotImplemented

    def reflected(self: Int64, other: Any) -> Any:
        if isinstance(other, int):
            return made(operate(int(other), self.value))
        return operate(other, float(self.value)) if isinstance(other, float) else NotImplemented

    return forward, reflected


def _comparison(compare: Operator) -> Operator:
    def method(self: Int64, other: Any) -> Any:
        if isinstance(other, Int64):
            return compare(self.value, other.value)
        if isinstance(other, float):
            return compare(float(self.value), other)
        return compare(self.value, other) if isinstance(other, int) else NotImplemented

    return method


for _name, _operate in (
    ("add", operator.add),
    ("sub", operator.sub),
    ("mul", operator.mul),
    ("mod", operator.mod),
    ("and", operator.and_),
    ("or", operator.or_),
    ("xor", operator.xor),
    ("floordiv", _floor_divide),
    ("truediv", _divide),
):
    _forward, _reflected = _methods(_operate, float if _name == "truediv" else Int64)
    setattr(Int64, f"__{_name}__", _forward)
    setattr(Int64, f"__r{_name}__", _reflected)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Int64, f"__{_name}__", _comparison(getattr(operator, _name)))


def to_int64(value: Any) -> Int64:
    """`int(value)`; OverflowError or ValueError for a float that no int64 holds."""
    if isinstance(value, Int64):
        return value
    if isinstance(value, int):
        return Int64(int(value))
    if not isinstance(value, float):
        raise TypeError(f"int() takes numbers, not {value!r}")
    return _checked(int(value))


def _checked(value: int) -> Int64:
    if not _MIN <= value <= _MAX:
        raise OverflowError("the number lies outside int64")
    return Int64(value)


def to_float(value: Any) -> float:
    """`float(value)` of a number."""
    if isinstance(value, Int64 | int | float):
        return float(value)
    raise TypeError(f"float() takes numbers, not {value!r}; for NaN write math.nan")


def _rounded(rounding: Callable[[float], int]) -> Callable[[Any], Int64]:
    return lambda value: value if isinstance(value, Int64) else _checked(rounding(value))


def _copysign(x: Any, y: Any) -> float:
    return math.fabs(x) if math.isnan(y) else math.copysign(x, y)  # a NaN's sign is arbitrary


def _log(x: Any) -> float:
    return math.log(x)  # of one argument, as compiled


def python_math(names: tuple[str, ...]) -> types.ModuleType:
    """`math` with these names, rounding to int64."""
    module = types.ModuleType("math")
    for name in names:
        setattr(module, name, getattr(math, name))
    for name in ("floor", "ceil", "trunc"):
        setattr(module, name, _rounded(getattr(math, name)))
    module.copysign = _copysign  # type: ignore[attr-defined]
    module.log = _log  # type: ignore[attr-defined]
    return module


class Range:
    """`range` over int64."""

    def __init__(self, *bounds: Any) -> None:
        if len(bounds) not in (1, 2):
            raise TypeError("range() takes one or two integers in a handler")
        self._range = range(*bounds)

    def __iter__(self) -> Iterator[Int64]:
        return map(Int64, self._range)

    def __len__(self) -> int:
        return len(self._range)

    def __contains__(self, value: Any) -> bool:
        return value in self._range if not isinstance(value, Int64) else value.value in self._range


def length(sized: Any) -> Int64:
    """`len(sized)`."""
    return Int64(len(sized))
