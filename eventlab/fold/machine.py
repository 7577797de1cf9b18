"""From a kernel in Python to machine code with an entry that takes words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import numpy_support
from numba.np.arrayobj import make_array, populate_array

from eventlab.fold.native import Code, Native, Types

_OUTSIDE = frozenset({
    "exp", "log", "log10", "sqrt", "fmod", "floor", "ceil", "trunc", "fabs", "copysign", "memcpy", "memset", "memmove",
})  # fmt: skip
"""What code that is kept may need from outside: the C library, which every process has."""

ALONE = {"_nrt": False}
"""Nothing is allocated, so nothing is counted, nor is Numba's runtime needed where the code is loaded."""

_WORD = ir.IntType(64)


def compiled(
    function: Callable[..., None], wanted: Types, options: Mapping[str, Any] = ALONE
) -> tuple[Native, Code | None]:
    """Compile a kernel for arguments of these types.

    Returns
    -------
    Native, Code or None
        None where the code needs more than another process is sure to have.
    """
    inner = njit(**options)(function)
    scope: dict[str, Any] = {"inner": inner}
    arguments, at = [], 0
    for number, kind in enumerate(wanted):
        scope[f"read_{number}"] = _integer(at) if isinstance(kind, str) else _array(kind, at)
        arguments.append(f"read_{number}(words)")
        at += 1 if isinstance(kind, str) else 2
    exec(f"def entry(words):\n    inner({', '.join(arguments)})\n", scope)  # noqa: S102 - the text is all ours
    entry = njit(**ALONE, no_cpython_wrapper=True, no_cfunc_wrapper=True)(scope["entry"])
    signature = (types.CPointer(types.int64),)
    entry.compile(signature)
    made = entry.overloads[signature]
    library, name = made.library, made.fndesc.llvm_func_name
    native = Native(library.get_pointer_to_function(name), entry)
    needs = _outside(library)
    if not needs <= _OUTSIDE:
        return native, None
    return native, Code(name, library._get_compiled_object(), sorted(needs))


def _outside(library: Any) -> set[str]:
    module = library._final_module
    return {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}


def _word(builder: Any, words: Any, at: int) -> Any:
    return builder.load(builder.gep(words, [ir.Constant(_WORD, at)]))


def _integer(at: int) -> Any:
    @intrinsic
    def read(typingctx: Any, words: Any) -> Any:
        return types.int64(words), lambda context, builder, signature, given: _word(builder, given[0], at)

    return read


def _array(dtype: np.dtype[Any], at: int) -> Any:
    kind = types.Array(numpy_support.from_dtype(dtype), 1, "C")

    @intrinsic
    def read(typingctx: Any, words: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            array = make_array(kind)(context, builder)
            element = context.get_data_type(kind.dtype)
            step = ir.Constant(_WORD, dtype.itemsize)
            populate_array(
                array,
                data=builder.inttoptr(_word(builder, given[0], at), element.as_pointer()),
                shape=cgutils.pack_array(builder, [_word(builder, given[0], at + 1)]),
                strides=cgutils.pack_array(builder, [step]),
                itemsize=step,
                meminfo=None,
            )
            return array._getvalue()

        return kind(words), codegen

    return read
