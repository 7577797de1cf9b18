"""Kernels as machine code: called by address without the GIL, and kept on disk between processes.

A kernel takes words as Numba passes them: where its result and its error go, an integer as it is, and of an array its
owners (none), length, item size, address, shape and strides. What is kept is an object file as LLVM made it, so that
loading takes a few milliseconds and needs LLVM alone, not the compiler. It is named by all that it was made from: the
reducer's code, the types of the arguments, this room's own source, the versions of compiler and interpreter, and the
processor. A file that is not whole is made again.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import platformdirs

Argument: TypeAlias = "int | npt.NDArray[Any]"
Types: TypeAlias = "tuple[str | np.dtype[Any], ...]"

FOLDER = "EVENTLAB_KERNELS"
"""The environment variable that names another folder than the user's cache."""

_MAGIC = b"ELKERN01"
_RAISED = 1  # status words of an entry; others than this and below zero mean that it came to its end


class KernelRaised(Exception):
    """A handler raised in a kernel, or a table outgrew its space: a kernel cannot say where."""


def types_of(arguments: Iterable[Argument]) -> Types:
    """What an entry is compiled for."""
    return tuple("int" if isinstance(argument, int) else argument.dtype for argument in arguments)


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
        result, error = (ctypes.c_int64 * 2)(), ctypes.c_void_p()
        words = [ctypes.addressof(result), ctypes.addressof(error)]
        for argument in arguments:
            if isinstance(argument, int):
                words.append(argument)
            else:
                rows, size = len(argument), argument.itemsize
                words += [0, 0, rows, size, argument.ctypes.data, rows, size]
        status = _prototype(len(words))(self.address)(*words)
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
    engine = llvm.create_mcjit_compiler(module, _target().create_target_machine(**_host(), opt=3, jit=True))
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
def _host() -> dict[str, str]:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return {"cpu": llvm.get_host_cpu_name(), "features": features, "codemodel": "jitdefault"}


# -- kept on disk


def key_of(parts: Iterable[str], types: Types) -> str:
    """The name of a kernel made from these."""
    sha = hashlib.sha256()
    for part in (*_environment(), *parts, *map(_described, types)):
        sha.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return sha.hexdigest()


def _described(kind: str | np.dtype[Any]) -> str:
    return kind if isinstance(kind, str) else f"{kind.descr}{kind.itemsize}"


@cache
def _environment() -> tuple[str, ...]:
    room = sorted(Path(__file__).parent.glob("*.py"))
    source = hashlib.sha256(b"\0".join(path.read_bytes() for path in room)).hexdigest()
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    return (source, *versions, sys.implementation.cache_tag or "", *_host().values())


def folder() -> Path:
    """Where kernels are kept."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else platformdirs.user_cache_path("eventlab") / "kernels"


def kept(key: str) -> Native | None:
    """A kernel that this or another process kept; None where there is none that can be used."""
    try:
        content = (folder() / key).read_bytes()
        head = len(_MAGIC)
        digest, size = content[head : head + 32], int.from_bytes(content[head + 32 : head + 36], "little")
        rest = content[head + 36 :]
        if content[:head] != _MAGIC or hashlib.sha256(rest).digest() != digest:
            return None
        said = json.loads(rest[:size])
        return load(Code(said["entry"], rest[size:], said["needs"]))
    except (OSError, ValueError, LookupError, RuntimeError):
        return None


def keep(key: str, code: Code) -> None:
    """Keep a kernel for later processes. A folder that cannot be written is nobody's harm."""
    said = json.dumps({"entry": code.entry, "needs": list(code.needs)}).encode()
    rest = said + code.content
    content = b"".join([_MAGIC, hashlib.sha256(rest).digest(), len(said).to_bytes(4, "little"), rest])
    place = folder()
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, beside = tempfile.mkstemp(dir=place, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(beside).replace(place / key)  # whole or not at all, whoever else writes the same
        except BaseException:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
            raise


class Function:
    """A kernel that no reducer has a part in: loaded or compiled when it is first called."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._native: dict[Types, Native] = {}

    def __call__(self, *arguments: Argument) -> None:
        types = types_of(arguments)
        native = self._native.get(types)
        if native is None:
            native = self._native[types] = self._made(types)
        native(*arguments)

    def _made(self, types: Types) -> Native:
        function = self._function
        key = key_of([function.__module__, function.__qualname__], types)
        found = kept(key)
        if found is None:
            from eventlab.fold.machine import compiled

            found, code = compiled(function, types)
            if code is not None:
                keep(key, code)
        return found
