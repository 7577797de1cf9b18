"""Arrays as kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


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
