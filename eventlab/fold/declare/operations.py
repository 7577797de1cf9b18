"""The operations that handlers may use: one table, checked at declaration, tested on both paths, shown in the docs.

An operation is in it if compiled and interpreted folds give the same bits for all values, or the same error. In the
examples ``a`` and ``b`` are floats, ``i`` and ``j`` integers, ``p`` and ``q`` bools, ``s`` and ``t`` text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["operator", "form", "builtin", "math", "eventlab"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row.

    Attributes
    ----------
    name : str
        The operator or function.
    examples : tuple of (expression, kind of its value)
    rule : str
        Behaviour that is not obvious: NaN, overflow, zero, rounding, errors.
    """

    kind: Kind
    name: str
    examples: tuple[tuple[str, str], ...]
    rule: str = ""


_WRAPS = "integers wrap around at 64 bits; beside a float an integer is a float64"
_BITS = "of integers and bools"
_FLOAT64 = "beside a float an integer is a float64; NaN is unequal to everything"
_DOMAIN = "ValueError outside its domain"
_INT64 = "ValueError for NaN, OverflowError for what no int64 holds"

OPERATIONS: tuple[Operation, ...] = (
    Operation("operator", "+", (("a + b", "float"), ("i + j", "int"), ("a + i", "float"), ("p + q", "int")), _WRAPS),
    Operation("operator", "-", (("a - b", "float"), ("i - j", "int"), ("-a", "float"), ("-i", "int")), _WRAPS),
    Operation("operator", "*", (("a * b", "float"), ("i * j", "int"), ("a * i", "float")), _WRAPS),
    Operation("operator", "/", (("a / b", "float"), ("i / j", "float")), "ZeroDivisionError"),
    Operation("operator", "//", (("a // b", "float"), ("i // j", "int")),
              "rounds down; ZeroDivisionError; the lowest integer by -1 is 0"),
    Operation("operator", "%", (("a % b", "float"), ("i % j", "int")), "has the divisor's sign; ZeroDivisionError"),
    Operation("operator", "&", (("i & j", "int"), ("p & q", "bool")), _BITS),
    Operation("operator", "|", (("i | j", "int"), ("p | q", "bool")), _BITS),
    Operation("operator", "^", (("i ^ j", "int"), ("p ^ q", "bool")), _BITS),
    Operation("form", "< <= > >=", (("a < b", "bool"), ("i >= j", "bool"), ("i < a", "bool"), ("a <= i < b", "bool")),
              _FLOAT64),
    Operation("form", "== !=", (("a == b", "bool"), ("i != j", "bool"), ("a == i", "bool"), ('s == "buy"', "bool"),
                                ("s != t", "bool")), f"{_FLOAT64}; text only beside text"),
    Operation("form", "in", (("i in (1, 7)", "bool"), ("j in range(3)", "bool"), ('s in ("buy", "sell")', "bool")),
              "of a tuple of constants, a range, or a table's keys"),
    Operation("form", "is None", (("s is None", "bool"), ("s is not None", "bool")), "of text; else el.is_null"),
    Operation("form", "not and or", (("not i", "bool"), ("a or b", "float"), ("p and q", "bool")),
              "NaN counts as true; missing and empty text as false"),
    Operation("form", "x if … else y", (("a if p else b", "float"), ('s if p else "none"', "text"))),
    Operation("builtin", "abs", (("abs(a)", "float"), ("abs(i)", "int")), "of the lowest integer it is itself"),
    Operation("builtin", "min", (("min(a, b)", "float"), ("min(i, j, 3)", "int"), ("min(i, a)", "float")),
              "of two or three; the first of equals; NaN never replaces what is before it"),
    Operation("builtin", "max", (("max(a, b)", "float"), ("max(i, j, 3)", "int"), ("max(a, b, 1.0)", "float")),
              "as min"),
    Operation("builtin", "int", (("int(a)", "int"), ("int(p)", "int")), f"cuts off; {_INT64}"),
    Operation("builtin", "float", (("float(i)", "float"), ("float(p)", "float")), "of numbers"),
    Operation("builtin", "bool", (("bool(a)", "bool"), ("bool(i)", "bool")), "NaN is true"),
    Operation("builtin", "len", (("len((a, b))", "int"),), "of a table, an array or a tuple"),
    Operation("builtin", "range", (("len(range(3))", "int"),), "for loops; one or two integers"),
    Operation("math", "sqrt", (("math.sqrt(a)", "float"), ("math.sqrt(i)", "float")), _DOMAIN),
    Operation("math", "exp", (("math.exp(a)", "float"),), "OverflowError"),
    Operation("math", "log", (("math.log(a)", "float"),), f"of one argument; {_DOMAIN}"),
    Operation("math", "log10", (("math.log10(a)", "float"),), _DOMAIN),
    Operation("math", "fabs", (("math.fabs(a)", "float"), ("math.fabs(i)", "float"))),
    Operation("math", "copysign", (("math.copysign(a, b)", "float"),), "NaN counts as positive"),
    Operation("math", "floor", (("math.floor(a)", "int"), ("math.floor(i)", "int")), _INT64),
    Operation("math", "ceil", (("math.ceil(a)", "int"),), _INT64),
    Operation("math", "trunc", (("math.trunc(a)", "int"), ("math.trunc(p)", "int")), _INT64),
    Operation("math", "isnan", (("math.isnan(a)", "bool"),)),
    Operation("math", "isinf", (("math.isinf(a)", "bool"),)),
    Operation("math", "isfinite", (("math.isfinite(a)", "bool"),)),
    Operation("math", "nan", (("math.nan", "float"),)),
    Operation("math", "inf", (("-math.inf", "float"),)),
    Operation("math", "pi", (("math.pi", "float"),)),
    Operation("math", "e", (("math.e", "float"),)),
    Operation("math", "tau", (("math.tau", "float"),)),
    Operation("eventlab", "el.is_null",
              (("el.is_null(a)", "bool"), ("el.is_null(i)", "bool"), ("el.is_null(s)", "bool")),
              "NaN, -2**63 and missing text; of a bool always false"),
)  # fmt: skip


