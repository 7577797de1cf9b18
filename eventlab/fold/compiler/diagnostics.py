"""Compiler errors in a user's words: the line, the types on it, and what to write instead."""

from __future__ import annotations

import dis
import linecache
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

from eventlab.errors import ReducerError
from eventlab.fold.declare import bytecode as lower
from eventlab.fold.declare.layout import Scalar
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.declare.unbound_names import instructions

_OPERATORS = {
    "add": "+", "iadd": "+=", "sub": "-", "isub": "-=", "mul": "*", "imul": "*=", "truediv": "/", "itruediv": "/=",
    "floordiv": "//", "ifloordiv": "//=", "mod": "%", "imod": "%=", "and_": "&", "or_": "|", "xor": "^", "eq": "==",
    "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "contains": "in",
}  # fmt: skip
_CALLS = {
    "_maximum": ("max", "two or three numbers"), "_minimum": ("min", "two or three numbers"),
    "_trunc": ("int", "a number"), "_floor": ("math.floor", "a number"), "_ceil": ("math.ceil", "a number"),
    "_float": ("float", "a number"), "abs": ("abs", "a number"), "len": ("len", "a table, an array or a tuple"),
    "range": ("range", "one or two integers"), "is_null": ("el.is_null", "a field of an event"),
    "_set": ("set", "(price, size)"), "_clear": ("clear", "nothing"), "_price": ("price", "(index)"),
    "_size": ("size", "(index)"), "_queue_push": ("push", "(key)"), "_queue_first": ("first", "(key)"),
    "_queue_pop": ("pop", "(key)"), "_queue_count": ("count", "(key)"),
}  # fmt: skip
"""Functions of compiled code: what a user calls each, and what it takes."""
_METHODS_OF = ("LadderView(", "QueueView(")
_TYPES = (
    (r"StateView\(.*\)", "the state"),
    (r"RowView\((\w+)\(.*\)", r"a row of \1"),
    (r"(?:Keyed|Queue)View\((\w+)\(.*\)", r"the table \1"),
    (r"LadderView\((\w+);.*\)", r"the ladder \1"),
    (r"Event_\d+\(.*\)", "the event"),
    (r"nestedarray\(.*\)", "an array"),
    (r"(?:Uni)?Tuple\(.*\)", "a tuple"),
    (r"type\(CPUDispatcher\(<function (\w+) .*", r"the function \1"),
    (r"Function\(<(?:built-in function|class|function) '?(\w+).*", r"the function \1"),
    (r"Module\(<module '(\w+)'.*", r"the module \1"),
    (r"range_\w+", "a range"),
    (r"Literal\[int\]\(.*\)|u?int\d+", "an int"),
    (r"Literal\[bool\]\(.*\)|bool(?:ean)?", "a bool"),
    (r"float\d+", "a float"),
    (r"slice<.*>", "a slice"),
    (r"eventlab\.Text|Literal\[str\]\(.*\)", "text"),
    (r"none", "None"),
)
_HINTS = {
    "Text": "Text is compared with ==, != and in (...), kept in a field of type str, and used as a key of a table.",
    "RowView": "Name one of the row's columns.",
}


_PLACES = (r'File "([^"\n]+)", line (\d+)', r"(?:defined at|location:|at|Raised from) (\S+) \((\d+)\)")


def complaint(reducer: Reducer, error: BaseException) -> ReducerError:
    """The error for a reducer that the compiler refuses."""
    message = str(error)
    what, hint = _explained(message)
    functions = [seen for function in reducer.functions for seen in lower.reached(function)]
    found = _places(functions, error, message)
    if not found:
        return ReducerError(f"{reducer.name} cannot be compiled: {what}", hint=hint)
    function, line = found[-1]
    inner, inner_line = found[0]
    if inner is not function:
        what = f"{what}, in {inner.__name__} ({_shown(inner, inner_line)})"
    source = linecache.getline(function.__code__.co_filename, line).strip()
    described = "; ".join(_described(reducer, function, line))
    return ReducerError(
        f"{reducer.name}.{function.__name__} cannot be compiled ({function.__code__.co_filename}:{line}): {what}",
        got=f"{source}   ({described})" if source and described else source or described or None,
        hint=hint,
    )


