"""Kernels as machine code: loaded with LLVM alone, not the compiler, and called by address without the GIL.

A kernel takes words as Numba passes them: where its result and its error go, an integer as it is, and of an array its
owners (none), length, item size, address, shape and strides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Argument: TypeAlias = "int | npt.NDArray[Any]"
Types: TypeAlias = "tuple[str | np.dtype[Any], ...]"

_Result = ctypes.c_int64 * 2

_RAISED = 1  # status words of an entry; others than this and below zero mean that it came to its end


class KernelRaised(Exception):
    """A handler raised in a kernel, or a table outgrew its space: a kernel cannot say where."""


def types_of(arguments: Iterable[Argument]) -> Types:
    """What an entry is compiled for."""
    return tuple("int" if isinstance(argument, int) else argument.dtype for argument in arguments)


def words_of(arguments: Iterable[Argument]) -> list[int]:
    """What an entry is called with. Whoever calls it keeps the arrays."""
    words = []
    for argument in arguments:
        if isinstance(argument, int):
            words.append(argument)
        else:
            rows, size = len(argument), argument.itemsize
            address = pa.py_buffer(argument).address  # a fifth of what argument.ctypes.data takes
            words += [0, 0, rows, size, address, rows, size]
    return words


@cache
def _prototype(words: int) -> Any:
    return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * words)


@dataclass(frozen=True, slots=True)
class Native:
    """A kernel in memory. `owner` keeps its code there."""

    address: int
    owner: Any = field(repr=False)

    def __call__(self, *arguments: Argument) -> None:
        """Run it; the GIL is free meanwhile.

        Raises
        ------
        KernelRaised
        """
        self.run(words_of(arguments))

    def run(self, words: Sequence[int]) -> None:
        """Run it as `__call__` does, with what `words_of` made of arguments."""
        result, error = _Result(), ctypes.c_void_p()
        whole = [ctypes.addressof(result), ctypes.addressof(error), *words]
        status = _prototype(len(whole))(self.address)(*whole)
        if status >= _RAISED or status == -1:
            raise KernelRaised


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel as it is kept: an object file, its entry, and what it needs from outside."""

    entry: str
    content: bytes = field(repr=False)
    needs: Sequence[str] = ()


def load(code: Code) -> Native:
    """Put a kernel's code into memory.

    Raises
    ------
    LookupError
        Something that it needs is not in this process.
    """
    import llvmlite.binding as llvm

    for name in code.needs:
        if not llvm.address_of_symbol(name):
            raise LookupError(name)
    module = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(module, _target().create_target_machine(**host(), opt=3, jit=True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.content))
    engine.finalize_object()
    return Native(engine.get_function_address(code.entry), (engine, module))


@cache
def _target() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


@cache
def host() -> dict[str, str]:
    """The processor, as LLVM compiles for it."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return {"cpu": llvm.get_host_cpu_name(), "features": features, "codemodel": "jitdefault"}
