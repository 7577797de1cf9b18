"""One compiled kernel per reducer: folds an aggregate's events, of several types in one order, from stop to stop.

Types are merged by version, or follow an order that merged them with other aggregates' events already. At a *stop* the
state may be emitted: a final state has one stop an aggregate, a history has one a row. The kernel's source is written
out for the reducer's event types and tables, so that the compiler sees plain loops over plain arrays and inlines the
handlers.
"""

from __future__ import annotations

import math
import types as python_types
from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload, register_jitable

from eventlab.fold.compiler import keyed_view, ladder_view
from eventlab.fold.compiler import state_view as views
from eventlab.fold.compiler.diagnostics import complaint
from eventlab.fold.compiler.pipeline import HandlerCompiler
from eventlab.fold.compiler.refuse_mixed_types import FLOAT_ALIKE
from eventlab.fold.compiler.refuse_uses import EVENT
from eventlab.fold.declare import bytecode as lower
from eventlab.fold.declare.layout import Array, Keyed, Ladder, Queue
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.native.call import Code, Native, Types
from eventlab.fold.native.codegen import ALONE, compiled
from eventlab.fold.native.constants import INDEX_DTYPE, LADDER_META, META, NULL_TEXT
from eventlab.fold.stops import kind_bits


@register_jitable
def _min2(a, b):
    return b if b < a else a


@register_jitable
def _max2(a, b):
    return b if b > a else a


def _minimum(*values: Any) -> Any: ...


def _maximum(*values: Any) -> Any: ...


def _extreme(pair: Any) -> Any:
    """Min or max with Python's rule: the first of equals, and NaN never replaces."""

    def typed(*values):
        if len(values) == 2:
            return lambda *values: pair(values[0], values[1])
        if len(values) == 3:
            return lambda *values: pair(pair(values[0], values[1]), values[2])
        return None

    return typed


overload(_minimum)(_extreme(_min2))
overload(_maximum)(_extreme(_max2))


@njit
def _sqrt(x):
    if x < 0.0:
        raise ValueError("math domain error")
    return math.sqrt(x)


@njit
def _log(x):
    if x <= 0.0:
        raise ValueError("math domain error")
    return math.log(x)


@njit
def _log10(x):
    if x <= 0.0:
        raise ValueError("math domain error")
    return math.log10(x)


@njit
def _exp(x):
    y = math.exp(x)
    if math.isinf(y) and not math.isinf(x):
        raise OverflowError("math range error")
    return y


@njit
def _copysign(x, y):
    return math.fabs(x) if math.isnan(y) else math.copysign(x, y)


@register_jitable
def _to_int64(value):
    """A float as an integer, with Python's errors where machine code would give an arbitrary one."""
    if math.isnan(value):
        raise ValueError("cannot convert float NaN to integer")
    if not -9223372036854775808.0 <= value < 9223372036854775808.0:
        raise OverflowError("the number lies outside int64")
    return np.int64(value)


def _trunc(value: Any) -> Any: ...


def _floor(value: Any) -> Any: ...


def _ceil(value: Any) -> Any: ...


def _float(value: Any) -> Any: ...


def _rounding(rounded: Any) -> Any:
    def typed(value):
        if isinstance(value, types.Float):
            return lambda value: _to_int64(rounded(value))
        return (lambda value: np.int64(value)) if isinstance(value, types.Integer | types.Boolean) else None

    return typed


overload(_trunc)(_rounding(np.trunc))
overload(_floor)(_rounding(np.floor))
overload(_ceil)(_rounding(np.ceil))


@overload(_float)
def _typed_float(value):
    if isinstance(value, types.Integer | types.Float | types.Boolean):
        return lambda value: np.float64(value)
    return None


def _python_math() -> python_types.ModuleType:
    """`math` for compiled handlers: some of its functions raise Python's errors, the others are as they are."""
    module = python_types.ModuleType("math")
    for name in lower.MATH:
        setattr(module, name, getattr(math, name))
    for own in (_copysign, _sqrt, _log, _log10, _exp, _floor, _ceil, _trunc):
        setattr(module, own.__name__.removeprefix("_"), own)
    return module


FLOAT_ALIKE.update({_float, *(one.py_func for one in (_sqrt, _log, _log10, _exp, _copysign))})

_REPLACED = {min: _minimum, max: _maximum, int: _trunc, float: _float, math: _python_math()}