def _places(functions: list[FunctionType], error: BaseException, message: str) -> list[tuple[FunctionType, int]]:
    """The lines of handlers and helpers that the compiler's message names, the innermost first."""
    named = [(file, int(line)) for places in _PLACES for file, line in re.findall(places, message)]
    location = getattr(error, "loc", None)
    if location is not None:
        named.append((location.filename, location.line))
    found = []
    for file, line in named:
        for function in functions:
            lines = {number for *_, number in function.__code__.co_lines() if number is not None}
            if Path(file).name == Path(function.__code__.co_filename).name and line in lines:
                found.append((function, line))
                break
    return found


def _shown(function: FunctionType, line: int) -> str:
    file = function.__code__.co_filename
    source = linecache.getline(file, line).strip()
    return f"{file}:{line}: {source}" if source else f"{file}:{line}"


def _described(reducer: Reducer, function: FunctionType, line: int) -> Iterator[str]:
    """The fields that a handler's line mentions, with their types."""
    events = [name for name, handler in reducer.handlers.items() if handler is function]
    if not events:
        return
    state, event = function.__code__.co_varnames[:2]
    kinds = {
        f"{event}.{field.name}": "text" if field.is_text else field.kind for field in reducer.event_types[events[0]]
    }
    for field in reducer.layout.record:
        kinds[f"{state}.{field.name}"] = field.kind if isinstance(field, Scalar) else "an array"
    kinds |= {f"{state}.{table.name}": f"a {type(table).__name__}" for table in reducer.layout.tables}
    seen: list[str] = []
    before: dis.Instruction | None = None
    for instruction in instructions(function.__code__):
        positions = instruction.positions
        if positions is not None and positions.lineno == line and before is not None:
            name = f"{before.argval}.{instruction.argval}"
            attribute = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
            if attribute and before.opname.startswith("LOAD_FAST") and name in kinds and name not in seen:
                seen.append(name)
                yield f"{name} is {kinds[name]}"
        if instruction.opname != "COPY":
            before = instruction


def _explained(message: str) -> tuple[str, str | None]:
    """The problem, and what to write instead."""
    for pattern, explain in _PATTERNS:
        found = re.search(pattern, message)
        if found is not None:
            return explain(found)
    first = next((line.strip() for line in message.splitlines() if line.strip() and "pipeline" not in line), message)
    return first, "Call with interpret=True to step through the handler in a debugger."


def _operation(found: re.Match[str]) -> tuple[str, str | None]:
    name, given = found[1], found[2]
    operands = _split(given)
    if name == "contains":
        return _about(f"{_typed(operands[1])} in {_typed(operands[0])} is not supported", given)
    if name in _OPERATORS:
        return _about(f" {_OPERATORS[name]} ".join(map(_typed, operands)) + " is not supported", given)
    if name == "neg":
        return _about(f"{_typed(given)} has no negative", given)
    if name in ("truth", "bool", "not_"):
        return _about(f"{_typed(given)} is neither true nor false", given)
    if name in ("getitem", "static_getitem", "setitem", "delitem"):
        return _element(*operands)
    called, takes = _CALLS.get(name, (name, None))
    of = f"{_typed(operands.pop(0))}: " if operands and operands[0].startswith(_METHODS_OF) else ""
    if takes is None:
        return _about(f"{called}() does not take {_listed(operands)}", given)
    return _about(f"{of}{called}() takes {takes}, and is given {_listed(operands)}", ",".join(operands))


def _element(container: str, index: str, value: str | None = None) -> tuple[str, str | None]:
    if container.startswith("KeyedView") and value is not None:
        return f"{_typed(container)} does not take {_typed(value)} for a row", "Assign to the row's columns."
    if container.startswith("KeyedView"):
        return f"{_typed(container)} has no row of {_typed(index)}", "A table's keys are text."
    stored = "" if value is None else f" that takes {_typed(value)}"
    return f"{_typed(container)} has no element at {_typed(index)}{stored}", None