def names(kind: Kind) -> tuple[str, ...]:
    """The operations of a kind."""
    return tuple(operation.name for operation in OPERATIONS if operation.kind == kind)


REFUSED_OPERATORS = {
    "**": "write x * x, or math.exp and math.log",
    "<<": "multiply by a power of two",
    ">>": "divide with // by a power of two",
    "@": "write the sum of products",
}
"""Operators of the language that are not in the table, and what to write instead."""

REFUSED_OPCODES = {
    "MAKE_FUNCTION": ("a function or lambda defined inside a handler", "Define it outside the class."),
    "IMPORT_NAME": ("an import inside a handler", "Import at the top of the module."),
    "STORE_GLOBAL": ("assigning a global", "Keep it in a field of the state."),
    "YIELD_VALUE": ("yield", None),
    "SETUP_WITH": ("with", None),
    "BEFORE_WITH": ("with", None),
    "PUSH_EXC_INFO": ("try", "Ask before you compute: if x != 0.0."),
    "FORMAT_VALUE": ("an f-string", "Text can be compared and kept, not made."),
    "FORMAT_SIMPLE": ("an f-string", "Text can be compared and kept, not made."),
    "BUILD_STRING": ("an f-string", "Text can be compared and kept, not made."),
    "BUILD_MAP": ("a dict", "Keep a table in the state: el.Keyed."),
    "BUILD_SET": ("a set", "Keep a table in the state: el.Keyed."),
    "LIST_APPEND": ("a list comprehension", "Write a loop."),
    "BUILD_LIST": ("a list", "Keep numbers in the state: el.Array."),
    "BUILD_SLICE": ("a slice", "Write a loop over the elements."),
    "BINARY_SLICE": ("a slice", "Write a loop over the elements."),
    "STORE_SLICE": ("a slice", "Write a loop over the elements."),
    "MATCH_SEQUENCE": ("match on a sequence", "Match on constants, or write if."),
    "MATCH_MAPPING": ("match on a mapping", "Match on constants, or write if."),
    "MATCH_CLASS": ("match on a class", "Match on constants, or write if."),
    "UNPACK_EX": ("a starred name", "Name every element."),
    "GET_AWAITABLE": ("await", None),
    "DELETE_ATTR": ("deleting a field", "Assign its initial value."),
    "DELETE_FAST": ("deleting a local name", "Leave it out."),
    "UNARY_INVERT": ("operator ~", "Write -x - 1, or not x."),
}
"""Parts of the language that handlers cannot use, by instruction: their names, and what to do instead."""


def table() -> Iterator[str]:
    """The operations as a Markdown table."""
    yield "| write | gives | rule |"
    yield "|---|---|---|"
    for operation in OPERATIONS:
        written = ", ".join(f"`{expression}`" for expression, _ in operation.examples).replace("|", "\\|")
        given = ", ".join(dict.fromkeys(kind for _, kind in operation.examples))
        yield f"| {written} | {given} | {operation.rule} |"
