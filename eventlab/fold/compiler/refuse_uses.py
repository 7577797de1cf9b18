"""A compiler pass that refuses uses of events and arrays that work in compiled code and not in plain Python.

To the compiler an event is a tuple of the fields that a handler reads, and an array field is a NumPy array.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import ir
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.errors import TypingError

EVENT = "Event_"
"""Prefix of the names of events' types."""

_AS_TUPLE = ("getiter", "exhaust_iter", "getitem", "static_getitem")


@register_pass(mutates_CFG=False, analysis_only=True)
class RefuseOtherUses(AnalysisPass):
    """The pass, which runs after type inference."""

    _name = "eventlab_refuse_other_uses"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                value = assignment.value
                if not isinstance(value, ir.Expr):
                    continue
                if value.op == "getattr" and isinstance(state.typemap[value.value.name], types.NestedArray):
                    raise TypingError(
                        f"an array has no .{value.attr}; Its elements are state.field[i], its length is len().",
                        loc=assignment.loc,
                    )
                if value.op in _AS_TUPLE and _is_event(state.typemap[value.value.name]):
                    raise TypingError("an event is no tuple; Name its fields: event.price.", loc=assignment.loc)
        return False


def _is_event(kind: Any) -> bool:
    return isinstance(kind, types.BaseNamedTuple) and kind.instance_class.__name__.startswith(EVENT)
