"""Checks a handler, and lowers it to a function that compiled and interpreted folds run alike.

Both work on code objects, so they need no source text. Checking refuses what would give other bits on the two paths.
Lowering replaces constants, and the built-ins that Numba and Python compute differently, by those of one path.
"""

from __future__ import annotations

import builtins
import dis
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eventlab.errors import ReducerError
from eventlab.fold.declare import operations
from eventlab.fold.declare import unbound_names as flow
from eventlab.fold.declare.layout import is_null

Function = types.FunctionType

BUILTINS, MATH = operations.names("builtin"), operations.names("math")
_OPERATORS = {written for name in operations.names("operator") for written in (name, f"{name}=")}


def check(function: Function, where: str) -> None:
    """Refuse what compiled and interpreted folds would not do alike.

    Raises
    ------
    ReducerError
        Names the file, the line and what to write instead.
    """
    for seen in reached(function):
        if seen in _reached_from_calls(seen):
            raise _refusal(where, seen, None, f"{seen.__name__} calls itself", hint="Write a loop.")
        before: list[dis.Instruction] = []
        for instruction in flow.instructions(seen.__code__):
            _check_instruction(seen, instruction, before, where)
            before = [*before[-1:], instruction]
        for line in flow.assigned_in_expressions(seen):
            what, hint = ":= is not supported in a handler", "Assign on a line of its own."
            raise _refusal(where, seen, line, what, hint=hint)
        for name, line in flow.unassigned(seen):
            hint = f"Give {name} a value on every way that leads here, e.g. before the `if` or the loop."
            raise _refusal(where, seen, line, f"{name} may have no value here", hint=hint)
        _check_constants(seen, where)
        for name, line in _global_lines(seen).items():
            _check_global(seen, name, line, where)


def _refusal(
    where: str, function: Function, at: dis.Instruction | int | None, problem: str, **parts: Any
) -> ReducerError:
    """The error for a handler or helper, with the line of an instruction, or else the function's first line."""
    line = at.positions and at.positions.lineno if isinstance(at, dis.Instruction) else at
    code = function.__code__
    return ReducerError(f"{where} ({code.co_filename}:{line or code.co_firstlineno}): {problem}", **parts)


def check_handler(function: Function, where: str) -> None:
    """Refuse a handler that returns something, or assigns to the event."""
    stored = {i.argval for i in flow.instructions(function.__code__) if i.opname == "STORE_FAST"}
    event = function.__code__.co_varnames[1]
    previous: dis.Instruction | None = None
    for instruction in flow.instructions(function.__code__):
        if instruction.opname == "RETURN_VALUE" and (previous is None or not _loads_none(previous)):
            hint = "Change the state in place: state.x = …"
            raise _refusal(where, function, instruction, "a handler returns nothing", hint=hint)
        if (
            instruction.opname == "STORE_ATTR"
            and previous is not None
            and previous.opname.startswith("LOAD_FAST")
            and previous.argval == event
            and event not in stored
        ):
            what, hint = f"assigns to {event}.{instruction.argval}", "An event is a fact; change the state instead."
            raise _refusal(where, function, instruction, what, hint=hint)
        previous = instruction


def _loads_none(instruction: dis.Instruction) -> bool:
    return instruction.opname == "LOAD_CONST" and instruction.argval is None


def check_names(function: Function, names: Sequence[Mapping[str, bool]], where: str) -> None:
    """Refuse attributes that the arguments do not have, and comparisons that can never be true.

    Parameters
    ----------
    function : function
    names : sequence of mapping of str to bool
        For each argument, its attributes and whether they are text.
    """
    stored = {i.argval for i in flow.instructions(function.__code__) if i.opname == "STORE_FAST"}
    known = dict(zip(function.__code__.co_varnames, names, strict=False))
    window: list[dis.Instruction] = []
    for instruction in flow.instructions(function.__code__):
        window = [*window[-3:], instruction]
        for argument, attribute, *rest in (window[at:] for at in range(len(window) - 1)):
            fields = known.get(str(argument.argval), {}) if argument.opname.startswith("LOAD_FAST") else {}
            if attribute.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not fields or argument.argval in stored:
                continue
            name = str(attribute.argval)
            if name not in fields:
                what = f"{argument.argval} has no {name!r}"
                raise _refusal(where, function, attribute, what, expected=", ".join(sorted(fields)))
            problem = _misuse(rest, f"{argument.argval}.{name}", fields[name])
            if problem is not None:
                raise _refusal(where, function, attribute, **problem)


