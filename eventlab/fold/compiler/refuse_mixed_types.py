"""A compiler pass that refuses names that are an int on one path and a float on another, where this changes the bits.

Compiled code gives such a name one type, float64. In plain Python it stays an integer on one of its paths: it wraps
around at 64 bits, counts exactly beyond 2**53, and has no -0.0. Both give the same bits where the value is stored in a
field, meets a float, is divided or used as a condition, so ``total = 0`` before a loop that adds floats is fine.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from numba import types
from numba.core import ir
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.errors import TypingError

from eventlab.fold.compiler.state_view import RecordView

FLOAT_ALIKE: set[Any] = {bool, math.fabs, math.isnan, math.isinf, math.isfinite}
"""Functions that give the same bits for an integer as for its float64. `kernel` adds those of compiled code."""

_EXACT = 2**53
_COMPARISONS = frozenset({operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge})
_giving_both: WeakSet[Any] = WeakSet()
"""Helpers and properties that return an integer on one path and a float on another."""


@register_pass(mutates_CFG=False, analysis_only=True)
class RefuseMixtures(AnalysisPass):
    """The pass, which runs after type inference."""

    _name = "eventlab_refuse_mixtures"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        found = _Mixtures(state)
        for statement in found.statements:
            for name in sorted({variable.name for variable in statement.list_vars()} & found.names):
                if not found.harmless(statement, name):
                    named = name.split(".")[0]
                    who = "a value" if named.startswith("$") else named
                    raise TypingError(
                        f"{who} is an int on one way, a float on another; Write 0.0 for 0, or float(...).",
                        loc=statement.loc,
                    )
        if found.returned():
            _giving_both.add(state.func_id.func)
        return False


class _Mixtures:
    """Names of a function that may be integers in plain Python, and are floats in compiled code."""

    def __init__(self, state: Any) -> None:
        self._types = state.typemap
        self.statements = [one for block in state.func_ir.blocks.values() for one in block.body]
        self.names: set[str] = set()
        before = -1
        while len(self.names) != before:  # a loop's names depend on each other
            before = len(self.names)
            self.names |= {one.target.name for one in self._assignments() if self._mixes(one)}

    def _assignments(self) -> Iterator[Any]:
        return (one for one in self.statements if isinstance(one, ir.Assign))

    def _mixes(self, assignment: Any) -> bool:
        value, kind = assignment.value, _kind(self._types[assignment.target.name])
        if kind is not types.Float:
            return False
        if isinstance(value, ir.Var):
            return value.name in self.names
        operation = getattr(value, "op", None)
        if operation == "phi":
            return any(self._may_be_int(one) for one in value.incoming_values if one is not ir.UNDEFINED)
        if operation == "getattr":
            view = self._types[value.value.name]
            getter = view.properties.get(value.attr) if isinstance(view, RecordView) else None
            return getter is not None and getter.py_func in _giving_both
        return operation == "call" and self._called(value) in _giving_both

    def _may_be_int(self, variable: Any) -> bool:
        return variable.name in self.names or _kind(self._types[variable.name]) is types.Integer

    def _called(self, call: Any) -> Any:
        function = self._types[call.func.name]
        if isinstance(function, types.Dispatcher):
            return function.dispatcher.py_func
        return getattr(function, "typing_key", None)

    def harmless(self, statement: Any, name: str) -> bool:
        """Whether a statement gives the same bits for an integer as for a float."""
        if not isinstance(statement, ir.Assign):
            return True  # a store into a field, a branch, a return
        value = statement.value
        if isinstance(value, ir.Var) or statement.target.name == name:
            return True
        operation = value.op
        if operation in ("phi", "cast"):
            return True
        if operation == "unary":
            return value.fn is operator.not_
        if operation in ("binop", "inplace_binop"):
            function = value.fn if operation == "binop" else value.immutable_fn
            others = [one for one in (value.lhs, value.rhs) if one.name != name]
            return function is operator.truediv or any(self._settles(function, one) for one in others)
        return operation == "call" and self._called(value) in FLOAT_ALIKE

    def _settles(self, function: Any, other: Any) -> bool:
        """Whether an integer becomes a float64 beside this operand on both paths, or compares as if it did."""
        kind = self._types[other.name]
        if _kind(kind) is types.Float:
            return other.name not in self.names
        constant = getattr(kind, "literal_value", None)
        return function in _COMPARISONS and constant is not None and abs(constant) < _EXACT

    def returned(self) -> bool:
        """Whether the function returns an integer on one path and a float on another."""
        given = [one.value.value for one in self._assignments() if getattr(one.value, "op", None) == "cast"]
        kinds = {_kind(self._types[one.name]) for one in given}
        return {types.Integer, types.Float} <= kinds or any(one.name in self.names for one in given)


def _kind(numbas: Any) -> Any:
    """Float or Integer (also for bools, which count as integers beside floats), or None."""
    inner = numbas.type if isinstance(numbas, types.Optional) else numbas
    if isinstance(inner, types.Float):
        return types.Float
    return types.Integer if isinstance(inner, types.Integer | types.Boolean) else None
