"""Describes all that decides a function's behaviour, as text that is the same in every process.

That is its instructions and constants, and the globals, closures and helpers that it reaches; not comments, docstrings
or line numbers. Functions of installed packages are named and not followed.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

Function = types.FunctionType

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_MISSING = object()


def parts(function: Function) -> Iterator[str]:
    """The text, piece by piece."""
    reached = _Reached(function)
    for seen in reached.functions:  # the list grows in the loop
        code = seen.__code__
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        yield f"{arguments!r}|{reached.value(seen.__defaults__)}|{reached.value(seen.__kwdefaults__)}"
        yield from reached.code(code)
        for name, cell in zip(code.co_freevars, seen.__closure__ or (), strict=True):
            yield f"{name}={reached.cell(cell)}"
        yield from reached.globals(seen)


class _Reached:
    """The functions that a function reaches, numbered in order of discovery."""

    def __init__(self, function: Function) -> None:
        self.functions = [function]
        self._package = _package(function.__module__)

    def code(self, code: types.CodeType) -> Iterator[str]:
        for instruction in dis.get_instructions(code):
            argument = instruction.argval
            if instruction.opname == "KW_NAMES":  # in some versions an index of a constant
                argument = code.co_consts[instruction.arg or 0]
            if isinstance(argument, types.CodeType):
                yield f"{instruction.offset} {instruction.opname} ("
                yield from self.code(argument)
                yield ")"
            else:
                yield f"{instruction.offset} {instruction.opname} {self.value(argument)}"

    def globals(self, function: Function) -> Iterator[str]:
        found = {}
        for name, attribute in _loads(function.__code__):
            value = function.__globals__.get(name, _MISSING)
            if (
                isinstance(value, types.ModuleType)
                and attribute
                and not self._is_installed(_file_of(value), value.__name__)
            ):
                found[f"{name}.{attribute}"] = getattr(value, attribute, _MISSING)
            elif value is not _MISSING:  # a built-in's name says it all
                found[name] = value
        for name in sorted(found):
            yield f"{name}={self.value(found[name])}"

    def cell(self, cell: types.CellType) -> str:
        try:
            return self.value(cell.cell_contents)
        except ValueError:
            return "empty"

    def value(self, value: Any) -> str:
        """Canonical text of a global's value or a constant."""
        if isinstance(value, tuple | list):
            return f"{type(value).__name__}({', '.join(map(self.value, value))})"
        if isinstance(value, set | frozenset):  # whose order differs between processes
            return f"{{{', '.join(sorted(map(self.value, value)))}}}"
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{self.value(key)}: {self.value(item)}' for key, item in value.items())}}}"
        if isinstance(value, functools.partial):
            return f"partial {self.value((value.func, value.args, value.keywords))}"
        if isinstance(value, functools._lru_cache_wrapper):
            return self.value(value.__wrapped__)
        if isinstance(value, Function):
            return self._function(value)
        if isinstance(value, pl.Expr):
            return f"expression {_digest(value.meta.serialize())}"
        if isinstance(value, pl.DataFrame | pl.Series):
            frame = value.to_frame() if isinstance(value, pl.Series) else value
            return f"frame {frame.schema} {_digest(repr(frame.rows()).encode())}"
        if isinstance(value, np.ndarray):
            return f"array {value.dtype} {value.shape} {_digest(repr(value.tolist()).encode())}"
        if isinstance(value, types.ModuleType):
            return value.__name__
        if isinstance(value, type | types.BuiltinFunctionType):
            return f"{value.__module__}.{value.__qualname__}"
        kind = type(value)
        if getattr(kind, "__repr__", None) is object.__repr__ and self._is_installed(
            _file_of(sys.modules.get(kind.__module__)), kind.__module__
        ):
            return f"a {kind.__module__}.{kind.__qualname__}"
        # Where a class has no repr of its own, that is an address: the fingerprint then differs in every process.
        return repr(value)

    def _function(self, function: Function) -> str:
        if self._is_installed(function.__code__.co_filename, function.__module__):
            return f"{function.__module__}.{function.__qualname__}"
        if function not in self.functions:
            self.functions.append(function)
        return f"function {self.functions.index(function)}"

    def _is_installed(self, file: str | None, module: str | None) -> bool:
        if file is None:  # a notebook's __main__ has none either
            return module in sys.builtin_module_names
        return file.startswith(_INSTALLED) and _package(module) != self._package


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_of(module: types.ModuleType | None) -> str | None:
    return getattr(module, "__file__", None)


def _loads(code: types.CodeType) -> Iterator[tuple[str, str | None]]:
    """Global names that code and the functions in it load, each with the attribute taken from it, if one is."""
    name: str | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("PRECALL", "CACHE"):
            continue
        if name is not None:
            takes = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
            yield name, str(instruction.argval) if takes else None
        name = str(instruction.argval) if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") else None
        if isinstance(instruction.argval, types.CodeType):
            yield from _loads(instruction.argval)