_WRITES = {
    "STORE_ATTR": "assigns to a field",
    "STORE_SUBSCR": "assigns to an element",
    "DELETE_SUBSCR": "deletes a row",
}
_WRITING_METHODS = ("push", "pop", "set", "clear")


def check_reads_only(function: Function, where: str) -> None:
    """Refuse a property that changes the state: states would depend on who looked at them."""
    for seen, instruction in _reached_instructions(function):
        what = _WRITES.get(instruction.opname)
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval in _WRITING_METHODS:
            what = f"calls .{instruction.argval}()"
        if what is not None:
            what, hint = f"a property only reads, and this one {what}", "Change the state in a handler."
            raise _refusal(where, seen, instruction, what, hint=hint)


def _misuse(rest: Sequence[dis.Instruction], field: str, is_text: bool) -> dict[str, Any] | None:  # noqa: FBT001
    """What is wrong with the use of a field, if anything; `rest` are the instructions after it is loaded."""
    if len(rest) == 2 and rest[0].opname == "LOAD_CONST" and rest[1].opname in ("COMPARE_OP", "CONTAINS_OP"):
        constants = rest[0].argval if isinstance(rest[0].argval, tuple | frozenset) else (rest[0].argval,)
        for constant in constants:
            if constant is not None and isinstance(constant, str) != is_text:
                return {"problem": f"{field} is {'text' if is_text else 'no text'}, and compared with", "got": constant}
    if is_text:
        return _misuse_of_text(rest, field)
    if _asks_for_none(rest):
        problem = f"{field} is no text, and only text is ever None in a handler"
        return {"problem": problem, "hint": f"Write el.is_null({field})."}
    return None


def _asks_for_none(rest: Sequence[dis.Instruction]) -> bool:
    if len(rest) == 1:  # `if x is None` is a jump
        return rest[0].opname.startswith("POP_JUMP") and rest[0].opname.endswith(("IF_NONE", "IF_NOT_NONE"))
    return len(rest) == 2 and _loads_none(rest[0]) and rest[1].opname in ("IS_OP", "COMPARE_OP")


_OPERANDS = ("LOAD_CONST", "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_SMALL_INT")


def _misuse_of_text(rest: Sequence[dis.Instruction], field: str) -> dict[str, Any] | None:
    """What plain Python does with text and a compiled fold does not."""
    if not rest or (len(rest) > 1 and rest[0].opname not in _OPERANDS):
        return None
    use, problem = rest[-1], None
    arithmetic = use.opname == "BINARY_OP" and use.argrepr != "[]"
    ordered = use.opname == "COMPARE_OP" and str(use.argval).strip("bol()") in ("<", "<=", ">", ">=")
    if (arithmetic or ordered) and len(rest) <= 2:
        problem = "has no order and no arithmetic in a handler"
    elif len(rest) == 1 and use.opname in ("LOAD_ATTR", "LOAD_METHOD"):
        problem = f"has no .{use.argval} in a handler"
    elif len(rest) == 1 and use.opname in ("CONTAINS_OP", "GET_ITER"):
        problem = f"cannot be {'searched' if use.opname == 'CONTAINS_OP' else 'iterated'} in a handler"
    if problem is None:
        return None
    return {
        "problem": f"{field} is text, which {problem}",
        "expected": "==, !=, in (...), is None, or a key of a table",
    }


def _check_instruction(
    function: Function, instruction: dis.Instruction, before: Sequence[dis.Instruction], where: str
) -> None:
    """Refuse an instruction; `before` are the two before it."""
    name, argument = instruction.opname, instruction.arg
    beside_none = any(_is_none(function, loaded) for loaded in before)
    problem: str | None = None
    hint: str | None = None
    if name == "BINARY_OP" and instruction.argrepr not in (*_OPERATORS, "[]"):
        written = instruction.argrepr
        raise _refusal(
            where, function, instruction,
            f"operator {written} is not supported, or gives other bits compiled than interpreted",
            expected=f"{' '.join(operations.names('operator'))} and comparisons",
            hint=f"Instead {operations.REFUSED_OPERATORS.get(written.removesuffix('='), 'use arithmetic')}.",
        )  # fmt: skip
    if name in operations.REFUSED_OPCODES:
        what, hint = operations.REFUSED_OPCODES[name]
        problem = f"{what} is not supported in a handler"
    elif (name, argument) == ("RAISE_VARARGS", 0):
        problem, hint = "raises nothing", "Name an exception: raise ValueError(...)."
    elif (name, argument) == ("RAISE_VARARGS", 2):
        problem, hint = "raise … from is not supported in a handler", "Leave out what it is from."
    elif name == "COMPARE_OP" and beside_none:
        problem, hint = "compares with None", "Write el.is_null(x), or x is None of text."
    elif name == "IS_OP" and not beside_none:
        problem, hint = "asks with `is` for something else than None", "Write ==."
    elif name == "CONTAINS_OP" and before and before[-1].opname == "BUILD_TUPLE":
        problem, hint = "asks what is in a tuple of values", "Write x == a or x == b."
    if problem is not None:
        raise _refusal(where, function, instruction, problem, hint=hint)


