"""Interpreted integers against NumPy's int64."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.fold.interpreter.int64 import Int64

INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.sampled_from([2**53 + 1, -(2**63), 2**63 - 1])
FLOATS = st.floats(allow_nan=True) | st.sampled_from([0.0, -0.0, 2.0**53])


@given(st.sampled_from(["add", "sub", "mul", "and_", "or_", "xor"]), INT64, INT64)
def test_integer_operations_wrap_as_numpys_do(name, a, b):
    operate = getattr(operator, name)
    with np.errstate(over="ignore"):
        expected = int(operate(np.array([a]), np.array([b]))[0])
    for left, right in ((Int64(a), Int64(b)), (Int64(a), b), (a, Int64(b))):
        found = operate(left, right)
        assert type(found) is Int64
        assert int(found) == expected


@given(st.sampled_from(["floordiv", "mod"]), INT64, INT64.filter(bool))
def test_integer_division_rounds_down(name, a, b):
    if (a, b) == (-(2**63), -1):
        assert int(getattr(operator, name)(Int64(a), Int64(b))) == 0
    else:
        assert int(getattr(operator, name)(Int64(a), Int64(b))) == getattr(operator, name)(a, b)


@given(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv"]), INT64, FLOATS)
def test_with_a_float_an_integer_is_a_float64(name, a, x):
    operate = getattr(operator, name)
    if not (name == "truediv" and x == 0.0):
        assert str(operate(Int64(a), x)) == str(operate(float(a), x))
    if not (name == "truediv" and a == 0):
        assert str(operate(x, Int64(a))) == str(operate(x, float(a)))


@pytest.mark.parametrize("name", ["floordiv", "mod", "truediv"])
def test_division_by_zero_raises(name):
    for left, right in ((Int64(1), Int64(0)), (1, Int64(0)), (1.0, Int64(0)), (Int64(1), 0.0)):
        with pytest.raises(ZeroDivisionError):
            getattr(operator, name)(left, right)


def test_it_behaves_as_a_number_elsewhere():
    number = Int64(5)
    assert [10, 11, 12, 13, 14, 15][number] == 15
    assert (repr(number), f"{number:03d}", bool(Int64(0)), float(number), hash(number)) == ("5", "005", False, 5.0, 5)
    assert operator.eq(+number, 5)
    assert operator.ne(number, "5")
    with pytest.raises(TypeError):
        operator.add(number, "5")
