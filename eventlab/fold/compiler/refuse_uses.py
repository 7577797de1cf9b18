"""A compiler pass that refuses what works in compiled code and not, or otherwise, in plain Python.

Stores of values of the wrong type: machine code would truncate a float in an int field, and store an arbitrary number
for NaN. Uses of events and arrays: to the compiler an event is a tuple of the fields that a handler reads, and an array
field is a NumPy array.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import ir
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.errors import TypingError

from eventlab.fold.compiler.state_view import RecordView, TextType, text_type

EVENT = "Event_"
"""Prefix of the names of events' types."""

_AS_TUPLE = ("getiter", "exhaust_iter", "getitem", "static_getitem")
_NAMES = {types.Integer: "int", types.Float: "float", types.Boolean: "bool"}


@register_pass(mutates_CFG=False, analysis_only=True)
class RefuseWrongUses(AnalysisPass):
    """The pass, which runs after type inference."""

    _name = "eventlab_refuse_wrong_uses"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        for refuse in (_refuse_stores, _refuse_uses):
            for block in state.func_ir.blocks.values():
                refuse(block, state.typemap)
        return False


def _refuse_stores(block: Any, typemap: Any) -> None:
    """Refuse stores of the wrong type, and loops over ranges of floats."""
    for store in block.find_insts((ir.SetAttr, ir.SetItem, ir.StaticSetItem)):
        refused = _refused(_stored_in(typemap[store.target.name], store), typemap[store.value.name])
        if refused is not None:
            raise TypingError(refused, loc=store.loc)
    for call in block.find_exprs(op="call"):
        if getattr(typemap[call.func.name], "typing_key", None) is not range:
            continue
        if any(isinstance(typemap[argument.name], types.Float) for argument in call.args):
            raise TypingError("range() takes integers, not a float; Write int(...).", loc=call.loc)
        of_kernel = call.loc.filename.startswith("<kernel of")
        if len(call.args) > 2 and not of_kernel:  # the number of steps can overflow, which traps
            raise TypingError("range() takes one or two integers; Write a while loop.", loc=call.loc)


def _refused(stored: Any, given: Any) -> str | None:
    if isinstance(stored, types.Integer) and isinstance(given, types.Float):
        return "a field of type int takes whole numbers, not a float; Write int(...)."
    if isinstance(stored, types.Integer | types.Float | types.Boolean) and isinstance(given, TextType):
        return f"a field of type {_NAMES[type(stored)]} takes numbers, not text; Text is kept in a field of type str."
    if isinstance(stored, TextType) and not isinstance(given, TextType | types.NoneType | types.Optional):
        return "a field of type str takes text; Numbers are kept in a field of type float, int or bool."
    return None


def _stored_in(target: Any, store: Any) -> Any:
    if not isinstance(store, ir.SetAttr):
        return target.dtype if isinstance(target, types.Buffer | types.NestedArray) else None
    if not isinstance(target, RecordView) or store.attr not in target.record.fields:
        return None
    return text_type if store.attr in target.text else target.record.typeof(store.attr)


def _refuse_uses(block: Any, typemap: Any) -> None:
    """Refuse NumPy's attributes of an array, and an event used as a tuple."""
    for assignment in block.find_insts(ir.Assign):
        value = assignment.value
        if not isinstance(value, ir.Expr):
            continue
        if value.op == "getattr" and isinstance(typemap[value.value.name], types.NestedArray):
            raise TypingError(
                f"an array has no .{value.attr}; Its elements are state.field[i], its length is len().",
                loc=assignment.loc,
            )
        if value.op in _AS_TUPLE and _is_event(typemap[value.value.name]):
            raise TypingError("an event is no tuple; Name its fields: event.price.", loc=assignment.loc)


def _is_event(kind: Any) -> bool:
    return isinstance(kind, types.BaseNamedTuple) and kind.instance_class.__name__.startswith(EVENT)
