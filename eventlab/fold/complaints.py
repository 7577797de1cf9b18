"""What the compiler has against a handler, in a user's words: the line, what is on it, and what to write instead."""

from __future__ import annotations

import dis
import linecache
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

from eventlab.errors import ReducerError
from eventlab.fold import lower
from eventlab.fold.declaration import Reducer
from eventlab.fold.layout import Scalar

_OPERATORS = {
    "add": "+", "iadd": "+=", "sub": "-", "isub": "-=", "mul": "*", "imul": "*=", "truediv": "/", "itruediv": "/=",
    "floordiv": "//", "ifloordiv": "//=", "mod": "%", "imod": "%=", "and_": "&", "or_": "|", "xor": "^", "eq": "==",
    "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "contains": "in",
}  # fmt: skip
_CALLS = {
    "_maximum": "max", "_minimum": "min", "_trunc": "int", "_floor": "math.floor", "_ceil": "math.ceil",
    "_float": "float", "_set": "set", "_clear": "clear", "_price": "price", "_size": "size",
}  # fmt: skip
_TYPES = (
    (r"StateView\(.*\)", "the state"),
    (r"RowView\((\w+)\(.*\)", r"a row of \1"),
    (r"(?:Keyed|Queue)View\((\w+)\(.*\)", r"the table \1"),
    (r"LadderView\((\w+);.*\)", r"the ladder \1"),
    (r"Event_\d+\(.*\)", "the event"),
    (r"nestedarray\(.*\)", "an array"),
    (r"(?:Uni)?Tuple\(.*\)", "a tuple"),
    (r"Literal\[int\]\(.*\)|u?int\d+", "an int"),
    (r"Literal\[bool\]\(.*\)|bool(?:ean)?", "a bool"),
    (r"float\d+", "a float"),
    (r"slice<.*>", "a slice"),
    (r"eventlab\.Text", "text"),
    (r"none", "None"),
)
_HINTS = {
    "text": "Text is compared with ==, != and in (...), kept in a field of type str, and used as a key of a table.",
    "row": "Name one of the row's columns.",
}


def complaint(reducer: Reducer, error: BaseException) -> ReducerError:
    """The error for a reducer that the compiler refuses."""
    message = str(error)
    what, hint = _said(message)
    functions = [seen for function in reducer.functions for seen in lower.reached(function)]
    found = _place(functions, error, message)
    if found is None:
        return ReducerError(f"{reducer.name} cannot be compiled: {what}", hint=hint)
    function, line = found
    source = linecache.getline(function.__code__.co_filename, line).strip()
    described = "; ".join(_described(reducer, function, line))
    return ReducerError(
        f"{reducer.name}.{function.__name__} cannot be compiled ({function.__code__.co_filename}:{line}): {what}",
        got=f"{source}   ({described})" if source and described else source or described or None,
        hint=hint,
    )


def _place(functions: list[FunctionType], error: BaseException, message: str) -> tuple[FunctionType, int] | None:
    """The line of a handler or helper that the compiler names last: the innermost."""
    named = [(file, int(line)) for file, line in re.findall(r'File "([^"\n]+)", line (\d+)', message)]
    named += [(file, int(line)) for file, line in re.findall(r"(?:defined at|location:|at) (\S+) \((\d+)\)", message)]
    location = getattr(error, "loc", None)
    if location is not None:
        named.append((location.filename, location.line))
    for file, line in reversed(named):
        for function in functions:
            lines = {number for *_, number in function.__code__.co_lines() if number is not None}
            if Path(file).name == Path(function.__code__.co_filename).name and line in lines:
                return function, line
    return None


def _described(reducer: Reducer, function: FunctionType, line: int) -> Iterator[str]:
    """The fields that a handler's line mentions, with their types."""
    events = [name for name, handler in reducer.handlers.items() if handler is function]
    if not events:
        return
    state, event = function.__code__.co_varnames[:2]
    kinds = {
        f"{event}.{field.name}": "text" if field.is_text else field.kind for field in reducer.event_types[events[0]]
    }
    for held in reducer.layout.record:
        kinds[f"{state}.{held.name}"] = held.kind if isinstance(held, Scalar) else "an array"
    kinds |= {f"{state}.{table.name}": f"a {type(table).__name__}" for table in reducer.layout.tables}
    seen: list[str] = []
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(function):
        positions = instruction.positions
        if positions is not None and positions.lineno == line and before is not None:
            name = f"{before.argval}.{instruction.argval}"
            attribute = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
            if attribute and before.opname.startswith("LOAD_FAST") and name in kinds and name not in seen:
                seen.append(name)
                yield f"{name} is {kinds[name]}"
        if instruction.opname not in ("PRECALL", "CACHE", "COPY"):
            before = instruction


