"""Parses snapshot policies and workloads: names, numbers, quoted text, `|`, `&` and parentheses.

The parser walks the syntax tree and accepts only the names below; it never evaluates code.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from eventlab.errors import EventlabError, SnapshotError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventlab.snapshots.placement.workloads import Workload
    from eventlab.snapshots.policy.rules import Policy

_LONGEST = 1_000
_DEEPEST = 50
_POLICIES = (
    "CostOptimal", "Every", "EveryBytes", "EveryTime", "Exponential", "Keep", "MaxGap", "OnRead", "SlowerThan",
)  # fmt: skip
_WORKLOADS = ("Drift", "Exponential", "HotSpots", "Scrubbing", "Uniform", "Zipf")


def policy(text: str) -> Policy:
    """A snapshot policy, e.g. ``Every(1000) & Keep(3)``.

    Raises
    ------
    SnapshotError
        The text is not a policy.

    Examples
    --------
    >>> policy("every(1_000) & Keep(last=3)")
    Every(n=1000) & Keep(last=3)
    """
    from eventlab import snapshots
    from eventlab.snapshots.policy.rules import Policy

    names = {name: getattr(snapshots, name) for name in _POLICIES}
    found: Policy = _ExpressionParser("policy", text, names, "Every(1000) & Keep(3)").parse(Policy)
    return found


def workload(text: str) -> Workload:
    """A workload, e.g. ``zipf`` or ``HotSpots(count=4)``.

    Raises
    ------
    SnapshotError
        The text is not a workload.

    Examples
    --------
    >>> workload("zipf"), workload("HotSpots(count=4, share=0.8)").count
    (Zipf(exponent=1.0), 4)
    """
    from eventlab.snapshots.placement.workloads import Workload

    found: Workload = _ExpressionParser("workload", text, _workloads(), "zipf, or Drift(0.1)").parse(Workload)
    return found


def _workloads() -> Mapping[str, Any]:
    from eventlab.snapshots.placement import workloads

    return {name: getattr(workloads, name) for name in _WORKLOADS}


class _ExpressionParser:
    """Parses one text. Arguments in parentheses are literals and workloads."""

    def __init__(self, what: str, text: str, names: Mapping[str, Any], example: str) -> None:
        self._what, self._text, self._example = what, text, example
        self._names = {name.lower(): made for name, made in names.items()}

    def refused(self, why: str = "") -> SnapshotError:
        known = ", ".join(sorted(made.__name__ for made in self._names.values()))
        reason = f": {why}" if why else ""
        return SnapshotError(
            f"not a valid {self._what}{reason}", got=self._text[:_LONGEST],
            expected=f"e.g. {self._example}; names are {known}",
        )  # fmt: skip

    def parse(self, kind: type) -> Any:
        if len(self._text) > _LONGEST:
            raise self.refused("too long")
        try:
            parsed = ast.parse(self._text.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise self.refused() from None
        found = self._composed(parsed.body, _DEEPEST)
        if not isinstance(found, kind):
            raise self.refused()
        return found

    def _composed(self, node: ast.expr, room: int) -> Any:
        if not room:
            raise self.refused("nested too deeply")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd):
            left, right = self._composed(node.left, room - 1), self._composed(node.right, room - 1)
            try:
                return left | right if isinstance(node.op, ast.BitOr) else left & right
            except TypeError:
                raise self.refused("workloads do not compose") from None
        return self._named(node, self._names)

    def _named(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        """The object of a name, with or without arguments."""
        called = node.func if isinstance(node, ast.Call) else node
        if not isinstance(called, ast.Name):
            raise self.refused()
        made = names.get(called.id.lower())
        if made is None:
            raise self.refused(f"unknown name {called.id}")
        values, named = [], dict[str, Any]()
        if isinstance(node, ast.Call):
            values = [self._value(one) for one in node.args]
            for keyword in node.keywords:
                if keyword.arg is None:
                    raise self.refused()
                named[keyword.arg] = self._value(keyword.value)
        try:
            return made(*values, **named)
        except EventlabError:
            raise
        except (TypeError, ValueError) as error:
            raise self.refused(str(error).replace("__init__()", "")) from None

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name | ast.Call):
            return self._named(node, {name.lower(): made for name, made in _workloads().items()})
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, RecursionError):
            value = ...
        if value is None or (isinstance(value, int | float | str) and not isinstance(value, bool)):
            return value
        raise self.refused("arguments must be numbers, quoted text or workloads")
