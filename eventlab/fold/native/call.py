"""Kernels as machine code: loaded by LLVM without the compiler, and called by address without the GIL.

A kernel takes 64-bit words in Numba's calling convention: the addresses of its result and error, then an integer as it
is, and an array as meminfo and parent (both null), length, item size, address, shape and strides.
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

_RAISED = 1
"""Status words from here on, and -1, are exceptions; all others are normal returns."""


class _Exposed:
    """An array's memory without the read-only flag, which Numba makes part of the type. Kernels never write to it."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.keep = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}


def writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory as a contiguous, writable array: kernels are compiled for no read-only ones."""
    array = np.ascontiguousarray(array)
    if array.flags.writeable:
        return array
    return np.asarray(_Exposed(array)) if len(array) else np.empty(0, array.dtype)


class KernelRaised(Exception):
    """A handler raised in a kernel, or a table outgrew its space. A kernel cannot say which event that was."""


def types_of(arguments: Iterable[Argument]) -> Types:
    """The argument types that an entry is compiled for."""
    return tuple("int" if isinstance(argument, int) else argument.dtype for argument in arguments)


def words_of(arguments: Iterable[Argument]) -> list[int]:
    """The words that an entry is called with. The caller keeps the arrays alive."""
    words = []
    for argument in arguments:
        if isinstance(argument, int):
            words.append(argument)
        else:
            rows, size = len(argument), argument.itemsize
            address = pa.py_buffer(argument).address  # five times as fast as argument.ctypes.data
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
        """Run the kernel, without the GIL.

        Raises
        ------
        KernelRaised
        """
        self.run(words_of(arguments))

    def run(self, words: Sequence[int]) -> None:
        """Run the kernel with words that `words_of` made."""
        result, error = _Result(), ctypes.c_void_p()
        arguments = [ctypes.addressof(result), ctypes.addressof(error), *words]
        status = _prototype(len(arguments))(self.address)(*arguments)
        if status >= _RAISED or status == -1:
            raise KernelRaised


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel as it is kept: an object file, its entry, and the symbols that it needs from the process."""

    entry: str
    content: bytes = field(repr=False)
    needs: Sequence[str] = ()


def load(code: Code) -> Native:
    """Load a kernel into memory.

    Raises
    ------
    LookupError
        The process lacks a symbol that the kernel needs.
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
    """The processor, as LLVM names it."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return {"cpu": llvm.get_host_cpu_name(), "features": features, "codemodel": "jitdefault"}