def _about(what: str, types: str) -> tuple[str, str | None]:
    return what, next((hint for kind, hint in _HINTS.items() if kind in types), None)


def _listed(types: list[str]) -> str:
    return ", ".join(map(_typed, types)) or "nothing"


def _split(types: str) -> list[str]:
    """The types in a list of them; commas inside brackets do not separate."""
    parts, depth = [""], 0
    for letter in types:
        depth += (letter in "(<[{") - (letter in ")>]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _typed(numbas: str) -> str:
    """A type of Numba's in a user's words."""
    named = re.fullmatch(r"(\w+)=(.*)", numbas.strip())
    if named is not None:
        return f"{named[1]}={_typed(named[2])}"
    optional = re.fullmatch(r"(?:Optional|OptionalType)\((.*)\)", numbas.strip())
    if optional is not None:
        return f"{_typed(optional[1])} or None"
    for pattern, words in _TYPES:
        found = re.fullmatch(pattern, numbas.strip())
        if found is not None:
            return found.expand(words)
    return numbas.strip()


def _mixed(found: re.Match[str]) -> tuple[str, str | None]:
    unnamed = found[3].startswith("$")  # what `or` and `if … else` give
    who = "a value" if unnamed else found[3]
    what = f"{who} is {_typed(found[1])} on one way, {_typed(found[2])} on another"
    return what, f"Keep {'it' if unnamed else who} of one type."


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str | None]]], ...] = (
    (
        r"((?:a field of type|range\(\) takes|\w+(?: value)? is an int on|an array has|an event is)[^\n;]*); ([^\n]*)",
        lambda f: (f[1], f[2]),
    ),
    (r"_ol_array_allocate", lambda _: ("an array is no operand", "Write a loop over its elements.")),
    (r"NRT required", lambda _: ("an exception or an assertion tells a value", "Give it a constant text.")),
    (r"No definition for lowering Event_", lambda _: ("an event is a fact, and cannot be assigned to", None)),
    (r"No implementation of function Function\(<[^\n]*\n\s*>>> (?:_ol_)?(\w+)\((.*)\)", _operation),
    (r"Unknown attribute '(\w+)' of type (.+)", lambda f: _about(f"{_typed(f[2])} has no .{f[1]}", f[2])),
    (
        r"Cannot resolve setattr: \((.+)\)\.(\w+) = ",
        lambda f: _about(f"{_typed(f[1])} has no .{f[2]} to assign to", f[1]),
    ),
    (r"Cannot unify (.+) and (.+) for '(\$?\w+)", _mixed),
    (
        r"Can't unify return type from the following types: (.*)",
        lambda f: (f"it returns {' or '.join(map(_typed, _split(f[1])))}", "Return one type on every way through it."),
    ),
    (
        r"Cannot bind 'args=\((.*?),?\) kws=\{.*\}' to signature '(\(.*?\))'",
        lambda f: (
            f"the helper takes {f[2]}, and is called with {_listed(_split(f[1]))}",
            None,
        ),
    ),
    (r"missing a required argument: '(\w+)'", lambda f: (f"the argument {f[1]} is missing", None)),
    (r"too many positional arguments", lambda f: ("it is called with too many arguments", None)),
    (r"Invalid use of getiter with parameters \((.*)\)", lambda f: _about(f"{_typed(f[1])} cannot be iterated", f[1])),
    (r"Invalid use of (.+) with parameters \(", lambda f: (f"{_typed(f[1])} is called, and is no function", None)),
    (
        r"wrong tuple length.*expected (\d+), got (\d+)",
        lambda f: (f"{f[2]} values are unpacked into {f[1]} names", None),
    ),
    (r"failed to unpack (.+)", lambda f: _about(f"{_typed(f[1])} cannot be unpacked", f[1])),
    (
        r"Cannot cast (.+?) to (\S+?): ",
        lambda f: _about(f"{_typed(f[1])} stands where {_typed(f[2])} is needed", f[1]),
    ),
)
"""Messages of the compiler, and how each is explained. The innermost come first: messages quote one another."""
