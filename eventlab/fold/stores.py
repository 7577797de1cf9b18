"""A compiler pass: refuses to store a float in an int field, as interpreted folds do.

Machine code would cut it off, and give an arbitrary number for NaN.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import ir
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.errors import TypingError

from eventlab.fold.views import RecordView


@register_pass(mutates_CFG=False, analysis_only=True)
class RefuseFloatsInInts(AnalysisPass):
    """The pass; it needs types."""

    _name = "eventlab_refuse_floats_in_ints"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            for store in block.find_insts((ir.SetAttr, ir.SetItem, ir.StaticSetItem)):
                stored = _stored_in(state.typemap[store.target.name], store)
                given = state.typemap[store.value.name]
                if isinstance(stored, types.Integer) and isinstance(given, types.Float):
                    raise TypingError("an int field takes whole numbers, not a float; write int(...)", loc=store.loc)
        return False


def _stored_in(target: Any, store: Any) -> Any:
    if isinstance(store, ir.SetAttr):
        is_field = isinstance(target, RecordView) and store.attr in target.record.fields
        return target.record.typeof(store.attr) if is_field else None
    return target.dtype if isinstance(target, types.Buffer | types.NestedArray) else None
