"""Local names of a handler that may have no value, and `:=`, found in its bytecode.

Where a name has no value, Python raises at the first such event, and compiled code reads uninitialised memory. Numba
does not type a name that ``:=`` assigns from an attribute.
"""

from __future__ import annotations

import dis
import itertools
import re
import types
from collections.abc import Iterator
from functools import lru_cache

_ENDS = frozenset({"RETURN_VALUE", "RAISE_VARARGS", "RERAISE"})
_JUMPS_ALWAYS = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"})
_TARGETED = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


@lru_cache(maxsize=128)
def instructions(code: types.CodeType) -> tuple[dis.Instruction, ...]:
    """The instructions of code, as Python 3.11 compiles it; later versions merge some pairs into one.

    Cached, since a declaration reads a handler and its helpers a dozen times. Equal code shares an entry, so compare
    constants by value and not by identity.
    """
    found: list[dis.Instruction] = []
    for one in dis.get_instructions(code):
        if one.opname == "RETURN_CONST":
            found += [one._replace(opname="LOAD_CONST"), one._replace(opname="RETURN_VALUE", arg=None, argval=None)]
        elif isinstance(one.argval, tuple) and "_FAST_" in one.opname:  # e.g. STORE_FAST_LOAD_FAST
            kinds = re.findall(r"(?:LOAD|STORE)_FAST", one.opname)
            found += [one._replace(opname=kind, argval=name) for kind, name in zip(kinds, one.argval, strict=True)]
        elif one.opname == "CALL_KW":  # its names are a constant, as those of KW_NAMES before Python 3.13
            found[-1] = found[-1]._replace(opname="KW_NAMES")
            found.append(one)
        elif one.opname != "PRECALL":
            found.append(one)
    return tuple(found)


def unassigned(function: types.FunctionType) -> Iterator[tuple[str, int | None]]:
    """Names that may have no value where they are read, each with that line: on some path nothing was assigned."""
    code = function.__code__
    listed = instructions(code)
    if all(kind == "LOAD" for instruction in listed for kind, _ in _uses(instruction)):
        return  # arguments only
    number = {instruction.offset: at for at, instruction in reversed(list(enumerate(listed)))}
    arguments = code.co_argcount + code.co_kwonlyargcount
    assigned: dict[int, frozenset[str]] = {0: frozenset(code.co_varnames[:arguments])}
    waiting = [0]
    while waiting:
        at = waiting.pop()
        instruction = listed[at]
        after = assigned[at] | {name for kind, name in _uses(instruction) if kind == "STORE"}
        for following in _following(instruction, at, number):
            before = assigned.get(following)
            met = after if before is None else before & after
            if met != before:
                assigned[following] = met
                waiting.append(following)
    for at, known in sorted(assigned.items()):
        have = set(known)
        for kind, name in _uses(listed[at]):
            if kind == "LOAD" and name not in have:
                positions = listed[at].positions
                yield name, positions.lineno if positions else None
            have.add(name)


def assigned_in_expressions(function: types.FunctionType) -> Iterator[int | None]:
    """Lines with ``:=``. Its value goes into a name and into an expression; that of ``x = y = …`` only into names."""
    listed = instructions(function.__code__)
    for at, (copy, store) in enumerate(itertools.pairwise(listed)):
        if (copy.opname, copy.arg) != ("COPY", 1) or not store.opname.startswith("STORE_FAST"):
            continue
        rest = itertools.islice(listed, at + 2, None)
        user = next(one for one in rest if not one.opname.startswith(("LOAD_", "BINARY_SUBSCR")))
        if not user.opname.startswith(("STORE_", "COPY")):
            yield store.positions.lineno if store.positions else None


def _uses(instruction: dis.Instruction) -> list[tuple[str, str]]:
    """The local name that an instruction reads or assigns, if any."""
    found = re.match(r"(LOAD|STORE)_FAST", instruction.opname)
    return [(found[1], instruction.argval)] if found else []


def _following(instruction: dis.Instruction, at: int, number: dict[int, int]) -> Iterator[int]:
    if instruction.opcode in _TARGETED and instruction.argval in number:
        yield number[instruction.argval]
    if instruction.opname not in _ENDS and instruction.opname not in _JUMPS_ALWAYS and at + 1 < len(number):
        yield at + 1