_VIEWS = {Keyed: keyed_view.KeyedView, Queue: keyed_view.QueueView, Ladder: ladder_view.LadderView}
_SCOPE: dict[str, Any] = {"int32": np.int32, "load_levels": ladder_view.load_levels}
"""Names that the source of a kernel uses."""
for _name in ("stack_copy", "copy_record", "pointer_to", "prefetch", "as_text", "code_of"):
    _SCOPE[_name] = getattr(views, _name)
for _name in ("set_slots", "settle_table", "settle_queue"):
    _SCOPE[_name] = getattr(keyed_view, _name)


def compile_kernel(reducer: Reducer, wanted: Types) -> tuple[Native, Code | None]:
    """Compile a reducer's driver for arguments of these types.

    Raises
    ------
    ReducerError
        The compiler cannot type a handler: says on which line, and why.
    """
    codes = {text: code for code, text in enumerate(reducer.literals)}
    options = {**ALONE, "boundscheck": bool(reducer.layout.arrays), "pipeline_class": HandlerCompiler}

    def constant(value: Any) -> Any:
        if value is None:
            return views.Text(NULL_TEXT)
        return views.Text(codes[value]) if isinstance(value, str) else value

    def lowered(function: python_types.FunctionType) -> Any:
        made = lower.lower(function, constant, _REPLACED, njit(**options))
        return njit(forceinline=True, **options)(made)

    tables = tuple((table.name, _VIEWS[type(table)](table)) for table in reducer.layout.tables)
    state = views.state_view(f"{reducer.name}.{reducer.fingerprint[:16]}", reducer.layout, tables)
    properties = {name: lowered(function) for name, function in reducer.properties.items()}
    state.properties.update(properties)
    # A signed index may count from the end, and deciding that for each row cost a third of the rate: hence `row`.
    scope = {**_SCOPE, "make_state": views.make(state), "NEVER": np.int64(2**63 - 1), "row": np.uint64}
    for at, (_, view) in enumerate(tables):
        scope[f"make_{at}"] = views.make(view)
        if isinstance(view, keyed_view.QueueView):
            scope[f"make_index_{at}"] = views.make(dict(view.members)["index"])
    for at, name in enumerate(properties):
        scope[f"property_{at}"] = properties[name]
    fields = reducer.event_fields
    for at, (name, handler) in enumerate(reducer.handlers.items()):
        scope[f"handle_{at}"] = lowered(handler)
        # The fields depend on the reducer, so the class cannot be written out.
        scope[f"{EVENT}{at}"] = namedtuple(f"{EVENT}{at}", fields[name] or ("nothing",))  # noqa: PYI024
    source = _Source(reducer, fields).text()
    exec(compile(source, f"<kernel of {reducer.name}>", "exec"), scope)  # noqa: S102 - names in it are checked identifiers
    try:
        return compiled(scope["kernel"], wanted, options)
    except Exception as error:  # Numba raises errors of its own, and whatever its own code runs into
        raise complaint(reducer, error) from error


_MOST_ON_STACK = 4_096
"""Bytes of the largest record that goes to the stack: with eight thousand numbers LLVM did not come to an end."""
_BLOCK, _AHEAD = 16, 256
"""Rows of a block, and how many rows ahead of it a kernel prefetches. A processor prefetches by itself, but not beyond
a page nor beyond the instructions in flight: reducers of five fields and more ran at half the memory's rate."""
_ROWS_A_LINE = {"text": 16, "bool": 64}
"""Rows of a column in a cache line of 64 bytes; 8 for any other kind."""


