"""From a handler as written to a function that compiled and interpreted folds run alike.

Works on code objects, so it needs no source text. Checking refuses what would give other bits on the two paths;
lowering replaces constants and the few built-ins that Numba and Python compute differently by what a path needs.
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
            raise ReducerError(f"{where} ({_place(seen, None)}): {seen.__name__} calls itself", hint="Write a loop.")
        before: list[dis.Instruction] = []
        for instruction in flow.instructions(seen.__code__):
            _check_instruction(seen, instruction, where)
            if instruction.opname == "COMPARE_OP" and any(_is_none(seen, loaded) for loaded in before[-2:]):
                place = f"{where} ({_place(seen, _line(instruction))})"
                raise ReducerError(f"{place}: compares with None", hint="Write el.is_null(x), or x is None of text.")
            if instruction.opname == "IS_OP" and not any(_is_none(seen, loaded) for loaded in before[-2:]):
                place = f"{where} ({_place(seen, _line(instruction))})"
                raise ReducerError(f"{place}: asks with `is` for something else than None", hint="Write ==.")
            if instruction.opname == "CONTAINS_OP" and before and before[-1].opname == "BUILD_TUPLE":
                place = f"{where} ({_place(seen, _line(instruction))})"
                raise ReducerError(f"{place}: asks what is in a tuple of values", hint="Write x == a or x == b.")
            if instruction.opname not in ("PRECALL", "CACHE"):
                before.append(instruction)
        for line in flow.assigned_in_expressions(seen):
            raise ReducerError(
                f"{where} ({_place(seen, line)}): := is not supported in a handler",
                hint="Assign on a line of its own.",
            )
        for name, line in flow.unassigned(seen):
            raise ReducerError(
                f"{where} ({_place(seen, line)}): {name} may have no value here",
                hint=f"Give {name} a value on every way that leads here, e.g. before the `if` or the loop.",
            )
        _check_constants(seen, where)
        for name, line in _global_lines(seen).items():
            _check_global(seen, name, f"{where} ({_place(seen, line)})")


def check_handler(function: Function, where: str) -> None:
    """Refuse a handler that returns something, or assigns to the event."""
    stored = {i.argval for i in flow.instructions(function.__code__) if i.opname == "STORE_FAST"}
    event = function.__code__.co_varnames[1]
    previous: dis.Instruction | None = None
    for instruction in flow.instructions(function.__code__):
        if instruction.opname in ("PRECALL", "CACHE"):
            continue
        place = f"{where} ({_place(function, _line(instruction))})"
        returns = instruction.opname == "RETURN_VALUE" and (previous is None or not _loads_none(previous))
        if returns or (instruction.opname == "RETURN_CONST" and instruction.argval is not None):
            raise ReducerError(f"{place}: a handler returns nothing", hint="Change the state in place: state.x = …")
        if (
            instruction.opname == "STORE_ATTR"
            and previous is not None
            and previous.opname.startswith("LOAD_FAST")
            and previous.argval == event
            and event not in stored
        ):
            raise ReducerError(
                f"{place}: assigns to {event}.{instruction.argval}",
                hint="An event is a fact; change the state instead.",
            )
        previous = instruction


def _loads_none(instruction: dis.Instruction) -> bool:
    return instruction.opname in ("LOAD_CONST", "RETURN_CONST") and instruction.argval is None


def check_names(function: Function, names: Sequence[Mapping[str, bool]], where: str) -> None:
    """Refuse what a handler reads of its arguments that is not there, or compares with what it can never equal.

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
        if instruction.opname in ("PRECALL", "CACHE"):
            continue
        window = [*window[-3:], instruction]
        for argument, attribute, *rest in (window[at:] for at in range(len(window) - 1)):
            fields = known.get(str(argument.argval), {}) if argument.opname.startswith("LOAD_FAST") else {}
            if attribute.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not fields or argument.argval in stored:
                continue
            name = str(attribute.argval)
            place = f"{where} ({_place(function, _line(attribute))})"
            if name not in fields:
                raise ReducerError(f"{place}: {argument.argval} has no {name!r}", expected=", ".join(sorted(fields)))
            _check_comparison(rest, f"{place}: {argument.argval}.{name}", fields[name])
            if fields[name]:
                _check_text_use(rest, f"{place}: {argument.argval}.{name}")
            if not fields[name] and _asks_for_none(rest):
                raise ReducerError(
                    f"{place}: {argument.argval}.{name} is no text, and only text is ever None in a handler",
                    hint=f"Write el.is_null({argument.argval}.{name}).",
                )


