"""From a kernel in Python to machine code, without wrappers for the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from numba import njit, types
from numba.np import numpy_support

from eventlab.fold.native.call import Code, Native, Types

_OUTSIDE = frozenset({
    "exp", "log", "log10", "sqrt", "fmod", "floor", "ceil", "trunc", "fabs", "copysign", "memcpy", "memset", "memmove",
})  # fmt: skip
"""Symbols that a kept kernel may need: those of the C library, which every process has."""

ALONE = {"_nrt": False}
"""Kernels allocate nothing. So they need no reference counts, and a loading process needs no Numba runtime."""


def compiled(
    function: Callable[..., None], wanted: Types, options: Mapping[str, Any] = ALONE
) -> tuple[Native, Code | None]:
    """Compile a kernel for arguments of these types.

    Returns
    -------
    Native, Code or None
        None where the kernel needs a symbol that another process may lack.
    """
    kernel = njit(**options, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    signature = tuple(
        types.int64 if isinstance(kind, str) else types.Array(numpy_support.from_dtype(kind), 1, "C") for kind in wanted
    )
    kernel.compile(signature)
    library, described = attrgetter("library", "fndesc")(kernel.overloads[signature])
    name = described.llvm_func_name
    native = Native(library.get_pointer_to_function(name), kernel)
    needs = _outside(library)
    if not needs <= _OUTSIDE:
        return native, None
    return native, Code(name, library._get_compiled_object(), sorted(needs))


def _outside(library: Any) -> set[str]:
    module = library._final_module
    return {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
