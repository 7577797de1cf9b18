"""Marks branches that store a new running extreme as rare: ``if event.price > state.high: state.high = event.price``.

Without the mark LLVM computes the maximum without a branch, so that every event waits for the one before it. A branch
marked as rare is predicted not to be taken, and nothing waits: a market reducer of five fields runs a third faster.
"""

from __future__ import annotations

import operator
from typing import Any

from numba.core import ir
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering

_ORDER = (operator.lt, operator.le, operator.gt, operator.ge)
_SELDOM = (1, 1000)


class _Lower(Lower):
    def lower_inst(self, inst: Any) -> None:
        super().lower_inst(inst)
        if isinstance(inst, ir.Branch) and self._keeps_an_extreme(inst):
            self.builder.block.terminator.set_weights(_SELDOM)

    def _keeps_an_extreme(self, branch: Any) -> bool:
        """Whether a branch compares a field with a value and then stores the value in the field."""
        compared = self._defined(branch.cond)
        if getattr(compared, "op", None) == "call":  # a condition is the truth of a comparison
            compared = self._defined(compared.args[0])
        if getattr(compared, "op", None) != "binop" or compared.fn not in _ORDER:
            return False
        sides = self._defined(compared.lhs), self._defined(compared.rhs)
        stores = [one for one in self.func_ir.blocks[branch.truebr].body if isinstance(one, ir.SetAttr)]
        return any(
            getattr(field, "op", None) == "getattr"
            and (field.attr, field.value.name) == (store.attr, store.target.name)
            and _alike(self._defined(store.value), other)
            for store in stores
            for field, other in (sides, sides[::-1])
        )

    def _defined(self, variable: Any) -> Any:
        """The definition of a variable; the variable itself where it has several."""
        try:
            return self.func_ir.get_definition(variable)
        except KeyError:
            return variable


def _alike(one: Any, other: Any) -> bool:
    """Whether two expressions are the same, or read the same field."""
    if getattr(one, "op", None) == getattr(other, "op", None) == "getattr":
        return (one.attr, one.value.name) == (other.attr, other.value.name)
    return one is other


@register_pass(mutates_CFG=True, analysis_only=False)
class Lowering(BaseNativeLowering):
    """Numba's lowering, with rare branches marked."""

    _name = "eventlab_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return _Lower
