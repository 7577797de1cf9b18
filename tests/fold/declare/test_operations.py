"""Every supported operation, on operands that overflow, divide by zero, are missing or have a sign to lose."""

from __future__ import annotations

import math

import pytest

import eventlab as el
from tests.fold.helpers import folded, rows

FLOATS = (0.0, -0.0, 1.0, -1.5, 3.7, -7.25, 5e-324, 1e300, 2.0**53, 9.3e18, -9.3e18, None)
INTS = (0, 1, -1, 7, -7, 2**53 + 1, 2**63 - 1, -(2**63) + 1, None)


@el.event
class Operands:
    a: float | None
    b: float | None
    i: int | None
    j: int | None
    p: bool
    q: bool


@el.reducer
class Totals:
    """Operations that never raise."""

    f0: float = 0.0
    f1: float = 0.0
    f2: float = 0.0
    f3: float = 0.0
    f4: float = 0.0
    f5: float = 0.0
    f6: float = 0.0
    f7: float = 0.0
    f8: float = 0.0
    f9: float = 0.0
    i0: int = 0
    i1: int = 0
    i2: int = 0
    i3: int = 0
    i4: int = 0
    i5: int = 0
    i6: int = 0
    i7: int = 0
    i8: int = 0
    b0: bool = False
    b1: bool = False
    b2: bool = False
    b3: bool = False
    b4: bool = False
    b5: bool = False
    b6: bool = False

    def on_operands(state, event):
        a, b, i, j, p, q = event.a, event.b, event.i, event.j, event.p, event.q
        state.f0 = a + b * a - b
        state.f1 = a * i - j
        state.f2 = min(a, b, 1.0)
        state.f3 = max(b, a)
        state.f4 = abs(a) + math.fabs(i)
        state.f5 = math.copysign(a, b)
        state.f6 = -(i + j)
        state.f7 = (a or b) + (a and b) + float(p) + float(i)
        state.f8 = min(i, a)
        state.f9 = math.nan if math.isnan(a) or math.isinf(b) else (p + q) * a
        state.i0 = i + j
        state.i1 = i * j - i
        state.i2 = -i + abs(j)
        state.i3 = (i & j) | (i ^ 5)
        state.i4 = min(i, j) if p else max(i, j, 3)
        state.i5 = p + q - (p & q) + (p | q) + (p ^ q) + -p
        state.i6 = i * j // 3
        state.i7 = i * j % 7
        state.i8 = int(p) + int(j)
        state.b0 = i > a
        state.b1 = a == i or i != b
        state.b2 = a <= i < b
        state.b3 = a
        state.b4 = not i
        state.b5 = i in (1, 7) or a in (1.0, -0.0) or j in range(3)
        state.b6 = el.is_null(a) or el.is_null(i) or el.is_null(p)


@el.reducer
class FloatDivision:
    quotient: float = 0.0
    floored: float = 0.0
    rest: float = 0.0

    def on_operands(state, event):
        state.quotient = event.a / event.b
        state.floored = event.a // event.b
        state.rest = event.a % event.b


@el.reducer
class IntDivision:
    quotient: float = 0.0
    floored: int = 0
    rest: int = 0
    mixed: float = 0.0

    def on_operands(state, event):
        state.floored = event.i // event.j
        state.rest = event.i % event.j
        state.quotient = event.i / event.j
        state.mixed = event.a % event.j + event.i // event.b


@el.reducer
class Rounding:
    floored: int = 0
    raised: int = 0
    cut: int = 0
    truncated: int = 0

    def on_operands(state, event):
        state.floored = math.floor(event.a) + math.floor(event.i)
        state.raised = math.ceil(event.a)
        state.cut = int(event.a)
        state.truncated = math.trunc(event.a) + math.trunc(event.p)


@el.reducer
class Roots:
    root: float = 0.0
    log: float = 0.0

    def on_operands(state, event):
        state.root = math.sqrt(event.a) + math.sqrt(event.i)
        state.log = math.log(event.a) + math.log10(event.a)


@el.reducer
class Exponentials:
    power: float = 0.0

    def on_operands(state, event):
        state.power = math.exp(event.a)


EVENTS = [Operands(a, FLOATS[(k * 5 + 1) % len(FLOATS)], i, INTS[(k * 2 + n) % len(INTS)], k % 2 == 0, n % 3 == 0)
          for k, a in enumerate(FLOATS) for n, i in enumerate(INTS)]  # fmt: skip


def answer(reducer, event, interpret):
    try:
        return rows(folded(reducer, [[event]], interpret=interpret).states)
    except el.errors.FoldError as error:
        return str(error)


@pytest.mark.parametrize(
    "reducer", [Totals, FloatDivision, IntDivision, Rounding, Roots, Exponentials], ids=lambda reducer: reducer.name
)
def test_an_operation_gives_the_same_bits_or_the_same_error_on_both_paths(reducer):
    answers = [(event, answer(reducer, event, True), answer(reducer, event, False)) for event in EVENTS]
    assert [found for found in answers if found[1] != found[2]] == []
    assert any(isinstance(found[1], list) for found in answers)


def only(reducer, **operands):
    event = Operands(**{"a": 1.0, "b": 1.0, "i": 1, "j": 1, "p": False, "q": False, **operands})
    return {interpret: answer(reducer, event, interpret) for interpret in (True, False)}


@pytest.mark.parametrize(
    ("reducer", "operands", "reason"),
    [
        (FloatDivision, {"b": 0.0}, "ZeroDivisionError"),
        (IntDivision, {"j": 0}, "ZeroDivisionError"),
        (Rounding, {"a": None}, "ValueError"),
        (Rounding, {"a": 9.3e18}, "OverflowError"),
        (Roots, {"a": -1.0}, "ValueError"),
        (Roots, {"a": 0.0}, "ValueError"),
        (Exponentials, {"a": 1e300}, "OverflowError"),
    ],
)
def test_what_python_refuses_is_refused_compiled_too(reducer, operands, reason):
    for found in only(reducer, **operands).values():
        assert reason in found


def test_integers_wrap_around_like_int64():
    found = only(Totals, i=2**63 - 1, j=1)
    for (state,) in found.values():
        assert state["i0"] == -(2**63)
        assert state["i1"] == 0


def test_an_integer_meets_a_float_as_a_float64():
    for (state,) in only(Totals, i=2**53 + 1, a=2.0**53).values():
        assert state["b0"] is False  # exactly compared it would be larger
        assert state["b1"] is True


@el.reducer
class Mixed:
    larger: float = 0.0
    negated: float = 0.0
    sign: float = 0.0

    def on_operands(state, event):
        state.larger = max(event.i, 0.5) * event.i
        state.negated = -max(0, event.a)
        state.sign = math.copysign(1.0, event.b - event.b)


def test_an_extreme_of_integers_and_floats_is_a_float_and_nan_has_no_sign():
    found = only(Mixed, i=2**40, a=-3.0, b=None)
    assert found[True] == found[False]
    assert found[True][0] == {"larger": (2.0**80).hex(), "negated": (-0.0).hex(), "sign": (1.0).hex()}
