"""A compiler pass that refuses to store values of the wrong type in a field, as interpreted folds do.

Machine code would truncate a float in an int field, and store an arbitrary number for NaN.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import ir
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.errors import TypingError

from eventlab.fold.compiler.state_view import RecordView, TextType, text_type


@register_pass(mutates_CFG=False, analysis_only=True)
class RefuseWrongStores(AnalysisPass):
    """The pass, which runs after type inference."""

    _name = "eventlab_refuse_wrong_stores"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            for store in block.find_insts((ir.SetAttr, ir.SetItem, ir.StaticSetItem)):
                stored = _stored_in(state.typemap[store.target.name], store)
                given = state.typemap[store.value.name]
                refused = _refused(stored, given)
                if refused is not None:
                    raise TypingError(refused, loc=store.loc)
            for call in block.find_exprs(op="call"):
                if not _is_range(state.typemap[call.func.name]):
                    continue
                if any(isinstance(state.typemap[argument.name], types.Float) for argument in call.args):
                    raise TypingError("range() takes integers, not a float; Write int(...).", loc=call.loc)
                of_kernel = call.loc.filename.startswith("<kernel of")
                if len(call.args) > 2 and not of_kernel:  # the number of steps can overflow, which traps
                    raise TypingError("range() takes one or two integers; Write a while loop.", loc=call.loc)
        return False


def _is_range(function: Any) -> bool:
    return getattr(function, "typing_key", None) is range


def _refused(stored: Any, given: Any) -> str | None:
    if isinstance(stored, types.Integer) and isinstance(given, types.Float):
        return "a field of type int takes whole numbers, not a float; Write int(...)."
    if isinstance(stored, types.Integer | types.Float | types.Boolean) and isinstance(given, TextType):
        return f"a field of type {_NAMES[type(stored)]} takes numbers, not text; Text is kept in a field of type str."
    if isinstance(stored, TextType) and not isinstance(given, TextType | types.NoneType | types.Optional):
        return "a field of type str takes text; Numbers are kept in a field of type float, int or bool."
    return None


_NAMES = {types.Integer: "int", types.Float: "float", types.Boolean: "bool"}


def _stored_in(target: Any, store: Any) -> Any:
    if isinstance(store, ir.SetAttr):
        is_field = isinstance(target, RecordView) and store.attr in target.record.fields
        if not is_field:
            return None
        return text_type if store.attr in target.text else target.record.typeof(store.attr)
    return target.dtype if isinstance(target, types.Buffer | types.NestedArray) else None