_WRITES = {
    "STORE_ATTR": "assigns to a field",
    "STORE_SUBSCR": "assigns to an element",
    "DELETE_SUBSCR": "deletes a row",
}
_WRITING_METHODS = ("push", "pop", "set", "clear")


def check_reads_only(function: Function, where: str) -> None:
    """Refuse a property that changes the state: states would depend on who looked at them."""
    for seen in reached(function):
        for instruction in flow.instructions(seen.__code__):
            what = _WRITES.get(instruction.opname)
            if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval in _WRITING_METHODS:
                what = f"calls .{instruction.argval}()"
            if what is not None:
                raise ReducerError(
                    f"{where} ({_place(seen, _line(instruction))}): a property only reads, and this one {what}",
                    hint="Change the state in a handler.",
                )


def _check_comparison(rest: Sequence[dis.Instruction], what: str, is_text: bool) -> None:  # noqa: FBT001
    if len(rest) != 2 or rest[0].opname != "LOAD_CONST" or rest[1].opname not in ("COMPARE_OP", "CONTAINS_OP"):
        return
    constants = rest[0].argval if isinstance(rest[0].argval, tuple | frozenset) else (rest[0].argval,)
    for constant in constants:
        if constant is not None and isinstance(constant, str) != is_text:
            raise ReducerError(f"{what} is {'text' if is_text else 'no text'}, and compared with", got=constant)


def _asks_for_none(rest: Sequence[dis.Instruction]) -> bool:
    if len(rest) == 1:  # `if x is None` is a jump
        return rest[0].opname.startswith("POP_JUMP") and rest[0].opname.endswith(("IF_NONE", "IF_NOT_NONE"))
    return (
        len(rest) == 2
        and rest[0].opname == "LOAD_CONST"
        and rest[0].argval is None
        and rest[1].opname in ("IS_OP", "COMPARE_OP")
    )


_OPERANDS = ("LOAD_CONST", "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_SMALL_INT")


def _check_text_use(rest: Sequence[dis.Instruction], what: str) -> None:
    """Refuse what plain Python does with text and a compiled fold does not; `rest` follows the text."""
    if not rest or (len(rest) > 1 and rest[0].opname not in _OPERANDS):
        return
    use, asked = rest[-1], None
    arithmetic = use.opname == "BINARY_OP" and use.argrepr != "[]"
    ordered = use.opname == "COMPARE_OP" and str(use.argval).strip("bol()") in ("<", "<=", ">", ">=")
    if (arithmetic or ordered) and len(rest) <= 2:
        asked = "has no order and no arithmetic in a handler"
    elif len(rest) == 1 and use.opname in ("LOAD_ATTR", "LOAD_METHOD"):
        asked = f"has no .{use.argval} in a handler"
    elif len(rest) == 1 and use.opname == "CONTAINS_OP":
        asked = "cannot be searched in a handler"
    elif len(rest) == 1 and use.opname == "GET_ITER":
        asked = "cannot be iterated in a handler"
    if asked is not None:
        raise ReducerError(f"{what} is text, which {asked}", expected="==, !=, in (...), is None, or a key of a table")


def _place(function: Function, line: int | None) -> str:
    return f"{function.__code__.co_filename}:{line or function.__code__.co_firstlineno}"