def _said(message: str) -> tuple[str, str | None]:
    """What is wrong, and what to write instead."""
    for pattern, told in _PATTERNS:
        found = re.search(pattern, message)
        if found is not None:
            return told(found)
    first = next((line.strip() for line in message.splitlines() if line.strip() and "pipeline" not in line), message)
    return first, "Call with interpret=True to step through the handler in a debugger."


def _operation(found: re.Match[str]) -> tuple[str, str | None]:
    name, given = found[1], found[2]
    if name in _OPERATORS:
        return _about(f" {_OPERATORS[name]} ".join(map(_typed, _split(given))) + " is not supported", given)
    if name in ("getitem", "static_getitem"):
        held, index, *_ = [*_split(given), ""]
        if held.startswith("KeyedView"):
            return f"{_typed(held)} has no row of {_typed(index)}", "A table's keys are text."
        return _about(f"{_typed(held)} has no element at {_typed(index)}", given)
    if name in ("setitem", "delitem"):
        held, index, *value = [*_split(given), ""]
        stored = f" that takes {_typed(value[0])}" if value and value[0] else ""
        return _about(f"{_typed(held)} has no element at {_typed(index)}{stored}", given)
    return _about(f"{_CALLS.get(name, name)}() does not take {_listed(given)}", given)


def _about(what: str, types: str) -> tuple[str, str | None]:
    kinds = {"text": "Text", "row": "RowView"}
    return what, next((_HINTS[kind] for kind, sign in kinds.items() if sign in types), None)


def _listed(types: str) -> str:
    return ", ".join(_typed(one) for one in _split(types))


def _split(types: str) -> list[str]:
    """Types between commas, of which some stand inside others' brackets."""
    parts, depth = [""], 0
    for letter in types:
        depth += (letter in "(<[{") - (letter in ")>]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _typed(numbas: str) -> str:
    """One of Numba's types in a user's words."""
    optional = re.fullmatch(r"(?:Optional|OptionalType)\((.*)\)", numbas.strip())
    if optional is not None:
        return f"{_typed(optional[1])} or None"
    for pattern, words in _TYPES:
        found = re.fullmatch(pattern, numbas.strip())
        if found is not None:
            return found.expand(words)
    return numbas.strip()


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str | None]]], ...] = (
    (
        r"(?:a field of type|range\(\) takes) [^\n;]*; [^\n]*",
        lambda f: (f[0].split("; ")[0], f[0].split("; ")[1]),
    ),
    (r"NRT required", lambda _: ("an exception or an assertion tells a value", "Give it a constant text.")),
    (r"No definition for lowering Event_", lambda _: ("an event is a fact, and cannot be assigned to", None)),
    (r"No implementation of function Function\(<\S+(?: function)? (\w+)[^\n]*\n\s*>>> \w+\((.*)\)", _operation),
    (r"Unknown attribute '(\w+)' of type (.+)", lambda f: _about(f"{_typed(f[2])} has no .{f[1]}", f[2])),
    (
        r"Cannot unify (.+) and (.+) for '(\w+)",
        lambda f: (f"{f[3]} is {_typed(f[1])} on one way, {_typed(f[2])} on another", f"Keep {f[3]} of one type."),
    ),
    (
        r"Can't unify return type from the following types: (.*)",
        lambda f: (f"it returns {' or '.join(map(_typed, _split(f[1])))}", "Return one type on every way through it."),
    ),
    (
        r"Cannot bind 'args=\((.*?),?\) kws=\{.*\}' to signature '(\(.*?\))'",
        lambda f: (f"the helper takes {f[2]}, and is called with {_listed(f[1]) or 'nothing'}", None),
    ),
    (r"missing a required argument: '(\w+)'", lambda f: (f"the argument {f[1]} is missing", None)),
    (r"too many positional arguments", lambda f: ("it is called with too many arguments", None)),
    (r"Invalid use of getiter with parameters \((.*)\)", lambda f: _about(f"{_typed(f[1])} cannot be iterated", f[1])),
    (r"Invalid use of (.+) with parameters \(", lambda f: (f"{_typed(f[1])} is called, and is no function", None)),
    (
        r"Cannot cast (\S+) to (\S+?):",
        lambda f: _about(f"{_typed(f[1])} stands where {_typed(f[2])} is needed", f[1]),
    ),
)
"""The compiler's sentences, innermost first."""