def _is_none(function: Function, loaded: dis.Instruction) -> bool:
    if loaded.opname == "LOAD_CONST":
        return loaded.argval is None
    return loaded.opname == "LOAD_GLOBAL" and resolve(function, str(loaded.argval)) is None


def _check_constants(function: Function, where: str) -> None:
    if function.__kwdefaults__ or function.__code__.co_kwonlyargcount:
        problem = f"{function.__name__} takes keyword-only arguments"
        raise _refusal(where, function, None, problem, hint="Leave out the *.")
    for default in function.__defaults__ or ():
        if not _is_constant(default):
            expected = "a number, a string or a tuple of these"
            raise _refusal(where, function, None, f"a default of {function.__name__}", got=default, expected=expected)
    for instruction in flow.instructions(function.__code__):
        value, expected = instruction.argval, "int64, float, bool or text, or a tuple of one of these"
        if instruction.opname == "LOAD_CONST" and not _is_constant(value):
            problem = "a constant that a handler cannot hold"
            raise _refusal(where, function, instruction, problem, got=value, expected=expected)


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        texts = sum(isinstance(item, str) for item in value)
        fitting = texts == len(value) - value.count(None) if isinstance(value, tuple) and texts else None not in value
        return fitting and all(_is_constant(item) for item in value)
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, bool | float | str | slice)


def _check_global(function: Function, name: str, line: int | None, where: str) -> None:
    value = resolve(function, name)
    parts: dict[str, Any] = {}
    if value is _MISSING:
        problem = f"name {name!r} is not defined"
    elif value is super:
        problem = "super() is not supported in a handler, which replaces the base's"
        parts = {"hint": "Put what both do into a function outside the classes, and call it in both."}
    elif isinstance(value, types.BuiltinFunctionType | type) and getattr(builtins, name, None) is value:
        if name in BUILTINS or (isinstance(value, type) and issubclass(value, BaseException)):
            return
        problem = f"{name}() is not supported in a handler"
        parts = {"expected": ", ".join(f"{builtin}()" for builtin in BUILTINS)}
    elif isinstance(value, types.ModuleType):
        for attribute in _attributes_after(function, name):
            if value is math and attribute not in MATH:
                problem = f"math.{attribute} gives other bits compiled than interpreted, or other errors"
                raise _refusal(where, function, line, problem, expected=", ".join(MATH))
            if value is not math and getattr(value, attribute, None) is not is_null:
                problem = f"{name}.{attribute} is not supported in a handler"
                raise _refusal(where, function, line, problem, hint="Use math.")
        return
    elif value is is_null or isinstance(value, Function) or _is_constant(value):
        return
    else:
        problem = f"{name} is {type(value).__name__}"
        parts = {"got": value, "expected": "an int64, a float, a string, a tuple of these, a function, or math"}
    raise _refusal(where, function, line, problem, **parts)


_MISSING = object()


def resolve(function: Function, name: str) -> Any:
    """The value of a global or closure name in a function, or a marker where it has none."""
    if name in function.__code__.co_freevars and function.__closure__:
        cell = function.__closure__[function.__code__.co_freevars.index(name)]
        try:
            return cell.cell_contents
        except ValueError:
            return _MISSING
    if name in function.__globals__:
        return function.__globals__[name]
    return getattr(builtins, name, _MISSING)


def _global_lines(function: Function) -> dict[str, int | None]:
    """Globals and closure names that a function loads, in its order, each with the line of the first load."""
    loads = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"}
    lines: dict[str, int | None] = {}
    for instruction in flow.instructions(function.__code__):
        if instruction.opname in loads:
            line = instruction.positions.lineno if instruction.positions else None
            lines.setdefault(str(instruction.argval), line)
    return lines


def _attributes_after(function: Function, module: str) -> Iterator[str]:
    """Attributes that a function takes directly from a global name."""
    previous: dis.Instruction | None = None
    for instruction in flow.instructions(function.__code__):
        loads = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if loads and previous is not None and previous.argval == module and previous.opname.startswith("LOAD_"):
            yield str(instruction.argval)
        previous = instruction