def _line(instruction: dis.Instruction) -> int | None:
    return instruction.positions.lineno if instruction.positions else None


def _check_instruction(function: Function, instruction: dis.Instruction, where: str) -> None:
    place = f"{where} ({_place(function, _line(instruction))})"
    if instruction.opname == "BINARY_OP" and instruction.argrepr not in (*_OPERATORS, "[]"):
        written = instruction.argrepr
        raise ReducerError(
            f"{place}: operator {written} is not supported, or gives other bits compiled than interpreted",
            expected=f"{' '.join(operations.names('operator'))} and comparisons",
            hint=f"Instead {operations.REFUSED_OPERATORS.get(written.removesuffix('='), 'use arithmetic')}.",
        )
    if instruction.opname in operations.REFUSED_OPCODES:
        what, instead = operations.REFUSED_OPCODES[instruction.opname]
        raise ReducerError(f"{place}: {what} is not supported in a handler", hint=instead)
    if (instruction.opname, instruction.arg) == ("RAISE_VARARGS", 0):
        raise ReducerError(f"{place}: raises nothing", hint="Name an exception: raise ValueError(...).")
    if (instruction.opname, instruction.arg) == ("RAISE_VARARGS", 2):
        raise ReducerError(f"{place}: raise … from is not supported in a handler", hint="Leave out what it is from.")


def _is_none(function: Function, loaded: dis.Instruction) -> bool:
    if loaded.opname == "LOAD_CONST":
        return loaded.argval is None
    return loaded.opname == "LOAD_GLOBAL" and resolve(function, str(loaded.argval)) is None


def _check_constants(function: Function, where: str) -> None:
    place = f"{where} ({_place(function, None)})"
    if function.__kwdefaults__ or function.__code__.co_kwonlyargcount:
        raise ReducerError(f"{place}: {function.__name__} takes keyword-only arguments", hint="Leave out the *.")
    for default in function.__defaults__ or ():
        if not _is_constant(default):
            raise ReducerError(
                f"{place}: a default of {function.__name__}",
                got=default,
                expected="a number, a string or a tuple of these",
            )
    for instruction in flow.instructions(function.__code__):
        if instruction.opname == "LOAD_CONST" and not _is_constant(instruction.argval):
            raise ReducerError(
                f"{where} ({_place(function, _line(instruction))}): a constant that a handler cannot hold",
                got=instruction.argval,
                expected="int64, float, bool or text, or a tuple of one of these",
            )


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        texts = sum(isinstance(item, str) for item in value)
        fitting = texts == len(value) - value.count(None) if isinstance(value, tuple) and texts else None not in value
        return fitting and all(_is_constant(item) for item in value)
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, bool | float | str | slice)


def _check_global(function: Function, name: str, place: str) -> None:
    value = resolve(function, name)
    if value is _MISSING:
        raise ReducerError(f"{place}: name {name!r} is not defined")
    if value is super:
        raise ReducerError(
            f"{place}: super() is not supported in a handler, which replaces the base's",
            hint="Put what both do into a function outside the classes, and call it in both.",
        )
    if isinstance(value, types.BuiltinFunctionType | type) and getattr(builtins, name, None) is value:
        if name not in BUILTINS and not (isinstance(value, type) and issubclass(value, BaseException)):
            raise ReducerError(
                f"{place}: {name}() is not supported in a handler", expected=", ".join(f"{b}()" for b in BUILTINS)
            )
        return
    if isinstance(value, types.ModuleType):
        for attribute in _attributes_after(function, name):
            if value is math and attribute not in MATH:
                raise ReducerError(
                    f"{place}: math.{attribute} gives other bits compiled than interpreted, or other errors",
                    expected=", ".join(MATH),
                )
            if value is not math and getattr(value, attribute, None) is not is_null:
                raise ReducerError(f"{place}: {name}.{attribute} is not supported in a handler", hint="Use math.")
        return
    if not (value is is_null or isinstance(value, Function) or _is_constant(value)):
        raise ReducerError(
            f"{place}: {name} is {type(value).__name__}",
            got=value,
            expected="an int64, a float, a string, a tuple of these, a function, or math",
        )