class _Source:
    """Generates the source of a reducer's kernel."""

    def __init__(self, reducer: Reducer, fields: dict[str, tuple[str, ...]]) -> None:
        self.reducer, self.fields = reducer, fields
        self.tables = reducer.layout.tables

    def text(self) -> str:
        body = [f"def kernel({', '.join(self.arguments())}):", "    for a in range(count):"]
        on_stack = self.reducer.layout.dtype.itemsize <= _MOST_ON_STACK
        body += [f"        record = {'stack_copy(states[a])' if on_stack else 'states[a]'}"]
        body += [f"        {line}" for line in self.enter()]
        cursors = ["m"] if self.reducer.takes_merged_order else range(len(self.reducer.handlers))
        body += [f"        i{t} = start_{t}[a]" for t in cursors]
        body += ["        for stop in range(stop_offsets[a], stop_offsets[a + 1]):"]
        body += [f"            e{t} = bounds_{t}[stop]" for t in cursors]
        body += [f"            {line}" for line in self.events()]
        body += ["            if emit:", *(f"                {line}" for line in self.emit()), "                pass"]
        if self.reducer.properties:
            body += [f"                state = {self.state(None)}"]
            body += [f"                rows_before_{at} = len(table_{at})" for at in self.keyed()]
        for at, name in enumerate(self.reducer.properties):
            value = f"property_{at}(state)"
            if self.reducer.property_kinds[name] == "str":
                value = f"code_of({value})"
            body += [f"                out_property_{at}[stop] = {value}"]
        if self.reducer.properties:
            body += [f"                {line}" for line in self.unchanged()]
        body += ["        copy_record(states[a], record)"] if on_stack else []
        body += [f"        {line}" for line in self.leave()]
        return "\n".join(body) + "\n"

    def emit(self) -> list[str]:
        """Write the record's fields, a column each."""
        lines = []
        for at, field in enumerate(self.reducer.layout.record):
            if isinstance(field, Array):
                lines += [
                    f"for k in range({field.length}):",
                    f"    out_field_{at}[stop * {field.length} + k] = record.{field.name}[k]",
                ]
            else:
                lines.append(f"out_field_{at}[stop] = record.{field.name}")
        return lines

    def keyed(self) -> list[int]:
        return [at for at, table in enumerate(self.tables) if type(table) is Keyed]

    def unchanged(self) -> list[str]:
        lines = []
        for at in self.keyed():
            lines += [f"if len(table_{at}) != rows_before_{at}:", "    raise KeyError('a property cannot add a row')"]
        return lines

    def arguments(self) -> list[str]:
        names = ["count", "stop_offsets", "emit", "states"]
        names += [f"out_field_{at}" for at in range(len(self.reducer.layout.record))]
        names += [f"out_property_{at}" for at in range(len(self.reducer.properties))]
        for at, table in enumerate(self.tables):
            if isinstance(table, Ladder):
                names += [f"prices_{at}", f"sizes_{at}", f"meta_{at}", f"base_{at}"]
            else:
                names += [f"rows_{at}", f"slots_{at}", f"meta_{at}", f"base_{at}"]
                if isinstance(table, Queue):
                    names += [f"pool_{at}", f"pool_meta_{at}", f"pool_base_{at}"]
        merged = self.reducer.takes_merged_order
        names += ["start_m", "bounds_m", "order"] if merged else []
        for t, name in enumerate(self.reducer.handlers):
            names += [*([] if merged else [f"start_{t}", f"bounds_{t}", f"version_{t}"]), f"rank_{t}"]
            for field in self.fields[name]:
                names += [f"column_{t}_{field}", *([f"shift_{t}_{field}"] if self.kind(t, field) == "text" else [])]
        return names

    def enter(self) -> list[str]:
        lines = []
        for at, table in enumerate(self.tables):
            if isinstance(table, Ladder):
                lines += [
                    f"ranks_{at} = base_{at}[a + 1] - base_{at}[a]",
                    f"ladder_meta_{at} = pointer_to(meta_{at}, a * {LADDER_META})",
                    f"load_levels({self.ladder(at, '-1')})",
                ]
                continue
            keyed = (
                f"((pointer_to(rows_{at}, 0), pointer_to(slots_{at}, 0), pointer_to(meta_{at}, a * {META}), "
                f"base_{at}[a], base_{at}[a + 1] - base_{at}[a]))"
            )
            if isinstance(table, Queue):
                pool = f"pointer_to(pool_{at}, 0), pointer_to(pool_meta_{at}, a * {META}), pool_base_{at}[a]"
                lines += [
                    f"index_{at} = make_index_{at}{keyed}",
                    f"set_slots(index_{at}, {INDEX_DTYPE.itemsize}, False)",
                    f"table_{at} = make_{at}((index_{at}, {pool}, pool_base_{at}[a + 1] - pool_base_{at}[a]))",
                ]
            else:
                lines += [f"table_{at} = make_{at}{keyed}", f"set_slots(table_{at}, {table.row_dtype.itemsize}, False)"]
        return lines

    def leave(self) -> list[str]:
        lines = []
        for at, table in enumerate(self.tables):
            if isinstance(table, Queue):
                lines.append(f"set_slots(index_{at}, {INDEX_DTYPE.itemsize}, True)")
            elif isinstance(table, Keyed):
                lines.append(f"set_slots(table_{at}, {table.row_dtype.itemsize}, True)")
        return lines

    def ladder(self, at: int, hint: str) -> str:
        sign = ladder_view.SIGN[self.tables[at].side]  # type: ignore[union-attr]
        return (
            f"make_{at}((pointer_to(prices_{at}, 0), pointer_to(sizes_{at}, 0), ladder_meta_{at}, base_{at}[a], "
            f"ranks_{at}, {sign}, {hint}))"
        )

    def state(self, kind: int | None) -> str:
        """The expression for the state view while an event of this kind is handled."""
        parts = ["record"]
        for at, table in enumerate(self.tables):
            if not isinstance(table, Ladder):
                parts.append(f"table_{at}")
            elif kind is None or not self.ranked(kind):
                parts.append(self.ladder(at, "-1"))
            else:
                rank = f"rank_{kind}[row(i{kind})]"
                parts.append(self.ladder(at, f"ranks_{at} - 1 - {rank}" if table.side == "bid" else rank))
        return f"make_state(({', '.join(parts)},))"

    def ranked(self, kind: int) -> bool:
        return self.name(kind) in self.reducer.priced

    def handle(self, kind: int) -> list[str]:
        name = self.name(kind)
        values = [self.value(kind, field) for field in self.fields[name]]
        call = f"handle_{kind}({self.state(kind)}, {EVENT}{kind}({', '.join(values) or '0'}))"
        return [call, *(self.settle() if name in self.reducer.removes_rows else [])]

    def settle(self) -> list[str]:
        return [
            f"settle_{'queue' if isinstance(table, Queue) else 'table'}(table_{at}, {table.row_dtype.itemsize})"
            for at, table in enumerate(self.tables)
            if isinstance(table, Keyed)
        ]

    def value(self, kind: int, field: str) -> str:
        element = f"column_{kind}_{field}[row(i{kind})]"
        return f"as_text(int32({element} + shift_{kind}_{field}))" if self.kind(kind, field) == "text" else element

    def kind(self, kind: int, field: str) -> str:
        """Kind of a field that a handler reads: "text", "float", "int" or "bool"."""
        declared = next((f for f in self.reducer.event_types[self.name(kind)] if f.name == field), None)
        return "int" if declared is None else "text" if declared.is_text else declared.kind

    def name(self, kind: int) -> str:
        return list(self.reducer.handlers)[kind]

    def events(self) -> list[str]:
        """Handle the events up to a stop."""
        if self.reducer.takes_merged_order:
            return self.ordered()
        return self.single() if len(self.reducer.handlers) == 1 else self.merged()

    def single(self) -> list[str]:
        """A loop over one event type. The next rows are known, so they are prefetched."""
        return [
            "begin = i0",
            f"for block in range(begin, e0, {_BLOCK}):",
            *(f"    {line}" for line in self.prefetch()),
            f"    for i0 in range(block, min(block + {_BLOCK}, e0)):",
            *(f"        {line}" for line in self.handle(0)),
            "i0 = max(begin, e0)",
        ]

    def prefetch(self) -> list[str]:
        """Prefetches of the cache lines of a later block, for each column."""
        columns = {f"column_0_{field}": _ROWS_A_LINE.get(self.kind(0, field), 8) for field in self.fields[self.name(0)]}
        if self.ranked(0):
            columns["rank_0"] = _ROWS_A_LINE["text"]
        lines = {column: range(_AHEAD, _AHEAD + _BLOCK, rows) for column, rows in columns.items()}
        return [f"prefetch({column}, block + {ahead})" for column, rows in lines.items() for ahead in rows]

    def merged(self) -> list[str]:
        """A loop over several event types, which takes the one with the lowest next version."""
        lines = ["while True:", "    lowest = NEVER", "    kind = -1"]
        kinds = range(len(self.reducer.handlers))
        for t in kinds:
            lines += [
                f"    if i{t} < e{t} and version_{t}[i{t}] < lowest:",
                f"        lowest = version_{t}[i{t}]",
                f"        kind = {t}",
            ]
        lines += ["    if kind < 0:", "        break"]
        for t in kinds:
            lines += [
                f"    {'if' if t == 0 else 'elif'} kind == {t}:",
                *(f"        {line}" for line in self.handle(t)),
                f"        i{t} += 1",
            ]
        return lines

    def ordered(self) -> list[str]:
        """Several event types in an order that was found before: each entry says which row of which type is next."""
        bits = kind_bits(len(self.reducer.handlers))
        lines = ["begin = im", "for at in range(begin, em):", f"    kind = order[row(at)] & {(1 << bits) - 1}"]
        for t in reversed(range(len(self.reducer.handlers))):  # own types come first, and are the rare ones
            lines += [
                f"    {'elif' if t + 1 < len(self.reducer.handlers) else 'if'} kind == {t}:",
                f"        i{t} = order[row(at)] >> {bits}",
                *(f"        {line}" for line in self.handle(t)),
            ]
        return [*lines, "im = max(begin, em)"]