def _called(function: Function) -> list[Function]:
    values = (resolve(function, name) for name in sorted(_global_lines(function)))
    return [value for value in values if isinstance(value, Function) and value is not is_null]


def _reached_from_calls(function: Function) -> list[Function]:
    """The plain functions that a function calls, directly or not, each once."""
    seen: list[Function] = []
    waiting = _called(function)
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.append(current)
            waiting.extend(_called(current))
    return seen


def _reached_instructions(function: Function) -> Iterator[tuple[Function, dis.Instruction]]:
    return ((seen, instruction) for seen in reached(function) for instruction in flow.instructions(seen.__code__))


def reached(function: Function) -> list[Function]:
    """A function and the plain functions it calls, each once."""
    return [function, *(called for called in _reached_from_calls(function) if called is not function)]


def _text_constants(function: Function) -> Iterator[str]:
    for instruction in flow.instructions(function.__code__):
        if instruction.opname == "LOAD_CONST":
            yield from _strings_in(instruction.argval)
    yield from _strings_in(function.__defaults__)
    for name in sorted(_global_lines(function)):
        yield from _strings_in(resolve(function, name))


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple | frozenset):
        for item in sorted(value, key=repr) if isinstance(value, frozenset) else value:
            yield from _strings_in(item)


def literals(functions: list[Function]) -> tuple[str, ...]:
    """Every string constant that handlers and their helpers use, in a fixed order, the empty one first."""
    found = {"": None}
    for function in functions:
        for seen in reached(function):
            found.update(dict.fromkeys(_text_constants(seen)))
    return tuple(found)


def attributes(functions: list[Function]) -> frozenset[str]:
    """Every attribute name that handlers and their helpers mention: which columns they may read."""
    return frozenset(name for function in functions for seen in reached(function) for name in seen.__code__.co_names)


def assigned(function: Function) -> frozenset[str]:
    """Every attribute name that a handler or its helpers assign to."""
    return frozenset(str(i.argval) for _, i in _reached_instructions(function) if i.opname == "STORE_ATTR")


def removes_rows(function: Function) -> bool:
    """Whether a handler or its helpers may delete a table's rows."""
    return any(i.opname == "DELETE_SUBSCR" or i.argval == "pop" for _, i in _reached_instructions(function))


def lower(
    function: Function, constant: Callable[[Any], Any], replaced: Mapping[Any, Any], compile_: Callable[[Any], Any]
) -> Function:
    """A copy of a function with the constants, globals and helpers of one path, none of which can change later.

    Parameters
    ----------
    function : function
    constant : callable
        Called with a number, a bool, a string, or None beside strings in a tuple; gives what replaces it.
    replaced : mapping
        What replaces built-ins and modules.
    compile_ : callable
        Applied to each lowered helper function.
    """

    def convert(value: Any) -> Any:
        if isinstance(value, bool | int | float | str):
            # A NumPy float64 is a Python float as well, but would keep NumPy's rules.
            return constant(float(value) if isinstance(value, float) else value)
        if isinstance(value, tuple | frozenset):
            has_text = any(isinstance(item, str) for item in value)
            items = sorted(value, key=repr) if isinstance(value, frozenset) else value  # one order in every process
            return tuple(constant(item) if item is None and has_text else convert(item) for item in items)
        if isinstance(value, Function) and value is not is_null:
            return compile_(lower(value, constant, replaced, compile_))
        if isinstance(value, types.ModuleType) and value is not math:
            return value
        return replaced.get(value, value)

    code = function.__code__
    loaded = {i.arg for i in flow.instructions(code) if i.opname == "LOAD_CONST"}
    code = code.replace(co_consts=tuple(convert(c) if at in loaded else c for at, c in enumerate(code.co_consts)))
    names = set(_global_lines(function)).difference(code.co_freevars)
    scope = {name: convert(resolve(function, name)) for name in sorted(names)}
    cells = tuple(types.CellType(convert(resolve(function, name))) for name in code.co_freevars)
    defaults = None if function.__defaults__ is None else convert(function.__defaults__)
    lowered = Function(code, {"__builtins__": builtins, **scope}, function.__name__, defaults, cells)
    lowered.__qualname__, lowered.__module__ = function.__qualname__, function.__module__
    lowered.__annotations__, lowered.__doc__ = function.__annotations__, function.__doc__
    lowered.__dict__.update(function.__dict__)
    return lowered


def frozen(function: Function) -> Function:
    """A copy that keeps today's values of globals and helpers, also when the module rebinds the names later."""
    return lower(function, lambda constant: constant, {}, lambda helper: helper)