_MISSING = object()


def resolve(function: Function, name: str) -> Any:
    """What a global or closure name means to a function, or a marker where it means nothing."""
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
            lines.setdefault(str(instruction.argval), _line(instruction))
    return lines


def _global_names(function: Function) -> list[str]:
    return sorted(_global_lines(function))


def _attributes_after(function: Function, module: str) -> Iterator[str]:
    """Attributes that a function takes directly from a global name."""
    previous: dis.Instruction | None = None
    for instruction in flow.instructions(function.__code__):
        if instruction.opname in ("PRECALL", "CACHE"):
            continue
        loads = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if loads and previous is not None and previous.argval == module and previous.opname.startswith("LOAD_"):
            yield str(instruction.argval)
        previous = instruction


def _called(function: Function) -> list[Function]:
    values = (resolve(function, name) for name in _global_names(function))
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


def reached(function: Function) -> list[Function]:
    """A function and the plain functions it calls, each once."""
    return [function, *(called for called in _reached_from_calls(function) if called is not function)]


def _text_constants(function: Function) -> Iterator[str]:
    for instruction in flow.instructions(function.__code__):
        if instruction.opname == "LOAD_CONST":
            yield from _strings_in(instruction.argval)
    yield from _strings_in(function.__defaults__)
    for name in _global_names(function):
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
    stores = (i for seen in reached(function) for i in flow.instructions(seen.__code__) if i.opname == "STORE_ATTR")
    return frozenset(str(i.argval) for i in stores)


def removes_rows(function: Function) -> bool:
    """Whether a handler or its helpers may delete a table's rows."""
    return any(
        instruction.opname == "DELETE_SUBSCR" or instruction.argval == "pop"
        for seen in reached(function)
        for instruction in flow.instructions(seen.__code__)
    )


def lower(
    function: Function, constant: Callable[[Any], Any], replaced: Mapping[Any, Any], compile_: Callable[[Any], Any]
) -> Function:
    """A copy of a function in which constants, globals and helpers are what a path needs; none can change any more.

    Parameters
    ----------
    function : function
    constant : callable
        From a number, a bool, a string, or None beside strings in a tuple, to what stands for it.
    replaced : mapping
        Built-ins and modules by what takes their place.
    compile_ : callable
        Applied to each lowered helper function.
    """

    def convert(value: Any) -> Any:
        if isinstance(value, bool | int | float | str):
            # A float of NumPy's is one of Python's too, and would keep NumPy's rules.
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

    loaded = {id(i.argval) for i in dis.get_instructions(function) if i.opname == "LOAD_CONST"}
    code = function.__code__
    code = code.replace(co_consts=tuple(convert(c) if id(c) in loaded else c for c in code.co_consts))
    names = _global_names(function)
    scope = {name: convert(resolve(function, name)) for name in names if name not in code.co_freevars}
    cells = tuple(types.CellType(convert(resolve(function, name))) for name in code.co_freevars)
    defaults = None if function.__defaults__ is None else convert(function.__defaults__)
    lowered = Function(code, {"__builtins__": builtins, **scope}, function.__name__, defaults, cells)
    lowered.__qualname__, lowered.__module__ = function.__qualname__, function.__module__
    lowered.__annotations__, lowered.__doc__ = function.__annotations__, function.__doc__
    lowered.__dict__.update(function.__dict__)
    return lowered


def frozen(function: Function) -> Function:
    """A copy that keeps today's values of globals and helpers, whatever the module makes of the names later."""
    return lower(function, lambda constant: constant, {}, lambda helper: helper)
